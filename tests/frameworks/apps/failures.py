"""What the failing applications raise. Each failure carries the mark of the request that has asked for it."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn

PIECE = b"x" * 1000
STREAM_SIZE = 3 * len(PIECE)  # what a stream with a content-length promises


def fail(kind: str, mark: str) -> NoReturn:
    if kind == "group":
        raise ExceptionGroup(mark, [ValueError("one"), ExceptionGroup("two", [KeyError("three")])])
    if kind == "cancelled":
        raise asyncio.CancelledError(mark)
    if kind == "exit":
        sys.exit(mark)
    raise RuntimeError(mark)


async def fail_later(kind: str, mark: str) -> NoReturn:
    """Raise in a step of the task that the event loop has called."""
    await asyncio.sleep(0)
    fail(kind, mark)


def good(mark: str) -> str:
    if mark == "last":
        gc.collect()  # what was never retrieved is told when it goes
    sys.stderr.write(f"good {mark}\n")  # print() would write twice, and a log of another thread in between
    return "good"


def pieces(where: str, mark: str) -> Iterator[bytes]:
    """A body that raises at its first piece, or after it."""
    if where != "first":
        yield PIECE
    raise RuntimeError(mark)


async def pieces_stream(where: str, mark: str) -> AsyncIterator[bytes]:
    for piece in pieces(where, mark):
        yield piece
        await asyncio.sleep(0)


def headers_of_stream(where: str) -> dict[str, str]:
    return {"content-length": str(STREAM_SIZE)} if where == "sized" else {}


def fail_in(phase: str) -> None:
    """Raise in this phase, "startup" or "shutdown", where the environment says so."""
    if os.environ.get("FAILS_IN") == phase:
        raise RuntimeError(f"mark-{phase}")
