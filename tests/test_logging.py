import asyncio
import configparser
import io
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import ServerProcess, fetch

from fastasgi.config import Config
from fastasgi.errors import ConfigError
from fastasgi.logging import (
    LOGGING_CONFIG,
    AccessFormatter,
    DefaultFormatter,
    reopen_log_files,
)
from fastasgi.logs.accessroute import AccessRoute

ACCESS_ARGUMENTS = ("127.0.0.1:5000", "GET", "/a?b=c", "1.1", 404)


async def app(scope, receive, send):
    pass


def record(message: str, *args: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("fastasgi.error", level, "file.py", 1, message, args, None)
    made.__dict__.update(extra)
    return made


# Formatters


@pytest.mark.parametrize(
    ("level", "name", "expected"),
    [
        (5, "TRACE", "TRACE:    text"),
        (logging.INFO, "INFO", "INFO:     text"),
        (logging.WARNING, "WARNING", "WARNING:  text"),
        (logging.CRITICAL, "CRITICAL", "CRITICAL: text"),
    ],
)
def test_messages_begin_in_one_column(level: int, name: str, expected: str) -> None:
    logging.addLevelName(level, name)
    formatter = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=False)
    assert formatter.format(record("text", level=level)) == expected


def test_colours_take_the_message_made_for_them() -> None:
    formatter = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=True)
    given = record("process %d", 7, color_message="\x1b[36mprocess %d\x1b[0m")
    assert formatter.format(given) == "\x1b[32mINFO\x1b[0m:     \x1b[36mprocess 7\x1b[0m"
    assert given.getMessage() == "process 7"


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_colours_depend_on_the_stream_that_is_written_to(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal() if stream == "stderr" else io.StringIO())
    monkeypatch.setattr(sys, "stdout", Terminal() if stream == "stdout" else io.StringIO())
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert DefaultFormatter().use_colors == (stream == "stderr")
    assert AccessFormatter().use_colors == (stream == "stdout")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not DefaultFormatter().use_colors
    assert not AccessFormatter().use_colors
    assert DefaultFormatter(use_colors=True).use_colors


def test_an_access_line() -> None:
    line = '%s - "%s %s HTTP/%s" %d'
    expected = 'INFO:     127.0.0.1:5000 - "GET /a?b=c HTTP/1.1" 404 Not Found'
    assert AccessFormatter(use_colors=False).format(record(line, *ACCESS_ARGUMENTS)) == expected
    coloured = (
        '\x1b[32mINFO\x1b[0m:     127.0.0.1:5000 - "\x1b[1mGET /a?b=c HTTP/1.1\x1b[0m" '
        "\x1b[31m404 Not Found\x1b[0m"
    )
    assert AccessFormatter(use_colors=True).format(record(line, *ACCESS_ARGUMENTS)) == coloured


def test_an_access_line_of_a_format_of_its_own_stays_as_it_is() -> None:
    assert AccessFormatter(use_colors=True).format(record("%s", '{"status": 200}')) == '{"status": 200}'


# Configuration

USER_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"fastasgi": {"level": "ERROR"}},
}
USER_INI = """
[loggers]
keys=root,server
[handlers]
keys=
[formatters]
keys=
[logger_root]
handlers=
[logger_server]
level=ERROR
handlers=
qualname=fastasgi
"""


def user_file(folder: Path, kind: str) -> Any:
    if kind == "dict":
        return USER_CONFIG
    if kind == "parser":
        parser = configparser.RawConfigParser()
        parser.read_string(USER_INI)
        return parser
    if kind == "file":
        return io.StringIO(USER_INI)
    path = folder / f"log.{kind}"
    # JSON is YAML.
    path.write_text(USER_INI if kind == "ini" else json.dumps(USER_CONFIG))
    return path


@pytest.mark.parametrize("kind", ["dict", "parser", "file", "ini", "json", "yaml", "yml"])
def test_a_users_configuration_is_applied(kind: str, tmp_path: Path) -> None:
    if kind.startswith("y"):
        pytest.importorskip("yaml")
    root_handlers = logging.getLogger().handlers[:]
    try:
        Config(app, log_config=user_file(tmp_path, kind))
    finally:
        logging.getLogger().handlers = root_handlers
    assert logging.getLogger("fastasgi").level == logging.ERROR


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("none.ini", None, "No such file or directory"),
        ("none.json", None, "No such file or directory"),
        ("bad.json", "{", "Expecting property name"),
        ("bad.json", "[]", "log_config"),
        ("bad.json", '{"version": 1, "handlers": {"x": {"class": "no.Handler"}}}', "handler 'x'"),
        ("bad.ini", "[loggers]\n", "log_config"),
        ("bad.ini", "text", "log_config"),
        ("bad.yaml", "{", "while parsing"),
    ],
)
def test_an_unusable_configuration_is_one_line(
    name: str, text: str | None, reason: str, tmp_path: Path
) -> None:
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"^log_config .*{name}' can't be used: .") as caught:
        Config(app, log_config=str(path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_without_pyyaml_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="pip install pyyaml"):
        Config(app, log_config=user_file(tmp_path, "yaml"))


def test_no_configuration_leaves_handlers_alone() -> None:
    handler = logging.NullHandler()
    logging.getLogger("fastasgi").handlers = [handler]
    Config(app, log_config=None, log_level="debug")
    assert logging.getLogger("fastasgi").handlers == [handler]
    assert logging.getLogger("fastasgi.error").level == logging.DEBUG


# The access log


@pytest.fixture
def made() -> Iterator[Callable[..., AccessRoute | None]]:
    """Configures logging, and gives where access lines go then; None: nowhere."""
    made = []

    def make(line_format: str | None = None, **settings: Any) -> AccessRoute | None:
        Config(app, **settings)
        made.append(AccessRoute(line_format))
        return made[-1] if made[-1].look() else None

    yield make
    for route in made:
        route.close()


def test_default_handlers_are_written_to_directly(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    route = made(use_colors=False)
    route.write("two\nlines\n")
    assert capsys.readouterr().out == "two\nlines\n"
    assert (route.prefix, route.use_colors, route.logger) == ("INFO:     ", False, None)


def test_the_direct_prefix_has_the_formatters_colour(made: Any) -> None:
    route = made(use_colors=True)
    assert (route.prefix, route.use_colors) == ("\x1b[32mINFO\x1b[0m:     ", True)


def test_a_format_stands_alone_in_its_line(made: Any) -> None:
    route = made(use_colors=True, line_format="json")
    assert (route.prefix, route.use_colors) == ("", False)


def test_a_failing_stream_is_reported_as_logging_does(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    route = made()
    logging.getLogger("fastasgi.access").handlers[0].setStream(None)
    route.write("line\n")
    assert "--- Logging error ---" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        {"access_log": False},
        {"log_level": "warning"},
        {
            "log_config": {
                "version": 1,
                "incremental": True,
                "loggers": {"fastasgi.access": {"level": "ERROR"}},
            }
        },
    ],
)
def test_where_nothing_would_be_written_the_access_log_is_off(made: Any, settings: dict[str, Any]) -> None:
    assert made(**settings) is None


def with_format(name: str, text: str) -> dict[str, Any]:
    return {**LOGGING_CONFIG, "formatters": {**LOGGING_CONFIG["formatters"], name: {"format": text}}}


def other_format() -> Any:
    return {"log_config": with_format("access", "%(message)s")}


def other_filter() -> Any:
    logging.getLogger("fastasgi.access").addFilter(lambda record: True)
    return {}


def other_handler() -> Any:
    handlers = {**LOGGING_CONFIG["handlers"], "access": {"class": "logging.NullHandler"}}
    return {"log_config": {**LOGGING_CONFIG, "handlers": handlers}}


def more_propagation() -> Any:
    loggers = {"fastasgi.access": {"handlers": ["access"], "level": "INFO", "propagate": True}}
    return {"log_config": {**LOGGING_CONFIG, "loggers": {**LOGGING_CONFIG["loggers"], **loggers}}}


@pytest.mark.parametrize("change", [other_format, other_filter, other_handler, more_propagation])
def test_any_handling_but_the_default_goes_through_logging(made: Any, change: Callable[[], Any]) -> None:
    assert made(**change()).logger is logging.getLogger("fastasgi.access")


@pytest.mark.parametrize("line_format", ["{nope}", "{status", "{header[]}"])
def test_an_unknown_atom_is_named(line_format: str) -> None:
    with pytest.raises(ConfigError, match=r"^access_log_format "):
        Config(app, access_log_format=line_format)


HELLO = """
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})
"""


# Reopening


@pytest.fixture
def file_logger(tmp_path: Path) -> Iterator[logging.Logger]:
    """A logger that writes to logs/file.log."""
    (tmp_path / "logs").mkdir()
    handler = logging.FileHandler(tmp_path / "logs/file.log")
    logger = logging.getLogger("tests.reopened")
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def test_a_file_that_was_moved_is_made_again(file_logger: logging.Logger, tmp_path: Path) -> None:
    file_logger.warning("before")
    (tmp_path / "logs/file.log").rename(tmp_path / "moved.log")
    reopen_log_files()
    file_logger.warning("after")
    assert (tmp_path / "moved.log").read_text() == "before\n"
    assert (tmp_path / "logs/file.log").read_text() == "after\n"


def test_a_file_that_cannot_be_made_again_is_kept(
    file_logger: logging.Logger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").rename(tmp_path / "moved")
    reopen_log_files()
    file_logger.warning("after")
    assert (tmp_path / "moved/file.log").read_text() == "after\n"
    assert [record.getMessage() for record in caplog.records if record.name == "fastasgi.error"] == [
        "A log file can't be opened again: [Errno 2] No such file or directory: "
        f"'{tmp_path / 'logs/file.log'}'"
    ]


def answered(server: ServerProcess) -> str:
    """The access log after one request."""
    assert asyncio.run(fetch(server.port)).startswith(b"HTTP/1.1 200")
    server.end()
    return server.output


def test_the_default_line_over_the_wire(start: Callable[..., ServerProcess]) -> None:
    output = answered(start(HELLO, "app:app", "--port", "0"))
    assert re.fullmatch(r'INFO:     127\.0\.0\.1:\d+ - "GET / HTTP/1\.1" 200 OK\n', output)


def test_the_json_line_over_the_wire(start: Callable[..., ServerProcess]) -> None:
    line = json.loads(answered(start(HELLO, "app:app", "--port", "0", "--access-log-format", "json")))
    assert (line["status"], line["bytes"], line["path"]) == (200, 2, "/")


def test_a_users_logger_over_the_wire(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(json.dumps(with_format("access", "mine %(name)s %(message)s")))
    output = answered(start(HELLO, "app:app", "--port", "0", "--log-config", "log.json"))
    assert output.startswith("mine fastasgi.access 127.0.0.1:")
    assert output.endswith('"GET / HTTP/1.1" 200\n')


def test_the_access_log_is_off(start: Callable[..., ServerProcess]) -> None:
    assert answered(start(HELLO, "app:app", "--port", "0", "--no-access-log")) == ""


ENDING = """
    import ctypes, os

    async def app(scope, receive, send):
        if scope["path"] == "/copy" and os.fork() == 0:
            os.abort()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        if scope["path"] == "/crash":
            ctypes.string_at(0)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGQUIT, signal.SIGTRAP, signal.SIGIO, signal.SIGABRT, signal.SIGSEGV]
)
def test_a_signal_that_ends_the_process_loses_no_line(
    number: signal.Signals, start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start(ENDING, "app:app", "--port", "0", environment={**os.environ, "PYTHONFAULTHANDLER": "1"})
    asyncio.run(fetch(server.port, "GET /copy HTTP/1.0\r\n\r\n"))
    if number == signal.SIGSEGV:
        asyncio.run(fetch(server.port, "GET /crash HTTP/1.0\r\n\r\n"))
        assert server.wait() == -number
        assert "Fatal Python error" in server.log
        assert server.output.count("/crash") == 1
    else:
        assert server.end(number) == -number
    assert server.output.count("/copy") == 1
