"""Logs what an application and the server say to each other: what ``log_level="trace"`` shows."""

import itertools
import logging
from typing import Any

from fastasgi.application.interfaces import ASGIApp, Message, Receive, Scope, Send
from fastasgi.logging import TRACE_LOG_LEVEL

logger = logging.getLogger("fastasgi.asgi")

# What may be long or secret, and what the log has in its place, with the value's length
PLACEHOLDERS = {"body": "<%d bytes>", "bytes": "<%d bytes>", "text": "<%d chars>", "headers": "<%d headers>"}


def with_placeholders(message: Message) -> dict[str, Any]:
    """A copy of a message or scope with lengths in place of bodies, texts and headers."""
    return {
        name: PLACEHOLDERS[name] % len(value) if name in PLACEHOLDERS and hasattr(value, "__len__") else value
        for name, value in message.items()
    }


def traced(app: ASGIApp) -> ASGIApp:
    """The application, in a MessageLoggerMiddleware if the log shows level TRACE."""
    return MessageLoggerMiddleware(app) if logger.isEnabledFor(TRACE_LOG_LEVEL) else app


class MessageLoggerMiddleware:
    """The application, with each call's scope and messages logged at level TRACE. Calls are numbered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's call."""
        client = scope.get("client")
        name = f"ASGI [{next(self._numbers)}]"
        if client is not None:
            name = f"{client[0]}:{client[1]} - {name}"

        def trace(what: str, message: Message) -> None:
            logger.log(TRACE_LOG_LEVEL, "%s %s %s", name, what, with_placeholders(message))

        async def traced_receive() -> Message:
            message = await receive()
            trace("Receive", message)
            return message

        async def traced_send(message: Message) -> None:
            trace("Send", message)
            await send(message)

        trace("Started", scope)
        try:
            await self.app(scope, traced_receive, traced_send)
        except BaseException as error:
            logger.log(TRACE_LOG_LEVEL, "%s Raised %s", name, type(error).__name__)
            raise
        logger.log(TRACE_LOG_LEVEL, "%s Completed", name)
