"""Fixtures of more than one test module."""

import logging
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from serving import ServerProcess

from fastasgi.logs.namesakes import NAMES, part_loggers

# How long an example takes says how busy the machine is
settings.register_profile("fastasgi", deadline=None)
settings.load_profile("fastasgi")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts a server process: ``start(source of app.py, *arguments)``; ended with the test."""
    started = []

    def start(source: str, *arguments: str, environment: dict[str, str] | None = None) -> ServerProcess:
        (tmp_path / "app.py").write_text(textwrap.dedent(source))
        started.append(ServerProcess(tmp_path, *arguments, environment=environment))
        return started[-1]

    yield start
    for process in started:
        process.close()


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
