"""Starlette under compression and two middlewares by functions."""

from collections.abc import Awaitable, Callable

from leaving import Recorder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette_leaving import routes

LACKS = {"events"}
RAISES = "ClientDisconnect"
COMPLETES_STREAMS = True  # BaseHTTPMiddleware does


async def mark(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["x-mark"] = "1"
    return response


app = Recorder(
    Starlette(
        routes=routes,
        middleware=[
            Middleware(GZipMiddleware, minimum_size=1),
            Middleware(BaseHTTPMiddleware, dispatch=mark),
            Middleware(BaseHTTPMiddleware, dispatch=mark),
        ],
    )
)
