"""Logs requests that take long, with where they wait."""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol

from fastasgi.system.stacks import joined, request_text, waits

logger = logging.getLogger("fastasgi.error")

WINDOW_S = 10.0
MOST_LINES = 10  # in that time


class RunningRequest(Protocol):
    """A request whose response is not complete."""

    has_line: bool  # the log has told of it while it ran

    @property
    def task(self) -> "asyncio.Task[Any] | None":
        """The task of the application's call, while that waits."""

    def progress(self) -> tuple[str, str, float, int, int, bool]:
        """Method, path, seconds since it came, bytes of its body that have come and of its response that were
        sent, and whether its client is waited for.
        """


class SlowLog:
    """Writes a line for each request that it is told of, MOST_LINES in WINDOW_S, and counts the rest."""

    def __init__(self) -> None:
        self._began_at = -WINDOW_S  # a monotonic time: of the window
        self._lines = 0
        self._untold = 0

    def tell(self, requests: Iterable[RunningRequest]) -> None:
        """Log these requests, which have not been logged before."""
        for request in requests:
            if self._has_line():
                request.has_line = True
                logger.warning("%s", slow_text(request))

    def tell_ended(self, requests: Iterable[tuple[str, str, float, bool]], more: int) -> None:
        """Log how long requests took that are over; there were so many more.

        Of each the method, the path, seconds, and whether it had a line before, which this one follows then.
        """
        for method, path, seconds, has_line in requests:
            if has_line or self._has_line():
                logger.warning("%s took %.1f s", request_text(method, path), seconds)
        self._untold += more

    def _has_line(self) -> bool:
        """Whether there is a line for another request; otherwise it is counted."""
        now = time.monotonic()
        if now - self._began_at >= WINDOW_S:
            self.tell_rest()
            self._began_at, self._lines = now, 0
        if self._lines < MOST_LINES:
            self._lines += 1
            return True
        self._untold += 1
        return False

    def tell_rest(self) -> None:
        """Log how many requests have had no line, if there are any."""
        untold, self._untold = self._untold, 0
        if untold:
            logger.warning("%d more request%s took longer than log_slow", untold, "" if untold == 1 else "s")


def slow_text(request: RunningRequest) -> str:
    """What the log says of a request that takes long."""
    method, path, seconds, received, sent, waits_for_client = request.progress()
    who = "its client" if waits_for_client else "the application"
    return (
        f"{request_text(method, path)} takes {seconds:.1f} s so far (received {received} bytes, "
        f"sent {sent}) and waits for {who}: {where_waits(request.task)}"
    )


def where_waits(task: "asyncio.Task[Any] | None") -> str:
    """Where a task waits, in one line. Code of the application's may hinder that, but not more."""
    try:
        where = "" if task is None else joined(waits(task))
    except Exception as error:
        return f"where can't be told ({type(error).__name__})"
    return where or "it does not say where"
