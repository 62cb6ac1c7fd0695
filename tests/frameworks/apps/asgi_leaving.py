"""No framework: an ASGI 3 application. To watch for the client would be code of this file alone."""

from typing import Any

from leaving import Recorder, disconnect, held, slow

LACKS = {"background", "events", "file", "stream"}


async def read_body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message["body"]
        more = message["more_body"]
    return body


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    _, kind, mark = scope["path"].split("/")
    match kind:
        case "plain":
            body = b"plain"
        case "slow":
            body = (await slow()).encode()
        case "echo":
            body = await read_body(receive)
        case "held":
            body = (await held(mark, disconnect(receive))).encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


app = Recorder(application)
