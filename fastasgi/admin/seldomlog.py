"""Lines of the log that whoever reaches the admin listener may cause: few, with the number of the rest."""

import logging
import time

logger = logging.getLogger("fastasgi.error")

INTERVAL_S = 10.0


class SeldomLog:
    """Logs one kind of event: the first one, and then what has come of it within each INTERVAL_S.

    more tells of several, with one %d for how many.
    """

    def __init__(self, level: int, more: str) -> None:
        self._level = level
        self._more = more
        self._untold = 0
        self._told_at = -INTERVAL_S

    def log(self, line: str, *, error: BaseException | None = None) -> None:
        """The event has come, and this line would tell of it."""
        self.tell_rest()
        now = time.monotonic()
        if now - self._told_at < INTERVAL_S:
            self._untold += 1
            return
        self._told_at = now
        logger.log(self._level, "%s", line, exc_info=error)

    def tell_rest(self) -> None:
        """Log how many there were without a line, if it is time for that."""
        now = time.monotonic()
        if self._untold and now - self._told_at >= INTERVAL_S:
            logger.log(self._level, self._more, self._untold)
            self._untold, self._told_at = 0, now
