"""What the workers of a server have done and are doing, as it stands in their shared memory."""

import bisect
import itertools
import mmap
from dataclasses import dataclass, fields
from typing import Any

from fastasgi.core.counters import BUCKETS, bucket_start_s, read_row
from fastasgi.core.shares import last_row

STARTS_S = [bucket_start_s(bucket) for bucket in range(BUCKETS + 1)]
"""Where each bucket of a Histogram begins, in seconds, and where the last one ends."""


@dataclass(frozen=True)
class Histogram:
    """How often which time was seen. Buckets are log-linear: 16 an octave, so that a time is known to 3 %."""

    counts: list[int]
    sum_s: float

    @property
    def total(self) -> int:
        """How many times are counted."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The time, in seconds, that this share of all does not exceed; 0.0 if there are none."""
        total = self.total
        if total == 0:
            return 0.0
        sums = list(itertools.accumulate(self.counts))
        bucket = min(bisect.bisect_left(sums, max(1.0, share * total)), BUCKETS - 1)
        return (STARTS_S[bucket] + STARTS_S[bucket + 1]) / 2

    def at_most(self, seconds: float) -> int:
        """How many are certain to be no longer than this."""
        return sum(self.counts[: bisect.bisect_right(STARTS_S, seconds) - 1])

    def plus(self, other: "Histogram") -> "Histogram":
        """Both together."""
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(counts, self.sum_s + other.sum_s)

    def minus(self, earlier: "Histogram") -> "Histogram":
        """What has been counted since."""
        counts = [a - b for a, b in zip(self.counts, earlier.counts, strict=True)]
        return Histogram(counts, self.sum_s - earlier.sum_s)


@dataclass(frozen=True)
class Counts:
    """What is counted in one row, or in several together.

    Counts never fall. What a process has now, from pid to descriptors_limit, is 0 while no process has the
    row. Keys of responses are the protocol ("1.0", "1.1", "2", "ws"), the method, and the class of the status
    ("2xx"; "aborted" if the client left before the response was complete); a WebSocket that was opened is of
    class "1xx". Keys of open are what a connection speaks ("1", "2", "ws"; "none" if that is not known yet),
    and "plain" or "tls".
    """

    slot: int
    is_running: bool
    pid: int
    started_at: float  # Unix time
    beat_at: float  # Unix time at which the event loop last turned, as far as is known
    running: int
    websockets: int
    open: dict[tuple[str, str], int]
    is_shedding: bool
    resident_bytes: int
    descriptors: int
    descriptors_limit: int
    starts: int
    ends: dict[str, int]
    responses: dict[tuple[str, str, str], int]
    first_byte: Histogram
    duration: Histogram
    lag: Histogram
    bytes_received: int
    bytes_sent: int
    accepted: dict[str, int]
    refusals: dict[str, int]
    timeouts: dict[str, int]
    exceptions: int
    messages_received: int
    messages_sent: int
    busy_s: float
    cpu_s: float
    stalls: int
    stalled_s: float
    sheds: int
    gc_pauses: list[int]
    gc_pause_s: list[float]
    last_stalls: list[dict[str, Any]]
    last_refusals: list[dict[str, Any]]

    def plus(self, other: "Counts") -> "Counts":
        """Both together: sums, the records of both by their time, and slot and pid of the one that runs."""
        shown = self if self.is_running or not other.is_running else other
        names = [field.name for field in fields(self)]
        return Counts(
            **{name: _joined(name, getattr(self, name), getattr(other, name), shown) for name in names}
        )


def _joined(name: str, one: Any, other: Any, shown: Counts) -> Any:
    if name in ("slot", "pid", "started_at", "beat_at"):
        return getattr(shown, name)
    if isinstance(one, bool):
        return one or other
    if isinstance(one, Histogram):
        return one.plus(other)
    if isinstance(one, dict):
        return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
    if isinstance(one, list) and name.startswith("last_"):
        return sorted(one + other, key=lambda record: float(record.get("at", 0)))
    if isinstance(one, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    return one + other


def read_counts(memory: mmap.mmap) -> list[Counts]:
    """The counts of each row that any process has had, of memory that ``processes.rows`` has laid out."""
    counts = []
    for row in range(1, last_row(memory) + 1):
        content = read_row(memory, row)
        if content is not None:
            for name in ("first_byte", "duration", "lag"):
                content[name] = Histogram(*content[name])
            counts.append(Counts(**content))
    return counts
