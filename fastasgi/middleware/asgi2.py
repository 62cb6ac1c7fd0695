"""ASGI 2 applications as ASGI 3 ones, for applications that are wrapped by hand."""

from collections.abc import Callable
from typing import Any

from fastasgi.application.interfaces import Receive, Scope, Send, from_asgi2


class ASGI2Middleware:
    """An ASGI 3 application of a double callable: ``app(scope)`` gives what takes receive and send."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self._asgi = from_asgi2(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's two calls."""
        await self._asgi(scope, receive, send)
