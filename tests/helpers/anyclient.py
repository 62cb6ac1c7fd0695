"""A client that knows no wire, for tests of what ASGI says and not of how it looks in bytes.

A wire is a subclass: it writes requests and reads responses, and knows nothing of tests.
"""

import asyncio
import collections
import contextlib
from abc import abstractmethod
from dataclasses import dataclass, field

from wire import Connection

Fields = list[tuple[bytes, bytes]]

# The fields by which a wire says where a response ends, or what comes of the connection
FRAMING = {b"connection", b"content-length", b"keep-alive", b"transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """A request. `fields` are lines such as ``x-name: value``; each wire adds ``host: x``.

    With a `length` that is not its body's it is not whole.
    """

    method: str = "GET"
    target: str = "/"
    fields: tuple[str, ...] = ()
    body: bytes = b""
    length: int | None = None


@dataclass
class Response:
    """A response as all wires have it: its headers are without those of FRAMING.

    `is_whole` is False if the connection ended within it. `informational` are the responses before it.
    The status is 101 where a WebSocket is open, whatever the wire calls that.
    """

    status: int
    headers: Fields = field(default_factory=list)
    body: bytes | bytearray = b""
    trailers: Fields = field(default_factory=list)
    is_whole: bool = True
    informational: list["Response"] = field(default_factory=list, compare=False)

    def __getitem__(self, name: bytes) -> bytes:
        """The value of a header that must be there once."""
        [value] = [value for other, value in self.headers if other == name]
        return value

    def __contains__(self, name: bytes) -> bool:
        return any(other == name for other, _ in self.headers)


INTERNAL_ERROR = Response(500, [(b"content-type", b"text/plain; charset=utf-8")], b"Internal Server Error")


class Client(Connection):
    """One connection. Reading a response fails where its bytes break the rules of the wire."""

    preface = b""  # what a connection begins with; for whoever opens it to send

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._methods: collections.deque[str] = collections.deque()
        self._length_left: int | None = 0
        self._response: Response | None = None

    # What a wire is

    @abstractmethod
    def encode_head(self, method: str, target: str, fields: tuple[str, ...], length: int | None) -> bytes:
        """The beginning of a request whose body has this length; None if nobody knows it yet.

        A request of length 0 is over with it.
        """

    @abstractmethod
    def encode_piece(self, data: bytes, *, has_length: bool, is_last: bool) -> bytes:
        """A piece of the body, and the end of the body behind the last one.

        `has_length` says whether the request told its length.
        """

    @abstractmethod
    def encode_handshake(self, target: str, fields: tuple[str, ...]) -> bytes:
        """The request that opens a WebSocket."""

    @abstractmethod
    async def read_head(self, method: str) -> Response:
        """The head of the next response, which is whole if it has no body.

        Raises asyncio.IncompleteReadError if the connection ends before.
        """

    @abstractmethod
    async def read_more(self, response: Response) -> None:
        """Add what comes next to a response that is not whole; it is, when its end has come.

        Raises asyncio.IncompleteReadError or ConnectionResetError if the connection ends before.
        """

    # What a test does

    async def begin(
        self,
        method: str = "POST",
        target: str = "/",
        *fields: str,
        length: int | None = None,
        body: bytes = b"",
    ) -> None:
        """Send a request's head and so much of its body, all at once.

        The rest of the body is for `send`, and its end for `end` if its length is not told.
        """
        self._methods.append(method)
        self._length_left = length
        head = self.encode_head(method, target, fields, length)
        await self.write(head + (self.piece(body) if body else b""))

    async def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self.write(self.piece(data))

    async def end(self) -> None:
        """End a body whose length was not told."""
        await self.write(self.encode_piece(b"", has_length=False, is_last=True))

    def piece(self, data: bytes) -> bytes:
        """The bytes by which the next piece of the body goes over the wire."""
        if self._length_left is None:
            return self.encode_piece(data, has_length=False, is_last=False)
        self._length_left -= len(data)
        return self.encode_piece(data, has_length=True, is_last=self._length_left == 0)

    def encode(self, *requests: Request) -> bytes:
        """The bytes by which whole requests go over the wire."""
        parts = []
        for request in requests:
            length = len(request.body) if request.length is None else request.length
            parts.append(self.encode_head(request.method, request.target, request.fields, length))
            if request.body:
                is_last = length == len(request.body)
                parts.append(self.encode_piece(request.body, has_length=True, is_last=is_last))
        return b"".join(parts)

    async def put(self, *requests: Request) -> None:
        """Send whole requests, all at once."""
        self._methods.extend(request.method for request in requests)
        await self.write(self.encode(*requests))

    async def ask(self, method: str = "GET", target: str = "/", *fields: str, body: bytes = b"") -> Response:
        """A request, and its whole response."""
        await self.put(Request(method, target, fields, body))
        return await self.response()

    async def shake(self, *fields: str, target: str = "/", behind: bytes = b"") -> Response:
        """Ask for a WebSocket, with these frames right behind that: the whole response, 101 if it is open."""
        await self.begin_shake(*fields, target=target, behind=behind)
        return await self.response()

    async def begin_shake(self, *fields: str, target: str = "/", behind: bytes = b"") -> None:
        """Ask for a WebSocket, with these frames right behind that."""
        self._methods.append("GET")
        await self.write(self.encode_handshake(target, fields) + behind)

    async def head(self) -> Response:
        """The next response, as soon as its head has come."""
        assert self._response is None, "the response before it has not been read"
        self._response = await self.read_head(self._methods.popleft() if self._methods else "GET")
        return self._response

    async def until(self, data: bytes) -> Response:
        """The next response, or the one begun, as soon as its body has these bytes in it."""
        response = self._response or await self.head()
        while data not in response.body:
            await self.read_more(response)
        return response

    async def response(self) -> Response:
        """The next response, or the one begun, up to its end or to that of the connection."""
        response = self._response or await self.head()
        self._response = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while not response.is_whole:
                await self.read_more(response)
        response.body = bytes(response.body)
        return response

    async def responses(self) -> list[Response]:
        """All responses up to the server's end of the connection."""
        responses: list[Response] = []
        while True:
            try:
                responses.append(await self.response())
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                return responses
