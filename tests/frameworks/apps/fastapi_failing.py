"""FastAPI under its middlewares, those by functions outermost, and with a dependency that cleans up."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from failures import fail, fail_in, fail_later, good, headers_of_stream, pieces_stream
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import PlainTextResponse, StreamingResponse

# As with Starlette, but here the body's first piece raises before the outermost middleware has seen a head
ANSWERS = {
    "/stream/middle": {"whole", "cut off"},
    "/stream/middle gzip": {"whole", "cut off"},
    "/stream/sized gzip": {"whole", "cut off"},
}
SILENT = {"/raise/cancelled", "/raise-later/cancelled", "/raise-in-thread/cancelled", "/stream/sized"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    fail_in("startup")
    yield
    fail_in("shutdown")


async def session() -> AsyncIterator[None]:
    """As those of databases, which roll back and raise again."""
    try:
        yield
    except BaseException:
        raise


app = FastAPI(lifespan=lifespan, dependencies=[Depends(session)])


@app.get("/good/{mark}", response_class=PlainTextResponse)
async def good_one(mark: str) -> str:
    return good(mark)


@app.get("/raise/{kind}/{mark}")
async def raising(kind: str, mark: str) -> None:
    fail(kind, mark)


@app.get("/raise-later/{kind}/{mark}")
async def raising_later(kind: str, mark: str) -> None:
    await fail_later(kind, mark)


@app.get("/raise-in-thread/{kind}/{mark}")
def raising_in_thread(kind: str, mark: str) -> None:
    fail(kind, mark)


@app.get("/stream/{where}/{mark}")
async def stream(where: str, mark: str) -> StreamingResponse:
    headers = headers_of_stream(where)
    return StreamingResponse(pieces_stream(where, mark), headers=headers, media_type="text/plain")


@app.get("/background/{mark}", response_class=PlainTextResponse)
async def background(mark: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(fail_later, "error", mark)
    return "done"


@app.websocket("/websocket/{when}/{kind}/{mark}")
async def websocket(websocket: WebSocket, when: str, kind: str, mark: str) -> None:
    if when == "before":
        fail(kind, mark)
    await websocket.accept()
    await websocket.send_text("in")
    fail(kind, mark)


class Plain:
    """An ASGI middleware without a framework, as those that time or trace requests."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1


# The last one added is the outermost
app.add_middleware(Plain)
app.add_middleware(CORSMiddleware, allow_origins=["*"])
app.add_middleware(GZipMiddleware, minimum_size=1)


@app.middleware("http")
async def inner(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-inner"] = "1"
    return response


@app.middleware("http")
async def outer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-outer"] = "1"
    return response
