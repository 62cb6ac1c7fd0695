"""A bad night: a worker blocks, one is killed, a reload, overload, a certificate that can't be used.

The admin listener answers throughout, and what it counts is what clients have seen. With DRILL the night is
long.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adminlistener import AdminClient
from certificates import Authority
from serving import wait_until
from supervised import Supervised

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its workers share memory without a name")

DRILL = int(os.environ.get("DRILL", "1"))
BLOCK_S = 2.5 if DRILL == 1 else 20.0
OVERLOAD_S = 4.0 if DRILL == 1 else 30.0
CPU_S = 0.005
ANSWER_S = 1.0  # in which the listener answers, on a machine that is busy

APP = f"""
import asyncio, time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/block":
        time.sleep({BLOCK_S})
    if scope["path"] == "/cpu":
        end = time.thread_time() + {CPU_S}
        while time.thread_time() < end:
            pass
    if scope["path"] == "/fail":
        raise RuntimeError("as was to be expected")
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"x" * 100}})
"""

# Counts each answer by its status, and each failure, and says so when it ends
LOCUSTFILE = """
import json, os, sys
from collections import Counter
from locust import FastHttpUser, constant, events, task

seen = Counter()

@events.request.add_listener
def note(response=None, exception=None, **_):
    status = getattr(response, "status_code", 0)
    seen[f"{status // 100}xx" if status else "failed"] += 1

@events.quit.add_listener
def tell(**_):
    with open(os.environ["SEEN"], "w") as file:
        json.dump(seen, file)

class Client(FastHttpUser):
    wait_time = constant(float(os.environ["WAIT"]))
    insecure = True
    max_retries = 0
    network_timeout = connection_timeout = 60.0

    @task
    def ask(self):
        self.client.get(os.environ["ASKS"])
"""


class Locust:
    """locust without a window, until it is told to end: then what its users have seen, by class of status."""

    def __init__(self, folder: Path, port: int, path: str, users: int, wait_s: float) -> None:
        (folder / "locustfile.py").write_text(LOCUSTFILE)
        self._seen = folder / f"seen{time.monotonic_ns()}.json"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "locust", "--headless", "--only-summary", "--skip-log"),
                *("-u", str(users), "-r", str(users), "--stop-timeout", "60"),
                *("--host", f"https://127.0.0.1:{port}"),
            ],
            cwd=folder,
            env={**os.environ, "SEEN": str(self._seen), "ASKS": path, "WAIT": str(wait_s)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> Counter[str]:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(90)
        return Counter(json.loads(self._seen.read_text()))


class Watcher:
    """Asks the admin listener five times a second, and keeps what goes wrong and how long answers took."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._ended = threading.Event()
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self.sums: list[int] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(0.2):
            for path in ("/livez", "/status"):
                began_at = time.monotonic()
                try:
                    status, body = self._admin.get(path)
                except OSError as error:
                    self.failures.append(f"{path}: {error!r}")
                    continue
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)
                if status != 200:
                    self.failures.append(f"{path}: {status} {body[:200]}")
                if path == "/status":
                    self.sums.append(responses_in(body))

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def responses_in(status: str) -> int:
    totals = json.loads(status)["totals"]
    return sum(totals["responses"].values())


@pytest.fixture
def server(tmp_path: Path, run: Callable[..., Supervised]) -> tuple[Supervised, AdminClient]:
    pair = Authority(tmp_path).issue()
    started = run(
        *("--workers", "2", "--admin", f"unix:{tmp_path}/admin.sock", "--overload-delay", "0.02"),
        *("--ssl-certfile", pair.cert.name, "--ssl-keyfile", pair.key.name),
        source=APP,
    )
    started.wait_for_workers(2)
    admin = AdminClient(tmp_path / "admin.sock")
    admin.wait_for("/readyz", 200)
    return started, admin


def status_of(admin: AdminClient) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(admin.get("/status")[1])
    return found


def counted(admin: AdminClient, status: str) -> int:
    """The number of responses of this class so far."""
    return int(status_of(admin)["totals"]["responses"].get(status, 0))


@pytest.mark.timeout(90 + 4 * DRILL * 20)
def test_a_bad_night(server: tuple[Supervised, AdminClient], tmp_path: Path) -> None:
    running, admin = server
    seen: Counter[str] = Counter()
    with Watcher(admin) as watcher:
        calm = Locust(tmp_path, running.port, "/", users=6, wait_s=0.05)
        wait_until(lambda: counted(admin, "2xx") > 50, "load")

        blocker = Locust(tmp_path, running.port, "/block", users=1, wait_s=60)
        running.wait_for(r"has been blocked for .* s: GET /block is in app \(app.py:\d+\)")
        wait_until(lambda: status_of(admin)["totals"]["stalled_s"] > 0, "the end of the stall", 3 * BLOCK_S)
        seen += blocker.end()

        killed = next(pid for pid, state in admin.workers().items() if state == "serving")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: status_of(admin)["totals"]["ends"].get("SIGKILL") == 1, "the count of the kill")
        running.wait_for_workers(3)

        running.send(signal.SIGHUP)
        running.wait_for_count("Reloaded", 1)

        crowd = Locust(tmp_path, running.port, "/cpu", users=60, wait_s=0)
        wait_until(lambda: status_of(admin)["totals"]["refusals"].get("overload", 0) > 0, "overload", 30)
        time.sleep(OVERLOAD_S)  # the subject: what happens in that time
        seen += crowd.end()

        (tmp_path / "server.pem").write_text("no certificate")
        wait_until(lambda: status_of(admin)["certificates"][0]["error"], "the fault of the certificate")
        failing = Locust(tmp_path, running.port, "/fail", users=1, wait_s=60)
        wait_until(lambda: status_of(admin)["totals"]["exceptions"] == 1, "the failure")
        seen += failing.end() + calm.end()
        # The gauge of running requests is looked at once a second, and so is what the document has
        ended_at = time.time()
        wait_until(lambda: status_of(admin)["at"] > ended_at + 1.5, "a later document")

    totals = status_of(admin)["totals"]
    assert watcher.failures == []
    assert watcher.slowest_s < ANSWER_S
    assert watcher.sums == sorted(watcher.sums)
    assert seen["failed"] <= 6, "no more than could be under way at the kill"
    for status in ("2xx", "5xx"):
        # What a killed worker had counted, and not yet sent, its client saw fail
        assert seen[status] <= totals["responses"][status] <= seen[status] + seen["failed"], (seen, totals)
    assert totals["responses"]["5xx"] == totals["refusals"]["overload"] + totals["exceptions"]
    assert (totals["exceptions"], totals["ends"]["SIGKILL"], totals["ends"]["asked"]) == (1, 1, 2)
    assert running.end() == 0
    assert_tells(running.log, killed)


def assert_tells(log: str, killed: int) -> None:
    """The log has what happened, in its order, each once."""
    story = [
        r"has been blocked for \d\.\d s: GET /block is in app",
        rf"turns again after {BLOCK_S:.0f}?\d*\.\d s: GET /block",
        rf"Worker \[{killed}\] has died: signal SIGKILL",
        "Reloading",
        "Reloaded",
        "overload",
        "Certificates not renewed",
        "as was to be expected",
        "Stopping workers",
        "Finished supervisor process",
    ]
    at = 0
    for line in story:
        found = re.search(line, log[at:])
        assert found, f"no {line!r} behind the line before, in:\n{log}"
        at += found.end()
    assert log.count("has been blocked") == 1
    assert log.count("Traceback") == 1
