"""The poller: what one event of a batch does to the others, and where the next ones are told."""

import asyncio
import contextlib
import contextvars
import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest
from nestingloop import in_nesting_loop, nested, turn_until
from reentry import exit_at_refusal, run_on
from watching import Peer, WatchedPeer, next_descriptor, watch_sinks
from wire import (
    CLOSE,
    error_records,
    in_each_loop,
    in_turn_of_its_own,
    post,
    read_body,
    request,
    respond,
    served,
)

EVENTS_MOST = 512  # of one turn
READABLE = 1

FIRST = request("GET /first HTTP/1.1")
OK = request("GET /ok HTTP/1.1")
NO_REQUEST = b"no request\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def acceptors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Of servers that start from now on."""
    return watch_sinks(monkeypatch, lambda event, n: None)


async def open_peers(acceptor: Any, count: int) -> list[WatchedPeer]:
    """Peers whose connections are open and have nothing to tell."""
    peers: list[WatchedPeer] = []
    await in_turn_of_its_own(lambda: peers.extend(WatchedPeer(acceptor) for _ in range(count)))
    return peers


async def until(condition: Callable[[], object]) -> None:
    """Turn the event loop until a condition holds; the test's time bounds it."""
    while not condition():
        await asyncio.sleep(0)


def doing(act: Callable[[], Any]) -> Any:
    """An application that acts for the path /first, and answers all with "ok"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            result = act()
            if asyncio.iscoroutine(result):
                await result
        await respond(send, b"ok")

    return app


def ready_count(peer: WatchedPeer) -> int:
    return sum(event == "ready" for event, _ in peer.events)


# --- One event of a batch ends another's connection ---


@in_each_loop
async def test_who_is_closed_by_another_of_its_batch_hears_nothing(
    acceptors: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(doing(lambda: peers[1].sink.break_off())):
        peers = await open_peers(acceptors[0], 3)
        for peer, data in zip(peers, (FIRST, OK, OK), strict=True):
            peer.send(data)
        for peer in (peers[0], peers[2]):
            assert await peer.until(b"ok") == ANSWER
        with contextlib.suppress(ConnectionResetError):
            assert await peers[1].rest() == b""
        assert ready_count(peers[1]) == 0
        assert peers[1].is_lost
    assert error_records(caplog) == []


@in_each_loop
async def test_a_descriptors_next_connection_has_no_event_of_the_last_one(acceptors: list[Any]) -> None:
    """Though its number is given anew while an event of the last one is in the same batch."""

    def replace() -> None:
        last.sink.break_off()
        with next_descriptor(last.descriptor):
            opened.append(WatchedPeer(acceptors[0]))

    opened: list[WatchedPeer] = []
    gc.collect()  # or descriptors that other tests have left may come free meanwhile
    async with served(doing(replace)):
        first, last = await open_peers(acceptors[0], 2)
        first.send(FIRST)
        last.send(OK)
        last.end()
        assert await first.until(b"ok") == ANSWER
        assert opened[0].descriptor == last.descriptor
        assert ready_count(opened[0]) == 0
        opened[0].send(OK)
        assert await opened[0].until(b"ok") == ANSWER
        assert ready_count(last) == 0


@in_each_loop
async def test_more_are_ready_than_one_turn_tells(acceptors: list[Any]) -> None:
    async with served(doing(lambda: None)):
        peers = await open_peers(acceptors[0], EVENTS_MOST + 20)
        for peer in peers:
            peer.send(OK)
        for peer in peers:
            assert await peer.until(b"ok") == ANSWER
            assert peer.events[0] == ("ready", READABLE)


# --- The loop is left inside an event ---


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_others_of_a_batch_are_served_after_a_system_exit(loop: str, acceptors: list[Any]) -> None:
    async def test() -> None:
        async with served(doing(lambda: None)):
            peers = await open_peers(acceptors[0], 4)
            exit_at_refusal()
            for peer, data in zip(peers, (OK, NO_REQUEST, OK, OK), strict=True):
                peer.send(data)
            for peer in (peers[0], *peers[2:]):
                assert await peer.until(b"ok") == ANSWER

    assert run_on(loop, test) == 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_an_end_that_came_with_the_bytes_of_a_system_exit_is_seen(loop: str, acceptors: list[Any]) -> None:
    async def test() -> None:
        async with served(doing(lambda: None)):
            [peer] = await open_peers(acceptors[0], 1)
            exit_at_refusal()
            peer.send(NO_REQUEST)
            peer.end()
            await until(lambda: ("end", 0) in peer.events)

    assert run_on(loop, test) == 1


# --- The loop is turned inside an event ---


@pytest.mark.parametrize("together", [True, False], ids=["in the same batch", "later"])
@in_nesting_loop
async def test_whoever_turns_the_loop_inside_an_event_sees_others(
    together: bool, acceptors: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def see_others() -> None:
        if not together:
            peers[1].send(OK)
        answers.append(nested(peers[1].until(b"ok")))

    answers: list[bytes] = []
    async with served(doing(see_others)):
        peers = await open_peers(acceptors[0], 2)
        peers[0].send(FIRST)
        if together:
            peers[1].send(OK)
        assert await peers[0].until(b"ok") == ANSWER
    assert answers == [ANSWER]
    assert error_records(caplog) == []


@in_nesting_loop
async def test_whoever_turns_the_loop_inside_a_new_connections_first_read_sees_more_of_it(
    acceptors: list[Any],
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        peers[0].send(b"body")
        await respond(send, nested(read_body(receive)))

    peers: list[Peer] = []
    async with served(app) as server:
        peers.append(Peer.connect(server))
        peers[0].send(post(b"body")[:-4])
        assert (await peers[0].until(b"body")).endswith(b"\r\n\r\nbody")


@in_nesting_loop
async def test_whoever_turns_the_loop_inside_an_event_sees_whom_it_has_closed(acceptors: list[Any]) -> None:
    def close_and_wait() -> None:
        peers[1].sink.break_off()
        turn_until(lambda: peers[1].is_lost)

    async with served(doing(close_and_wait)):
        peers = await open_peers(acceptors[0], 2)
        peers[0].send(FIRST)
        assert await peers[0].until(b"ok") == ANSWER


# --- Contexts ---

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of nobody")


class Noting(logging.Handler):
    """Notes what the variable is where a line with this text is logged."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            self.found.append(variable.get())


@in_each_loop
async def test_no_event_is_told_in_the_context_of_a_request(acceptors: list[Any]) -> None:
    """A request that has more read asks the poller for a turn, in which another's request is refused."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        variable.set("of a request")
        begun.set()
        await goes_on.wait()
        other.send(NO_REQUEST)
        await respond(send, b"%d" % len(await read_body(receive)))

    noting = Noting("refused with 400")
    logging.getLogger("fastasgi.error").addHandler(noting)
    begun, goes_on = asyncio.Event(), asyncio.Event()
    async with served(app):
        one, other = await open_peers(acceptors[0], 2)
        one.send(request("POST / HTTP/1.1", "content-length: 200000", CLOSE))
        await begun.wait()
        sent = 0
        while sent < 200_000:
            with contextlib.suppress(BlockingIOError):
                sent += one.socket.send(bytes(200_000 - sent))
            await asyncio.sleep(0)
        goes_on.set()
        assert (await one.rest()).endswith(b"200000")
        await other.rest()
    assert noting.found == ["of nobody"]
