"""A gunicorn process with our worker class, and what tests ask it."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import WAIT_S, wait_until

GUNICORN = Path(sysconfig.get_path("scripts"), "gunicorn")

APP = """
import asyncio
import os
import signal
import time

def say(*words):
    print(*words, flush=True)

say("imported in", os.getpid())

async def lifespan(receive, send):
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        say("lifespan", phase)
        await send({"type": f"lifespan.{phase}.complete"})

async def answer(send, body, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

async def pid(scope, receive, send):
    await answer(send, b"%d" % os.getpid())

async def slow(scope, receive, send):
    # Answers once there is a file named release
    say("slow: begins")
    while not os.path.exists("release"):
        await asyncio.sleep(0.05)
        say("slow: waits")
    await answer(send, b"slow")

async def busy(scope, receive, send):
    say("busy: begins")
    until = time.monotonic() + 2.3
    while time.monotonic() < until:
        await asyncio.sleep(0)
    await answer(send, b"busy")

async def block(scope, receive, send):
    time.sleep(60)

async def stubborn(scope, receive, send):
    await asyncio.sleep(0)
    try:
        time.sleep(60)
    except BaseException:
        say("stubborn")

async def hang(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hangs", "more_body": True})
    begin = time.monotonic()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("hang: cancelled after", time.monotonic() - begin)
        raise

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await globals()[scope["path"][1:] or "pid"](scope, receive, send)
"""


def read(path: Path) -> str:
    """The text of a file, empty where there is none yet."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


class Gunicorn:
    """A gunicorn process in a session of its own; arbiter, workers and application write to one log."""

    def __init__(self, folder: Path, target: str, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.log_file = folder / "log"
        command = [sys.executable, str(GUNICORN), "--no-control-socket", *arguments]
        if "-k" not in arguments:
            command += ["-k", "fastasgi.workers.FastASGIWorker"]
        if "-b" not in arguments:
            command += ["-b", "127.0.0.1:0"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, target],
                cwd=folder,
                # A module that is written again within a second would be taken from its byte code
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def matches(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.log, re.M)

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """All matches of a pattern in the log, once there are so many."""
        found: list[str] = []

        def is_over() -> bool:
            has_failed = (self.process.poll() or 0) > 0
            found[:] = self.matches(pattern)
            return len(found) >= count or has_failed

        wait_until(is_over, lambda: f"no {pattern!r} in:\n{self.log}")
        assert len(found) >= count, f"no {pattern!r} in:\n{self.log}"
        return found

    @property
    def ports(self) -> list[int]:
        return [
            int(port)
            for port in re.findall(r"https?://127\.0\.0\.1:(\d+)", self.wait_for("Listening at.*")[0])
        ]

    @property
    def port(self) -> int:
        return self.ports[0]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    def workers(self, count: int = 1) -> list[int]:
        """The process ids of all workers so far, once so many serve or have served."""
        self.wait_for("Application startup complete", count)
        return [int(pid) for pid in self.matches(r"Booting worker with pid: (\d+)")]

    def kill(self, number: int) -> None:
        """Send the arbiter a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The arbiter's exit code."""
        return self.process.wait(WAIT_S)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.kill(number)
        return self.wait()

    def close(self) -> None:
        """Kill what is left of the process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT_S)


Start = Callable[..., Gunicorn]


def exchange(port: int | str, path: str = "/", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and body of a GET on a connection of its own; port is a path where it is a Unix socket's."""
    connection = http.client.HTTPConnection("127.0.0.1", 0 if isinstance(port, str) else port, timeout=WAIT_S)
    if isinstance(port, str):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(WAIT_S)
        connection.sock.connect(port)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"connection": "close", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read().decode()


class Request(threading.Thread):
    """A request under way in a thread; ``result`` is as ``exchange`` returns it."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(daemon=True)
        self.port, self.path = port, path
        self._outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = exchange(self.port, self.path)
        except Exception as error:
            self._outcome = error

    @property
    def result(self) -> Any:
        self.join(WAIT_S)
        assert not self.is_alive()
        return self._outcome


def write_module(name: str, source: str) -> str:
    """Source for gunicorn.conf.py that makes a module for gunicorn to import."""
    return f"open({name + '.py'!r}, 'w').write({textwrap.dedent(source)!r})\n"


def told(gunicorn: Gunicorn, **headers: str) -> dict[str, Any]:
    """What the application of SCOPE_APP answers."""
    import json

    status, body = exchange(gunicorn.port, "/", headers)
    assert status == 200, body
    return json.loads(body)


def custom(settings: str) -> str:
    """Source for gunicorn.conf.py: a worker class with these CONFIG_KWARGS, and a hook that tells of it."""
    source = f"""
        from fastasgi.workers import FastASGIWorker

        class Custom(FastASGIWorker):
            CONFIG_KWARGS = {settings}
    """
    return write_module("custom", source) + (
        "def post_worker_init(worker):\n"
        "    print('config', worker.config.http, worker.config.timeout_keep_alive, flush=True)\n"
    )


ACCESS_APP = """
    import asyncio
    import os

    async def respond(send, *pieces, status=200, headers=(), **start):
        await send({"type": "http.response.start", "status": status, "headers": headers, **start})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1]})

    async def ok(scope, receive, send):
        scope["headers"].clear()  # what the application does to its scope is not logged
        headers = ((name, value) for name, value in [(b"X-Res", b"out")])
        await respond(send, b"12", b"345", headers=headers)

    async def length(scope, receive, send):
        await respond(send, b"0123456789", headers=[(b"content-length", b"10")])

    async def empty(scope, receive, send):
        await respond(send, b"not sent", status=204)

    async def fail(scope, receive, send):
        raise RuntimeError

    async def start(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def nothing(scope, receive, send):
        pass

    async def cut(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"123", "more_body": True})
        raise RuntimeError

    async def refused(scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"\\n")]})
        except ValueError:
            await respond(send, b"1", status=201)

    async def pathsend(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.pathsend", "path": __file__})

    async def zerocopysend(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
        with open(__file__, "rb") as file:
            await send({"type": "http.response.zerocopysend", "file": file, "count": 4, "more_body": True})
        await send({"type": "http.response.body", "body": b"123"})

    async def trailers(scope, receive, send):
        await respond(send, b"12", trailers=True)
        assert not log_has("/trailers")
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
        assert not log_has("/trailers")
        await send({"type": "http.response.trailers", "headers": []})
        assert log_has("/trailers")

    async def background(scope, receive, send):
        await respond(send, b"1")
        while not log_has("/background"):
            await asyncio.sleep(0.01)
        print("background: logged", flush=True)

    async def leave(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        if scope["path"].endswith("send"):
            await respond(send, b"1")

    async def blind(scope, receive, send):
        while not os.path.exists("release"):
            await asyncio.sleep(0.01)
        await respond(send, b"1")
        print("blind: sent", flush=True)

    async def forever(scope, receive, send):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("forever: cancelled", flush=True)
            raise

    async def download(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})

    def log_has(text):
        with open("access") as file:
            return text in file.read()

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        print("begins", scope["path"], flush=True)
        name = scope["path"].strip("/").partition("/")[0]
        await globals()[name](scope, receive, send)
"""
