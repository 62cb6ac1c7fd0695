"""Messages and applications of WebSockets."""

import asyncio
from typing import Any

from websocketwire import accept

CONNECT = {"type": "websocket.connect"}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}


def disconnected(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


class Recorder:
    """An application that accepts and keeps all that it receives, up to the disconnect."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.done = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while not self.messages or self.messages[-1]["type"] != "websocket.disconnect":
            self.messages.append(await receive())
        self.done.set()


def accepting(**values: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send, **values)

    return app


ACCEPT_MESSAGE = {"type": "websocket.accept"}
CLOSE_MESSAGE = {"type": "websocket.close"}
START_MESSAGE = {"type": "websocket.http.response.start", "status": 401, "headers": []}
BODY_MESSAGE = {"type": "websocket.http.response.body", "body": b"no"}
