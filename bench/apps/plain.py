"""A bare ASGI application: the work of the workloads that measure the server alone.

It makes what the Node application of `server.js` makes, byte for byte in the bodies.
"""

import asyncio
import time

TEXT = (b"content-type", b"text/plain")
BIG = b"x" * (1 << 20)
PIECE = b"y" * 1024


async def app(scope, receive, send):
    """Serve one scope."""
    if scope["type"] == "http":
        await ROUTES.get(scope["path"], hello)(receive, send)
    elif scope["type"] == "websocket":
        await echo_messages(receive, send)
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


def work(seconds):
    """Keep the loop so long, as a framework and an application do."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def busy(receive, send):
    """130 microseconds of work."""
    work(130e-6)
    await hello(receive, send)


async def slow(receive, send):
    """5 milliseconds of work."""
    work(5e-3)
    await hello(receive, send)


async def wait(receive, send):
    """1 millisecond of work, and 50 milliseconds of waiting, as for a database."""
    work(0.5e-3)
    await asyncio.sleep(50e-3)
    work(0.5e-3)
    await hello(receive, send)


async def echo_messages(receive, send):
    """Each message comes back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


ROUTES = {
    "/echo": echo,
    "/count": count,
    "/big": big,
    "/stream": stream,
    "/busy": busy,
    "/slow": slow,
    "/wait": wait,
}
