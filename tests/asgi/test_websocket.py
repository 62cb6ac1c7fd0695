"""WebSockets over HTTP/1.1 (RFC 6455, ASGI WebSocket specification 2.5): from the handshake to the close."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clientframes import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, fragments, frame
from websocketwire import (
    ACCEPT,
    DEFLATE,
    KEY,
    OPENING,
    WebSocket,
    accept,
    close_frame,
    echo,
    handshake,
    move_clock,
    open_websocket,
)
from wire import (
    Reads,
    Served,
    each_parser,
    error_records,
    in_each_loop,
    in_loop,
    request,
    respond,
    served,
    traceback_of,
)

CONNECT = {"type": "websocket.connect"}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}


def disconnected(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


class Recorder:
    """An application that accepts and keeps all that it receives, up to the disconnect."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.done = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while not self.messages or self.messages[-1]["type"] != "websocket.disconnect":
            self.messages.append(await receive())
        self.done.set()


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


# --- What the application accepts ---


async def handshake_with(app: Any, *fields: str) -> Any:
    async with served(app) as server:
        client = await server.connect()
        return await client.ask(handshake(*fields))


def accepting(**values: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send, **values)

    return app


@in_loop
async def test_subprotocols_are_offered_in_order_and_one_is_accepted() -> None:
    offered = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered.append(scope["subprotocols"])
        await accept(receive, send, subprotocol="soap")

    fields = ("sec-websocket-protocol: chat.v2 ,\tsoap,,", "sec-websocket-protocol: wamp")
    response = await handshake_with(app, *fields)
    assert response[b"sec-websocket-protocol"] == b"soap"
    assert offered == [["chat.v2", "soap", "wamp"]]


@in_loop
async def test_a_subprotocol_that_is_not_ascii_comes_back_as_it_came() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send, subprotocol=scope["subprotocols"][0])

    response = await handshake_with(app, "sec-websocket-protocol: caf\xe9\xff")
    assert response[b"sec-websocket-protocol"] == b"caf\xe9\xff"


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
    response = await handshake_with(accepting(headers=headers))
    assert response.headers == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", ACCEPT),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"subprotocol": "a\r\nset-cookie: evil=1"},
        {"subprotocol": "a\nb"},
        {"subprotocol": "żółw"},
        {"subprotocol": "\ud800"},
        {"subprotocol": 7},
        {"headers": [(b"x", b"a\r\nset-cookie: evil=1")]},
        {"headers": [(b"x\r\ny", b"a")]},
        {"headers": [(b"", b"a")]},
        {"headers": [("x", "y")]},
        {"headers": [(b"sec-websocket-protocol", b"a")]},
    ],
    ids=ascii,
)
@in_loop
async def test_what_may_not_stand_in_a_head_is_the_applications_error(
    values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    response = await handshake_with(accepting(**values))
    assert (response.status, response.body) == (500, b"Internal Server Error")
    assert b"evil" not in repr(response).encode()
    assert isinstance(traceback_of(caplog), (ValueError, TypeError, AttributeError))


@in_loop
async def test_an_application_may_accept_after_an_error_of_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            await send({"type": "websocket.accept", "subprotocol": "a\r\nb"})
        await echo(scope, receive, send)

    async with served(app) as server:
        websocket = await open_websocket(server)
        await websocket.send("hello")
        assert await websocket.receive() == "hello"


# --- The scope ---


async def scope_of(*fields: str, target: str = "/", **settings: Any) -> tuple[dict[str, Any], Any, Served]:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with served(app, **settings) as server:
        websocket = await open_websocket(server, *fields, target=target)
        client = websocket.client.writer.get_extra_info("sockname")
        await websocket.close()
    return scopes[0], client, server


@in_each_loop
async def test_the_scope_is_complete() -> None:
    scope, client, server = await scope_of("X-Y: z", target="/caf%C3%A9/a%2Fb?x=%20&y")
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/café/a/b",
        "raw_path": b"/caf%C3%A9/a%2Fb",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [
            (b"host", b"x"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-key", KEY.encode()),
            (b"sec-websocket-version", b"13"),
            (b"x-y", b"z"),
        ],
        "client": client[:2],
        "server": ("127.0.0.1", server.port),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


@in_loop
async def test_the_scope_has_the_root_path() -> None:
    scope, _, _ = await scope_of(target="/a", root_path="/api")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/a", b"/api/a")


@in_loop
async def test_each_scope_has_a_copy_of_the_lifespan_state() -> None:
    shared: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["shared"] = shared
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        assert scope["state"] == {"shared": shared}
        scope["state"]["shared"].append(1)
        scope["state"]["own"] = 1
        await echo(scope, receive, send)

    async with served(app, lifespan="on") as server:
        for _ in range(2):
            assert await (await open_websocket(server)).close() == (1000, "")
    assert shared == [1, 1]


@in_loop
async def test_the_scope_on_a_unix_socket(tmp_path: Path) -> None:
    scope, _, server = await scope_of(uds=str(tmp_path / "s"))
    assert (scope["client"], scope["server"]) == (None, (server.server.config.uds, None))


# --- Messages ---


@pytest.mark.parametrize(
    "message",
    ["", "hello", "żółw 🐢\0", "x" * 125, "x" * 126, "y" * 70000, "ż" * 20000, b"", b"\0\xff", bytes(2**20)],
    ids=lambda message: f"{type(message).__name__} {len(message)}",
)
@in_each_loop
async def test_a_message_comes_and_goes(message: str | bytes) -> None:
    """With the key of its kind and no other."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        received.append(await receive())
        await send({**received[0], "type": "websocket.send"})

    async with served(app) as server:
        websocket = await open_websocket(server)
        await websocket.send(message)
        assert await websocket.receive() == message
        assert await websocket.closing() == (1000, "")
    key = "text" if isinstance(message, str) else "bytes"
    assert received == [{"type": "websocket.receive", key: message}]


class Safe(str):
    """As template engines mark a text."""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"text": "a", "bytes": None}, "a"),
        ({"text": None, "bytes": b"a"}, b"a"),
        ({"bytes": bytearray(b"a")}, b"a"),
        ({"bytes": memoryview(b"abc")[::2]}, b"ac"),
        ({"text": Safe("<b>ż</b>")}, "<b>ż</b>"),
        ({"text": Safe("x" * 20000)}, "x" * 20000),
    ],
    ids=["text", "bytes", "bytearray", "memoryview", "subclass of str", "large subclass of str"],
)
@in_loop
async def test_forms_of_a_message_to_send(message: dict[str, Any], expected: str | bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", **message})

    async with served(app) as server:
        assert await (await open_websocket(server)).receive() == expected


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({}, TypeError),
        ({"text": None, "bytes": None}, TypeError),
        ({"text": b"a"}, TypeError),
        ({"bytes": "a"}, TypeError),
        ({"bytes": 5}, TypeError),
        ({"text": "\ud800"}, UnicodeEncodeError),
    ],
    ids=str,
)
@in_loop
async def test_a_message_that_can_not_be_sent_raises_and_harms_nothing(
    message: dict[str, Any], error: type[Exception]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        with pytest.raises(error):
            await send({"type": "websocket.send", **message})
        await send(text("after"))

    async with served(app) as server:
        websocket = await open_websocket(server)
        assert await websocket.receive() == "after"
        assert await websocket.close() == (1000, "")


@in_loop
async def test_connect_is_received_first_and_once() -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        received.extend([await receive() for _ in range(3)])

    async with served(app) as server:
        websocket = await open_websocket(server, behind=frame(TEXT, b"a"))
        await websocket.close(3000, b"bye")
        await server.context.registry.wait_idle()
    assert received == [CONNECT, {"type": "websocket.receive", "text": "a"}, disconnected(3000, "bye")]


@in_each_loop
async def test_control_frames_between_fragments() -> None:
    async with served(echo) as server:
        websocket = await open_websocket(server)
        first, second = fragments(TEXT, [b"he", b"llo"])
        await websocket.write(first, frame(PING, b"a"), frame(PONG, b"b"), second)
        assert await websocket.next(PONG) == b"a"
        assert await websocket.receive() == "hello"
        assert await websocket.ping(b"x" * 125) == b"x" * 125


# --- The order of messages ---

ACCEPT_MESSAGE = {"type": "websocket.accept"}
CLOSE_MESSAGE = {"type": "websocket.close"}
START_MESSAGE = {"type": "websocket.http.response.start", "status": 401, "headers": []}
BODY_MESSAGE = {"type": "websocket.http.response.body", "body": b"no"}


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ([], text("a")),
        ([], BODY_MESSAGE),
        ([], {"type": "http.response.start", "status": 200}),
        ([], {"type": "nonsense"}),
        ([ACCEPT_MESSAGE], ACCEPT_MESSAGE),
        ([ACCEPT_MESSAGE], START_MESSAGE),
        ([ACCEPT_MESSAGE], BODY_MESSAGE),
        ([START_MESSAGE], ACCEPT_MESSAGE),
        ([START_MESSAGE], START_MESSAGE),
        ([START_MESSAGE], CLOSE_MESSAGE),
        ([START_MESSAGE, BODY_MESSAGE], BODY_MESSAGE),
        ([START_MESSAGE, BODY_MESSAGE], CLOSE_MESSAGE),
        ([CLOSE_MESSAGE], ACCEPT_MESSAGE),
        ([CLOSE_MESSAGE], CLOSE_MESSAGE),
        ([ACCEPT_MESSAGE, CLOSE_MESSAGE], text("a")),
        ([ACCEPT_MESSAGE, CLOSE_MESSAGE], CLOSE_MESSAGE),
    ],
)
@in_loop
async def test_a_message_out_of_order_raises(before: list[dict[str, Any]], wrong: dict[str, Any]) -> None:
    passed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == CONNECT
        for message in before:
            await send(message)
        with pytest.raises(RuntimeError, match=wrong["type"]) as caught:
            await send(wrong)
        assert not isinstance(caught.value, OSError)
        passed.set()

    async with served(app) as server:
        client = await server.connect()
        await client.write(handshake())
        await client.response()
        await passed.wait()


@pytest.mark.parametrize("message", [{}, {"type": None}, {"type": 7}], ids=str)
@in_loop
async def test_a_message_without_a_type_raises(message: dict[str, Any]) -> None:
    passed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises((KeyError, RuntimeError)):
            await send(message)
        passed.set()
        await echo(scope, receive, send)

    async with served(app) as server:
        assert await (await open_websocket(server)).close() == (1000, "")
    assert passed.is_set()


# --- Closing ---


@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [
        (None, b"", (1005, "")),
        (1000, b"", (1000, "")),
        (1001, b"going", (1001, "going")),
        (3000, "żółw".encode(), (3000, "żółw")),
        (4999, b"x" * 123, (4999, "x" * 123)),
    ],
)
@in_each_loop
async def test_the_client_closes(code: int | None, reason: bytes, seen: tuple[int, str]) -> None:
    """The server answers with the code, and the application gets code and reason."""
    app = Recorder()
    async with served(app) as server:
        websocket = await open_websocket(server)
        assert await websocket.close(code, reason) == (seen[0], "")
        await app.done.wait()
        await server.context.registry.wait_idle()
    assert app.messages == [disconnected(*seen)]


@in_loop
async def test_messages_before_the_clients_close_are_received_before_the_disconnect() -> None:
    app = Recorder()
    async with served(app) as server:
        websocket = await open_websocket(server)
        await websocket.write(*[frame(TEXT, b"%d" % i) for i in range(20)], close_frame(1001))
        assert await websocket.closed() == (1001, "")
        await app.done.wait()
    assert [message.get("text") for message in app.messages[:-1]] == [str(i) for i in range(20)]
    assert app.messages[-1] == disconnected(1001)


@in_loop
async def test_disconnect_is_received_again_and_again() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        seen.extend([await receive() for _ in range(3)])

    async with served(app) as server:
        await (await open_websocket(server)).close(1001)
        await server.context.registry.wait_idle()
    assert seen == [disconnected(1001)] * 3


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, (1000, "")),
        ({"code": None, "reason": None}, (1000, "")),
        ({"code": 1001}, (1001, "")),
        ({"code": 3456, "reason": "żółw"}, (3456, "żółw")),
        ({"code": 1000, "reason": "x" * 123}, (1000, "x" * 123)),
        ({"code": 1000, "reason": "x" * 200}, (1000, "x" * 123)),
        ({"code": 1000, "reason": "x" * 122 + "ż"}, (1000, "x" * 122)),
        ({"code": 1000, "reason": "a\ud800b"}, (1000, "a?b")),
        ({"code": 1005}, (1005, "")),
    ],
    ids=lambda value: ascii(value)[:40],
)
@in_loop
async def test_the_application_closes(message: dict[str, Any], expected: tuple[int, str]) -> None:
    """It receives its own code, and the client's answer ends the connection."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", **message})
        received.append(await receive())

    async with served(app) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == expected
        await websocket.write(close_frame(expected[0] if expected[0] != 1005 else None))
        assert await websocket.client.rest() == b""
        await server.context.registry.wait_idle()
    assert [received[0]["type"], received[0]["code"]] == ["websocket.disconnect", expected[0]]


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, -1, 2**16 + 1000, 2**40, "1000", 1000.0]
)
@in_loop
async def test_a_code_that_may_not_be_sent_is_the_applications_error(
    code: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": code})

    async with served(app) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == (1011, "")
        assert isinstance(traceback_of(caplog), (ValueError, TypeError, OverflowError))


@in_each_loop
async def test_both_close_at_once() -> None:
    """The server sends one Close frame, and takes the client's for an answer."""
    app_closed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        assert await receive() == {"type": "websocket.receive", "text": "close"}
        await send({"type": "websocket.close", "code": 3001})
        app_closed.set()

    async with served(app) as server:
        websocket = await open_websocket(server)
        await websocket.write(frame(TEXT, b"close"), close_frame(3002))
        assert await websocket.closed() == (3001, "")
        assert app_closed.is_set()
        await server.context.registry.wait_idle()


@in_each_loop
async def test_what_comes_after_the_servers_close_is_thrown_away() -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 1000})
        received.append(await receive())

    async with served(app) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == (1000, "")
        await websocket.write(*[frame(BINARY, bytes(1000)), frame(PING, b"x")] * 1000, close_frame())
        assert await websocket.client.rest() == b""
        await server.context.registry.wait_idle()
    assert received == [disconnected(1000)]


@in_each_loop
async def test_a_client_that_does_not_answer_the_close_is_cut_off() -> None:
    async with served(accepting()) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == (1000, "")
        await move_clock(server, 9.0)
        assert server.context.registry.connection_count == 1
        await move_clock(server, 13.0)
        assert await websocket.client.rest() == b""
        await server.context.registry.wait_idle()


@in_each_loop
async def test_a_client_that_does_not_end_its_connection_is_cut_off() -> None:
    """After a failure the server's half is ended, and the client has a moment to see it."""
    async with served(echo) as server:
        websocket = await open_websocket(server)
        await websocket.write(frame(3))
        assert await websocket.closed() == (1002, "3 is no opcode")
        assert server.context.registry.connection_count == 1
        await move_clock(server, 5.0)
        await server.context.registry.wait_idle()


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("state", ["connecting", "open", "denying", "closing"])
@in_each_loop
async def test_the_client_is_lost(how: str, state: str, caplog: pytest.LogCaptureFixture) -> None:
    """`receive` gives the disconnect, 1006 but where the application has closed; `send` raises OSError."""
    received = []
    reached = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == CONNECT
        if state in ("open", "closing"):
            await send(ACCEPT_MESSAGE)
        if state == "denying":
            await send(START_MESSAGE)
            await send({**BODY_MESSAGE, "more_body": True})
        if state == "closing":
            await send({**CLOSE_MESSAGE, "code": 3000})
        reached.set()
        received.append(await receive())
        message = {"connecting": ACCEPT_MESSAGE, "denying": BODY_MESSAGE}.get(state, text("late"))
        with pytest.raises(RuntimeError if state == "closing" else OSError):
            await send(message)
        received.append(await receive())
        if state != "closing":
            await send(message)  # Raises: nothing to log

    async with served(app) as server:
        client = await server.connect()
        await client.write(handshake())
        await reached.wait()
        if how == "reset":
            client.reset()
        else:
            client.close()
        await server.context.registry.wait_idle()
    assert received == [disconnected(3000 if state == "closing" else 1006)] * 2
    assert not error_records(caplog)


@in_loop
async def test_closing_after_the_client_is_no_error() -> None:
    """An application can't know in time; there is nothing left that it could lose."""
    passed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        assert (await receive())["type"] == "websocket.disconnect"
        await send(CLOSE_MESSAGE)
        passed.set()

    async with served(app) as server:
        await (await open_websocket(server)).close()
        await passed.wait()


@in_loop
async def test_a_message_to_a_client_that_has_closed_raises_before_its_messages_are_received() -> None:
    raised = []
    came = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await came.wait()
        try:
            await send(text("late"))
        except OSError as error:
            raised.append(error)
        assert (await receive())["text"] == "hello"
        assert await receive() == disconnected(1000)

    async with served(app) as server:
        websocket = await open_websocket(server)
        await websocket.send("hello")
        assert await websocket.close() == (1000, "")
        came.set()
        await server.context.registry.wait_idle()
    assert len(raised) == 1


# --- Violations ---


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(TEXT, b"a", key=None), 1002),
        (frame(TEXT, b"a", rsv=0x40), 1002),
        (frame(TEXT, b"a", rsv=0x20), 1002),
        (frame(11), 1002),
        (frame(CONTINUATION, b"a"), 1002),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
        (frame(PING, b"a", fin=False), 1002),
        (frame(PING, b"a" * 126), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, (1006).to_bytes(2, "big")), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xff", fin=False), 1007),
        (frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff"), 1007),
        (frame(BINARY, b"", length=101), 1009),
        (b"".join(fragments(BINARY, [bytes(60), bytes(60)])), 1009),
    ],
)
@in_each_loop
async def test_a_violation_fails_the_websocket(
    bad: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What came before it counts, what comes behind it does not."""
    app = Recorder()
    async with served(app, ws_max_size=100) as server:
        websocket = await open_websocket(server)
        await websocket.write(frame(TEXT, b"before"), bad, frame(TEXT, b"behind"))
        seen, reason = await websocket.closed()
        assert (seen, bool(reason)) == (code, True)
        await app.done.wait()
        websocket.client.close()
        await server.context.registry.wait_idle()
    assert app.messages == [{"type": "websocket.receive", "text": "before"}, disconnected(code, reason)]
    assert not error_records(caplog)


@in_loop
async def test_a_message_of_the_greatest_size_is_taken() -> None:
    async with served(echo, ws_max_size=100) as server:
        websocket = await open_websocket(server)
        await websocket.send(bytes(100))
        assert await websocket.receive() == bytes(100)
        await websocket.send(bytes(101))
        assert (await websocket.closed())[0] == 1009


@in_loop
async def test_a_violation_after_the_servers_close_ends_the_connection() -> None:
    async with served(accepting()) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == (1000, "")
        await websocket.write(frame(3))
        assert await websocket.client.rest() == b""


# --- Denial ---


@in_each_loop
async def test_a_close_before_the_accept_is_a_403() -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        await send({"type": "websocket.close", "code": 3000, "reason": "no"})
        received.append(await receive())

    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(handshake())
        assert (response.status, response.body) == (403, b"Forbidden")
        assert await client.rest() == b""
        await server.context.registry.wait_idle()
    assert received == [CONNECT, disconnected(1006)]


@in_each_loop
async def test_a_denial_response() -> None:
    """A response as any other: the connection is kept for a better try."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/in":
            return await echo(scope, receive, send)
        received.append(await receive())
        headers = [(b"www-authenticate", b"Basic"), (b"x", b"1"), (b"x", b"2")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"go ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"away"})
        received.append(await receive())
        return None

    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(handshake())
        assert (response.status, response.body) == (401, b"go away")
        assert response[b"www-authenticate"] == b"Basic"
        assert [value for name, value in response.headers if name == b"x"] == [b"1", b"2"]
        assert (await client.ask(handshake(target="/in"))).status == 101
    assert received == [CONNECT, disconnected(1006)]


@in_loop
async def test_forms_of_a_denial() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": int(scope["path"][1:])})
        await send({"type": "websocket.http.response.body"})

    async with served(app) as server:
        client = await server.connect()
        for status in (200, 204, 302, 404, 599):
            response = await client.ask(handshake(target=f"/{status}"))
            assert (response.status, response.body) == (status, b"")


@pytest.mark.parametrize(
    "messages",
    [
        [{**START_MESSAGE, "status": 101}],
        [{**START_MESSAGE, "status": "401"}],
        [{**START_MESSAGE, "status": 401.0}],
        [{**START_MESSAGE, "headers": [(b"x", b"\r\nevil: 1")]}],
        [START_MESSAGE, {**BODY_MESSAGE, "body": "no"}],
        [START_MESSAGE, {**BODY_MESSAGE, "body": 5}],
        [START_MESSAGE, {**BODY_MESSAGE, "body": None}],
        [{**START_MESSAGE, "headers": [(b"content-length", b"5")]}, BODY_MESSAGE],
        [START_MESSAGE],
        [],
    ],
    ids=lambda messages: str(messages[-1:])[:70],
)
@in_loop
async def test_a_wrong_denial_is_a_500(
    messages: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(handshake())
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert b"evil" not in response
        assert await client.rest() == b""
    assert len(error_records(caplog)) == 1


# --- The end of the call ---


@pytest.mark.parametrize("ending", ["return", "raise", "exit", "cancel"])
@pytest.mark.parametrize("state", ["connecting", "held", "denying", "denied", "open", "closed"])
@in_each_loop
async def test_the_call_ends_in_each_state(ending: str, state: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged once; a return is one where the handshake has no answer."""
    messages: dict[str, list[dict[str, Any]]] = {
        "connecting": [],
        "held": [START_MESSAGE],
        "denying": [START_MESSAGE, {**BODY_MESSAGE, "more_body": True}],
        "denied": [START_MESSAGE, BODY_MESSAGE],
        "open": [ACCEPT_MESSAGE],
        "closed": [ACCEPT_MESSAGE, {**CLOSE_MESSAGE, "code": 3000}],
    }
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages[state]:
            await send(message)
        kept.append(receive)
        if ending == "raise":
            raise ValueError("mine")
        if ending == "exit":
            raise SystemExit(3)
        if ending == "cancel":
            raise asyncio.CancelledError

    async with served(app) as server:
        client = await server.connect()
        await client.write(handshake())
        if state == "denying":
            assert (await client._head()).status == 401
            assert await client.rest() == b"2\r\nno\r\n"
        else:
            response = await client.response()
            status = {"connecting": 500, "held": 500, "denied": 401}.get(state, 101)
            assert response.status == status
            if status == 101:
                code = 3000 if state == "closed" else 1000 if ending == "return" else 1011
                assert await WebSocket(client, response).closing() == (code, "")
        # Who waits in another task is let go
        assert (await kept[0]())["type"] == "websocket.disconnect"
        client.close()
        await server.context.registry.wait_idle()
        assert server.context.registry.exchange_count == 0
    # A cancellation is no error once the WebSocket is over
    failed = ending in ("raise", "exit") or (ending == "cancel" and state not in ("denied", "closed"))
    is_error = failed or state in ("connecting", "held", "denying")
    assert len(error_records(caplog)) == is_error


@in_loop
async def test_a_callable_that_raises_before_it_is_a_coroutine(caplog: pytest.LogCaptureFixture) -> None:
    def app(scope: Any, receive: Any, send: Any) -> Any:
        raise ValueError("mine")

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(handshake())).status == 500
    assert str(traceback_of(caplog)) == "mine"


# --- Tasks of an application ---


@in_each_loop
async def test_concurrent_sends_keep_the_boundaries_of_messages() -> None:
    sizes = [0, 1, 125, 126, 1000, 20000, 70000, 200000]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)

        async def speak(number: int) -> None:
            for size in sizes:
                await send({"type": "websocket.send", "bytes": bytes([number]) * size})

        await asyncio.gather(*[speak(number) for number in range(10)])

    async with served(app) as server:
        websocket = await open_websocket(server)
        received: dict[int, list[int]] = {number: [] for number in range(10)}
        empty = 0
        for _ in range(len(sizes) * 10):
            message = await websocket.receive()
            assert isinstance(message, bytes)
            if message:
                assert set(message) == {message[0]}
                received[message[0]].append(len(message))
            else:
                empty += 1
        assert await websocket.closing() == (1000, "")
    assert empty == 10
    assert all(lengths == sizes[1:] for lengths in received.values())


async def wait_for(receive: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receive(), 0.001)


async def cancel_at_once(receive: Any) -> None:
    task = asyncio.ensure_future(receive())
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def cancel_later(receive: Any) -> None:
    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def gathered(receive: Any) -> None:
    both = asyncio.gather(receive(), receive())
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both


async def scoped(receive: Any) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await receive()


@pytest.mark.parametrize("give_up", [wait_for, cancel_at_once, cancel_later, gathered, scoped])
@in_each_loop
async def test_a_cancelled_receive_loses_no_message(give_up: Callable[[Any], Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        for _ in range(3):
            await give_up(receive)
            await send(text("given up"))
            message = await receive()
            await send(text(message["text"]))

    async with served(app) as server:
        websocket = await open_websocket(server)
        for number in range(3):
            assert await websocket.receive() == "given up"
            await websocket.send(f"{number}")
            assert await websocket.receive() == f"{number}"
        assert await websocket.closing() == (1000, "")


@in_each_loop
async def test_a_receive_that_is_cancelled_as_its_message_comes_loses_none() -> None:
    """The waiter is woken and cancelled in one turn of the loop."""
    received = []
    total = 200

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while len(received) < total:
            task = asyncio.create_task(receive())
            done, _ = await asyncio.wait([task], timeout=0)
            if done:
                received.append(task.result()["text"])
                continue
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                received.append((await task)["text"])

    async with served(app) as server:
        websocket = await open_websocket(server)
        for number in range(total):
            await websocket.send(str(number))
            if number % 5 == 0:
                await asyncio.sleep(0)
        assert await websocket.closing() == (1000, "")
    assert received == [str(number) for number in range(total)]


@in_each_loop
async def test_several_receivers_share_the_messages() -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)

        async def take() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                received.append(message["text"])

        await asyncio.gather(*[take() for _ in range(5)])

    async with served(app) as server:
        websocket = await open_websocket(server)
        await websocket.write(*[frame(TEXT, b"%d" % i) for i in range(100)])
        await websocket.close()
        await server.context.registry.wait_idle()
    assert sorted(received, key=int) == [str(i) for i in range(100)]


# --- Logs and limits ---


@in_loop
async def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn's; what the application does with its scope changes nothing in them."""
    caplog.set_level(logging.INFO)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["path"] = scope["raw_path"] = scope["client"] = None
        if scope["query_string"] == b"deny":
            await send(START_MESSAGE)
            await send(BODY_MESSAGE)
        elif scope["query_string"] == b"close":
            await send(CLOSE_MESSAGE)
        elif scope["query_string"] == b"raise":
            raise ValueError
        elif scope["query_string"] == b"half":
            await send(START_MESSAGE)
        else:
            await send(ACCEPT_MESSAGE)

    lines = []
    async with served(app, access_log=True) as server:
        for target, answer in (
            ("/a%20b?x='", "[accepted]"),
            ("/?deny", "401"),
            ("/?close", "403"),
            ("/?raise", "500"),
            ("/?half", "500"),
        ):
            client = await server.connect()
            response = await client.ask(handshake(target=target))
            assert response.status == (101 if answer == "[accepted]" else int(answer))
            port = client.writer.get_extra_info("sockname")[1]
            lines.append(f'127.0.0.1:{port} - "WebSocket {target}" {answer}')
    assert [record.getMessage() for record in caplog.records if "WebSocket /" in record.getMessage()] == lines


@in_loop
async def test_without_an_access_log_there_are_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with served(echo) as server:
        await (await open_websocket(server)).close()
    assert not [record for record in caplog.records if "WebSocket" in record.getMessage()]


async def until_running(server: Served, count: int) -> None:
    """Return when so many calls of the application run."""
    while server.context.registry.exchange_count != count:
        await asyncio.sleep(0.001)


@in_each_loop
async def test_an_open_websocket_counts_for_limit_concurrency() -> None:
    async with served(echo, limit_concurrency=2) as server:
        opened = [await open_websocket(server) for _ in range(2)]
        for sent in (handshake(), request()):
            response = await (await server.connect()).ask(sent)
            assert (response.status, response[b"retry-after"]) == (503, b"1")
        await opened[0].close()
        await until_running(server, 1)
        opened[0] = await open_websocket(server)
        opened[1].client.reset()
        await until_running(server, 1)
        opened[1] = await open_websocket(server)
        for websocket in opened:
            await websocket.send("hello")
            assert await websocket.receive() == "hello"


@in_loop
async def test_of_websockets_those_without_an_end_count_for_limit_concurrency() -> None:
    """A handshake without an answer does. What the application denies or closes does not, though its call
    goes on."""
    go_on, over = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await go_on.wait()
        if scope["path"] == "/close":
            await send({"type": "websocket.accept"})
        if scope["path"] in ("/close", "/deny"):
            await send(CLOSE_MESSAGE)
            await over.wait()
            return
        await echo(scope, receive, send)

    async with served(app, limit_concurrency=1) as server:
        denied = await server.connect()
        assert (await denied.ask(handshake(target="/deny"))).status == 403
        assert (await (await server.connect()).ask(handshake(target="/close"))).status == 101
        waiting = await server.connect()
        await waiting.write(handshake(target="/wait"))
        await until_running(server, 3)
        assert (await (await server.connect()).ask(handshake())).status == 503
        go_on.set()
        assert (await waiting.response()).status == 101
        over.set()


# --- Shutdown ---


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in error_records(caplog) if record.exc_info]


@in_each_loop
async def test_shutdown_closes_with_1012() -> None:
    app = Recorder()
    async with served(app) as server:
        websocket = await open_websocket(server)
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        await websocket.write(close_frame(1012))
        assert await websocket.client.rest() == b""
        await ending
    assert app.messages == [disconnected(1012)]


async def until_draining(server: Served) -> None:
    async with asyncio.timeout(5):
        while not server.context.draining:
            await asyncio.sleep(0.001)


@in_each_loop
async def test_a_websocket_goes_on_while_connections_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    """For timeout_drain, and no longer: the grace time is for requests."""
    app = Recorder()
    async with served(app, timeout_drain=1, timeout_graceful_shutdown=15) as server:
        websocket = await open_websocket(server)
        asked_at = asyncio.get_running_loop().time()
        ending = asyncio.create_task(server.stop())
        await until_draining(server)
        other = await open_websocket(server)
        for each in (websocket, other):
            assert await each.ping(b"still") == b"still"
        for each in (websocket, other):
            assert await each.closing() == (1012, "")
            await each.write(close_frame(1012))
        await ending
        assert 1 <= asyncio.get_running_loop().time() - asked_at < 2
    assert app.messages == [disconnected(1012)] * 2
    assert error_records(caplog) == []


@in_each_loop
async def test_clients_that_do_not_answer_the_close_hold_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Recorder(), timeout_graceful_shutdown=15) as server:
        websockets = [await open_websocket(server) for _ in range(3)]
        asked_at = asyncio.get_running_loop().time()
        await server.stop()
        assert asyncio.get_running_loop().time() - asked_at < 3
        for websocket in websockets:
            assert await websocket.closing() == (1012, "")
    assert error_records(caplog) == []


@in_loop
async def test_many_websockets_are_ended_one_after_the_other() -> None:
    loop = asyncio.get_running_loop()
    app = Recorder()
    async with served(app, timeout_graceful_shutdown=15) as server:
        websockets = [await open_websocket(server) for _ in range(150)]
        asked_at = loop.time()
        ending = asyncio.create_task(server.stop())

        async def closed_after(websocket: WebSocket) -> float:
            assert await websocket.closing() == (1012, "")
            after_s = loop.time() - asked_at
            await websocket.write(close_frame(1012))
            return after_s

        times = sorted(await asyncio.gather(*map(closed_after, websockets)))
        await ending
    assert times[-1] < 2.5
    for quarter in range(4):
        at_most = sum(time < (quarter + 1) * 0.5 for time in times)
        assert at_most < (quarter + 1.6) * 150 / 4, times
    assert app.messages == [disconnected(1012)] * 150


@in_loop
async def test_a_handler_that_hears_of_nothing_is_cancelled_before_the_grace_time_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await asyncio.Event().wait()

    async with served(app, timeout_graceful_shutdown=15) as server:
        websocket = await open_websocket(server)
        asked_at = asyncio.get_running_loop().time()
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        await websocket.write(close_frame(1012))
        await ending
        assert 4.5 < asyncio.get_running_loop().time() - asked_at < 6
    assert error_records(caplog) == []


@pytest.mark.parametrize("accepts", [True, False], ids=["accepts late", "waits on"])
@in_loop
async def test_a_handshake_that_is_not_accepted_holds_nothing(
    accepts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        began.set()
        if accepts:
            await denied.wait()
            await send({"type": "websocket.accept"})
        else:
            await asyncio.Event().wait()

    began, denied = asyncio.Event(), asyncio.Event()
    async with served(app, timeout_graceful_shutdown=15) as server:
        client = await server.connect()
        await client.write(handshake())
        await began.wait()
        asked_at = asyncio.get_running_loop().time()
        ending = asyncio.create_task(server.stop())
        assert (await client.response()).status == 503
        denied.set()
        await ending
        assert asyncio.get_running_loop().time() - asked_at < (1 if accepts else 6)
    assert error_records(caplog) == []


@in_loop
async def test_a_handshake_during_the_end_gets_a_503() -> None:
    """Idle connections may have one more request where another worker serves already."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await respond(send, b"ok")

    async with served(app, timeout_graceful_shutdown=15) as server:
        server.server.is_succeeded = True
        client = await server.connect()
        assert (await client.ask(request())).status == 200
        ending = asyncio.create_task(server.stop())
        await until_draining(server)
        response = await client.ask(handshake())
        assert (response.status, response[b"connection"]) == (503, b"close")
        await ending


@in_each_loop
async def test_shutdown_before_the_accept(caplog: pytest.LogCaptureFixture) -> None:
    received = []
    began = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        began.set()
        received.append(await receive())

    async with served(app) as server:
        client = await server.connect()
        await client.write(handshake())
        await began.wait()
        ending = asyncio.create_task(server.stop())
        response = await client.response()
        assert (response.status, response[b"connection"]) == (503, b"close")
        await ending
    assert received == [CONNECT, disconnected(1006)]
    assert not tracebacks(caplog)


@in_each_loop
async def test_shutdown_in_a_denial_response(caplog: pytest.LogCaptureFixture) -> None:
    """It is cut off, also where its client does not read it."""
    raised = asyncio.Event()
    began = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START_MESSAGE)
        began.set()
        try:
            while True:
                await send({**BODY_MESSAGE, "body": bytes(2**20), "more_body": True})
        except OSError:
            raised.set()
            raise

    async with served(app) as server:
        client = await server.connect(limit=1000)
        await client.write(handshake())
        await began.wait()
        async with asyncio.timeout(15):
            ending = asyncio.create_task(server.stop())
            await raised.wait()
            client.reset()
            await ending
    assert not tracebacks(caplog)


@in_loop
async def test_shutdown_cancels_an_application_that_stays(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with served(app) as server:
        websocket = await open_websocket(server)
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        await websocket.write(close_frame(1012))
        assert await websocket.client.rest() == b""
        await cancelled.wait()
        await ending
    assert not tracebacks(caplog)
