"""The load generator of peaks as a process, and a turn with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchparts import (
    CORE,
    ROOT,
    SIMPLE,
    WAIT_S,
    WITH_BENCH,
    FakeEnvironment,
    answering,
    fake_server,
    linux,
    turn,
)

import fastasgi
from bench.servers import Place, Server
from bench.turn import Setup
from bench.workloads import WORKLOADS, Workload

pytestmark = linux


def answer_of(job: dict[str, Any]) -> dict[str, Any]:
    """What the real generator says."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.peaks"],
        input=json.dumps(job) + "\n",
        capture_output=True,
        text=True,
        env=WITH_BENCH,
        timeout=WAIT_S,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", ["burst", "overload-2"])
@pytest.mark.parametrize("good", [True, False])
def test_the_generator_answers_with_figures_or_with_a_failure(name: str, good: bool) -> None:
    async def answer() -> bytes:
        return SIMPLE if good else b""

    work = WORKLOADS[name]
    job = {"kind": work.kind, "request": work.request.decode(), "tls": False, "connections": 4}
    job |= {"arrivals": 10, "times_capacity": 0.01, "warmup_s": 0, "window_s": 0.5}
    with answering(answer) as address:
        found = answer_of(job | {"address": address})
    if good:
        assert ("worst_s" if name == "burst" else "goodput") in found
    else:
        assert found.keys() == {"failure"}
        assert "connection closed by the server" in found["failure"]


GENERATOR = """
import json, sys
job = json.loads(sys.stdin.readline())
print(json.dumps(FIGURES | {"job": job}), flush=True)
"""


def peak(tmp_path: Path, name: str, server: Server, **figures: Any) -> dict[str, Any]:
    """A turn with a stand-in for the generator that answers with these figures."""
    environment = FakeEnvironment(tmp_path)
    environment.peaks = (sys.executable, "-c", GENERATOR.replace("FIGURES", repr(figures)))
    return turn(Setup(environment, [(CORE,)], 0.05, 0, tmp_path), server, name)


def test_a_turn_has_the_figures_of_its_peak(tmp_path: Path) -> None:
    result = peak(tmp_path, "overload-3", fake_server(), goodput=0.5)
    assert (result["status"], result["goodput"]) == ("ok", 0.5)
    assert result["job"]["times_capacity"] == 3
    assert result["job"]["window_s"] == pytest.approx(0.1)


def test_a_peak_says_what_limited_it(tmp_path: Path) -> None:
    result = peak(tmp_path, "burst", fake_server(), generator_busy=0.95)
    assert result["limit"] == "generator"


def test_a_peak_without_figures_is_a_failed_turn(tmp_path: Path) -> None:
    result = peak(tmp_path, "burst", fake_server(), failure="3 of 200 connections had an answer: reset")
    assert result == {"status": "failed", "reason": "3 of 200 connections had an answer: reset"}


# Listens where its argument says, on a Unix socket.
UNIX_SERVER = f"""
    import socket, sys
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        while True:
            client = listener.accept()[0]
            with client:
                client.recv(65536)
                client.sendall({SIMPLE!r})
"""


def test_a_server_on_a_unix_socket_is_asked_there(tmp_path: Path) -> None:
    def command(work: Workload, place: Place) -> list[str]:
        return [*fake_server(UNIX_SERVER).command(work, place)[:-1], str(place.uds)]

    result = peak(tmp_path, "burst-uds", Server("fake", "fake", "a stand-in", command), median_s=1.0)
    assert result["status"] == "ok", result
    assert result["job"]["address"].endswith("/socket")
    assert not Path(result["job"]["address"]).parent.exists()


def test_a_server_that_refuses_a_unix_socket_does_not_support_it(tmp_path: Path) -> None:
    refusing = fake_server("import sys; print('No such option: --uds', file=sys.stderr); sys.exit(2)")
    assert peak(tmp_path, "burst-uds", refusing)["status"] == "unsupported"
    assert peak(tmp_path, "burst", refusing)["status"] == "failed"


@pytest.mark.parametrize("name", ["burst", "burst-uds", "overload-2"])
def test_the_real_generator_drives_a_real_server(name: str, tmp_path: Path) -> None:
    def command(work: Workload, place: Place) -> list[str]:
        where = ["--uds", str(place.uds)] if work.uds else ["--port", str(place.port)]
        app = ["plain:app", "--app-dir", str(ROOT / "bench" / "apps")]
        return [sys.executable, "-m", "fastasgi", *app, *where, "--no-access-log"]

    environment = FakeEnvironment(tmp_path)
    environment.peaks = (sys.executable, "-m", "bench.peaks")
    setup = Setup(environment, [(CORE,)], 0.5, 0.1, tmp_path, fastasgi=Path(fastasgi.__path__[0]).parent)
    server = Server("fastasgi", "fastasgi", "x", command, needs_fastasgi=True)
    result = turn(setup, server, name)
    assert result["status"] == "ok", result
    if name == "overload-2":
        assert 0 < result["goodput"] < 2
        assert result["arrivals"] == pytest.approx(2 * result["capacity"], abs=2)
    else:
        assert 0 < result["median_s"] <= result["worst_s"]
