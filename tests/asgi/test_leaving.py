"""Clients that leave, and those that have only said all they will: what is heard of them, what is written."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyclient import INTERNAL_ERROR, Request, Response
from certificates import Authority
from eachwire import Served, Wire, each_wire, each_wire_in_turn, served
from exchanges import DISCONNECT, START
from jumpingloop import in_jumping_loop
from serving import LineRoute
from watching import watch_sinks
from wire import Connection, error_records, in_each_loop, in_loop, now, read_body, respond, shift_clock

from fastasgi.logs.accesslog import AccessLog

HOLD_S = 2.0  # for which a disconnect that may be none is held back
PATIENCE_S = 5.0  # in which an application may send to nobody
MORE = {"type": "http.response.body", "body": b"piece", "more_body": True}
POST = Request("POST", body=b"body")


def leave(client: Connection, how: str) -> None:
    client.reset() if how == "reset" else client.close()


@pytest.fixture
def access_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Has servers that start from now on keep an access log; what is in it up to now."""
    lines: list[str] = []
    log = AccessLog(format="{method} {path} {status} {bytes}", route=LineRoute(lines.append))
    monkeypatch.setattr("fastasgi.server.make_access_log", lambda *_: log)

    def written() -> list[str]:
        log.flush()
        return "".join(lines).splitlines()

    return written


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once a server that starts from now on has seen the end of a client's side."""
    ended = asyncio.Event()

    def watch(event: str, n: int) -> None:
        if event == "end":
            ended.set()

    watch_sinks(monkeypatch, watch)
    return ended


# --- A client that has gone ---


@each_wire
@in_each_loop
async def test_a_reset_is_told_at_once(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waits.set()
        messages.append(await receive())
        told.set_result(now())
        messages.append(await receive())
        await respond(send, b"dropped")

    waits, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    messages: list[Any] = []
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await waits.wait()
        left_at = now()
        client.reset()
        assert await told - left_at < 0.5
        await server.context.registry.wait_idle()
    assert messages == [DISCONNECT, DISCONNECT]
    assert error_records(caplog) == []


@each_wire_in_turn
@in_each_loop
async def test_an_end_before_the_response_is_told_after_the_hold(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waits.set()
        assert await receive() == DISCONNECT
        told.set_result(now())

    waits, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await waits.wait()
        left_at = now()
        client.close()
        assert HOLD_S - 0.1 < await told - left_at < HOLD_S + 0.5
        await server.context.registry.wait_idle()
    assert error_records(caplog) == []


@pytest.mark.parametrize("order", ["piece first", "end first"])
@each_wire_in_turn
@in_each_loop
async def test_an_end_is_told_once_the_first_piece_has_left(wire: Wire, order: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        if order == "piece first":
            await send(MORE)
        waits.set()
        if order == "end first":
            await ended.wait()
            waiting = asyncio.ensure_future(receive())
            assert not (await asyncio.wait([waiting], timeout=0.1))[0]
            await send(MORE)
            assert await waiting == DISCONNECT
        else:
            assert await receive() == DISCONNECT
        told.set_result(now())

    waits, ended, told = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop().create_future()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await waits.wait()
        left_at = now()
        client.half_close()
        ended.set()
        assert await told - left_at < 1.0
        assert b"piece" in (await client.responses())[0].body


@pytest.mark.parametrize("hears", [True, False], ids=["hears of it", "does not ask"])
@pytest.mark.parametrize("how", ["close", "reset"])
@each_wire
@in_each_loop
async def test_send_does_nothing_for_a_while_and_then_raises(
    wire: Wire, how: str, hears: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(MORE)
        if hears:
            assert await receive() == DISCONNECT
        while server.context.registry.connection_count:
            await send(MORE)
            await asyncio.sleep(0)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        for _ in range(100):
            await send(MORE)
        counting.cancel()
        assert turns >= 100, "others have not run"
        shift_clock(PATIENCE_S - 1)
        await send(MORE)
        shift_clock(1.1)
        with pytest.raises(OSError, match="disconnected"):
            await send(MORE)
        raised.set()

    raised = asyncio.Event()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await client.until(b"piece")
        leave(client, how)
        await raised.wait()
        await server.context.registry.wait_idle()
    assert error_records(caplog) == []


@each_wire
@in_each_loop
async def test_a_client_that_leaves_within_its_body_is_gone(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["more_body"]
        waits.set()
        assert await receive() == DISCONNECT
        told.set_result(now())

    waits, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=10, body=b"abc")
        await waits.wait()
        left_at = now()
        client.half_close()
        assert await told - left_at < 0.5
        assert await client.rest() == b""


# --- A client that has only said all it will ---


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of the server, and of its clients' connections."""
    if request.param == "plain":
        return {"server": {}, "client": None}
    authority = Authority(tmp_path)
    return {"server": authority.issue().settings, "client": authority.client()}


async def talk_and_end(
    server: Served, context: Any, *requests: Request, begun_bytes: int = 0
) -> list[Response]:
    """What a client gets that sends so much, ends its sending side, and reads up to the server's end.

    Behind the requests go so many bytes of one more.
    """
    client = await server.connect(sends_preface=context is None)
    data = client.encode(*requests) + client.encode(Request())[:begun_bytes]
    if context is None:
        await client.write(data)
        client.half_close()
        return await client.responses()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

    async def until_done(step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if outgoing.pending:
                    await client.write(outgoing.read())
                if not (read := await client.reader.read(65536)):
                    return b""
                incoming.write(read)

    await until_done(tls.do_handshake)
    tls.write(client.preface + data)
    with pytest.raises(ssl.SSLWantReadError):
        tls.unwrap()  # sends close_notify; the server's own is still to come
    await client.write(outgoing.read())
    client.half_close()
    answer = b""
    with contextlib.suppress(ssl.SSLZeroReturnError, ssl.SSLEOFError):
        while piece := await until_done(lambda: tls.read(65536)):
            answer += piece
    reader = asyncio.StreamReader()
    reader.feed_data(answer)
    reader.feed_eof()
    return await server.client_type(reader, client.writer).responses()


async def answer_late(scope: Any, receive: Any, send: Any) -> None:
    """As frameworks do it that drop a response once they hear of a disconnect."""
    body = await read_body(receive)
    leaving = asyncio.ensure_future(receive())
    working = asyncio.ensure_future(asyncio.sleep(0.3))
    await asyncio.wait([leaving, working], return_when=asyncio.FIRST_COMPLETED)
    if leaving.done():
        return
    leaving.cancel()
    await respond(send, b"answer to " + scope["method"].encode() + b" " + body)


@pytest.mark.parametrize("asked", [Request(), POST], ids=["GET", "POST"])
@each_wire_in_turn
@in_each_loop
async def test_a_client_that_ends_its_side_gets_its_answer(
    wire: Wire, transport: Any, asked: Request
) -> None:
    async with served(answer_late, wire, **transport["server"]) as server:
        answers = await talk_and_end(server, transport["client"], asked)
    assert answers == [Response(200, body=f"answer to {asked.method} ".encode() + asked.body)]


@each_wire_in_turn
@in_each_loop
async def test_so_do_all_requests_before_the_end(wire: Wire, transport: Any) -> None:
    """The last head is not complete: nothing can come of it."""
    async with served(answer_late, wire, **transport["server"]) as server:
        sent = (Request(), POST, Request())
        answers = await talk_and_end(server, transport["client"], *sent, begun_bytes=8)
        await server.context.registry.wait_idle()
    assert [answer.status for answer in answers] == [200] * 3
    assert answers[1].body == b"answer to POST body"


@each_wire_in_turn
@in_each_loop
async def test_a_request_that_lacks_its_body_at_the_end_is_gone(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await asyncio.sleep(0.05)
            await respond(send, b"first")
            return
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        gone.set()

    gone = asyncio.Event()
    async with served(app, wire) as server:
        answers = await talk_and_end(server, None, Request(), Request("POST", body=b"abc", length=10))
        assert answers == [Response(200, body=b"first")]
        await gone.wait()


@each_wire_in_turn
@in_jumping_loop
async def test_a_late_answer_is_written_all_the_same(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert await receive() == DISCONNECT
        await respond(send, b"late")

    async with served(app, wire) as server:
        assert await talk_and_end(server, None, Request()) == [Response(200, body=b"late")]


@each_wire_in_turn
@in_jumping_loop
async def test_an_error_is_answered_too(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert await receive() == DISCONNECT
        raise ValueError("late")

    async with served(app, wire) as server:
        assert await talk_and_end(server, None, Request()) == [INTERNAL_ERROR]
    [record] = error_records(caplog)
    assert record.exc_info is not None


@each_wire_in_turn
@in_each_loop
async def test_a_large_answer_is_whole(wire: Wire, transport: Any) -> None:
    body = b"x" * 5_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.05)
        await respond(send, body)

    async with served(app, wire, **transport["server"]) as server:
        answers = await talk_and_end(server, transport["client"], Request())
    assert answers == [Response(200, body=body)]


@each_wire_in_turn
@in_each_loop
async def test_timeout_write_holds_for_who_takes_nothing_of_it(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.05)
        await send(START)
        for _ in range(100):
            await send({**MORE, "body": bytes(2**20)})

    async with served(app, wire, timeout_write=0.2) as server:
        client = await server.connect(limit=1000)
        await client.put(Request())
        client.half_close()
        await server.context.registry.wait_idle()


@each_wire_in_turn
@in_each_loop
async def test_a_reset_behind_the_end_is_told_at_once(wire: Wire, ended: asyncio.Event) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waits.set()
        assert await receive() == DISCONNECT
        told.set_result(now())

    waits, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with served(app, wire, timeout_keep_alive=0.2) as server:
        client = await server.connect()
        await client.put(Request())
        client.half_close()
        await waits.wait()
        await ended.wait()
        left_at = now()
        client.reset()
        assert await told - left_at < 1.0


# --- The access log ---


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("begun", [True, False])
@each_wire
@in_jumping_loop
async def test_a_response_that_nobody_took_is_one_line(
    wire: Wire, begun: bool, how: str, access_lines: Callable[[], list[str]]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if begun:
            await send(START)
            await send(MORE)
        waits.set()
        assert await receive() == DISCONNECT
        if not begun:
            await send(START)
        while server.context.registry.connection_count:
            await send(MORE)
        await send({"type": "http.response.body"})

    waits = asyncio.Event()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await waits.wait()
        if begun:
            await client.until(b"piece")
        leave(client, how)
        await server.context.registry.wait_idle()
        lines = access_lines()
    assert len(lines) == 1
    assert lines[0].startswith("GET / 499 ")


@each_wire
@in_jumping_loop
async def test_one_that_was_given_up_is_one_line_too(
    wire: Wire, access_lines: Callable[[], list[str]]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert await receive() == DISCONNECT

    async with served(app, wire) as server:
        assert await talk_and_end(server, None, Request()) == []
        await server.context.registry.wait_idle()
        assert access_lines() == ["GET / 499 0"]


@each_wire_in_turn
@in_loop
async def test_a_whole_response_has_its_own_status(wire: Wire, access_lines: Callable[[], list[str]]) -> None:
    async with served(answer_late, wire) as server:
        await talk_and_end(server, None, Request(), POST)
        await server.context.registry.wait_idle()
        assert access_lines() == ["GET / 200 14", "POST / 200 19"]


@each_wire
@in_loop
async def test_what_the_server_refuses_within_the_body_is_not_the_clients_leaving(
    wire: Wire, access_lines: Callable[[], list[str]]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)

    async with served(app, wire, limit_request_body=10) as server:
        client = await server.connect()
        await client.begin(body=b"abcde")
        await client.send(b"x" * 15)
        assert [answer.status for answer in await client.responses()] == [413]
        client.close()
        await server.context.registry.wait_idle()
        assert not any("499" in line for line in access_lines())


# --- While the server ends ---


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("phase", ["drain", "grace"])
@each_wire
@in_each_loop
async def test_a_client_that_leaves_while_the_server_ends_is_no_exception(
    wire: Wire, phase: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(MORE)
        await draining.wait()
        while server.context.registry.connection_count:
            await send(MORE)
            await asyncio.sleep(0)
        for _ in range(10):
            await send(MORE)
        returned.set()

    draining, returned = asyncio.Event(), asyncio.Event()
    settings = {"timeout_drain": 1} if phase == "drain" else {"timeout_graceful_shutdown": 5}
    async with served(app, wire, **settings) as server:
        client = await server.connect()
        await client.put(Request())
        await client.until(b"piece")
        ending = asyncio.create_task(server.stop())
        while not server.context.draining:
            await asyncio.sleep(0)
        draining.set()
        leave(client, how)
        await returned.wait()
        await ending
    assert error_records(caplog) == []
