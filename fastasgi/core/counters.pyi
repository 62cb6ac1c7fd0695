"""What a worker has done and is doing, in memory that other processes read."""

import mmap
from typing import Any

LAYOUT: int
"""The number of the layout of a memory, which processes that share one have to know."""
AREA_SIZE: int
"""Bytes that the counts of one row take."""
BUCKETS: int
"""The number of buckets of a histogram."""
PROTOCOLS: tuple[str, ...]
WIRES: tuple[str, ...]
METHODS: tuple[str, ...]
CLASSES: tuple[str, ...]
REFUSALS: tuple[str, ...]
TIMEOUTS: tuple[str, ...]
ENDS: tuple[str, ...]
"""Why a worker has ended. Each of these has the names that index one of the counts."""

def bucket_start_s(bucket: int) -> float:
    """The least time that is counted in a bucket, in seconds; for BUCKETS, where the last one ends."""

def bucket_of_time(seconds: float) -> int:
    """The bucket in which a time is counted."""

def memory_size(rows: int) -> int:
    """Bytes of a memory with so many rows, of which the first, row 0, is no process's."""

def rows_in(size: int) -> int:
    """The number of rows, row 0 included, of a memory of so many bytes."""

def area_of(size: int, row: int) -> tuple[int, int]:
    """Where the counts of a row begin in a memory of so many bytes, and how many bytes these are.

    Raises ValueError if there is no such row.
    """

def take_row(memory: mmap.mmap, row: int, slot: int) -> bool:
    """Give the row to a process of this slot, 0 or more, that is about to start.

    False if it can't have it: another process has it, or another slot.
    """

def give_row_back(memory: mmap.mmap, row: int, end: str) -> None:
    """The process that had the row has ended, for one of the reasons in ENDS; "" if it was not started."""

def read_row(memory: mmap.mmap, row: int) -> dict[str, Any] | None:
    """What is in a row, by the names of ``admin.counts.Counts``; None if nobody has ever had it.

    Raises ValueError if there is no such row.
    """

def new_counters() -> Counters:
    """A row of memory that no other process has."""

class Counters:
    """The row of one process."""

    @property
    def memory(self) -> mmap.mmap:
        """All of the memory in which the row is."""

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        """Raises ValueError if there is no such row."""

    def begin(self, pid: int, descriptors_limit: int) -> None:
        """The process of this row has started."""

    def beat(self) -> None:
        """The event loop turns."""

    def note_lag(self, seconds: float) -> None:
        """The event loop was so late with a call that was due."""

    def note_usage(self, resident_bytes: int, descriptors: int, cpu_s: float, busy_s: float) -> None:
        """What the process has now, and the processor time it, and the busy time its event loop, has used.

        Both are in seconds since this was last called.
        """

    def note_stall(self, record: dict[str, Any], is_new: bool) -> None:
        """The event loop is blocked, or was: record has "at", "duration_s", "is_over" and more.

        With is_new it is another stall than the last one that was told of. What does not fit of the list
        "where" is left out.
        """

    def on_gc(self, phase: str, info: dict[str, Any]) -> None:
        """For gc.callbacks: count how long each collection takes."""
