"""The end of WebSockets: who closes, clients that break RFC 6455, denial, calls that end."""

import asyncio
from typing import Any

import pytest
from anyclient import Response
from clientframes import BINARY, CLOSE, CONTINUATION, PING, TEXT, fragments, frame
from eachwire import Wire, each_wire, served
from websocketapps import (
    ACCEPT_MESSAGE,
    BODY_MESSAGE,
    CLOSE_MESSAGE,
    CONNECT,
    START_MESSAGE,
    Recorder,
    accepting,
    disconnected,
    text,
)
from websocketwire import WebSocket, accept, close_frame, echo, open_websocket
from wire import error_records, in_each_loop, in_loop, move_clock, traceback_of

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
@each_wire
@in_each_loop
async def test_the_client_closes(wire: Wire, code: int | None, reason: bytes, seen: tuple[int, str]) -> None:
    """The server answers with the code, and the application gets code and reason."""
    app = Recorder()
    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        assert await websocket.close(code, reason) == (seen[0], "")
        await app.done.wait()
        await server.context.registry.wait_idle()
    assert app.messages == [disconnected(*seen)]


@each_wire
@in_loop
async def test_messages_before_the_clients_close_are_received_before_the_disconnect(wire: Wire) -> None:
    app = Recorder()
    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        await websocket.write(*[frame(TEXT, b"%d" % i) for i in range(20)], close_frame(1001))
        assert await websocket.closed() == (1001, "")
        await app.done.wait()
    assert [message.get("text") for message in app.messages[:-1]] == [str(i) for i in range(20)]
    assert app.messages[-1] == disconnected(1001)


@each_wire
@in_loop
async def test_disconnect_is_received_again_and_again(wire: Wire) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        seen.extend([await receive() for _ in range(3)])

    async with served(app, wire) as server:
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
@each_wire
@in_loop
async def test_the_application_closes(wire: Wire, message: dict[str, Any], expected: tuple[int, str]) -> None:
    """It receives its own code, and the client's answer ends the connection."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", **message})
        received.append(await receive())

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == expected
        await websocket.write(close_frame(expected[0] if expected[0] != 1005 else None))
        assert await websocket.client.rest() == b""
        await server.context.registry.wait_idle()
    assert [received[0]["type"], received[0]["code"]] == ["websocket.disconnect", expected[0]]


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, -1, 2**16 + 1000, 2**40, "1000", 1000.0]
)
@each_wire
@in_loop
async def test_a_code_that_may_not_be_sent_is_the_applications_error(
    wire: Wire, code: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": code})

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == (1011, "")
        assert isinstance(traceback_of(caplog), (ValueError, TypeError, OverflowError))


@each_wire
@in_each_loop
async def test_both_close_at_once(wire: Wire) -> None:
    """The server sends one Close frame, and takes the client's for an answer."""
    app_closed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        assert await receive() == {"type": "websocket.receive", "text": "close"}
        await send({"type": "websocket.close", "code": 3001})
        app_closed.set()

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        await websocket.write(frame(TEXT, b"close"), close_frame(3002))
        assert await websocket.closed() == (3001, "")
        assert app_closed.is_set()
        await server.context.registry.wait_idle()


@each_wire
@in_each_loop
async def test_what_comes_after_the_servers_close_is_thrown_away(wire: Wire) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 1000})
        received.append(await receive())

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == (1000, "")
        await websocket.write(*[frame(BINARY, bytes(1000)), frame(PING, b"x")] * 1000, close_frame())
        assert await websocket.client.rest() == b""
        await server.context.registry.wait_idle()
    assert received == [disconnected(1000)]


@each_wire
@in_each_loop
async def test_a_client_that_does_not_answer_the_close_is_cut_off(wire: Wire) -> None:
    async with served(accepting(), wire) as server:
        websocket = await open_websocket(server)
        count = server.context.registry.connection_count
        assert await websocket.closing() == (1000, "")
        await move_clock(server, 9.0)
        assert server.context.registry.connection_count == count
        await move_clock(server, 13.0)
        assert await websocket.client.rest() == b""
        await server.context.registry.wait_idle()


@each_wire
@in_each_loop
async def test_a_client_that_does_not_end_its_connection_is_cut_off(wire: Wire) -> None:
    """After a failure the server's half is ended, and the client has a moment to see it."""
    async with served(echo, wire) as server:
        websocket = await open_websocket(server)
        count = server.context.registry.connection_count
        await websocket.write(frame(3))
        assert await websocket.closed() == (1002, "3 is no opcode")
        assert server.context.registry.connection_count == count
        await move_clock(server, 5.0)
        await server.context.registry.wait_idle()


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("state", ["connecting", "open", "denying", "closing"])
@each_wire
@in_each_loop
async def test_the_client_is_lost(wire: Wire, how: str, state: str, caplog: pytest.LogCaptureFixture) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin_shake()
        await reached.wait()
        if how == "reset":
            client.reset()
        else:
            client.close()
        await server.context.registry.wait_idle()
    assert received == [disconnected(3000 if state == "closing" else 1006)] * 2
    assert not error_records(caplog)


@each_wire
@in_loop
async def test_closing_after_the_client_is_no_error(wire: Wire) -> None:
    """An application can't know in time; there is nothing left that it could lose."""
    passed = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        assert (await receive())["type"] == "websocket.disconnect"
        await send(CLOSE_MESSAGE)
        passed.set()

    async with served(app, wire) as server:
        await (await open_websocket(server)).close()
        await passed.wait()


@each_wire
@in_loop
async def test_a_message_to_a_client_that_has_closed_raises_before_its_messages_are_received(
    wire: Wire,
) -> None:
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

    async with served(app, wire) as server:
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
@each_wire
@in_each_loop
async def test_a_violation_fails_the_websocket(
    wire: Wire, bad: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What came before it counts, what comes behind it does not."""
    app = Recorder()
    async with served(app, wire, ws_max_size=100) as server:
        websocket = await open_websocket(server)
        await websocket.write(frame(TEXT, b"before"), bad, frame(TEXT, b"behind"))
        seen, reason = await websocket.closed()
        assert (seen, bool(reason)) == (code, True)
        await app.done.wait()
        websocket.client.close()
        await server.context.registry.wait_idle()
    assert app.messages == [{"type": "websocket.receive", "text": "before"}, disconnected(code, reason)]
    assert not error_records(caplog)


@each_wire
@in_loop
async def test_a_message_of_the_greatest_size_is_taken(wire: Wire) -> None:
    async with served(echo, wire, ws_max_size=100) as server:
        websocket = await open_websocket(server)
        await websocket.send(bytes(100))
        assert await websocket.receive() == bytes(100)
        await websocket.send(bytes(101))
        assert (await websocket.closed())[0] == 1009


@each_wire
@in_loop
async def test_a_violation_after_the_servers_close_ends_the_connection(wire: Wire) -> None:
    async with served(accepting(), wire) as server:
        websocket = await open_websocket(server)
        assert await websocket.closing() == (1000, "")
        await websocket.write(frame(3))
        assert await websocket.client.rest() == b""


# --- Denial ---


@each_wire
@in_each_loop
async def test_a_close_before_the_accept_is_a_403(wire: Wire) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        await send({"type": "websocket.close", "code": 3000, "reason": "no"})
        received.append(await receive())

    async with served(app, wire) as server:
        client = await server.connect()
        response = await client.shake()
        assert (response.status, response.body) == (403, b"Forbidden")
        assert await client.rest() == b""
        await server.context.registry.wait_idle()
    assert received == [CONNECT, disconnected(1006)]


@each_wire
@in_each_loop
async def test_a_denial_response(wire: Wire) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        response = await client.shake()
        assert (response.status, response.body) == (401, b"go away")
        assert response[b"www-authenticate"] == b"Basic"
        assert [value for name, value in response.headers if name == b"x"] == [b"1", b"2"]
        assert (await client.shake(target="/in")).status == 101
    assert received == [CONNECT, disconnected(1006)]


@each_wire
@in_loop
async def test_forms_of_a_denial(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": int(scope["path"][1:])})
        await send({"type": "websocket.http.response.body"})

    async with served(app, wire) as server:
        client = await server.connect()
        for status in (200, 204, 302, 404, 599):
            response = await client.shake(target=f"/{status}")
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
@each_wire
@in_loop
async def test_a_wrong_denial_is_a_500(
    wire: Wire, messages: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with served(app, wire) as server:
        client = await server.connect()
        response = await client.shake()
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert b"evil" not in response
        assert await client.rest() == b""
    assert len(error_records(caplog)) == 1


# --- The end of the call ---


@pytest.mark.parametrize("ending", ["return", "raise", "exit", "cancel"])
@pytest.mark.parametrize("state", ["connecting", "held", "denying", "denied", "open", "closed"])
@each_wire
@in_each_loop
async def test_the_call_ends_in_each_state(
    wire: Wire, ending: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin_shake()
        if state == "denying":
            assert await client.responses() == [Response(401, body=b"no", is_whole=False)]
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


@each_wire
@in_loop
async def test_a_callable_that_raises_before_it_is_a_coroutine(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    def app(scope: Any, receive: Any, send: Any) -> Any:
        raise ValueError("mine")

    async with served(app, wire) as server:
        client = await server.connect()
        assert (await client.shake()).status == 500
    assert str(traceback_of(caplog)) == "mine"
