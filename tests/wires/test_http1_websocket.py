"""The handshake of WebSockets over HTTP/1.1 (RFC 6455 section 4)."""

import asyncio
from typing import Any

import pytest
from clientframes import BINARY, TEXT, fragments, frame
from websocketapps import accepting
from websocketwire import DEFLATE, WebSocket, close_frame, echo, open_websocket
from wire import (
    ACCEPT,
    KEY,
    OPENING,
    Reads,
    Served,
    each_parser,
    error_records,
    handshake,
    in_each_loop,
    in_loop,
    request,
    respond,
    served,
)

# --- The handshake ---


@in_each_loop
async def test_a_handshake_is_answered_with_101() -> None:
    async with served(echo) as server:
        websocket = await open_websocket(server)
        assert websocket.response.reason == b"Switching Protocols"
        assert websocket.response.headers == [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", ACCEPT),
        ]
        assert await websocket.close() == (1000, "")


@in_each_loop
async def test_an_accept_that_fails_is_a_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is not left waiting on a WebSocket that is neither open nor denied."""

    def fail(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("hashlib.sha1", fail)
    async with served(accepting) as server:
        client = await server.connect()
        assert (await client.ask(handshake())).status == 500
        assert await client.rest() == b""
        assert server.context.registry.exchange_count == 0
    assert len(error_records(caplog)) == 1


@in_loop
async def test_the_answer_has_date_and_server() -> None:
    async with served(echo, date_header=True, server_header=True) as server:
        websocket = await open_websocket(server)
        assert websocket.response[b"server"] == b"fastasgi"
        assert b"date" in websocket.response


@pytest.mark.parametrize(
    ("given", "others"),
    [
        ([(b"Server", b"mine")], {b"date"}),
        ([(b"DATE", b"Sun, 06 Nov 1994 08:49:37 GMT")], {b"server"}),
        ([(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b"server", b"mine")], set()),
    ],
    ids=["server", "date", "both"],
)
@in_loop
async def test_date_and_server_of_the_application_replace_our_own(
    given: list[tuple[bytes, bytes]], others: set[bytes]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": given})

    async with served(app, date_header=True, server_header=True, headers=[("x-own", "1")]) as server:
        response = (await open_websocket(server)).response
    for name, value in given:
        assert response[name.lower()] == value
    for name in (*others, b"x-own"):
        assert response[name]


@pytest.mark.parametrize(
    "fields",
    [
        ("upgrade: WebSocket", "connection: UPGRADE"),
        ("upgrade: h2c, websocket", "connection: keep-alive, Upgrade"),
        ("upgrade: h2c", "upgrade: websocket", "connection: keep-alive", "connection: upgrade"),
        ("Upgrade: websocket", "Connection: Upgrade", "content-length: 0"),
    ],
    ids=str,
)
@each_parser
@in_loop
async def test_forms_of_a_handshake(fields: tuple[str, ...], http: str) -> None:
    async with served(echo, http=http) as server:
        client = await server.connect()
        response = await client.ask(request("GET / HTTP/1.1", *fields, *OPENING[2:]))
        assert response.status == 101
        websocket = WebSocket(client, response)
        await websocket.send("hello")
        assert await websocket.receive() == "hello"


KEY_FIELD, VERSION_FIELD = OPENING[2:]


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ((KEY_FIELD,), 400, "no Sec-WebSocket-Version"),
        ((KEY_FIELD, "sec-websocket-version: 12"), 426, "not 13"),
        ((KEY_FIELD, "sec-websocket-version: 8"), 426, "not 13"),
        ((KEY_FIELD, "sec-websocket-version: 013"), 426, "not 13"),
        ((KEY_FIELD, "sec-websocket-version:"), 426, "not 13"),
        ((KEY_FIELD, VERSION_FIELD, VERSION_FIELD), 426, "not 13"),
        ((VERSION_FIELD,), 400, "Sec-WebSocket-Key"),
        ((KEY_FIELD, KEY_FIELD, VERSION_FIELD), 400, "Sec-WebSocket-Key"),
        (("sec-websocket-key:", VERSION_FIELD), 400, "Sec-WebSocket-Key"),
        (("sec-websocket-key: dGhlIHNhbXBsZSBub25j", VERSION_FIELD), 400, "Sec-WebSocket-Key"),
        (("sec-websocket-key: dGhlIHNhbXBsZSBub25jZWQ=", VERSION_FIELD), 400, "Sec-WebSocket-Key"),
        (("sec-websocket-key: dGhlIHNhbXBsZSBub25j*Q==", VERSION_FIELD), 400, "Sec-WebSocket-Key"),
        (("sec-websocket-key: dGhlIHNhbXBsZSBub25j\xffQ==", VERSION_FIELD), 400, "Sec-WebSocket-Key"),
        ((KEY_FIELD, VERSION_FIELD, "content-length: 2"), 400, "no body"),
        ((KEY_FIELD, VERSION_FIELD, "transfer-encoding: chunked"), 400, "no body"),
        ((KEY_FIELD, VERSION_FIELD, "sec-websocket-extensions: a b"), 400, "Sec-WebSocket-Extensions"),
        ((KEY_FIELD, VERSION_FIELD, "sec-websocket-extensions: \xff"), 400, "Sec-WebSocket-Extensions"),
        ((KEY_FIELD, VERSION_FIELD, f"{DEFLATE}; =1"), 400, "Sec-WebSocket-Extensions"),
        ((KEY_FIELD, VERSION_FIELD, DEFLATE + ", x" * 5000), 431, "Sec-WebSocket-Extensions"),
        ((KEY_FIELD, VERSION_FIELD, *[DEFLATE + ", x" * 400] * 5), 431, "Sec-WebSocket-Extensions"),
        ((KEY_FIELD, VERSION_FIELD, DEFLATE + "; x" * 5000), 431, "Sec-WebSocket-Extensions"),
    ],
)
@in_loop
async def test_a_bad_handshake_is_refused(
    fields: tuple[str, ...], status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the application is not called")

    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(request("GET / HTTP/1.1", *OPENING[:2], *fields) + b"XX")
        assert response.status == status
        assert response[b"connection"] == b"close"
        if status == 426:
            assert response[b"sec-websocket-version"] == b"13"
            assert response[b"upgrade"] == b"websocket"
        assert await client.rest() == b""
        assert server.context.registry.request_count == 0
    [record] = [record for record in caplog.records if "refused" in record.getMessage()]
    assert reason in record.getMessage()
    assert not error_records(caplog)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("GET / HTTP/1.0", OPENING),
        ("POST / HTTP/1.1", OPENING),
        ("GET / HTTP/1.1", ("upgrade: h2c", *OPENING[1:])),
        ("GET / HTTP/1.1", ("upgrade: websockets", *OPENING[1:])),
        ("GET / HTTP/1.1", ("upgrade: websocket", *OPENING[2:])),
        ("GET / HTTP/1.1", ("connection: Upgrade", *OPENING[2:])),
    ],
)
@in_loop
async def test_what_asks_for_no_websocket_is_a_request(line: str, fields: tuple[str, ...]) -> None:
    """RFC 9110 section 7.8: a server may ignore Upgrade, and has to in HTTP/1.0."""
    await serves_a_request(request(line, *fields))


@in_loop
async def test_a_handshake_in_http_1_0_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """As nginx sends it where it is not told otherwise."""
    await serves_a_request(request("GET / HTTP/1.0", "connection: upgrade", "upgrade: h2c"))
    await serves_a_request(request("GET / HTTP/1.0", *OPENING), ws="none")
    assert not caplog.records

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"hello")

    async with served(app) as server:
        for fields in (OPENING, OPENING[:2], OPENING):
            assert (await server.talk(request("GET / HTTP/1.0", *fields))).endswith(b"\r\n\r\nhello")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith("Behind nginx, set proxy_http_version 1.1.")


async def serves_a_request(data: bytes, **settings: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, scope["type"].encode())

    async with served(app, **settings) as server:
        client = await server.connect()
        response = await client.ask(data)
        assert (response.status, response.body) == (200, b"http")


@in_loop
async def test_without_websockets_a_handshake_is_a_request() -> None:
    await serves_a_request(handshake(), ws="none")
    await serves_a_request(request("GET / HTTP/1.1", *OPENING, "content-length: 2", body=b"ab"), ws="none")


@each_parser
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_handshake_and_frames_cut_at_every_byte(http: str, loop: str, reads: Reads) -> None:
    data = (
        handshake() + b"".join(fragments(TEXT, [b"he", b"llo"])) + frame(BINARY, b"x" * 200) + close_frame()
    )

    async def say(server: Served, pieces: list[bytes]) -> None:
        client = await server.connect()
        for piece in pieces:
            total = reads.total + len(piece)
            await client.write(piece)
            await reads.until(total)
        websocket = WebSocket(client, await client.response())
        assert websocket.response.status == 101
        assert await websocket.receive() == "hello"
        assert await websocket.receive() == b"x" * 200
        assert await websocket.closed() == (1000, "")
        client.close()

    @in_each_loop
    async def run() -> None:
        async with served(echo, http=http) as server:
            await say(server, [data])
            await say(server, [data[i : i + 1] for i in range(len(data))])
            for place in range(1, len(data)):
                await say(server, [data[:place], data[place:]])
            await server.context.registry.wait_idle()

    run(loop=loop)


@in_each_loop
async def test_frames_before_the_101() -> None:
    """A client should wait, but what it sends is not lost, however much it is."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    async with served(app) as server:
        client = await server.connect()
        large = bytes(range(256)) * 2000
        await client.write(handshake() + frame(TEXT, b"first"))
        writing = asyncio.create_task(client.write(frame(BINARY, large) + frame(TEXT, b"last")))
        await asyncio.sleep(0.05)
        go_on.set()
        websocket = WebSocket(client, await client.response())
        assert await websocket.receive() == "first"
        assert await websocket.receive() == large
        assert await websocket.receive() == "last"
        await writing
        assert await websocket.close() == (1000, "")


@in_loop
async def test_a_handshake_on_a_connection_that_has_had_a_request() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (respond(send, b"hi") if scope["type"] == "http" else echo(scope, receive, send))

    async with served(app) as server:
        client = await server.connect()
        # Pipelined, too
        await client.write(request() + request() + handshake() + frame(TEXT, b"hello"))
        assert (await client.response()).body == b"hi"
        assert (await client.response()).body == b"hi"
        websocket = WebSocket(client, await client.response())
        assert await websocket.receive() == "hello"
        assert server.context.registry.connection_count == 1


@in_loop
async def test_the_scope_has_the_fields_of_the_handshake() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with served(app) as server:
        assert await (await open_websocket(server, "X-Y: z")).close() == (1000, "")
    assert scopes[0]["headers"] == [
        (b"host", b"x"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-key", KEY.encode()),
        (b"sec-websocket-version", b"13"),
        (b"x-y", b"z"),
    ]


@in_loop
async def test_headers_of_the_application() -> None:
    """Those that make the handshake are the server's."""
    headers = [
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"sec-websocket-accept", b"x"),
        (b"Sec-WebSocket-Extensions", b"x"),
        (b"connection", b"close"),
        (b"upgrade", b"h2c"),
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
    ]
    async with served(accepting(headers=headers)) as server:
        response = await (await server.connect()).shake()
    assert response.headers == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", ACCEPT),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
