"""WebSockets (ASGI WebSocket specification 2.5): what is accepted, scope, messages, logs."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from anyclient import Response
from clientframes import PING, PONG, TEXT, fragments, frame
from eachwire import Served, Wire, each_wire, served
from websocketapps import (
    ACCEPT_MESSAGE,
    BODY_MESSAGE,
    CLOSE_MESSAGE,
    CONNECT,
    START_MESSAGE,
    accepting,
    disconnected,
    text,
)
from websocketwire import accept, echo, open_websocket
from wire import in_each_loop, in_loop, traceback_of

# --- What the application accepts ---


async def handshake_with(wire: Wire, app: Any, *fields: str) -> Response:
    async with served(app, wire) as server:
        client = await server.connect()
        return await client.shake(*fields)


@each_wire
@in_loop
async def test_subprotocols_are_offered_in_order_and_one_is_accepted(wire: Wire) -> None:
    offered = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered.append(scope["subprotocols"])
        await accept(receive, send, subprotocol="soap")

    fields = ("sec-websocket-protocol: chat.v2 ,\tsoap,,", "sec-websocket-protocol: wamp")
    response = await handshake_with(wire, app, *fields)
    assert response[b"sec-websocket-protocol"] == b"soap"
    assert offered == [["chat.v2", "soap", "wamp"]]


@each_wire
@in_loop
async def test_a_subprotocol_that_is_not_ascii_comes_back_as_it_came(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send, subprotocol=scope["subprotocols"][0])

    response = await handshake_with(wire, app, "sec-websocket-protocol: caf\xe9\xff")
    assert response[b"sec-websocket-protocol"] == b"caf\xe9\xff"


@each_wire
@in_loop
async def test_headers_of_the_application(wire: Wire) -> None:
    headers = [(b"Set-Cookie", b"a=1"), (b"x", b"y"), (b"set-cookie", b"b=2")]
    response = await handshake_with(wire, accepting(headers=headers))
    assert response.headers == [(b"set-cookie", b"a=1"), (b"x", b"y"), (b"set-cookie", b"b=2")]


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
@each_wire
@in_loop
async def test_what_may_not_stand_in_a_head_is_the_applications_error(
    wire: Wire, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    response = await handshake_with(wire, accepting(**values))
    assert (response.status, response.body) == (500, b"Internal Server Error")
    assert b"evil" not in repr(response).encode()
    assert isinstance(traceback_of(caplog), (ValueError, TypeError, AttributeError))


@each_wire
@in_loop
async def test_an_application_may_accept_after_an_error_of_its_own(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            await send({"type": "websocket.accept", "subprotocol": "a\r\nb"})
        await echo(scope, receive, send)

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        await websocket.send("hello")
        assert await websocket.receive() == "hello"


# --- The scope ---


async def scope_of(
    wire: Wire, *fields: str, target: str = "/", **settings: Any
) -> tuple[dict[str, Any], Any, Served]:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with served(app, wire, **settings) as server:
        websocket = await open_websocket(server, *fields, target=target)
        client = websocket.client.address
        await websocket.close()
    return scopes[0], client, server


# By which HTTP/1.1 asks for a WebSocket
HANDSHAKE_FIELDS = (b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version")


@each_wire
@in_each_loop
async def test_the_scope_is_complete(wire: Wire) -> None:
    scope, client, server = await scope_of(wire, "X-Y: z", target="/caf%C3%A9/a%2Fb?x=%20&y")
    scope["headers"] = [field for field in scope["headers"] if field[0] not in HANDSHAKE_FIELDS]
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": wire.version,
        "scheme": "ws",
        "path": "/café/a/b",
        "raw_path": b"/caf%C3%A9/a%2Fb",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"x-y", b"z")],
        "client": client[:2],
        "server": ("127.0.0.1", server.port),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


@each_wire
@in_loop
async def test_the_scope_has_the_root_path(wire: Wire) -> None:
    scope, _, _ = await scope_of(wire, target="/a", root_path="/api")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/a", b"/api/a")


@each_wire
@in_loop
async def test_each_scope_has_a_copy_of_the_lifespan_state(wire: Wire) -> None:
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

    async with served(app, wire, lifespan="on") as server:
        for _ in range(2):
            assert await (await open_websocket(server)).close() == (1000, "")
    assert shared == [1, 1]


@each_wire
@in_loop
async def test_the_scope_on_a_unix_socket(wire: Wire, tmp_path: Path) -> None:
    scope, _, server = await scope_of(wire, uds=str(tmp_path / "s"))
    assert (scope["client"], scope["server"]) == (None, (server.server.config.uds, None))


# --- Messages ---


@pytest.mark.parametrize(
    "message",
    ["", "hello", "żółw 🐢\0", "x" * 125, "x" * 126, "y" * 70000, "ż" * 20000, b"", b"\0\xff", bytes(2**20)],
    ids=lambda message: f"{type(message).__name__} {len(message)}",
)
@each_wire
@in_each_loop
async def test_a_message_comes_and_goes(wire: Wire, message: str | bytes) -> None:
    """With the key of its kind and no other."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        received.append(await receive())
        await send({**received[0], "type": "websocket.send"})

    async with served(app, wire) as server:
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
@each_wire
@in_loop
async def test_forms_of_a_message_to_send(wire: Wire, message: dict[str, Any], expected: str | bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", **message})

    async with served(app, wire) as server:
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
@each_wire
@in_loop
async def test_a_message_that_can_not_be_sent_raises_and_harms_nothing(
    wire: Wire, message: dict[str, Any], error: type[Exception]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        with pytest.raises(error):
            await send({"type": "websocket.send", **message})
        await send(text("after"))

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        assert await websocket.receive() == "after"
        assert await websocket.close() == (1000, "")


@each_wire
@in_loop
async def test_connect_is_received_first_and_once(wire: Wire) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        received.extend([await receive() for _ in range(3)])

    async with served(app, wire) as server:
        websocket = await open_websocket(server, behind=frame(TEXT, b"a"))
        await websocket.close(3000, b"bye")
        await server.context.registry.wait_idle()
    assert received == [CONNECT, {"type": "websocket.receive", "text": "a"}, disconnected(3000, "bye")]


@each_wire
@in_each_loop
async def test_control_frames_between_fragments(wire: Wire) -> None:
    async with served(echo, wire) as server:
        websocket = await open_websocket(server)
        first, second = fragments(TEXT, [b"he", b"llo"])
        await websocket.write(first, frame(PING, b"a"), frame(PONG, b"b"), second)
        assert await websocket.next(PONG) == b"a"
        assert await websocket.receive() == "hello"
        assert await websocket.ping(b"x" * 125) == b"x" * 125


# --- The order of messages ---


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
@each_wire
@in_loop
async def test_a_message_out_of_order_raises(
    wire: Wire, before: list[dict[str, Any]], wrong: dict[str, Any]
) -> None:
    passed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == CONNECT
        for message in before:
            await send(message)
        with pytest.raises(RuntimeError, match=wrong["type"]) as caught:
            await send(wrong)
        assert not isinstance(caught.value, OSError)
        passed.set()

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin_shake()
        await client.response()
        await passed.wait()


@pytest.mark.parametrize("message", [{}, {"type": None}, {"type": 7}], ids=str)
@each_wire
@in_loop
async def test_a_message_without_a_type_raises(wire: Wire, message: dict[str, Any]) -> None:
    passed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises((KeyError, RuntimeError)):
            await send(message)
        passed.set()
        await echo(scope, receive, send)

    async with served(app, wire) as server:
        assert await (await open_websocket(server)).close() == (1000, "")
    assert passed.is_set()


# --- Logs and limits ---


@each_wire
@in_loop
async def test_log_lines(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
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
    async with served(app, wire, access_log=True) as server:
        for target, answer in (
            ("/a%20b?x='", "[accepted]"),
            ("/?deny", "401"),
            ("/?close", "403"),
            ("/?raise", "500"),
            ("/?half", "500"),
        ):
            client = await server.connect()
            response = await client.shake(target=target)
            assert response.status == (101 if answer == "[accepted]" else int(answer))
            port = client.address[1]
            lines.append(f'127.0.0.1:{port} - "WebSocket {target}" {answer}')
    assert [record.getMessage() for record in caplog.records if "WebSocket /" in record.getMessage()] == lines


@each_wire
@in_loop
async def test_without_an_access_log_there_are_no_lines(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with served(echo, wire) as server:
        await (await open_websocket(server)).close()
    assert not [record for record in caplog.records if "WebSocket" in record.getMessage()]


async def until_running(server: Served, count: int) -> None:
    """Return when so many calls of the application run."""
    while server.context.registry.exchange_count != count:
        await asyncio.sleep(0.001)


@each_wire
@in_each_loop
async def test_an_open_websocket_counts_for_limit_concurrency(wire: Wire) -> None:
    async with served(echo, wire, limit_concurrency=2) as server:
        opened = [await open_websocket(server) for _ in range(2)]
        for asked in ("WebSocket", "request"):
            client = await server.connect()
            response = await (client.shake() if asked == "WebSocket" else client.ask())
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


@each_wire
@in_loop
async def test_of_websockets_those_without_an_end_count_for_limit_concurrency(wire: Wire) -> None:
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

    async with served(app, wire, limit_concurrency=1) as server:
        denied = await server.connect()
        assert (await denied.shake(target="/deny")).status == 403
        assert (await (await server.connect()).shake(target="/close")).status == 101
        waiting = await server.connect()
        await waiting.begin_shake(target="/wait")
        await until_running(server, 3)
        assert (await (await server.connect()).shake()).status == 503
        go_on.set()
        assert (await waiting.response()).status == 101
        over.set()
