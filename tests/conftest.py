"""Fixtures of more than one test module."""

import fcntl
import logging
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority, Pair
from hypothesis import settings
from serving import ServerProcess, Start
from watching import watch_sinks
from wire import Reads

from fastasgi.logs.namesakes import NAMES, part_loggers

# How long an example takes says how busy the machine is
settings.register_profile("fastasgi", deadline=None)
settings.load_profile("fastasgi")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server process: ``start(source of app.py, *arguments)``; ended with the test."""
    started = []

    def start(source: str, *arguments: str, environment: dict[str, str] | None = None) -> ServerProcess:
        (tmp_path / "app.py").write_text(textwrap.dedent(source))
        started.append(ServerProcess(tmp_path, *arguments, environment=environment))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For tests that keep all processors busy: one at a time, beside those that measure time."""
    path = tmp_path_factory.getbasetemp().parent / "alone"  # that of all processes of a run
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which is empty; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Watches the reads of servers that start from now on."""
    reads = Reads()

    def watch(event: str, n: int) -> None:
        if event.startswith("read "):
            reads.events.append(event)
        if event == "read ends":
            reads.note(n)

    watch_sinks(monkeypatch, watch)
    return reads


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs the certificates of a test."""
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    """A server's certificate and its key."""
    return authority.issue()


@pytest.fixture(autouse=True)
def restore_loggers() -> Iterator[None]:
    """Take the server's loggers, and uvicorn's, back to what they were."""
    part_loggers()
    loggers = [logging.getLogger(name) for name in (*NAMES, *NAMES.values(), "fastasgi.asgi")]
    states = [(x.handlers[:], x.filters[:], x.level, x.propagate, x.disabled) for x in loggers]
    yield
    part_loggers()
    for logger, state in zip(loggers, states, strict=True):
        logger.handlers, logger.filters, logger.level, logger.propagate, logger.disabled = state
        logger.setLevel(state[2])
