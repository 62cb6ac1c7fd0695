"""What happens on the wire while more comes than can be answered: requests are refused, and nothing else."""

import asyncio
import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from clientframes import frame
from http2peer import ErrorCode, HTTP2Peer
from serving import WAIT_S
from wire import (
    CLOSE,
    Client,
    Response,
    Served,
    chunked,
    in_each_loop,
    in_loop,
    request,
    respond,
    served,
)

from fastasgi.admin.counts import read_counts

DELAY_S = 0.005
INTERVAL_S = 20 * DELAY_S
STALL_S = 0.04  # of a turn of the event loop: so late that nobody is let in
OVERLOAD = "Overload: for 0.1 s requests have waited"


class Load:
    """What makes a server's event loop late: work of so many seconds a turn, and a crowd of requests."""

    def __init__(self, server: Served) -> None:
        self.seconds = 0.0
        self._server = server
        self._ended = False

    async def run(self) -> None:
        crowd = Client(*await asyncio.open_connection(self._server.server.config.host, self._server.port))
        reading = asyncio.create_task(crowd.rest())
        while not self._ended:
            if self.seconds:
                time.sleep(self.seconds)
                crowd.writer.write(20 * request())
            await asyncio.sleep(0 if self.seconds else 0.001)
        crowd.close()
        with contextlib.suppress(ConnectionError):
            await reading

    def end(self) -> None:
        self._ended = True


@contextlib.asynccontextmanager
async def loaded(app: Any, **settings: Any) -> AsyncIterator[tuple[Served, Load]]:
    """A server that refuses requests, and a load that has not begun."""
    async with served(app, **{"overload_delay": DELAY_S, **settings}) as server:
        load = Load(server)
        working = asyncio.create_task(load.run())
        try:
            yield server, load
        finally:
            load.end()
            await working


async def refused(server: Served, ask: bytes = request(), method: str = "GET") -> tuple[Client, Response]:
    """Ask until it is refused, since some are let in all the same: the connection and the answer."""
    client: Client = await server.connect()
    for _ in range(300):
        response = await client.ask(ask, method)
        if response.status == 503:
            return client, response
        if (b"connection", b"close") in response.headers:
            client = await server.connect()
    pytest.fail("nothing was refused")


async def overload(server: Served, load: Load) -> None:
    """Have the loop late until requests are refused."""
    load.seconds = STALL_S
    await refused(server)


async def recover(server: Served, load: Load) -> None:
    """Have the loop in time until nothing is refused any more."""
    load.seconds = 0
    client = await server.connect()
    answered = 0
    for _ in range(1000):
        answered = answered + 1 if (await client.ask(request())).status == 200 else 0
        if answered == 50:
            return
        await asyncio.sleep(DELAY_S)
    pytest.fail("requests are refused without an overload")


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"hello")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of overloads and refusals."""
    found = [record.getMessage() for record in caplog.records]
    return [text for text in found if "verload" in text or "refused" in text]


@in_each_loop
async def test_requests_are_refused_while_the_loop_is_late(caplog: pytest.LogCaptureFixture) -> None:
    async with loaded(hello) as (server, load):
        client = await server.connect()
        assert (await client.ask(request())).status == 200
        await overload(server, load)
        refusing, answer = await refused(server)
        assert (answer.reason, answer.body) == (b"Service Unavailable", b"Service Unavailable")
        assert answer[b"retry-after"] in (b"1", b"2", b"3")
        assert b"connection" not in answer
        await recover(server, load)
        assert (await refusing.ask(request())).status == 200
    begin, end = messages(caplog)
    assert begin.startswith(OVERLOAD)
    assert re.fullmatch(r"The overload is over after \d+\.\d s: \d+ requests were refused", end)


@in_each_loop
async def test_a_stall_and_the_requests_that_wait_meanwhile_are_no_overload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stall":
            time.sleep(3 * INTERVAL_S)
        await respond(send, b"ok")

    async with loaded(app) as (server, _):
        clients = [await server.connect() for _ in range(20)]
        await clients[0].write(request("GET /stall HTTP/1.1"))
        for client in clients[1:]:
            await client.write(request())
        assert [(await client.response()).status for client in clients] == [200] * 20
    assert messages(caplog) == []


@in_each_loop
async def test_what_runs_goes_on_and_health_checks_are_answered() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
            return
        if scope["path"] == "/wait":
            await go_on.wait()
        await respond(send, b"ok")

    async with loaded(app, health_path="/health") as (server, load):
        waiting, websocket = await server.connect(), await server.connect()
        assert (await websocket.shake()).status == 101
        await waiting.write(request("GET /wait HTTP/1.1"))
        await overload(server, load)
        client = await server.connect()
        for _ in range(20):
            assert (await client.ask(request("GET /health HTTP/1.1"))).status == 200
        await websocket.write(frame(1, b"hi"))
        assert await websocket.reader.readexactly(4) == b"\x81\x02hi"
        # To open a WebSocket is a new request
        for _ in range(100):
            if (answer := await (await server.connect()).shake()).status == 503:
                break
        assert (answer.status, b"retry-after" in answer) == (503, True)
        go_on.set()
        assert (await waiting.response()).body == b"ok"
        await recover(server, load)
        assert (await client.shake()).status == 101


@in_each_loop
async def test_the_connection_stays_where_the_client_lets_it() -> None:
    async with loaded(hello) as (server, load):
        await overload(server, load)
        client, answer = await refused(server, request("GET / HTTP/1.0", "connection: keep-alive"))
        assert answer[b"connection"] == b"keep-alive"
        await client.ask(request())
        client, answer = await refused(server, request("HEAD / HTTP/1.1"), "HEAD")
        assert (b"connection" in answer, answer[b"content-length"]) == (False, b"19")
        await client.ask(request())
        for ask in (request("GET / HTTP/1.1", CLOSE), request("GET / HTTP/1.0")):
            client, answer = await refused(server, ask)
            assert answer[b"connection"] == b"close"
            assert await client.rest() == b""


BODY = b"a" * 1000
BODIES = {
    "Content-Length": request("POST / HTTP/1.1", "content-length: 1000", body=BODY),
    "chunked": request("POST / HTTP/1.1", "transfer-encoding: chunked", body=chunked(BODY)),
    "empty": request("POST / HTTP/1.1", "content-length: 0"),
}


@pytest.mark.parametrize("how", BODIES)
@in_loop
async def test_the_body_is_read_for_nobody(how: str) -> None:
    async with loaded(hello) as (server, load):
        await overload(server, load)
        client, _ = await refused(server, BODIES[how])
        assert (await client.ask(request())).body
        if how != "empty":
            # The answer does not wait for the end of the body
            client, _ = await refused_at_first(server, BODIES[how][:-500])
            await client.write(BODIES[how][-500:])
            assert (await client.ask(request())).body
        await recover(server, load)
        assert (await client.ask(request())).status == 200


async def refused_at_first(server: Served, ask: bytes) -> tuple[Client, Response]:
    """As refused(), each time on a new connection, since the request is not whole."""
    for _ in range(300):
        client: Client = await server.connect()
        if (response := await client.ask(ask)).status == 503:
            return client, response
    pytest.fail("nothing was refused")


@in_loop
async def test_a_body_that_is_not_worth_reading_ends_the_connection() -> None:
    async with loaded(hello) as (server, load):
        await overload(server, load)
        for fields in (("content-length: 100000000",), ("content-length: 9", "expect: 100-continue")):
            client, answer = await refused_at_first(server, request("POST / HTTP/1.1", *fields))
            assert answer[b"connection"] == b"close"
            assert await client.rest() == b""
        ask = request("POST / HTTP/1.1", "transfer-encoding: chunked")
        for body in (200 * (b"10000\r\n" + b"a" * 0x10000 + b"\r\n"), b"no chunk\r\n"):
            client, answer = await refused_at_first(server, ask)
            assert b"connection" not in answer
            with contextlib.suppress(ConnectionError):
                await client.write(body)
                assert await client.rest() == b""


@in_each_loop
async def test_pipelined_requests_are_refused_one_by_one() -> None:
    async with loaded(hello) as (server, load):
        await overload(server, load)
        client = await server.connect()
        whole = request() + BODIES["chunked"] + BODIES["Content-Length"] + request()
        await client.write(30 * whole)
        statuses = [(await client.response()).status for _ in range(120)]
        assert set(statuses) <= {200, 503}
        assert statuses.count(503) > 60


@in_each_loop
async def test_http2_refuses_streams_and_blames_nobody() -> None:
    async with loaded(hello) as (server, load):
        await overload(server, load)
        server.client_type = HTTP2Peer
        peer = await server.connect()
        await peer.open()
        found = []
        # More than what a client may cost
        while len(found) < 300:
            streams = [await peer.request("GET", "/") for _ in range(50)]
            answers = [await peer.response(stream) for stream in streams]
            found += [answer for answer in answers if answer.status != 200]
        for answer in found:
            assert (answer.status, answer.is_whole, answer.reset) == (503, True, None)
            assert answer[b"retry-after"] in (b"1", b"2", b"3")
        streams = [await peer.begin("POST", "/", end_stream=False) for _ in range(50)]
        answers = [await peer.response(stream) for stream in streams]
        await peer.settle()
        resets = {answer.reset for answer in answers if answer.status == 503}
        assert resets == {ErrorCode.NO_ERROR}
        server.client_type = Client
        await recover(server, load)
        assert (await peer.ask("GET", "/")).body == b"hello"
        assert peer.goaways == []


@in_each_loop
async def test_refusals_are_counted_as_such() -> None:
    async with loaded(hello, health_path="/health") as (server, load):
        memory = server.context.counters.memory
        await overload(server, load)
        load.seconds = 0
        [counts] = read_counts(memory)
        assert (counts.is_shedding, counts.sheds) == (True, 1)
        assert counts.refusals["overload"] > 0
        assert counts.refusals["concurrency"] == 0
        assert counts.last_refusals == []
        await recover(server, load)
        [counts] = read_counts(memory)
        assert (counts.is_shedding, counts.sheds) == (False, 1)


@in_loop
async def test_nothing_is_looked_at_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(hello, overload_delay=DELAY_S) as server:
        client = await server.connect()
        assert (await client.ask(request())).status == 200
        await asyncio.sleep(4 * DELAY_S)  # the probe goes off once or twice more
        loop = asyncio.get_running_loop()
        call_later, delays = loop.call_later, []

        def note(delay: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
            delays.append(delay)
            return call_later(delay, *arguments, **options)

        monkeypatch.setattr(loop, "call_later", note)
        await asyncio.sleep(20 * DELAY_S)
        assert [delay for delay in delays if delay < DELAY_S] == []


@in_each_loop
async def test_a_shutdown_while_requests_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait() if scope["path"] == "/wait" else None
        await respond(send, b"ok")

    async with loaded(app, timeout_graceful_shutdown=5) as (server, load):
        waiting = await server.connect()
        await waiting.write(request("GET /wait HTTP/1.1"))
        await overload(server, load)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.1)
        load.end()
        go_on.set()
        assert (await waiting.response()).body == b"ok"
        await stopping
    assert messages(caplog)[0].startswith(OVERLOAD)
    assert messages(caplog)[-1].startswith("The overload is over after")


# --- Who is refused ---


async def ask_for(seconds: float, server: Served, keeps: bool) -> list[int]:
    """The statuses that a client gets which asks again as soon as it is answered: always on one connection,
    or each time on a new one."""
    statuses = []
    ends_at = time.monotonic() + seconds
    client = await server.connect()
    while time.monotonic() < ends_at:
        statuses.append((await client.ask(request("GET / HTTP/1.1", *([] if keeps else [CLOSE])))).status)
        if not keeps:
            client = await server.connect()
    return statuses


@in_each_loop
async def test_standing_and_new_connections_are_refused_alike() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(0.003)
        await respond(send, b"ok")

    async with served(app, overload_delay=DELAY_S) as server:
        found = await asyncio.gather(*(ask_for(1.5, server, keeps) for keeps in (True, False) * 15))
    shares = []
    for group in (found[::2], found[1::2]):
        statuses = [status for one in group for status in one[len(one) // 3 :]]
        shares.append(statuses.count(200) / len(statuses))
    standing, new = shares
    print(f"let in: {standing:.0%} of standing connections' requests, {new:.0%} of new ones'")
    # The clients share the server's event loop, in which whoever connects has to wait for more turns
    assert 0 < standing < 8 * new < 64 * standing < 64


# --- A connection for each request ---

CROWD_S = 0.4  # a crowd that can be served in it is taken in at once


async def ask_once(server: Served) -> int:
    """The status of a request on a connection of its own, which ends with it."""
    client = await server.connect()
    status = (await client.ask(request("GET / HTTP/1.1", "connection: close"))).status
    client.close()
    return status


@in_each_loop
async def test_requests_with_a_connection_each_are_refused_too() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(DELAY_S)
        await respond(send)

    async def ask_again() -> None:
        while 503 not in statuses:
            statuses.append(await ask_once(server))

    statuses: list[int] = []
    async with served(app, overload_delay=DELAY_S) as server:
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(ask_again() for _ in range(100)))
    assert 200 in statuses


async def answers_to_crowd(server: Served, size: int) -> list[bytes]:
    """The first bytes of the answers to so many requests, each on a connection of its own.

    All of them wait in the system's queue before the server sees the first.
    """
    assert server.port is not None
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(size)
        ]
        for sock in socks:
            sock.sendall(request("GET / HTTP/1.1", "connection: close"))
            sock.setblocking(False)
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.sock_recv(sock, len(b"HTTP/1.1 200")) for sock in socks))


@in_each_loop
async def test_a_crowd_of_connections_that_can_be_served_at_once_is_no_overload() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(0.002)
        await respond(send)

    async with served(app, overload_delay=10 * DELAY_S) as server:
        assert await answers_to_crowd(server, 100) == 100 * [b"HTTP/1.1 200"]


@in_each_loop
async def test_a_crowd_of_connections_leaves_turns_to_others() -> None:
    turn = 0
    turns: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        turns.append(turn)
        time.sleep(DELAY_S)
        await respond(send)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with served(app, overload_delay=10 * DELAY_S) as server:
        counting = asyncio.create_task(count_turns())
        try:
            assert len(await answers_to_crowd(server, 250)) == 250
        finally:
            counting.cancel()
    ((_, most),) = Counter(turns).most_common(1)
    assert 1 < most <= CROWD_S / DELAY_S + 1
