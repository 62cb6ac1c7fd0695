"""Micro-benchmarks of HTTP/1.1: request heads and chunked bodies, fastasgi's codecs against others'.

See micro.py.
"""

import importlib

from bench.codec import Codec, Step, check
from bench.workloads import WORKLOADS

HEADS = {"small": WORKLOADS["hello"].request, "browser": WORKLOADS["browser"].request}
CHUNKED_BYTES = 65536
CHUNKED_BODY = (b"400\r\n" + b"x" * 1024 + b"\r\n") * (CHUNKED_BYTES // 1024) + b"0\r\n\r\n"
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def _fastasgi_head(data: bytes) -> Step:
    from fastasgi._parser import HeadParser

    read = HeadParser().read
    check(read(data) is not None)
    return lambda: read(data)


def _llhttp_head(data: bytes) -> Step:
    from fastasgi._parser import LlhttpHeadParser

    read = LlhttpHeadParser().read
    check(read(data) is not None)
    return lambda: read(data)


class _Collector:
    """What a server keeps of a head when httptools calls it back, as uvicorn does."""

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def _httptools_head(data: bytes) -> Step:
    import httptools

    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)

    def step() -> object:
        parser.feed_data(data)
        url = httptools.parse_url(collector.url)
        return url.path, url.query, collector.headers

    step()
    check(bool(collector.headers))
    return step


def _h11_head(data: bytes) -> Step:
    import h11

    def step() -> object:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(data)
        return connection.next_event()

    check(isinstance(step(), h11.Request))
    return step


def _gunicorn_head(data: bytes) -> Step:
    module = importlib.import_module("gunicorn_h1c")

    def step() -> object:
        return module.parse_request(data)

    step()
    return step


def _fastasgi_chunked() -> Step:
    from fastasgi.codecs.chunked import ChunkedBody

    def step() -> bytes:
        body = ChunkedBody()
        return body.feed(CHUNKED_BODY)

    check(len(step()) == CHUNKED_BYTES)
    return step


class _Body:
    """What a server keeps of a body when httptools calls it back."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)


def _httptools_chunked() -> Step:
    import httptools

    body = _Body()
    parser = httptools.HttpRequestParser(body)

    def step() -> bytes:
        parser.feed_data(CHUNKED_HEAD + CHUNKED_BODY)
        pieces, body.pieces = body.pieces, []
        return b"".join(pieces)

    check(len(step()) == CHUNKED_BYTES)
    return step


def _h11_chunked() -> Step:
    import h11

    def step() -> bytes:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(CHUNKED_HEAD + CHUNKED_BODY)
        pieces = []
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                pieces.append(event.data)
        return b"".join(pieces)

    check(len(step()) == CHUNKED_BYTES)
    return step


def _head_codecs(kind: str) -> list[Codec]:
    data = HEADS[kind]
    title = f"request head, {kind}, {len(data)} bytes"
    return [
        Codec(f"head-{kind}", "fastasgi", title, lambda: _fastasgi_head(data), guarded=True),
        Codec(f"head-{kind}-llhttp", "fastasgi with llhttp", title, lambda: _llhttp_head(data)),
        Codec(f"head-{kind}-gunicorn", "gunicorn_h1c", title, lambda: _gunicorn_head(data)),
        Codec(f"head-{kind}-httptools", "httptools", title, lambda: _httptools_head(data)),
        Codec(f"head-{kind}-h11", "h11", title, lambda: _h11_head(data)),
    ]


_CHUNKED_TITLE = "chunked body, 64 chunks of 1 KiB (httptools and h11: with a head)"
CODECS = [
    *_head_codecs("small"),
    *_head_codecs("browser"),
    Codec("chunked", "fastasgi", _CHUNKED_TITLE, _fastasgi_chunked, guarded=True),
    Codec("chunked-httptools", "httptools", _CHUNKED_TITLE, _httptools_chunked),
    Codec("chunked-h11", "h11", _CHUNKED_TITLE, _h11_chunked),
]
