"""The rows of the memory that all workers of a supervisor share: each process has one of its own.

What is in a row stands in ``core.shares`` and ``core.counters``. Knows no process.
"""

import logging
import mmap
import os
from dataclasses import dataclass

from fastasgi.core.counters import Counters, area_of, give_row_back, memory_size, rows_in, take_row
from fastasgi.core.shares import Shares, clear_row, last_row, new_row
from fastasgi.system.sharedmemory import allocate, map_shared, open_shared

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

    def counters(self) -> Counters:
        """Where the worker that has this row counts what it does."""
        return Counters(self.memory, self.number)


class Rows:
    """All rows, of new memory or of that of another supervisor, by its descriptor.

    If the system gives no memory there are none, and each worker accepts as if it were alone, and counts for
    itself.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = descriptor  # -1 if there is no memory, or it is closed
        self.memory: mmap.mmap | None = None
        try:
            if descriptor < 0:
                self.descriptor = open_shared(memory_size(ROWS))
            self.memory = map_shared(self.descriptor)
            allocate(self.descriptor, 0, area_of(len(self.memory), 1)[0])
        except OSError as error:
            self.memory = None
            self._tell(error)

    def take(self, slot: int) -> Row | None:
        """A row for a process of this slot that is about to start; None if there is none.

        A slot that has had a row gets it again once its process has ended, so that counts go on.
        """
        if self.memory is None:
            return None
        for number in range(1, last_row(self.memory) + 1):
            if take_row(self.memory, number, slot):
                return Row(self.memory, self.descriptor, number)
        number = self._new_row(self.memory)
        if number == 0 or not take_row(self.memory, number, slot):
            return None
        return Row(self.memory, self.descriptor, number)

    def _new_row(self, memory: mmap.mmap) -> int:
        """The number of a row that nobody has had, with room for it; 0 if there is none."""
        size, due = len(memory), last_row(memory) + 1
        if due == rows_in(size):
            return 0
        try:
            # Before it is a row: whoever reads all of them must find it
            allocate(self.descriptor, *area_of(size, due))
            number = new_row(memory, rows_in(size))
            if number != due:  # another supervisor, whose place this one takes, was quicker
                allocate(self.descriptor, *area_of(size, number))
        except OSError as error:
            self._tell(error)
            return 0
        return number

    def give_back(self, row: Row | None, end: str) -> None:
        """The process that had this row has ended, for a reason of ENDS; "" if it was not started."""
        if row is not None:
            clear_row(row.memory, row.number)
            give_row_back(row.memory, row.number, end)

    def close(self) -> None:
        """Close the descriptor: from now on no process can be given the memory but a copy of this one."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _tell(self, error: OSError) -> None:
        logger.warning("Workers can't see each other's connections, nor be counted: %s", error)
