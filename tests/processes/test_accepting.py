"""Who accepts a connection: never a worker that is blocked, stopped or dead, and all others alike."""

import collections
import contextlib
import os
import selectors
import signal
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from load import WAIT_S, Load
from serving import wait_until
from supervised import APP, Supervised, suspend

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

DRILL = int(os.environ.get("DRILL", "1"))
LONGEST_WAIT_S = (
    0.5  # of a connection while a worker is free: 0.2 s are asked for, the rest is for a busy machine
)
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Client:
    """A connection that is kept. `worker` is the process that has answered on it."""

    def __init__(self, server: Supervised) -> None:
        self.sock = server.connect()
        self.worker = self.get()

    def get(self) -> int:
        self.sock.sendall(REQUEST)
        data = self.sock.recv(4096)
        assert data.startswith(b"HTTP/1.1 200"), data
        return int(data.rpartition(b"\r\n")[2].split()[0])

    def close(self) -> None:
        self.sock.close()


def wait_until_all_accept(server: Supervised, workers: int) -> None:
    """A worker accepts a moment after it has said that its application is ready."""
    server.wait_for_workers(workers)
    seen: set[int] = set()

    def have_answered() -> bool:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(contextlib.closing(Client(server))) for _ in range(4 * workers)]
            seen.update(client.worker for client in clients)
        return len(seen) == workers

    wait_until(have_answered, f"answers of {workers} workers")


def waits_s(server: Supervised, count: int) -> list[float]:
    """Open so many connections at once: how long each of them waits for its answer."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(count):
            begin = time.monotonic()
            sock = stack.enter_context(server.connect())
            sock.sendall(REQUEST)
            selector.register(sock, selectors.EVENT_READ, begin)
        waits: list[float] = []
        while len(waits) < count:
            events = selector.select(WAIT_S)
            assert events, f"{count - len(waits)} of {count} connections wait for nothing"
            for key, _ in events:
                assert key.fileobj.recv(4096).startswith(b"HTTP/1.1 200")
                waits.append(time.monotonic() - key.data)
                selector.unregister(key.fileobj)
        return waits


# Workers that are busy or stopped

BLOCKING_APP = APP.replace("time.sleep(60)", "open(f'blocked-{os.getpid()}', 'x').close(); time.sleep(60)")


@contextlib.contextmanager
def stalled(server: Supervised, count: int, how: str) -> Iterator[set[int]]:
    """So many workers do nothing meanwhile: they are in a handler that blocks, or stopped by a signal."""
    with contextlib.ExitStack() as stack:
        workers: set[int] = set()
        while len(workers) < count:
            client = stack.enter_context(contextlib.closing(Client(server)))
            if client.worker in workers:
                continue
            workers.add(client.worker)
            if how == "stopped":
                suspend(client.worker)
            else:
                client.sock.sendall(REQUEST.replace(b" / ", b" /block "))
                wait_until((server.folder / f"blocked-{client.worker}").exists, "the call that blocks")
        yield workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("how", ["blocked", "stopped"])
@pytest.mark.parametrize(("stalls", "workers"), [(1, 2), (3, 4)], ids=["one of two", "three of four"])
def test_a_connection_waits_for_no_worker_that_stands(
    run: Callable[..., Supervised], how: str, stalls: int, workers: int
) -> None:
    server = run("--workers", str(workers), source=BLOCKING_APP)
    server.wait_for_workers(workers)
    with stalled(server, stalls, how):
        waits = [wait for _ in range(4) for wait in waits_s(server, 10)]
    assert max(waits) < LONGEST_WAIT_S, sorted(waits)[-5:]


# Workers that are dead


@pytest.mark.parametrize(
    "start",
    ["raise SystemExit(9)", "time.sleep(60)"],
    ids=["fails", "is slow"],
)
def test_a_connection_waits_for_no_successor(run: Callable[..., Supervised], start: str) -> None:
    server = run("--workers", "2", source=f"{APP}\nif os.path.exists('broken'): {start}\n")
    server.wait_for_workers(2)
    (server.folder / "broken").touch()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.wait_for(rf"Worker \[{victim}\] has died")
    for _ in range(4):
        assert max(waits_s(server, 10)) < LONGEST_WAIT_S
    assert "startup complete" not in server.log.partition("has died")[2]


def test_what_waits_for_a_worker_that_dies_is_served_by_another(run: Callable[..., Supervised]) -> None:
    """None of them can accept when the clients come."""
    server = run("--workers", "2", source=f"{APP}\nif os.path.exists('broken'): raise SystemExit(9)\n")
    server.wait_for_workers(2)
    (server.folder / "broken").touch()
    victim, other = server.workers()
    with contextlib.ExitStack() as stack:
        for worker in (victim, other):
            suspend(worker)
        socks = [stack.enter_context(server.connect()) for _ in range(32)]
        for sock in socks:
            sock.sendall(REQUEST)
        os.kill(victim, signal.SIGKILL)
        server.wait_for(rf"Worker \[{victim}\] has died")
        os.kill(other, signal.SIGCONT)
        for sock in socks:
            answer = sock.recv(4096)
            assert answer.endswith(f"{other} v1".encode()), answer


# How many requests each worker has in hand stands in a file for each process: it outlives SIGKILL
COUNTING_APP = (
    APP.replace('    body = f"', '    IN_HAND[0] += 1\n    await asyncio.sleep(0.02)\n    body = f"')
    + """
    IN_HAND[0] -= 1

import mmap
with open(f"in-hand-{os.getpid()}", "wb+") as file:
    file.truncate(8)
    IN_HAND = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
"""
)


def test_a_worker_that_is_killed_loses_only_what_it_has_accepted(run: Callable[..., Supervised]) -> None:
    workers, kills = 4, 4 * DRILL
    server = run("--workers", str(workers), source=COUNTING_APP)
    server.wait_for_workers(workers)
    in_hand = 0
    begin = time.monotonic()
    with Load(server.connect, 12, kept=False) as load:
        for number in range(kills):
            wait_until(lambda number=number: time.monotonic() >= begin + number, "the next second")
            load.wait_for_answers(50)
            victim = server.workers()[0]  # the oldest: it has served long enough to be replaced at once
            suspend(victim)
            path = server.folder / f"in-hand-{victim}"
            in_hand += struct.unpack("q", path.read_bytes())[0]
            os.kill(victim, signal.SIGKILL)
            server.wait_for(rf"Worker \[{victim}\] has died: signal SIGKILL")
    lost = sum(load.failures.values())
    print(f"{kills} kills, {sum(load.answers.values())} answers, {in_hand} in hand, lost {load.failures}")
    # Of each worker one more may be accepted and not begun, and one be done and not yet written
    assert lost <= in_hand + 2 * kills, load.failures
    assert not [kind for kind in load.failures if "Refused" in kind or "Timeout" in kind or "1.1 5" in kind]
    assert load.slowest_s < LONGEST_WAIT_S
    server.assert_ends()


# Balance


def counts(clients: list[Client]) -> list[int]:
    """How many connections each worker has, the fewest first."""
    return sorted(collections.Counter(client.worker for client in clients).values())


def test_long_lived_connections_are_spread(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "4")
    wait_until_all_accept(server, 4)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Client(server))) for _ in range(64)]
        assert len(counts(clients)) == 4
        assert all(12 <= count <= 20 for count in counts(clients)), counts(clients)
    server.assert_ends()


def test_short_connections_are_spread(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "4")
    wait_until_all_accept(server, 4)
    with Load(server.connect, 16, kept=False) as load:
        load.wait_for_answers(3000)
    assert not load.failures
    numbers = load.answers.values()
    print(f"requests of each worker: {sorted(numbers)}")
    assert max(numbers) <= 1.3 * sum(numbers) / 4, load.answers
    server.assert_ends()


def test_a_new_worker_catches_up(run: Callable[..., Supervised]) -> None:
    """As connections are renewed: each of them a few times is enough."""
    server = run("--workers", "4")
    wait_until_all_accept(server, 4)
    with contextlib.ExitStack() as stack:
        clients = [Client(server) for _ in range(64)]
        stack.callback(lambda: [client.close() for client in clients])
        victim = clients[0].worker
        os.kill(victim, signal.SIGKILL)
        server.wait_for_workers(5)
        is_even = False
        for _ in range(5):
            for _ in range(64):
                clients.pop(0).close()
                clients.append(Client(server))
            is_even = len(counts(clients)) == 4 and all(12 <= count <= 20 for count in counts(clients))
            if is_even:
                break
        assert is_even, counts(clients)
    server.assert_ends()


def test_what_balance_adds_to_a_wait(run: Callable[..., Supervised]) -> None:
    """At most a millisecond, even if the worker that is let go first can't come."""
    alone = run("--workers", "1")
    alone.wait_for_workers(1)
    alone_s = statistics.median(waits_s(alone, 1)[0] for _ in range(100))
    alone.assert_ends()
    server = run("--workers", "2")
    wait_until_all_accept(server, 2)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Client(server))) for _ in range(20)]
        idle = clients[0].worker
        assert len(counts(clients)) == 2
        for client in clients:
            if client.worker == idle:
                client.close()
        suspend(idle)
        begin = time.monotonic()
        waits = sorted(waits_s(server, 1)[0] for _ in range(100))
        assert time.monotonic() - begin < 3, "a worker that stands for so long is not let go first"
        os.kill(idle, signal.SIGCONT)
    print(
        f"alone {alone_s * 1e6:.0f} us; beside another {[round(waits[i] * 1e6) for i in (0, 50, 90, 99)]} us"
    )
    assert waits[50] - alone_s < 0.001
    assert waits[90] - alone_s < 0.001
    server.assert_ends()
