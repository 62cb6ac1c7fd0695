"""One HTTP request and its response, as the demo's routes use them. Knows ASGI messages, and no route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

_SECURITY_HEADERS: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_CLOSED_POLICY = b"default-src 'none'; frame-ancestors 'none'"


class BodyTooLarge(Exception):
    """The request body is larger than the route takes."""


class Request:
    """One exchange: reads the request, writes the response, notices when the client leaves."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        # The path below the point where the application is mounted.
        self.path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        self._receive = receive
        self._send = send

    async def body_pieces(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """Give the body as it comes. `BodyTooLarge` past the limit, `ConnectionError` if the client goes."""
        declared = dict(self.scope["headers"]).get(b"content-length", b"0")
        if int(declared) > limit_bytes:
            raise BodyTooLarge
        total_bytes = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left before its request body was complete")
            piece: bytes = message.get("body", b"")
            total_bytes += len(piece)
            if total_bytes > limit_bytes:
                raise BodyTooLarge
            if piece:
                yield piece
            if not message.get("more_body", False):
                return

    @asynccontextmanager
    async def watch_disconnect(self) -> AsyncIterator[asyncio.Task[None]]:
        """Give a task that ends when the client leaves. Only for a request whose body is not read."""
        watcher = asyncio.create_task(self._wait_disconnect())
        try:
            yield watcher
        finally:
            watcher.cancel()

    async def _wait_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Iterable[Header], policy: bytes = _CLOSED_POLICY) -> None:
        """Send the response's head; `policy` is its Content-Security-Policy."""
        head = [*headers, *_SECURITY_HEADERS, (b"content-security-policy", policy)]
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, body: bytes, more: bool = True) -> None:
        """Send a piece of the response's body, the last one with `more` false."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(
        self, status: int, headers: Iterable[Header], body: bytes, policy: bytes = _CLOSED_POLICY
    ) -> None:
        """Send a whole response, without its body when the method is HEAD."""
        length = (b"content-length", b"%d" % len(body))
        await self.start(status, [length, *headers], policy)
        await self.write(b"" if self.method == "HEAD" else body, more=False)

    async def respond_text(self, status: int, text: str, *headers: Header) -> None:
        """Send one line of plain text."""
        kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        await self.respond(status, [*kind, *headers], text.encode() + b"\n")

    async def respond_json(self, content: object) -> None:
        """Send a JSON document with status 200."""
        kind = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await self.respond(200, kind, json.dumps(content, ensure_ascii=False).encode())
