"""Logging of programs that were written for uvicorn: its names act on the server's own loggers."""

import asyncio
import configparser
import copy
import io
import json
import logging
import logging.config
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import fetch, port_of, serving

from fastasgi.config import Config
from fastasgi.logging import LOGGING_CONFIG, AccessFormatter, DefaultFormatter
from fastasgi.logs.namesakes import pair_loggers, part_loggers

ACCESS, ERROR = (logging.getLogger(f"fastasgi.{name}") for name in ("access", "error"))
THEIR_ACCESS, THEIR_ERROR = (logging.getLogger(f"uvicorn.{name}") for name in ("access", "error"))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class List(logging.Handler):
    """Keeps the names and texts of records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture
def root_lines() -> Iterator[list[str]]:
    """What the root logger's handlers get."""
    handler = List()
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)


# Configurations

FORMATTERS = {
    "default": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s"},
    "access": {"class": "uvicorn.logging.AccessFormatter", "format": "mine %(client_addr)s"},
}
HANDLERS = {
    "default": {"class": "logging.StreamHandler", "formatter": "default", "stream": "ext://sys.stderr"},
    "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
}
LOGGERS = {
    "uvicorn": {"handlers": ["default"], "level": "ERROR", "propagate": False},
    "uvicorn.access": {"handlers": ["access"], "level": "WARNING", "propagate": False},
}
UVICORNS = {"version": 1, "formatters": FORMATTERS, "handlers": HANDLERS, "loggers": LOGGERS}
UVICORNS_INI = """
[loggers]
keys=root,one,two
[handlers]
keys=default,access
[formatters]
keys=default,access
[formatter_default]
class=uvicorn.logging.DefaultFormatter
[formatter_access]
class=uvicorn.logging.AccessFormatter
format=mine %(client_addr)s
[handler_default]
class=StreamHandler
formatter=default
args=(sys.stderr,)
[handler_access]
class=StreamHandler
formatter=access
args=(sys.stdout,)
[logger_root]
handlers=
[logger_one]
qualname=uvicorn
level=ERROR
handlers=default
propagate=0
[logger_two]
qualname=uvicorn.access
level=WARNING
handlers=access
propagate=0
"""


@pytest.mark.parametrize("kind", ["dict", "json", "ini", "file", "parser"])
def test_a_configuration_of_uvicorns_names_means_ours(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # not installed
    root_handlers = logging.getLogger().handlers[:]
    given: Any = UVICORNS
    if kind in ("json", "ini"):
        given = tmp_path / f"log.{kind}"
        given.write_text(json.dumps(UVICORNS) if kind == "json" else UVICORNS_INI)
    elif kind == "file":
        given = io.StringIO(UVICORNS_INI)
    elif kind == "parser":
        given = configparser.RawConfigParser()
        given.read_string(UVICORNS_INI)
    before = copy.deepcopy(given) if kind in ("dict", "parser") else given
    try:
        config = Config(app, log_config=given)
    finally:
        logging.getLogger().handlers = root_handlers
    assert given == before
    [handler], [access_handler] = logging.getLogger("fastasgi").handlers, ACCESS.handlers
    assert (type(handler.formatter), type(access_handler.formatter)) == (DefaultFormatter, AccessFormatter)
    assert (ERROR.getEffectiveLevel(), ACCESS.level) == (logging.ERROR, logging.WARNING)
    assert (ERROR.disabled, ACCESS.disabled) == (False, False)
    assert sorted(config.uvicorn_names) == [
        *("uvicorn", "uvicorn.access", "uvicorn.logging.AccessFormatter", "uvicorn.logging.DefaultFormatter"),
    ]


def test_a_class_of_uvicorns_itself_means_ours() -> None:
    theirs = pytest.importorskip("uvicorn.logging").AccessFormatter
    Config(app, log_config={**UVICORNS, "formatters": {**FORMATTERS, "access": {"()": theirs}}})
    assert type(ACCESS.handlers[0].formatter) is AccessFormatter


@pytest.mark.parametrize("kind", ["dict", "parser"])
def test_a_configuration_that_names_both_is_taken_as_it_stands(kind: str) -> None:
    given: Any = {**UVICORNS, "loggers": {**LOGGERS, "fastasgi.access": {"level": "ERROR"}}}
    root_handlers = logging.getLogger().handlers[:]
    if kind == "parser":
        given = configparser.RawConfigParser()
        given.read_string(
            UVICORNS_INI.replace("one,two", "one,two,three")
            + "[logger_three]\nqualname=fastasgi.access\nlevel=ERROR\nhandlers=\n"
        )
    pair_loggers()
    try:
        Config(app, log_config=given)
    finally:
        logging.getLogger().handlers = root_handlers
    assert (ACCESS.level, len(ACCESS.handlers)) == (logging.ERROR, 0)
    assert (THEIR_ACCESS.level, len(THEIR_ACCESS.handlers)) == (logging.WARNING, 1)
    assert type(THEIR_ACCESS) is type(ACCESS) is logging.Logger


def by_key(config: Any) -> None:
    config["loggers"]["uvicorn.access"]["level"] = "ERROR"


def by_entry(config: Any) -> None:
    config["loggers"]["uvicorn.access"] = {"level": "ERROR"}


def by_dict(config: Any) -> None:
    config["loggers"] = {**config["loggers"], "uvicorn.access": {"level": "ERROR"}}


def by_our_entry(config: Any) -> None:
    config["loggers"]["fastasgi.access"] = {"level": "ERROR"}


@pytest.mark.parametrize("change", [by_key, by_entry, by_dict, by_our_entry])
@pytest.mark.parametrize("is_copied", [False, True])
def test_the_built_in_configuration_is_changed_under_either_name(
    change: Callable[[Any], None], is_copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = copy.deepcopy(LOGGING_CONFIG)
    if not is_copied:
        monkeypatch.setattr("fastasgi.config.LOGGING_CONFIG", config)
    change(config)
    Config(app, **({"log_config": config} if is_copied else {}))
    assert ACCESS.level == logging.ERROR
    assert (ERROR.level, len(logging.getLogger("fastasgi").handlers)) == (logging.INFO, 1)


# What code does to uvicorn's loggers


@pytest.mark.parametrize(
    "change",
    [
        lambda logger: logger.setLevel(logging.WARNING),
        lambda logger: setattr(logger, "disabled", True),
        lambda logger: logger.addFilter(lambda record: False),
        lambda logger: logger.filters.append(lambda record: False),
        lambda logger: logger.handlers.clear(),
        lambda logger: setattr(logger, "handlers", []),
        lambda logger: logger.removeHandler(logger.handlers[0]),
    ],
)
def test_what_is_set_on_uvicorns_logger_acts_on_ours(
    change: Callable[[logging.Logger], None], capsys: pytest.CaptureFixture[str]
) -> None:
    Config(app)
    ACCESS.info("one")
    change(THEIR_ACCESS)
    ACCESS.info("two")
    THEIR_ACCESS.info("three")
    assert capsys.readouterr().out == "one\n"


def test_what_was_set_before_acts_too(capsys: pytest.CaptureFixture[str]) -> None:
    THEIR_ACCESS.addFilter(lambda record: "two" not in record.getMessage())
    THEIR_ERROR.disabled = True
    Config(app)
    ACCESS.info("one")
    ACCESS.info("two")
    assert capsys.readouterr().out == "one\n"


def test_handlers_set_before_are_ours_where_no_configuration_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "uvicorn.server", raising=False)
    handler = List()
    THEIR_ERROR.handlers, THEIR_ERROR.propagate = [handler], False
    THEIR_ACCESS.setLevel(logging.WARNING)
    Config(app, log_config=None)
    ERROR.error("text")
    assert handler.lines == ["fastasgi.error: text"]
    assert ACCESS.level == logging.WARNING


def test_what_is_logged_by_uvicorns_comes_out_through_ours_once(
    root_lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Config(app, use_colors=False)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).warning("%s", name)
    assert capsys.readouterr().err == "WARNING:  uvicorn\nWARNING:  uvicorn.error\nWARNING:  uvicorn.asgi\n"
    assert root_lines == []
    logging.getLogger("uvicorn").propagate = True
    ERROR.warning("ours")
    THEIR_ERROR.warning("theirs")
    assert root_lines == ["fastasgi.error: ours", "uvicorn.error: theirs"]
    assert capsys.readouterr().err == "WARNING:  ours\nWARNING:  theirs\n"


@pytest.mark.parametrize(
    ("named", "is_access_off", "is_error_off"),
    [
        (["uvicorn.access"], False, True),
        (["uvicorn"], False, False),
        (["fastasgi.access"], False, True),
        (["fastasgi.access", "uvicorn.error"], False, False),
        ([], True, True),
    ],
)
@pytest.mark.parametrize("kind", ["dict", "file"])
def test_a_configuration_in_the_application_disables_what_it_names_by_neither_name(
    kind: str, named: list[str], is_access_off: bool, is_error_off: bool
) -> None:
    Config(app)
    if kind == "dict":
        logging.config.dictConfig({"version": 1, "loggers": {name: {"level": "INFO"} for name in named}})
    else:
        root_handlers = logging.getLogger().handlers[:]
        sections = "".join(f"[logger_{name}]\nqualname={name}\nhandlers=\n" for name in named)
        head = "[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
        text = f"[loggers]\nkeys={','.join(['root', *named])}\n{head}{sections}"
        try:
            logging.config.fileConfig(io.StringIO(text))
        finally:
            logging.getLogger().handlers = root_handlers
    assert (ACCESS.disabled, ERROR.disabled) == (is_access_off, is_error_off)
    assert (THEIR_ACCESS.disabled, THEIR_ERROR.disabled) == (is_access_off, is_error_off)
    logging.getLogger("fastasgi.access").disabled = False
    assert not THEIR_ACCESS.disabled


def test_a_logger_class_of_the_users_stays_what_it_is() -> None:
    class Mine(logging.Logger):
        def whose(self) -> str:
            return "mine"

    THEIR_ACCESS.__class__ = Mine
    try:
        Config(app)
        THEIR_ACCESS.setLevel(logging.ERROR)
        assert (THEIR_ACCESS.whose(), ACCESS.level) == ("mine", logging.ERROR)  # type: ignore[attr-defined]
        part_loggers()
        assert type(THEIR_ACCESS) is Mine
    finally:
        THEIR_ACCESS.__class__ = logging.Logger


def test_a_uvicorn_that_serves_here_keeps_its_loggers() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    uvicorn.Config(app, log_level="error")
    Config(app)
    assert THEIR_ACCESS.level == logging.ERROR
    assert (ACCESS.level, type(THEIR_ACCESS)) == (logging.INFO, logging.Logger)


def test_a_uvicorn_that_is_only_imported_keeps_nothing() -> None:
    """Programs import its formatters, and give its loggers handlers of their own."""
    uvicorn = pytest.importorskip("uvicorn")
    handler = List()
    handler.setFormatter(uvicorn.logging.ColourizedFormatter())
    THEIR_ACCESS.addHandler(handler)
    Config(app, log_config=None)
    ACCESS.warning("ours")
    assert handler.lines == ["fastasgi.access: ours"]


def test_one_line_at_the_start_says_what_was_mapped(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = {"uvicorn.error": {"level": "INFO", "handlers": ["default"]}}

    async def named(scope: Any, receive: Any, send: Any) -> None:
        THEIR_ACCESS.addFilter(lambda record: True)  # in the lifespan
        await app(scope, receive, send)

    async def serve(given: Any, **settings: Any) -> str:
        async with serving(given, **settings):
            pass
        return capsys.readouterr().err

    log = asyncio.run(
        serve(named, log_config={**UVICORNS, "disable_existing_loggers": False, "loggers": loggers})
    )
    [line] = [line for line in log.splitlines() if "uvicorn" in line]
    assert line == (
        "INFO:     Taken for fastasgi's own in logging: uvicorn.access, uvicorn.error, "
        "uvicorn.logging.AccessFormatter, uvicorn.logging.DefaultFormatter"
    )
    part_loggers()
    THEIR_ACCESS.filters.clear()
    assert "uvicorn" not in asyncio.run(serve(app))


def test_other_processes_keep_their_loggers() -> None:
    """Only who configures a server pairs them: an import does not."""
    code = "import logging, fastasgi.server; assert type(logging.getLogger('uvicorn')) is logging.Logger"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_servers_share_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with serving(app) as first, serving(app) as second:
            THEIR_ACCESS.addFilter(lambda record: "/kept" in record.getMessage())
            for server in (first, second):
                for path in ("/kept", "/left-out"):
                    await fetch(
                        port_of(server), f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                    )

    asyncio.run(run())
    lines = capsys.readouterr().out
    assert (lines.count("/kept"), lines.count("/left-out")) == (2, 0)
