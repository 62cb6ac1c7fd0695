"""How many connections are open: who is closed for others, and who waits."""

import asyncio
from typing import Any

import pytest
from certificates import Authority, Pair
from watching import Peer
from wire import CLOSE, Served, hello, in_each_loop, move_clock, request, respond, served

FULL = "New connections wait: {} are open, which is limit_connections, and none of them is idle"
HELLO = b"hello"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning about connections."""
    return [x.getMessage() for x in caplog.records if x.getMessage().startswith("New connections")]


async def ask(server: Served) -> Peer:
    """A client that has had an answer, and is idle."""
    peer = Peer.connect(server)
    await ask_again(peer)
    return peer


async def ask_again(peer: Peer) -> None:
    peer.send(request())
    await peer.until(HELLO)


async def until(condition: Any) -> None:
    """Turn the event loop until a condition holds; the test's time bounds it."""
    while not condition():
        await asyncio.sleep(0)


class Held:
    """An application whose requests for /held, and WebSockets, last until they are let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.goes_on = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            self.begun.release()
            await self.goes_on.acquire()
            await send({"type": "websocket.close"})
            return
        if scope["path"] == "/held":
            self.begun.release()
            await self.goes_on.acquire()
        await respond(send, HELLO)

    async def hold(self, server: Served) -> Peer:
        """A client whose request runs."""
        peer = Peer.connect(server)
        peer.send(request("GET /held HTTP/1.1"))
        await self.begun.acquire()
        return peer


# --- Who is closed for others ---


@in_each_loop
async def test_the_connection_that_has_been_idle_for_longest_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(hello, limit_connections=5) as server:
        peers = [await ask(server) for _ in range(5)]
        for i in (3, 0, 4, 2):
            await ask_again(peers[i])
        for i in (1, 3, 0, 4, 2):
            newcomer = await ask(server)
            assert await peers[i].rest() == b""
            assert server.context.registry.connection_count == 5
            peers.append(newcomer)
        for peer in peers[5:]:
            await ask_again(peer)  # they are open still
            peer.close()
    assert warnings(caplog) == []


@in_each_loop
async def test_a_client_that_has_asked_again_is_not_the_longest_idle_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also if it was known as idle before."""
    async with served(hello, limit_connections=3) as server:
        first, second, third = [await ask(server) for _ in range(3)]
        fourth = await ask(server)
        assert await first.rest() == b""
        await ask_again(second)
        fifth = await ask(server)
        assert await third.rest() == b""
        for peer in (second, fourth, fifth):
            await ask_again(peer)
        sixth = await ask(server)
        assert await second.rest() == b""
        for peer in (fourth, fifth, sixth):
            await ask_again(peer)
            peer.close()
    assert warnings(caplog) == []


@in_each_loop
async def test_below_the_limit_connections_are_kept() -> None:
    async with served(hello, limit_connections=3) as server:
        peers = [await ask(server) for _ in range(3)]
        for _ in range(3):
            for peer in peers:
                await ask_again(peer)
        peers.pop().close()
        await until(lambda: server.context.registry.connection_count == 2)
        peers.append(await ask(server))
        for peer in peers:
            await ask_again(peer)
            peer.close()


@in_each_loop
async def test_nobody_is_closed_where_nobody_waits() -> None:
    """Nor is a client that has not asked for anything yet."""
    async with served(hello, limit_connections=2) as server:
        for _ in range(3):
            peers = [Peer.connect(server) for _ in range(2)]
            await until(lambda: server.context.registry.connection_count == 2)
            for _ in range(10):
                await asyncio.sleep(0)
            for peer in peers:
                await ask_again(peer)
                peer.close()
            await until(lambda: server.context.registry.connection_count == 0)


@in_each_loop
async def test_who_waits_at_the_end_is_served() -> None:
    """Nobody else will: the limit does not count any more."""
    async with served(hello, limit_connections=2, timeout_graceful_shutdown=5) as server:
        for _ in range(2):
            await ask(server)
        waiting = [Peer.connect(server) for _ in range(10)]
        for peer in waiting:
            peer.send(request("GET / HTTP/1.1", CLOSE))
        server.server.should_exit = True
        for peer in waiting:
            assert (await peer.rest()).endswith(HELLO)


@in_each_loop
async def test_one_connection_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    async with served(hello, limit_connections=1) as server:
        last = await ask(server)
        for _ in range(10):
            peer = await ask(server)
            assert await last.rest() == b""
            last = peer
        await ask_again(last)
        last.close()
    assert warnings(caplog) == []


@in_each_loop
async def test_many_clients_take_turns_in_few_connections() -> None:
    """All of them connect at once, and then ask, a while later: none is closed before it was answered."""

    async def client(number: int) -> None:
        peer = Peer.connect(server)
        for _ in range(number % 3):
            await asyncio.sleep(0)
        await ask_again(peer)
        peer.close()

    async with served(hello, limit_connections=4) as server:
        await asyncio.gather(*(client(number) for number in range(40)))


@in_each_loop
async def test_handshakes_that_go_on_are_not_closed_for_others(authority: Authority, pair: Pair) -> None:
    async def client() -> None:
        client = await server.connect(ssl=authority.client(), server_hostname="localhost")
        assert (await client.ask(request())).body == HELLO

    async with served(hello, limit_connections=3, **pair.settings) as server:
        await asyncio.gather(*(client() for _ in range(12)))


# --- Who is never closed ---


@in_each_loop
async def test_a_running_request_is_not_closed(caplog: pytest.LogCaptureFixture) -> None:
    app = Held()
    async with served(app, limit_connections=3) as server:
        idle = await ask(server)
        held = [await app.hold(server) for _ in range(2)]
        newcomers = [Peer.connect(server) for _ in range(2)]
        for peer in newcomers:
            peer.send(request("GET /held HTTP/1.1"))
        assert await idle.rest() == b""
        await until(lambda: warnings(caplog))
        assert server.context.registry.connection_count == 3
        app.goes_on.release()
        await held[0].until(HELLO)
        assert await held[0].rest() == b""  # idle now, and another waits
        app.goes_on.release()
        await held[1].until(HELLO)
        held[1].close()
        for peer in newcomers:
            app.goes_on.release()
            await peer.until(HELLO)
            peer.close()
    assert warnings(caplog) == [FULL.format(3)]


@in_each_loop
async def test_a_websocket_is_not_closed(caplog: pytest.LogCaptureFixture) -> None:
    app = Held()
    async with served(app, limit_connections=1) as server:
        socket_client = await server.connect()
        await socket_client.shake()
        await app.begun.acquire()
        newcomer = Peer.connect(server)
        newcomer.send(request())
        await until(lambda: warnings(caplog))
        assert server.context.registry.connection_count == 1
        app.goes_on.release()
        assert await socket_client.reader.readexactly(4) == b"\x88\x02\x03\xe8"  # code 1000
        await socket_client.write(b"\x88\x82\0\0\0\0\x03\xe8")
        await newcomer.until(HELLO)
        newcomer.close()
    assert warnings(caplog) == [FULL.format(1)]


@in_each_loop
async def test_the_warning_comes_again_after_it_was_over(caplog: pytest.LogCaptureFixture) -> None:
    app = Held()
    async with served(app, limit_connections=1) as server:
        for count in (1, 2, 3):
            held = await app.hold(server)
            newcomers = [Peer.connect(server) for _ in range(3)]
            for peer in newcomers:
                peer.send(request())
            await until(lambda count=count: len(warnings(caplog)) == count)
            held.close()
            app.goes_on.release()
            for peer in newcomers:
                await peer.until(HELLO)
                peer.close()
            await until(lambda: server.context.registry.connection_count == 0)
    assert warnings(caplog) == 3 * [FULL.format(1)]


# --- Slow beginnings ---

HALF_A_HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
HALF_A_PROXY_HEADER = b"PROXY TCP4 192.0.2.1 "


@pytest.mark.parametrize(
    ("begin", "settings"),
    [
        (b"", {}),
        (HALF_A_HEAD, {}),
        (b"", {"proxy_protocol": ["127.0.0.1"]}),
        (HALF_A_PROXY_HEADER, {"proxy_protocol": ["127.0.0.1"]}),
        (b"", {"tls": True}),
        (b"\x16\x03\x01\x01\x00", {"tls": True}),
    ],
    ids=["nothing", "half a head", "no PROXY header", "half of one", "no handshake", "half of one"],
)
@in_each_loop
async def test_a_slow_beginning_gives_way_after_a_second(
    begin: bytes, settings: dict[str, Any], pair: Pair, authority: Authority
) -> None:
    settings = pair.settings if "tls" in settings else settings
    async with served(hello, limit_connections=2, **settings) as server:
        slow = [Peer.connect(server) for _ in range(2)]
        for peer in slow:
            if begin:
                peer.send(begin)
        await until(lambda: server.context.registry.connection_count == 2)
        newcomer = Peer.connect(server)
        await move_clock(server, 0.5)
        for _ in range(10):
            await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            slow[0].socket.recv(1)
        await move_clock(server, 1.5)
        assert await slow[0].rest() == b""
        with pytest.raises(BlockingIOError):
            slow[1].socket.recv(1)
        newcomer.close()
        slow[1].close()
