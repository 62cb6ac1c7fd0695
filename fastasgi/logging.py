"""The server's loggers: their default look, and the user's own configuration."""

import copy
import importlib
import json
import logging
import logging.config
import os
from configparser import ConfigParser, RawConfigParser
from typing import IO, Any

from fastasgi.errors import ConfigError
from fastasgi.logs.accesslog import parse_format
from fastasgi.logs.formatters import ACCESS_FORMAT, styled
from fastasgi.logs.formatters import TRACE_LOG_LEVEL as TRACE_LOG_LEVEL
from fastasgi.logs.formatters import AccessFormatter as AccessFormatter
from fastasgi.logs.formatters import ColourizedFormatter as ColourizedFormatter
from fastasgi.logs.formatters import DefaultFormatter as DefaultFormatter
from fastasgi.logs.namesakes import (
    NAMES,
    BuiltIn,
    pair_loggers,
    part_loggers,
    settle_names,
    used_names,
)

LogConfig = dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None

LOG_LEVELS = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE_LOG_LEVEL,
}

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "fastasgi.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "fastasgi.logging.AccessFormatter",
            "fmt": ACCESS_FORMAT,
            "use_colors": None,
        },
    },
    "handlers": {
        "default": {"class": "logging.StreamHandler", "formatter": "default", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "fastasgi": BuiltIn(handlers=["default"], level="INFO", propagate=False),
        "fastasgi.error": BuiltIn(level="INFO"),
        "fastasgi.access": BuiltIn(handlers=["access"], level="INFO", propagate=False),
    },
}
# Programs written for uvicorn change them under its names
LOGGING_CONFIG["loggers"] |= {name: LOGGING_CONFIG["loggers"][ours] for name, ours in NAMES.items()}


def checked_log_level(level: Any) -> str | int | None:
    """A level as ``configure_logging`` takes it: a name of LOG_LEVELS in any case. Raises ConfigError."""
    if isinstance(level, str) and level.lower() in LOG_LEVELS:
        return level.lower()
    if level is None or (isinstance(level, int) and not isinstance(level, bool)):
        return level
    raise ConfigError(f"log_level {level!r}: give {', '.join(LOG_LEVELS)}, or a number")


def configure_logging(
    log_config: LogConfig, level: str | int | None, access_log: bool, use_colors: bool | None
) -> list[str]:
    """Set the loggers up, uvicorn's with them. log_config None leaves all handlers alone.

    Returns the names of uvicorn's loggers and classes in it that have been taken for ours. Raises ConfigError
    if log_config can't be used.
    """
    logging.addLevelName(TRACE_LOG_LEVEL, "TRACE")
    try:
        settled = settle_names(_loaded(log_config))
        if settled.names_both:
            part_loggers()
        else:
            pair_loggers()
        _apply(settled.config, use_colors)
    except Exception as error:
        raise ConfigError(f"log_config {_named(log_config)} can't be used: {_reason(error)}") from error
    if level is not None:
        number = LOG_LEVELS[level] if isinstance(level, str) else level
        logging.getLogger("fastasgi.error").setLevel(number)
        logging.getLogger("fastasgi.access").setLevel(number)
        logging.getLogger("fastasgi.asgi").setLevel(number)
    if not access_log:
        logging.getLogger("fastasgi.access").handlers = []
        logging.getLogger("fastasgi.access").propagate = False
    return settled.changed


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = f"no section {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return text if error.__cause__ is None else f"{text}: {_reason(error.__cause__)}"


def _named(log_config: LogConfig) -> str:
    return (
        repr(os.fspath(log_config))
        if isinstance(log_config, str | os.PathLike)
        else type(log_config).__name__
    )


def _loaded(log_config: LogConfig) -> Any:
    """A dict as logging.config.dictConfig takes it, a parser as fileConfig does, or None."""
    if log_config is None or isinstance(log_config, dict | RawConfigParser):
        return log_config
    parser = ConfigParser()
    if not isinstance(log_config, str | os.PathLike):
        parser.read_file(log_config)
        return parser
    path = os.fspath(log_config)
    if path.endswith((".json", ".yaml", ".yml")):
        return _read(path)
    with open(path, encoding="utf-8") as file:
        parser.read_file(file)
    return parser


def _apply(config: Any, use_colors: bool | None) -> None:
    if config is None:
        return
    if isinstance(config, RawConfigParser):
        logging.config.fileConfig(config, disable_existing_loggers=False)
        return
    if use_colors is not None:
        config = copy.deepcopy(config)
        for name in ("default", "access"):
            if name in config.get("formatters", {}):
                config["formatters"][name]["use_colors"] = use_colors
    logging.config.dictConfig(config)


def _read(path: str) -> Any:
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    try:
        yaml = importlib.import_module("yaml")
    except ModuleNotFoundError:
        raise ImportError("YAML needs the PyYAML package: pip install pyyaml") from None
    with open(path, encoding="utf-8") as file:
        try:
            return yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None


def log_process(what: str, kind: str) -> None:
    """Log that this process, of some kind, has ``Started`` or ``Finished``."""
    text = f"{what} {kind} process [%d]"
    color_text = f"{what} {kind} process [{styled('%d', '36')}]"
    logging.getLogger("fastasgi.error").info(text, os.getpid(), extra={"color_message": color_text})


def log_mapping(configured: list[str]) -> None:
    """Log which names of uvicorn's were taken for ours: those in log_config, and loggers set by code."""
    names = sorted({*used_names(), *configured})
    if names:
        logging.getLogger("fastasgi.error").info("Taken for fastasgi's own in logging: %s", ", ".join(names))


def reopen_log_files(owner: tuple[int, int] = (-1, -1)) -> None:
    """Open the files of all handlers again: what has moved them gets a new file under the old name.

    owner is the user and group that the files are to have; -1 leaves them as they are. A file that can't be
    opened is told in the error log, and its handler goes on with the old one.
    """
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    for handler in handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            handler.acquire()
            try:
                handler.flush()
                former, handler.stream = handler.stream, handler._open()
                former.close()
                if owner != (-1, -1):
                    os.chown(handler.stream.fileno(), *owner)
            except OSError as error:
                logging.getLogger("fastasgi.error").error("A log file can't be opened again: %s", error)
            finally:
                handler.release()


def check_access_log_format(line_format: str) -> None:
    """Raise ConfigError if a format has a placeholder that there isn't."""
    try:
        parse_format(line_format)
    except ValueError as error:
        raise ConfigError(f"access_log_format {line_format!r}: {error}") from None
