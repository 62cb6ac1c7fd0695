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
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from exchanges import START
from forgotten import collector_off, forget
from nestingloop import in_nesting_loop, turn_until
from reentry import BODY, Act, OnLine, assert_serves, leave
from websocketwire import close_frame
from wire import SERVER_ERROR, error_records, handshake, in_each_loop, in_loop, request, respond, served

from fastasgi.trust.forwarded import Forwarding
from fastasgi.trust.peers import TrustedPeers

ACCEPT = {"type": "websocket.accept"}
DENY = {"type": "websocket.http.response.start", "status": 404}

Messages = list[dict[str, Any]]


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
