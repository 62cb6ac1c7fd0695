"""Answers health checks in the application's place: a balancer learns of a shutdown before it comes."""

from collections.abc import Callable

from fastasgi.application.interfaces import ASGIApp, Receive, Scope, Send

TEXT = (b"content-type", b"text/plain; charset=utf-8")


class HealthCheck:
    """GET and HEAD at one path: answered with 200, or with 503 once ``is_draining`` says so."""

    def __init__(self, path: str, is_draining: Callable[[], bool]) -> None:
        self._path = path
        self._is_draining = is_draining

    def is_asked(self, scope: Scope) -> bool:
        """Whether a request is a health check."""
        return scope["type"] == "http" and scope["path"] == self._path and scope["method"] in ("GET", "HEAD")

    def before(self, app: ASGIApp) -> ASGIApp:
        """The application, without the health checks, which are answered here."""

        async def checked(scope: Scope, receive: Receive, send: Send) -> None:
            if self.is_asked(scope):
                await self._answer(send)
            else:
                await app(scope, receive, send)

        return checked

    async def _answer(self, send: Send) -> None:
        status, body = (503, b"draining\n") if self._is_draining() else (200, b"ok\n")
        headers = [TEXT, (b"cache-control", b"no-store"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
