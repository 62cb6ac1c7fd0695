"""How many connections each worker of a server has, in memory that they share."""

import mmap

ROW_SIZE: int
"""Bytes of one row. Row 0 is a header's, workers have those from 1 on."""

def give_row(memory: mmap.mmap, row: int) -> None:
    """Clear a row for a worker that is about to start. One process alone gives the rows of a memory.

    `memory` is one of zeros at first. Raises ValueError if it has no such row.
    """

def clear_row(memory: mmap.mmap, row: int) -> None:
    """Clear the row of a worker that has ended."""

class Shares:
    """The row of one worker, and a view of all others."""

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        """Raises ValueError if it has no such row."""
