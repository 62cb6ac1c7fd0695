"""The overload, against servers of the test's own."""

import asyncio
import itertools
from typing import Any

import pytest
from benchparts import SIMPLE, answering, linux

from bench import overload
from bench.clients import Address, Clients
from bench.errors import BenchError
from bench.overload import Overload
from bench.workloads import WORKLOADS

pytestmark = linux
CONNECTIONS = 4


def figures(address: Address, times_capacity: float, window_s: float = 1.0) -> dict[str, Any]:
    """Those of a load of so many times the capacity."""
    job = {"connections": CONNECTIONS, "times_capacity": times_capacity, "warmup_s": 0.05}
    clients = Clients(address, WORKLOADS["overload-2"].request)
    try:
        return Overload(clients, job | {"window_s": window_s}).measure()
    finally:
        clients.close()


async def answer_soon() -> bytes:
    """An answer after 20 ms, however many others wait for theirs."""
    await asyncio.sleep(0.02)
    return SIMPLE


@pytest.mark.parametrize("times", [0.5, 3])
def test_what_is_answered_in_time_counts_as_a_share_of_the_capacity(times: float) -> None:
    with answering(answer_soon) as address:
        found = figures(address, times)
    # Four connections, each with an answer in 20 ms at most: six within 0.1 s, one at its very beginning
    assert 10 < found["capacity"] <= 245
    assert found["arrivals"] == pytest.approx(times * found["capacity"], abs=1)
    assert found["answers"] == found["arrivals"]
    assert found["goodput"] == pytest.approx(times, rel=0.1)
    assert CONNECTIONS <= found["opened"] < found["arrivals"] / 2
    assert (found["lost"], found["failures"]) == (0, {})
    assert found["lateness_p99_s"] > 0


def test_answers_that_come_late_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "IN_TIME_S", 0.01)
    with answering(answer_soon) as address:
        found = figures(address, 2)
    assert found["answers"] > 0.5 * found["arrivals"]
    assert found["goodput"] == 0


def test_arrivals_do_not_wait_for_a_server_that_answers_no_more() -> None:
    answers = 0
    hung = asyncio.Event()

    async def hang() -> bytes:
        nonlocal answers
        answers += 1
        # Enough for the capacity, in windows of a tenth of a second.
        await asyncio.sleep(0.02) if answers < 100 else await hung.wait()
        return SIMPLE

    with answering(hang) as address:
        found = figures(address, 3)
    assert found["arrivals"] == pytest.approx(3 * found["capacity"], abs=3)
    assert found["goodput"] < 0.5
    assert found["opened"] >= found["arrivals"] - found["answers"]


def test_the_connection_used_last_is_used_first() -> None:
    used: list[Any] = []

    async def answer() -> bytes:
        used.append(asyncio.current_task())
        return await answer_soon()

    with answering(answer) as address:
        found = figures(address, 0.1)
    # Each request has its answer before the next one comes, mostly: they have no use for other connections.
    load = used[-found["arrivals"] :]
    same = sum(one is other for one, other in itertools.pairwise(load))
    assert same > 0.5 * len(load)


def test_requests_whose_connection_breaks_are_lost() -> None:
    answers = 0

    async def answer() -> bytes:
        nonlocal answers
        answers += 1
        await asyncio.sleep(0.02)
        return SIMPLE if answers < 100 else b""

    with answering(answer) as address:
        found = figures(address, 2)
    assert found["lost"] == found["failures"]["connection closed by the server"] > 0
    assert found["goodput"] < 1


def test_without_a_capacity_there_is_no_figure() -> None:
    async def refuse() -> bytes:
        return SIMPLE.replace(b"200", b"503")

    reason = "nothing was answered before the overload: answered with status 503"
    with answering(refuse) as address, pytest.raises(BenchError, match=reason):
        figures(address, 2)
