"""Boxes, by which requests to one server reach each other: a text stays in its box until it is taken."""

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

LOOK_INTERVAL_S = 0.01


class Boxes:
    """For the tasks of one event loop."""

    def __init__(self) -> None:
        self._boxes: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)

    def put(self, name: str, text: str) -> None:
        self._boxes[name].put_nowait(text)

    async def take(self, name: str) -> str:
        return await self._boxes[name].get()

    async def take_or_leave(self, name: str, receive: Callable[[], Awaitable[Any]]) -> str | None:
        """The next text, or None once ASGI's receive tells that the client has gone."""

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        taking, leaving = asyncio.create_task(self.take(name)), asyncio.create_task(leave())
        await asyncio.wait({taking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        return None if taking.cancel() else taking.result()

    async def take_or_look(self, name: str, is_disconnected: Callable[[], Awaitable[bool]]) -> str | None:
        """The same for frameworks that can be asked again and again whether the client has gone."""
        taking = asyncio.create_task(self.take(name))
        while not taking.done() and not await is_disconnected():
            await asyncio.wait({taking}, timeout=LOOK_INTERVAL_S)
        return None if taking.cancel() else taking.result()


class ThreadBoxes:
    """For threads."""

    def __init__(self) -> None:
        self._boxes: dict[str, queue.Queue[str]] = {}
        self._lock = threading.Lock()

    def _box(self, name: str) -> "queue.Queue[str]":
        with self._lock:
            return self._boxes.setdefault(name, queue.Queue())

    def put(self, name: str, text: str) -> None:
        self._box(name).put(text)

    def take(self, name: str) -> str:
        return self._box(name).get()
