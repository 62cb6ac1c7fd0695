"""What goes out over HTTP/1.x: heads, framing, extensions, and what the application may not send."""

import asyncio
import contextlib
import email.utils
import os
import time
from collections.abc import Iterator
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from wire import (
    CLOSE,
    SERVER_ERROR,
    error_records,
    hello,
    in_each_loop,
    in_loop,
    request,
    respond,
    served,
    talk,
    traceback_of,
)

GET = request("GET / HTTP/1.1", CLOSE)
GET_1_0 = request("GET / HTTP/1.0")
XS = b"x" * 16


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sending(*messages: dict[str, Any]) -> Any:
    """An application that sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


# --- Framing (RFC 9112 section 6) ---


@in_each_loop
async def test_a_whole_body_gets_its_content_length() -> None:
    expected = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
    assert await talk(hello, GET) == expected


@in_loop
async def test_messages_need_only_their_type_and_the_status() -> None:
    app = sending({"type": "http.response.start", "status": 200}, {"type": "http.response.body"})
    assert await talk(app, GET) == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@in_loop
async def test_the_content_length_of_the_application_is_kept() -> None:
    app = sending(start(200, (b"Content-Length", b"6")), body(b"abc", True), body(b"def"))
    assert await talk(app, request() + GET) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef"
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nconnection: close\r\n\r\nabcdef"
    )


@in_each_loop
async def test_a_streamed_body_is_chunked() -> None:
    """An empty piece is no chunk: that would end the body."""
    app = sending(
        start(), body(b"", True), body(b"abc", True), body(b"", True), body(b"x" * 16, True), body()
    )
    assert await talk(app, GET) == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"3\r\nabc\r\n10\r\n" + XS + b"\r\n0\r\n\r\n"
    )


@in_loop
async def test_the_last_piece_is_a_chunk_too() -> None:
    app = sending(start(), body(b"abc", True), body(b"def"))
    answer = await talk(app, GET)
    assert answer.endswith(b"\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")


@in_loop
async def test_http_1_0_gets_no_chunks() -> None:
    """The end of the connection ends the body, whatever the client asked for."""
    app = sending(start(), body(b"abc", True), body(b"def"))
    for data in (GET_1_0, request("GET / HTTP/1.0", "connection: keep-alive")):
        assert await talk(app, data) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcdef"


@pytest.mark.parametrize("name", [b"transfer-encoding", b"Transfer-Encoding"])
@in_loop
async def test_transfer_encoding_is_the_servers_business(name: bytes) -> None:
    app = sending(start(200, (name, b"chunked"), (b"x", b"y")), body(b"abc"))
    assert await talk(app, GET) == (
        b"HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
    )


SIZES = [0, 1, 15, 16, 255, 256, 4095, 16383, 16384, 16385, 65535, 65536, 131073, 262144, 2**20, 2**20 + 1]


@in_each_loop
async def test_bodies_of_any_size_in_any_form() -> None:
    data = bytes(range(251)) * (2**20 // 251 + 1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        piece = memoryview(data)[: int(scope["path"][1:])]
        form = scope["query_string"]
        await send(start(200, (b"content-length", b"%d" % len(piece))) if form == b"length" else start())
        if form == b"whole":
            await send(body(bytes(piece)))
        else:
            await send(body(bytes(piece), True))
            await send(body(bytes(piece[::-1])) if form == b"two" else body())

    async with served(app) as server:
        client = await server.connect()
        for size in SIZES:
            for form in ("whole", "length", "chunked", "two"):
                response = await client.ask(request(f"GET /{size}?{form} HTTP/1.1"))
                expected = data[:size] + (data[:size][::-1] if form == "two" else b"")
                assert response.body == expected, (size, form)
                if form in ("chunked", "two"):
                    assert [chunk for chunk in response.chunks if chunk] == response.chunks


@in_loop
async def test_a_megabyte_in_pipelined_responses() -> None:
    data = b"x" * 2**20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, data)

    async with served(app) as server:
        client = await server.connect()
        await client.write(request() * 20)
        for _ in range(20):
            assert (await client.response()).body == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, type("Bytes", (bytes,), {})])
@pytest.mark.parametrize("size", [5, 100_000])
@in_loop
async def test_body_types(kind: Any, size: int) -> None:
    async with served(sending(start(), body(kind(b"x" * size), True), body(kind(b"y")))) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == b"x" * size + b"y"


@pytest.mark.parametrize("size", [5, 20_000, 2_000_000])
@in_loop
async def test_a_buffer_may_be_used_again_once_it_is_sent(size: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        buffer = bytearray(b"a" * size)
        await send(start())
        await send(body(memoryview(buffer), True))
        buffer[:] = b"b" * size
        await send(body(memoryview(buffer)))
        buffer[:] = b"c" * size

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == b"a" * size + b"b" * size


@in_loop
async def test_the_start_waits_for_the_first_body_message() -> None:
    """So that an exception in between still becomes a 500."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/other":
            await respond(send, b"")
            return
        await send(start())
        started.set()
        await go_on.wait()
        await send(body(b"", True))

    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        await started.wait()
        other = await server.connect()
        await other.ask(request("GET /other HTTP/1.1"))
        first = asyncio.create_task(client.reader.readuntil(b"\r\n\r\n"))
        await other.ask(request("GET /other HTTP/1.1"))
        assert not first.done()
        go_on.set()
        assert await first == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


# --- Content-Length that the application breaks ---


@in_loop
async def test_a_body_longer_than_its_content_length(caplog: pytest.LogCaptureFixture) -> None:
    answer = await talk(sending(start(200, (b"content-length", b"3")), body(b"abcd")), GET)
    assert answer == SERVER_ERROR
    assert str(traceback_of(caplog)) == "Response content longer than Content-Length"


@in_loop
async def test_a_body_shorter_than_its_content_length(caplog: pytest.LogCaptureFixture) -> None:
    answer = await talk(sending(start(200, (b"content-length", b"3")), body(b"ab")), GET)
    assert answer == SERVER_ERROR
    assert str(traceback_of(caplog)) == "Response content shorter than Content-Length"


@in_loop
async def test_a_streamed_body_longer_than_its_content_length(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets no more than was announced, and no next response."""
    app = sending(start(200, (b"content-length", b"5")), body(b"abc", True), body(b"def"))
    assert await talk(app, request() + GET) == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"
    assert str(traceback_of(caplog)) == "Response content longer than Content-Length"


@in_loop
async def test_a_streamed_body_shorter_than_its_content_length(caplog: pytest.LogCaptureFixture) -> None:
    app = sending(start(200, (b"content-length", b"5")), body(b"abc", True), body(b"d"))
    answer = await talk(app, request() + GET)
    assert answer in (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcd",
    )
    assert str(traceback_of(caplog)) == "Response content shorter than Content-Length"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"x")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"1, 1")],
        [(b"content-length", b"")],
        [(b"content-length", b"1"), (b"Content-Length", b"1")],
    ],
    ids=str,
)
@in_loop
async def test_a_content_length_that_is_none(headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending(start(200, *headers), body(b"x")), GET) == SERVER_ERROR
    assert "content-length" in str(traceback_of(caplog))


@in_loop
async def test_content_length_is_not_held_against_a_response_without_body() -> None:
    app = sending(start(200, (b"content-length", b"3")), body())
    answer = await talk(app, request("HEAD / HTTP/1.1") + request("HEAD / HTTP/1.1", CLOSE))
    assert answer.count(b"content-length: 3\r\n") == 2


# --- date, server and other headers of the server's ---


@in_loop
async def test_date_and_server_are_sent_unless_switched_off() -> None:
    before = int(time.time())
    async with served(hello, date_header=True, server_header=True) as server:
        client = await server.connect()
        response = await client.ask(request())
    assert [name for name, _ in response.headers] == [b"server", b"date", b"content-length"]
    assert response[b"server"] == b"fastasgi"
    date = response[b"date"].decode()
    sent_at = email.utils.parsedate_to_datetime(date).timestamp()
    assert before - 2 <= sent_at <= time.time()
    assert date == email.utils.formatdate(sent_at, usegmt=True)


@pytest.mark.parametrize("name", ["date", "server"])
@in_loop
async def test_one_of_date_and_server(name: str) -> None:
    async with served(hello, **{f"{name}_header": True}) as server:
        client = await server.connect()
        response = await client.ask(request())
    assert [name for name, _ in response.headers] == [name.encode(), b"content-length"]


@pytest.mark.parametrize("name", [b"date", b"server", b"Date", b"Server"])
@in_loop
async def test_the_applications_date_or_server_replaces_the_servers(name: bytes) -> None:
    app = sending(start(200, (name, b"mine")), body())
    async with served(app, date_header=True, server_header=True) as server:
        client = await server.connect()
        response = await client.ask(request())
    assert response[name.lower()] == b"mine"
    assert sorted(name.lower() for name, _ in response.headers) == [b"content-length", b"date", b"server"]


@in_loop
async def test_headers_by_setting() -> None:
    settings = {"headers": [("X-One", "1"), ("x-two", "2"), ("x-two", "3")]}
    lines = b"x-one: 1\r\nx-two: 2\r\nx-two: 3\r\n"
    expected = b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 5\r\nconnection: close\r\n\r\nhello"
    assert await talk(hello, GET, **settings) == expected
    refused = await talk(hello, b"\n", **settings)
    assert refused.startswith(b"HTTP/1.1 400 Bad Request\r\n" + lines)


@in_loop
async def test_a_server_header_by_setting_replaces_the_default() -> None:
    answer = await talk(hello, GET, server_header=True, headers=[("Server", "other")])
    assert answer == (
        b"HTTP/1.1 200 OK\r\nserver: other\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
    )


# --- Headers of the application ---


def generated() -> Iterator[tuple[bytes, bytes]]:
    yield b"x-a", b"1"
    yield b"X-B", b"2"


HEADERS = {
    "tuples": lambda: [(b"x-a", b"1"), (b"X-B", b"2")],
    "lists": lambda: [[b"x-a", b"1"], [b"X-B", b"2"]],
    "tuple of both": lambda: ((b"x-a", b"1"), [b"X-B", b"2"]),
    "generator": generated,
    "dictionary view": lambda: {b"x-a": b"1", b"X-B": b"2"}.items(),
    "other buffers": lambda: [(bytearray(b"x-a"), memoryview(b"1")), (memoryview(b"X-B"), bytearray(b"2"))],
    "other pairs": lambda: [iter([b"x-a", b"1"]), {b"X-B": None, b"2": None}],
}


@pytest.mark.parametrize("make", HEADERS.values(), ids=HEADERS)
@in_loop
async def test_header_pairs_of_any_kind(make: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"", headers=make())

    assert await talk(app, GET) == (
        b"HTTP/1.1 200 OK\r\nx-a: 1\r\nX-B: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )


@in_loop
async def test_header_values_are_sent_as_they_are() -> None:
    value = bytes({*range(256)} - {0, 10, 13})
    long = b"y" * 100_000
    headers = [(b"x", value), (b"x", b""), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"long", long)]
    answer = await talk(sending(start(200, *headers), body()), GET)
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    assert answer == b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 0\r\nconnection: close\r\n\r\n"


BAD_HEADERS = {
    "CR LF in a value (CVE-2020-7695)": (b"x", b"1\r\nset-cookie: admin"),
    "CR LF CR LF in a value (CVE-2020-7695)": (b"x", b"1\r\n\r\n<script>"),
    "LF in a value": (b"x", b"1\nset-cookie: admin"),
    "CR in a value": (b"x", b"1\rset-cookie: admin"),
    "NUL in a value": (b"x", b"1\x002"),
    "LF behind a long value": (b"x", b"1" * 300 + b"\n"),
    "CR LF in a name": (b"x: 1\r\ny", b"1"),
    "LF in a name": (b"x\n", b"1"),
    "NUL in a name": (b"x\0", b"1"),
    "colon in a name": (b"x:", b"1"),
    "space in a name": (b"x y", b"1"),
    "empty name": (b"", b"1"),
    "byte above 127 in a name": (b"\xff", b"1"),
    "str name": ("x", b"1"),
    "str value": (b"x", "1"),
    "int value": (b"x", 1),
    "no value": (b"x",),
    "three parts": (b"x", b"1", b"2"),
}


@pytest.mark.parametrize("pair", BAD_HEADERS.values(), ids=BAD_HEADERS)
@in_loop
async def test_a_bad_header_is_the_applications_error(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    """500, logged, and nothing of it sent; nor of what is good."""
    answer = await talk(sending(start(200, (b"x-good", b"1"), pair), body(b"abc")), request() + GET)
    assert answer == SERVER_ERROR
    assert isinstance(traceback_of(caplog), ValueError | TypeError)


@in_loop
async def test_a_bad_header_can_be_mended_by_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match=r"b'x'.*CR, LF or NUL"):
            await respond(send, b"", headers=[(b"x", b"1\r\n2")])
        await respond(send, b"", headers=[(b"x", b"1")])

    expected = b"HTTP/1.1 200 OK\r\nx: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert await talk(app, GET) == expected
    assert error_records(caplog) == []


@pytest.mark.parametrize(
    "status",
    [100, 103, 199, 0, -1, 1000, 2**40, 2**70, "200", None, 200.0, 200.7, True, Decimal(200)],
    ids=repr,
)
@in_loop
async def test_a_status_that_is_none(status: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending({**start(), "status": status}, body()), GET) == SERVER_ERROR
    traceback_of(caplog)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (201, b"HTTP/1.1 201 Created\r\n"),
        (418, b"HTTP/1.1 418 I'm a Teapot\r\n"),
        (299, b"HTTP/1.1 299 \r\n"),
        (599, b"HTTP/1.1 599 \r\n"),
        (999, b"HTTP/1.1 999 \r\n"),
    ],
)
@in_loop
async def test_status_line(status: int, line: bytes) -> None:
    """RFC 9112 section 4: the space stands before an empty reason too."""
    assert (await talk(sending(start(status), body()), GET)).startswith(line)


class Index:
    """A whole number that is no int, as numpy has them."""

    def __index__(self) -> int:
        return 201


@pytest.mark.parametrize("status", [HTTPStatus.CREATED, Index()], ids=["enum", "index"])
@in_loop
async def test_a_status_of_other_types(status: Any) -> None:
    answer = await talk(sending(start(status), body()), GET)
    assert answer.startswith(b"HTTP/1.1 201 Created\r\n")


@pytest.mark.parametrize("data", ["abc", None, 3, ["a"]])
@in_loop
async def test_a_body_that_is_no_bytes(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending(start(), {"type": "http.response.body", "body": data}), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), TypeError)


# --- http.response.early_hint (RFC 8297) ---


@in_each_loop
async def test_early_hints() -> None:
    links = [b"</style.css>; rel=preload; as=style", b"</script.js>; rel=preload; as=script"]
    hint = {"type": "http.response.early_hint", "links": links}
    app = sending(hint, {**hint, "links": iter(links[:1])}, start(), body(b"abc"))
    lines = [b"link: %b\r\n" % link for link in links]
    assert await talk(app, GET) == (
        b"HTTP/1.1 103 Early Hints\r\n" + lines[0] + lines[1] + b"\r\n"
        b"HTTP/1.1 103 Early Hints\r\n" + lines[0] + b"\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
    )  # fmt: skip


@in_loop
async def test_an_early_hint_is_sent_at_once() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"a"]})
        await go_on.wait()
        await respond(send, b"")

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).status == 103
        go_on.set()
        assert (await client.response()).status == 200


@in_loop
async def test_http_1_0_gets_no_early_hints() -> None:
    """RFC 9110 section 15.2."""
    app = sending({"type": "http.response.early_hint", "links": [b"a"]}, start(), body())
    expected = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert await talk(app, GET_1_0) == expected


@in_loop
async def test_a_bad_link_is_the_applications_error(caplog: pytest.LogCaptureFixture) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"good", b"bad\r\nx: y"]}
    assert await talk(sending(hint, start(), body()), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), ValueError)


# --- http.response.trailers (RFC 9112 section 7.1.2) ---


def trailers(*headers: Any, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": list(headers), "more_trailers": more}


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abc", b"def"], [b"abc", b""], [b"x" * 100_000], [b""]])
@in_each_loop
async def test_trailers(pieces: list[bytes]) -> None:
    bodies = [body(piece, index < len(pieces) - 1) for index, piece in enumerate(pieces)]
    app = sending(
        start(200, (b"trailer", b"x-a, x-b"), trailers=True),
        *bodies,
        trailers((b"x-a", b"1"), more=True),
        trailers([b"x-b", b"2"]),
    )
    async with served(app) as server:
        client = await server.connect()
        for _ in range(2):
            response = await client.ask(request("GET / HTTP/1.1", "te: trailers"))
            assert response.body == b"".join(pieces)
            assert response.trailers == [(b"x-a", b"1"), (b"x-b", b"2")]
            assert response[b"trailer"] == b"x-a, x-b"


@in_loop
async def test_no_trailers_where_they_have_no_place() -> None:
    """Without chunks, and without a body."""
    end = (body(b"abc"), trailers((b"x-a", b"1")))
    head = b"HTTP/1.1 200 OK\r\n"
    app = sending(start(200, (b"content-length", b"3"), trailers=True), *end)
    assert await talk(app, GET) == head + b"content-length: 3\r\nconnection: close\r\n\r\nabc"
    app = sending(start(trailers=True), *end)
    assert await talk(app, GET_1_0) == head + b"connection: close\r\n\r\nabc"
    answer = await talk(app, request("HEAD / HTTP/1.1", CLOSE))
    assert answer.endswith(b"\r\n\r\n")
    assert b"x-a" not in answer


@pytest.mark.parametrize(
    "field", [(b"x", b"1\r\n2"), (b"Content-Length", b"3"), (b"transfer-encoding", b"gzip")]
)
@in_loop
async def test_bad_trailers_are_the_applications_error(
    field: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    app = sending(start(trailers=True), body(b"abc"), trailers((b"x", b"1"), field))
    assert await talk(app, request() + GET) == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    assert isinstance(traceback_of(caplog), ValueError)


@in_loop
async def test_promised_trailers_that_do_not_come(caplog: pytest.LogCaptureFixture) -> None:
    app = sending(start(trailers=True), body(b"abc"))
    assert await talk(app, request() + GET) == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    [record] = error_records(caplog)
    assert record.getMessage() == "ASGI callable returned without completing response."


# --- http.response.debug ---


@in_loop
async def test_debug_messages_are_passed_over() -> None:
    debug = {"type": "http.response.debug", "info": {"template": object()}}
    app = sending(
        debug, start(trailers=True), debug, body(b"abc", True), debug, body(), debug, trailers((b"x-a", b"1"))
    )
    assert await talk(app, GET) == (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"3\r\nabc\r\n0\r\nx-a: 1\r\n\r\n"
    )


# --- http.response.pathsend ---


def pathsend(path: Any) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path)}


@pytest.fixture(params=["sendfile", "without sendfile"])
def sendfile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without sendfile":
        monkeypatch.delattr(os, "sendfile")
    return request.param


FILE = bytes(range(251)) * 10_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(FILE)
    return path


def open_files() -> list[str]:
    """What this process has open. Event loops keep /dev/null in reserve."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(link for link in links if link != "/dev/null")


@in_each_loop
async def test_pathsend(file: Path, sendfile: str) -> None:
    async with served(sending(start(), pathsend(file))) as server:
        client = await server.connect()
        before = open_files()
        for _ in range(3):
            response = await client.ask(request())
            assert response.body == FILE
            assert response.headers == [(b"content-length", b"%d" % len(FILE))]
        assert open_files() == before
        assert (await client.ask(request("HEAD / HTTP/1.1"), "HEAD")).status == 200
        assert (await client.ask(request())).body == FILE


@in_loop
async def test_pathsend_in_pipelined_responses(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/file":
            await send(start())
            await send(pathsend(file))
        else:
            await respond(send, scope["path"].encode())

    async with served(app) as server:
        client = await server.connect()
        for _ in range(3):
            for path in ("/a", "/file", "/b"):
                client.writer.write(request(f"GET {path} HTTP/1.1"))
        for _ in range(3):
            for expected in (b"/a", FILE, b"/b"):
                assert (await client.response()).body == expected


@in_loop
async def test_pathsend_of_an_empty_file(tmp_path: Path, sendfile: str) -> None:
    (tmp_path / "empty").touch()
    answer = await talk(sending(start(), pathsend(tmp_path / "empty")), request() + GET)
    assert answer == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )


@in_loop
async def test_pathsend_to_http_1_0(file: Path, sendfile: str) -> None:
    answer = await talk(sending(start(), pathsend(file)), GET_1_0)
    length = b"content-length: %d" % len(FILE)
    assert answer == b"HTTP/1.1 200 OK\r\n" + length + b"\r\nconnection: close\r\n\r\n" + FILE


@in_loop
async def test_pathsend_keeps_the_content_length_of_the_application(file: Path) -> None:
    length = (b"Content-Length", b"%d" % len(FILE))
    async with served(sending(start(200, length), pathsend(file))) as server:
        client = await server.connect()
        response = await client.ask(request())
    assert response.headers == [length]
    assert response.body == FILE


@pytest.mark.parametrize("length", [len(FILE) - 1, len(FILE) + 1])
@in_loop
async def test_pathsend_of_another_length(file: Path, length: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = await talk(sending(start(200, (b"content-length", b"%d" % length)), pathsend(file)), GET)
    assert answer == SERVER_ERROR
    assert "Content-Length" in str(traceback_of(caplog))


@in_loop
async def test_pathsend_of_what_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending(start(), pathsend(tmp_path / "none")), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), FileNotFoundError)


@in_loop
async def test_pathsend_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending(start(), pathsend(tmp_path)), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), OSError)


@in_loop
async def test_pathsend_with_trailers(file: Path, sendfile: str) -> None:
    app = sending(start(trailers=True), pathsend(file), trailers((b"x-a", b"1")))
    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(request())
    assert response.body == FILE
    assert response.trailers == [(b"x-a", b"1")]


@in_each_loop
async def test_nothing_else_is_sent_while_a_file_is(
    file: Path, sendfile: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(file, 50_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        sending = asyncio.ensure_future(send(pathsend(file)))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="while a file is being sent"):
            await send(body(b"abc"))
        await sending

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == FILE + bytes(50_000_000 - len(FILE))
    assert error_records(caplog) == []


@in_each_loop
async def test_a_client_that_leaves_a_file(
    file: Path, sendfile: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(file, 500_000_000)
    ended = asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            await send(pathsend(file))
        except BaseException as error:
            ended.set_exception(error)
            raise
        ended.set_result(None)

    before = open_files()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        await client.reader.readuntil(b"\r\n\r\n")
        client.reset()
        await ended
    assert error_records(caplog) == []
    assert open_files() == before


# --- http.response.zerocopysend ---


def zerocopysend(file: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **more}


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({}, slice(None)),
        ({"offset": 0}, slice(None)),
        ({"offset": 1000}, slice(1000, None)),
        ({"count": 1000}, slice(1000)),
        ({"offset": 1000, "count": 1000}, slice(1000, 2000)),
        ({"offset": 1000, "count": 2_000_000}, slice(1000, 2_001_000)),
        ({"offset": 1000, "count": len(FILE)}, slice(1000, None)),
        ({"offset": len(FILE)}, slice(0, 0)),
        ({"offset": len(FILE) + 1}, slice(0, 0)),
        ({"count": 0}, slice(0, 0)),
        ({"offset": None, "count": None}, slice(None)),
    ],
    ids=str,
)
@in_each_loop
async def test_zerocopysend(more: dict[str, Any], part: slice, file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            await send(start())
            await send(zerocopysend(opened, **more))
            opened.seek(5)
            assert opened.read(5) == FILE[5:10]

    async with served(app) as server:
        client = await server.connect()
        before = open_files()
        for _ in range(2):
            response = await client.ask(request())
            assert response.body == FILE[part]
            assert response.headers == [(b"content-length", b"%d" % len(FILE[part]))]
        assert open_files() == before


@in_loop
async def test_zerocopysend_among_other_pieces(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            await send(start())
            await send(body(b"begin", True))
            await send(zerocopysend(opened, offset=10, count=10, more_body=True))
            await send(zerocopysend(opened, offset=10, count=0, more_body=True))
            await send(body(b"middle", True))
            await send(zerocopysend(opened, offset=20, count=1_000_000, more_body=True))
            await send(body(b"end"))

    async with served(app) as server:
        client = await server.connect()
        for _ in range(2):
            response = await client.ask(request())
            assert response.chunks == [b"begin", FILE[10:20], b"middle", FILE[20:1_000_020], b"end"]


@in_loop
async def test_zerocopysend_first_with_more_to_come(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            length = (b"content-length", b"30")
            await send(start(200, length) if scope["path"] == "/length" else start())
            await send(zerocopysend(opened, offset=0, count=10, more_body=True))
            await send(zerocopysend(opened, offset=10, count=10, more_body=True))
            await send(zerocopysend(opened, offset=20, count=10))

    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(request("GET /length HTTP/1.1"))
        assert response.body == FILE[:30]
        assert response.chunks is None
        response = await client.ask(request())
        assert response.chunks == [FILE[:10], FILE[10:20], FILE[20:30]]


@in_loop
async def test_zerocopysend_begins_at_the_files_position_and_moves_it(file: Path, sendfile: str) -> None:
    """As os.sendfile() without an offset, after which the message's fields are named."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb", buffering=0) as opened:
            opened.seek(100)
            await send(start())
            await send(zerocopysend(opened, count=10, more_body=True))
            await send(zerocopysend(opened, count=10))

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).chunks == [FILE[100:110], FILE[110:120]]


@in_each_loop
async def test_zerocopysend_waits_for_what_was_sent_before(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            await send(start())
            sending.set()
            for _ in range(5):
                await asyncio.gather(
                    send(body(b"x" * 3_000_000, True)),
                    send(zerocopysend(opened, offset=0, more_body=True)),
                )
            await send(body())

    sending = asyncio.Event()
    async with served(app) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        await sending.wait()
        assert (await client.response()).chunks == [b"x" * 3_000_000, FILE] * 5


@pytest.mark.parametrize("more", [{"count": -1}, {"offset": -1}, {"count": "1"}, {"offset": 2**70}], ids=str)
@in_loop
async def test_zerocopysend_of_no_part(
    more: dict[str, Any], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_files()
    with file.open("rb") as opened:
        assert await talk(sending(start(), zerocopysend(opened, **more)), GET) == SERVER_ERROR
    traceback_of(caplog)
    caplog.clear()
    assert open_files() == before


@in_loop
async def test_a_file_that_shrinks_while_it_is_sent(
    file: Path, sendfile: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client can tell that it has not all."""
    os.truncate(file, 100_000_000)
    async with served(sending(start(), pathsend(file))) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        assert b"content-length: 100000000\r\n" in await client.reader.readuntil(b"\r\n\r\n")
        os.truncate(file, 1000)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := await client.reader.read(2**20):
                received += len(piece)
    assert received < 100_000_000
    assert "of the 100000000 bytes" in str(traceback_of(caplog))


@in_each_loop
async def test_a_file_that_is_given_up(file: Path, sendfile: str, caplog: pytest.LogCaptureFixture) -> None:
    os.truncate(file, 100_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        async with asyncio.timeout(0.05):
            await send(pathsend(file))

    before = open_files()
    async with served(app) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        await client.reader.readuntil(b"\r\n\r\n")
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := await client.reader.read(2**20):
                received += len(piece)
        assert received < 100_000_000
    assert isinstance(traceback_of(caplog), TimeoutError)
    caplog.clear()
    assert open_files() == before


@in_loop
async def test_zerocopysend_takes_a_descriptor(file: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        descriptor = os.open(file, os.O_RDONLY)
        await send(start())
        await send(zerocopysend(descriptor))
        os.close(descriptor)

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == FILE


@in_loop
async def test_zerocopysend_of_a_closed_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = file.open("rb")
    opened.close()
    assert await talk(sending(start(), zerocopysend(opened)), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), ValueError)


@pytest.mark.parametrize("more", [{"count": -3}, {"offset": -1}, {"count": 3.0}, {"offset": 1.0}], ids=str)
@in_loop
async def test_zerocopysend_of_a_part_that_is_none(file: Path, more: dict[str, Any]) -> None:
    with file.open("rb") as opened:
        assert await talk(sending(start(), zerocopysend(opened, **more)), GET) == SERVER_ERROR


@in_loop
async def test_pathsend_of_a_pipe_without_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert await talk(sending(start(), pathsend(tmp_path / "pipe")), GET) == SERVER_ERROR


@in_loop
async def test_headers_that_change_their_message_while_they_are_read() -> None:
    def headers() -> Iterator[tuple[bytes, bytes]]:
        yield (b"x-a", b"1")
        message.clear()

    message = {"type": "http.response.start", "status": 200, "headers": headers(), "trailers": []}
    answer = await talk(sending(message, body(b"ok")), request("HEAD / HTTP/1.1", CLOSE))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nx-a: 1\r\n")
