"""Memory and references that live across calls of log handlers, of a transport and of the ssl module.

Any of these may turn the event loop, see test_borrowed.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from clientframes import PING
from exchanges import START
from nestingloop import in_nesting_loop, turn_until
from reentry import BODY, Act, OnLine, ask_within, assert_serves, leave
from transports import wrap_transports
from websocketwire import accept, open_websocket
from wire import Response, error_records, handshake, move_clock, post, read_body, request, respond, served

from fastasgi.sinks.socketsink import ServerProtocol

# --- Log handlers that turn the event loop ---


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


# --- What lives across calls of a transport and of the ssl module ---


class Hooks(dict[str, Act]):
    """By the name of a transport's method: what is done, once, before any transport is asked for it."""

    def wrap(self, transport: Any) -> "HookedTransport":
        return HookedTransport(transport, self)


class HookedTransport:
    """Transports may be Python code, as asyncio's are, in which finalizers and signal handlers run."""

    def __init__(self, transport: Any, hooks: Hooks) -> None:
        self._transport = transport
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        if name in self._hooks:
            self._hooks.pop(name)()
        return getattr(self._transport, name)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Hooks:
    """Hooks of servers that start from now on."""
    hooks = Hooks()
    wrap_transports(monkeypatch, hooks.wrap)
    return hooks


async def authorized(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the path, the credentials and the body of the request."""
    body = await read_body(receive)
    credentials = dict(scope["headers"]).get(b"authorization", b"none")
    await respond(send, b"%b of %b: %b" % (scope["path"].encode(), credentials, body))


@pytest.mark.parametrize("method", ["GET", "POST"])
@in_nesting_loop
async def test_each_request_has_its_own_head(method: str, hooks: Hooks) -> None:
    """Though another's is read before the first of a connection has its addresses."""

    def ask_another() -> None:
        answers.append(
            ask_within(
                other,
                request(
                    f"{method} /other HTTP/1.1", "authorization: other", "content-length: 5", body=b"other"
                )
                if method == "POST"
                else request("GET /other HTTP/1.1", "authorization: other"),
            )
        )

    answers: list[asyncio.Task[Response]] = []
    async with served(authorized) as server:
        client, other = await server.connect(), await server.connect()
        await other.ask(request())  # has its addresses
        hooks["get_extra_info"] = ask_another
        response = await client.ask(request("GET /own HTTP/1.1", "authorization: own"))
        assert response.body == b"/own of own: "
        assert answers[0].result().body == b"/other of other: " + (b"other" if method == "POST" else b"")


@in_nesting_loop
async def test_pipelined_requests_are_answered_in_order(hooks: Hooks) -> None:
    """Though others are, before the first of them has its addresses."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await respond(send, scope["path"].encode())

    answers: list[asyncio.Task[Response]] = []
    async with served(app) as server:
        client, other = await server.connect(), await server.connect()
        await other.ask(request())
        hooks["get_extra_info"] = lambda: answers.append(ask_within(other, request("GET /other HTTP/1.1")))
        await client.write(b"".join(request(f"GET /{i} HTTP/1.1") for i in range(4)))
        assert [(await client.response()).body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]
        assert answers[0].result().body == b"/other"


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


@in_nesting_loop
async def test_what_is_read_stays_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's loop is Python code: signal handlers may run between a read and the call that tells of it."""

    class HookedProtocol(ServerProtocol):
        def buffer_updated(self, n: int) -> None:
            if not answers:
                answers.append(None)
                answers.append(ask_within(other, request("GET /other HTTP/1.1", "authorization: other")))
            super().buffer_updated(n)

    answers: list[Any] = []
    monkeypatch.setattr("fastasgi.server.ServerProtocol", HookedProtocol)
    async with served(authorized) as server:
        client, other = await server.connect(), await server.connect()
        response = await client.ask(request("GET /own HTTP/1.1", "authorization: own"))
        assert response.body == b"/own of own: "
        assert answers[1].result().body == b"/other of other: "


@in_nesting_loop
async def test_nothing_is_written_to_a_descriptor_that_has_become_anothers(hooks: Hooks) -> None:
    def lose() -> None:
        leave(server, client)
        for _ in range(8):
            pairs.extend(socket.socketpair())  # have the numbers of the connection's both ends
        lost.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        await send({**START, "headers": [(b"content-length", b"1000000")]})
        # The last is too large to be joined with others: the transport gets it, and is asked what it holds
        for piece in (b"1" * 1000, b"2" * 1000, b"3" * 20_000):
            await send({"type": BODY, "body": piece, "more_body": True})
            await taken.wait()
            taken.clear()
        hooks["get_write_buffer_size"] = lose
        with contextlib.suppress(OSError):
            await send({"type": BODY, "body": b"secret" * 150, "more_body": True})

    pairs: list[socket.socket] = []
    taken, lost = asyncio.Event(), asyncio.Event()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        await client.reader.readuntil(b"\r\n\r\n")
        for size in (1000, 1000, 20_000):
            await client.reader.readexactly(size)
            taken.set()
        await lost.wait()
        await assert_serves(server)
        with contextlib.ExitStack() as stack:
            for end in pairs:
                stack.enter_context(end).setblocking(False)
            for end in pairs:
                with pytest.raises(BlockingIOError):
                    end.recv(100)
