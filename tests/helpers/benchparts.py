"""What tests of the bench have in common: stand-ins for servers and the load generator, turns, results.

It imports `bench`, which tests/bench/conftest.py puts on the path.
"""

import asyncio
import contextlib
import os
import ssl
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import accounting, run
from bench import results as store
from bench.accounting import CPUTime
from bench.clients import Address
from bench.environment import Environment
from bench.machine import Cores
from bench.servers import SERVERS, Place, Server
from bench.turn import Clocks, Setup, merge, take_turn, work_out
from bench.workloads import WORKLOADS, Workload

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 20.0
WITH_BENCH = {**os.environ, "PYTHONPATH": str(ROOT)}
CORE = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
CORES = Cores((CORE,), (CORE,), ())
APART = Cores((0,), (1,), ())
SIMPLE = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nHello, World!"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


def window(**changes: Any) -> dict[str, Any]:
    """What a generator answers: 1000 requests in 2 seconds."""
    part = {"elapsed_s": 2.0, "count": 1000, "joined": 64, "received_bytes": 1 << 21, "overdue": 0}
    part |= {
        "busy": 0.5,
        "latencies": [[300, 1000]],
        "lateness": [],
        "failures": {},
        "failures_before": {},
        "refusal": "",
    }
    return part | changes


def figures_of(
    *parts: dict[str, Any],
    work: Workload = WORKLOADS["hello"],
    cores: Cores = APART,
    clocks: Clocks = Clocks(2.0, CPUTime(0.6, 0.4), 0.2, 1.5, 1.0),  # noqa: B008
) -> dict[str, Any]:
    """A turn's figures from what its generators answered."""
    return work_out(work, merge(list(parts)), clocks, cores=cores, memory_mib=50.0, resting_mib=30.0)


# Ends when a request asks for LOAD.
SERVER = """
    import socket, sys
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        while True:
            client = listener.accept()[0]
            with client:
                request = client.recv(65536)
                if b"LOAD" in request:
                    sys.exit("boom: out of luck")
                client.sendall(ANSWER)
""".replace("ANSWER", repr(SIMPLE))
# MODE says what it does with the server, FIGURES what it answers.
GENERATOR = """
    import json, socket, sys
    job = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    sys.stdin.readline()
    if MODE in ("crash", "replace"):
        socket.create_connection(job["address"]).sendall(b"LOAD")
    answer = b""
    while MODE == "replace" and not answer:
        # Only another process answers after LOAD.
        try:
            with socket.create_connection(job["address"]) as client:
                client.sendall(b"GET")
                answer = client.recv(65536)
        except OSError:
            continue
    if MODE == "fail":
        sys.exit("generator: out of memory")
    sys.stdin.readline()
    print(json.dumps(FIGURES), flush=True)
    sys.stdin.read()
"""


class FakeEnvironment(Environment):
    """One in which nothing is installed: the interpreter is this one, the generator a stand-in."""

    def __init__(self, folder: Path, mode: str = "good", **changes: Any) -> None:
        super().__init__(folder)
        self.python = Path(sys.executable)
        code = (
            textwrap.dedent(GENERATOR).replace("MODE", repr(mode)).replace("FIGURES", repr(window(**changes)))
        )
        self.generator = (sys.executable, "-c", code)

    def prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def versions(self) -> dict[str, str]:
        return {}


def fake_server(source: str = SERVER, name: str = "fake") -> Server:
    """A server that runs a Python source, with the port as its argument."""

    def command(work: Workload, place: Place) -> list[str]:
        return [sys.executable, "-c", textwrap.dedent(source), str(place.port)]

    return Server(name, name, "a stand-in", command)


def turn(setup: Setup, server: Server, workload: str = "hello") -> dict[str, Any]:
    """A turn, after which no process of it may be left."""
    before = set(accounting.tree_pids(os.getpid()))
    result = take_turn(setup, server, WORKLOADS[workload], CORES)
    assert set(accounting.tree_pids(os.getpid())) <= before
    return result


def plan(*servers: Server, rounds: int = 2, workloads: tuple[str, ...] = ("hello",)) -> run.Plan:
    """The plan of a short run."""
    return run.Plan(servers, tuple(WORKLOADS[name] for name in workloads), 0.05, rounds, 0.0)


def results_of(*turns: dict[str, Any], rounds: int = 3, **changes: Any) -> dict[str, Any]:
    """The results of a run with these turns."""
    names = ("fastasgi", "uvicorn", "node", "floor")
    machine = {
        "processor": "<Chip> & Co",
        "cores": 2,
        "memory_gib": 8.0,
        "system": "Linux 6",
        "architecture": "x86_64",
    }
    machine |= {
        "python": "3.11.1",
        "commit": "0123456789abcdef",
        "changed": False,
        "date": "2026-11-21T10:00:00+00:00",
    }
    found = {
        "format": store.FORMAT,
        "machine": machine,
        "versions": {"locust": "2"},
        "settings": {"seconds": 1.0, "rounds": rounds, "warmup_s": 0.5},
        "servers": {name: {"title": SERVERS[name].title, "settings": "x", "versions": "1"} for name in names},
        "workloads": {turn["workload"]: run._describe(WORKLOADS[turn["workload"]]) for turn in turns},
        "notes": [],
        "interrupted": False,
        "turns": list(turns),
    }
    return found | changes


def good_turn(
    server: str, rate: float, number: int = 0, workload: str = "hello", **changes: Any
) -> dict[str, Any]:
    """A turn as the results have it."""
    figures = figures_of(window(count=round(rate * 2)), cores=APART) | {"limit": "server"}
    return {"workload": workload, "server": server, "round": number, "status": "ok", **figures, **changes}


def full_results() -> dict[str, Any]:
    """Results with servers that did well, were held back, and failed."""
    turns = []
    for number in range(3):
        turns += [
            good_turn("fastasgi", 3000 + 10 * number, number),
            good_turn("uvicorn", 1000 + 5 * number, number),
        ]
        turns += [good_turn("floor", 9000, number, limit="generator")]
        turns += [good_turn(name, 1000, number, "rate-1000", limit="rate") for name in ("fastasgi", "node")]
        for name in ("fastasgi", "uvicorn"):
            turns.append(
                {"workload": "idle", "server": name, "round": number, "status": "ok"}
                | {"memory_mib": 50 + number, "resting_mib": 20, "connection_kib": 3.0 + number}
            )
            turns.append(
                {"workload": "start", "server": name, "round": number, "status": "ok"}
                | {"startup_s": 0.1 + number / 100, "memory_mib": 20.0, "cpu_s": 0.1}
            )
    turns.append(
        {
            "workload": "ws-echo",
            "server": "node",
            "round": 0,
            "status": "failed",
            "reason": "<b>boom</b> & bang",
        }
    )
    return results_of(*turns)


@contextlib.contextmanager
def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    uds: Path | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Address]:
    """The address of a server, in a thread, that serves each connection so."""

    async def listen() -> Address:
        if uds is not None:
            await asyncio.start_unix_server(serve, uds)
            return str(uds)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, backlog=2048)
        host, port = server.sockets[0].getsockname()
        return host, port

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loop.stop()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(listen(), loop).result(WAIT_S)
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(WAIT_S)
        loop.close()


@contextlib.contextmanager
def answering(
    answer: Callable[[], Awaitable[bytes]], uds: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Address]:
    """The address of a server, in a thread, that gives each request what `answer` returns.

    An empty answer ends the connection.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client ends the connection when it likes, and the test this task.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                data = await answer()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    with listening(serve, uds, tls) as address:
        yield address
