"""Sends what the server logs to gunicorn's loggers, of whatever class these are."""

import logging
from typing import Any


class _GunicornHandler(logging.Handler):
    """Passes the server's records on to gunicorn's logger, of whatever class that is."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._write = {
            logging.CRITICAL: log.critical,
            logging.ERROR: log.error,
            logging.WARNING: log.warning,
            logging.INFO: log.info,
        }
        self._debug = log.debug

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self._write.get(record.levelno, self._debug)("%s", record.getMessage(), exc_info=record.exc_info)
        except Exception:
            self.handleError(record)


def route_log(log: Any) -> None:
    """Send what the server logs to gunicorn's error log, unless logconfig names handlers for it."""
    logger = logging.getLogger("fastasgi.error")
    if not logger.handlers:
        logger.addHandler(_GunicornHandler(log))
        logger.propagate = False


def route_access_log(log: Any) -> None:
    """Send the lines of the server's own access log, if CONFIG_KWARGS turn it on, to gunicorn's handlers."""
    logger = logging.getLogger("fastasgi.access")
    if not logger.handlers:
        logger.handlers = list(log.access_log.handlers)
        logger.propagate = False
