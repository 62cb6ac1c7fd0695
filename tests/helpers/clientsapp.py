"""An application for real clients, whose paths say what they do."""

import asyncio
import json
from typing import Any

from wire import read_body, respond

BODY = bytes(range(256)) * 5000


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What the paths do is in their names."""
    path = scope["path"]
    if path == "/echo":
        body = await read_body(receive)
        seen = [scope["method"], scope["http_version"], scope["query_string"].decode()]
        await respond(send, body, headers=[(b"x-seen", json.dumps(seen).encode())])
    elif path == "/size":
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        await respond(send, b"%d" % size)
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200})
        for start in range(0, len(BODY), 10_000):
            await send(
                {"type": "http.response.body", "body": BODY[start : start + 10_000], "more_body": True}
            )
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})
    elif path == "/whole":
        await respond(send, BODY)
    elif path == "/hints":
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await respond(send, b"page")
    elif path == "/trailers":
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body", "body": b"page"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"5")]})
    elif path == "/push":
        if "http.response.push" in scope["extensions"]:
            for pushed in ("/whole", "/none?a=b"):
                headers = [(b"x-pushed", b"yes")]
                await send({"type": "http.response.push", "path": pushed, "headers": headers})
        await respond(send, b"page")
    elif path == "/empty":
        await respond(send, b"", 204)
    elif path == "/refuse":
        await respond(send, b"no", 413)
    else:
        await respond(send, b"not found", 404)
