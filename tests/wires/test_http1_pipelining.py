"""HTTP/1.x connections: persistence, pipelining, requests in pieces."""

import asyncio
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
    request,
    respond,
    served,
    talk,
)

# --- Persistence (RFC 9112 section 9.3) ---


@each_parser
@in_each_loop
async def test_a_connection_is_kept_for_the_next_request(http: str) -> None:
    async with served(echo, http=http) as server:
        client = await server.connect()
        for number in range(3):
            response = await client.ask(request(f"GET /{number} HTTP/1.1"))
            assert response.body == b"GET /%d? " % number
            assert b"connection" not in response
        assert server.context.registry.connection_count == 1


@pytest.mark.parametrize(
    "fields",
    [
        ["connection: close"],
        ["Connection: Close"],
        ["connection: keep-alive, close"],
        ["connection: close , te"],
        ["connection: te", "connection: close"],
        ["connection: ,close"],
    ],
    ids=", ".join,
)
@in_loop
async def test_close_ends_the_connection_after_the_response(fields: list[str]) -> None:
    data = request("GET /a HTTP/1.1", *fields) + request("GET /b HTTP/1.1", CLOSE)
    assert await talk(echo, data) == echoed(b"GET /a? ", b"connection: close")


@pytest.mark.parametrize("field", ["connection: closed", "connection: te", "x-connection: close", "x: 1"])
@in_loop
async def test_other_connection_options_do_not_close(field: str) -> None:
    data = request("GET /a HTTP/1.1", field) + LAST
    assert await talk(echo, data) == echoed(b"GET /a? ") + LAST_ECHO


@in_loop
async def test_http_1_0_closes_after_the_response() -> None:
    data = request("GET /a HTTP/1.0") + request("GET /b HTTP/1.0")
    assert await talk(echo, data) == echoed(b"GET /a? ", b"connection: close")


@in_loop
async def test_http_1_0_with_keep_alive_is_kept_and_told_so() -> None:
    data = request("GET /a HTTP/1.0", "connection: Keep-Alive") + request("GET /b HTTP/1.0")
    expected = echoed(b"GET /a? ", b"connection: keep-alive") + echoed(b"GET /b? ", b"connection: close")
    assert await talk(echo, data) == expected


@in_loop
async def test_http_1_0_with_keep_alive_and_close_is_closed() -> None:
    data = request("GET /a HTTP/1.0", "connection: keep-alive, close") + request("GET /b HTTP/1.0")
    assert await talk(echo, data) == echoed(b"GET /a? ", b"connection: close")


@in_loop
async def test_the_application_closes_by_its_connection_header() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"", headers=[(b"Connection", b"Close")])

    answer = await talk(app, request() + request())
    assert answer == b"HTTP/1.1 200 OK\r\nConnection: Close\r\ncontent-length: 0\r\n\r\n"


@in_loop
async def test_the_application_can_not_keep_a_connection_that_the_client_closes() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"", headers=[(b"Connection", b"keep-alive")])

    answer = await talk(app, request("GET / HTTP/1.1", CLOSE) + request())
    assert answer == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@in_loop
async def test_keep_alive_time_0_keeps_no_connection() -> None:
    answer = await talk(echo, request("GET /a HTTP/1.1") + LAST, timeout_keep_alive=0)
    assert answer == echoed(b"GET /a? ", b"connection: close")


# --- Pipelining (RFC 9112 section 9.3.2) ---


@each_parser
@in_each_loop
async def test_pipelined_requests_are_answered_in_order(http: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        for _ in range(number % 4):
            await asyncio.sleep(0)
        await echo(scope, receive, send)

    data = expected = b""
    for number in range(300):
        body = b"x" * (1 + number % 50)
        if number % 3 == 0:
            data += request(f"GET /{number} HTTP/1.1")
            expected += echoed(b"GET /%d? " % number)
        elif number % 3 == 1:
            data += request(f"POST /{number} HTTP/1.1", f"content-length: {len(body)}", body=body)
            expected += echoed(b"POST /%d? %b" % (number, body))
        else:
            data += request(f"PUT /{number} HTTP/1.1", "transfer-encoding: chunked", body=chunked(body, b"y"))
            expected += echoed(b"PUT /%d? %by" % (number, body))
    assert await talk(app, data + request("GET /300 HTTP/1.1", CLOSE), http=http) == (
        expected + echoed(b"GET /300? ", b"connection: close")
    )


@in_loop
async def test_a_pipelined_request_begins_when_the_response_before_is_complete() -> None:
    order = []
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        order.append(f"{scope['path']} begins")
        if scope["path"] == "/a":
            await go_on.wait()
        order.append(f"{scope['path']} responds")
        await respond(send, b"")

    async with served(app) as server:
        client = await server.connect()
        await client.write(request("GET /a HTTP/1.1") + request("GET /b HTTP/1.1", CLOSE))
        other = await server.connect()
        await other.ask(request("GET /other HTTP/1.1"))
        assert order == ["/a begins", "/other begins", "/other responds"]
        go_on.set()
        await client.rest()
    assert order[3:] == ["/a responds", "/b begins", "/b responds"]


@in_loop
async def test_many_pipelined_requests_let_other_connections_have_their_turn() -> None:
    served_so_far = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not served_so_far:
            asyncio.get_running_loop().call_soon(lambda: served_so_far.append("others"))
        served_so_far.append(scope["path"])
        await respond(send, b"")

    async with served(app) as server:
        client = await server.connect()
        await client.write(request("GET /many HTTP/1.1") * 1000 + LAST)
        await client.rest()
    assert len(served_so_far) == 1002
    assert served_so_far.index("others") < 500


@in_loop
async def test_pipelined_requests_before_the_clients_end_are_all_answered() -> None:
    async with served(hello, timeout_keep_alive=1000) as server:
        client = await server.connect()
        client.writer.write(request() * 500)
        client.writer.write_eof()
        assert (await client.rest()).count(b"HTTP/1.1 200 OK\r\n") == 500


@in_loop
async def test_a_request_before_the_clients_end_is_answered() -> None:
    async with served(echo) as server:
        client = await server.connect()
        client.writer.write(request("POST /a HTTP/1.1", "content-length: 3", body=b"abc"))
        client.writer.write_eof()
        assert await client.rest() == echoed(b"POST /a? abc")


# --- Every way to cut it ---

REQUESTS = {
    "get": (request("GET /a?b HTTP/1.1", "X-Name:  some value "), echoed(b"GET /a?b ")),
    "length": (
        request("POST /a HTTP/1.1", "Content-Length: 11", body=b"body\r\n\r\nGET"),
        echoed(b"POST /a? body\r\n\r\nGET"),
    ),
    "chunked": (
        request(
            "PUT /a HTTP/1.1", "transfer-encoding: chunked",
            body=b"3;x=\"y\"\r\nabc\r\n0010\r\n0123456789\r\n\r\nab\r\n0\r\nx: y\r\nz: \r\n\r\n",
        ),
        echoed(b"PUT /a? abc0123456789\r\n\r\nab"),
    ),
    "absolute": (request("GET http://y/a?b HTTP/1.1"), echoed(b"GET /a?b ")),
    "empty lines": (b"\r\n\r\n\r\n" + request("GET /a?b HTTP/1.2"), echoed(b"GET /a?b ")),
}  # fmt: skip


@each_parser
@pytest.mark.parametrize("name", REQUESTS)
@in_loop
async def test_a_request_cut_in_two_anywhere(name: str, http: str, reads: Reads) -> None:
    data, expected = REQUESTS[name]
    async with served(echo, http=http) as server:
        client = await server.connect()
        for cut in range(1, len(data)):
            await client.write(data[:cut])
            await reads.until((cut - 1) * len(data) + cut)
            await client.write(data[cut:])
            assert await client.reader.readexactly(len(expected)) == expected
            await reads.until(cut * len(data))
        await client.write(LAST)
        assert await client.rest() == LAST_ECHO


@each_parser
@in_each_loop
async def test_requests_byte_by_byte(http: str, reads: Reads) -> None:
    async with served(echo, http=http) as server:
        client = await server.connect()
        sent = 0
        for data, expected in [*REQUESTS.values(), (LAST, LAST_ECHO)]:
            for i in range(len(data)):
                await client.write(data[i : i + 1])
                sent += 1
                await reads.until(sent)
            assert await client.reader.readexactly(len(expected)) == expected
        assert await client.rest() == b""


@each_parser
@pytest.mark.parametrize("size", [2, 3, 7, 16, 61])
@in_loop
async def test_pipelined_requests_in_pieces(size: int, http: str, reads: Reads) -> None:
    data = b"".join(data for data, _ in REQUESTS.values()) + LAST
    async with served(echo, http=http) as server:
        client = await server.connect()
        for i in range(0, len(data), size):
            await client.write(data[i : i + size])
            await reads.until(min(i + size, len(data)))
        assert await client.rest() == b"".join(expected for _, expected in REQUESTS.values()) + LAST_ECHO


# --- Bytes held behind a running request ---


@in_each_loop
async def test_a_body_that_begins_among_held_requests_is_read_to_its_end() -> None:
    begun, go_on, received = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            begun.set()
            await go_on.wait()
            await respond(send)
            return
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            received.set()
            if not message["more_body"]:
                break
        await respond(send, b"%d" % size)

    async with served(app) as server:
        client = await server.connect()
        await client.write(request("GET /first HTTP/1.1"))
        await begun.wait()
        head = ("POST /second HTTP/1.1", "x: " + "y" * 15000, "content-length: 100000")
        await client.write(request(*head, body=b"z" * 55000))
        go_on.set()
        assert (await client.response()).status == 200
        await received.wait()
        await client.write(b"z" * 45000)
        assert (await client.response()).body == b"100000"


@in_each_loop
async def test_a_client_that_leaves_behind_held_requests_is_noticed() -> None:
    got = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        begun.set()
        got.set_result(await receive())

    async with served(app, limit_request_head=4096, timeout_keep_alive=0.1) as server:
        client = await server.connect()
        await client.write(request("GET /first HTTP/1.1"))
        await begun.wait()
        client.writer.write(b"x" * 20_000)
        client.writer.transport.abort()
        assert await got == {"type": "http.disconnect"}
