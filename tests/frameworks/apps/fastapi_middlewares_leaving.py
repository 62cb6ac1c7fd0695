"""FastAPI under compression and, outside of that, two middlewares by functions."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi_leaving import router
from leaving import Recorder

RAISES = "ClientDisconnect"
COMPLETES_STREAMS = True  # BaseHTTPMiddleware does

application = FastAPI()
application.include_router(router)
application.add_middleware(GZipMiddleware, minimum_size=1)


@application.middleware("http")
async def inner(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-inner"] = "1"
    return response


@application.middleware("http")
async def outer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-outer"] = "1"
    return response


app = Recorder(application)
