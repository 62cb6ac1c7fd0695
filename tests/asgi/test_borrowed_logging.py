"""Memory and references that live across calls of log handlers and of the ssl module.

Both may run Python code that turns the event loop, see test_borrowed.
"""

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from clientframes import PING
from exchanges import START
from nestingloop import in_nesting_loop, turn_until
from reentry import BODY, OnLine, ask_within, assert_serves, leave
from websocketwire import accept, open_websocket
from wire import Response, error_records, handshake, move_clock, post, read_body, request, respond, served

# --- Log handlers ---


@pytest.mark.parametrize("opening", [request(), handshake()], ids=["http", "websocket"])
@in_nesting_loop
async def test_a_client_may_leave_while_it_is_logged_that_its_application_returned_too_soon(
    opening: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nobody to answer then: nothing is said of a second fault, and others are served."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        await asyncio.sleep(0)

    async with served(app) as server:
        client = await server.connect()
        line = OnLine("ASGI callable returned without", lambda: leave(server, client))
        await client.write(opening)
        await line.acted.wait()
        await assert_serves(server)
    assert len(error_records(caplog)) == 1


@in_nesting_loop
async def test_a_client_may_leave_while_its_handshake_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The application hears of it as of a client that leaves later."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            await accept(receive, send)
        told.set_result(await receive())

    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    caplog.set_level(logging.INFO, "fastasgi")
    async with served(app, access_log=True) as server:
        client = await server.connect()
        line = OnLine("[accepted]", lambda: leave(server, client))
        await client.write(handshake())
        assert (await told)["type"] == "websocket.disconnect"
        assert line.acted.is_set()
        await assert_serves(server)
    assert error_records(caplog) == []


@in_nesting_loop
async def test_a_client_may_leave_while_its_missing_pong_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        await accept(receive, send)
        told.set_result(await receive())

    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    caplog.set_level(logging.INFO, "fastasgi")
    async with served(app, ws_ping_interval=2, ws_ping_timeout=2) as server:
        websocket = await open_websocket(server)
        line = OnLine("WebSocket failed", lambda: leave(server, websocket.client))
        await move_clock(server, 3)
        await websocket.next(PING)
        await move_clock(server, 7)
        assert line.acted.is_set()
        assert (await told)["type"] == "websocket.disconnect"
        await assert_serves(server)
    assert error_records(caplog) == []


@in_nesting_loop
async def test_a_client_may_leave_while_its_late_tls_handshake_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")

    authority = Authority(tmp_path)
    caplog.set_level(logging.INFO, "fastasgi")
    async with served(app, ssl_handshake_timeout=2, **authority.issue().settings) as server:
        client = await server.connect()
        line = OnLine("TLS handshake", lambda: leave(server, client))
        while not server.context.registry.connection_count:
            await asyncio.sleep(0)
        await move_clock(server, 3)
        assert line.acted.is_set()
        await assert_serves(server, ssl=authority.client(), server_hostname="localhost")
    assert error_records(caplog) == []


@in_nesting_loop
async def test_others_are_served_while_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A callback of the server's turns the loop; those of other connections have contexts of their own."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fail":
            await asyncio.sleep(0)
            raise ValueError("of the application")
        await send(START)
        await failed.wait()
        await send({"type": BODY, "body": b"first", "more_body": True})
        await received.wait()
        await send({"type": BODY, "body": b"last"})

    def read_within() -> None:
        failed.set()
        reading = asyncio.ensure_future(streaming.reader.readuntil(b"first"))
        turn_until(reading.done)

    failed, received = asyncio.Event(), asyncio.Event()
    async with served(app) as server:
        streaming, failing = await server.connect(), await server.connect()
        await streaming.write(request())
        line = OnLine("Exception in ASGI application", read_within)
        assert (await failing.ask(request("GET /fail HTTP/1.1"))).status == 500
        await line.acted.wait()
        received.set()
        assert await streaming.reader.readuntil(b"0\r\n\r\n") == b"\r\n4\r\nlast\r\n0\r\n\r\n"
    assert len(error_records(caplog)) == 1


# --- The ssl module ---


@in_nesting_loop
async def test_what_is_decrypted_stays_its_clients_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another's is decrypted between two records of one read."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, await read_body(receive))

    def hooked_read(tls: ssl.SSLObject, *arguments: Any) -> Any:
        nonlocal reads_before
        if tls.server_side and reads_before >= 0:
            reads_before -= 1
            if reads_before < 0:
                answers.append(ask_within(other, post(b"o" * 500)))
        return read(tls, *arguments)

    answers: list[asyncio.Task[Response]] = []
    reads_before = -1
    read = ssl.SSLObject.read
    monkeypatch.setattr(ssl.SSLObject, "read", hooked_read)
    authority = Authority(tmp_path)
    options = {"ssl": authority.client(), "server_hostname": "localhost"}
    async with served(app, **authority.issue().settings) as server:
        client, other = [await server.connect(**options) for _ in range(2)]
        for one in (client, other):
            await one.ask(post(b""))
        data = post(b"c" * 500)
        reads_before = 1
        # Two records, which the server reads at once
        client.writer.write(data[:300])
        client.writer.write(data[300:])
        assert (await client.response()).body == b"c" * 500
        assert answers[0].result().body == b"o" * 500
