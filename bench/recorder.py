"""What a generator process has seen: answers, their latencies, failures; given to locust in batches."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.histogram import Histogram, latency_of


class Recorder:
    """Counts since its start. A window is the difference of two moments; see `open` and `close`."""

    def __init__(self, method: str = "GET", name: str = "") -> None:
        self.method, self.name = method, name
        self.latencies = Histogram()
        self.lateness = Histogram()
        self.count = 0
        self.joined = 0
        """How many users have had their first answer."""
        self.received_bytes = 0
        self.failures: Counter[str] = Counter()
        self.refusal = ""
        self.overdue: Callable[[], list[float]] = list
        self.opened_at = 0.0
        self._reported = Histogram()
        self._reported_bytes = 0
        self._reported_failures: Counter[str] = Counter()

    def answered(self, latency_s: float, count: int, received_bytes: int) -> None:
        """`count` answers came, `latency_s` after they were asked for."""
        self.count += count
        self.received_bytes += received_bytes
        self.latencies.add(latency_s, count)

    def counted(self, count: int, received_bytes: int) -> None:
        """`count` answers came whose latency isn't known here."""
        self.count += count
        self.received_bytes += received_bytes

    def failed(self, reason: str) -> None:
        """A request had no good answer."""
        self.failures[reason] += 1

    def refused(self, reason: str) -> None:
        """The server can't do this kind of work at all."""
        self.refusal = self.refusal or reason

    def open(self) -> None:
        """The window that is measured begins now."""
        self.opened_at = time.perf_counter()
        self._opened_cpu_s = time.process_time()
        self._opened = (self.latencies.copy(), self.lateness.copy(), self.count, self.received_bytes)
        self._opened_failures = self.failures.copy()

    def close(self) -> dict[str, Any]:
        """The window ends now: its figures, for JSON. Times are seconds; busy is this process's share of a
        core.

        What is planned, due and not answered counts with its latency so far: left out, a stall would look
        good.
        """
        closed_at = time.perf_counter()
        elapsed_s = closed_at - self.opened_at
        overdue = [due for due in self.overdue() if due >= self.opened_at]
        for due in overdue:
            self.latencies.add(max(0.0, closed_at - due))
        latencies, lateness, count, received_bytes = self._opened
        return {
            "elapsed_s": elapsed_s,
            "count": self.count - count,
            "received_bytes": self.received_bytes - received_bytes,
            "busy": (time.process_time() - self._opened_cpu_s) / elapsed_s,
            "latencies": self.latencies.difference(latencies).as_pairs(),
            "lateness": self.lateness.difference(lateness).as_pairs(),
            "failures": dict(self.failures - self._opened_failures),
            "failures_before": dict(self._opened_failures),
            "joined": self.joined,
            "overdue": len(overdue),
            "refusal": self.refusal,
        }

    def report(self, stats: Any) -> None:
        """Add what came since the last call to locust's statistics (a `locust.stats.RequestStats`).

        locust's own way takes some microseconds a request. This takes some a bucket. Its times are
        milliseconds.
        """
        new = self.latencies.difference(self._reported)
        content_bytes = self.received_bytes - self._reported_bytes
        self._reported, self._reported_bytes = self.latencies.copy(), self.received_bytes
        now = time.time()
        for entry in (stats.total, stats.get(self.name, self.method)):
            for bucket, count in new.counts.items():
                time_ms = latency_of(bucket) * 1e3
                entry.response_times[round(time_ms, 3)] = (
                    entry.response_times.get(round(time_ms, 3), 0) + count
                )
                entry.total_response_time += time_ms * count
                entry.max_response_time = max(entry.max_response_time, time_ms)
                low = entry.min_response_time
                entry.min_response_time = time_ms if low is None else min(low, time_ms)
            total = new.total
            if total:
                entry.num_requests += total
                entry.num_reqs_per_sec[int(now)] = entry.num_reqs_per_sec.get(int(now), 0) + total
                entry.total_content_length += content_bytes
                entry.last_request_timestamp = now
        for reason, count in (self.failures - self._reported_failures).items():
            for _ in range(count):
                stats.log_error(self.method, self.name, reason)
        self._reported_failures = self.failures.copy()
