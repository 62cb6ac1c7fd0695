"""Many connections in one epoll loop."""

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchparts import SIMPLE, WAIT_S, answering, linux
from certificates import Authority

from bench.clients import Client, Clients, now
from bench.workloads import WORKLOADS

pytestmark = linux
REQUEST = WORKLOADS["hello"].request


async def hello() -> bytes:
    return SIMPLE


def turn_until(clients: Clients, condition: Callable[[], object]) -> None:
    """Let the clients turn until it holds, which it has to in time."""
    clients.turn_until(now() + WAIT_S, lambda: bool(condition()))
    assert condition()


@pytest.mark.parametrize("way", ["tcp", "tls", "uds"])
def test_each_connection_has_an_answer_to_each_request(way: str, tmp_path: Path) -> None:
    context = None
    if way == "tls":
        pair = Authority(tmp_path).issue()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.cert, pair.key)
    answered: list[Client] = []
    with answering(hello, tmp_path / "socket" if way == "uds" else None, context) as address:
        clients = Clients(address, REQUEST, tls=way == "tls")
        opened = [clients.open(answered.append) for _ in range(20)]
        turn_until(clients, lambda: len(answered) == 20)
        assert set(answered) == set(opened)
        for client in opened:
            clients.ask(client, now())
        turn_until(clients, lambda: len(answered) == 40)
        clients.close()
    assert (clients.opened, clients.failures.total()) == (20, 0)


def test_a_request_counts_from_before_its_connection_was_made_or_from_what_is_given() -> None:
    answered: list[Client] = []
    with answering(hello) as address:
        clients = Clients(address, REQUEST)
        before = now()
        client = clients.open(answered.append)
        assert before <= client.asked_at <= now()
        assert clients.open(answered.append, 12.5).asked_at == 12.5
        turn_until(clients, lambda: len(answered) == 2)
        clients.ask(client, 13.5)
        assert client.asked_at == 13.5
        clients.close()


def test_what_the_server_refuses_cuts_off_or_answers_with_an_error_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    refused = Clients(address, REQUEST)
    client = refused.open(lambda client: None)
    turn_until(refused, refused.failures.total)
    assert refused.failures == {"[Errno 111] Connection refused": 1}
    assert not client.is_open
    refused.close()

    async def answer() -> bytes:
        return next(answers)

    answers: Iterator[bytes] = iter([b"", SIMPLE.replace(b"200", b"503"), SIMPLE + SIMPLE])
    with answering(answer) as address:
        clients = Clients(address, REQUEST)
        for number in range(2):
            clients.open(lambda client: None)
            turn_until(clients, lambda number=number: clients.failures.total() > number)
        clients.close()
    assert clients.failures == {"connection closed by the server": 1, "answered with status 503": 1}


def test_the_end_of_an_idle_connection_is_no_failure() -> None:
    answered: list[Client] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = Clients(listener.getsockname(), REQUEST)
        client = clients.open(answered.append)
        served = listener.accept()[0]
        clients.turn(WAIT_S)
        with served:
            assert served.recv(4096) == REQUEST
            served.sendall(SIMPLE)
            turn_until(clients, lambda: answered)
        turn_until(clients, lambda: not client.is_open)
        clients.close()
    assert not clients.failures


def test_what_a_unix_sockets_full_queue_refuses_is_tried_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        clients = Clients(str(tmp_path / "socket"), REQUEST)
        for _ in range(5):
            clients.open(lambda client: None)
        listener.settimeout(0.01)
        for _ in range(5):
            for _ in range(100):
                clients.turn(0)
                try:
                    listener.accept()[0].close()
                    break
                except TimeoutError:
                    continue
        turn_until(clients, lambda: clients.failures.total() == 5)
        clients.close()
    assert set(clients.failures) <= {
        "connection closed by the server",
        "[Errno 104] Connection reset by peer",
    }
