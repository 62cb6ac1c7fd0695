"""The rows of the memory that all workers of a supervisor share: each process has one of its own.

What is in a row stands in ``core.shares``. Knows no process.
"""

import heapq
import logging
import mmap
import os
from dataclasses import dataclass

from fastasgi.core.shares import ROW_SIZE, Shares, clear_row, give_row
from fastasgi.system.sharedmemory import map_shared, open_shared

logger = logging.getLogger("fastasgi.error")

ROWS = 1024  # those that nobody has had yet cost nothing


@dataclass(frozen=True)
class Row:
    """A row, by its number, of mapped memory, whose descriptor is for a process that has not mapped it."""

    memory: mmap.mmap
    descriptor: int
    number: int

    @classmethod
    def inherited(cls, descriptor: int, number: int) -> "Row":
        """A row of memory whose descriptor this process has inherited, and which is closed here.

        Raises OSError.
        """
        try:
            return cls(map_shared(descriptor), -1, number)
        finally:
            os.close(descriptor)

    def shares(self) -> Shares:
        """What the worker that has this row tells in it, and reads in those of the others."""
        return Shares(self.memory, self.number)


class Rows:
    """All rows. If the system gives no memory there are none, and each worker accepts as if it were alone."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._memory: mmap.mmap | None = None
        self._free: list[
            int
        ] = []  # a heap: the lowest are given first, since workers read all rows up to the last
        try:
            self._descriptor = open_shared(ROWS * ROW_SIZE)
            self._memory = map_shared(self._descriptor)
        except OSError as error:
            logger.warning("Workers can't see how many connections the others have: %s", error)
        else:
            self._free = list(range(1, ROWS))  # row 0 is a header's

    def take(self) -> Row | None:
        """A row for a process that is about to start; None if there is none."""
        if self._memory is None or not self._free:
            return None
        number = heapq.heappop(self._free)
        give_row(self._memory, number)
        return Row(self._memory, self._descriptor, number)

    def give_back(self, row: Row | None) -> None:
        """The process that had this row has ended, or was not started."""
        if row is not None:
            clear_row(row.memory, row.number)
            heapq.heappush(self._free, row.number)

    def close(self) -> None:
        """Close the descriptor: from now on no process can be given the memory but a copy of this one."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
