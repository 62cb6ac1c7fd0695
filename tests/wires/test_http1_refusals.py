"""What HTTP/1.x requests are refused: each with its status, a close, and nothing behind it parsed.

A request that two parsers may read in two ways is how requests are smuggled, so none of these is repaired.
"""

import asyncio
from typing import Any

import pytest
from wire import Reads, each_parser, error_records, in_each_loop, in_loop, read_body, request, respond, served

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


class Witness:
    """An application that notes what reaches it."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await respond(send, await read_body(receive))


def assert_refused(answer: bytes, status: int) -> None:
    """The answer is one whole response with this status, and says that the connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in fields
    assert b"content-length: %d" % len(body) in fields
    assert b"content-type: text/plain; charset=utf-8" in fields
    assert body == line.split(b" ", 2)[2]


def with_fields(*lines: bytes, line: bytes = b"POST / HTTP/1.1") -> bytes:
    """A head with these lines as they are, behind `host: x`."""
    return b"".join([line, b"\r\nhost: x\r\n", *(line + b"\r\n" for line in lines), b"\r\n"])


def with_value(value: bytes) -> bytes:
    return with_fields(b"x-name: " + value)


HEADS = {
    # Line ends
    "bare LF after the request line": (b"GET / HTTP/1.1\nhost: x\r\n\r\n", 400),
    "bare LF after a field (CVE-2022-32214)": (with_value(b"y\ncontent-length: 35"), 400),
    "bare LF ends the head": (b"GET / HTTP/1.1\r\nhost: x\r\n\n", 400),
    "bare LF everywhere": (b"GET / HTTP/1.1\nhost: x\n\n", 400),
    "bare CR after the request line": (b"GET / HTTP/1.1\rhost: x\r\n\r\n", 400),
    "bare CR in a value (CVE-2022-35256)": (with_value(b"y\rcontent-length: 35"), 400),
    "bare CR ends a value (CVE-2023-30589)": (with_value(b"\rcontent-length: 35"), 400),
    "CR and another byte end the head (CVE-2025-23167)": (b"GET / HTTP/1.1\r\nhost: x\r\n\rX", 400),
    "CR CR LF": (with_value(b"y\r"), 400),
    "bare LF before the request line": (b"\nGET / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "bare CR before the request line": (b"\rGET / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "bare LF behind an empty line": (b"\r\n\nGET / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "bare CR behind an empty line": (b"\r\n\rGET / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    # Lines
    "obs-fold by a space": (with_fields(b"x-name: y", b" z"), 400),
    "obs-fold by a tab": (with_fields(b"x-name: y", b"\tz"), 400),
    "obs-fold of Transfer-Encoding (CVE-2022-32215)": (
        with_fields(b"transfer-encoding: chunked", b" , identity"), 400,
    ),
    "a blank before the first name": (b"GET / HTTP/1.1\r\n host: x\r\n\r\n", 400),
    "space before the colon (CVE-2021-22959)": (with_fields(b"content-length : 35"), 400),
    "tab before the colon": (with_fields(b"transfer-encoding\t: chunked"), 400),
    "no colon": (with_fields(b"x-name"), 400),
    "empty name": (with_fields(b": value"), 400),
    "space in a name": (with_fields(b"x name: y"), 400),
    "control byte in a name": (with_fields(b"content-length\x0b: 35"), 400),
    "NUL in a name": (with_fields(b"x\0: y"), 400),
    "byte above 127 in a name": (with_fields(b"x\xff: y"), 400),
    "brackets in a name": (with_fields(b"x(y): z"), 400),
    # Control bytes in values; CVE-2026-44546 for what str.splitlines() takes for line ends
    "NUL in a value": (with_value(b"a\0b"), 400),
    "vertical tab in a value (CVE-2026-44546)": (with_value(b"a\x0bcookie: admin"), 400),
    "form feed in a value (CVE-2026-44546)": (with_value(b"a\x0ccookie: admin"), 400),
    "file separator in a value (CVE-2026-44546)": (with_value(b"a\x1ccookie: admin"), 400),
    "group separator in a value (CVE-2026-44546)": (with_value(b"a\x1dcookie: admin"), 400),
    "record separator in a value (CVE-2026-44546)": (with_value(b"a\x1ecookie: admin"), 400),
    "escape in a value": (with_value(b"a\x1b[31m"), 400),
    "DEL in a value": (with_value(b"a\x7fb"), 400),
    "control byte at the end of a value": (with_value(b"a\x01"), 400),
    # Content-Length
    "content-length twice": (with_fields(b"content-length: 35", b"content-length: 0"), 400),
    "content-length twice the same": (with_fields(b"content-length: 35", b"content-length: 35"), 400),
    "content-length list": (with_fields(b"content-length: 35, 35"), 400),
    "content-length with plus": (with_fields(b"content-length: +35"), 400),
    "content-length negative": (with_fields(b"content-length: -35"), 400),
    "content-length hexadecimal": (with_fields(b"content-length: 0x23"), 400),
    "content-length with underscore": (with_fields(b"content-length: 3_5"), 400),
    "content-length with space": (with_fields(b"content-length: 3 5"), 400),
    "content-length with point": (with_fields(b"content-length: 35.0"), 400),
    "content-length empty": (with_fields(b"content-length:"), 400),
    "content-length in other digits": (with_fields("content-length: ٣٥".encode()), 400),
    "content-length of 2**63": (with_fields(b"content-length: 9223372036854775808"), 400),
    "content-length of 2**64 + 35": (with_fields(b"content-length: 18446744073709551651"), 400),
    # Transfer-Encoding
    "content-length and transfer-encoding": (
        with_fields(b"content-length: 35", b"transfer-encoding: chunked"), 400,
    ),
    "transfer-encoding and content-length": (
        with_fields(b"transfer-encoding: chunked", b"content-length: 35"), 400,
    ),
    "content-length 0 and transfer-encoding": (
        with_fields(b"content-length: 0", b"transfer-encoding: chunked"), 400,
    ),
    "transfer-encoding twice": (
        with_fields(b"transfer-encoding: chunked", b"transfer-encoding: chunked"), 400,
    ),
    "chunked and then another (CVE-2024-1135)": (
        with_fields(b"transfer-encoding: chunked", b"transfer-encoding: identity"), 400,
    ),
    "chunked list": (with_fields(b"transfer-encoding: chunked, chunked"), 400),
    "chunked not last (CVE-2024-6827)": (with_fields(b"transfer-encoding: chunked, gzip"), 400),
    "chunked last (CVE-2024-1135)": (with_fields(b"transfer-encoding: gzip, chunked"), 501),
    "chunked last, in another field": (
        with_fields(b"transfer-encoding: gzip", b"transfer-encoding: chunked"), 501,
    ),
    "chunked not last, in another field": (
        with_fields(b"transfer-encoding: chunked", b"transfer-encoding: gzip"), 400,
    ),
    "gzip alone": (with_fields(b"transfer-encoding: gzip"), 400),
    "chunked with comma (CVE-2022-32213)": (with_fields(b"transfer-encoding: chunked,"), 400),
    "comma with chunked": (with_fields(b"transfer-encoding: ,chunked"), 400),
    "chunked with parameter": (with_fields(b"transfer-encoding: chunked;q=1"), 400),
    "quoted chunked": (with_fields(b'transfer-encoding: "chunked"'), 400),
    "xchunked (CVE-2024-1135)": (with_fields(b"transfer-encoding: xchunked"), 400),
    "chunkedx": (with_fields(b"transfer-encoding: chunkedx"), 400),
    "identity (CVE-2024-6827)": (with_fields(b"transfer-encoding: identity"), 400),
    "empty transfer-encoding": (with_fields(b"transfer-encoding:"), 400),
    "vertical tab before chunked": (with_fields(b"transfer-encoding: \x0bchunked"), 400),
    "transfer-encoding in HTTP/1.0": (
        with_fields(b"transfer-encoding: chunked", line=b"POST / HTTP/1.0"), 400,
    ),
    "identity in HTTP/1.0": (
        with_fields(b"transfer-encoding: identity", line=b"POST / HTTP/1.0"), 400,
    ),
    # Host
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no host with an absolute target": (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
    "host twice": (with_fields(b"host: x"), 400),
    "host twice in HTTP/1.0": (with_fields(b"host: y", line=b"GET / HTTP/1.0"), 400),
    "host with a path": (b"GET / HTTP/1.1\r\nhost: x/y\r\n\r\n", 400),
    "host list": (b"GET / HTTP/1.1\r\nhost: x, y\r\n\r\n", 400),
    "host with a space": (b"GET / HTTP/1.1\r\nhost: x y\r\n\r\n", 400),
    "host with userinfo": (b"GET / HTTP/1.1\r\nhost: user@x\r\n\r\n", 400),
    "host with a bad port": (b"GET / HTTP/1.1\r\nhost: x:8o\r\n\r\n", 400),
    "host with a port beyond 65535": (b"GET / HTTP/1.1\r\nhost: x:65536\r\n\r\n", 400),
    "host with an open bracket": (b"GET / HTTP/1.1\r\nhost: [::1\r\n\r\n", 400),
    "host with a bad address of the future": (b"GET / HTTP/1.1\r\nhost: [v1.]\r\n\r\n", 400),
    "host with a bad address": (b"GET / HTTP/1.1\r\nhost: [::1::]\r\n\r\n", 400),
    # The request line
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no version (HTTP/0.9)": (b"GET /\r\nhost: x\r\n\r\n", 400),
    "lower case version": (b"GET / http/1.1\r\nhost: x\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nhost: x\r\n\r\n", 505),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nhost: x\r\n\r\n", 400),
    "two spaces before the target": (b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "two spaces before the version": (b"GET /  HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "tab in the request line": (b"GET\t/ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "space behind the version": (b"GET / HTTP/1.1 \r\nhost: x\r\n\r\n", 400),
    "space before the method": (b" GET / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "control byte in the target": (b"GET /a\x01 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "NUL in the target": (b"GET /a\0 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "relative target": (b"GET a HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "target of another scheme": (b"GET ftp://x/ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "target with userinfo": (b"GET http://user@x/ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "target without host": (b"GET http:///a HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "asterisk with GET": (b"GET * HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "bad method": (b"G(T / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "almost HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n\n", 505),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n", 501),
    "CONNECT with a path": (b"CONNECT / HTTP/1.1\r\nhost: x\r\n\r\n", 501),
    # Others
    "an unknown expectation": (with_fields(b"expect: 200-ok"), 417),
}  # fmt: skip


@each_parser
@pytest.mark.parametrize(("data", "status"), HEADS.values(), ids=HEADS)
@in_loop
async def test_head(data: bytes, status: int, http: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Witness()
    async with served(app, http=http) as server:
        assert_refused(await server.talk(data + SMUGGLED), status)
        assert server.context.registry.request_count == 0
    assert app.paths == []
    assert error_records(caplog) == []


@each_parser
@pytest.mark.parametrize(("data", "status"), HEADS.values(), ids=HEADS)
@in_loop
async def test_head_byte_by_byte(data: bytes, status: int, http: str, reads: Reads) -> None:
    app = Witness()
    data += SMUGGLED
    async with served(app, http=http) as server:
        client = await server.connect()
        for i in range(len(data)):
            await client.write(data[i : i + 1])
            await reads.until(i + 1)
        assert_refused(await client.rest(), status)
    assert app.paths == []


@each_parser
@in_loop
async def test_a_refused_head_request_gets_no_body(http: str) -> None:
    """RFC 9110 section 9.3.2. What a HEAD is shows its first word alone, also where the rest is malformed."""
    async with served(Witness(), http=http) as server:
        for data in (
            b"HEAD / HTTP/1.1\r\n\r\n",
            b"\r\n\r\nHEAD / HTTP/1.1\r\n\r\n",
            b"HEAD / HTTP/9.1\r\n",
            b"HEAD / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        ):
            head, end, body = (await server.talk(data)).partition(b"\r\n\r\n")
            assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ", b"HTTP/1.1 501 "))
            assert (end, body) == (b"\r\n\r\n", b"")
        assert_refused(await server.talk(b"HEADS / HTTP/1.1\r\n\r\n"), 400)


BODIES = {
    "no size": b"\r\n0\r\n\r\n",
    "size with sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size with underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "size with space before": b" 3\r\nabc\r\n0\r\n\r\n",
    "not hexadecimal": b"g\r\n0\r\n\r\n",
    "size of 2**64 + 3": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "size of 2**63": b"8000000000000000\r\nabc\r\n0\r\n\r\n",
    "endless zeros": b"0" * 100 + b"3\r\nabc\r\n0\r\n\r\n",
    "size ended by LF": b"3\nabc\r\n0\r\n\r\n",
    "size ended by CR": b"3\rabc\r\n0\r\n\r\n",
    "data ended by LF": b"3\r\nabc\n0\r\n\r\n",
    "data ended by CR": b"3\r\nabc\r0\r\n\r\n",
    "any two bytes after the data (CVE-2025-43859)": b"3\r\nabcXX0\r\n\r\n",
    "longer data than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "extension ended by LF (CVE-2021-22960)": b"3;x\nabc\r\n0\r\n\r\n",
    "LF in an extension": b"3;x=\n2\r\nabc\r\n0\r\n\r\n",
    "CR in an extension": b"3;x\r2\r\nabc\r\n0\r\n\r\n",
    "LF in a quoted extension": b'3;x="\n"\r\nabc\r\n0\r\n\r\n',
    "control byte in an extension": b"3;x\x0b\r\nabc\r\n0\r\n\r\n",
    "extension without a name": b"3;=y\r\nabc\r\n0\r\n\r\n",
    "text instead of an extension": b"3 x\r\nabc\r\n0\r\n\r\n",
    "open quote": b'3;x="\r\nabc\r\n0\r\n\r\n',
    "endless extension": b"3;" + b"x" * 20_000 + b"\r\nabc\r\n0\r\n\r\n",
    "body ended by LF": b"3\r\nabc\r\n0\r\n\n",
    "trailer ended by LF": b"0\r\nx: y\n\r\n",
    "trailer with bare CR": b"0\r\nx: y\rz\r\n\r\n",
    "trailer without colon": b"0\r\nx\r\n\r\n",
    "trailer with space before the colon": b"0\r\nx : y\r\n\r\n",
    "folded trailer": b"0\r\nx: y\r\n z\r\n\r\n",
    "endless trailers": b"0\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
}  # fmt: skip

CHUNKED = request("POST / HTTP/1.1", "transfer-encoding: chunked")


@each_parser
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@in_loop
async def test_chunked_body(body: bytes, http: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Witness()
    async with served(app, http=http) as server:
        assert_refused(await server.talk(CHUNKED + body + SMUGGLED), 400)
    assert "/smuggled" not in app.paths
    assert error_records(caplog) == []


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@in_each_loop
async def test_chunked_body_of_a_running_request(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The application is told that its client has gone, and nothing that it sends goes out."""
    messages = []
    begun, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(scope["path"])
        try:
            while not messages[1:] or messages[-1]["type"] == "http.request":
                messages.append(await receive())
                begun.set()
            await respond(send, b"too late")
        finally:
            ended.set()

    async with served(app) as server:
        client = await server.connect()
        await client.write(CHUNKED + b"3\r\nabc\r\n")
        await begun.wait()
        await client.write(body + SMUGGLED)
        assert_refused(await client.rest(), 400)
        await ended.wait()
    assert messages[:2] == ["/", {"type": "http.request", "body": b"abc", "more_body": True}]
    assert messages[-1] == {"type": "http.disconnect"}
    assert error_records(caplog) == []


@in_loop
async def test_chunked_body_behind_a_begun_response() -> None:
    """There is no second response to send: the first one is cut short."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    async with served(app) as server:
        client = await server.connect()
        await client.write(CHUNKED)
        begun = await client.reader.readuntil(b"3\r\nabc\r\n")
        await client.write(b"x\r\n" + SMUGGLED)
        assert begun + await client.rest() == (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )


@in_loop
async def test_chunked_body_that_the_application_left() -> None:
    """Nobody waits for an answer by then: the connection just ends."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"abc")

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(CHUNKED)).body == b"abc"
        await client.write(b"x\r\n" + SMUGGLED)
        assert await client.rest() == b""
        assert server.context.registry.request_count == 1


# --- Limits ---


@each_parser
@in_loop
async def test_a_request_line_up_to_its_limit(http: str) -> None:
    app = Witness()
    async with served(app, http=http, limit_request_line=100) as server:
        target = "/" + "a" * (100 - len("GET / HTTP/1.1"))
        for extra, status in [("", b"200"), ("a", b"414"), ("a" * 1000, b"414")]:
            data = request(f"GET {target}{extra} HTTP/1.1", "connection: close")
            assert (await server.talk(data))[:12] == b"HTTP/1.1 " + status
    assert app.paths == [target]


@each_parser
@in_loop
async def test_a_request_line_without_end_is_refused(http: str) -> None:
    async with served(Witness(), http=http) as server:
        assert_refused(await server.talk(b"GET /" + b"a" * 100_000), 414)


@each_parser
@in_loop
async def test_a_head_up_to_its_limit(http: str) -> None:
    app = Witness()
    least = len(request("GET / HTTP/1.1", "connection: close", "x: "))
    async with served(app, http=http, limit_request_head=1000) as server:
        for size, status in [(1000, b"200"), (1001, b"431"), (5000, b"431")]:
            data = request("GET / HTTP/1.1", "connection: close", "x: " + "a" * (size - least))
            assert len(data) == size
            assert (await server.talk(data))[:12] == b"HTTP/1.1 " + status
    assert app.paths == ["/"]


@each_parser
@pytest.mark.parametrize("size", [1, 7, 5000])
@in_loop
async def test_empty_lines_count_as_the_heads(size: int, http: str, reads: Reads) -> None:
    app = Witness()
    head = request("GET / HTTP/1.1", "connection: close")
    async with served(app, http=http, limit_request_head=200) as server:
        blank = b"\r\n" * ((200 - len(head)) // 2)
        for data, status in [(blank + head, 200), (b"\r\n" * 2 + blank + head, 431), (b"\r\n" * 101, 431)]:
            client = await server.connect()
            reads.total = 0
            for i in range(0, len(data), size):
                await client.write(data[i : i + size])
                await reads.until(min(i + size, len(data)))
            assert (await client.response()).status == status
            assert await client.rest() == b""
    assert app.paths == ["/"]


@each_parser
@in_loop
async def test_a_head_without_end_is_refused(http: str) -> None:
    async with served(Witness(), http=http) as server:
        assert_refused(await server.talk(b"GET / HTTP/1.1\r\nx: " + b"a" * 1_000_000), 431)


@each_parser
@in_loop
async def test_so_many_headers_as_the_limit_says(http: str) -> None:
    app = Witness()
    async with served(app, http=http, limit_request_fields=10) as server:
        for count, status in [(10, b"200"), (11, b"431"), (500, b"431")]:
            data = request("GET / HTTP/1.1", "connection: close", *["x: y"] * (count - 2))
            assert (await server.talk(data))[:12] == b"HTTP/1.1 " + status
    assert app.paths == ["/"]


@pytest.mark.parametrize("size", [1, 50])
@in_loop
async def test_limits_hold_for_heads_in_pieces(size: int, reads: Reads) -> None:
    app = Witness()
    data = request("GET / HTTP/1.1", *["name: " + "a" * 90] * 20)
    async with served(app, limit_request_head=1000) as server:
        client = await server.connect()
        for i in range(0, len(data), size):
            await client.write(data[i : i + size])
            await reads.until(min(i + size, len(data)))
            if reads.total > 1000:
                break
        assert_refused(await client.rest(), 431)
    assert app.paths == []


# --- Header names with underscores ---


@each_parser
@pytest.mark.parametrize(
    ("setting", "names"),
    [("allow", [b"host", b"x_name", b"x-name"]), ("drop", [b"host", b"x-name"])],
)
@in_loop
async def test_underscores_allowed_or_dropped(setting: str, names: list[bytes], http: str) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await respond(send, b"")

    async with served(app, http=http, header_underscores=setting) as server:
        client = await server.connect()
        await client.ask(request("GET / HTTP/1.1", "X_Name: admin", "X-Name: user"))
    assert seen == names


@each_parser
@in_loop
async def test_underscores_refused(http: str) -> None:
    app = Witness()
    async with served(app, http=http, header_underscores="refuse") as server:
        data = request("GET / HTTP/1.1", "x_name: admin")
        assert_refused(await server.talk(data + SMUGGLED), 400)
    assert app.paths == []


@each_parser
@pytest.mark.parametrize("name", ["content_length", "transfer_encoding", "Content_Length"])
@in_loop
async def test_underscores_frame_no_body(name: str, http: str) -> None:
    app = Witness()
    async with served(app, http=http) as server:
        client = await server.connect()
        data = request("POST / HTTP/1.1", f"{name}: {'chunked' if 'transfer' in name else '35'}")
        assert (await client.ask(data + SMUGGLED)).body == b""
        await client.response()
    assert app.paths == ["/", "/smuggled"]


# --- What is opaque, and stays so ---


@each_parser
@in_loop
async def test_bytes_above_127_in_a_value_are_kept(http: str) -> None:
    """RFC 9110 section 5.5, obs-text. CVE-2026-44546: NEL (0x85) splits no value in two."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await respond(send, b"")

    value = bytes(range(0x80, 0x100)) + b"\tcookie: admin"
    async with served(app, http=http) as server:
        await server.talk(with_fields(b"x-name: \t " + value + b" \t", b"connection: close"))
    assert seen[1] == (b"x-name", value)
    assert len(seen) == 3


@each_parser
@in_loop
async def test_a_refusal_reaches_a_client_that_is_still_sending(http: str) -> None:
    """A reset would take the answer away (RFC 9112 section 9.6)."""
    async with served(Witness(), http=http) as server:
        client = await server.connect()
        client.writer.write(with_fields(b"content-length: 3 5"))
        client.writer.write(b"x" * 3_000_000)
        assert_refused(await client.rest(), 400)
