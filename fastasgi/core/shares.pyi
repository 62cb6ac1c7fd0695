"""How many connections each worker of a server has, in memory that they share."""

import mmap

ROW_SIZE: int
"""Bytes of one row. Row 0 is a header's, workers have those from 1 on."""

def new_row(memory: mmap.mmap, rows: int) -> int:
    """The next row, of so many, that no worker has had; 0 if there is none.

    `memory` is one of zeros at first. Several processes may ask at once.
    """

def last_row(memory: mmap.mmap) -> int:
    """The last row that any worker has had; 0 if none had one."""

def clear_row(memory: mmap.mmap, row: int) -> None:
    """Clear the row of a worker that has ended. Raises ValueError if there is no such row."""

class Shares:
    """The row of one worker, and a view of all others."""

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        """Raises ValueError if it has no such row."""
