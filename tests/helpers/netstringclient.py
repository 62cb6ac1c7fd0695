"""The client of a toy wire, which shows that the tests of ASGI know no wire.

A client begins with PREFACE. What goes over the wire then are netstrings, ``<decimal length>:<payload>,``.
The payload's first byte is its kind:

- `R`, a request: method, target and fields; `B`, a piece of its body; `E`, its end
- `W`, a request for a WebSocket: target and fields
- `S`, a response: status and fields; `I`, an informational one; `B`, a piece of its body; `T`, its trailers;
  `E`, its end
- `A`, a WebSocket is open: fields. From there on both sides send RFC 6455 frames.

Lines end with a line feed; fields are ``name: value``. A client begins with the preface.
"""

from anyclient import FRAMING, Client, Fields, Response

PIECE = 16384  # bytes of a body in one netstring, at the most


def netstring(kind: bytes, payload: bytes = b"") -> bytes:
    """One message of this kind."""
    return b"%d:%b%b," % (len(payload) + 1, kind, payload)


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("latin-1")


def _fields(lines: list[bytes]) -> Fields:
    fields = []
    for line in filter(None, lines):
        name, colon, value = line.partition(b": ")
        assert colon, line
        if name.lower() not in FRAMING:
            fields.append((name.lower(), value))
    return fields


class NetstringClient(Client):
    """Speaks netstrings. They say where a body ends, so that its length need not be told."""

    preface = b"netstrings\n"

    def encode_head(self, method: str, target: str, fields: tuple[str, ...], length: int | None) -> bytes:
        return netstring(b"R", _lines(f"{method} {target}", "host: x", *fields)) + (
            netstring(b"E") if length == 0 else b""
        )

    def encode_piece(self, data: bytes, *, has_length: bool, is_last: bool) -> bytes:
        pieces = [netstring(b"B", data[i : i + PIECE]) for i in range(0, len(data), PIECE)]
        return b"".join(pieces) + (netstring(b"E") if is_last else b"")

    def encode_handshake(self, target: str, fields: tuple[str, ...]) -> bytes:
        return netstring(b"W", _lines(target, "host: x", *fields))

    async def read_head(self, method: str) -> Response:
        informational: list[Response] = []
        kind, payload = await self._message()
        while kind == b"I":
            informational.append(self._head(payload))
            kind, payload = await self._message()
        if kind == b"A":
            return Response(101, _fields(payload.split(b"\n")), informational=informational)
        assert kind == b"S", (kind, payload)
        response = self._head(payload)
        response.body, response.is_whole, response.informational = bytearray(), False, informational
        return response

    async def read_more(self, response: Response) -> None:
        kind, payload = await self._message()
        if kind == b"B":
            response.body += payload
        elif kind == b"T":
            response.trailers += _fields(payload.split(b"\n"))
        else:
            assert (kind, payload) == (b"E", b"")
            response.is_whole = True

    def _head(self, payload: bytes) -> Response:
        status, *lines = payload.split(b"\n")
        return Response(int(status), _fields(lines))

    async def _message(self) -> tuple[bytes, bytes]:
        length = int((await self.reader.readuntil(b":"))[:-1])
        payload = await self.reader.readexactly(length + 1)
        assert payload.endswith(b",")
        return payload[:1], payload[1:-1]
