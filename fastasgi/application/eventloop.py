"""The event loop that the application runs in, as the setting ``loop`` names it."""

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import cast

from fastasgi.application.importer import import_from_string
from fastasgi.errors import AppImportError, ConfigError

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(loop: str | asyncio.AbstractEventLoop | LoopFactory) -> LoopFactory:
    """The function that makes the event loop. Raises ConfigError if there is none for this value."""
    if isinstance(loop, asyncio.AbstractEventLoop):
        raise ConfigError(
            f"loop {loop!r} is a loop, and run() makes one: await Server(config).serve() in yours, "
            "or give a function that makes a loop"
        )
    if not isinstance(loop, str):
        return loop
    if loop == "none":
        return asyncio.new_event_loop
    if ":" in loop:
        return _imported(loop)
    is_auto = loop in ("auto", "zuvloop")
    if loop == "asyncio" or (is_auto and importlib.util.find_spec("uvloop") is None):
        return asyncio.SelectorEventLoop if sys.platform != "win32" else asyncio.new_event_loop
    try:
        return cast(LoopFactory, importlib.import_module("uvloop").new_event_loop)
    except ModuleNotFoundError:
        raise ConfigError("loop 'uvloop' is not installed: pip install uvloop, or use asyncio") from None


def _imported(loop: str) -> LoopFactory:
    try:
        return cast(LoopFactory, import_from_string(loop))
    except AppImportError as error:
        reason = str(error).removeprefix(f"app {loop!r}: ").partition(";")[0]
        raise ConfigError(f"loop {loop!r} can't be imported: {reason}") from None
