"""Sinks on sockets: ends and resets, pauses, slow readers, files, descriptors that others have too."""

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from exchanges import START
from watching import Peer, WatchedPeer, next_descriptor, watch_sinks
from wire import (
    CLOSE,
    Served,
    echo,
    error_records,
    hello,
    in_each_loop,
    in_turn_of_its_own,
    post,
    read_body,
    request,
    respond,
    served,
)

READ_BYTES = 262_144  # of one read, at most
HIGH_BYTES, LOW_BYTES = (
    65_536,
    16_384,
)  # held; above the first a sender waits, until it is no more than the second
SMALL = 4096  # of a send buffer
QUIET_TURNS = 20  # of the event loop, in which the server would read what it reads

Events = list[tuple[str, int]]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """What happens on all connections of servers that start from now on."""
    events: Events = []
    watch_sinks(monkeypatch, lambda event, n: events.append((event, n)))
    return events


@pytest.fixture
def acceptors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Of servers that start from now on."""
    return watch_sinks(monkeypatch, lambda event, n: None)


def sizes_of_reads(events: Events) -> list[int]:
    return [n for event, n in events if event == "read ends"]


async def until(condition: Any) -> None:
    """Turn the event loop until a condition holds; the test's time bounds it."""
    while not condition():
        await asyncio.sleep(0)


async def measure(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of bytes of the body."""
    await respond(send, b"%d bytes" % len(await read_body(receive)))


# --- Ends and resets ---

each_moment = pytest.mark.parametrize("moment", ["as it is accepted", "later"])


async def connect(server: Served, moment: str) -> Peer:
    """A peer that the server accepts once the event loop turns, or has answered already."""
    peer = Peer.connect(server)
    if moment == "later":
        peer.send(post(b""))
        await peer.until(b"0 bytes")
    return peer


@each_moment
@in_each_loop
async def test_an_end_that_comes_with_the_last_bytes_is_seen(moment: str, events: Events) -> None:
    async with served(measure) as server:
        peer = await connect(server, moment)
        peer.send(post(b"abc"))
        peer.end()
        assert (await peer.rest()).endswith(b"3 bytes")
        await until(lambda: ("lost", 0) in events)
    assert sizes_of_reads(events)[-1] == len(post(b"abc"))
    assert events.count(("end", 0)) == 1


@pytest.mark.parametrize("over", [-1, 0, 1])
@each_moment
@in_each_loop
async def test_an_end_behind_a_full_buffer_is_seen(
    moment: str, over: int, events: Events, tmp_path: Path
) -> None:
    size = READ_BYTES + over
    head = request("POST / HTTP/1.1", "content-length: 000000")
    body = bytes(size - len(head))
    async with served(measure, uds=str(tmp_path / "socket")) as server:
        peer = await connect(server, moment)
        del events[:]
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        peer.send(head.replace(b"000000", b"%06d" % len(body)) + body)
        peer.end()
        assert (await peer.rest()).endswith(b"%d bytes" % len(body))
        await until(lambda: ("lost", 0) in events)
    assert sizes_of_reads(events) == [READ_BYTES, 1] if over == 1 else [size]


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("rest", [0, 50_000, 100_000])
@in_each_loop
async def test_what_comes_while_reading_is_paused_is_seen_afterwards(
    rest: int, how: str, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """The length of the body says 200 000, of which 100 000 come before."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await goes_on.wait()
        while (message := await receive())["type"] == "http.request":
            pieces.append(message["body"])
            if not message["more_body"]:
                await respond(send, b"whole")
                return
        pieces.append(b"disconnect")

    begun, goes_on = asyncio.Event(), asyncio.Event()
    pieces: list[bytes] = []
    is_whole = rest == 100_000
    async with served(app) as server:
        peer = Peer.connect(server)
        peer.send(request("POST / HTTP/1.1", "content-length: 200000"))
        await begun.wait()
        peer.send(bytes(100_000))
        await until(lambda: sum(sizes_of_reads(events)) > 100_000)
        del events[:]
        sent = 0
        while sent < rest:
            with contextlib.suppress(BlockingIOError):
                sent += peer.socket.send(bytes(rest - sent))
            await asyncio.sleep(0)
        peer.end() if how == "end" else peer.reset()
        for _ in range(QUIET_TURNS):
            await asyncio.sleep(0)
        assert sizes_of_reads(events) == []
        goes_on.set()
        if how == "end":
            assert (await peer.rest()).endswith(b"whole") == is_whole
        await until(lambda: ("lost", 0) in events)
        await server.context.registry.wait_idle()
    if how == "end":
        assert pieces[-1] == (bytes(len(pieces[-1])) if is_whole else b"disconnect")
        assert sum(len(piece) for piece in pieces if piece != b"disconnect") == 100_000 + rest
    elif not is_whole:
        assert pieces[-1] == b"disconnect"
    assert error_records(caplog) == []


@in_each_loop
async def test_a_reset_while_a_response_is_held_ends_it(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        sends.set()
        await send({"type": "http.response.body", "body": bytes(100_000_000)})
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    sends, heard = asyncio.Event(), asyncio.Event()
    async with served(app) as server:
        peer = Peer.connect(server)
        peer.send(request())
        await sends.wait()
        await peer.read()
        peer.reset()
        await heard.wait()
        await server.context.registry.wait_idle()
    assert ("lost", 0) in events
    assert error_records(caplog) == []


@in_each_loop
async def test_a_gentle_end_waits_for_what_is_held(acceptors: list[Any]) -> None:
    """The client still sends: a close would reset the connection, and the client might lose the answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"x" * 60_000)

    async with served(app):
        peer = await open_peer(acceptors[0], sent=request() + b"no request\r\n\r\n", send_buffer=SMALL)
        await until(lambda: peer.sink.held_bytes)
        answer = b""
        while piece := await peer.read(1000):
            answer += piece
            peer.send(b"more")
            await asyncio.sleep(0)
        first, _, second = answer.partition(b"x" * 60_000)
        assert first.startswith(b"HTTP/1.1 200 ")
        assert second.startswith(b"HTTP/1.1 400 ")
        assert not peer.is_lost
        peer.close()
        await until(lambda: peer.is_lost)


# --- Slow readers ---


async def open_peer(acceptor: Any, **options: Any) -> WatchedPeer:
    """A peer that the acceptor has accepted in a turn of its own."""
    peers: list[WatchedPeer] = []
    await in_turn_of_its_own(lambda: peers.append(WatchedPeer(acceptor, **options)))
    return peers[0]


@in_each_loop
async def test_a_sender_waits_between_the_marks(acceptors: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"2000000")]})
        for _ in range(200):
            was_blocked = peers[0].sink.is_blocked
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            if was_blocked:
                resumed_at.append(peers[0].sink.held_bytes)
            await asyncio.sleep(0)
            most.append(peers[0].sink.held_bytes)
        await send({"type": "http.response.body"})

    peers: list[WatchedPeer] = []
    most: list[int] = []
    resumed_at: list[int] = []
    async with served(app):
        peers.append(await open_peer(acceptors[0], send_buffer=SMALL))
        peers[0].send(request())
        body = 0
        while body < 2_000_000:
            body += len(await peers[0].read(3000))
            await asyncio.sleep(0)
    # A piece that is put while another waits for the end of the loop's turn is sent with that
    assert HIGH_BYTES < max(most) <= HIGH_BYTES + 20_000
    assert len(resumed_at) > 20
    assert max(resumed_at) <= LOW_BYTES


@pytest.mark.parametrize("most", [1000, 50_000])
@in_each_loop
async def test_a_slow_reader_gets_all_of_a_file(most: int, acceptors: list[Any], tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"%d" % (700 * most))]})
        await send({"type": "http.response.pathsend", "path": str(file)})

    file = tmp_path / "file"
    file.write_bytes(os.urandom(700 * most))
    async with served(app):
        peer = await open_peer(acceptors[0], send_buffer=SMALL, sent=request("GET / HTTP/1.1", CLOSE))
        answer = bytearray()
        while piece := await peer.read(most):
            answer += piece
            await asyncio.sleep(0)
    assert answer.endswith(b"\r\n\r\n" + file.read_bytes())


@in_each_loop
async def test_a_file_may_find_no_room_as_its_connection_is_accepted(
    acceptors: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.pathsend", "path": str(file)})

    def full_at_first(*arguments: Any) -> int:
        monkeypatch.setattr(os, "sendfile", sendfile)
        raise BlockingIOError

    sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", full_at_first)
    file = tmp_path / "file"
    file.write_bytes(b"content")
    async with served(app):
        peer = await open_peer(acceptors[0], sent=request("GET / HTTP/1.1", CLOSE))
        assert (await peer.rest()).endswith(b"content")


# --- A descriptor that another process has, too ---


@pytest.mark.filterwarnings("ignore:.*fork")
@in_each_loop
async def test_what_a_forked_child_holds_wakes_nobody(acceptors: list[Any]) -> None:
    """The child keeps the connection open: bytes still come on it, also when its number is another's."""
    async with served(hello):
        peer = await open_peer(acceptors[0], sent=request())
        await peer.until(b"hello")
        held, release = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(release)
            os.read(held, 1)
            os._exit(0)
        os.close(held)
        try:
            peer.send(request("GET / HTTP/1.1", CLOSE))
            await peer.until(b"hello")
            await until(lambda: peer.is_lost)
            with next_descriptor(peer.descriptor):
                other = await open_peer(acceptors[0])
            assert other.descriptor == peer.descriptor
            del other.events[:]
            cpu_s = time.process_time()
            for _ in range(5):
                peer.send(b"more")
                await asyncio.sleep(0.1)
            assert time.process_time() - cpu_s < 0.1
            assert other.events == []
            other.send(request())
            await other.until(b"hello")
        finally:
            os.close(release)
            os.waitpid(child, 0)


@in_each_loop
async def test_each_connection_is_answered_with_its_own(events: Events) -> None:
    """Many at once, each with a request that waits when it is accepted."""
    async with served(echo) as server:
        peers = [Peer.connect(server) for _ in range(100)]
        for i, peer in enumerate(peers):
            peer.send(request(f"GET /{i} HTTP/1.1", CLOSE))
        for i, peer in enumerate(peers):
            assert (await peer.rest()).endswith(b"GET /%d? " % i)
    assert len(sizes_of_reads(events)) == 100
