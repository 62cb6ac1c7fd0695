"""A source of what an admin listener tells, whose counts and report a test sets."""

import time
from dataclasses import replace
from typing import Any

from fastasgi.admin.counts import STARTS_S, Counts, Histogram, read_counts
from fastasgi.admin.report import Report, WorkerReport
from fastasgi.core.counters import BUCKETS, bucket_of_time, new_counters

NO_COUNTS = replace(read_counts(new_counters().memory)[0], is_running=False, starts=0)


def histogram(times: list[float]) -> Histogram:
    """These times, in seconds."""
    counts = [0] * BUCKETS
    for each in times:
        counts[bucket_of_time(each)] += 1
    assert len(STARTS_S) == BUCKETS + 1
    return Histogram(counts, sum(times))


def row(slot: int = 0, pid: int = 100, **values: Any) -> Counts:
    """The counts of a process that runs; with pid 0 of one that has ended."""
    return replace(NO_COUNTS, slot=slot, pid=pid, is_running=pid != 0, starts=1, **values)


def responses(number: int, status_class: str = "2xx") -> dict[tuple[str, str, str], int]:
    """So many responses to GET."""
    return {("1.1", "GET", status_class): number}


class Told:
    """A source. `rows` and `report_` are what it tells."""

    def __init__(self, *rows: Counts) -> None:
        self.rows = list(rows)
        self.report_ = Report(
            at=time.time(),
            started_at=time.time(),
            phase="running",
            is_live=True,
            live_reason="the supervisor replaces workers that end",
            is_ready=True,
            ready_reason="2 of 2 workers serve",
        )

    def report(self) -> Report:
        return self.report_

    def counts(self) -> list[Counts]:
        return self.rows

    def say(self, **values: Any) -> None:
        """Change parts of the report."""
        self.report_ = replace(self.report_, **values)


def worker(slot: int, pid: int, state: str = "serving", **values: Any) -> WorkerReport:
    """A worker that has started just now."""
    return WorkerReport(slot=slot, pid=pid, state=state, started_at=time.time(), **values)
