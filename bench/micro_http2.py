"""Micro-benchmarks of HTTP/2: request heads whose fields are all in the peer's table, and whole requests.

See micro.py.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from bench.codec import Codec, Step, check
from bench.http2 import END_HEADERS, END_STREAM, HEADERS, StreamCounter, build_frame, build_preface
from bench.responses import ResponseCounter

_PSEUDO_FIELDS = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"127.0.0.1:8000"),
    (b":path", b"/?a=b"),
]
HEADS = {
    "small": [*_PSEUDO_FIELDS, (b"user-agent", b"h2load nghttp2/1.52.0")],
    "browser": [
        *_PSEUDO_FIELDS,
        (b"sec-ch-ua", b'"Chromium";v="138", "Not)A;Brand";v="8"'),
        (b"sec-ch-ua-mobile", b"?0"),
        (b"sec-ch-ua-platform", b'"Linux"'),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Safari/537.36"),
        (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
        (b"sec-fetch-site", b"none"),
        (b"sec-fetch-mode", b"navigate"),
        (b"sec-fetch-dest", b"document"),
        (b"accept-encoding", b"gzip, deflate, br, zstd"),
        (b"accept-language", b"en-US,en;q=0.9"),
        (b"priority", b"u=0, i"),
    ],
}
AT_ONCE = 32
"""Whole requests that the client sends at once: they share one turn of the event loop."""
REQUEST = b"GET /?a=b HTTP/1.1\r\nhost: 127.0.0.1:8000\r\nuser-agent: h2load nghttp2/1.52.0\r\n\r\n"
"""The small head in HTTP/1.1."""
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
}
BODY = {"type": "http.response.body", "body": b"Hello, World!"}


def _literals(fields: list[tuple[bytes, bytes]]) -> bytes:
    """A block that puts fields, of at most 126 bytes a string, into the table (RFC 7541 section 6.2.1)."""
    strings = (bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)
    return b"".join(b"\x40" + both for both in strings)


def _indexed(count: int) -> bytes:
    """A block of so many fields, those that came into the table last, in their order (section 6.1)."""
    return bytes(0x80 | 61 + number for number in range(count, 0, -1))


def _fastasgi_head(fields: list[tuple[bytes, bytes]]) -> Step:
    from fastasgi.codecs.hpack import HPACKDecoder
    from fastasgi.codecs.http2head import HTTP2RequestHead, decode_request

    head = HTTP2RequestHead()
    decoder = HPACKDecoder()
    first = decode_request(head, decoder, _literals(fields))
    block = _indexed(len(fields))
    check(first.fault is None and decode_request(head, decoder, block) == first)
    return lambda: decode_request(head, decoder, block)


async def hello(
    scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """The least that an application does: thirteen bytes."""
    await send(START)
    await send(BODY)


def _open_streams(number: int, blocks: list[bytes]) -> bytes:
    """The frames that open streams from this one on, each with one of these header blocks."""
    streams = itertools.count(number, 2)
    return b"".join(
        build_frame(HEADERS, END_STREAM | END_HEADERS, stream.to_bytes(4, "big"), block)
        for stream, block in zip(streams, blocks, strict=False)
    )


def _http2_requests(fields: list[tuple[bytes, bytes]], counter: StreamCounter) -> Iterator[bytes]:
    """What a client sends, AT_ONCE requests each time: all its fields, then entries of the table only."""
    indexed = [_indexed(len(fields))] * AT_ONCE
    yield build_preface() + _open_streams(1, [_literals(fields), *indexed[1:]])
    yield counter.take_replies() + _open_streams(1 + 2 * AT_ONCE, indexed)
    # Frames with the next streams differ by the same number each time: adding it costs less than encoding.
    frames, following = (_open_streams(1 + 2 * AT_ONCE * batch, indexed) for batch in (2, 3))
    number = int.from_bytes(frames, "big")
    difference = int.from_bytes(following, "big") - number
    while True:
        yield number.to_bytes(len(frames), "big")
        number += difference


def _requests(batches: Iterator[bytes], count: Callable[[bytes], int]) -> Step:
    """Has AT_ONCE requests answered, the next of these; `count` says how many responses became complete."""
    from bench.inprocess import InProcess

    server = InProcess(hello)

    def read_responses() -> int:
        """The bytes of the responses to the next requests."""
        server.send(next(batches))
        answers = size = 0
        while answers < AT_ONCE:
            data = server.receive()
            answers += count(data)
            size += len(data)
        check(answers == AT_ONCE)
        return size

    read_responses()
    # The first ones fill the table of HPACK: from now on all responses have the same size.
    size = read_responses()

    def step() -> None:
        server.send(next(batches))
        left = size
        while left > 0:
            left -= len(server.receive())
        check(left == 0)

    return step


def _http2_get() -> Step:
    counter = StreamCounter()
    return _requests(_http2_requests(HEADS["small"], counter), lambda data: len(counter.feed(data)))


def _http1_get() -> Step:
    return _requests(itertools.repeat(REQUEST * AT_ONCE), ResponseCounter().feed)


def _codec(kind: str) -> Codec:
    fields = HEADS[kind]
    title = f"HTTP/2 request head, {kind}, {len(fields)} fields, indexed"
    return Codec(f"h2-head-{kind}", "fastasgi", title, lambda: _fastasgi_head(fields), guarded=True)


_GET_TITLE = f"whole request, small, {AT_ONCE} at once on a connection"
CODECS = [
    _codec("small"),
    _codec("browser"),
    Codec("h2-get", "fastasgi, HTTP/2", _GET_TITLE, _http2_get, guarded=True, batch=AT_ONCE),
    Codec("h1-get", "fastasgi, HTTP/1.1", _GET_TITLE, _http1_get, guarded=True, batch=AT_ONCE),
]
