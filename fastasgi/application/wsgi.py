"""WSGI applications as ASGI 3 ones, run in threads by a2wsgi (PEP 3333)."""

import asyncio
import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastasgi.application.interfaces import ASGIApp, Message, Receive, Scope, Send
from fastasgi.errors import ConfigError

DEFAULT_THREADS = 10


def from_wsgi(app: Callable[..., Any], threads: int = DEFAULT_THREADS) -> ASGIApp:
    """An ASGI 3 callable that runs a WSGI application in threads. Raises ConfigError without a2wsgi."""
    try:
        a2wsgi = importlib.import_module("a2wsgi")
    except ImportError as error:
        raise ConfigError(
            f"a WSGI application needs the a2wsgi package ({error}): pip install 'fastasgi[wsgi]'"
        ) from None
    middleware: ASGIApp = a2wsgi.WSGIMiddleware(functools.partial(_run_while_connected, app), workers=threads)

    async def wsgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await middleware(scope, receive, send)
            return
        client = scope["fastasgi.client"] = _WSGIClient(scope, receive, send)
        try:
            await middleware(scope, client.receive, client.send)
        finally:
            client.stop_watching()

    return wsgi


def _run_while_connected(
    app: Callable[..., Any], environ: dict[str, Any], start_response: Any
) -> "_PiecesWhileConnected":
    environ["wsgi.errors"] = sys.stderr  # a2wsgi's is stdout
    if "CONTENT_LENGTH" not in environ:
        environ["wsgi.input_terminated"] = True  # a chunked body is to be read to its end
    return _PiecesWhileConnected(app(environ, start_response), environ["asgi.scope"]["fastasgi.client"])


class _PiecesWhileConnected:
    """A WSGI application's iterable, which ends early if the client has gone."""

    def __init__(self, iterable: Iterable[bytes], client: "_WSGIClient") -> None:
        self._iterable, self._client = iterable, client

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._iterable:
            if self._client.gone:
                return
            yield piece

    def close(self) -> None:
        getattr(self._iterable, "close", lambda: None)()


class _WSGIClient:
    """Receive and send of one WSGI request, for a2wsgi, whose threads wait for ever after a failed send.

    ``gone`` becomes True when the client disconnects; then nothing more is sent, and reading the body raises.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.gone = False
        self._receive, self._send = receive, send
        self._has_body = any(
            name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]
        )
        self._watching: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        if not self._has_body:  # the watch may have taken the message that says so
            return {"type": "http.request", "body": b"", "more_body": False}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            raise ConnectionError("the client has disconnected")
        self._has_body = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._watching is None and not self._has_body:
            self._watching = asyncio.create_task(self._watch())
        try:
            await self._send(message)
        except OSError:
            self.gone = True

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True

    def stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
