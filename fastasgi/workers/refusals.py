"""Answers in place of the application's: if it has a syntax error, and to header lines that are too long."""

from http import HTTPStatus

from fastasgi.application.interfaces import ASGIApp, Receive, Scope, Send
from fastasgi.codecs.heads import reason_phrase


async def answer_broken(scope: Scope, receive: Receive, send: Send) -> None:
    """The application in place of one with a syntax error: answers 500 to all requests."""
    if scope["type"] == "lifespan":
        raise RuntimeError("the application can't be loaded")
    text = b"The application has a syntax error, see the log."
    await _answer(scope, send, HTTPStatus.INTERNAL_SERVER_ERROR, text)


async def _answer(scope: Scope, send: Send, status: HTTPStatus, body: bytes) -> None:
    """Answer a request, also one for a WebSocket (ASGI extension "Websocket Denial Response")."""
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def with_field_limit(app: ASGIApp, limit_bytes: int) -> ASGIApp:
    """The application, with 431 for requests that have a longer header line, counted with its end."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if any(len(name) + len(value) + 4 > limit_bytes for name, value in scope.get("headers", ())):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            await _answer(scope, send, status, reason_phrase(status).encode())
        else:
            await app(scope, receive, send)

    return limited
