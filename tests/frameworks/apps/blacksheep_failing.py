"""BlackSheep under middleware functions, its CORS and its compression, which leaves streams alone.

It has no background tasks of its own: those that a handler starts with asyncio are not its business.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable

from blacksheep import Application, Request, Response, StreamedContent, WebSocket, text
from blacksheep.server.compression import GzipMiddleware
from failures import STREAM_SIZE, fail, fail_in, fail_later, good, pieces_stream

LACKS = {"background", "compression"}
ANSWERS = {"/websocket/before/error": 403, "/websocket/before/group": 403}

app = Application()
app.use_cors(allow_methods="*", allow_origins="*")


@app.on_start
async def start(app: Application) -> None:
    fail_in("startup")


@app.on_stop
async def stop(app: Application) -> None:
    fail_in("shutdown")


@app.router.get("/good/{mark}")
async def good_one(mark: str) -> Response:
    return text(good(mark))


@app.router.get("/raise/{kind}/{mark}")
async def raising(kind: str, mark: str) -> Response:
    fail(kind, mark)


@app.router.get("/raise-later/{kind}/{mark}")
async def raising_later(kind: str, mark: str) -> Response:
    await fail_later(kind, mark)


@app.router.get("/raise-in-thread/{kind}/{mark}")
async def raising_in_thread(kind: str, mark: str) -> Response:
    await asyncio.to_thread(fail, kind, mark)


@app.router.get("/stream/{where}/{mark}")
async def stream(where: str, mark: str) -> Response:
    size = STREAM_SIZE if where == "sized" else -1
    content = StreamedContent(b"text/plain", functools.partial(pieces_stream, where, mark), size)
    return Response(200, content=content)


@app.router.ws("/websocket/{when}/{kind}/{mark}")
async def sockets(websocket: WebSocket, when: str, kind: str, mark: str) -> None:
    if when == "before":
        fail(kind, mark)
    await websocket.accept()
    await websocket.send_text("in")
    fail(kind, mark)


async def outer(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await handler(request)
    response.add_header(b"x-outer", b"1")
    return response


async def inner(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await handler(request)
    response.add_header(b"x-inner", b"1")
    return response


for middleware in (outer, GzipMiddleware(min_size=1), inner):
    app.middlewares.append(middleware)
