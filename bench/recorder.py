"""What a generator process has seen: answers, their latencies, failures."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.histogram import Histogram


class Recorder:
    """Counts since its start. A window is the difference of two moments; see `open` and `close`."""

    def __init__(self) -> None:
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

    def answered(self, latency_s: float, count: int, received_bytes: int) -> None:
        """`count` answers came, `latency_s` after they were asked for."""
        self.count += count
        self.received_bytes += received_bytes
        self.latencies.add(latency_s, count)

    def failed(self, reason: str, count: int = 1) -> None:
        """`count` requests had no good answer."""
        self.failures[reason] += count

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
