"""Server-sent events: the same documents for all dashboards (HTML, section 9.2)."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from fastasgi.admin.exchange import Exchange

KIND = "text/event-stream; charset=utf-8"
MOST_CLIENTS = 64
RETRY = b"retry: 2000\n\n"  # milliseconds after which a browser connects again
NOTHING = b": nothing is known\n\n"  # a comment: whoever waits for the next event knows that we live


class Events:
    """Who listens, and what they hear: first what whole makes, then what is told to all.

    A client that does not read what it is sent hears the newest document only, once it reads again: none are
    kept for it.
    """

    def __init__(self, whole: Callable[[], Mapping[str, Any]]) -> None:
        self._whole = whole
        self.client_count = 0
        self._news = asyncio.Event()  # set with each event, and replaced
        self._event = b""
        self._has_ended = False

    @property
    def has_room(self) -> bool:
        """Whether another client may listen."""
        return self.client_count < MOST_CLIENTS

    def tell(self, document: Mapping[str, Any] | None) -> None:
        """Have all clients hear a document; without one, that there is none."""
        if self.client_count:
            self._event = NOTHING if document is None else _event("update", document)
            self._wake()

    def end(self) -> None:
        """Have the responses to all clients end, those that come from now on too."""
        self._has_ended = True
        self._event = b""
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def serve(self, exchange: Exchange) -> None:
        """Tell a client what happens, until it leaves or the listener ends."""
        first = RETRY + _event("whole", self._whole())
        self.client_count += 1
        leaving = asyncio.create_task(exchange.left())
        telling = asyncio.create_task(self._tell(exchange, first))
        try:
            await asyncio.wait({leaving, telling}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
        finally:
            self.client_count -= 1
            leaving.cancel()
            telling.cancel()
            # The end of a client that has left is no error of ours
            await asyncio.gather(leaving, telling, return_exceptions=True)

    async def _tell(self, exchange: Exchange, first: bytes) -> None:
        await exchange.start(200, [(b"content-type", KIND.encode()), (b"x-accel-buffering", b"no")])
        await exchange.write(first, more=True)
        while not self._has_ended:
            await self._news.wait()
            await exchange.write(self._event, more=not self._has_ended)


def _event(name: str, document: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()
