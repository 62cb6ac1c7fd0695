"""Litestar under CORS, compression, a middleware of each of its kinds, and hooks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from failures import fail, fail_in, fail_later, good, headers_of_stream, pieces_stream
from litestar import Litestar, MediaType, Request, Response, WebSocket, get, websocket
from litestar.background_tasks import BackgroundTask
from litestar.config.compression import CompressionConfig
from litestar.config.cors import CORSConfig
from litestar.logging import LoggingConfig
from litestar.middleware import ASGIMiddleware
from litestar.response import Stream
from litestar.types import ASGIApp, Receive, Scope, Send

ANSWERS = {
    "/websocket/before/error": 403,
    "/websocket/before/group": 403,
    "/websocket/after/error": 4500,
    "/websocket/after/group": 4500,
}


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    fail_in("startup")
    yield
    fail_in("shutdown")


@get("/good/{mark:str}", media_type=MediaType.TEXT)
async def good_one(mark: str) -> str:
    return good(mark)


@get("/raise/{kind:str}/{mark:str}")
async def raising(kind: str, mark: str) -> None:
    fail(kind, mark)


@get("/raise-later/{kind:str}/{mark:str}")
async def raising_later(kind: str, mark: str) -> None:
    await fail_later(kind, mark)


@get("/raise-in-thread/{kind:str}/{mark:str}", sync_to_thread=True)
def raising_in_thread(kind: str, mark: str) -> None:
    fail(kind, mark)


@get("/stream/{where:str}/{mark:str}")
async def stream(where: str, mark: str) -> Stream:
    headers = headers_of_stream(where)
    return Stream(pieces_stream(where, mark), headers=headers, media_type=MediaType.TEXT)


@get("/background/{mark:str}")
async def background(mark: str) -> Response[str]:
    task = BackgroundTask(fail_later, "error", mark)
    return Response("done", media_type=MediaType.TEXT, background=task)


@websocket("/websocket/{when:str}/{kind:str}/{mark:str}")
async def sockets(socket: WebSocket, when: str, kind: str, mark: str) -> None:
    if when == "before":
        fail(kind, mark)
    await socket.accept()
    await socket.send_text("in")
    fail(kind, mark)


class Class(ASGIMiddleware):
    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        try:
            await next_app(scope, receive, send)
        finally:
            scope["state"]["class"] = True


def function(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Any) -> None:
            await send(message)

        await app(scope, receive, send_on)

    return middleware


async def before(request: Request) -> None:
    request.state["before"] = True


async def after(response: Response) -> Response:
    response.headers["x-after"] = "1"
    return response


app = Litestar(
    [good_one, raising, raising_later, raising_in_thread, stream, background, sockets],
    lifespan=[lifespan],
    middleware=[Class(), function],
    before_request=before,
    after_request=after,
    cors_config=CORSConfig(allow_origins=["*"]),
    compression_config=CompressionConfig("gzip", minimum_size=1),
    logging_config=LoggingConfig(log_exceptions="always"),
)
