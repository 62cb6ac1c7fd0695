"""A scripted HTTP/2 client: any frames, also malformed ones, over a real socket (RFC 9113).

It reads frames as they are asked for, and fails where the server breaks a rule that a client can see: a frame
too large, DATA beyond a window, a header block that cannot be decoded, something behind the end of a stream.
"""

import asyncio
import collections
import contextlib
import enum
import ssl
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hpack
from certificates import Authority
from serving import WAIT_S
from wire import Connection

Fields = list[tuple[bytes, bytes]]
T = TypeVar("T")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_SIZE = 16384  # SETTINGS_MAX_FRAME_SIZE where nobody sets it
WINDOW = 65535  # both windows where nobody sets them
MAX_WINDOW = 2**31 - 1


class FrameType(enum.IntEnum):
    """The types of frames (RFC 9113 section 6, RFC 9218 section 7)."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    PRIORITY_UPDATE = 0x10


class Flag(enum.IntFlag):
    """The flags of frames. What they mean depends on the type."""

    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(enum.IntEnum):
    """The settings (RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8
    NO_RFC7540_PRIORITIES = 0x9


class ErrorCode(enum.IntEnum):
    """The error codes (RFC 9113 section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


# --- Frames ---


@dataclass(frozen=True)
class Frame:
    """A frame as it goes over the wire."""

    type: int
    flags: int = 0
    stream: int = 0
    payload: bytes = b""

    def __bytes__(self) -> bytes:
        length = struct.pack(">I", len(self.payload))[1:]
        return length + struct.pack(">BBI", self.type, self.flags, self.stream) + self.payload

    def __repr__(self) -> str:
        name = FrameType(self.type).name if self.type in list(FrameType) else f"{self.type:#x}"
        return (
            f"<{name} {self.flags:#x} stream {self.stream}: {len(self.payload)} bytes {self.payload[:32]!r}>"
        )


def _padded(payload: bytes, padding: int | None) -> tuple[int, bytes]:
    """The flag and the payload with so many bytes of padding; None: without the field of their number."""
    if padding is None:
        return 0, payload
    return Flag.PADDED, bytes([padding]) + payload + bytes(padding)


def _dependency(depends_on: int, weight: int, exclusive: bool) -> bytes:
    return struct.pack(">IB", depends_on | exclusive << 31, weight - 1)


def data(stream: int, payload: bytes = b"", *, end_stream: bool = False, padding: int | None = None) -> bytes:
    """DATA."""
    flags, payload = _padded(payload, padding)
    return bytes(Frame(FrameType.DATA, flags | (Flag.END_STREAM if end_stream else 0), stream, payload))


def headers(
    stream: int,
    block: bytes,
    *,
    end_stream: bool = True,
    end_headers: bool = True,
    padding: int | None = None,
    depends_on: int | None = None,
    weight: int = 16,
    exclusive: bool = False,
) -> bytes:
    """HEADERS with this piece of an encoded block; with RFC 7540's priority where `depends_on` is given."""
    flags = (Flag.END_STREAM if end_stream else 0) | (Flag.END_HEADERS if end_headers else 0)
    if depends_on is not None:
        flags |= Flag.PRIORITY
        block = _dependency(depends_on, weight, exclusive) + block
    padded, payload = _padded(block, padding)
    return bytes(Frame(FrameType.HEADERS, flags | padded, stream, payload))


def continuation(stream: int, block: bytes, *, end_headers: bool = True) -> bytes:
    """CONTINUATION with a further piece of an encoded block."""
    return bytes(Frame(FrameType.CONTINUATION, Flag.END_HEADERS if end_headers else 0, stream, block))


def priority(stream: int, depends_on: int = 0, *, weight: int = 16, exclusive: bool = False) -> bytes:
    """PRIORITY (RFC 7540 section 6.3); weights are 1 to 256."""
    return bytes(Frame(FrameType.PRIORITY, 0, stream, _dependency(depends_on, weight, exclusive)))


def priority_update(stream: int, value: bytes) -> bytes:
    """PRIORITY_UPDATE (RFC 9218 section 7.1): the priority field's new value for a stream."""
    return bytes(Frame(FrameType.PRIORITY_UPDATE, 0, 0, struct.pack(">I", stream) + value))


def rst_stream(stream: int, code: int = ErrorCode.CANCEL) -> bytes:
    """RST_STREAM."""
    return bytes(Frame(FrameType.RST_STREAM, 0, stream, struct.pack(">I", code)))


def settings(*values: tuple[int, int]) -> bytes:
    """SETTINGS with these pairs, in their order."""
    payload = b"".join(struct.pack(">HI", *pair) for pair in values)
    return bytes(Frame(FrameType.SETTINGS, 0, 0, payload))


SETTINGS_ACK = bytes(Frame(FrameType.SETTINGS, Flag.ACK))


def push_promise(stream: int, promised: int, block: bytes) -> bytes:
    """PUSH_PROMISE, which no client may send."""
    return bytes(Frame(FrameType.PUSH_PROMISE, Flag.END_HEADERS, stream, struct.pack(">I", promised) + block))


def ping(payload: bytes = bytes(8), *, ack: bool = False) -> bytes:
    """PING."""
    return bytes(Frame(FrameType.PING, Flag.ACK if ack else 0, 0, payload))


def goaway(last_stream: int = 0, code: int = ErrorCode.NO_ERROR, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return bytes(Frame(FrameType.GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + debug))


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE of a stream, or of the connection: stream 0."""
    return bytes(Frame(FrameType.WINDOW_UPDATE, 0, stream, struct.pack(">I", increment)))


def read_frames(came: bytearray) -> list[Frame]:
    """The frames that have come whole, which are taken out of what has come."""
    frames, start = [], 0
    while len(came) >= start + 9:
        length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + came[start : start + 9])
        end = start + 9 + length
        if len(came) < end:
            break
        frames.append(Frame(kind, flags, stream & MAX_WINDOW, bytes(came[start + 9 : end])))
        start = end
    del came[:start]
    return frames


def request_fields(
    method: str = "GET", target: str = "/", *fields: str, scheme: str = "http", authority: str = "x"
) -> Fields:
    """The fields of a request; further ones are lines such as ``x-name: value``."""
    lines = (
        f":method: {method}",
        f":scheme: {scheme}",
        f":path: {target}",
        f":authority: {authority}",
        *fields,
    )
    pairs = (line.partition(": ") for line in lines)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, _, value in pairs]


# --- What comes back ---


@dataclass
class Response:
    """What has come on a stream.

    `status` is 0 before the response's head has come. `is_whole` is True when END_STREAM has come; `reset` is
    the code of a RST_STREAM, which may come behind that or instead. `length` counts the body, also where the
    peer does not keep it. `promised` are the streams that PUSH_PROMISE frames on this one announced, with the
    fields of their requests.
    """

    status: int = 0
    headers: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    is_whole: bool = False
    reset: int | None = None
    length: int = 0
    informational: list["Response"] = field(default_factory=list)
    promised: dict[int, Fields] = field(default_factory=dict)

    def __getitem__(self, name: bytes) -> bytes:
        """The value of a header that must be there once."""
        [value] = [value for other, value in self.headers if other == name]
        return value

    def __contains__(self, name: bytes) -> bool:
        return any(other == name for other, _ in self.headers)

    @property
    def is_over(self) -> bool:
        """Nothing more comes on the stream."""
        return self.is_whole or self.reset is not None


@dataclass(frozen=True)
class GoAway:
    """The contents of a GOAWAY frame."""

    last_stream: int
    code: int
    debug: bytes


@dataclass(frozen=True)
class End:
    """How a connection ended: by a reset of TCP or not, and the GOAWAY frames before, in order.

    `partial` are the bytes of a frame within which it ended.
    """

    by_reset: bool
    goaways: tuple[GoAway, ...]
    partial: bytes = b""

    @property
    def code(self) -> int | None:
        """The last GOAWAY's code, or None if there was none."""
        return self.goaways[-1].code if self.goaways else None


def http2_context(authority: Authority, *protocols: str) -> ssl.SSLContext:
    """A client's TLS context that offers these protocols by ALPN, in order; ``h2`` where none is given."""
    context = authority.client()
    context.set_alpn_protocols(protocols or ("h2",))
    return context


# --- The peer ---


class HTTP2Peer(Connection):
    """A client on one connection. By itself it sends only answers, see `acknowledges` and `returns_credit`.

    What has come is in `frames`, `goaways`, `settings` (the server's, as far as it has sent them) and in the
    Response of each stream. Several coroutines may wait at once. It fits wire.served(client_type=HTTP2Peer).
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.acknowledges = True  # SETTINGS and PING
        self.returns_credit = True  # window for DATA, at once
        self.checks_windows = True  # else a test gives windows of which the peer does not know
        self.keeps_bodies = True  # else neither `frames` nor a Response has the DATA
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.frames: list[Frame] = []
        self.goaways: list[GoAway] = []
        self.settings: dict[int, int] = {}
        self.end: End | None = None
        self.next_stream = 1
        self.responses: dict[int, Response] = {}
        # How many bytes may still come, and go; of streams: beside the window that all begin with
        self.window = WINDOW
        self.send_window = WINDOW
        self.initial_window = WINDOW
        self._stream_windows: collections.Counter[int] = collections.Counter()
        self._stream_send_windows: collections.Counter[int] = collections.Counter()
        self._sent_settings: collections.deque[dict[int, int]] = collections.deque()
        self._max_frame_size = FRAME_SIZE
        self._block: tuple[Frame, bytearray] | None = None
        self._taken = 0  # wait_for() goes on behind so many of `frames`
        self._pings = 0
        self._reading = asyncio.Lock()

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1", **options: Any) -> "HTTP2Peer":
        """A peer of a server in another process; options as asyncio.open_connection takes them."""
        return cls(*await asyncio.open_connection(host, port, **options))

    # What is sent, for whoever sends it: it counts as sent, and has to be, in this order

    def encode_settings(self, *values: tuple[int, int]) -> bytes:
        """SETTINGS with these values, which hold from the server's ACK on."""
        self._sent_settings.append(dict(values))
        return settings(*values)

    def encode_request(self, fields: Fields, *, end_stream: bool) -> tuple[int, bytes]:
        """A request's head: its stream, and the frames."""
        stream = self.next_stream
        self.next_stream += 2
        block = self.block(fields)
        pieces = [block[i : i + FRAME_SIZE] for i in range(0, len(block), FRAME_SIZE)]
        parts = [headers(stream, pieces[0], end_stream=end_stream, end_headers=len(pieces) == 1)]
        parts += [
            continuation(stream, piece, end_headers=i == len(pieces)) for i, piece in enumerate(pieces[1:], 2)
        ]
        return stream, b"".join(parts)

    def encode_data(self, stream: int, body: bytes, *, end_stream: bool = False) -> bytes:
        """DATA frames, for which the server's windows have to have room; one at least."""
        assert len(body) <= self.room(stream), f"{len(body)} bytes into a window of {self.room(stream)}"
        self.send_window -= len(body)
        self._stream_send_windows[stream] -= len(body)
        size = self.settings.get(Setting.MAX_FRAME_SIZE, FRAME_SIZE)
        pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        last = len(pieces) - 1
        return b"".join(
            data(stream, piece, end_stream=end_stream and i == last) for i, piece in enumerate(pieces)
        )

    def encode_credit(self, stream: int, increment: int) -> bytes:
        """WINDOW_UPDATE for a stream, or for the connection: stream 0."""
        if stream:
            self._stream_windows[stream] += increment
        else:
            self.window += increment
        return window_update(stream, increment)

    # Sending

    async def write(self, data: bytes) -> None:
        """Send these bytes. They are lost where the server has ended the connection, see ending()."""
        with contextlib.suppress(ConnectionError):
            if not self.writer.is_closing():
                await super().write(data)

    async def open(self, *values: tuple[int, int], waits: bool = True) -> None:
        """Send the preface and SETTINGS with these values; wait for the server's, and for its ACK of ours."""
        await self.write(PREFACE)
        await self.set(*values, waits=waits)

    async def set(self, *values: tuple[int, int], waits: bool = True) -> None:
        """Send SETTINGS with these values, which hold from the server's ACK on; wait for that."""
        await self.write(self.encode_settings(*values))
        if waits:
            await self.until(lambda: self.settings and not self._sent_settings, "an ACK of SETTINGS")

    def block(self, fields: Iterable[tuple[bytes | str, bytes | str]]) -> bytes:
        """These fields encoded. Blocks have to be sent, and in the order in which they were encoded."""
        return self.encoder.encode(fields)

    async def begin(
        self, method: str = "GET", target: str = "/", *fields: str, end_stream: bool = False, **pseudo: str
    ) -> int:
        """Send a request's head: the stream. `pseudo` are `scheme` and `authority`."""
        pairs = request_fields(method, target, *fields, **pseudo)
        stream, head = self.encode_request(pairs, end_stream=end_stream)
        await self.write(head)
        return stream

    async def request(self, method: str = "GET", target: str = "/", *fields: str, body: bytes = b"") -> int:
        """Send a whole request, as the server's windows allow: the stream."""
        stream = await self.begin(method, target, *fields, end_stream=not body)
        if body:
            await self.send(stream, body, end_stream=True)
        return stream

    async def send(self, stream: int, body: bytes, *, end_stream: bool = False) -> None:
        """Send DATA as fast as the server's windows allow; stops where the stream is reset."""
        left = memoryview(body)
        while True:
            room = self.room(stream)
            piece, left = left[:room], left[room:]
            if piece or not body:
                await self.write(self.encode_data(stream, bytes(piece), end_stream=end_stream and not left))
            if not left:
                return
            await self.until(
                lambda: self.room(stream) or self.of(stream).reset is not None, "window to send DATA"
            )
            if self.of(stream).reset is not None:
                return

    def room(self, stream: int) -> int:
        """How many bytes of DATA the server's windows allow on a stream."""
        initial = self.settings.get(Setting.INITIAL_WINDOW_SIZE, WINDOW)
        return max(0, min(self.send_window, initial + self._stream_send_windows[stream]))

    async def credit(self, stream: int, increment: int) -> None:
        """Send WINDOW_UPDATE for a stream, or for the connection: stream 0."""
        await self.write(self.encode_credit(stream, increment))

    # Receiving

    def of(self, stream: int) -> Response:
        """What has come on a stream up to now."""
        return self.responses.setdefault(stream, Response())

    async def ask(self, method: str = "GET", target: str = "/", *fields: str, body: bytes = b"") -> Response:
        """A request, and its response."""
        return await self.response(await self.request(method, target, *fields, body=body))

    async def response(self, stream: int) -> Response:
        """The response on a stream, up to its end, a reset or the connection's end."""
        await self.until(lambda: self.of(stream).is_over or self.end, f"the response on stream {stream}")
        return self.of(stream)

    async def head(self, stream: int) -> Response:
        """The response on a stream as soon as its head has come."""
        await self.until(
            lambda: self.of(stream).status or self.of(stream).is_over, f"a head on stream {stream}"
        )
        return self.of(stream)

    async def wait_for(
        self, kind: int, stream: int | None = None, *, flags: int = 0, limit_s: float = WAIT_S
    ) -> Frame:
        """The next frame of this kind, stream and with these flags, behind the one waited for before."""

        def find() -> Frame | None:
            for i in range(self._taken, len(self.frames)):
                frame = self.frames[i]
                if frame.type == kind and stream in (None, frame.stream) and frame.flags & flags == flags:
                    self._taken = i + 1
                    return frame
            return None

        return await self.until(find, FrameType(kind).name, limit_s)

    async def settle(self) -> None:
        """Send a PING and wait for its ACK: the server has seen all that was sent before."""
        self._pings += 1
        payload = b"%8d" % self._pings
        await self.write(ping(payload))
        acked = Frame(FrameType.PING, Flag.ACK, 0, payload)
        await self.until(lambda: acked in self.frames, "the ACK of a PING")

    async def ending(self, limit_s: float = WAIT_S) -> End:
        """How the connection ends; reads all that comes before."""
        return await self.until(lambda: self.end, "the connection's end", limit_s)

    async def until(self, condition: Callable[[], T], what: str, limit_s: float | None = WAIT_S) -> T:
        """The first true result of the condition, which is looked at after each frame.

        Fails if it is not in time, or if the connection ends before.
        """
        try:
            async with asyncio.timeout(limit_s):
                while not (result := condition()):
                    async with self._reading:
                        result = condition()
                        if not result:
                            assert self.end is None, f"the connection ended before {what}: {self}"
                            await self._read()
        except TimeoutError:
            raise AssertionError(f"not within {limit_s:g} s: {what}; {self}") from None
        return result

    def __repr__(self) -> str:
        return f"<HTTP2Peer end={self.end} goaways={self.goaways} frames={self.frames[-8:]}>"

    # What comes

    async def _read(self) -> None:
        """Read one frame, or the connection's end."""
        try:
            head = await self.reader.readexactly(9)
            length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + head)
            assert length <= self._max_frame_size, f"a frame of {length} bytes"
            frame = Frame(kind, flags, stream & MAX_WINDOW, await self.reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            self.end = End(False, tuple(self.goaways), error.partial)
        except (ConnectionError, ssl.SSLError):
            self.end = End(True, tuple(self.goaways))
        else:
            if kind != FrameType.DATA or self.keeps_bodies:
                self.frames.append(frame)
            self.take(frame)

    def take(self, frame: Frame) -> None:
        """Judge a frame that has come, and note what it says."""
        assert self._block is None or frame.type == FrameType.CONTINUATION, f"{frame} within a header block"
        assert self.settings or frame.type == FrameType.SETTINGS, f"{frame} before SETTINGS"
        handlers = {
            FrameType.DATA: self._take_data,
            FrameType.HEADERS: self._take_block,
            FrameType.PUSH_PROMISE: self._take_block,
            FrameType.CONTINUATION: self._take_block,
            FrameType.RST_STREAM: self._take_reset,
            FrameType.SETTINGS: self._take_settings,
            FrameType.PING: self._take_ping,
            FrameType.GOAWAY: self._take_goaway,
            FrameType.WINDOW_UPDATE: self._take_window_update,
        }
        if frame.type in handlers:
            handlers[FrameType(frame.type)](frame)

    def _content(self, frame: Frame) -> bytes:
        """The payload without padding and priority."""
        payload = frame.payload
        if frame.flags & Flag.PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if frame.type == FrameType.HEADERS and frame.flags & Flag.PRIORITY:
            payload = payload[5:]
        return payload

    def _open(self, frame: Frame) -> Response:
        response = self.of(frame.stream)
        assert not response.is_over, f"{frame} behind the end of its stream"
        return response

    def _take_data(self, frame: Frame) -> None:
        response = self._open(frame)
        assert response.status, f"{frame} before the head"
        size = len(frame.payload)
        self.window -= size
        self._stream_windows[frame.stream] -= size
        if self.checks_windows and size:
            assert self.window >= 0, f"{frame} exceeds the connection's window"
            window = self.initial_window + self._stream_windows[frame.stream]
            assert window >= 0, f"{frame} exceeds the window of its stream"
        content = self._content(frame)
        response.length += len(content)
        if self.keeps_bodies:
            response.body += content
        response.is_whole = bool(frame.flags & Flag.END_STREAM)
        if self.returns_credit and size:
            self.writer.write(self.encode_credit(0, size))
            if not response.is_whole:
                self.writer.write(self.encode_credit(frame.stream, size))

    def _take_block(self, frame: Frame) -> None:
        if frame.type == FrameType.CONTINUATION:
            assert self._block is not None, f"{frame} without a block"
            first, block = self._block
            assert first.stream == frame.stream, f"{frame} within the block of {first}"
            block += frame.payload
        else:
            self._open(frame)
            first, block = frame, bytearray(self._content(frame))
        self._block = (first, block)
        if frame.flags & Flag.END_HEADERS:
            self._block = None
            self._take_fields(first, bytes(block))

    def _take_fields(self, first: Frame, block: bytes) -> None:
        response = self.of(first.stream)
        if first.type == FrameType.PUSH_PROMISE:
            [promised] = struct.unpack(">I", block[:4])
            response.promised[promised] = self.decoder.decode(block[4:], raw=True)
            return
        fields = self.decoder.decode(block, raw=True)
        response.is_whole = bool(first.flags & Flag.END_STREAM)
        if response.status:
            assert response.is_whole, f"trailers without END_STREAM: {first}"
            response.trailers = fields
            return
        (name, status), *fields = fields
        assert name == b":status", name
        assert not any(name.startswith(b":") for name, _ in fields), fields
        assert all(name == name.lower() for name, _ in fields), fields
        if int(status) < 200:
            assert not response.is_whole, f"an informational response with END_STREAM: {first}"
            response.informational.append(Response(int(status), fields))
        else:
            response.status, response.headers = int(status), fields

    def _take_reset(self, frame: Frame) -> None:
        [self.of(frame.stream).reset] = struct.unpack(">I", frame.payload)

    def _take_settings(self, frame: Frame) -> None:
        if frame.flags & Flag.ACK:
            assert not frame.payload
            if self._sent_settings:
                self._apply(self._sent_settings.popleft())
            return
        values = dict(struct.iter_unpack(">HI", frame.payload))
        # A server that sets nothing has sent its SETTINGS too
        self.settings |= values or {Setting.INITIAL_WINDOW_SIZE: WINDOW}
        if Setting.HEADER_TABLE_SIZE in values:
            self.encoder.header_table_size = min(values[Setting.HEADER_TABLE_SIZE], 4096)
        if self.acknowledges:
            self.writer.write(SETTINGS_ACK)

    def _apply(self, values: dict[int, int]) -> None:
        """What the server has acknowledged of ours."""
        self.initial_window = values.get(Setting.INITIAL_WINDOW_SIZE, self.initial_window)
        self._max_frame_size = values.get(Setting.MAX_FRAME_SIZE, self._max_frame_size)
        if Setting.HEADER_TABLE_SIZE in values:
            self.decoder.max_allowed_table_size = values[Setting.HEADER_TABLE_SIZE]

    def _take_ping(self, frame: Frame) -> None:
        assert len(frame.payload) == 8
        if self.acknowledges and not frame.flags & Flag.ACK:
            self.writer.write(ping(frame.payload, ack=True))

    def _take_goaway(self, frame: Frame) -> None:
        last_stream, code = struct.unpack_from(">II", frame.payload)
        self.goaways.append(GoAway(last_stream, code, frame.payload[8:]))

    def _take_window_update(self, frame: Frame) -> None:
        [increment] = struct.unpack(">I", frame.payload)
        assert increment, frame
        if frame.stream:
            self._stream_send_windows[frame.stream] += increment
        else:
            self.send_window += increment
            assert self.send_window <= MAX_WINDOW, frame
