"""How lines of the log look: levels and statuses in colours, uvicorn's classes for them.

Users name them ``fastasgi.logging.DefaultFormatter`` and ``fastasgi.logging.AccessFormatter``.
"""

import copy
import logging
import os
import sys
from typing import Literal, TextIO

from fastasgi.logs.accesslog import describe_status

TRACE_LOG_LEVEL = 5  # uvicorn's, below DEBUG: each message of ASGI

ACCESS_FORMAT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'

_LEVEL_STYLES = {
    TRACE_LOG_LEVEL: "34",
    logging.DEBUG: "36",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "91",
}
_PREFIX_WIDTH = len("CRITICAL:")


def styled(text: str, code: str = "1") -> str:
    """The text between an ANSI SGR code (bold, unless told) and the reset."""
    return f"\x1b[{code}m{text}\x1b[0m"


class ColourizedFormatter(logging.Formatter):
    """Lines such as ``INFO:     text``: ``%(levelprefix)s`` is the padded level.

    With colours, a record's ``color_message`` stands in for its message.
    ``use_colors=None``: on a terminal only.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style)
        if use_colors is None:
            stream = self.stream()
            use_colors = stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")
        self.use_colors = use_colors

    def stream(self) -> TextIO | None:
        """The stream whose being a terminal decides on colours."""
        return sys.stdout

    def color_level_name(self, level_name: str, level_no: int) -> str:
        """A level's name in its colour. For subclasses that have others."""
        style = _LEVEL_STYLES.get(level_no)
        return level_name if style is None else styled(level_name, style)

    def level_prefix(self, level: int, name: str) -> str:
        """``INFO:    ``: level name and colon, padded so that all messages begin in one column."""
        padding = " " * (_PREFIX_WIDTH - len(name) - 1)
        if self.use_colors:
            name = self.color_level_name(name, level)
        return f"{name}:{padding}"

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record without its traceback."""
        record = copy.copy(record)
        color_message = record.__dict__.get("color_message")
        if self.use_colors and color_message is not None:
            record.msg = color_message
            record.message = record.getMessage()
        record.__dict__["levelprefix"] = self.level_prefix(record.levelno, record.levelname)
        return super().formatMessage(record)


class DefaultFormatter(ColourizedFormatter):
    """Lines such as ``INFO:     text`` on standard error, for all but the access log."""

    def stream(self) -> TextIO | None:
        """Standard error."""
        return sys.stderr


class AccessFormatter(ColourizedFormatter):
    """Access log lines: ``%(client_addr)s``, ``%(request_line)s`` and ``%(status_code)s`` of a record."""

    def __init__(
        self,
        fmt: str | None = ACCESS_FORMAT,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style, use_colors)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record; if its arguments are not those of an access log, its message alone."""
        record = copy.copy(record)
        if not isinstance(record.args, tuple) or len(record.args) != 5:
            return record.getMessage()
        client, method, path, version, status = record.args
        line = f"{method} {path} HTTP/{version}"
        record.__dict__["client_addr"] = client
        record.__dict__["request_line"] = styled(line) if self.use_colors else line
        record.__dict__["status_code"] = self.get_status_code(int(str(status)))
        return super().formatMessage(record)

    def get_status_code(self, status_code: int) -> str:
        """A status and its phrase, perhaps in its colour. For subclasses that show it otherwise."""
        return describe_status(status_code, self.use_colors)
