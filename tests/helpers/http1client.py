"""HTTP/1.1 for tests that know no wire."""

import asyncio

from anyclient import FRAMING, Client, Fields, Response
from wire import ACCEPT, handshake, request

# What answers the handshake of a WebSocket beside what the application says
UPGRADE = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", ACCEPT)]


class HTTP1Client(Client):
    """Speaks HTTP/1.1 (RFC 9112). A body whose length is not told is chunked."""

    def encode_head(self, method: str, target: str, fields: tuple[str, ...], length: int | None) -> bytes:
        framing = ()
        if length is None:
            framing = ("transfer-encoding: chunked",)
        elif length > 0:
            framing = (f"content-length: {length}",)
        return request(f"{method} {target} HTTP/1.1", *fields, *framing)

    def encode_piece(self, data: bytes, *, has_length: bool, is_last: bool) -> bytes:
        if has_length:
            return data
        return (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"0\r\n\r\n" if is_last else b"")

    def encode_handshake(self, target: str, fields: tuple[str, ...]) -> bytes:
        return handshake(*fields, target=target)

    async def read_head(self, method: str) -> Response:
        informational: list[Response] = []
        status, fields = await self._head()
        while status < 200 and status != 101:
            informational.append(Response(status, fields))
            status, fields = await self._head()
        headers = [(name, value) for name, value in fields if name not in FRAMING]
        if status == 101:
            assert fields[: len(UPGRADE)] == UPGRADE
            headers = fields[len(UPGRADE) :]
        framing = dict(fields)
        self._is_chunked = framing.get(b"transfer-encoding") == b"chunked"
        self._left = int(framing.get(b"content-length", b"0"))
        has_body = method != "HEAD" and status not in (101, 204, 304)
        assert self._is_chunked or b"content-length" in framing or not has_body, fields
        is_whole = not has_body or not (self._is_chunked or self._left)
        return Response(status, headers, bytearray(), is_whole=is_whole, informational=informational)

    async def read_more(self, response: Response) -> None:
        if self._is_chunked and not self._left:
            self._left = int(await self._line(), 16)
            if not self._left:
                response.trailers = await self._fields()
                response.is_whole = True
                return
        piece = await self.reader.read(min(self._left, 2**20))
        if not piece:
            raise asyncio.IncompleteReadError(piece, self._left)
        response.body += piece
        self._left -= len(piece)
        if not self._left:
            if self._is_chunked:
                assert await self.reader.readexactly(2) == b"\r\n"
            else:
                response.is_whole = True

    async def _line(self) -> bytes:
        line = await self.reader.readuntil(b"\n")
        assert line.endswith(b"\r\n")
        return line[:-2]

    async def _fields(self) -> Fields:
        fields = []
        while line := await self._line():
            name, colon, value = line.partition(b": ")
            assert colon, line
            fields.append((name.lower(), value))
        return fields

    async def _head(self) -> tuple[int, Fields]:
        version, status, _ = (await self._line()).split(b" ", 2)
        assert version == b"HTTP/1.1"
        return int(status), await self._fields()
