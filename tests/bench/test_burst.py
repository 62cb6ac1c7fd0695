"""The burst, against servers of the test's own."""

import asyncio
from typing import Any

import pytest
from benchparts import SIMPLE, WAIT_S, answering, linux

from bench import burst
from bench.burst import Burst
from bench.clients import Address, Clients
from bench.errors import BenchError
from bench.workloads import WORKLOADS

pytestmark = linux
STANDING = 4


def figures(address: Address, arrivals: int = 30) -> dict[str, Any]:
    """Those of a burst."""
    clients = Clients(address, WORKLOADS["burst"].request)
    try:
        return Burst(clients, {"connections": STANDING, "arrivals": arrivals, "warmup_s": 0.05}).measure()
    finally:
        clients.close()


def test_the_first_answers_and_those_of_standing_connections_count_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(burst, "BEFORE_S", 0.3)
    connections: set[Any] = set()

    async def answer() -> bytes:
        # Of the connections behind the standing ones, each one's first answer takes its time.
        task = asyncio.current_task()
        if task not in connections:
            connections.add(task)
            if len(connections) > STANDING:
                await asyncio.sleep(0.3)
        else:
            await asyncio.sleep(0.002)
        return SIMPLE

    with answering(answer) as address:
        found = figures(address)
    assert 0.29 < found["median_s"] <= found["p90_s"] <= found["worst_s"]
    assert 0.002 <= found["standing_before_s"] < 0.29
    assert 0.002 <= found["standing_during_s"] < 0.29
    assert found["standing_ratio"] == pytest.approx(found["standing_during_s"] / found["standing_before_s"])
    assert 0 < found["generator_busy"] <= 1.1


def test_a_burst_that_holds_up_the_standing_connections_shows_in_their_ratio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(burst, "BEFORE_S", 0.3)
    standing: set[Any] = set()
    came, held = asyncio.Event(), asyncio.Event()

    async def answer() -> bytes:
        if len(standing) < STANDING:
            standing.add(asyncio.current_task())
        if asyncio.current_task() not in standing:
            came.set()
            await held.wait()
        elif came.is_set():
            # The burst has all its answers long before this one.
            held.set()
            await asyncio.sleep(0.5)
        else:
            await asyncio.sleep(0.002)
        return SIMPLE

    with answering(answer) as address:
        found = figures(address)
    assert found["standing_before_s"] < 0.49 < found["standing_during_s"]
    assert found["worst_s"] < found["standing_during_s"]
    assert found["standing_ratio"] > 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(SIMPLE.replace(b"200", b"503"), "answered with status 503"), (b"", "connection closed by the server")],
)
def test_connections_without_an_answer_are_no_figure(answer: bytes, reason: str) -> None:
    connections: set[Any] = set()

    async def refuse() -> bytes:
        connections.add(asyncio.current_task())
        await asyncio.sleep(0.001)
        return answer if len(connections) > STANDING else SIMPLE

    message = f"0 of 30 new connections had an answer: {reason}"
    with answering(refuse) as address, pytest.raises(BenchError, match=message):
        figures(address)


def test_connections_that_wait_too_long_are_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burst, "ANSWER_S", 0.2)
    connections: set[Any] = set()

    async def hang() -> bytes:
        connections.add(asyncio.current_task())
        await asyncio.sleep(0.001 if len(connections) <= STANDING + 20 else WAIT_S)
        return SIMPLE

    message = "of 30 new connections had an answer: none within"
    with answering(hang) as address, pytest.raises(BenchError, match=message):
        figures(address)


def test_standing_connections_without_an_answer_are_no_figure() -> None:
    async def refuse() -> bytes:
        return b""

    reason = "0 of 4 standing connections had an answer: connection closed by the server"
    with answering(refuse) as address, pytest.raises(BenchError, match=reason):
        figures(address)
