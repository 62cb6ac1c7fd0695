"""A bare ASGI application: the work of the workloads that measure the server alone.

It makes what the Node application of `server.js` makes, byte for byte in the bodies.
"""

import asyncio
import time

TEXT = (b"content-type", b"text/plain")
EVENTS = (b"content-type", b"text/event-stream")
BIG = b"x" * (1 << 20)
PIECE = b"y" * 1024
EVENT_INTERVAL_S = 0.1

room = {}


async def app(scope, receive, send):
    """Serve one scope."""
    if scope["type"] == "http":
        await ROUTES.get(scope["path"], hello)(receive, send)
    elif scope["type"] == "websocket":
        await (broadcast if scope["path"] == "/room" else echo_messages)(receive, send)
    else:
        await lifespan(receive, send)


async def lifespan(receive, send):
    """Nothing to start, nothing to end."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def answer(send, body):
    """A whole text."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT, length]})
    await send({"type": "http.response.body", "body": body})


async def hello(receive, send):
    """Thirteen bytes."""
    await answer(send, b"Hello, World!")


async def echo(receive, send):
    """The request's body."""
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return await answer(send, b"".join(pieces))


async def count(receive, send):
    """The length of the request's body."""
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            return await answer(send, b"%d" % length)


async def big(receive, send):
    """1 MiB in one message."""
    await answer(send, BIG)


async def stream(receive, send):
    """64 pieces of 1 KiB, a message each, and a turn of the loop after each: none waits for the next."""
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
    for _ in range(64):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def events(receive, send):
    """Ten events a second, each with the time at which it was sent, until the client goes."""
    await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
    due = time.monotonic()
    try:
        while True:
            event = b"event: time\ndata: %.6f\n\n" % time.monotonic()
            await send({"type": "http.response.body", "body": event, "more_body": True})
            due += EVENT_INTERVAL_S
            await asyncio.sleep(max(0, due - time.monotonic()))
    except OSError:
        # The client has gone; ASGI's send says so since specification 2.4.
        return


async def echo_messages(receive, send):
    """Each message comes back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def broadcast(receive, send):
    """Each message goes to all who are in the room."""
    await receive()
    await send({"type": "websocket.accept"})
    key = object()
    room[key] = send
    try:
        while (message := await receive())["type"] == "websocket.receive":
            for other in list(room.values()):
                try:
                    await other({"type": "websocket.send", "text": message["text"]})
                except (OSError, RuntimeError):
                    # That one has just gone; its own call takes it out of the room.
                    continue
    finally:
        del room[key]


ROUTES = {"/echo": echo, "/count": count, "/big": big, "/stream": stream, "/events": events}
