"""HTTP/2 for tests that know no wire."""

import asyncio
import collections

from anyclient import FRAMING, Client, Response
from http2peer import PREFACE, WINDOW, HTTP2Peer, Setting, data, request_fields


class HTTP2Client(Client):
    """Speaks HTTP/2 in cleartext, with prior knowledge (RFC 9113 section 3.3). Each request is a stream.

    What ends with the connection elsewhere, a WebSocket or a response that is cut off, ends with its stream.
    Frames are read as they come, but window is returned only for what the test has read.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._peer = HTTP2Peer(reader, writer)
        self._peer.returns_credit = False
        self.preface = PREFACE + self._peer.encode_settings((Setting.ENABLE_PUSH, 0))
        self._asked: collections.deque[int] = collections.deque()  # streams without a response that was read
        self._sending = 0  # the stream that was begun last
        self._inflow: Inflow | None = None  # the bytes of the response that is read
        self._shakes = False
        self._tunnel = 0  # the stream of an open WebSocket
        self._has_ended = False
        self._following = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        """Read what comes. End the WebSocket, and the connection, when the server does."""
        await self._peer.until(
            lambda: self._peer.end or (self._tunnel and self._peer.of(self._tunnel).is_whole),
            "an end",
            limit_s=None,
        )
        if not self._peer.end:
            await self._peer.write(data(self._tunnel, end_stream=True))
            await self._peer.until(lambda: self._peer.end, "the end of the connection", limit_s=None)
        self.close()

    # What a wire is

    def encode_head(self, method: str, target: str, fields: tuple[str, ...], length: int | None) -> bytes:
        framing = (f"content-length: {length}",) if length else ()
        lines = (line.partition(": ") for line in (*fields, *framing))
        lowered = [f"{name.lower()}: {value}" for name, _, value in lines]
        asked = request_fields(method, target, *lowered)
        self._sending, head = self._peer.encode_request(asked, end_stream=length == 0)
        self._asked.append(self._sending)
        self._shakes = False
        return head

    def encode_piece(self, data: bytes, *, has_length: bool, is_last: bool) -> bytes:
        return self._peer.encode_data(self._sending, data, end_stream=is_last) if data or is_last else b""

    def encode_handshake(self, target: str, fields: tuple[str, ...]) -> bytes:
        opening = (":protocol: websocket", "sec-websocket-version: 13")
        head = self.encode_head("CONNECT", target, (*opening, *fields), None)
        self._shakes = True
        return head

    async def read_head(self, method: str) -> Response:
        stream = self._asked.popleft()
        came = self._peer.of(stream)
        await self._peer.until(lambda: came.status or came.is_over or self._peer.end, "a response")
        if not came.status:
            raise asyncio.IncompleteReadError(b"", 1)
        self._inflow = Inflow(self._peer, stream)
        informational = [Response(other.status, other.headers) for other in came.informational]
        headers = [(name, value) for name, value in came.headers if name not in FRAMING]
        response = Response(came.status, headers, bytearray(), informational=informational)
        response.is_whole = came.is_whole and not came.length
        if self._shakes and came.status == 200 and not response.is_whole:
            response.status, response.is_whole = 101, True
            self._tunnel = stream
            self.reader = self._inflow  # type: ignore[assignment]
        return response

    async def read_more(self, response: Response) -> None:
        assert self._inflow is not None
        came = self._inflow.came
        piece = await self._inflow.read(2**20)
        if not piece and not came.is_whole:
            raise asyncio.IncompleteReadError(b"", None)
        response.body += piece
        response.trailers = came.trailers
        response.is_whole = came.is_whole and len(response.body) == came.length

    # What a test does

    async def send(self, data: bytes) -> None:
        """Send a piece of the body, once the server's windows have room for it."""
        await self._peer.until(
            lambda: self._peer.room(self._sending) >= len(data), "window for a piece of a body"
        )
        await super().send(data)

    async def begin_shake(self, *fields: str, target: str = "/", behind: bytes = b"") -> None:
        await self._peer.until(lambda: self._peer.settings, "the server's SETTINGS")
        assert self._peer.settings.get(Setting.ENABLE_CONNECT_PROTOCOL) == 1
        head = self.encode_handshake(target, fields)
        await self._peer.write(head + (self._peer.encode_data(self._sending, behind) if behind else b""))

    async def responses(self) -> list[Response]:
        """The responses to all that was asked, but where a stream ended without one."""
        responses = []
        while self._response is not None or self._asked:
            try:
                responses.append(await self.response())
            except asyncio.IncompleteReadError:
                continue
        return responses

    async def write(self, data: bytes) -> None:
        if self._tunnel:
            await self._peer.send(self._tunnel, data)
        else:
            await super().write(data)

    async def rest(self) -> bytes:
        """All bytes of the open WebSocket up to its end, with which this connection ends.

        Without one nothing comes: what was asked is over, and behind a half_close() the connection too.
        """
        asked = self._peer.responses.values()
        if self._tunnel:
            rest = await self.reader.read()
        else:
            rest = b""
            await self._peer.until(
                lambda: self._peer.end or (not self._has_ended and all(x.is_over for x in asked)), "the end"
            )
        self.close()
        return rest

    def half_close(self) -> None:
        self._has_ended = True
        self._peer.acknowledges = False
        super().half_close()

    def reset(self) -> None:
        if not self._peer.end:
            super().reset()


class Inflow:
    """The bytes that come on a stream, read as from an asyncio.StreamReader. Reading returns window."""

    def __init__(self, peer: HTTP2Peer, stream: int) -> None:
        self.came = peer.of(stream)
        self._peer = peer
        self._stream = stream
        self._read = 0
        self._credit = 0

    async def readexactly(self, n: int) -> bytes:
        """So many bytes; raises asyncio.IncompleteReadError if the stream ends before."""
        read = bytearray()
        while len(read) < n:
            read += (piece := await self.read(n - len(read)))
            if not piece:
                raise asyncio.IncompleteReadError(bytes(read), n)
        return bytes(read)

    async def read(self, n: int = -1) -> bytes:
        """Up to so many bytes, at least one but at the end; all up to the end by default."""
        if n < 0:
            read = bytearray()
            while piece := await self.read(2**20):
                read += piece
            return bytes(read)
        await self._peer.until(
            lambda: self.came.length > self._read or self.came.is_over or self._peer.end, "bytes of a stream"
        )
        piece = self.came.body[self._read : self._read + n]
        self._read += len(piece)
        self._credit += len(piece)
        self._return_credit()
        return bytes(piece)

    def _return_credit(self) -> None:
        """As most clients do it, when half a window is due."""
        is_over = self.came.is_over
        if not self._peer.acknowledges or self._peer.end:
            return
        if self._credit and (is_over or 2 * self._credit >= WINDOW):
            frames = self._peer.encode_credit(0, self._credit)
            frames += b"" if is_over else self._peer.encode_credit(self._stream, self._credit)
            self._peer.writer.write(frames)
            self._credit = 0
