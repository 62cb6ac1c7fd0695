"""HTTP/1.x responses, to the byte: framing, headers, early hints, trailers."""

import asyncio
import email.utils
import time
from collections.abc import Iterator
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest
from exchanges import MORE, START, Oops
from messages import body, sending, start, trailers
from wire import (
    CLOSE,
    GET,
    GET_1_0,
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

XS = b"x" * 16


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


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@in_each_loop
async def test_an_exception_in_the_body_closes_or_resets_the_connection(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client can tell that the body is not complete: by the missing last chunk, or by a reset."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(MORE)
        await go_on.wait()
        raise Oops

    go_on = asyncio.Event()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request(f"GET / HTTP/{version}") + request())
        await client.reader.readuntil(b"ok")
        go_on.set()
        if version == "1.1":
            assert await client.rest() == b"\r\n"
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()
    assert isinstance(traceback_of(caplog), Oops)


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
        [(b"content-length", b"%d" % 2**63)],
        [(b"content-length", b"1"), (b"Content-Length", b"1")],
    ],
    ids=str,
)
@in_loop
async def test_a_content_length_that_is_none(headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending(start(200, *headers), body(b"x")), GET) == SERVER_ERROR
    assert "content-length" in str(traceback_of(caplog))


@in_loop
async def test_a_content_length_may_be_as_large_as_that_of_a_request() -> None:
    length = b"%d" % (2**63 - 1)
    app = sending(start(200, (b"content-length", length)), body())
    assert await talk(app, request("HEAD / HTTP/1.1", "connection: close")) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: %b\r\nconnection: close\r\n\r\n" % length
    )


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
