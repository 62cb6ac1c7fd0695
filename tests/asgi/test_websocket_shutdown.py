"""WebSockets while the server ends."""

import asyncio
import logging
from typing import Any

import pytest
from eachwire import Served, Wire, each_wire, each_wire_in_turn, served
from jumpingloop import in_jumping_loop
from websocketapps import BODY_MESSAGE, CONNECT, START_MESSAGE, Recorder, disconnected
from websocketwire import WebSocket, accept, close_frame, open_websocket
from wire import error_records, in_each_loop, respond

# --- Shutdown ---


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in error_records(caplog) if record.exc_info]


@each_wire
@in_each_loop
async def test_shutdown_closes_with_1012(wire: Wire) -> None:
    app = Recorder()
    async with served(app, wire) as server:
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


@each_wire
@in_each_loop
async def test_a_websocket_goes_on_while_connections_are_accepted(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """For timeout_drain, and no longer: the grace time is for requests."""
    app = Recorder()
    async with served(app, wire, timeout_drain=1, timeout_graceful_shutdown=15) as server:
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


@each_wire
@in_each_loop
async def test_clients_that_do_not_answer_the_close_hold_nothing(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Recorder(), wire, timeout_graceful_shutdown=15) as server:
        websockets = [await open_websocket(server) for _ in range(3)]
        asked_at = asyncio.get_running_loop().time()
        await server.stop()
        assert asyncio.get_running_loop().time() - asked_at < 3
        for websocket in websockets:
            assert await websocket.closing() == (1012, "")
    assert error_records(caplog) == []


@each_wire
@in_jumping_loop
async def test_many_websockets_are_ended_one_after_the_other(wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    app = Recorder()
    async with served(app, wire, timeout_graceful_shutdown=15) as server:
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


@each_wire
@in_jumping_loop
async def test_a_handler_that_hears_of_nothing_is_cancelled_before_the_grace_time_is_over(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await asyncio.Event().wait()

    async with served(app, wire, timeout_graceful_shutdown=15) as server:
        websocket = await open_websocket(server)
        asked_at = asyncio.get_running_loop().time()
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        await websocket.write(close_frame(1012))
        await ending
        assert 4.5 < asyncio.get_running_loop().time() - asked_at < 6
    assert error_records(caplog) == []


@pytest.mark.parametrize("accepts", [True, False], ids=["accepts late", "waits on"])
@each_wire
@in_jumping_loop
async def test_a_handshake_that_is_not_accepted_holds_nothing(
    wire: Wire, accepts: bool, caplog: pytest.LogCaptureFixture
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
    async with served(app, wire, timeout_graceful_shutdown=15) as server:
        client = await server.connect()
        await client.begin_shake()
        await began.wait()
        asked_at = asyncio.get_running_loop().time()
        ending = asyncio.create_task(server.stop())
        assert (await client.response()).status == 503
        denied.set()
        await ending
        assert asyncio.get_running_loop().time() - asked_at < (1 if accepts else 6)
    assert error_records(caplog) == []


@each_wire_in_turn
@in_jumping_loop
async def test_a_handshake_during_the_end_gets_a_503(wire: Wire) -> None:
    """Idle connections may have one more request where another worker serves already."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await respond(send, b"ok")

    async with served(app, wire, timeout_graceful_shutdown=15) as server:
        server.server.is_succeeded = True
        client = await server.connect()
        assert (await client.ask()).status == 200
        ending = asyncio.create_task(server.stop())
        await until_draining(server)
        response = await client.shake()
        assert response.status == 503
        assert await client.rest() == b""
        await ending


@each_wire
@in_each_loop
async def test_shutdown_before_the_accept(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    received = []
    began = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        began.set()
        received.append(await receive())

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin_shake()
        await began.wait()
        ending = asyncio.create_task(server.stop())
        response = await client.response()
        assert response.status == 503
        assert await client.rest() == b""
        await ending
    assert received == [CONNECT, disconnected(1006)]
    assert not tracebacks(caplog)


@each_wire
@in_each_loop
async def test_shutdown_in_a_denial_response(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect(limit=1000)
        await client.begin_shake()
        await began.wait()
        async with asyncio.timeout(15):
            ending = asyncio.create_task(server.stop())
            await raised.wait()
            client.reset()
            await ending
    assert not tracebacks(caplog)


@each_wire
@in_jumping_loop
async def test_shutdown_cancels_an_application_that_stays(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        await websocket.write(close_frame(1012))
        assert await websocket.client.rest() == b""
        await cancelled.wait()
        await ending
    assert not tracebacks(caplog)
