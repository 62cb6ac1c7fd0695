"""Answers health checks in the application's place: a balancer learns of a shutdown before it comes."""

from collections.abc import Callable
from typing import Any

from fastasgi.interfaces import ASGIApp

TEXT = (b"content-type", b"text/plain; charset=utf-8")


def with_health_check(app: ASGIApp, path: str, is_draining: Callable[[], bool]) -> ASGIApp:
    """The application, with 200 for GET and HEAD at this path, and 503 there once the server drains."""

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != path or scope["method"] not in ("GET", "HEAD"):
            await app(scope, receive, send)
            return
        status, body = (503, b"draining\n") if is_draining() else (200, b"ok\n")
        headers = [TEXT, (b"cache-control", b"no-store"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return checked
