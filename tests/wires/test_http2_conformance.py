"""What RFC 9113 and RFC 7541 require of a server: one case for each requirement, by section.

They cover the cases of h2spec 2.6.1, which counts by the sections of RFC 7540, and more. Where the variable
H2SPEC of the environment names a build of h2spec, that runs too.
"""

import asyncio
import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from http2peer import (
    FRAME_SIZE,
    MAX_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    WINDOW,
    ErrorCode,
    Flag,
    Frame,
    FrameType,
    HTTP2Peer,
    Setting,
    continuation,
    data,
    goaway,
    headers,
    http2_context,
    ping,
    priority,
    priority_update,
    push_promise,
    request_fields,
    rst_stream,
    settings,
    window_update,
)
from wire import Reads, error_records, in_loop, respond, served

PROTOCOL_ERROR = ErrorCode.PROTOCOL_ERROR
FLOW_CONTROL_ERROR = ErrorCode.FLOW_CONTROL_ERROR
STREAM_CLOSED = ErrorCode.STREAM_CLOSED
FRAME_SIZE_ERROR = ErrorCode.FRAME_SIZE_ERROR
REFUSED_STREAM = ErrorCode.REFUSED_STREAM
COMPRESSION_ERROR = ErrorCode.COMPRESSION_ERROR

Step = bytes | Callable[[HTTP2Peer], Awaitable[Any]]


class Witness:
    """Answers with the request's body, or with ``hello``, and counts the requests that reach it.

    A request to /hold receives nothing, and is answered when `released` is set. One to /index.html is
    answered with its header fields, one a line.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        body = b""
        if scope["path"] == "/hold":
            await self.released.wait()
        elif scope["path"] == "/index.html":
            body = b"\n".join(b"%b: %b" % pair for pair in scope["headers"])
        else:
            message = {"more_body": True}
            while message["more_body"]:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
        await respond(send, body or b"hello")


# --- What is sent ---


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """An integer with a prefix of so many bits (RFC 7541 section 5.1); `first` are the bits before it."""
    limit = 2**bits - 1
    if value < limit:
        return bytes([first | value])
    value -= limit
    parts = [first | limit]
    while value >= 128:
        parts.append(value % 128 | 128)
        value //= 128
    return bytes([*parts, value])


def string(value: bytes) -> bytes:
    """A string without Huffman code (RFC 7541 section 5.2)."""
    return integer(len(value), 7) + value


def literal(name: bytes, value: bytes, kind: int = 0x00) -> bytes:
    """A literal field with a new name; of kind 0x40 with indexing, of 0x10 never to be indexed."""
    return bytes([kind]) + string(name) + string(value)


def pairs(*fields: tuple[bytes, bytes]) -> bytes:
    """A block that needs no table."""
    return b"".join(literal(*pair) for pair in fields)


def block(method: str = "GET", target: str = "/", *lines: str, **pseudo: str) -> bytes:
    """A request's block that needs no table."""
    return pairs(*request_fields(method, target, *lines, **pseudo))


GET, POST, HOLD = block(), block("POST"), block("GET", "/hold")
PSEUDO = dict(request_fields())


def get(stream: int = 1, *lines: str) -> bytes:
    """A whole request."""
    return headers(stream, block("GET", "/", *lines))


def post(stream: int = 1, *lines: str) -> bytes:
    """The head of a request that has a body."""
    return headers(stream, block("POST", "/", *lines), end_stream=False)


def fields(*pseudo: tuple[bytes, bytes], behind: bytes = b"") -> bytes:
    """HEADERS of a request with these pseudo-header fields alone, and this behind them."""
    return headers(1, pairs(*pseudo) + behind)


def without(name: bytes) -> bytes:
    """HEADERS of a request without one of its pseudo-header fields."""
    return fields(*(pair for pair in PSEUDO.items() if pair[0] != name))


def with_field(name: bytes, value: bytes) -> bytes:
    """HEADERS of a request with this field as it is."""
    return headers(1, GET + literal(name, value))


def with_pseudo(name: bytes, value: bytes) -> bytes:
    """HEADERS of a request in which one pseudo-header field has another value."""
    return fields(*(PSEUDO | {name: value}).items())


def huffman(value: bytes) -> bytes:
    """A string's Huffman code, padded as it has to be."""
    return HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(value)


def coded(code: bytes) -> bytes:
    """A string in Huffman code (RFC 7541 section 5.2)."""
    return integer(len(code), 7, 0x80) + code


def raw(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Any frame."""
    return bytes(Frame(kind, flags, stream, payload))


def change(*values: tuple[int, int]) -> Step:
    """Send SETTINGS, and wait for their ACK."""
    return lambda peer: peer.set(*values)


def credit(stream: int, increment: int) -> Step:
    """Give window."""
    return lambda peer: peer.credit(stream, increment)


async def block_begins_with_sizes(peer: HTTP2Peer) -> None:
    """The next block of the server begins with two size updates, to 0 and to 4096."""
    frame = await peer.wait_for(FrameType.HEADERS)
    assert frame.payload.startswith(integer(0, 5, 0x20) + integer(4096, 5, 0x20))


def informed(status: int, stream: int = 1) -> Step:
    """Wait for an informational response."""
    return lambda peer: peer.until(
        lambda: [one.status for one in peer.of(stream).informational] == [status], f"a response {status}"
    )


def comes(length: int, stream: int = 1) -> Step:
    """Wait until so many bytes of a response's body have come, and see that no more do."""

    async def come(peer: HTTP2Peer) -> None:
        await peer.until(lambda: peer.of(stream).length >= length, f"{length} bytes of DATA")
        await peer.settle()
        assert peer.of(stream).length == length

    return come


def answered(stream: int = 1) -> Step:
    """Wait for a whole response."""
    return lambda peer: peer.response(stream)


def reset(stream: int = 1) -> Step:
    """Wait for a RST_STREAM of the server."""
    return lambda peer: peer.until(lambda: peer.of(stream).reset is not None, "RST_STREAM")


async def no_credit(peer: HTTP2Peer) -> None:
    """Give no window for DATA from here on."""
    peer.returns_credit = False


# --- What follows ---


def responds(stream: int = 1, body: bytes = b"hello", status: int = 200) -> Step:
    """A whole response comes, and the connection lives."""

    async def check(peer: HTTP2Peer) -> None:
        response = await peer.response(stream)
        assert (response.status, response.body, response.is_whole) == (status, body, True)
        await peer.settle()
        assert response.reset is None
        assert not peer.goaways

    return check


async def lives(peer: HTTP2Peer) -> None:
    """Nothing follows: the connection goes on, and no stream is reset."""
    await peer.settle()
    assert not peer.goaways
    assert [response.reset for response in peer.responses.values() if response.reset is not None] == []


async def lives_or_ends(peer: HTTP2Peer) -> None:
    """No error follows, though the server may end the connection."""
    acked = Frame(FrameType.PING, Flag.ACK, 0, b"and now?")
    await peer.write(ping(acked.payload))
    await peer.until(lambda: peer.end or acked in peer.frames, "the ACK of a PING")
    assert [end.code for end in peer.goaways if end.code] == []


def never(frame: bytes) -> Step:
    """The connection lives, and this frame has not come."""

    async def check(peer: HTTP2Peer) -> None:
        await lives(peer)
        assert frame not in map(bytes, peer.frames)

    return check


def answers(status: int) -> Step:
    """A whole response with this status comes, and the connection lives."""

    async def check(peer: HTTP2Peer) -> None:
        response = await peer.response(1)
        assert (response.status, response.is_whole) == (status, True)
        await peer.settle()
        assert not peer.goaways

    return check


def connection_error(*codes: int, last_stream: int | None = None) -> Step:
    """GOAWAY with one of these codes, and with this stream if one is given; and the end of the connection."""

    async def check(peer: HTTP2Peer) -> None:
        end = await peer.ending()
        assert end.code in codes
        assert len(end.goaways) == 1
        assert last_stream in (None, end.goaways[0].last_stream)

    return check


def stream_error(*codes: int, stream: int = 1) -> Step:
    """RST_STREAM with one of these codes, and no response; the connection lives."""

    async def check(peer: HTTP2Peer) -> None:
        response = peer.of(stream)
        await peer.until(lambda: response.reset is not None, "RST_STREAM")
        assert response.reset in codes
        assert response.status == 0
        await peer.settle()
        assert not peer.goaways

    return check


def either_error(*codes: int, stream: int = 1) -> Step:
    """A stream error or a connection error, as the RFC leaves it to the server."""

    async def check(peer: HTTP2Peer) -> None:
        await peer.until(lambda: peer.of(stream).reset is not None or peer.goaways, "an error")
        if peer.goaways:
            await connection_error(*codes)(peer)
        else:
            assert peer.of(stream).reset in codes
            await peer.settle()
            assert not peer.goaways

    return check


@dataclass(frozen=True)
class Case:
    """A requirement: what is sent on a connection, and what must follow.

    `calls` is how often the application is called, where that matters. `h2spec` are the cases of h2spec that
    this one covers. `is_open` says whether preface and SETTINGS have been exchanged before.
    """

    sends: tuple[Step, ...]
    follows: Step
    h2spec: str = ""
    calls: int | None = None
    is_open: bool = True

    async def run(self, peer: HTTP2Peer) -> None:
        """Play it on a new connection."""
        if self.is_open:
            await peer.open()
        for step in (*self.sends, self.follows):
            if isinstance(step, bytes):
                await peer.write(step)
            else:
                await step(peer)


def case(*sends: Step, follows: Step, **more: Any) -> Case:
    """A Case."""
    return Case(sends, follows, **more)


def malformed(*sends: Step, h2spec: str = "") -> Case:
    """A request that is malformed (RFC 9113 section 8.1.1): no application sees it."""
    return Case(sends, stream_error(PROTOCOL_ERROR), h2spec, 0)


UNKNOWN = raw(0x16, bytes(8))

CONNECTION = {
    # 3.4 Preface
    "3.4: SETTINGS come first": case(
        PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, WINDOW)),
        lambda peer: peer.wait_for(FrameType.SETTINGS),
        follows=lives, h2spec="generic/1/1 http2/3.5/1", is_open=False,
    ),
    "3.4: SETTINGS may be empty": case(PREFACE + settings(), follows=lives, is_open=False),
    "3.4: a request right behind SETTINGS": case(
        PREFACE + settings() + get(), follows=responds(), is_open=False,
    ),
    "3.4: another frame than SETTINGS first": case(
        PREFACE + ping(), follows=connection_error(PROTOCOL_ERROR), is_open=False,
    ),
    "3.4: an ACK of SETTINGS first": case(
        PREFACE + SETTINGS_ACK, follows=connection_error(PROTOCOL_ERROR), is_open=False,
    ),
    # 4.1 Frame format
    "4.1: an unknown type": case(UNKNOWN, follows=lives, h2spec="http2/4.1/1 http2/5.5/1"),
    "4.1: an unknown type on a stream": case(
        post(), raw(0x16, bytes(8), stream=1), data(1, b"body", end_stream=True),
        follows=responds(body=b"body"),
    ),
    "4.1: undefined flags": case(
        raw(FrameType.PING, bytes(8), flags=0x16),
        lambda peer: peer.wait_for(FrameType.PING, flags=Flag.ACK),
        follows=lives, h2spec="http2/4.1/2",
    ),
    "4.1: the reserved bit": case(
        raw(FrameType.PING, bytes(8), flags=0x16, stream=1 << 31),
        lambda peer: peer.wait_for(FrameType.PING, flags=Flag.ACK),
        follows=lives, h2spec="http2/4.1/3",
    ),
    # 4.2 Frame size
    "4.2: DATA of 2^14 bytes": case(
        post(), data(1, bytes(FRAME_SIZE), end_stream=True),
        follows=responds(body=bytes(FRAME_SIZE)), h2spec="http2/4.2/1",
    ),
    "4.2: DATA of more than SETTINGS_MAX_FRAME_SIZE": case(
        post(), data(1, bytes(FRAME_SIZE + 1), end_stream=True),
        follows=either_error(FRAME_SIZE_ERROR), h2spec="http2/4.2/2",
    ),
    "4.2: HEADERS of more than SETTINGS_MAX_FRAME_SIZE": case(
        headers(1, GET + literal(b"x", bytes(FRAME_SIZE))),
        follows=connection_error(FRAME_SIZE_ERROR), h2spec="http2/4.2/3",
    ),
    "4.2: the head alone of a frame that is too large": case(
        raw(FrameType.SETTINGS, bytes(FRAME_SIZE + 2))[:9], follows=connection_error(FRAME_SIZE_ERROR),
    ),
    # 4.3 Field section compression
    "4.3: a block that ends within a field": case(
        headers(1, b"\x40"), follows=connection_error(COMPRESSION_ERROR), h2spec="http2/4.3/1",
    ),
    "4.3: PRIORITY within a block": case(
        headers(1, GET, end_headers=False), priority(1), continuation(1, literal(b"x", b"y")),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/4.3/2 http2/6.2/1", calls=0,
    ),
    "4.3: HEADERS of another stream within a block": case(
        headers(1, GET, end_headers=False), get(3), continuation(1, literal(b"x", b"y")),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/4.3/3 http2/6.2/2", calls=0,
    ),
    "4.3: the block of a malformed request changes the table": case(
        headers(1, GET + literal(b"X", b"", 0x40) + literal(b"x-a", b"b", 0x40)), reset(),
        headers(3, GET + b"\xbe"),
        follows=responds(3), calls=1,
    ),
    "4.3: the block of trailers changes the table": case(
        post(), headers(1, literal(b"x-a", b"b", 0x40)), headers(3, GET + b"\xbe"), follows=responds(3),
        calls=2,
    ),
    # 5.4.1 Connection errors
    "5.4.1: GOAWAY, and the end of the connection": case(
        raw(FrameType.PING, bytes(8), stream=3),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.4.1/1 http2/5.4.1/2",
    ),
    "5.4.1: nothing behind a connection error is looked at": case(
        raw(FrameType.PING, bytes(8), stream=3) + get(), follows=connection_error(PROTOCOL_ERROR), calls=0,
    ),
    # 5.5 Extensions
    "5.5: an unknown frame within a block": case(
        headers(1, GET, end_headers=False), UNKNOWN,
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.5/2", calls=0,
    ),
}  # fmt: skip

STREAMS = {
    # 5.1 Stream states
    "5.1 idle: DATA": case(
        data(1, b"test", end_stream=True), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.1/1",
    ),
    "5.1 idle: RST_STREAM": case(
        rst_stream(1), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.1/2 http2/6.4/2",
    ),
    "5.1 idle: WINDOW_UPDATE": case(
        window_update(1, 100), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.1/3",
    ),
    "5.1 idle: CONTINUATION": case(
        continuation(1, GET), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.1/4", calls=0,
    ),
    "5.1 idle: PRIORITY": case(priority(1, weight=256), follows=lives, h2spec="generic/2/1"),
    "5.1 idle, of the server: WINDOW_UPDATE": case(
        window_update(2, 100), follows=connection_error(PROTOCOL_ERROR),
    ),
    "5.1 half-closed (remote): DATA": case(
        headers(1, HOLD), data(1, b"test", end_stream=True),
        follows=stream_error(STREAM_CLOSED), h2spec="http2/5.1/5",
    ),
    "5.1 half-closed (remote): HEADERS": case(
        headers(1, HOLD), get(1), follows=either_error(STREAM_CLOSED), h2spec="http2/5.1/6", calls=1,
    ),
    "5.1 half-closed (remote): CONTINUATION": case(
        headers(1, HOLD), continuation(1, GET),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.1/7",
    ),
    "5.1 half-closed (remote): WINDOW_UPDATE": case(
        no_credit, change((Setting.INITIAL_WINDOW_SIZE, 0)), get(), credit(1, 1), comes(1),
        follows=lives, h2spec="generic/2/2 generic/3.9/2",
    ),
    "5.1 half-closed (remote): PRIORITY": case(
        no_credit, change((Setting.INITIAL_WINDOW_SIZE, 0)), get(), priority(1), credit(1, 1), comes(1),
        follows=lives, h2spec="generic/2/3",
    ),
    "5.1 half-closed (remote): RST_STREAM": case(
        headers(1, HOLD), rst_stream(1), follows=lives, h2spec="generic/2/4",
    ),
    "5.1 closed by RST_STREAM: DATA": case(
        post(), rst_stream(1), data(1, b"test", end_stream=True),
        follows=either_error(STREAM_CLOSED), h2spec="http2/5.1/8",
    ),
    "5.1 closed by RST_STREAM: HEADERS": case(
        post(), rst_stream(1), get(1), follows=either_error(STREAM_CLOSED), h2spec="http2/5.1/9",
    ),
    "5.1 closed by RST_STREAM: CONTINUATION": case(
        post(), rst_stream(1), continuation(1, literal(b"x", b"y")),
        follows=connection_error(PROTOCOL_ERROR, STREAM_CLOSED), h2spec="http2/5.1/10",
    ),
    "5.1 closed: DATA": case(
        get(), answered(), data(1, b"test", end_stream=True),
        follows=either_error(STREAM_CLOSED), h2spec="http2/5.1/11 http2/6.1/2",
    ),
    "5.1 closed: HEADERS": case(
        get(), answered(), get(1), follows=connection_error(STREAM_CLOSED), h2spec="http2/5.1/12", calls=1,
    ),
    "5.1 closed: CONTINUATION": case(
        get(), answered(), continuation(1, literal(b"x", b"y")),
        follows=connection_error(PROTOCOL_ERROR, STREAM_CLOSED), h2spec="http2/5.1/13",
    ),
    "5.1 closed: PRIORITY": case(get(), answered(), priority(1), follows=lives, h2spec="generic/2/5"),
    "5.1 closed: WINDOW_UPDATE that was under way": case(
        get(), answered(), window_update(1, 5), follows=lives,
    ),
    "5.1 closed: RST_STREAM that was under way": case(get(), answered(), rst_stream(1), follows=lives),
    "5.1 closed by the server's RST_STREAM: what was under way": case(
        post(1, "te: gzip"), reset(), data(1, b"test"), window_update(1, 5), headers(1, literal(b"x", b"y")),
        rst_stream(1), get(3), follows=responds(3), calls=1,
    ),
    # 5.1.1 Stream identifiers
    "5.1.1: an even number": case(
        get(2), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.1.1/1", calls=0,
    ),
    "5.1.1: a smaller number than before": case(
        get(5), get(3), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.1.1/2", calls=1,
    ),
    "5.1.1: numbers may be left out": case(get(1), get(7), get(9), follows=responds(9), calls=3),
    # 5.1.2 Stream concurrency
    "5.1.2: more streams than SETTINGS_MAX_CONCURRENT_STREAMS": case(
        *(headers(2 * i + 1, HOLD) for i in range(101)),
        follows=stream_error(REFUSED_STREAM, stream=201), h2spec="http2/5.1.2/1", calls=100,
    ),
    "5.1.2: the block of a refused stream changes the table": case(
        *(headers(2 * i + 1, HOLD) for i in range(100)),
        headers(201, GET + literal(b"x-a", b"b", 0x40)), headers(203, GET + b"\xbe"),
        follows=stream_error(REFUSED_STREAM, stream=203), calls=100,
    ),
    # RFC 7540 section 5.3.1, which RFC 9113 does not have any more
    "5.3.1: HEADERS that depend on themselves": case(
        headers(1, GET, depends_on=1), follows=stream_error(PROTOCOL_ERROR), h2spec="http2/5.3.1/1", calls=0,
    ),
    "5.3.1: PRIORITY of an open stream that depends on itself": case(
        headers(1, HOLD), priority(1, 1), follows=stream_error(PROTOCOL_ERROR),
    ),
    # Section 6.4 allows no RST_STREAM for a stream that is idle
    "5.3.1: PRIORITY of an idle stream that depends on itself": case(
        priority(1, 1), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/5.3.1/2",
    ),
}  # fmt: skip

FRAMES = {
    # 6.1 DATA
    "6.1: DATA": case(
        post(), data(1, b"test", end_stream=True),
        follows=responds(body=b"test"), h2spec="generic/3.1/1 generic/4/3",
    ),
    "6.1: DATA in two frames": case(
        post(), data(1, b"te"), data(1, b"st", end_stream=True),
        follows=responds(body=b"test"), h2spec="generic/3.1/2",
    ),
    "6.1: an empty DATA ends the stream": case(
        post(), data(1, b"test"), data(1, end_stream=True), follows=responds(body=b"test"),
    ),
    "6.1: padding": case(
        post(), data(1, b"test", end_stream=True, padding=5),
        follows=responds(body=b"test"), h2spec="generic/3.1/3",
    ),
    "6.1: nothing but padding": case(
        post(), data(1, padding=255), data(1, b"test", padding=0), data(1, end_stream=True, padding=9),
        follows=responds(body=b"test"),
    ),
    "6.1: stream 0": case(
        data(0, b"test"), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.1/1",
    ),
    "6.1: as much padding as payload": case(
        post(), raw(FrameType.DATA, b"\x05test!", flags=Flag.PADDED, stream=1), data(1, end_stream=True),
        follows=responds(),
    ),
    "6.1: more padding than payload": case(
        post(), raw(FrameType.DATA, b"\x06test!", flags=Flag.PADDED | Flag.END_STREAM, stream=1),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.1/3",
    ),
    "6.1: no room for the number of padding bytes": case(
        post(), raw(FrameType.DATA, b"", flags=Flag.PADDED, stream=1),
        follows=connection_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR),
    ),
    # 6.2 HEADERS
    "6.2: HEADERS": case(get(), follows=responds(), h2spec="generic/3.2/1 generic/4/1"),
    "6.2: padding": case(headers(1, GET, padding=8), follows=responds(), h2spec="generic/3.2/2"),
    "6.2: priority": case(
        headers(1, GET, depends_on=0, weight=256), follows=responds(), h2spec="generic/3.2/3",
    ),
    "6.2: padding and priority": case(
        headers(1, GET, padding=255, depends_on=11, weight=1, exclusive=True), follows=responds(),
    ),
    "6.2: stream 0": case(headers(0, GET), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.2/3"),
    "6.2: more padding than payload": case(
        raw(FrameType.HEADERS, b"\xff" + GET, flags=Flag.PADDED | Flag.END_HEADERS, stream=1),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.2/4", calls=0,
    ),
    "6.2: no room for the priority": case(
        raw(FrameType.HEADERS, bytes(4), flags=Flag.PRIORITY | Flag.END_HEADERS, stream=1),
        follows=connection_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR),
    ),
    # 6.3 PRIORITY
    "6.3: weight 1": case(
        priority(1, weight=1), get(), follows=responds(), h2spec="generic/3.3/1",
    ),
    "6.3: weight 256": case(
        priority(1, weight=256), get(), follows=responds(), h2spec="generic/3.3/2",
    ),
    "6.3: of a stream that depends on an idle one": case(
        priority(3, 1), get(), follows=responds(), h2spec="generic/3.3/3",
    ),
    "6.3: exclusive": case(priority(1, exclusive=True), get(), follows=responds(), h2spec="generic/3.3/4"),
    "6.3: of an idle stream above the one that is opened": case(
        priority(3), get(), follows=responds(), h2spec="generic/3.3/5",
    ),
    "6.3: stream 0": case(priority(0), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.3/1"),
    "6.3: 4 bytes": case(
        headers(1, HOLD), raw(FrameType.PRIORITY, bytes(4), stream=1),
        follows=stream_error(FRAME_SIZE_ERROR), h2spec="http2/6.3/2",
    ),
    "6.3: 4 bytes, of an idle stream": case(
        raw(FrameType.PRIORITY, bytes(4), stream=1), follows=connection_error(FRAME_SIZE_ERROR),
    ),
    # 6.4 RST_STREAM
    "6.4: RST_STREAM": case(post(), rst_stream(1), follows=lives, h2spec="generic/3.4/1"),
    "6.4: stream 0": case(rst_stream(0), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.4/1"),
    "6.4: 3 bytes": case(
        post(), raw(FrameType.RST_STREAM, bytes(3), stream=1),
        follows=connection_error(FRAME_SIZE_ERROR), h2spec="http2/6.4/3",
    ),
    # 6.5 SETTINGS
    "6.5: SETTINGS": case(
        change(
            (Setting.HEADER_TABLE_SIZE, 4096),
            (Setting.ENABLE_PUSH, 1),
            (Setting.MAX_CONCURRENT_STREAMS, 100),
            (Setting.INITIAL_WINDOW_SIZE, WINDOW),
            (Setting.MAX_FRAME_SIZE, FRAME_SIZE),
            (Setting.MAX_HEADER_LIST_SIZE, 100),
        ),
        follows=lives, h2spec="generic/3.5/1",
    ),
    "6.5: an ACK with payload": case(
        raw(FrameType.SETTINGS, b"\0", flags=Flag.ACK),
        follows=connection_error(FRAME_SIZE_ERROR), h2spec="http2/6.5/1",
    ),
    "6.5: a stream": case(
        raw(FrameType.SETTINGS, b"\0\3\0\0\0d", stream=1),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.5/2",
    ),
    "6.5: 3 bytes": case(
        raw(FrameType.SETTINGS, b"\0\3\0"), follows=connection_error(FRAME_SIZE_ERROR), h2spec="http2/6.5/3",
    ),
    "6.5.2: ENABLE_PUSH 2": case(
        settings((Setting.ENABLE_PUSH, 2)),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.5.2/1",
    ),
    "6.5.2: INITIAL_WINDOW_SIZE 2^31": case(
        settings((Setting.INITIAL_WINDOW_SIZE, 2**31)),
        follows=connection_error(FLOW_CONTROL_ERROR), h2spec="http2/6.5.2/2 http2/6.9.2/3",
    ),
    "6.5.2: MAX_FRAME_SIZE 2^14 - 1": case(
        settings((Setting.MAX_FRAME_SIZE, FRAME_SIZE - 1)),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.5.2/3",
    ),
    "6.5.2: MAX_FRAME_SIZE 2^24": case(
        settings((Setting.MAX_FRAME_SIZE, 2**24)),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.5.2/4",
    ),
    "6.5.2: MAX_FRAME_SIZE 2^24 - 1": case(
        change((Setting.MAX_FRAME_SIZE, 2**24 - 1)), get(), follows=responds(),
    ),
    "6.5.2: an unknown setting": case(change((0xFF, 1)), follows=lives, h2spec="http2/6.5.2/5"),
    "6.5.2: HEADER_TABLE_SIZE 0": case(
        get(), answered(), change((Setting.HEADER_TABLE_SIZE, 0)), get(3), answered(3), get(5),
        follows=responds(5),
    ),
    "6.5.2: HEADER_TABLE_SIZE 0 for a moment": case(
        get(), answered(), lambda peer: peer.wait_for(FrameType.HEADERS),
        change((Setting.HEADER_TABLE_SIZE, 0), (Setting.HEADER_TABLE_SIZE, 4096)), get(3),
        block_begins_with_sizes, follows=responds(3),
    ),
    "6.5.3: the last value of a setting counts": case(
        no_credit, change((Setting.INITIAL_WINDOW_SIZE, 100), (Setting.INITIAL_WINDOW_SIZE, 1)), get(),
        comes(1),
        follows=lives, h2spec="http2/6.5.3/1",
    ),
    "6.5.3: SETTINGS are acknowledged": case(
        change((Setting.ENABLE_PUSH, 0)), follows=lives, h2spec="http2/6.5.3/2",
    ),
    "RFC 8441 3: ENABLE_CONNECT_PROTOCOL of a client": case(
        change((Setting.ENABLE_CONNECT_PROTOCOL, 1)), follows=lives,
    ),
    "RFC 9218 2.1: NO_RFC7540_PRIORITIES 2": case(
        settings((Setting.NO_RFC7540_PRIORITIES, 2)), follows=connection_error(PROTOCOL_ERROR),
    ),
    # 6.6 PUSH_PROMISE
    "6.6: PUSH_PROMISE of a client": case(
        push_promise(1, 3, GET), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/8.2/1",
    ),
    "6.6: PUSH_PROMISE of a client on an open stream": case(
        headers(1, HOLD), push_promise(1, 2, GET), follows=connection_error(PROTOCOL_ERROR),
    ),
    # 6.7 PING
    "6.7: PING": case(
        ping(b"payload!"),
        lambda peer: peer.until(lambda: ping(b"payload!", ack=True) in map(bytes, peer.frames), "an ACK"),
        follows=lives, h2spec="generic/3.7/1 http2/6.7/1",
    ),
    "6.7: an ACK is not answered": case(
        ping(b"payload!", ack=True), follows=never(ping(b"payload!", ack=True)), h2spec="http2/6.7/2",
    ),
    "6.7: a stream": case(
        raw(FrameType.PING, bytes(8), stream=1),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.7/3",
    ),
    "6.7: 6 bytes": case(
        raw(FrameType.PING, bytes(6)), follows=connection_error(FRAME_SIZE_ERROR), h2spec="http2/6.7/4",
    ),
    # 6.8 GOAWAY
    "6.8: GOAWAY": case(
        post(), goaway(debug=b"enough"), data(1, b"test", end_stream=True), answered(),
        follows=lives_or_ends, h2spec="generic/3.8/1",
    ),
    "6.8: GOAWAY of the server names the last stream": case(
        get(1), get(5), answered(1), answered(5), raw(FrameType.PING, bytes(8), stream=7),
        follows=connection_error(PROTOCOL_ERROR, last_stream=5),
    ),
    "6.8: a stream": case(
        raw(FrameType.GOAWAY, bytes(8), stream=1),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.8/1",
    ),
    "6.8: 7 bytes": case(raw(FrameType.GOAWAY, bytes(7)), follows=connection_error(FRAME_SIZE_ERROR)),
    # 6.9 WINDOW_UPDATE
    "6.9: of the connection": case(window_update(0, 1), follows=lives, h2spec="generic/3.9/1"),
    "6.9: increment 0 of the connection": case(
        window_update(0, 0), follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.9/1",
    ),
    "6.9: increment 0 of a stream": case(
        headers(1, HOLD), window_update(1, 0), follows=stream_error(PROTOCOL_ERROR), h2spec="http2/6.9/2",
    ),
    "6.9: 3 bytes": case(
        raw(FrameType.WINDOW_UPDATE, b"\0\0\1"),
        follows=connection_error(FRAME_SIZE_ERROR), h2spec="http2/6.9/3",
    ),
    "6.9: the reserved bit": case(raw(FrameType.WINDOW_UPDATE, b"\x80\0\0\1"), follows=lives),
    "6.9.1: a window of 1": case(
        no_credit, change((Setting.INITIAL_WINDOW_SIZE, 1)), get(), comes(1), credit(1, 2), comes(3),
        credit(1, 9),
        follows=responds(), h2spec="http2/6.9.1/1",
    ),
    "6.9.1: more than 2^31 - 1 of the connection": case(
        window_update(0, MAX_WINDOW) * 2, follows=connection_error(FLOW_CONTROL_ERROR),
        h2spec="http2/6.9.1/2",
    ),
    "6.9.1: more than 2^31 - 1 of a stream": case(
        headers(1, HOLD), window_update(1, MAX_WINDOW) * 2,
        follows=stream_error(FLOW_CONTROL_ERROR), h2spec="http2/6.9.1/3",
    ),
    "6.9.1: more DATA than the window of the stream": case(
        headers(1, HOLD, end_stream=False), data(1, bytes(FRAME_SIZE)) * 17,
        follows=either_error(FLOW_CONTROL_ERROR),
    ),
    "6.9.1: padding takes no window for long": case(
        headers(1, HOLD, end_stream=False), data(1, b"x", padding=255) * 1100, follows=lives,
    ),
    "6.9.2: SETTINGS open the windows of streams": case(
        no_credit, change((Setting.INITIAL_WINDOW_SIZE, 0)), get(), change((Setting.INITIAL_WINDOW_SIZE, 1)),
        comes(1),
        follows=lives, h2spec="http2/6.9.2/1",
    ),
    "6.9.2: a window below 0": case(
        no_credit, change((Setting.INITIAL_WINDOW_SIZE, 3)), get(), comes(3),
        change((Setting.INITIAL_WINDOW_SIZE, 2)), credit(1, 2), comes(4),
        change((Setting.INITIAL_WINDOW_SIZE, 3)),
        follows=responds(), h2spec="http2/6.9.2/2",
    ),
    "6.9.2: SETTINGS that bring a stream above 2^31 - 1": case(
        headers(1, HOLD), window_update(1, MAX_WINDOW - WINDOW),
        settings((Setting.INITIAL_WINDOW_SIZE, WINDOW + 1)), follows=connection_error(FLOW_CONTROL_ERROR),
    ),
    # 6.10 CONTINUATION
    "6.10: one": case(
        headers(1, GET[:5], end_headers=False), continuation(1, GET[5:]),
        follows=responds(), h2spec="generic/3.10/1",
    ),
    "6.10: two": case(
        headers(1, GET[:5], end_headers=False), continuation(1, GET[5:10], end_headers=False),
        continuation(1, GET[10:]), follows=responds(), h2spec="generic/3.10/2",
    ),
    "6.10: at the borders of fields": case(
        headers(1, GET, end_headers=False), continuation(1, literal(b"x", b"y"), end_headers=False),
        continuation(1, literal(b"x", b"y")), follows=responds(), h2spec="http2/6.10/1",
    ),
    "6.10: empty ones": case(
        headers(1, b"", end_headers=False), continuation(1, b"", end_headers=False),
        continuation(1, GET, end_headers=False), continuation(1, b""), follows=responds(),
    ),
    "6.10: DATA within a block": case(
        headers(1, POST, end_stream=False, end_headers=False),
        continuation(1, literal(b"x", b"y"), end_headers=False), data(1, b"test", end_stream=True),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.10/2", calls=0,
    ),
    "6.10: DATA right behind HEADERS within a block": case(
        headers(1, POST, end_stream=False, end_headers=False), data(1, b"test", end_stream=True),
        continuation(1, literal(b"x", b"y"), end_headers=False), continuation(0, literal(b"x", b"y")),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.10/6", calls=0,
    ),
    "6.10: stream 0": case(
        headers(1, GET, end_headers=False), continuation(0, literal(b"x", b"y")),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.10/3", calls=0,
    ),
    "6.10: behind HEADERS with END_HEADERS": case(
        headers(1, HOLD), continuation(1, literal(b"x", b"y")),
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.10/4",
    ),
    "6.10: behind CONTINUATION with END_HEADERS": case(
        headers(1, HOLD, end_headers=False), continuation(1, literal(b"x", b"y")) * 2,
        follows=connection_error(PROTOCOL_ERROR), h2spec="http2/6.10/5",
    ),
    # 7 Error codes
    "7: GOAWAY with an unknown code": case(
        goaway(code=0xFF), follows=lives_or_ends, h2spec="http2/7/1",
    ),
    "7: RST_STREAM with an unknown code": case(
        post(), rst_stream(1, 0xFF), follows=lives, h2spec="http2/7/2",
    ),
    # RFC 9218 section 7.1 PRIORITY_UPDATE
    "RFC 9218 7.1: PRIORITY_UPDATE": case(priority_update(1, b"u=1, i") + get(), follows=responds()),
    "RFC 9218 7.1: a field that cannot be parsed": case(
        priority_update(1, b"u=\xff") + get(), follows=responds(),
    ),
    "RFC 9218 7.1: on a stream": case(
        raw(FrameType.PRIORITY_UPDATE, b"\0\0\0\1u=1", stream=1), follows=connection_error(PROTOCOL_ERROR),
    ),
    "RFC 9218 7.1: for stream 0": case(priority_update(0, b"u=1"), follows=connection_error(PROTOCOL_ERROR)),
    "RFC 9218 7.1: 3 bytes": case(
        raw(FrameType.PRIORITY_UPDATE, bytes(3)), follows=connection_error(FRAME_SIZE_ERROR),
    ),
}  # fmt: skip

MESSAGES = {
    # 8.1 HTTP message framing
    "8.1: HEAD": case(headers(1, block("HEAD")), follows=responds(body=b""), h2spec="generic/4/2"),
    "8.1: trailers": case(
        post(1, "trailer: x-test"), data(1, b"test"), headers(1, literal(b"x-test", b"ok")),
        follows=responds(body=b"test"), h2spec="generic/4/4",
    ),
    "8.1: trailers without DATA": case(post(), headers(1, literal(b"x-test", b"ok")), follows=responds()),
    "8.1: an informational response before": case(
        post(1, "expect: 100-continue"), informed(100), data(1, b"test", end_stream=True),
        follows=responds(body=b"test"),
    ),
    "8.1: HEADERS without END_STREAM behind DATA": case(
        headers(1, HOLD, end_stream=False), data(1, b"test"),
        headers(1, literal(b"x-test", b"ok"), end_stream=False),
        follows=stream_error(PROTOCOL_ERROR), h2spec="http2/8.1/1",
    ),
    "8.1: a pseudo-header field in trailers": case(
        headers(1, HOLD, end_stream=False), data(1, b"test"), headers(1, literal(b":method", b"POST")),
        follows=stream_error(PROTOCOL_ERROR), h2spec="http2/8.1.2.1/3",
    ),
    "8.1: an upper-case name in trailers": case(
        headers(1, HOLD, end_stream=False), headers(1, literal(b"X-Test", b"ok")),
        follows=stream_error(PROTOCOL_ERROR),
    ),
    # 8.1.1 Malformed messages
    "8.1.1: more DATA than content-length": case(
        headers(1, block("POST", "/hold", "content-length: 1"), end_stream=False),
        data(1, b"test", end_stream=True),
        follows=stream_error(PROTOCOL_ERROR), h2spec="http2/8.1.2.6/1",
    ),
    "8.1.1: more DATA than content-length, in two frames": case(
        headers(1, block("POST", "/hold", "content-length: 1"), end_stream=False),
        data(1, b"test"), data(1, b"test", end_stream=True),
        follows=stream_error(PROTOCOL_ERROR), h2spec="http2/8.1.2.6/2",
    ),
    "8.1.1: less DATA than content-length": case(
        headers(1, block("POST", "/hold", "content-length: 5"), end_stream=False),
        data(1, b"test", end_stream=True),
        follows=stream_error(PROTOCOL_ERROR),
    ),
    "8.1.1: trailers before all of content-length": case(
        headers(1, block("POST", "/hold", "content-length: 5"), end_stream=False),
        data(1, b"test"), headers(1, literal(b"x-test", b"ok")), follows=stream_error(PROTOCOL_ERROR),
    ),
    "8.1.1: padding does not count": case(
        post(1, "content-length: 4"), data(1, b"test", end_stream=True, padding=9),
        follows=responds(body=b"test"),
    ),
    "8.1.1: no DATA for content-length": malformed(get(1, "content-length: 5")),
    "8.1.1: content-length 0": case(get(1, "content-length: 0"), follows=responds()),
    "8.1.1: content-length twice": malformed(post(1, "content-length: 4", "content-length: 5")),
    "8.1.1: content-length that is no number": malformed(post(1, "content-length: +4")),
    # 8.2.1 Field validity
    "8.2.1: an upper-case name": malformed(with_field(b"X-TEST", b"ok"), h2spec="http2/8.1.2/1"),
    "8.2.1: an empty name": malformed(with_field(b"", b"ok")),
    "8.2.1: a space in a name": malformed(with_field(b"x test", b"ok")),
    "8.2.1: a colon in a name": malformed(with_field(b"x:test", b"ok")),
    "8.2.1: a control byte in a name": malformed(with_field(b"x\ntest", b"ok")),
    "8.2.1: DEL in a name": malformed(with_field(b"x\x7f", b"ok")),
    "8.2.1: a byte above 127 in a name": malformed(with_field(b"x\xff", b"ok")),
    "8.2.1: NUL in a value": malformed(with_field(b"x", b"a\0b")),
    "8.2.1: LF in a value": malformed(with_field(b"x", b"a\nb: c")),
    "8.2.1: CR in a value": malformed(with_field(b"x", b"a\rb: c")),
    "8.2.1: a space before a value": malformed(with_field(b"x", b" a")),
    "8.2.1: a tab behind a value": malformed(with_field(b"x", b"a\t")),
    "8.2.1: an empty value": case(with_field(b"x", b""), follows=responds()),
    "8.2.1: a tab, and a byte above 127, in a value": case(with_field(b"x", b"a\tb\xff"), follows=responds()),
    # 8.2.2 Connection-specific fields
    "8.2.2: connection": malformed(with_field(b"connection", b"keep-alive"), h2spec="http2/8.1.2.2/1"),
    "8.2.2: keep-alive": malformed(with_field(b"keep-alive", b"timeout=5")),
    "8.2.2: proxy-connection": malformed(with_field(b"proxy-connection", b"keep-alive")),
    "8.2.2: transfer-encoding": malformed(with_field(b"transfer-encoding", b"chunked")),
    "8.2.2: upgrade": malformed(with_field(b"upgrade", b"websocket")),
    "8.2.2: te with more than trailers": malformed(
        get(1, "trailers: test", "te: trailers, deflate"), h2spec="http2/8.1.2.2/2",
    ),
    "8.2.2: te: trailers": case(get(1, "te: trailers"), follows=responds()),
    # 8.2.3 The Cookie field
    "8.2.3: its crumbs are one field": case(
        headers(1, block("GET", "/index.html", "cookie: a=b", "x: y", "cookie: c=d; e", "cookie: f")),
        follows=responds(body=b"host: x\ncookie: a=b; c=d; e; f\nx: y"),
    ),
    # 8.3 Control data
    "8.3: an unknown one": malformed(with_field(b":test", b"ok"), h2spec="http2/8.1.2.1/1"),
    "8.3: one of responses": malformed(with_field(b":status", b"200"), h2spec="http2/8.1.2.1/2"),
    "8.3: behind another field": malformed(
        headers(1, literal(b"x-test", b"ok") + GET), h2spec="http2/8.1.2.1/4",
    ),
    "8.3: :method twice": malformed(with_field(b":method", b"GET"), h2spec="http2/8.1.2.3/5"),
    "8.3: :scheme twice": malformed(with_field(b":scheme", b"http"), h2spec="http2/8.1.2.3/6"),
    "8.3: :path twice": malformed(with_field(b":path", b"/"), h2spec="http2/8.1.2.3/7"),
    "8.3: :authority twice": malformed(with_field(b":authority", b"x")),
    "8.3.1: no :method": malformed(without(b":method"), h2spec="http2/8.1.2.3/2"),
    "8.3.1: no :scheme": malformed(without(b":scheme"), h2spec="http2/8.1.2.3/3"),
    "8.3.1: no :path": malformed(without(b":path"), h2spec="http2/8.1.2.3/4"),
    "8.3.1: an empty :path": malformed(with_pseudo(b":path", b""), h2spec="http2/8.1.2.3/1"),
    "8.3.1: a :path without slash": malformed(with_pseudo(b":path", b"a")),
    "8.3.1: * of another method than OPTIONS": malformed(with_pseudo(b":path", b"*")),
    "8.3.1: OPTIONS *": case(headers(1, block("OPTIONS", "*")), follows=responds()),
    "8.3.1: a :path with a space": malformed(with_pseudo(b":path", b"/a b")),
    "8.3.1: a :path with a fragment": malformed(with_pseudo(b":path", b"/a#b")),
    "8.3.1: an empty :method": malformed(with_pseudo(b":method", b"")),
    "8.3.1: a :method that is no token": malformed(with_pseudo(b":method", b"GET /")),
    "8.3.1: an :authority with userinfo": malformed(with_pseudo(b":authority", b"user@x")),
    "8.3.1: host instead of :authority": case(
        fields(*(pair for pair in PSEUDO.items() if pair[0] != b":authority"), behind=literal(b"host", b"x")),
        follows=responds(), calls=1,
    ),
    "8.3.1: host as :authority": case(with_field(b"host", b"x"), follows=responds(), calls=1),
    "8.3.1: host that differs from :authority": malformed(with_field(b"host", b"y")),
    # 8.5 CONNECT, and RFC 8441
    "8.5: CONNECT": case(
        fields((b":method", b"CONNECT"), (b":authority", b"x:443")), follows=answers(501), calls=0,
    ),
    "8.5: CONNECT with :scheme and :path": malformed(with_pseudo(b":method", b"CONNECT")),
    "8.5: CONNECT without :authority": malformed(fields((b":method", b"CONNECT"))),
    "RFC 8441 4: :protocol of another method than CONNECT": malformed(
        with_pseudo(b":protocol", b"websocket"),
    ),
}  # fmt: skip

HPACK = {
    # 2.3.3 Index address space
    "2.3.3: the last entry of the static table": case(
        headers(1, GET + b"\xbd"), follows=responds(), h2spec="generic/5/1",
    ),
    "2.3.3: a field that is in no table": case(
        headers(1, GET + b"\xc6"), follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/2.3.3/1",
    ),
    "2.3.3: a name that is in no table": case(
        headers(1, GET + integer(70, 6, 0x40) + string(b"")),
        follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/2.3.3/2",
    ),
    # 4 Dynamic table management
    "4.2: a size update at the end of a block": case(
        headers(1, GET + b"\x21"), follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/4.2/1",
    ),
    "4.2: a size update behind a field": case(
        headers(1, literal(b":method", b"GET") + b"\x20" + GET), follows=connection_error(COMPRESSION_ERROR),
    ),
    "4.2: a size update in a block that is begun": case(
        headers(1, GET, end_headers=False), continuation(1, b"\x20" + literal(b"x", b"y")),
        follows=connection_error(COMPRESSION_ERROR),
    ),
    "4.3: size 0 empties the table": case(
        headers(1, GET + literal(b"x-a", b"b", 0x40)), headers(3, b"\x20" + GET + b"\xbe"),
        follows=connection_error(COMPRESSION_ERROR), calls=1,
    ),
    "4.4: the oldest entries leave": case(
        headers(1, GET + literal(b"x-a", b"b", 0x40) + literal(b"x-b", bytes([120]) * 4040, 0x40)),
        headers(3, GET + b"\xbe"), answered(3), headers(5, GET + b"\xbf"),
        follows=connection_error(COMPRESSION_ERROR), calls=2,
    ),
    "4.4: an entry larger than the table empties it": case(
        headers(1, GET + literal(b"x-a", b"b", 0x40) + literal(b"x-b", b"x" * 4096, 0x40)), answered(),
        headers(3, GET + b"\xbe"), follows=connection_error(COMPRESSION_ERROR), calls=1,
    ),
    # 5 Primitive types
    "5.1: an integer of more than 32 bits": case(
        headers(1, GET + b"\x7f\xff\xff\xff\xff\xff\x7f"), follows=connection_error(COMPRESSION_ERROR),
    ),
    "5.1: an integer that does not end": case(
        headers(1, GET + b"\x7f" + b"\x80" * 64), follows=connection_error(COMPRESSION_ERROR),
    ),
    "5.2: a string that is not whole": case(
        headers(1, GET + b"\0\x01x\x05valu"), follows=connection_error(COMPRESSION_ERROR),
    ),
    "5.2: Huffman code padded by 8 bits": case(
        headers(1, GET + literal(b"x-test", b"")[:-1] + coded(huffman(b"test") + b"\xff")),
        follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/5.2/1",
    ),
    "5.2: Huffman code padded by zeros": case(
        headers(1, GET + literal(b"x-test", b"")[:-1] + coded(b"\x18")),  # "a" and 000
        follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/5.2/2",
    ),
    "5.2: EOS within Huffman code": case(
        headers(1, GET + literal(b"x-test", b"")[:-1] + coded(b"\xff\xff\xff\xff")),
        follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/5.2/3",
    ),
    # 6 Binary format
    "6.1: index 0": case(
        headers(1, GET + b"\x80"), follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/6.1/1",
    ),
    "6.3: the largest size": case(headers(1, integer(4096, 5, 0x20) + GET), follows=responds()),
    "6.3: two size updates": case(
        headers(1, integer(128, 5, 0x20) + integer(4096, 5, 0x20) + GET), follows=responds(),
        h2spec="generic/5/15",
    ),
    "6.3: a size update": case(
        headers(1, integer(128, 5, 0x20) + GET), follows=responds(), h2spec="generic/5/14",
    ),
    "6.3: more than SETTINGS_HEADER_TABLE_SIZE": case(
        headers(1, integer(4097, 5, 0x20) + GET),
        follows=connection_error(COMPRESSION_ERROR), h2spec="hpack/6.3/1",
    ),
    # Appendix C
    "C.3: requests without Huffman code": case(
        headers(1, bytes.fromhex("828684410f7777772e6578616d706c652e636f6d")),
        headers(3, bytes.fromhex("828684be58086e6f2d6361636865")),
        headers(5, bytes.fromhex("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565")),
        follows=responds(5, b"host: www.example.com\ncustom-key: custom-value"), calls=3,
    ),
    "C.4: requests with Huffman code": case(
        headers(1, bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")),
        headers(3, bytes.fromhex("828684be5886a8eb10649cbf")),
        headers(5, bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf")),
        follows=responds(5, b"host: www.example.com\ncustom-key: custom-value"), calls=3,
    ),
}  # fmt: skip


def literals() -> dict[str, Case]:
    """The kinds of literal fields, with names of the static table and new ones, plain and in Huffman code."""
    cases: dict[str, Case] = {}
    for section, kind, first, bits in (
        ("6.2.1", "with indexing", 0x40, 6),
        ("6.2.2", "without indexing", 0x00, 4),
        ("6.2.3", "never indexed", 0x10, 4),
    ):
        indexed = integer(58, bits, first)
        for what, encoded in {
            "indexed name": indexed + string(b"agent"),
            "indexed name, Huffman code": indexed + coded(huffman(b"agent")),
            "new name": literal(b"x-test", b"value", first),
            "new name, Huffman code": bytes([first]) + coded(huffman(b"x-test")) + coded(huffman(b"value")),
        }.items():
            cases[f"{section}: {kind}, {what}"] = case(
                headers(1, GET + encoded), follows=responds(), h2spec=f"generic/5/{len(cases) + 2}"
            )
    return cases


CASES = {f"9113 {name}": case for name, case in (CONNECTION | STREAMS | FRAMES | MESSAGES).items()} | {
    f"7541 {name}": case for name, case in (HPACK | literals()).items()
}

# How many cases h2spec 2.6.1 has in each section; http2/3.5/2 is test_no_preface
H2SPEC_CASES = {
    "generic/1": 1, "generic/2": 5, "generic/3.1": 3, "generic/3.2": 3, "generic/3.3": 5, "generic/3.4": 1,
    "generic/3.5": 1, "generic/3.7": 1, "generic/3.8": 1, "generic/3.9": 2, "generic/3.10": 2,
    "generic/4": 4, "generic/5": 15, "http2/3.5": 2, "http2/4.1": 3, "http2/4.2": 3, "http2/4.3": 3,
    "http2/5.1": 13, "http2/5.1.1": 2, "http2/5.1.2": 1, "http2/5.3.1": 2, "http2/5.4.1": 2, "http2/5.5": 2,
    "http2/6.1": 3, "http2/6.2": 4, "http2/6.3": 2, "http2/6.4": 3, "http2/6.5": 3, "http2/6.5.2": 5,
    "http2/6.5.3": 2, "http2/6.7": 4, "http2/6.8": 1, "http2/6.9": 3, "http2/6.9.1": 3, "http2/6.9.2": 3,
    "http2/6.10": 6, "http2/7": 2, "http2/8.1": 1, "http2/8.1.2": 1, "http2/8.1.2.1": 4, "http2/8.1.2.2": 2,
    "http2/8.1.2.3": 7, "http2/8.1.2.6": 2, "http2/8.2": 1, "hpack/2.3.3": 2, "hpack/4.2": 1,
    "hpack/5.2": 3, "hpack/6.1": 1, "hpack/6.3": 1,
}  # fmt: skip


def test_every_case_of_h2spec_is_covered() -> None:
    covered = [name for case in CASES.values() for name in case.h2spec.split()]
    expected = {f"{section}/{i}" for section, count in H2SPEC_CASES.items() for i in range(1, count + 1)}
    assert len(covered) == len(set(covered))
    assert set(covered) == expected - {"http2/3.5/2"}


# --- The tests ---

each_transport = pytest.mark.parametrize("transport", ["cleartext", "TLS"], indirect=True)


@dataclass(frozen=True)
class Transport:
    """What a server and its clients' connections are made with."""

    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Transport:
    """TLS with ALPN, by one certificate for all tests."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    options = {"ssl": http2_context(authority), "server_hostname": "localhost"}
    return Transport(authority.issue().settings, options)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Transport:
    """The one of this name: ``cleartext`` or ``TLS``."""
    return request.getfixturevalue("encrypted") if request.param == "TLS" else Transport()


@each_transport
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@in_loop
async def test_requirement(case: Case, transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    witness = Witness()
    async with served(witness, client_type=HTTP2Peer, **transport.settings) as running:
        neighbour = await running.connect(**transport.options)
        peer = await running.connect(**transport.options)
        await neighbour.open()
        await case.run(peer)
        assert case.calls in (None, witness.calls)
        assert (await neighbour.ask()).body == b"hello"
        witness.released.set()
    assert [record for record in caplog.records if record.exc_info] == []
    assert error_records(caplog) == []
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


@in_loop
async def test_heads_larger_than_a_frame() -> None:
    large = [(b"x-%d" % i, b"%d" % i * 1000) for i in range(40)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await send({"type": "http.response.push", "path": "/pushed", "headers": large})
        await send({"type": "http.response.early_hint", "links": [b"<%b>" % value for _, value in large]})
        start = {"type": "http.response.start", "status": 200, "headers": large, "trailers": True}
        await send(start)
        await send({"type": "http.response.body", "body": b"hello"})
        await send({"type": "http.response.trailers", "headers": large})

    async with served(app, client_type=HTTP2Peer) as running:
        peer = await running.connect()
        peer.decoder.max_header_list_size = 2**20
        await peer.open()
        responses = [await peer.ask(), await peer.response(2)]
    assert sorted(responses[0].promised[2]) == sorted([*request_fields("GET", "/pushed"), *large])
    for response in responses:
        assert [one.status for one in response.informational] == [103]
        assert (response.headers, response.body, response.trailers) == (large, b"hello", large)


@in_loop
async def test_over_a_unix_socket(tmp_path: Path) -> None:
    async with served(Witness(), client_type=HTTP2Peer, uds=str(tmp_path / "socket")) as running:
        peer = await running.connect()
        await peer.open()
        assert (await peer.ask("POST", body=bytes(300_000))).body == bytes(300_000)


async def pushing(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/":
        await send({"type": "http.response.push", "path": "/pushed", "headers": []})
    await respond(send, scope["path"].encode())


@in_loop
async def test_a_size_update_at_the_beginning_of_push_promise() -> None:
    async with served(pushing, client_type=HTTP2Peer) as running:
        peer = await running.connect()
        await peer.open((Setting.HEADER_TABLE_SIZE, 0))
        response = await peer.ask()
        assert sorted(response.promised[2]) == sorted(request_fields("GET", "/pushed"))
        assert (await peer.response(2)).body == b"/pushed"


@each_transport
@in_loop
async def test_a_preface_byte_by_byte(transport: Transport, reads: Reads) -> None:
    data = PREFACE + settings() + get()
    async with served(Witness(), client_type=HTTP2Peer, **transport.settings) as running:
        peer = await running.connect(**transport.options)
        for i in range(len(data)):
            total = reads.total
            await peer.write(data[i : i + 1])
            await reads.until(total + 1)
        assert (await peer.response(1)).body == b"hello"


@pytest.mark.parametrize(
    ("transport", "http2"),
    [("cleartext", "only"), ("TLS", "on"), ("TLS", "only")],
    indirect=["transport"],
)
@pytest.mark.parametrize("sent", [b"INVALID CONNECTION PREFACE\r\n\r\n", PREFACE[:-1] + b"\r" + settings()])
@in_loop
async def test_no_preface(
    sent: bytes, transport: Transport, http2: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Witness(), client_type=HTTP2Peer, http2=http2, **transport.settings) as running:
        peer = await running.connect(**transport.options)
        await peer.write(sent)
        assert (await peer.ending()).code == PROTOCOL_ERROR
    assert error_records(caplog) == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"INVALID CONNECTION PREFACE\r\n\r\n", 400), (PREFACE[:-1] + b"\r" + settings(), 505)],
)
@in_loop
async def test_what_is_no_preface_is_http1_where_both_are_spoken(sent: bytes, status: int) -> None:
    async with served(Witness()) as running:
        answer = await running.talk(sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.skipif("H2SPEC" not in os.environ, reason="H2SPEC names no build of h2spec")
@pytest.mark.parametrize(
    ("transport", "http2", "failing"),
    [
        ("cleartext", "on", [("http2/3.5", "Sends invalid connection preface")]),
        ("cleartext", "only", []),
        ("TLS", "on", []),
        ("TLS", "only", []),
    ],
    indirect=["transport"],
)
@in_loop
async def test_h2spec(
    transport: Transport, http2: str, failing: list[tuple[str, str]], tmp_path: Path
) -> None:
    report = tmp_path / "report.xml"
    async with served(Witness(), http2=http2, **transport.settings) as running:
        arguments = ["-h", "127.0.0.1", "-p", str(running.port), "-o", "5", "-j", str(report)]
        if transport.options:
            arguments += ["-t", "-k"]
        process = await asyncio.create_subprocess_exec(
            os.environ["H2SPEC"], *arguments, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        (case.attrib["package"], case.attrib["classname"])
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    assert failed == failing, output.decode()
    assert [case for case in cases if case.find("skipped") is not None] == []
    assert len(cases) == 146
