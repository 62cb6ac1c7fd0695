"""What a load generator needs of HTTP/2 (RFC 9113): requests to send, a count of the responses that come.

Knows nothing of sockets. HPACK (RFC 7541) has no state here: the fields of requests are literals and entries
of the static table, and of a response's fields the status alone is read, which is the first one.
"""

import itertools
import struct
from collections.abc import Callable, Iterable
from typing import Any

from bench.errors import UnsupportedError
from bench.responses import BodyLength, ResponseError

FRAME_HEAD = 9
MAX_FRAME_SIZE = 16384
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = 0, 1, 3, 4, 5, 6, 7
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
CONNECTION = bytes(4)
"""The stream of frames for the whole connection."""
ENABLE_PUSH, INITIAL_WINDOW_SIZE = 2, 4
DEFAULT_WINDOW = 65535
# What the server may send before it gets credit, as with h2load: no response waits.
WINDOW = (1 << 30) - 1
# The names of error codes (RFC 9113 section 7), by their number.
ERRORS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT"),
    *("STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR"),
    *("CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)
# Statuses of the static table (RFC 7541 appendix A), by their index.
STATIC_STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
# The Huffman code of digits (RFC 7541 appendix B).
HUFFMAN_DIGITS = {f"{digit:05b}": str(digit) for digit in range(3)}
HUFFMAN_DIGITS |= {f"{digit + 22:06b}": str(digit) for digit in range(3, 10)}
# Responses that are longer are not compared as a whole.
MAX_KNOWN_BYTES = 4096


def build_frame(kind: int, flags: int, stream: bytes, payload: bytes) -> bytes:
    """A frame (RFC 9113 section 4.1); `stream` is its identifier as the frame has it."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream + payload


def build_preface() -> bytes:
    """The client's connection preface: no pushes, and windows that no response fills."""
    settings = struct.pack(">HIHI", ENABLE_PUSH, 0, INITIAL_WINDOW_SIZE, WINDOW)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + build_frame(SETTINGS, 0, CONNECTION, settings)
        + build_frame(WINDOW_UPDATE, 0, CONNECTION, struct.pack(">I", WINDOW - DEFAULT_WINDOW))
    )


class Requests:
    """The GET requests of one connection, all alike."""

    def __init__(self, path: str, *, tls: bool) -> None:
        block = b"\x82" + (b"\x87" if tls else b"\x86") + _literal(1, b"127.0.0.1")
        block += b"\x84" if path == "/" else _literal(4, path.encode())
        self._head = len(block).to_bytes(3, "big") + bytes((HEADERS, END_STREAM | END_HEADERS))
        self._block = block
        self._next = 1

    def open(self, count: int) -> tuple[list[bytes], bytes]:
        """The identifiers of `count` new streams, as frames have them, and the frames that open them."""
        first, self._next = self._next, self._next + 2 * count
        streams = [number.to_bytes(4, "big") for number in range(first, self._next, 2)]
        return streams, self._head + (self._block + self._head).join(streams) + self._block


def _literal(name: int, value: bytes) -> bytes:
    """A field that is not to be indexed, its name by an entry of the static table. Up to 126 bytes."""
    return bytes((name, len(value))) + value


def read_status(block: bytes) -> int:
    """The status by the header block of a response. Raises ResponseError if it doesn't begin with one.

    A status of the dynamic table is none: 200, 204 and 206 never need it.
    """
    start = 0
    while block[start : start + 1] and block[start] & 0xE0 == 0x20:
        # A new size of the dynamic table: an integer in five bits and perhaps some bytes.
        more = block[start] & 0x1F == 0x1F
        start += 1
        while more and start < len(block):
            more = block[start] >= 0x80
            start += 1
    first = block[start] if start < len(block) else 0
    if first & 0x80 and first & 0x7F in STATIC_STATUSES:
        return STATIC_STATUSES[first & 0x7F]
    # A literal: with incremental indexing, or without, or never indexed.
    if (first & 0x3F if first & 0x40 else first & 0x0F) in STATIC_STATUSES and not first & 0x80:
        length = block[start + 1] if start + 1 < len(block) else 0
        value = block[start + 2 : start + 2 + (length & 0x7F)]
        digits = _read_huffman_digits(value) if length & 0x80 else value.decode("latin-1")
        if len(digits) == 3 and digits.isascii() and digits.isdigit():
            return int(digits)
    raise ResponseError(f"a header block without a status, which begins with {block[:8].hex()}")


def _read_huffman_digits(value: bytes) -> str:
    """The digits that are coded so, as far as they are some."""
    bits, digits = "".join(f"{byte:08b}" for byte in value), ""
    while code := next(filter(bits.startswith, HUFFMAN_DIGITS), ""):
        digits += HUFFMAN_DIGITS[code]
        bits = bits[len(code) :]
    return digits


class StreamCounter:
    """The responses of one connection. `feed` takes what came, cut anywhere.

    A response that has the bytes of the last one, but for the stream's identifier, costs one comparison. That
    is no guess: its status stands in those bytes and not in the state of HPACK. Whatever is new is read frame
    by frame.

    With a BodyLength, a response with a body of another length isn't one that counts. `decode`, if it is
    given, is a method of an HPACK decoder: it reads the first header block and has to find the same status.
    """

    def __init__(
        self,
        body_length: BodyLength | None = None,
        decode: Callable[[bytes], Iterable[tuple[Any, ...]]] | None = None,
    ) -> None:
        self._body_length, self._decode = body_length, decode
        self._held = b""
        self._begun = False
        # Of responses that aren't complete: the bytes of the body so far, None before the head.
        self._bodies: dict[bytes, int | None] = {}
        # Of a header block that isn't complete, the first frame's flags and what came of it.
        self._block_flags, self._block = 0, b""
        # The last whole response, cut where its frames have the stream's identifier.
        self._known: list[bytes] = []
        self._known_size = self._known_data = 0
        self._uncredited = 0
        self._replies = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The streams, by their identifiers, whose responses became complete with `data`.

        Raises ResponseError, or UnsupportedError if this isn't HTTP/2; the counter is then useless.
        """
        if self._held:
            data = self._held + data
        self._check_begin(data)
        complete: list[bytes] = []
        # Where the frames begin that are of one stream and follow each other.
        row: list[int] = []
        row_stream, is_new = b"", False
        start = 0
        while True:
            stream = data[start + 5 : start + FRAME_HEAD]
            if self._known and not self._bodies and data.startswith(stream.join(self._known), start):
                complete.append(stream)
                start += self._known_size
                self._uncredited += self._known_data
                continue
            if len(data) < start + FRAME_HEAD:
                break
            length = int.from_bytes(data[start : start + 3], "big")
            if length > MAX_FRAME_SIZE:
                raise ResponseError(f"a frame of {length} bytes")
            end = start + FRAME_HEAD + length
            if len(data) < end:
                break
            if stream != row_stream:
                row, row_stream, is_new = [], stream, stream not in self._bodies
            row.append(start)
            if self._read(data[start + 3], data[start + 4], stream, data[start + FRAME_HEAD : end]):
                complete.append(stream)
                if is_new and end - row[0] <= MAX_KNOWN_BYTES:
                    self._learn(data, row, end)
                row_stream = b""
            start = end
        self._held = data[start:]
        return complete

    def take_replies(self) -> bytes:
        """The frames that the server is owed for what it sent: acknowledgements, and credit for its data."""
        replies, self._replies = self._replies, b""
        if self._uncredited > WINDOW // 2:
            replies += build_frame(WINDOW_UPDATE, 0, CONNECTION, struct.pack(">I", self._uncredited))
            self._uncredited = 0
        return replies

    def _check_begin(self, data: bytes) -> None:
        """The server's preface is a SETTINGS frame. Of HTTP/1.1 the first bytes would be a frame's length."""
        if self._begun or len(data) < FRAME_HEAD:
            return
        if data[3] != SETTINGS or data[5:FRAME_HEAD] != CONNECTION:
            raise UnsupportedError(f"it answers the preface of HTTP/2 with {data[:20]!r}")
        self._begun = True

    def _learn(self, data: bytes, row: list[int], end: int) -> None:
        """The frames that begin there, the last of which ends at `end`, are the last whole response."""
        self._known = [
            data[row[0] : row[0] + 5],
            *(data[head + FRAME_HEAD : following + 5] for head, following in itertools.pairwise(row)),
            data[row[-1] + FRAME_HEAD : end],
        ]
        self._known_size = end - row[0]
        lengths = (int.from_bytes(data[head : head + 3], "big") for head in row if data[head + 3] == DATA)
        self._known_data = sum(lengths)

    def _read(self, kind: int, flags: int, stream: bytes, payload: bytes) -> bool:
        """Whether this frame completes a response."""
        if kind == DATA:
            return self._read_data(flags, stream, payload)
        if kind == HEADERS:
            self._bodies.setdefault(stream, None)
            self._block_flags, self._block = flags, _unpad(flags, payload)[5 if flags & PRIORITY else 0 :]
            return bool(flags & END_HEADERS) and self._read_block(stream)
        if kind == CONTINUATION:
            self._block += payload
            return bool(flags & END_HEADERS) and self._read_block(stream)
        if kind == SETTINGS and not flags & ACK:
            self._replies += build_frame(SETTINGS, ACK, CONNECTION, b"")
        elif kind == PING and not flags & ACK:
            self._replies += build_frame(PING, ACK, CONNECTION, payload)
        elif kind == RST_STREAM:
            raise ResponseError(f"stream reset with {_error_name(payload)}")
        elif kind == GOAWAY:
            raise ResponseError(f"connection ended with {_error_name(payload[4:8])} {payload[8:60]!r}")
        elif kind == PUSH_PROMISE:
            raise ResponseError("a push, which is switched off")
        return False

    def _read_block(self, stream: bytes) -> bool:
        """A header block is complete: the head of a response, or its trailers."""
        block, self._block = self._block, b""
        if stream not in self._bodies:
            raise ResponseError("the rest of a header block without its begin")
        if self._bodies[stream] is None:
            status = read_status(block)
            if self._decode:
                decoded, self._decode = dict(field[:2] for field in self._decode(block)), None
                if decoded.get(":status") != str(status):
                    raise ResponseError(f"status {status}, and by hpack {decoded.get(':status')}")
            if status >= 200:
                if status >= 300:
                    raise ResponseError(f"answered with status {status}")
                self._bodies[stream] = 0
        return bool(self._block_flags & END_STREAM) and self._complete(stream)

    def _read_data(self, flags: int, stream: bytes, payload: bytes) -> bool:
        length = self._bodies.get(stream)
        if length is None:
            raise ResponseError("data without a head before it")
        self._uncredited += len(payload)
        self._bodies[stream] = length + len(_unpad(flags, payload))
        return bool(flags & END_STREAM) and self._complete(stream)

    def _complete(self, stream: bytes) -> bool:
        length = self._bodies.pop(stream)
        if length is None:
            raise ResponseError("a response that ends without a status of its own")
        if self._body_length:
            self._body_length.check(length)
        return True


def _unpad(flags: int, payload: bytes) -> bytes:
    """A frame's payload without its padding. Raises ResponseError if there is more padding than payload."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ResponseError("more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def _error_name(code: bytes) -> str:
    number = int.from_bytes(code, "big")
    return ERRORS[number] if number < len(ERRORS) else f"error code {number}"
