"""One request to the admin listener and its response. Knows ASGI messages, and no route."""

import asyncio
import json
from collections.abc import Iterable

from fastasgi.application.interfaces import Receive, Scope, Send

Field = tuple[bytes, bytes]

TEXT = "text/plain; charset=utf-8"

# Strict: a page has nothing but its own files, is in no frame, and sends its form nowhere else
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY: list[Field] = [
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class BodyTooLarge(Exception):
    """The body of a request is larger than is read."""


class ClientLeft(Exception):
    """The client has left before its request was complete."""


class Exchange:
    """A request, and what answers it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: list[Field] = scope["headers"]
        self.is_secure = scope["scheme"] == "https"
        self.client = "a Unix socket" if scope["client"] is None else str(scope["client"][0])
        self.is_answered = False  # the head of a response has been sent
        self._receive = receive
        self._send = send

    def field(self, name: bytes) -> bytes:
        """The value of a field, of several the first one's; empty if there is none."""
        return next((value for key, value in self.headers if key == name), b"")

    @property
    def wants_page(self) -> bool:
        """Whether a browser asks for a page, and not for something that a page needs."""
        return b"text/html" in self.field(b"accept")

    def has_flag(self, name: bytes) -> bool:
        """Whether a parameter is in the query, with any value or none."""
        return any(pair.partition(b"=")[0] == name for pair in self.query.split(b"&"))

    async def body(self, limit: int, timeout_s: float) -> bytes:
        """The whole body.

        Raises BodyTooLarge if it has more bytes than limit, TimeoutError if it does not come in time, or
        ClientLeft.
        """
        body: bytes = b""
        async with asyncio.timeout(timeout_s):
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                body += message.get("body", b"")
                if len(body) > limit:
                    raise BodyTooLarge
                if not message.get("more_body", False):
                    return body

    async def left(self) -> None:
        """Return once the client has left, or the listener ends. Only where no body is read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, fields: Iterable[Field]) -> None:
        """Send the head of a response. One of SECURITY that is among the fields takes the place of ours."""
        own = list(fields)
        names = {name for name, _ in own}
        head = [*own, *(field for field in SECURITY if field[0] not in names)]
        self.is_answered = True
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, piece: bytes, *, more: bool) -> None:
        """Send a piece of the body; the last one without more."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def respond(self, status: int, kind: str, body: bytes, *fields: Field) -> None:
        """Send a whole response, whose media type is kind. The body is left out for HEAD."""
        own = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await self.start(status, [*own, *fields])
        await self.write(b"" if self.method == "HEAD" else body, more=False)

    async def respond_text(self, status: int, text: str, *fields: Field) -> None:
        """Send lines of plain text."""
        await self.respond(status, TEXT, text.encode() + b"\n", *fields)

    async def respond_json(self, content: object) -> None:
        """Send a JSON document."""
        await self.respond(200, "application/json", json.dumps(content).encode())

    async def redirect(self, to: str, *fields: Field) -> None:
        """Send the browser to another path, for which it makes a GET (303).

        It is relative to this one: a proxy may have put the listener under a prefix.
        """
        await self.respond(303, TEXT, b"", (b"location", to.encode()), *fields)
