"""The gunicorn worker class, in gunicorn processes of its current release."""

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from clientframes import BINARY, frame
from gunicorn.config import Config as GunicornConfig
from load import Load
from serving import WAIT_S, wait_until

from fastasgi import Config, workers
from fastasgi.errors import ConfigError
from fastasgi.settings.declaration import settings_of
from fastasgi.workers import FastASGIWorker

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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gunicorn]]:
    """Starts gunicorn: ``start(*arguments, app=source of app.py, conf=source of gunicorn.conf.py)``."""
    started: list[Gunicorn] = []

    def start(
        *arguments: str, app: str = APP, conf: str = "", target: str = "app:app", **environment: str
    ) -> Gunicorn:
        (tmp_path / "app.py").write_text(textwrap.dedent(app))
        (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent(conf))
        started.append(Gunicorn(tmp_path, target, *arguments, **environment))
        return started[-1]

    yield start
    for process in started:
        process.close()


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


# Serving


def test_it_serves_and_stops_gracefully(start: Start) -> None:
    gunicorn = start()
    [worker] = gunicorn.workers()
    assert exchange(gunicorn.port) == (200, str(worker))
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    gunicorn.kill(signal.SIGTERM)
    gunicorn.wait_for("Shutting down$")
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")
    assert gunicorn.wait() == 0
    assert gunicorn.matches("^lifespan .*") == ["lifespan startup", "lifespan shutdown"]
    # The server's own lines are in gunicorn's form; nothing is warned of at the defaults
    gunicorn.wait_for(rf"^\[.*\] \[{worker}\] \[INFO\] Application startup complete\.$")
    assert not gunicorn.matches(r"\[(WARNING|ERROR)\]|Traceback")


def test_several_binds(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    gunicorn = start("-b", "127.0.0.1:0", "-b", "127.0.0.1:0", "-b", f"unix:{path}")
    [worker] = gunicorn.workers()
    assert len(set(gunicorn.ports)) == 2
    for where in (*gunicorn.ports, path):
        assert exchange(where) == (200, str(worker))
    # A worker that ends leaves the socket's file, the arbiter removes it
    os.kill(worker, signal.SIGTERM)
    [_, second] = gunicorn.workers(2)
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    assert exchange(path) == (200, str(second))
    assert gunicorn.end() == 0
    assert not os.path.exists(path)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the platform has no SO_REUSEPORT")
def test_reuse_port(start: Start) -> None:
    with socket.socket() as reserved:
        # Bound and not listening: it keeps the port and gets no connection
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        gunicorn = start("--reuse-port", "-w", "2", "-b", f"127.0.0.1:{port}")
        both = {str(worker) for worker in gunicorn.workers(2)}
        seen: set[str] = set()
        wait_until(lambda: seen.add(exchange(port)[1]) or seen == both, lambda: (seen, both))


def test_preload_app(start: Start) -> None:
    gunicorn = start("--preload", "-w", "2")
    first, second = gunicorn.workers(2)
    assert gunicorn.matches("imported in .*") == [f"imported in {gunicorn.process.pid}"]
    assert exchange(gunicorn.port)[1] in (str(first), str(second))


# Heartbeats


@pytest.mark.parametrize("path", ["/block", "/stubborn"])
def test_a_blocked_event_loop_is_found(start: Start, path: str) -> None:
    conf = """
        def worker_abort(worker):
            print("worker_abort", worker.pid, flush=True)
    """
    gunicorn = start("--timeout", "1", conf=conf)
    [blocked] = gunicorn.workers()
    request = Request(gunicorn.port, path)
    gunicorn.wait_for(rf"WORKER TIMEOUT \(pid:{blocked}\)")
    [_, second] = gunicorn.workers(2)
    assert exchange(gunicorn.port) == (200, str(second))
    gunicorn.wait_for(rf"Worker \(pid:{blocked}\) exited with code 1\.")
    assert gunicorn.matches("^worker_abort .*") == [f"worker_abort {blocked}"]
    assert request.result == (500, "Internal Server Error")
    # The log says where it was blocked
    assert ("time.sleep(60)" in gunicorn.log) == (path == "/block")


def test_a_busy_event_loop_that_turns_is_left_alone(start: Start) -> None:
    gunicorn = start("--timeout", "1")
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/busy")
    gunicorn.wait_for("busy: begins")
    # Also while it stops: the arbiter doesn't know of this signal
    os.kill(worker, signal.SIGTERM)
    assert request.result == (200, "busy")
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    assert not gunicorn.matches("WORKER TIMEOUT")


def test_heartbeats_without_a_timeout(start: Start) -> None:
    source = """
        from fastasgi.workers import FastASGIWorker

        class Counting(FastASGIWorker):
            async def callback_notify(self):
                print("beat", flush=True)
                await super().callback_notify()
    """
    gunicorn = start("-k", "counting.Counting", "--timeout", "0", conf=write_module("counting", source))
    gunicorn.workers()
    assert exchange(gunicorn.port)[0] == 200
    assert 1 <= len(gunicorn.matches("^beat$")) < 10  # one a second


def write_module(name: str, source: str) -> str:
    """Source for gunicorn.conf.py that makes a module for gunicorn to import."""
    return f"open({name + '.py'!r}, 'w').write({textwrap.dedent(source)!r})\n"


def test_a_worker_ends_when_its_arbiter_dies(start: Start) -> None:
    gunicorn = start()
    [worker] = gunicorn.workers()
    gunicorn.kill(signal.SIGKILL)
    gunicorn.wait()
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    told = gunicorn.matches("Parent changed, shutting down|lifespan shutdown")
    assert told == ["Parent changed, shutting down", "lifespan shutdown"]


# Signals


def test_a_child_of_the_application_is_no_worker(start: Start) -> None:
    app = (
        APP
        + """
async def child(scope, receive, send):
    import multiprocessing
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)
    looking = context.Process(target=look, args=(writing,))
    looking.start()
    writing.close()
    looking.join()
    living = context.Process(target=time.sleep, args=(600,))
    living.start()
    living.terminate()
    living.join()
    await answer(send, f"{reading.recv()} {living.exitcode}".encode())

def look(writing):
    names = "TERM HUP QUIT USR1 USR2 ABRT CHLD WINCH"
    handlers = {signal.getsignal(signal.Signals[f"SIG{name}"]) for name in names.split()}
    assert handlers == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    writing.send(signal.set_wakeup_fd(-1))
"""
    )
    gunicorn = start(app=app)
    gunicorn.workers()
    assert exchange(gunicorn.port, "/child") == (200, f"-1 {-signal.SIGTERM}")
    assert gunicorn.end() == 0
    assert "lifespan shutdown" in gunicorn.log


def test_hup_under_load(start: Start) -> None:
    gunicorn = start("-w", "2")
    old = gunicorn.workers(2)
    with Load(gunicorn.connect) as load:
        for worker in old:
            load.wait_for_answers(of=str(worker))
        (gunicorn.folder / "app.py").write_text(APP.replace('b"%d" % os.getpid()', 'b"new"'))
        gunicorn.kill(signal.SIGHUP)
        for worker in old:
            gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
        load.wait_for_answers(of="new")
    assert not load.failures


def test_ttin_and_ttou_under_load(start: Start) -> None:
    gunicorn = start()
    [first] = gunicorn.workers()
    with Load(gunicorn.connect) as load:
        load.wait_for_answers(of=str(first))
        gunicorn.kill(signal.SIGTTIN)
        [_, second] = gunicorn.workers(2)
        load.wait_for_answers(of=str(second))
        gunicorn.kill(signal.SIGTTOU)
        gunicorn.wait_for(rf"Worker exiting \(pid: {first}\)")
        load.wait_for_answers(of=str(second))
    assert not load.failures


def test_the_arbiters_repeated_sigterm_breaks_nothing_off(start: Start) -> None:
    gunicorn = start()
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    os.kill(worker, signal.SIGTERM)
    gunicorn.wait_for("Shutting down$")
    os.kill(worker, signal.SIGTERM)
    # For longer than all phases of a forced shutdown take
    gunicorn.wait_for("slow: waits", len(gunicorn.matches("slow: waits")) + 10)
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")


def test_usr2_under_load(start: Start) -> None:
    gunicorn = start("-p", "pid")
    [first] = gunicorn.workers()
    with Load(gunicorn.connect) as load:
        load.wait_for_answers(of=str(first))
        gunicorn.kill(signal.SIGUSR2)
        [_, second] = gunicorn.workers(2)
        load.wait_for_answers(of=str(second))
        assert gunicorn.end() == 0
        load.wait_for_answers(of=str(second))
    assert not load.failures
    new_arbiter = int(gunicorn.matches(r"Listening at: .* \((\d+)\)")[1])
    gunicorn.wait_for("Master has been promoted")
    wait_until(lambda: read(gunicorn.folder / "pid") == f"{new_arbiter}\n")
    os.kill(new_arbiter, signal.SIGTERM)
    gunicorn.wait_for("Shutting down: Master", 2)


def test_usr1_reopens_logs(start: Start) -> None:
    gunicorn = start("--access-logfile", "access", "--error-logfile", "error", "--capture-output")
    error, access = gunicorn.folder / "error", gunicorn.folder / "access"
    wait_until(lambda: "startup complete" in read(error))
    [port] = re.findall(r"https?://127\.0\.0\.1:(\d+)", error.read_text())
    assert exchange(int(port), "/?one")[0] == 200
    error.rename(gunicorn.folder / "error.old")
    access.rename(gunicorn.folder / "access.old")
    gunicorn.kill(signal.SIGUSR1)

    def is_reopened() -> bool:
        # By arbiter and worker: each has its own descriptor
        assert exchange(int(port), "/?two")[0] == 200
        return "?two" in read(access)

    wait_until(is_reopened)
    assert "?one" in (gunicorn.folder / "access.old").read_text()
    assert gunicorn.end() == 0
    assert "Finished server process" in error.read_text()
    assert "imported in" in (gunicorn.folder / "error.old").read_text()


def test_winch_means_nothing_to_a_worker(start: Start) -> None:
    gunicorn = start("--log-level", "debug")
    [worker] = gunicorn.workers()
    os.kill(worker, signal.SIGWINCH)
    gunicorn.wait_for("worker: SIGWINCH ignored")
    assert exchange(gunicorn.port) == (200, str(worker))


def test_winch_stops_the_workers_of_a_daemon(start: Start) -> None:
    gunicorn = start("--daemon", "-p", "pid", "--log-file", "log")
    assert gunicorn.wait() == 0
    arbiter = int(wait_until(lambda: read(gunicorn.folder / "pid")))
    try:
        [worker] = gunicorn.workers()
        os.kill(arbiter, signal.SIGWINCH)
        gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
        os.kill(arbiter, signal.SIGTTIN)
        [_, second] = gunicorn.workers(2)
        assert exchange(gunicorn.port) == (200, str(second))
    finally:
        os.kill(arbiter, signal.SIGTERM)
        gunicorn.wait_for("Shutting down: Master")


def test_int_is_quick(start: Start) -> None:
    conf = """
        def worker_int(worker):
            print("worker_int", worker.pid, flush=True)
    """
    gunicorn = start(conf=conf)
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/hang")
    slow = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    begin = time.monotonic()
    # As a terminal does: the worker gets this signal, and SIGQUIT from the arbiter
    os.killpg(gunicorn.process.pid, signal.SIGINT)
    assert gunicorn.wait() == 0
    assert time.monotonic() - begin < 10  # of graceful_timeout's 30
    assert isinstance(request.result, http.client.IncompleteRead | ConnectionError)
    assert isinstance(slow.result, http.client.RemoteDisconnected | ConnectionError)
    assert gunicorn.matches("^worker_int .*") == [f"worker_int {worker}"]
    assert gunicorn.matches("lifespan shutdown")


HANGING_IMPORT = """
    import time

    print("starts", flush=True)
    time.sleep(60)
"""

HANGING_START = """
    import asyncio

    async def app(scope, receive, send):
        print("starts", flush=True)
        await asyncio.Event().wait()
"""


@pytest.mark.parametrize("source", [HANGING_IMPORT, HANGING_START])
def test_int_while_a_worker_starts_is_no_failure(start: Start, source: str) -> None:
    gunicorn = start(app=source)
    gunicorn.wait_for("starts")
    begin = time.monotonic()
    os.killpg(gunicorn.process.pid, signal.SIGINT)
    assert gunicorn.wait() == 0
    assert time.monotonic() - begin < 10  # of graceful_timeout's 30
    assert not gunicorn.matches("exited with code|failed to boot")


def test_term_while_a_worker_starts_is_kept_within_graceful_timeout(start: Start) -> None:
    gunicorn = start("--graceful-timeout", "1", app=HANGING_START)
    gunicorn.wait_for("starts")
    [worker] = map(int, gunicorn.matches(r"Booting worker with pid: (\d+)"))
    os.kill(worker, signal.SIGTERM)
    gunicorn.wait_for("starts", 2)  # in its successor
    assert not gunicorn.matches("exited with code|SIGKILL")


# Times and limits


def test_graceful_timeout(start: Start) -> None:
    gunicorn = start("--graceful-timeout", "2")
    gunicorn.workers()
    request = Request(gunicorn.port, "/hang")
    slow = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    begin = time.monotonic()
    assert gunicorn.end() == 0
    assert 1 <= time.monotonic() - begin < 10
    assert isinstance(request.result, http.client.IncompleteRead | ConnectionError)
    assert isinstance(slow.result, http.client.RemoteDisconnected | ConnectionError)
    # Not killed: requests and application have been told
    assert gunicorn.matches("hang: cancelled|lifespan shutdown") == ["hang: cancelled", "lifespan shutdown"]
    assert not gunicorn.matches("SIGKILL")


def test_keepalive(start: Start) -> None:
    gunicorn = start("--keep-alive", "1")
    gunicorn.workers()
    with gunicorn.connect() as client:
        begin = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"connection: close" not in client.recv(65536)
        assert client.recv(65536) == b""
        assert 1 <= time.monotonic() - begin < 4.5


def test_a_stop_waits_for_idle_connections_but_not_for_long(start: Start) -> None:
    gunicorn = start("--keep-alive", "60")
    gunicorn.workers()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gunicorn.connect()) for _ in range(2)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"connection: close" not in client.recv(65536)
        begin = time.monotonic()
        gunicorn.kill(signal.SIGTERM)
        gunicorn.wait_for("Shutting down$")
        clients[0].sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"connection: close" in clients[0].recv(65536)
        assert clients[1].recv(65536) == b""
        assert gunicorn.wait() == 0
        assert time.monotonic() - begin < 10


def test_max_requests_with_jitter(start: Start) -> None:
    conf = """
        def post_worker_init(worker):
            print("limit", worker.pid, worker.config.limit_max_requests, flush=True)
    """
    gunicorn = start("--max-requests", "3", "--max-requests-jitter", "2", conf=conf)
    served = [exchange(gunicorn.port)[1] for _ in range(16)]
    limits = dict(gunicorn.matches(r"^limit (\d+) (\d+)"))
    *ended, _last = dict.fromkeys(served)
    assert len(ended) >= 2
    for worker in ended:
        assert 3 <= int(limits[worker]) <= 5
        # What reached the socket before it was closed is served still
        assert int(limits[worker]) <= served.count(worker) <= int(limits[worker]) + 2


def test_max_requests_lets_requests_end(start: Start) -> None:
    gunicorn = start("--max-requests", "2")
    [first] = gunicorn.workers()
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    assert exchange(gunicorn.port) == (200, str(first))
    gunicorn.wait_for("Maximum number of requests reached")
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")
    [_, second] = gunicorn.workers(2)
    assert exchange(gunicorn.port) == (200, str(second))


def test_graceful_timeout_is_kept_after_max_requests_too(start: Start) -> None:
    # The arbiter knows nothing of it, and the heartbeats go on
    gunicorn = start("--graceful-timeout", "1", "--max-requests", "1")
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/hang")
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    assert isinstance(request.result, http.client.IncompleteRead | ConnectionError)
    [lasted_s] = gunicorn.matches("hang: cancelled after (.*)")
    assert 0.5 <= float(lasted_s) < 2.5  # of what the phases take otherwise


def test_worker_connections(start: Start) -> None:
    gunicorn = start("--worker-connections", "1")
    gunicorn.workers()
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    assert exchange(gunicorn.port)[0] == 503
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")


def test_limits_of_requests(start: Start) -> None:
    gunicorn = start(
        *("--limit-request-line", "100"),
        *("--limit-request-fields", "4"),
        *("--limit-request-field_size", "50"),
    )
    gunicorn.workers()
    port = gunicorn.port
    path = "/?" + "x" * (100 - len("GET /? HTTP/1.1"))
    assert exchange(port, path)[0] == 200
    assert exchange(port, path + "x")[0] == 414
    # Three that http.client sends, and these
    assert exchange(port, headers={"a": "b"})[0] == 200
    assert exchange(port, headers={"a": "b", "c": "d"})[0] == 431
    assert exchange(port, headers={"name": "x" * (50 - len("name: \r\n"))})[0] == 200
    assert exchange(port, headers={"name": "x" * (51 - len("name: \r\n"))})[0] == 431


WEBSOCKET_APP = """
    import asyncio

    async def app(scope, receive, send):
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "open"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        print("disconnected with", message["code"], flush=True)
"""


def shake_hands(client: socket.socket, fields: str = "") -> bytes:
    """The answer to a WebSocket handshake."""
    client.sendall(
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        + fields.encode()
        + b"\r\n"
    )
    return client.recv(65536)


def test_websockets(start: Start) -> None:
    gunicorn = start(
        "--websocket-max-message-size", "4", "--limit-request-field_size", "60", app=WEBSOCKET_APP
    )
    with gunicorn.connect() as client:
        assert shake_hands(client).startswith(b"HTTP/1.1 101 ")
        client.sendall(frame(BINARY, b"1234") + frame(BINARY, b"12345"))
        received = b""
        while b"\x03\xf1" not in received:  # 1009 (RFC 6455 section 7.4.1)
            received += client.recv(65536)
        assert b"\x82\x041234\x88" in received
    gunicorn.wait_for("^disconnected with 1009$")
    with gunicorn.connect() as client:
        answer = shake_hands(client, f"name: {'x' * 60}\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ")


def test_zero_is_no_limit(start: Start) -> None:
    gunicorn = start(
        *("--limit-request-line", "0"), *("--limit-request-fields", "0"), *("--limit-request-field_size", "0")
    )
    gunicorn.workers()
    headers = {f"a{i}": "b" for i in range(500)} | {"name": "x" * 100_000}
    assert exchange(gunicorn.port, "/?" + "x" * 100_000, headers)[0] == 200


# Settings of gunicorn's


SCOPE_APP = """
    import asyncio
    import json
    import os

    async def app(scope, receive, send):
        told = {
            "root_path": scope["root_path"],
            "headers": [name.decode() for name, _ in scope["headers"]],
            "loop": type(asyncio.get_running_loop()).__module__,
            "variable": os.environ.get("VARIABLE"),
        }
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""


def told(gunicorn: Gunicorn, **headers: str) -> dict[str, Any]:
    """What the application of SCOPE_APP answers."""
    import json

    status, body = exchange(gunicorn.port, "/", headers)
    assert status == 200, body
    return json.loads(body)


def test_settings_for_asgi(start: Start) -> None:
    arguments = (
        "--root-path",
        "/api",
        "--asgi-loop",
        "asyncio",
        "--asgi-lifespan",
        "off",
        "-e",
        "VARIABLE=a=b",
    )
    gunicorn = start(*arguments, app=SCOPE_APP)
    scope = told(gunicorn, x_under="a")
    assert (scope["root_path"], scope["variable"]) == ("/api", "a=b")
    assert scope["loop"].startswith("asyncio.")
    assert "x_under" not in scope["headers"]  # header_map is drop
    assert not gunicorn.matches("Waiting for application")


@pytest.mark.parametrize(
    ("arguments", "environment", "is_trusted"),
    [
        ((), {}, True),
        (("--forwarded-allow-ips", "10.0.0.1"), {}, False),
        ((), {"FORWARDED_ALLOW_IPS": "10.0.0.0/8"}, False),
        ((), {"FORWARDED_ALLOW_IPS": "127.0.0.0/8"}, True),
    ],
)
def test_gunicorn_says_which_proxies_are_trusted(
    start: Start, arguments: tuple[str, ...], environment: dict[str, str], is_trusted: bool
) -> None:
    gunicorn = start(*arguments, app=CLIENT_APP, **environment)
    status, body = exchange(
        gunicorn.port, headers={"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
    )
    assert (status, body == "1.2.3.4 https") == (200, is_trusted)
    assert not gunicorn.matches("forwarded_allow_ips")


CLIENT_APP = """
    async def app(scope, receive, send):
        if scope["type"] == "http":
            body = f"{scope['client'][0]} {scope['scheme']}".encode()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize(
    ("name", "value", "ours", "expected"),
    [
        ("header_map", "refuse", "header_underscores", "refuse"),
        ("header_map", "dangerous", "header_underscores", "allow"),
        ("keepalive", 0, "timeout_keep_alive", 0),
        ("backlog", 7, "backlog", 7),
        ("graceful_timeout", 0, "timeout_graceful_shutdown", 0),
        ("graceful_timeout", 4, "timeout_graceful_shutdown", 2),
        ("graceful_timeout", 30, "timeout_graceful_shutdown", 25),
        ("worker_connections", 1000, "limit_concurrency", None),
        ("worker_connections", 0, "limit_concurrency", None),
        ("worker_connections", 10, "limit_concurrency", 10),
        ("threads", 1, "threads", None),
        ("threads", 4, "threads", 4),
        ("max_requests", 0, "limit_max_requests", None),
        ("limit_request_fields", 100_000, "limit_request_fields", 32768),
        ("limit_request_field_size", 8190, "limit_request_head", 4094 + 8190 + 65536),
        ("loglevel", "DEBUG", "log_level", "debug"),
        ("loglevel", "unknown", "log_level", "info"),
        ("websocket_max_message_size", 0, "ws_max_size", 0),
        ("asgi_loop", "asyncio", "loop", "asyncio"),
        ("forwarded_allow_ips", "127.0.0.1,::1", "forwarded_allow_ips", ["127.0.0.1", "::1", "unix"]),
        ("forwarded_allow_ips", "10.0.0.0/8", "forwarded_allow_ips", ["10.0.0.0/8", "unix"]),
        ("forwarded_allow_ips", "*", "forwarded_allow_ips", ["*", "unix"]),
        ("proxy_protocol", "off", "proxy_protocol", []),
        ("proxy_protocol", "v2", "proxy_protocol", ["127.0.0.1", "::1", "unix"]),
    ],
)
def test_what_a_setting_becomes(name: str, value: Any, ours: str, expected: Any) -> None:
    assert getattr(config_of(FastASGIWorker, **{name: value}), ours) == expected


def config_of(worker_class: type[FastASGIWorker], **settings: Any) -> Config:
    """The settings of a worker with these settings of gunicorn's."""
    config = GunicornConfig()
    for name, value in settings.items():
        config.set(name, value)
    worker = worker_class(1, os.getpid(), [], None, 15, config, Warnings())
    worker.tmp.close()
    return worker.config


NOT_DEFAULT = {
    "secure_scheme_headers": {"X-HTTPS": "1"},
    "forwarder_headers": "REMOTE_USER",
    "protocol": "uwsgi",
    "http_protocols": "h2,h1",
    "http2_cleartext": "upgrade",
    "ssl_version": "TLSv1",
    "do_handshake_on_connect": True,
    "suppress_ragged_eofs": False,
    "http_parser": "python",
    "permit_obsolete_folding": True,
    "strip_header_spaces": True,
    "permit_unconventional_http_version": True,
    "casefold_http_method": True,
    "asgi_disconnect_grace_period": 1,
    "sendfile": False,
}


class Warnings:
    """In place of gunicorn's logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)


def warnings(**settings: Any) -> list[str]:
    config, log = GunicornConfig(), Warnings()
    for name, value in settings.items():
        config.set(name, value)
    FastASGIWorker.check_config(config, log)
    return log.lines


def test_what_is_not_supported_is_warned_of_by_name() -> None:
    assert NOT_DEFAULT.keys() == workers.NOT_SUPPORTED.keys()
    assert warnings() == []
    for name, value in NOT_DEFAULT.items():
        [line] = warnings(**{name: value})
        assert re.match(rf"{name} .* is not supported by fastasgi: \w", line), line


def test_a_warning_is_given_once_and_web_concurrency_is_gunicorns(start: Start) -> None:
    gunicorn = start("--no-sendfile", WEB_CONCURRENCY="2")
    assert len(gunicorn.workers(2)) == 2
    assert gunicorn.matches(r"\[WARNING\] .*") == [
        "[WARNING] sendfile False is not supported by fastasgi: "
        "the application decides by the messages it sends"
    ]


# TLS

TLS_APP = """
    async def app(scope, receive, send):
        tls = scope["extensions"]["tls"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        text = f"{scope['scheme']} {tls['tls_version']:04x} {bool(tls['client_cert_name'])}"
        await send({"type": "http.response.body", "body": text.encode()})
"""


def tls_exchange(port: int, context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection("localhost", port, timeout=WAIT_S, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


def test_tls_is_served_by_gunicorns_settings(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue(), authority.issue("me@x.example", file="client")
    gunicorn = start(
        *("--certfile", str(server.cert), "--keyfile", str(server.key), "--ciphers", "ECDHE+CHACHA20"),
        *("--ca-certs", str(authority.path), "--cert-reqs", "2", "--workers", "2"),
        app=TLS_APP,
    )
    gunicorn.workers(2)
    assert tls_exchange(gunicorn.port, authority.client(client)) == "https 0304 True"
    old = authority.client(client, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert tls_exchange(gunicorn.port, old) == "https 0303 True"
    old.set_ciphers("ECDHE+AESGCM")
    with pytest.raises(ssl.SSLError):
        tls_exchange(gunicorn.port, old)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_exchange(gunicorn.port, authority.client())
    authority.issue()
    gunicorn.wait_for("Certificates renewed", 2)
    assert tls_exchange(gunicorn.port, authority.client(client)) == "https 0304 True"
    assert gunicorn.end() == 0
    assert not gunicorn.matches("Traceback|WARNING")


def test_a_file_that_can_not_be_used_any_more_stops_no_gunicorn(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue()
    gunicorn = start("--certfile", str(server.cert), "--keyfile", str(server.key), app=TLS_APP)
    [pid] = gunicorn.workers()
    good = server.pem
    server.cert.write_text("nothing")
    line = f"Certificates not renewed, the old ones stay: certfile '{server.cert}' holds no certificate"

    def served() -> str:
        assert tls_exchange(gunicorn.port, authority.client()) == "https 0304 False"
        return ssl.get_server_certificate(("127.0.0.1", gunicorn.port))

    os.kill(pid, signal.SIGKILL)
    assert len(gunicorn.workers(2)) == 2
    assert served() == good
    gunicorn.kill(signal.SIGHUP)
    pids = gunicorn.workers(3)
    assert len(pids) == 3
    gunicorn.wait_for(rf"Worker exiting \(pid: {pids[1]}\)")
    assert served() == good
    assert len(gunicorn.matches(re.escape(line))) == 2
    authority.issue()
    gunicorn.kill(signal.SIGHUP)
    assert gunicorn.workers(4)
    gunicorn.wait_for(rf"Worker exiting \(pid: {pids[2]}\)")
    assert served() == server.pem != good
    assert gunicorn.end() == 0
    assert not gunicorn.matches("Traceback")


def test_a_key_may_come_from_a_pipe(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(server.key.read_bytes(),))
    writing.start()
    gunicorn = start("--certfile", str(server.cert), "--keyfile", str(pipe), app=TLS_APP)
    [pid] = gunicorn.workers()
    writing.join()
    os.kill(pid, signal.SIGKILL)
    gunicorn.workers(2)
    assert tls_exchange(gunicorn.port, authority.client()) == "https 0304 False"
    assert gunicorn.end() == 0
    assert not gunicorn.matches("renewed")


def test_gunicorns_ssl_context_hook_makes_the_context(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    conf = f"""
        import ssl

        certfile, keyfile = {str(pair.cert)!r}, {str(pair.key)!r}

        def ssl_context(conf, default_ssl_context_factory):
            context = default_ssl_context_factory()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            return context
    """
    gunicorn = start(app=TLS_APP, conf=conf)
    gunicorn.workers()
    assert tls_exchange(gunicorn.port, authority.client()) == "https 0303 False"


def test_a_mistake_in_tls_is_one_line_with_gunicorns_names(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gunicorn = start("--certfile", "file")
    assert gunicorn.wait() == 1
    line = "certfile 'file' holds no certificate: name a file that has one, in PEM"
    assert gunicorn.matches("^Error: (.*)") == [line]
    assert not gunicorn.matches("Traceback|Booting worker")
    with pytest.raises(RuntimeError, match=r"^keyfile is given once and certfile not at all: "):
        warnings(keyfile="file")


def test_a_mistake_in_tls_after_a_reload_is_one_line_too(start: Start) -> None:
    gunicorn = start()
    gunicorn.workers()
    (gunicorn.folder / "file").touch()
    (gunicorn.folder / "gunicorn.conf.py").write_text("certfile = 'file'")
    gunicorn.kill(signal.SIGHUP)
    assert gunicorn.wait() == 3
    gunicorn.wait_for(r"\[ERROR\] certfile 'file' holds no certificate: name a file that has one, in PEM$")
    assert not gunicorn.matches("Traceback")


# CONFIG_KWARGS


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


def test_config_kwargs(start: Start) -> None:
    conf = custom(
        "{'loop': 'asyncio', 'http': 'httptools', 'timeout_keep_alive': 7, 'headers': [('x-a', 'b')]}"
    )
    gunicorn = start("-k", "custom.Custom", app=SCOPE_APP, conf=conf)
    assert told(gunicorn)["loop"].startswith("asyncio.")
    gunicorn.wait_for("^config httptools 7$")


def test_wrong_config_kwargs_are_one_line(start: Start) -> None:
    gunicorn = start("-k", "custom.Custom", conf=custom("{'lifespan': 'maybe'}"))
    assert gunicorn.wait() == 3
    gunicorn.wait_for(r"\[ERROR\] lifespan 'maybe': give auto, on or off")
    gunicorn.wait_for(r"Reason: Worker failed to boot\.")
    assert not gunicorn.matches("Traceback")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("htpt", "htpt in CONFIG_KWARGS is not a setting of fastasgi: leave it out"),
        ("user", "user in CONFIG_KWARGS has no effect: set what gunicorn has for it"),
    ],
)
def test_config_kwargs_that_mean_nothing(name: str, line: str) -> None:
    class Custom(FastASGIWorker):
        CONFIG_KWARGS = {name: "auto"}  # noqa: RUF012

    with pytest.raises(ConfigError, match=f"^{line}$"):
        config_of(Custom)


@pytest.mark.parametrize(
    ("base", "loop", "http"),
    [(workers.UvicornWorker, "auto", "auto"), (workers.UvicornH11Worker, "asyncio", "h11")],
)
def test_config_kwargs_of_uvicorns_classes(base: type[FastASGIWorker], loop: str, http: str) -> None:
    class Custom(base):  # type: ignore[misc, valid-type]
        CONFIG_KWARGS = {**base.CONFIG_KWARGS, "root_path": "/a"}  # noqa: RUF012

    class Other(base):  # type: ignore[misc, valid-type]
        CONFIG_KWARGS = {"http": "httptools", "lifespan": "off"}  # noqa: RUF012

    config = config_of(Custom, asgi_loop="uvloop")
    assert (config.loop, config.http, config.root_path) == (loop, http, "/a")
    config = config_of(Other, asgi_loop="uvloop")
    assert (config.loop, config.http, config.lifespan) == ("uvloop", "httptools", "off")


def test_what_gunicorn_does_is_named_right() -> None:
    assert set(workers.GUNICORNS_OWN) <= {field.name for field, _ in settings_of(Config)}


# Start-up failures


def test_a_failed_startup_halts_the_arbiter(start: Start) -> None:
    source = """
        async def app(scope, receive, send):
            await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    gunicorn = start(app=source)
    assert gunicorn.wait() == 3
    gunicorn.wait_for(r"\[ERROR\] no database$")
    gunicorn.wait_for(r"Reason: Worker failed to boot\.")
    assert not gunicorn.matches("Traceback")


@pytest.mark.parametrize(
    ("source", "code", "pattern"),
    [
        ("import nothing_at_all", 3, "ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("application = None", 4, "Failed to find attribute 'app' in 'app'"),
        (
            "def app(environ, respond): pass",
            3,
            r"\[ERROR\] the application takes two arguments, as WSGI does: .* goes into CONFIG_KWARGS",
        ),
    ],
)
def test_an_application_that_cannot_be_loaded(start: Start, source: str, code: int, pattern: str) -> None:
    gunicorn = start(app=source)
    assert gunicorn.wait() == code
    gunicorn.wait_for(pattern)


def test_an_application_may_be_made_by_a_call(start: Start) -> None:
    source = """
        def make(word):
            async def app(scope, receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": word.encode()})
            return app
    """
    gunicorn = start(app=source, target="app:make('made')")
    assert exchange(gunicorn.port, "/") == (200, "made")


# The reloader


def test_reload(start: Start) -> None:
    gunicorn = start("--reload", "--reload-engine", "poll")
    [first] = gunicorn.workers()
    source = gunicorn.folder / "app.py"
    source.write_text("def (")
    [_, second] = gunicorn.workers(2)
    assert gunicorn.matches("SyntaxError: invalid syntax")
    status, body = exchange(gunicorn.port)
    assert (status, body) == (500, "The application has a syntax error, see the log.")
    source.write_text(APP)
    [_, _, third] = gunicorn.workers(3)
    assert exchange(gunicorn.port) == (200, str(third))
    for worker in (first, second):
        gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")


# Logs


@pytest.mark.parametrize(
    ("loggers", "prefix"),
    [
        ("{}", r"\[.*\] \[INFO\] "),
        ("{'fastasgi.error': {'handlers': ['own'], 'propagate': False}}", "own "),
    ],
)
def test_the_servers_lines_go_to_gunicorns_log_or_to_handlers_of_their_own(
    start: Start, loggers: str, prefix: str
) -> None:
    conf = f"""
        logconfig_dict = {{
            "version": 1,
            "formatters": {{"own": {{"format": "own %(message)s"}}}},
            "handlers": {{"own": {{"class": "logging.StreamHandler", "formatter": "own"}}}},
            "loggers": {loggers},
            "root": {{"handlers": ["own"]}},
        }}
    """
    gunicorn = start(conf=conf)
    gunicorn.workers()
    [line] = gunicorn.matches(".*Application startup complete.*")
    assert re.fullmatch(prefix + r"Application startup complete\.", line)


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


class Access:
    """A gunicorn that writes one file of access lines, in this format."""

    def __init__(self, start: Start, line_format: str, *arguments: str, **sources: str) -> None:
        self.file = None
        arguments = ("--access-logfile", "access", "--access-logformat", line_format, *arguments)
        self.gunicorn = start(*arguments, app=ACCESS_APP, **sources)
        self.gunicorn.workers()
        self.file = self.gunicorn.folder / "access"

    def lines(self, count: int) -> list[str]:
        """All lines, once there are so many."""
        return wait_until(lambda: len(found := self.file.read_text().splitlines()) >= count and found)

    def send(self, data: bytes) -> bytes:
        """Send bytes on a connection of its own, read to its end."""
        with self.gunicorn.connect() as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def ask(self, path: str, method: str = "GET", fields: str = "") -> bytes:
        return self.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n".encode())


def test_access_log_as_gunicorn_has_it(start: Start) -> None:
    gunicorn = start("--access-logfile", "-", app=ACCESS_APP)
    credentials = {"authorization": "Basic dXNlcjpzZWNyZXQ=", "referer": "http://r/", "user-agent": 'a"b'}
    assert exchange(gunicorn.port, "/ok/%41?c=d", credentials)[0] == 200
    day = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    gunicorn.wait_for(rf'^127\.0\.0\.1 - user {day} "GET /ok/%41\?c=d HTTP/1\.1" 200 5 "http://r/" "a\\"b"$')


def test_no_access_log_unless_asked_for(start: Start) -> None:
    gunicorn = start(app=ACCESS_APP)
    assert exchange(gunicorn.port, "/ok")[0] == 200
    assert gunicorn.end() == 0
    assert not gunicorn.matches("/ok.*200")


ATOMS = "%(m)s %(U)s %(q)s %(s)s %(B)s %(b)s %(H)s %({x-req}i)s %({x-res}o)s %({http_x_req}e)s %({raw_uri}e)s"


def test_atoms(start: Start) -> None:
    access = Access(start, ATOMS + " %(p)s %(T)s %(M)s %(D)s %(L)s %({remote_port}e)s")
    access.ask("/ok/%C3%A4?c=d", fields="X-Req: in\r\n")
    [line] = access.lines(1)
    [worker] = access.gunicorn.workers()
    expected = (
        rf"GET /ok/ä c=d 200 5 5 HTTP/1\.1 in out in /ok/%C3%A4\?c=d <{worker}> 0 \d+ \d+ 0\.\d{{6}} \d+"
    )
    assert re.fullmatch(expected, line), line


def test_each_response_is_logged_once_with_what_was_sent(start: Start) -> None:
    access = Access(start, "%(m)s %(U)s %(s)s %(B)s %(b)s")
    for path in ("/ok", "/length", "/empty", "/fail", "/start", "/nothing", "/cut", "/refused"):
        access.ask(path, method="HEAD" if path == "/length" else "GET")
    for path in ("/pathsend", "/zerocopysend", "/trailers", "/background"):
        access.ask(path)
    access.gunicorn.wait_for("background: logged")
    assert access.gunicorn.end() == 0
    assert access.lines(12) == [
        "GET /ok 200 5 5",
        "HEAD /length 200 0 0",
        "GET /empty 204 0 0",
        "GET /fail 500 None -",
        "GET /start 500 None -",
        "GET /nothing 500 None -",
        "GET /cut 200 3 3",
        "GET /refused 201 1 1",
        "GET /pathsend 200 None -",
        "GET /zerocopysend 200 7 7",
        "GET /trailers 200 2 2",
        "GET /background 200 1 1",
    ]


def test_what_nobody_took_is_logged_so(start: Start) -> None:
    access = Access(start, "%(U)s %(s)s")
    gunicorn = access.gunicorn
    for path in ("/leave", "/leave/send", "/blind", "/download"):
        with gunicorn.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            gunicorn.wait_for(f"^begins {path}$")
            if path == "/download":
                assert client.recv(65536)
    access.ask("/ok")  # by now the worker has noticed that they left
    (gunicorn.folder / "release").touch()
    gunicorn.wait_for("blind: sent")
    with gunicorn.connect() as client:
        client.sendall(b"GET /forever HTTP/1.1\r\nhost: x\r\n\r\n")
        gunicorn.wait_for("^begins /forever$")
        assert gunicorn.end(signal.SIGINT) == 0
    gunicorn.wait_for("forever: cancelled")
    # To a client that has closed in order a first write succeeds: it might only have ended its sending side.
    # What the end of the server cuts off is not logged.
    assert sorted(access.lines(3)) == ["/blind 200", "/download 499", "/ok 200"]
    assert not gunicorn.matches("Traceback")


def test_no_request_writes_a_line_of_its_own(start: Start) -> None:
    access = Access(start, "%(U)s %(q)s %({x-req}i)s")
    access.send(
        "GET /ok/%0aFORGED%1b[0m?%0a HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-req: \x85\r\n\r\n".encode(
            "latin-1"
        )
    )
    assert access.lines(1) == [r"/ok/\x0aFORGED\x1b[0m %0a \x85"]


def test_refusals_of_long_fields_are_logged(start: Start) -> None:
    access = Access(start, "%(U)s %(s)s %(B)s", "--limit-request-field_size", "50")
    access.ask("/ok", fields=f"name: {'x' * 50}\r\n")
    assert access.lines(1) == ["/ok 431 31"]


def test_a_unix_socket_has_no_address_to_log(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    access = Access(start, "%(h)s %({server_name}e)s %(s)s", "-b", f"unix:{path}")
    assert exchange(path, "/ok")[0] == 200
    assert access.lines(1) == [f"- {path} 200"]


def test_the_servers_own_access_log_takes_the_place_of_gunicorns(start: Start) -> None:
    conf = custom("{'access_log': True, 'access_log_format': '{method} {path} {status}'}")
    access = Access(start, "gunicorn's", "-k", "custom.Custom", conf=conf)
    access.ask("/ok")
    assert access.lines(1) == ["GET /ok 200"]
    assert access.gunicorn.end() == 0
    assert access.lines(1) == ["GET /ok 200"]


LOGGERS = """
    import logging
    from gunicorn.glogging import Logger

    class OwnAtoms(Logger):
        def atoms(self, resp, req, environ, request_time):
            atoms = super().atoms(resp, req, environ, request_time)
            return atoms | {"m": f"{req.method} {dict(req.headers)['X-REQ']} {req.path} {req.version}"}

    class OwnAccess(Logger):
        def access(self, resp, req, environ, request_time):
            response = [resp.status, resp.status_code, resp.sent]
            print("own", *response, req.uri, req.query, request_time.total_seconds() < 5, flush=True)

    class Broken(Logger):
        def access(self, resp, req, environ, request_time):
            raise ValueError("broken access")

    class Duck:
        def __init__(self, cfg):
            self.cfg = cfg
        def setup(self, cfg):
            pass
        def access(self, resp, req, environ, request_time):
            print("quack", resp.status, flush=True)
        def critical(self, text, *args, **kwargs):
            print(text, args, kwargs, flush=True)
        error = warning = info = debug = exception = critical
        def reopen_files(self):
            pass
        def close_on_exec(self):
            pass
"""


def test_a_logger_class_with_atoms_of_its_own(start: Start) -> None:
    access = Access(
        start, "%(m)s", "--logger-class", "loggers.OwnAtoms", conf=write_module("loggers", LOGGERS)
    )
    access.ask("/ok?c=d", fields="x-req: in\r\n")
    assert access.lines(1) == ["GET in /ok (1, 1)"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("OwnAccess", r"^own 200 OK 200 5 /ok\?c=d c=d True$"),
        ("Broken", r"Exception in the access log\nTraceback(.|\n)*ValueError: broken access$"),
        ("Duck", "^quack 200 OK$"),
    ],
)
def test_a_logger_class_of_ones_own(start: Start, name: str, line: str) -> None:
    # Its access() is called without an access log too, as gunicorn's other workers do
    conf = write_module("loggers", LOGGERS)
    gunicorn = start("--logger-class", f"loggers.{name}", app=ACCESS_APP, conf=conf)
    assert exchange(gunicorn.port, "/ok?c=d") == (200, "12345")
    gunicorn.wait_for(line)
    gunicorn.wait_for("appears unsupported")  # the server's own lines


def test_statsd(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(WAIT_S)
        gunicorn = start("--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}", app=ACCESS_APP)
        assert exchange(gunicorn.port, "/fail")[0] == 500
        wanted = {
            b"gunicorn.requests:1|c|@1.0",
            b"gunicorn.request.status.500:1|c|@1.0",
            b"gunicorn.log.error:1|c|@1.0",
        }
        while wanted:
            wanted.discard(statsd.recv(65536))


# Hooks


def test_hooks(start: Start) -> None:
    conf = """
        def say(*words):
            print("hook", *words, flush=True)

        def post_worker_init(worker):
            say("post_worker_init", worker.pid)

        def pre_request(worker, request):
            say("pre_request", worker.pid, request.method, request.path, request.headers[0])

        def post_request(worker, request, environ, response):
            say("post_request", environ["PATH_INFO"], response.status, response.headers)
            raise ValueError("raised in a hook")

        def worker_exit(server, worker):
            say("worker_exit", worker.pid)
    """
    gunicorn = start(conf=conf, app=ACCESS_APP)
    [worker] = gunicorn.workers()
    assert exchange(gunicorn.port, "/ok") == (200, "12345")
    gunicorn.wait_for("ValueError: raised in a hook")
    assert gunicorn.end() == 0
    assert gunicorn.matches("^hook (.*)") == [
        f"post_worker_init {worker}",
        f"pre_request {worker} GET /ok ('HOST', '127.0.0.1:{gunicorn.port}')",
        "post_request /ok 200 OK [('X-Res', 'out')]",
        f"worker_exit {worker}",
    ]


def test_a_hook_that_raises_fails_its_request(start: Start) -> None:
    conf = """
        def pre_request(worker, request):
            raise ValueError("raised in a hook")
    """
    gunicorn = start("--access-logfile", "-", "--access-logformat", "access %(s)s", conf=conf)
    assert exchange(gunicorn.port)[0] == 500
    gunicorn.wait_for("^access 500$")
