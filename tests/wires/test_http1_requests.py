"""HTTP/1.x requests: bodies, responses without one, Expect, targets."""

import asyncio
import contextlib
import random
from typing import Any

import pytest
from wire import (
    CLOSE,
    LAST,
    LAST_ECHO,
    Reads,
    chunked,
    each_parser,
    echo,
    echoed,
    hello,
    in_each_loop,
    in_loop,
    read_body,
    request,
    respond,
    served,
    talk,
)

# --- Bodies (RFC 9112 sections 6 and 7) ---


@each_parser
@pytest.mark.parametrize(
    ("body", "decoded"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"A\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"0003\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"3;name\r\nabc\r\n0;last=yes\r\n\r\n", b"abc"),
        (b"3;name=value;other\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b'3 ; name = "quoted \\" ; value"\r\nabc\r\n0\r\n\r\n', b"abc"),
        (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
        (b"3\r\nabc\r\n0\r\ntrailer: value\r\nhost: y\r\n\r\n", b"abc"),
    ],
    ids=[
        "empty", "one", "two", "upper case size", "lower case size", "leading zeros", "extension",
        "extension with value", "quoted extension", "data that looks like an end", "trailers",
    ],
)  # fmt: skip
@in_loop
async def test_chunked_body(body: bytes, decoded: bytes, http: str) -> None:
    data = request("POST /c HTTP/1.1", "Transfer-Encoding: Chunked", body=body) + LAST
    assert await talk(echo, data, http=http) == echoed(b"POST /c? " + decoded) + LAST_ECHO


@in_loop
async def test_trailers_of_a_request_are_dropped() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen["body"] = await read_body(receive)
        seen["headers"] = list(scope["headers"])
        await respond(send, b"")

    trailers = b"x-forwarded-for: 10.0.0.1\r\ncontent-length: 4\r\ncookie: admin\r\n"
    body = chunked(b"abc", trailers=trailers)
    await talk(app, request("POST / HTTP/1.1", CLOSE, "transfer-encoding: chunked", body=body))
    assert seen["body"] == b"abc"
    assert seen["headers"] == [
        (b"host", b"x"), (b"connection", b"close"), (b"transfer-encoding", b"chunked"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["content-length", "chunked"])
@in_each_loop
async def test_a_large_body_arrives_whole(form: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await read_body(receive) == body
        await respond(send, b"same")

    body = bytes(range(251)) * 20_000
    if form == "chunked":
        pieces = [body[i : i + 70_001] for i in range(0, len(body), 70_001)]
        data = request("POST / HTTP/1.1", "transfer-encoding: chunked", body=chunked(*pieces))
    else:
        data = request("POST / HTTP/1.1", f"content-length: {len(body)}", body=body)
    async with served(app) as server:
        client = await server.connect()
        for _ in range(2):
            assert (await client.ask(data)).body == b"same"


@in_each_loop
async def test_pieces_of_a_body_never_change() -> None:
    """Their memory is used again, but only once the application has let them go."""
    kept: list[tuple[bytes, bytearray, int]] = []
    chance = random.Random(1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        at = 0
        more = True
        while more:
            message = await receive()
            piece, more = message["body"], message["more_body"]
            assert piece == body[at : at + len(piece)]
            # The same bytes in another object have another hash only if one of the two is out of date
            assert hash(piece) == hash(bytes(bytearray(piece)))
            if chance.random() < 0.5:
                kept.append((piece, bytearray(piece), hash(piece)))
            at += len(piece)
        await respond(send, b"%d" % at)

    body = chance.randbytes(12_000_001)
    data = request("POST / HTTP/1.1", f"content-length: {len(body)}", body=body)
    async with served(app) as server:
        clients = [await server.connect() for _ in range(3)]
        for _ in range(3):
            for answer in await asyncio.gather(*(client.ask(data) for client in clients)):
                assert answer.body == b"12000001"
            for piece, copy, digest in kept:
                assert piece == copy
                assert hash(piece) == digest == hash(bytes(copy))


@pytest.mark.parametrize("fields", [(), ("content-length: 0",), ("transfer-encoding: chunked",)], ids=str)
@in_loop
async def test_a_request_without_body_bytes_gives_one_empty_message(fields: tuple[str, ...]) -> None:
    messages = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await respond(send, b"")

    body = chunked() if "transfer-encoding: chunked" in fields else b""
    await talk(app, request("POST / HTTP/1.1", CLOSE, *fields, body=body))
    assert messages == [{"type": "http.request", "body": b"", "more_body": False}]


@in_loop
async def test_a_body_that_comes_in_pieces_gives_messages_that_say_so(reads: Reads) -> None:
    messages = []
    received = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not messages or messages[-1]["more_body"]:
            messages.append(await receive())
            received.set()
        await respond(send, b"")

    async with served(app) as server:
        client = await server.connect()
        for piece in (request("POST / HTTP/1.1", "content-length: 6", body=b"a"), b"bc", b"def"):
            await client.write(piece)
            await received.wait()
            received.clear()
        await client.response()
    assert messages == [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"bc", "more_body": True},
        {"type": "http.request", "body": b"def", "more_body": False},
    ]


@pytest.mark.parametrize("form", ["content-length", "chunked"])
@in_loop
async def test_a_body_that_the_application_leaves_is_skipped(form: str) -> None:
    async with served(hello) as server:
        client = await server.connect()
        body = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
        if form == "chunked":
            data = request("POST / HTTP/1.1", "transfer-encoding: chunked", body=chunked(body, body))
        else:
            data = request("POST / HTTP/1.1", f"content-length: {len(body)}", body=body)
        for _ in range(3):
            assert (await client.ask(data)).body == b"hello"
        await client.write(LAST)
        assert (await client.rest()).count(b"HTTP/1.1 200 OK") == 1
        assert server.context.registry.request_count == 4


@in_loop
async def test_a_long_body_that_the_application_leaves_closes_the_connection() -> None:
    async with served(hello) as server:
        client = await server.connect()
        response = await client.ask(request("POST / HTTP/1.1", "content-length: 100000000", body=b"x"))
        assert response.body == b"hello"
        assert response[b"connection"] == b"close"
        assert await client.rest() == b""


@pytest.mark.parametrize("form", ["content-length", "chunked"])
@in_loop
async def test_the_rest_of_a_long_body_is_skipped(form: str) -> None:
    """Only the rest counts, not what the application has received."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received = 0
        while scope["method"] == "POST" and received < 2_500_000:
            received += len((await receive())["body"])
        await respond(send, b"ok")

    async with served(app) as server:
        client = await server.connect()
        begin, end = b"", b""
        if form == "chunked":
            begin, end = b"%x\r\n" % 3_000_000, b"\r\n0\r\n\r\n"
        field = "transfer-encoding: chunked" if form == "chunked" else "content-length: 3000000"
        response = await client.ask(request("POST / HTTP/1.1", field, body=begin + bytes(2_500_000)))
        assert (response.body, response.headers) == (b"ok", [(b"content-length", b"2")])
        await client.write(bytes(1000))
        other = await server.connect()
        await other.ask(request())
        assert (await client.ask(bytes(499_000) + end + request())).body == b"ok"


@in_loop
async def test_an_endless_body_that_the_application_leaves_is_not_read_for_ever() -> None:
    async with served(hello, timeout_keep_alive=1000) as server:
        client = await server.connect()
        data = request("POST / HTTP/1.1", "transfer-encoding: chunked")
        assert (await client.ask(data)).body == b"hello"
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await client.write(b"100000\r\n" + bytes(2**20) + b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert await client.rest() == b""
        assert server.context.registry.connection_count <= 1
        client.close()
        await server.context.registry.wait_idle()


@in_loop
async def test_a_response_may_precede_the_end_of_the_body() -> None:
    async with served(hello) as server:
        client = await server.connect()
        response = await client.ask(request("POST / HTTP/1.1", "content-length: 6", body=b"abc"))
        assert response.body == b"hello"
        await client.write(b"def" + LAST)
        assert (await client.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


@each_parser
@in_loop
async def test_an_upgrade_request_keeps_its_body(http: str) -> None:
    """CVE-2026-69243 (aiohttp): an Upgrade does not make a body, or what follows it, anything else."""
    upgrade = ("connection: upgrade", "upgrade: websocket")
    smuggled = request("GET /smuggled HTTP/1.1")
    data = request("POST /a HTTP/1.1", *upgrade, f"content-length: {len(smuggled)}", body=smuggled)
    data += request("POST /b HTTP/1.1", *upgrade, "transfer-encoding: chunked", body=chunked(smuggled))
    expected = echoed(b"POST /a? " + smuggled) + echoed(b"POST /b? " + smuggled)
    assert await talk(echo, data + LAST, http=http) == expected + LAST_ECHO


# --- Responses without a body (RFC 9110 sections 6.4.1, 9.3.2, 15.3.5, 15.4.5) ---


@in_loop
async def test_head_gets_the_head_of_a_get() -> None:
    data = request("HEAD /a HTTP/1.1") + LAST
    answer = await talk(hello, data)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert rest == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
    assert b"\r\ntransfer-encoding" not in head


@in_loop
async def test_head_keeps_the_content_length_of_the_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"", headers=[(b"content-length", b"1000")])

    assert await talk(app, request("HEAD / HTTP/1.1", CLOSE)) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n"
    )


@in_loop
async def test_head_of_a_streamed_response_has_no_chunks() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body"})

    async with served(app) as server:
        client = await server.connect()
        for _ in range(2):
            assert (await client.ask(request("HEAD / HTTP/1.1"), method="HEAD")).status == 200
        assert (await client.ask(request())).body == b"abcabcabc"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("more", [False, True], ids=["whole", "streamed"])
@in_loop
async def test_no_body_with_204_and_304(status: int, more: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        if more:
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body", "body": b"abc"})

    answer = await talk(app, request() + request("GET / HTTP/1.1", CLOSE))
    phrase = {204: b"No Content", 304: b"Not Modified"}[status]
    line = b"HTTP/1.1 %d %b\r\n" % (status, phrase)
    assert answer == line + b"\r\n" + line + b"connection: close\r\n\r\n"


@in_loop
async def test_304_keeps_and_204_loses_its_content_length() -> None:
    """RFC 9110 section 8.6: a 304 may say what a 200 would have; a 204 must not."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"", int(scope["path"][1:]), [(b"Content-Length", b"0"), (b"x", b"y")])

    answer = await talk(app, request("GET /304 HTTP/1.1") + request("GET /204 HTTP/1.1", CLOSE))
    assert answer == (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\nx: y\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\nx: y\r\nconnection: close\r\n\r\n"
    )


# --- Expect: 100-continue (RFC 9110 section 10.1.1) ---

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = "expect: 100-continue"


@each_parser
@pytest.mark.parametrize("form", ["content-length: 3", "transfer-encoding: chunked"])
@in_each_loop
async def test_100_is_sent_when_the_application_first_asks_for_the_body(form: str, http: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        # What is sent before shows where in the stream the 100 comes
        await send({"type": "http.response.early_hint", "links": [b"before"]})
        body = await read_body(receive)
        await send({"type": "http.response.early_hint", "links": [b"after"]})
        await respond(send, body)

    async with served(app, http=http) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", form, "Expect: 100-Continue"))
        assert (await client.response())[b"link"] == b"before"
        assert (await client.response()).status == 100
        await client.write(b"abc" if form.startswith("content") else chunked(b"abc"))
        assert (await client.response())[b"link"] == b"after"
        assert (await client.response()).body == b"abc"
        assert (await client.ask(request("POST / HTTP/1.1")))[b"link"] == b"before"


@in_loop
async def test_no_100_where_the_application_does_not_ask() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"no", 417)

    # The client may send the body after all, so the connection is of no more use
    answer = await talk(app, request("POST / HTTP/1.1", EXPECT, "content-length: 3"))
    assert answer == (b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")


@in_loop
async def test_no_100_where_the_body_has_already_begun() -> None:
    data = request("POST /a HTTP/1.1", EXPECT, "content-length: 3", body=b"abc")
    assert await talk(echo, data + LAST) == echoed(b"POST /a? abc") + LAST_ECHO


@in_loop
async def test_no_100_without_a_body() -> None:
    data = request("POST /a HTTP/1.1", EXPECT, "content-length: 0") + request("GET /b HTTP/1.1", EXPECT)
    assert await talk(echo, data + LAST) == echoed(b"POST /a? ") + echoed(b"GET /b? ") + LAST_ECHO


@in_loop
async def test_no_100_for_http_1_0(reads: Reads) -> None:
    async with served(echo) as server:
        client = await server.connect()
        head = request("POST /a HTTP/1.0", EXPECT, "content-length: 3")
        await client.write(head)
        await reads.until(len(head))
        await client.write(b"abc")
        assert await client.rest() == echoed(b"POST /a? abc", b"connection: close")


@in_loop
async def test_no_100_once_the_response_has_begun() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"early", "more_body": True})
        body = await read_body(receive)
        await send({"type": "http.response.body", "body": body})

    async with served(app) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", EXPECT, "content-length: 3"))
        await client.reader.readuntil(b"5\r\nearly\r\n")
        await client.write(b"abc")
        assert await client.reader.readexactly(13) == b"3\r\nabc\r\n0\r\n\r\n"


@in_loop
async def test_100_is_sent_once_for_concurrent_calls() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls = [asyncio.ensure_future(receive()) for _ in range(3)]
        done, others = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in others:
            call.cancel()
        await respond(send, done.pop().result()["body"])

    async with served(app) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", EXPECT, CLOSE, "content-length: 3"))
        assert await client.reader.readexactly(len(CONTINUE)) == CONTINUE
        await client.write(b"abc")
        assert await client.rest() == (
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
        )


# --- Targets and methods (RFC 9112 section 3.2) ---


async def show(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what the request line and Host became."""
    hosts = [value.decode() for name, value in scope["headers"] if name == b"host"]
    parts = [scope["method"], scope["path"], scope["raw_path"].decode(), scope["query_string"].decode()]
    await respond(send, " ".join([*parts, *hosts]).encode())


@each_parser
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("GET / HTTP/1.1", b"GET / /  x"),
        ("GET /a?b=c?d HTTP/1.1", b"GET /a /a b=c?d x"),
        ("GET /? HTTP/1.1", b"GET / /  x"),
        ("GET //a//b HTTP/1.1", b"GET //a//b //a//b  x"),
        ("GET /a%20b HTTP/1.1", b"GET /a b /a%20b  x"),
        ("GET http://other/a?b HTTP/1.1", b"GET /a /a b other"),
        ("GET HTTP://other:81 HTTP/1.1", b"GET / /  other:81"),
        ("GET http://other?b HTTP/1.1", b"GET / / b other"),
        ("GET https://other/a HTTP/1.1", b"GET /a /a  other"),
        ("GET http://[::1]:81/a HTTP/1.1", b"GET /a /a  [::1]:81"),
        ("OPTIONS * HTTP/1.1", b"OPTIONS * *  x"),
        ("OPTIONS http://other HTTP/1.1", b"OPTIONS * *  other"),
        ("OPTIONS http://other/ HTTP/1.1", b"OPTIONS / /  other"),
        ("M-SEARCH / HTTP/1.1", b"M-SEARCH / /  x"),
        ("GET /a HTTP/1.0", b"GET /a /a  x"),
    ],
)
@in_loop
async def test_request_line(line: str, shown: bytes, http: str) -> None:
    answer = await talk(show, request(line, CLOSE), http=http)
    assert answer.partition(b"\r\n\r\n")[2] == shown


@pytest.mark.parametrize("method", ["get", "X", "!#$%&'*+-.^_`|~", "M" * 1000])
@in_loop
async def test_any_token_is_a_method(method: str) -> None:
    """Of llhttp only its own list of names is."""
    answer = await talk(show, request(f"{method} / HTTP/1.1", CLOSE))
    assert answer.partition(b"\r\n\r\n")[2] == f"{method} / /  x".encode()


@each_parser
@in_loop
async def test_http_1_0_needs_no_host(http: str) -> None:
    data = b"GET /a HTTP/1.0\r\n\r\n"
    assert (await talk(show, data, http=http)).endswith(b"\r\n\r\nGET /a /a ")


@each_parser
@pytest.mark.parametrize("count", [1, 2, 1000])
@in_loop
async def test_empty_lines_before_requests_are_skipped(count: int, http: str) -> None:
    """RFC 9112 section 2.2."""
    blank = b"\r\n" * count
    post = request("POST /a HTTP/1.1", "content-length: 1", body=b"b")
    data = blank + post + blank + post + blank + LAST
    assert await talk(echo, data, http=http) == 2 * echoed(b"POST /a? b") + LAST_ECHO


@each_parser
@in_loop
async def test_each_request_has_its_own_empty_lines(http: str) -> None:
    """They count as a part of its head, and so of no later one."""
    data = b"\r\n" * 30 + request()
    async with served(echo, http=http, limit_request_head=100) as server:
        client = await server.connect()
        for _ in range(3):
            assert (await client.ask(data)).body == b"GET /? "


@each_parser
@pytest.mark.parametrize("line", ["GET /a HTTP/1.2", "GET http://y/a HTTP/1.9"])
@in_loop
async def test_a_later_minor_version_is_answered_as_http_1_1(line: str, http: str) -> None:
    """RFC 9110 section 2.5."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, scope["http_version"].encode())

    async with served(app, http=http) as server:
        client = await server.connect()
        for _ in range(2):
            response = await client.ask(request(line))
            assert (response.version, response.body) == (b"HTTP/1.1", b"1.1")
            assert b"connection" not in response
