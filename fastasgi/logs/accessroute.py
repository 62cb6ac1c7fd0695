"""Where access lines go, as the logger ``fastasgi.access`` is set at the moment. Knows no requests."""

import atexit
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TextIO

from fastasgi.logs.accesslog import AccessLog
from fastasgi.logs.formatters import ACCESS_FORMAT, AccessFormatter
from fastasgi.logs.namesakes import NAMES, PairedLogger

OWN_NAMES = frozenset((*NAMES, *NAMES.values()))


def make_access_log(enabled: bool, line_format: str | None) -> AccessLog | None:
    """The worker's access log; None if it is not enabled."""
    if not enabled:
        return None
    route = AccessRoute(line_format)
    log = AccessLog(format=line_format, route=route)
    # A program may end with its server in a daemon thread
    atexit.register(route.flush)
    return log


class AccessRoute:
    """Where access lines go, which may have changed each time that one looks.

    If the logger has the default handler and nothing else, batches of lines are given to ``write``, which
    writes them to that handler's stream. With any other handler, filter, formatter or propagation each line
    goes through ``logger``. While lines wait for ``write``, some records must not overtake them, and have
    ``flush`` called first: all of the server's own logger, and from level ERROR on those that reach the
    handlers of the root logger.
    """

    def __init__(self, line_format: str | None) -> None:
        self.logger: logging.Logger | None = None  # None if lines are given to write
        self.prefix = ""  # with which each of uvicorn's lines begins, if they are given to write
        self.use_colors = False
        self.at_once = False  # lines are not to wait for a batch, since they go to a terminal
        self.descriptor = -1  # file descriptor that write writes to; -1 if it is not known
        self.flush: Callable[[], None] = lambda: None
        self._has_format = line_format is not None
        self._handler: logging.StreamHandler[TextIO] | None = None
        self._first = _WriteFirst(self)
        self._preceded: list[logging.Handler] = []  # handlers that have the filter _first

    def look(self) -> bool:
        """Look again; nothing may wait to be written. Returns whether anything would be."""
        logger = logging.getLogger("fastasgi.access")
        is_on = logger.isEnabledFor(logging.INFO) and logger.hasHandlers()
        handler = self._handler = _default_handler(logger) if is_on else None
        self.logger = logger if is_on and handler is None else None
        self.at_once = handler is not None and _is_terminal(handler.stream)
        self.descriptor = -1
        if handler is not None:
            formatter = handler.formatter
            assert isinstance(formatter, AccessFormatter)
            self.prefix = "" if self._has_format else formatter.level_prefix(logging.INFO, "INFO") + " "
            self.use_colors = formatter.use_colors and not self._has_format
            with contextlib.suppress(Exception):
                self.descriptor = handler.stream.fileno()
        self._precede([] if handler is None or self.at_once else _other_handlers(handler))
        return is_on

    def write(self, lines: str) -> None:
        """Write lines, each with its end."""
        handler = self._handler
        if handler is None:
            return
        handler.acquire()
        try:
            try:
                handler.stream.write(lines)
            except UnicodeEncodeError as error:
                # A format's own text may need more than the stream's encoding has
                handler.stream.write(lines.encode(error.encoding, "backslashreplace").decode(error.encoding))
            handler.flush()
        except Exception:
            handler.handleError(logging.makeLogRecord({"msg": "access log", "name": "fastasgi.access"}))
        finally:
            handler.release()

    def close(self) -> None:
        """Leave the handlers of others alone, and the end of the process."""
        self._precede([])
        atexit.unregister(self.flush)

    def _precede(self, handlers: list[logging.Handler]) -> None:
        """Have records that come to these handlers, and to no others, wait for the lines before them."""
        for handler in self._preceded:
            if handler not in handlers:
                handler.removeFilter(self._first)
        for handler in handlers:
            handler.addFilter(self._first)
        self._preceded = handlers


class _WriteFirst(logging.Filter):
    """Lets every record through, once the lines before it are written."""

    def __init__(self, route: AccessRoute) -> None:
        super().__init__()
        self._route = route

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR or record.name in OWN_NAMES:
            self._route.flush()
        return True


def _default_handler(logger: logging.Logger) -> "logging.StreamHandler[TextIO] | None":
    """The logger's handler if it is exactly the one that LOGGING_CONFIG sets up, else None."""
    if type(logger) not in (logging.Logger, PairedLogger) or logger.propagate or logger.filters:
        return None
    if len(logger.handlers) != 1:
        return None
    handler = logger.handlers[0]
    formatter = handler.formatter
    if type(handler) is not logging.StreamHandler or handler.filters or handler.level > logging.INFO:
        return None
    return handler if type(formatter) is AccessFormatter and formatter._fmt == ACCESS_FORMAT else None


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except Exception:  # closed, or a stand-in that has no such method
        return False


def _other_handlers(handler: logging.Handler) -> list[logging.Handler]:
    """Those that records of the server and of applications come to, but not this one."""
    return [other for other in dict.fromkeys(_reached_handlers()) if other is not handler]


def _reached_handlers() -> Iterator[logging.Handler]:
    logger: logging.Logger | None = logging.getLogger("fastasgi.error")
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None
    yield from logging.getLogger().handlers
    if logging.lastResort is not None:
        yield logging.lastResort
