"""Memory and references that live across code which an application, a finalizer or a log handler may run.

Such code may turn the event loop, and then anything may happen before it returns: a client leaves, another's
request is read, a descriptor's number becomes another's. What was borrowed before has to be owned, or looked
at again.
"""

import asyncio
import contextlib
import gc
import inspect
import logging
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from clientframes import PING
from forgotten import collector_off, forget
from nestingloop import in_nesting_loop, turn_until
from transports import wrap_transports
from websocketwire import accept, close_frame, handshake, move_clock, open_websocket
from wire import (
    SERVER_ERROR,
    Client,
    Response,
    Served,
    error_records,
    in_each_loop,
    in_loop,
    post,
    read_body,
    request,
    respond,
    served,
)

from fastasgi.sinks.socketsink import ServerProtocol
from fastasgi.trust.forwarded import Forwarding
from fastasgi.trust.peers import TrustedPeers

START = {"type": "http.response.start", "status": 200}
BODY = "http.response.body"
ACCEPT = {"type": "websocket.accept"}
DENY = {"type": "websocket.http.response.start", "status": 404}
OK = request("GET /ok HTTP/1.1")

Act = Callable[[], object]
Messages = list[dict[str, Any]]


# --- Clients that leave, and code that sees to it ---


def leave(server: Served, client: Client) -> None:
    """Have a client leave, and the event loop turned until the server has noticed."""
    count = server.context.registry.connection_count
    client.reset()
    turn_until(lambda: server.context.registry.connection_count < count)


def ask_within(client: Client, data: bytes) -> "asyncio.Task[Response]":
    """Ask, and turn the event loop until there is an answer."""
    asking = asyncio.ensure_future(client.ask(data))
    turn_until(asking.done)
    return asking


async def assert_serves(server: Served, **options: Any) -> None:
    """A new client gets its answer."""
    client = await server.connect(**options)
    assert (await client.ask(OK)).body == b"ok"


class OnLine(logging.Handler):
    """Acts once, where a line with this text is logged by the server."""

    def __init__(self, text: str, act: Act) -> None:
        super().__init__()
        self._text = text
        self._act = act
        self._is_due = True
        self.acted = asyncio.Event()
        logging.getLogger("fastasgi").addHandler(self)  # the fixture restore_loggers takes it away

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_due and self._text in record.getMessage():
            self._is_due = False
            self._act()
            self.acted.set()


# --- Values of a message that run code while the message is taken ---


class Truth:
    """A value that acts when it is asked whether it is true."""

    def __init__(self, act: Act, value: bool) -> None:
        self._act = act
        self._value = value

    def __bool__(self) -> bool:
        self._act()
        return self._value


class Octets(bytes):
    """Bytes that act when they are made plain ones."""

    act: Act

    def __bytes__(self) -> bytes:
        self.act()
        return b"plain"


def octets(act: Act) -> Octets:
    made = Octets(b"octets")
    made.act = act
    return made


def iterated(act: Act, value: Any) -> Iterator[Any]:
    """One value; acts before it comes."""
    act()
    yield value


class File:
    """A file that acts when it is asked for its descriptor."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._descriptor = os.open(__file__, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        self._act()
        return self._descriptor


HEADER = (b"a", b"b")
HTTP_MESSAGES: dict[str, Callable[[Act], Messages]] = {
    "piece": lambda act: [START, {"type": BODY, "body": b"x", "more_body": Truth(act, True)}],
    "last piece": lambda act: [START, {"type": BODY, "body": b"x", "more_body": Truth(act, False)}],
    "subclass of bytes": lambda act: [START, {"type": BODY, "body": octets(act)}],
    "trailers": lambda act: [
        {**START, "trailers": True},
        {"type": BODY},
        {"type": "http.response.trailers", "more_trailers": Truth(act, False)},
    ],
    "early hint": lambda act: [{"type": "http.response.early_hint", "links": iterated(act, b"<x>")}],
    "file": lambda act: [START, {"type": "http.response.zerocopysend", "file": File(act)}],
}
WEBSOCKET_MESSAGES: dict[str, Callable[[Act], Messages]] = {
    "accept": lambda act: [{**ACCEPT, "headers": Truth(act, False)}],
    "denial's headers": lambda act: [{**DENY, "headers": iterated(act, HEADER)}],
    "denial's body": lambda act: [
        DENY,
        {"type": "websocket.http.response.body", "more_body": Truth(act, False)},
    ],
    "message": lambda act: [ACCEPT, {"type": "websocket.send", "bytes": octets(act)}],
    "close": lambda act: [ACCEPT, {"type": "websocket.close", "reason": Truth(act, False)}],
}


@pytest.mark.parametrize(
    ("opening", "messages_of"),
    [pytest.param(request(), of, id=f"http {name}") for name, of in HTTP_MESSAGES.items()]
    + [pytest.param(handshake(), of, id=f"websocket {name}") for name, of in WEBSOCKET_MESSAGES.items()],
)
@in_nesting_loop
async def test_a_client_may_leave_while_a_message_is_taken(
    opening: bytes, messages_of: Callable[[Act], Messages], caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused, as one that comes long after, with the error that tells of a client that has gone."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        await asyncio.sleep(0)  # out of the connection's read, which can't be made again inside itself
        *before, last = messages_of(lambda: leave(server, client))
        for message in before:
            await send(message)
        try:
            await send(last)
            outcome.set_result("taken")
        except Exception as error:
            outcome.set_result(error)

    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    async with served(app) as server:
        client = await server.connect()
        await client.write(opening)
        error = await outcome
        assert isinstance(error, OSError), error
        assert str(error) == "the client has disconnected"
        await assert_serves(server)
    assert error_records(caplog) == []


@in_nesting_loop
async def test_an_application_may_return_while_a_message_of_its_child_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The request has its 500 then, whole; the child's response, begun before, adds nothing to it."""

    async def child(send: Any, begun: asyncio.Event) -> None:
        def headers() -> Iterator[tuple[bytes, bytes]]:
            begun.set()
            turn_until(asking.done)
            yield HEADER

        with pytest.raises(OSError, match="the client has disconnected"):
            await send({**START, "headers": headers()})
        with contextlib.suppress(OSError, RuntimeError):
            await send({"type": BODY, "body": b"late"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        begun = asyncio.Event()
        children.append(asyncio.create_task(child(send, begun)))
        await begun.wait()

    children: list[asyncio.Task[None]] = []
    async with served(app) as server:
        client = await server.connect()
        asking = asyncio.create_task(client.ask(request()))
        response = await asking
        assert (response.status, response.body) == (500, b"Internal Server Error")
        await children[0]
        assert await client.rest() == b""
        await assert_serves(server)
    [record] = error_records(caplog)
    assert record.getMessage() == "ASGI callable returned without starting response."


@in_nesting_loop
async def test_a_client_may_leave_while_its_application_hears_that_its_body_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        assert (await receive())["body"] == b"hello"
        waits.set()
        assert (await receive())["type"] == "http.disconnect"
        leave(server, client)
        left.set()

    waits, left = asyncio.Event(), asyncio.Event()
    async with served(app, limit_request_body=100) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", "transfer-encoding: chunked", body=b"5\r\nhello\r\n"))
        await waits.wait()
        await client.write(b"ff\r\n" + b"x" * 255 + b"\r\n")
        await left.wait()
        await assert_serves(server)
    assert error_records(caplog) == []


# --- Finalizers that send while a line is logged ---

SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
INTERNAL_ERROR = b"\x88\x02" + (1011).to_bytes(2, "big")


@pytest.mark.parametrize(
    ("opening", "before", "late", "fails", "answer", "behind"),
    [
        pytest.param(
            request(), [], [START, {"type": BODY, "body": b"fin"}], False, SERVER_ERROR, b"", id="response",
        ),
        pytest.param(handshake(), [], [ACCEPT], False, SERVER_ERROR, b"", id="accept"),
        pytest.param(handshake(), [], [ACCEPT], True, SERVER_ERROR, b"", id="accept where it fails"),
        pytest.param(
            handshake(), [], [{"type": "websocket.close"}], False, SERVER_ERROR, b"",
            id="close before accept",
        ),
        pytest.param(
            handshake(), [DENY], [{"type": "websocket.http.response.body"}], False, SERVER_ERROR, b"",
            id="denial",
        ),
        pytest.param(
            handshake(), [ACCEPT], [{"type": "websocket.close"}], True, SWITCHED + INTERNAL_ERROR,
            close_frame(1011), id="close where it fails",
        ),
    ],
)  # fmt: skip
@in_each_loop
async def test_a_finalizer_answers_too_late_while_the_end_of_the_call_is_logged(
    opening: bytes,
    before: Messages,
    late: Messages,
    fails: bool,
    answer: bytes,
    behind: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server's answer is given by then, and is the only one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/ok":
            await respond(send, b"ok")
            return
        for message in before:
            await send(message)
        forget(send, sent, *late)
        if fails:
            raise ValueError("of the application")

    sent: list[str] = []
    with collector_off():
        async with served(app) as server:
            line = OnLine("ASGI", gc.collect)
            client = await server.connect()
            await client.write(opening)
            assert await client.reader.readexactly(len(answer)) == answer
            assert line.acted.is_set()
            assert len(sent) == len(late)
            assert "a message" not in sent
            await client.write(behind)
            assert await client.rest() == b""
            await assert_serves(server)
    assert len(error_records(caplog)) == 1


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


# --- What an application keeps ---


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new in Python 3.12")
@in_loop
async def test_an_application_that_is_only_marked_as_a_coroutine_function_may_change_its_scope(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its call runs code of its own; the access log has what the server has put into the scope."""

    def app(scope: Any, receive: Any, send: Any) -> Any:
        scope.update(client=["1.2.3.4", 99], method=None, path=7, query_string=[], headers=None)
        return respond(send, b"ok")

    inspect.markcoroutinefunction(app)
    caplog.set_level(logging.INFO, "fastasgi.access")
    async with served(app, access_log=True) as server:
        client = await server.connect()
        host, port = client.writer.get_extra_info("sockname")
        assert (await client.ask(request("GET /a?b HTTP/1.1"))).body == b"ok"
    [line] = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert line == f'{host}:{port} - "GET /a?b HTTP/1.1" 200'
    assert error_records(caplog) == []


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
@in_each_loop
async def test_an_error_that_grew_out_of_too_many_is_logged_without_them(
    link: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A traceback has each member of a group once a way that leads to it, here 2 ** 18 times: for seconds."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        group = ExceptionGroup("one", [ValueError("a member")])
        for _ in range(18):
            group = ExceptionGroup("the same twice", [group, group])
        error = RuntimeError("outer")
        setattr(error, link, group)
        raise error

    async with served(app) as server:
        client = await server.connect()
        began_at = time.monotonic()
        assert (await client.ask(request())).status == 500
        assert time.monotonic() - began_at < 2.0
    [record] = error_records(caplog)
    assert record.exc_info is None
    assert re.search(r"it holds too many exceptions\.\n.*\bRuntimeError$", record.getMessage(), re.DOTALL)


def test_headers_may_change_while_the_host_is_looked_for() -> None:
    """Where an application's own code has put the names into the scope, and compares them."""

    class Name(bytes):
        __hash__ = bytes.__hash__

        def __eq__(self, other: object) -> bool:
            if armed:
                headers.clear()
            return False

    armed = False
    forwarding = Forwarding(TrustedPeers("*"), ("x-forwarded-host",))
    headers: list[tuple[bytes, bytes]] = [(Name(b"name %d" % i), b"x") for i in range(1000)]
    headers.append((b"x-forwarded-host", b"example.org"))
    scope = {
        "type": "http",
        "scheme": "http",
        "headers": headers,
        "client": ("1.1.1.1", 1),
        "server": ("a", 1),
    }
    armed = True
    forwarding.apply(scope)
    assert headers == [(b"host", b"example.org")]
