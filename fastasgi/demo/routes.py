"""What the demo answers at each path."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from fastasgi import __version__
from fastasgi.demo import page, socket
from fastasgi.demo.request import BodyTooLarge, Request
from fastasgi.demo.traffic import Traffic

ECHO_LIMIT_BYTES = 64 * 1024
UPLOAD_LIMIT_BYTES = 64 * 1024 * 1024
STREAM_INTERVAL_MS = 50
STREAM_INTERVAL_LIMIT_MS = 1000

_STREAMED_TEXT = """\
Each word of this paragraph left the application in an http.response.body message of its own, and your \
browser drew it the moment it arrived. Nothing was collected first, so the first byte takes one round trip, \
however long the whole response lasts. Press Stop halfway: receive gives http.disconnect, and the \
application ends its work at once instead of talking to nobody."""


async def answer(request: Request, traffic: Traffic) -> None:
    """Send the response to any request: that of its route, or 404, 405, 413."""
    name = "/echo" if request.path.startswith("/echo/") else request.path
    if name not in _ROUTES:
        await request.respond_text(404, "There is nothing at this path: the demo's page is at /")
        return
    methods, handle = _ROUTES[name]
    if request.method not in methods:
        allowed = ", ".join(methods)
        text = f"This path answers {allowed}"
        await request.respond_text(405, text, (b"allow", allowed.encode()))
        return
    try:
        await handle(request, traffic)
    except BodyTooLarge:
        await request.respond_text(413, "The request body is larger than this path takes")


async def _page(request: Request, traffic: Traffic) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-cache")]
    await request.respond(200, headers, page.BODY, policy=page.POLICY)


async def _favicon(request: Request, traffic: Traffic) -> None:
    await request.start(204, [(b"cache-control", b"max-age=86400")])
    await request.write(b"", more=False)


async def _about(request: Request, traffic: Traffic) -> None:
    scope = request.scope
    loop = type(asyncio.get_running_loop())
    await request.respond_json(
        {
            "fastasgi": __version__,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "event_loop": f"{loop.__module__}.{loop.__qualname__}",
            "http_version": scope["http_version"],
            "asgi": scope["asgi"],
            "extensions": sorted(scope.get("extensions") or {}),
            "upload_limit_bytes": UPLOAD_LIMIT_BYTES,
        }
    )


async def _ping(request: Request, traffic: Traffic) -> None:
    await request.respond_text(200, "pong")


async def _echo(request: Request, traffic: Traffic) -> None:
    started_s = time.perf_counter()
    body = b"".join([piece async for piece in request.body_pieces(ECHO_LIMIT_BYTES)])
    scope = request.scope
    raw_path = scope.get("raw_path") or scope["path"].encode()
    await request.respond_json(
        {
            "method": request.method,
            "path": scope["path"],
            "raw_path": raw_path.decode("latin-1"),
            "query_string": scope["query_string"].decode("latin-1"),
            "http_version": scope["http_version"],
            "scheme": scope["scheme"],
            "client": scope.get("client"),
            "server": scope.get("server"),
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]
            ],
            "body": body.decode("utf-8", "replace"),
            "body_bytes": len(body),
            "handled_us": round((time.perf_counter() - started_s) * 1e6),
        }
    )


async def _stream(request: Request, traffic: Traffic) -> None:
    query = parse_qs(request.scope["query_string"].decode("latin-1"))
    interval = query.get("interval_ms", [str(STREAM_INTERVAL_MS)])[-1]
    if re.fullmatch("[0-9]{1,4}", interval) is None or int(interval) > STREAM_INTERVAL_LIMIT_MS:
        text = f"interval_ms must be a whole number from 0 to {STREAM_INTERVAL_LIMIT_MS}"
        await request.respond_text(400, text)
        return
    await request.start(
        200, [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    )
    if request.method == "HEAD":
        await request.write(b"", more=False)
        return
    async with request.watch_disconnect() as gone:
        for word in _STREAMED_TEXT.split():
            await request.write(word.encode() + b" ")
            await asyncio.wait({gone}, timeout=int(interval) / 1000)
            if gone.done():
                return
        await request.write(b"\n", more=False)


async def _live(request: Request, traffic: Traffic) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    await request.start(200, headers)
    if request.method == "HEAD":
        await request.write(b"", more=False)
        return
    async with request.watch_disconnect() as gone:
        await request.write(_event("history", list(traffic.history)))
        while True:
            await asyncio.wait({gone, traffic.changed}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            if traffic.closed:
                break
            # A client too slow for every sample gets the newest one: nothing queues up here.
            await request.write(_event("sample", traffic.history[-1]))
    await request.write(b"", more=False)


def _event(name: str, data: object) -> bytes:
    """Encode a server-sent event with JSON data."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


async def _socket(request: Request, traffic: Traffic) -> None:
    await request.respond_text(400, "This path speaks WebSocket")


async def _upload(request: Request, traffic: Traffic) -> None:
    started_s = time.perf_counter()
    counted_bytes = messages = 0
    async for piece in request.body_pieces(UPLOAD_LIMIT_BYTES):
        counted_bytes += len(piece)
        messages += 1
    duration_s = round(time.perf_counter() - started_s, 6)
    await request.respond_json({"bytes": counted_bytes, "messages": messages, "duration_s": duration_s})


_READ = ("GET", "HEAD")
_ROUTES: dict[str, tuple[tuple[str, ...], Callable[[Request, Traffic], Awaitable[None]]]] = {
    "/": (_READ, _page),
    "/favicon.ico": (_READ, _favicon),
    "/about": (_READ, _about),
    "/ping": (_READ, _ping),
    "/echo": ((*_READ, "POST", "PUT", "PATCH", "DELETE"), _echo),
    "/stream": (_READ, _stream),
    "/live": (_READ, _live),
    socket.PATH: (_READ, _socket),
    "/upload": (("POST", "PUT"), _upload),
}
