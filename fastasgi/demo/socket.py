"""The demo's WebSocket: each message is sent back. Knows ASGI messages, and no HTTP."""

from __future__ import annotations

import json

from fastasgi.demo.request import Receive, Scope, Send
from fastasgi.demo.traffic import Traffic

PATH = "/ws"
MESSAGE_LIMIT_BYTES = 64 * 1024

TOO_BIG = 1009  # RFC 6455 section 7.4.1


async def serve(scope: Scope, receive: Receive, send: Send, traffic: Traffic | None) -> None:
    """Serve one WebSocket, until its client leaves or the server ends.

    It tells a page of another site, which may connect too, nothing but what that page has sent.
    """
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if (await receive())["type"] != "websocket.connect":
        return
    if traffic is None or path != PATH:
        await send({"type": "websocket.close"})
        return
    traffic.websockets += 1
    try:
        await send({"type": "websocket.accept"})
        await _echo(scope, receive, send, traffic)
    except OSError:
        pass  # The client has gone; nobody is left to answer.
    finally:
        traffic.websockets -= 1


async def _echo(scope: Scope, receive: Receive, send: Send, traffic: Traffic) -> None:
    about = {"http_version": scope.get("http_version", "1.1"), "limit_bytes": MESSAGE_LIMIT_BYTES}
    await send({"type": "websocket.send", "text": json.dumps(about)})
    while (message := await receive())["type"] == "websocket.receive":
        text, data = message.get("text"), message.get("bytes")
        if len(data or (text or "").encode()) > MESSAGE_LIMIT_BYTES:
            reason = f"the demo takes {MESSAGE_LIMIT_BYTES} bytes in a message"
            await send({"type": "websocket.close", "code": TOO_BIG, "reason": reason})
            return
        traffic.messages += 1
        # Waits while the client does not read: no more than one message is kept for it here.
        echo = {"text": text} if text is not None else {"bytes": data}
        await send({"type": "websocket.send", **echo})
