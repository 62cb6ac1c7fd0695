"""Where the admin listener has what it tells from."""

import mmap
import time
from collections.abc import Callable
from typing import Protocol

from fastasgi.admin.counts import Counts, read_counts
from fastasgi.admin.report import Report

SILENT_S = 5.0  # a supervisor that runs, and has not been heard for so long, can't replace workers


class Source(Protocol):
    """What is told of a server. Neither call waits for the server."""

    def report(self) -> Report:
        """The last that the server has said of itself."""

    def counts(self) -> list[Counts]:
        """What its workers count, a row each."""


class EmbeddedSource:
    """Tells of a server in this process; its report is made when it is asked for."""

    def __init__(self, report: Callable[[], Report], memory: mmap.mmap) -> None:
        self.report = report
        self._memory = memory

    def counts(self) -> list[Counts]:
        """What the server counts, as one row."""
        return read_counts(self._memory)


class HeardSource:
    """Tells what a supervisor has last said of itself, and what stands in the memory that it shares.

    It must have said something before it is asked. Without memory nothing is counted.
    """

    def __init__(self, memory: mmap.mmap | None) -> None:
        self._report: Report | None = None
        self._memory = memory
        self._heard_at = time.monotonic()
        self._is_gone = False

    def hear(self, report: Report) -> None:
        """The supervisor has said this just now."""
        self._report = report
        self._heard_at = time.monotonic()

    def note_end(self) -> None:
        """The supervisor has ended."""
        self._is_gone = True

    def report(self) -> Report:
        """The last report; not live if the supervisor has been silent since."""
        assert self._report is not None
        if self._is_gone:
            return self._report.not_live("the supervisor has ended")
        silent_s = time.monotonic() - self._heard_at
        # While it starts it may be importing the application, and says nothing
        if silent_s > SILENT_S and self._report.phase != "starting":
            return self._report.not_live(f"the supervisor has been silent for {silent_s:.0f} s")
        return self._report

    def counts(self) -> list[Counts]:
        """What all workers count, a row each."""
        return [] if self._memory is None else read_counts(self._memory)
