"""What the applications have that clients leave: they note in stderr what becomes of their requests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

FILE = os.environ.get("LARGE_FILE", "")


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


async def waiting_texts(mark: str) -> AsyncIterator[str]:
    """One text; there is no other."""
    try:
        yield "first"
        note(f"waiting {mark}")
        await asyncio.Event().wait()
    finally:
        note(f"finally {mark}")


async def waiting_pieces(mark: str) -> AsyncIterator[bytes]:
    async for text in waiting_texts(mark):
        yield text.encode()


async def after(mark: str) -> None:
    note(f"after {mark}")


async def held(mark: str, leaving: Awaitable[object]) -> str:
    """An answer for nobody, once the client has left."""
    note(f"waiting {mark}")
    try:
        await leaving
    finally:
        note(f"finally {mark}")
    return "held"


async def disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    """The leaving, for frameworks that give ASGI's receive."""
    while (await receive())["type"] != "http.disconnect":
        pass


def cancellation() -> Awaitable[object]:
    """The leaving, for those that cancel a handler."""
    return asyncio.Event().wait()


async def slow() -> str:
    await asyncio.sleep(0.5)
    return "slow"


class Recorder:
    """As the middlewares that report errors: it notes how each request ends for the application."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        note(f"entered {path}")
        end = f"returned {path}"
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            end = f"cancelled {path}"
            raise
        except BaseException as error:
            end = f"raised {path}: {error!r}"
            raise
        finally:
            note(end)
