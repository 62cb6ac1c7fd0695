"""What the first read of one connection does to others that wait to be accepted in the same batch."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from nestingloop import in_nesting_loop, nested
from reentry import exit_at_refusal, run_on
from watching import Peer
from wire import CLOSE, Served, error_records, in_each_loop, request, respond, served

FIRST = request("GET /first HTTP/1.1", CLOSE)
OK = request("GET /ok HTTP/1.1", CLOSE)
NO_REQUEST = b"no request\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
TURN_MOST = 80  # connections that are accepted before another socket has its turn


def doing(act: Callable[[], Any]) -> Any:
    """An application that acts for the path /first, and answers all with "ok"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            act()
        await respond(send, b"ok")

    return app


def waiting(server: Served, *data: bytes) -> list[Peer]:
    """Peers that have sent this, one each, and wait to be accepted."""
    peers = [Peer.connect(server) for _ in data]
    for peer, piece in zip(peers, data, strict=True):
        peer.send(piece)
    return peers


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_others_are_accepted_after_a_system_exit(loop: str) -> None:
    async def test() -> None:
        async with served(doing(lambda: None)) as server:
            exit_at_refusal()
            peers = waiting(server, OK, NO_REQUEST, OK, OK)
            for peer in (peers[0], *peers[2:]):
                assert await peer.rest() == ANSWER

    assert run_on(loop, test) == 1


@in_nesting_loop
async def test_whoever_turns_the_loop_sees_others_that_wait(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[bytes] = []
    peers: list[Peer] = []
    async with served(doing(lambda: answers.append(nested(peers[1].rest())))) as server:
        peers += waiting(server, FIRST, OK)
        assert await peers[0].rest() == ANSWER
    assert answers == [ANSWER]
    assert error_records(caplog) == []


@in_each_loop
async def test_who_closes_the_listener_is_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    async with served(doing(lambda: listener.close())) as server:
        [listener] = server.server.servers
        first, second = waiting(server, FIRST, OK)
        assert await first.rest() == ANSWER
        with pytest.raises(ConnectionResetError):
            await second.rest()
        assert listener.sockets == ()
    assert error_records(caplog) == []


@in_each_loop
async def test_sockets_take_turns() -> None:
    """At each of three many wait, and a request takes a while."""
    order = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        order.append(scope["server"][1])
        until = asyncio.get_running_loop().time() + 0.001
        while asyncio.get_running_loop().time() < until:
            pass
        await respond(send, b"ok")

    async with served(app) as server:
        others = [socket.create_server(("127.0.0.1", 0), backlog=100) for _ in range(2)]
        for sock in others:
            server.server._acceptor.listen(sock)
        addresses = [("127.0.0.1", server.port), *(sock.getsockname() for sock in others)]
        peers = [Peer(socket.create_connection(address)) for address in addresses for _ in range(TURN_MOST)]
        for peer in peers:
            peer.send(OK)
        for peer in peers:
            assert await peer.rest() == ANSWER
    firsts = [order.index(port) for _, port in addresses]
    print("firsts:", firsts)
    assert max(firsts) < TURN_MOST
