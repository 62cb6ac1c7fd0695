"""Starlette under its middlewares: some of its own, two by functions, one that is plain ASGI."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from failures import fail, fail_in, fail_later, good, headers_of_stream, pieces_stream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

# A CancelledError that nobody has asked for ends in anyio's task group. Where a body under BaseHTTPMiddleware
# raises, current versions end the body first, and only a content-length shows that it was too early.
ANSWERS = {
    "/stream/first": {"whole", "500"},
    "/stream/first gzip": {"whole", "500"},
    "/stream/middle": {"whole", "cut off"},
    "/stream/middle gzip": {"whole", "cut off"},
    "/stream/sized gzip": {"whole", "cut off"},
}
SILENT = {"/raise/cancelled", "/raise-later/cancelled", "/raise-in-thread/cancelled", "/stream/sized"}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    fail_in("startup")
    yield
    fail_in("shutdown")


async def good_one(request: Request) -> Response:
    return PlainTextResponse(good(request.path_params["mark"]))


async def raising(request: Request) -> Response:
    fail(**request.path_params)


async def raising_later(request: Request) -> Response:
    await fail_later(**request.path_params)


def raising_in_thread(request: Request) -> Response:
    fail(**request.path_params)


async def stream(request: Request) -> Response:
    headers = headers_of_stream(request.path_params["where"])
    return StreamingResponse(pieces_stream(**request.path_params), headers=headers, media_type="text/plain")


async def background(request: Request) -> Response:
    return PlainTextResponse("done", background=BackgroundTask(fail_later, "error", **request.path_params))


async def websocket(websocket: WebSocket) -> None:
    when, kind, mark = (websocket.path_params[name] for name in ("when", "kind", "mark"))
    if when == "before":
        fail(kind, mark)
    await websocket.accept()
    await websocket.send_text("in")
    fail(kind, mark)


routes = [
    Route("/good/{mark}", good_one),
    Route("/raise/{kind}/{mark}", raising),
    Route("/raise-later/{kind}/{mark}", raising_later),
    Route("/raise-in-thread/{kind}/{mark}", raising_in_thread),
    Route("/stream/{where}/{mark}", stream),
    Route("/background/{mark}", background),
    WebSocketRoute("/websocket/{when}/{kind}/{mark}", websocket),
]


class Plain:
    """An ASGI middleware without a framework, as those that time or trace requests."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_on(message: Any) -> None:
            await send(message)

        self.running += 1
        try:
            await self.app(scope, receive, send_on)
        finally:
            self.running -= 1


async def outer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-outer"] = "1"
    return response


class Inner(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers["x-inner"] = "1"
        return response


app = Starlette(
    routes=routes,
    lifespan=lifespan,
    middleware=[
        Middleware(Plain),
        Middleware(CORSMiddleware, allow_origins=["*"]),
        Middleware(GZipMiddleware, minimum_size=1),
        Middleware(BaseHTTPMiddleware, dispatch=outer),
        Middleware(Inner),
    ],
)
