"""Many connections at once, and more requests than can be answered. The bench's generator makes the load."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from certificates import Pair
from serving import ServerProcess, Start
from wire import request

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the generator needs epoll"),
    pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="the sources without the bench"),
]
LOOPS = ("uvloop", "asyncio")
BUSY_APP = """
import time

async def app(scope, receive, send):
    end = time.thread_time() + {seconds}
    while time.thread_time() < end:
        pass
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
    await send({{"type": "http.response.body", "body": b"hi"}})
"""


def measure(address: Any, tls: bool = False, **job: Any) -> dict[str, Any]:
    """What the generator finds."""
    job = {"address": address, "tls": tls, "request": request().decode(), "warmup_s": 0.2, **job}
    done = subprocess.run(
        [sys.executable, "-m", "bench.peaks"],
        input=f"{json.dumps(job)}\n",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert "failure" not in figures, figures
    return figures


def run(start: Start, seconds: float, *arguments: str, loop: str) -> ServerProcess:
    """A server whose application takes so much processor time for a request."""
    server = start(BUSY_APP.format(seconds=seconds), "app:app", "--no-access-log", "--loop", loop, *arguments)
    server.wait_for("running on")
    return server


# --- Bursts ---

STANDING, NEW = 16, 100


def burst(start: Start, how: str, loop: str, pair: Pair, folder: Path) -> dict[str, Any]:
    """New connections at once, to a server that standing ones keep busy."""
    path = str(folder / f"{loop}.socket")
    arguments = ["--uds", path] if how == "Unix" else ["--port", "0"]
    if how == "TLS":
        arguments += pair.arguments
    server = run(start, 0.001, *arguments, loop=loop)
    address = path if how == "Unix" else ["127.0.0.1", server.port]
    figures = measure(address, how == "TLS", kind="burst", connections=STANDING, arrivals=NEW)
    server.close()
    names = ("median_s", "worst_s", "standing_before_s", "standing_during_s")
    print(loop, how, {name: round(1e3 * figures[name], 1) for name in names})
    return figures


@pytest.mark.parametrize("how", ["TCP", "TLS", "Unix"])
def test_a_burst_is_taken_in_at_once(how: str, start: Start, pair: Pair, tmp_path: Path) -> None:
    """One connection a turn of the event loop would take as many turns as there are connections.

    A turn is what a standing connection waits for its answer. The standing ones go on being answered. With
    TLS they may wait for all handshakes that have begun, which go on in one turn. Other tests may have half
    of the machine, at one moment and not at the next.
    """
    found = {loop: burst(start, how, loop, pair, tmp_path) for loop in LOOPS}
    for figures in found.values():
        assert figures["worst_s"] < 0.4 * NEW * figures["standing_before_s"]
        if how != "TLS":
            assert figures["standing_during_s"] < 8 * figures["standing_before_s"]
    assert found["uvloop"]["worst_s"] < 4 * found["asyncio"]["worst_s"]


# --- Overload ---


@pytest.mark.parametrize("loop", LOOPS)
def test_an_overloaded_server_answers_some_in_time(loop: str, start: Start) -> None:
    """Where all are let in at once, nearly nobody is served within the second that counts."""
    server = run(start, 0.005, "--port", "0", loop=loop)
    job = {"kind": "overload", "connections": 4, "times_capacity": 3, "window_s": 3.0}
    figures = measure(["127.0.0.1", server.port], **job)
    print(loop, {name: round(figures[name], 2) for name in ("goodput", "capacity", "opened", "lost")})
    # The capacity was measured before, and other tests may have half of the machine by now
    assert figures["goodput"] > 0.3
    assert figures["lost"] == 0
