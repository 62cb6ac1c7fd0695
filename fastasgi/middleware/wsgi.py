"""WSGI applications as ASGI ones, for applications that are wrapped by hand."""

from collections.abc import Callable
from typing import Any

from fastasgi.application.interfaces import Receive, Scope, Send
from fastasgi.application.wsgi import DEFAULT_THREADS, from_wsgi


class WSGIMiddleware:
    """An ASGI 3 application that runs a WSGI application in so many threads, workers.

    Raises ConfigError without a2wsgi.
    """

    def __init__(self, app: Callable[..., Any], workers: int = DEFAULT_THREADS) -> None:
        self.app = app
        self._asgi = from_wsgi(app, workers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        await self._asgi(scope, receive, send)
