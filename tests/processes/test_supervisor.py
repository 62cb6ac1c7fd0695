"""The supervisor and its workers as an operator meets them: signals, deaths, reloads, mistakes."""

import contextlib
import functools
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from load import WAIT_S, Load
from serving import ServerProcess, listening_ports, processes_in, wait_until

from fastasgi import Config
from fastasgi.processes import supervisor
from fastasgi.processes.workerprocess import WorkerProcess, spawn_worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

APP = """
import asyncio, os, time

VERSION = "v1"

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/hang":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.Event().wait()
    if scope["path"] == "/block":
        time.sleep(60)
    if scope["path"] == "/busy":
        time.sleep(0.7)
    if scope["path"] == "/die":
        os._exit(7)
    body = f"{os.getpid()} {VERSION}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

GROWING_APP = APP.replace("body = f", "KEPT.append(b'x' * 2**20); body = f") + "KEPT = []\n"

ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # two versions of app.py may be of one second


def processor_time_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def suspend(pid: int) -> None:
    """Stop a process by SIGSTOP, and wait until it stands."""
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"{pid} stands")


class Supervised(ServerProcess):
    """A supervisor in its folder, whose workers can be asked for."""

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        super().__init__(folder, *arguments, environment=environment or ENVIRONMENT)
        self.pid = self.process.pid

    def workers(self) -> list[int]:
        """The children of the supervisor."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in children.split()]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), WAIT_S)

    def get(self, path: str = "/") -> str:
        """The body of an answer on a connection of its own."""
        with self.connect() as sock:
            return ask(sock, path)

    def version(self) -> str:
        return self.get().split()[1]

    def count(self, text: str) -> int:
        return self.log.count(text)

    def wait_for_count(self, text: str, count: int, limit_s: float = WAIT_S) -> None:
        try:
            wait_until(lambda: self.count(text) >= count, f"{count} x {text!r}", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error} in:\n{self.log}") from None

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers have become ready since the start."""
        self.wait_for_count("Application startup complete.", count)

    def wait_for_reload(self, workers: int, times: int = 1) -> None:
        """Wait for the end of a reload and of the old workers, which accept until they know of it."""
        self.wait_for_count("Reloaded", times)
        wait_until(lambda: len(self.workers()) == workers, f"{workers} workers")

    def write_app(self, source: str) -> None:
        """Change the application's code."""
        temporary = self.folder / "app.py.new"
        temporary.write_text(source)
        temporary.replace(self.folder / "app.py")

    def assert_ends(self, number: int = signal.SIGTERM, tracebacks: int = 0) -> None:
        """Send a signal: the exit code is 0, no process is left and nothing else has gone wrong."""
        assert self.end(number) == 0, self.log
        assert processes_in(self.folder) == []
        assert self.count("Traceback") == tracebacks, self.log
        assert "is killed" not in self.log


def ask(sock: socket.socket, path: str = "/") -> str:
    """The body of the answer on this connection, which is the last one on it."""
    sock.settimeout(WAIT_S)
    sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    data = b""
    while piece := sock.recv(4096):
        data += piece
    return data.partition(b"\r\n\r\n")[2].decode()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts a supervisor: ``run(*arguments, source=...)``. What it has started ends with the test."""
    started: list[Supervised] = []

    def run(*arguments: str, source: str = APP, environment: dict[str, str] | None = None) -> Supervised:
        (tmp_path / "app.py").write_text(source)
        binds = (
            ()
            if any(name.startswith(("--uds", "--bind", "--fd", "--port")) for name in arguments)
            else ("--port", "0")
        )
        started.append(
            Supervised(tmp_path, "app:app", "--no-access-log", *binds, *arguments, environment=environment)
        )
        return started[-1]

    run.folder = tmp_path  # type: ignore[attr-defined]
    yield run
    for pid in processes_in(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for server in started:
        server.close()


def hang(server: Supervised) -> socket.socket:
    """A connection with a request that has begun and does not end."""
    sock = server.connect()
    sock.sendall(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
    data = b""
    while b"begun" not in data:
        piece = sock.recv(4096)
        assert piece
        data += piece
    return sock


# Start and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_workers_answer_and_end(
    run: Callable[..., Supervised], number: int, preload: tuple[str, ...]
) -> None:
    server = run("--workers", "2", *preload)
    server.wait_for_workers(2)
    with Load(server.connect) as load:
        wait_until(lambda: len(load.answers) == 2, "answers of both workers")
        assert {int(body.split()[0]) for body in load.answers} == set(server.workers())
    assert not load.failures
    server.assert_ends(number)


@pytest.mark.parametrize("preload", [(), ("--preload",)])
@pytest.mark.parametrize(
    "signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]]
)
def test_ends_at_once_although_a_request_hangs(
    run: Callable[..., Supervised], signals: list[int], preload: tuple[str, ...]
) -> None:
    server = run("--workers", "2", *preload)
    server.wait_for_workers(2)
    with hang(server):
        *before, last = signals
        for number in before:
            server.send(number)
            server.wait_for("Waiting for 1 connection")
        begin = time.monotonic()
        server.assert_ends(last)
        assert time.monotonic() - begin < 3
    assert server.count("Application shutdown complete.") == 2


def test_every_worker_that_can_not_import_ends_the_start(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "3", source="application = None\n")
    assert server.wait() == 3
    assert server.count("Error:") == 1, server.log
    assert "Traceback" not in server.log
    assert server.count("No worker has started") == 1
    assert processes_in(server.folder) == []


def test_a_worker_that_ends_before_anybody_can_look_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def spawn(config: Config, slot: int, *_: object) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        popen = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(5)"])
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        theirs.close()
        return WorkerProcess(popen.pid, slot, ours, popen)

    monkeypatch.setattr(supervisor, "spawn_worker", spawn)
    config = Config("app:app", port=0, workers=2)
    assert supervisor.Supervisor(config, lambda: config, {}, {}).run() == 5


def test_a_new_supervisor_gets_the_secrets_and_workers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    environments = []

    class Popen:
        def __init__(self, *_: object, env: dict[str, str], **__: object) -> None:
            environments.append(env)
            raise OSError

    monkeypatch.setattr(supervisor.subprocess, "Popen", Popen)
    config = Config("app:app", port=0, workers=1)
    running = supervisor.Supervisor(config, lambda: config, {"x": "1"}, {"FASTASGI_SECRET": "y"})
    try:
        running.replace()
        with pytest.raises(OSError, match=r"^$"):
            spawn_worker(config, 0, [], running.environ, running.cwd, [])
    finally:
        running.listeners.close()
    replacement, worker = environments
    assert (replacement["x"], replacement["FASTASGI_SECRET"]) == ("1", "y")
    assert worker == {"x": "1"}


def test_a_script_that_calls_run_wherever_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import fastasgi\nfastasgi.run('script:app', app_dir='.', port=0, workers=2)\n"
    )
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.count("put the call under if __name__ == '__main__':") == 1
    assert "Traceback" not in ended.stderr
    assert processes_in(tmp_path) == []


def test_workers_that_fail_late_and_not_together_end_the_start(run: Callable[..., Supervised]) -> None:
    server = run(
        "--workers",
        "3",
        source="import os, time\ntime.sleep(2.3 + os.getpid() % 3 / 5)\nraise SystemExit(5)\n",
    )
    assert server.wait() == 5
    assert server.count("did not start: exit code 5") == 3


@pytest.mark.parametrize(
    ("source", "code", "message", "tracebacks"),
    [
        ("raise ValueError('broken')", 1, "ValueError: broken", 1),
        ("app = (", 1, "SyntaxError", 0),
        ("import sys; sys.exit(7)", 7, r"has ended its import by sys.exit\(7\)", 0),
        ("", 3, "app 'app:app'", 0),
        (
            "import time; time.sleep(60)",
            3,
            "timeout_worker_startup 1: the application's import takes long",
            0,
        ),
    ],
)
def test_a_failed_preload_ends_the_start(
    run: Callable[..., Supervised], source: str, code: int, message: str, tracebacks: int
) -> None:
    server = run("--workers", "2", "--preload", "--timeout-worker-startup", "1", source=source)
    assert server.wait() == code
    assert re.search(message, server.log)
    assert server.count("Traceback") == tracebacks


def test_a_failed_lifespan_ends_the_start(run: Callable[..., Supervised]) -> None:
    source = "async def app(*_): raise ValueError('no database')\n"
    server = run("--workers", "2", "--lifespan", "on", source=source)
    assert server.wait() == 3
    assert server.count("ValueError: no database") == 1


def test_the_start_has_a_deadline(run: Callable[..., Supervised]) -> None:
    server = run(
        "--workers", "1", "--timeout-worker-startup", "1",
        source="import asyncio\nasync def app(scope, receive, send): await asyncio.Event().wait()\n",
    )  # fmt: skip
    assert server.wait() == 3
    server.wait_for(r"Worker \[\d+\] is not ready after 1 seconds")
    assert "Current thread" in server.log or "Thread 0x" in server.log
    assert processes_in(server.folder) == []


def test_a_port_in_use(run: Callable[..., Supervised]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = run("--workers", "2", "--port", str(other.getsockname()[1]))
        assert server.wait() == 3
    assert re.fullmatch(r"Error: can't listen on .* in use.*\n", server.log)
    assert processes_in(server.folder) == []


def test_several_addresses(run: Callable[..., Supervised], tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = run("--workers", "2", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}", "--bind", "127.0.0.2:0")
    server.wait_for_workers(2)
    assert server.version() == "v1"
    assert ask(connect_to(path)).endswith("v1")
    ports = listening_ports(server.pid)["127.0.0.1"]
    assert len(ports) == 4, "two addresses, a socket for each worker"
    server.assert_ends()
    assert not path.exists()


def test_an_inherited_descriptor(tmp_path: Path, run: Callable[..., Supervised]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        (tmp_path / "app.py").write_text(APP)
        process = subprocess.Popen(
            [sys.executable, "-m", "fastasgi", "app:app", "--workers", "2", "--fd", str(sock.fileno())],
            cwd=tmp_path, env=ENVIRONMENT, pass_fds=[sock.fileno()],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with Load(lambda: socket.create_connection(sock.getsockname(), WAIT_S)) as load:
            load.wait_for_answers(50)
            process.send_signal(signal.SIGHUP)
            old = set(load.answers)
            wait_until(lambda: len(set(load.answers) - old) >= 2, "answers of both new workers")
        assert not load.failures
        process.terminate()
        assert process.wait(WAIT_S) == 0


def connect_to(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(WAIT_S)
    sock.connect(str(path))
    return sock


def sockets_on(port: int) -> int:
    """How many TCP sockets listen on a port, in all processes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


# Reload


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_reloads_under_load_fail_no_request(run: Callable[..., Supervised], preload: tuple[str, ...]) -> None:
    server = run("--workers", "2", *preload)
    server.wait_for_workers(2)
    with Load(server.connect) as load:
        for number in range(2, 7 if not preload else 4):
            server.write_app(APP.replace("v1", f"v{number}"))
            server.send(signal.SIGHUP)
            if preload:  # a new supervisor takes over
                server.wait_for_count("takes over", number - 1)
                server.pid = int(re.findall(r"Supervisor \[(\d+)\] takes over", server.log)[-1])
            else:
                server.wait_for_count("Reloaded", number - 1)
            load.wait_for_answers(of=f"v{number}")
    assert not load.failures
    assert len({body.split()[1] for body in load.answers}) == number
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def app(:\n", "SyntaxError"),
        (
            APP.replace("message = await receive()", 'raise ValueError("no database")'),
            "ValueError: no database",
        ),
        ("import os\nos._exit(9)\n", "exit code 9"),
    ],
)
def test_new_code_that_fails_is_not_served(run: Callable[..., Supervised], source: str, reason: str) -> None:
    server = run("--workers", "2", "--lifespan", "on")
    server.wait_for_workers(2)
    workers = server.workers()
    with Load(server.connect) as load:
        server.write_app(source)
        server.send(signal.SIGHUP)
        server.wait_for("Not reloaded, the workers go on as they are")
        load.wait_for_answers()
        assert reason in server.log
        assert server.workers() == workers
        server.write_app(APP.replace("v1", "v2"))
        server.send(signal.SIGHUP)
        load.wait_for_answers(of="v2")
    assert not load.failures
    assert server.count("Not reloaded") == 1
    server.assert_ends(tracebacks=reason.startswith("ValueError"))


def test_a_reload_inside_a_reload_brings_the_newest_code(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    with Load(server.connect) as load:
        server.write_app(APP.replace("v1", "v2") + "\ntime.sleep(0.5)\n")
        server.send(signal.SIGHUP)
        server.wait_for("Reloading")
        wait_until(lambda: len(server.workers()) > 2, "a successor")
        server.write_app(APP.replace("v1", "v3"))
        server.send(signal.SIGHUP)
        server.wait_for_reload(2)
        assert {server.version() for _ in range(20)} == {"v3"}
    assert not load.failures
    server.assert_ends()


def test_a_reload_while_the_first_workers_start_brings_the_newest_code(
    run: Callable[..., Supervised],
) -> None:
    server = run("--workers", "2", source=f"{APP}\nopen('imported', 'a').close(); time.sleep(1)\n")
    wait_until((server.folder / "imported").exists, "the import of the old code")
    server.write_app(APP.replace("v1", "v2"))
    server.send(signal.SIGHUP)
    server.wait_for_reload(2)
    assert {server.version() for _ in range(20)} == {"v2"}
    server.assert_ends()


def test_fewer_workers_inside_a_reload(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "3")
    server.wait_for_workers(3)
    with Load(server.connect) as load:
        server.send(signal.SIGHUP)
        for count in (2, 1):
            server.send(signal.SIGTTOU)
            server.wait_for(rf"\b{count} worker\(s\) from now on")
        server.wait_for_reload(1)
    assert not load.failures
    server.assert_ends()


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_the_end_inside_a_reload(run: Callable[..., Supervised], preload: tuple[str, ...]) -> None:
    server = run("--workers", "2", *preload)
    server.wait_for_workers(2)
    server.write_app(APP + "\ntime.sleep(1)\n")
    server.send(signal.SIGHUP)
    wait_until(lambda: len(server.workers()) > 2, "a successor")
    server.assert_ends()


def test_workers_that_die_inside_a_reload(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    server.write_app(APP.replace("v1", "v2"))
    old = server.workers()
    server.send(signal.SIGHUP)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    server.wait_for_reload(2)
    assert {server.version() for _ in range(20)} == {"v2"}
    server.assert_ends()


def test_a_failed_reload_to_fewer_workers_keeps_them_all(run: Callable[..., Supervised]) -> None:
    (run.folder / "pyproject.toml").write_text("[tool.fastasgi]\nworkers = 3\n")
    server = run()
    server.wait_for_workers(3)
    workers = server.workers()
    server.write_app("import time\ntime.sleep(1.5)\nraise ValueError\n")
    (run.folder / "pyproject.toml").write_text("[tool.fastasgi]\nworkers = 1\n")
    server.send(signal.SIGHUP)
    server.wait_for("Not reloaded")
    assert server.workers() == workers
    server.write_app(APP.replace("v1", "v2"))
    server.send(signal.SIGHUP)
    server.wait_for_reload(1)
    assert server.version() == "v2"
    server.assert_ends(tracebacks=1)


def test_a_reload_follows_a_link_to_another_release(run: Callable[..., Supervised]) -> None:
    for release in ("v1", "v2"):
        (run.folder / release).mkdir()
        (run.folder / release / "shop.py").write_text(APP.replace("v1", release))
    link = run.folder / "current"
    link.symlink_to("v1")
    server = Supervised(
        link, "shop:app", "--port", "0", "--workers", "1", environment={**ENVIRONMENT, "PWD": str(link)}
    )
    try:
        server.wait_for_workers(1)
        assert server.version() == "v1"
        link.unlink()
        link.symlink_to("v2")
        server.send(signal.SIGHUP)
        server.wait_for_reload(1)
        assert server.version() == "v2"
        assert server.end() == 0
    finally:
        server.close()


# Workers that die or hang


def test_a_worker_that_is_told_to_end_is_succeeded_first(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    with Load(server.connect, 4) as load:
        for number in range(3):
            load.wait_for_answers(200)
            worker = server.workers()[0]
            os.kill(worker, signal.SIGTERM)
            server.wait_for(rf"Worker \[{worker}\] asks for a successor")
            server.wait_for_workers(3 + number)
            wait_until(lambda worker=worker: worker not in server.workers(), "the worker's end")
    assert not load.failures
    assert load.slowest_s < 2
    assert "has died" not in server.log
    server.assert_ends()


@pytest.mark.parametrize("kind", [(), ("--preload",)], ids=["spawn", "fork"])
def test_a_signal_to_all_processes_is_no_second_one(
    run: Callable[..., Supervised], kind: tuple[str, ...]
) -> None:
    """As systemd and supervisord send it, and kill(1) to a process group."""
    server = run("--workers", "2", *kind, source=APP.replace("time.sleep(0.7)", "await asyncio.sleep(1)"))
    server.wait_for_workers(2)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(6)]
        workers = server.workers()
        for sock in socks:
            sock.sendall(b"GET /busy HTTP/1.1\r\nhost: x\r\n\r\n")
            wait_until(
                lambda sock=sock: any(is_accepted(pid, sock) for pid in workers), "the request's arrival"
            )
        for pid in (*workers, server.pid):
            os.kill(pid, signal.SIGTERM)
        for sock in socks:
            sock.settimeout(WAIT_S)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    assert server.wait() == 0
    assert processes_in(server.folder) == []


def test_what_the_application_starts_inherits_no_socket(run: Callable[..., Supervised]) -> None:
    source = APP.replace("time.sleep(60)", "print(os.popen('ls -l /proc/self/fd').read(), flush=True)")
    server = run("--workers", "1", source=source)
    server.wait_for_workers(1)
    server.get("/block")
    server.assert_ends()
    assert "pipe:" in server.output
    assert "socket:" not in server.output


def test_only_requests_in_a_killed_worker_fail(run: Callable[..., Supervised]) -> None:
    clients, workers, kills = 6, 2, 5
    server = run("--workers", str(workers))
    server.wait_for_workers(workers)
    with Load(server.connect, clients) as load:
        for number in range(kills):
            load.wait_for_answers(200)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            server.wait_for(rf"Worker \[{victim}\] has died: signal SIGKILL")
            server.wait_for_workers(workers + number + 1)
    assert sum(load.failures.values()) <= kills * clients
    assert not [kind for kind in load.failures if "Refused" in kind or "Timeout" in kind or "1.1 5" in kind]
    assert load.slowest_s < 5
    server.assert_ends()


def test_a_connection_that_waits_survives_its_worker(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1")
    server.wait_for_workers(1)
    worker = int(server.get().split()[0])  # has answered: one that dies before has not started
    suspend(worker)
    with server.connect() as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        os.kill(worker, signal.SIGKILL)
        waiting.settimeout(WAIT_S)
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200")
    server.assert_ends()


def test_a_crash_loop_backs_off(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2", source=f"{APP}\nif os.path.exists('broken'): os._exit(1)\n")
    server.wait_for_workers(2)
    (server.folder / "broken").touch()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.wait_for_count("did not start", 3)
    begin, failures, spent_s = time.monotonic(), server.count("did not start"), processor_time_s(server.pid)
    wait_until(lambda: time.monotonic() - begin > 3, "3 seconds")
    assert server.count("did not start") - failures <= 2
    assert processor_time_s(server.pid) - spent_s < 0.3
    assert {server.version() for _ in range(20)} == {"v1"}, "the other one answers all"
    (server.folder / "broken").unlink()
    server.send(signal.SIGHUP)  # does not wait for the end of the pause
    server.wait_for_reload(2)
    server.assert_ends()


def test_workers_that_die_as_soon_as_they_serve_back_off(run: Callable[..., Supervised]) -> None:
    server = run(
        "--workers", "1", source=f"{APP}\nimport threading; threading.Timer(0.3, os._exit, [8]).start()\n"
    )
    server.wait_for_count("has died: exit code 8", 3)
    begin, deaths = time.monotonic(), server.count("has died")
    wait_until(lambda: time.monotonic() - begin > 3, "3 seconds")
    assert server.count("has died") - deaths <= 2
    server.send(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize("path", ["/block"])
def test_a_worker_that_hangs_is_replaced_and_says_where(run: Callable[..., Supervised], path: str) -> None:
    server = run("--workers", "2", "--timeout-worker-healthcheck", "1")
    server.wait_for_workers(2)
    with Load(server.connect, clients=2) as load, server.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        worker = int(server.wait_for(r"Worker \[(\d+)\] has not turned its loop for 1 seconds")[1])
        server.wait_for(r'app.py", line \d+ in app')
        server.wait_for_workers(3)
        wait_until(lambda: worker not in processes_in(server.folder), "its end")
        load.wait_for_answers()
    assert server.count("has not turned its loop") == 1
    assert sum(load.failures.values()) <= 2, "a connection each that the worker had"
    server.assert_ends()


def test_a_busy_worker_that_turns_is_left_alone(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", "--timeout-worker-healthcheck", "1")
    server.wait_for_workers(1)
    for _ in range(6):
        server.get("/busy")
    assert server.log.count("Application startup complete.") == 1
    assert "has not turned" not in server.log
    server.assert_ends()


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_suspended_supervisor_condemns_nobody(run: Callable[..., Supervised], whole_group: bool) -> None:
    server = run("--workers", "2", "--timeout-worker-healthcheck", "1")
    server.wait_for_workers(2)
    workers = server.workers()
    suspended = [server.pid, *workers] if whole_group else [server.pid]
    for pid in suspended:
        os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    if not whole_group:
        server.get()
    wait_until(lambda: time.monotonic() - begin > 4, "4 seconds")
    for pid in suspended:
        os.kill(pid, signal.SIGCONT)
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > 2.5, "2.5 seconds")
    assert server.workers() == workers
    assert "has not turned" not in server.log
    server.assert_ends()


def test_workers_that_hang_at_the_end_are_killed(run: Callable[..., Supervised]) -> None:
    source = APP.replace(
        '            if message["type"] == "lifespan.shutdown":',
        """
            if message["type"] == "lifespan.startup":
                try:
                    os.mkdir("first"); blocks = True
                except FileExistsError:
                    blocks = False
            else:
                if blocks:
                    time.sleep(100)
                await asyncio.Event().wait()
            if message["type"] == "lifespan.shutdown":""",
    ).replace(
        'await send({"type": message["type"] + ".complete"})',
        'if "startup" in message["type"]: await send({"type": message["type"] + ".complete"})',
    )
    server = run("--workers", "2", "--timeout-graceful-shutdown", "0", source=source)
    server.wait_for_workers(2)
    server.send(signal.SIGTERM)
    server.wait_for_count("Waiting for application shutdown.", 2)
    begin = time.monotonic()
    assert server.end(signal.SIGTERM) == 0
    assert time.monotonic() - begin < 8
    assert processes_in(server.folder) == []
    assert server.count("does not end and is killed") == 1, "the one that blocks"


def test_a_killed_supervisor_leaves_no_worker_that_holds_the_interpreter(
    run: Callable[..., Supervised],
) -> None:
    source = APP.replace("time.sleep(60)", "open('begun', 'w'); re.match('(a+)+$', 'a' * 64 + 'b')")
    server = run("--workers", "1", source=f"import re\n{source}")
    server.wait_for_workers(1)
    with server.connect() as sock:
        sock.sendall(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
        wait_until((server.folder / "begun").exists, "the request")
        server.process.kill()
        server.process.wait(WAIT_S)
        wait_until(lambda: not processes_in(server.folder), "the end of the worker", 5.5)


def test_a_killed_supervisor_leaves_no_worker(run: Callable[..., Supervised]) -> None:
    """Whether idle, blocked, or still importing."""
    server = run(
        "--workers",
        "3",
        source=f"{APP}\nif os.path.exists('slow'):\n    open('importing', 'w'); time.sleep(60)\n",
    )
    server.wait_for_workers(3)
    (server.folder / "slow").touch()
    with server.connect() as sock, hang(server):
        sock.sendall(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
        server.send(signal.SIGHUP)
        wait_until((server.folder / "importing").exists, "a worker that imports")
        begin = time.monotonic()
        server.process.kill()
        server.process.wait(WAIT_S)
        wait_until(lambda: not processes_in(server.folder), "the end of all workers", 6)
        assert time.monotonic() - begin < 5.5


def test_an_orphan_answers_what_it_has_begun(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", source=APP.replace("time.sleep(0.7)", "await asyncio.sleep(0.7)"))
    server.wait_for_workers(1)
    with server.connect() as sock:
        sock.sendall(b"GET /busy HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n")
        (worker,) = server.workers()
        wait_until(lambda: is_accepted(worker, sock), "the request's arrival")
        server.process.kill()
        sock.settimeout(WAIT_S)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def is_accepted(worker: int, sock: socket.socket) -> bool:
    """Whether the other end of a connection belongs to a process, and has read all that was sent."""
    port = sock.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        row = line.split()
        if row[2].endswith(f":{port:04X}") and row[4].endswith(":00000000"):
            for entry in Path(f"/proc/{worker}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(entry) == f"socket:[{row[9]}]":
                        return True
    return False


# More and fewer workers


def test_more_and_fewer_workers_under_load(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1")
    server.wait_for_workers(1)
    with Load(server.connect) as load:
        for count in (2, 3):
            server.send(signal.SIGTTIN)
            wait_until(lambda count=count: len(server.workers()) == count, f"{count} workers")
            server.wait_for_workers(count)
        wait_until(lambda: len(load.answers) == 3, "answers of all workers")
        assert sockets_on(server.port) == 3
        for count in (2, 1):
            server.send(signal.SIGTTOU)
            server.wait_for_count(f"{count} worker(s) from now on", count)
        server.send(signal.SIGTTOU)  # the last worker stays
        wait_until(lambda: len(server.workers()) == 1, "one worker")
        wait_until(lambda: sockets_on(server.port) == 1, "one socket")
        for number in (2, 3):
            server.send(signal.SIGTTIN)
            server.wait_for_count("2 worker(s) from now on", number + 1)
            server.send(signal.SIGTTOU)
            server.wait_for_count("1 worker(s) from now on", number)
        server.send(signal.SIGTTIN)
        server.wait_for_count("2 worker(s) from now on", 5)
        wait_until(lambda: len(server.workers()) == 2, "two workers")
        wait_until(lambda: sockets_on(server.port) == 2, "two sockets")
        load.wait_for_answers()
    assert not load.failures
    server.assert_ends()


def test_a_new_worker_gets_no_connection_before_it_is_ready(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", source=f"{APP}\nif os.path.exists('slow'): time.sleep(2)\n")
    server.wait_for_workers(1)
    (server.folder / "slow").touch()
    server.send(signal.SIGTTIN)
    wait_until(lambda: len(server.workers()) == 2, "a second worker")
    begin = time.monotonic()
    for _ in range(30):
        server.get()
    assert time.monotonic() - begin < 1
    server.wait_for_workers(2)
    server.assert_ends()


@pytest.mark.parametrize(
    ("arguments", "source"),
    [
        (["--limit-max-requests", "150", "--limit-max-requests-jitter", "100"], APP),
        (["--limit-worker-lifetime", "1"], APP),
        (["--limit-worker-rss", "150"], GROWING_APP),
    ],
    ids=["requests", "lifetime", "memory"],
)  # fmt: skip
def test_workers_at_their_limits_fail_no_request(
    run: Callable[..., Supervised], arguments: list[str], source: str
) -> None:
    server = run("--workers", "2", *arguments, source=source)
    server.wait_for_workers(2)
    with Load(server.connect) as load:
        wait_until(lambda: len(load.answers) >= 5, "answers of five workers")
    assert not load.failures
    server.assert_ends()


def test_a_limit_that_the_application_alone_exceeds_starts_no_storm(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", "--limit-worker-rss", "1")
    server.wait_for_workers(2)
    begin, started = time.monotonic(), server.count("Application startup complete.")
    wait_until(lambda: time.monotonic() - begin > 4, "4 seconds")
    assert server.count("Application startup complete.") - started <= 2
    server.assert_ends()


# A new supervisor


def test_a_new_supervisor_takes_over_under_load(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2", "--pid-file", "pid")
    server.wait_for_workers(2)
    pid_file = server.folder / "pid"
    assert int(pid_file.read_text()) == server.pid
    with Load(server.connect) as load:
        server.write_app(APP.replace("v1", "v2"))
        server.send(signal.SIGUSR2)
        new = int(server.wait_for(r"Supervisor \[(\d+)\] takes over")[1])
        assert int(pid_file.read_text()) == new
        assert server.process.wait(WAIT_S) == 0
        assert int(pid_file.read_text()) == new
        load.wait_for_answers(50, of="v2")
        server.pid = new
        assert {int(body.split()[0]) for body in [server.get() for _ in range(20)]} <= set(server.workers())
        server.send(signal.SIGTTIN)
        wait_until(lambda: len(server.workers()) == 3, "a third worker")
        server.wait_for_workers(5)
        load.wait_for_answers()
    assert not load.failures
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")
    assert not pid_file.exists()


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_new_supervisor_that_fails_leaves_all_as_it_was(
    run: Callable[..., Supervised], preload: tuple[str, ...]
) -> None:
    server = run("--workers", "2", "--pid-file", "pid", "--uds", "s", *preload)
    server.wait_for_workers(2)
    workers = server.workers()
    with Load(functools.partial(connect_to, server.folder / "s")) as load:
        server.write_app("def app(:\n")
        for count in (1, 2):
            server.send(signal.SIGUSR2)
            server.wait_for_count("The new supervisor did not start; this one goes on", count)
        load.wait_for_answers()
        assert server.workers() == workers
        assert int((server.folder / "pid").read_text()) == server.pid
    assert not load.failures
    assert server.end() == 0
    assert not (server.folder / "pid").exists()
    assert not (server.folder / "s").exists()


def test_more_workers_with_a_new_supervisor_that_fails(run: Callable[..., Supervised]) -> None:
    """Nothing waits on a socket that only the new one has."""
    server = run("--config", "c.toml", source=APP, environment={**ENVIRONMENT, "FASTASGI_WORKERS": "1"})
    assert server.wait() == 2, "no such file"
    (server.folder / "c.toml").write_text("[tool.fastasgi]\nworkers = 1\n")
    server = run("--config", "c.toml")
    server.wait_for_workers(1)
    (server.folder / "c.toml").write_text("[tool.fastasgi]\nworkers = 4\n")
    server.write_app("import time\ntime.sleep(1)\n1 / 0\n")
    with Load(server.connect) as load:
        server.send(signal.SIGUSR2)
        server.wait_for("The new supervisor did not start; this one goes on")
        load.wait_for_answers()
    assert not load.failures
    assert load.slowest_s < 0.9
    server.send(signal.SIGTERM)
    assert server.wait() == 0


def test_signals_to_both_supervisors(run: Callable[..., Supervised]) -> None:
    """As `pkill -USR2` sends them: one of them remains."""
    server = run("--workers", "1", source=f"{APP}\nif os.path.exists('slow'): time.sleep(1)\n")
    server.wait_for_workers(1)
    (server.folder / "slow").touch()
    server.send(signal.SIGUSR2)
    server.wait_for_count("Started supervisor process", 2)
    new = int(re.findall(r"Started supervisor process \[(\d+)\]", server.log)[-1])
    for pid in (server.pid, new, server.pid, new):
        os.kill(pid, signal.SIGUSR2)
    server.wait_for("takes over")
    assert server.process.wait(WAIT_S) == 0
    assert server.count("Started supervisor process") == 2
    server.pid = new
    assert server.version() == "v1"
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")


def test_the_end_before_a_new_supervisor_takes_over(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", source=f"{APP}\nif os.path.exists('slow'): time.sleep(2)\n")
    server.wait_for_workers(1)
    (server.folder / "slow").touch()
    server.send(signal.SIGUSR2)
    server.wait_for_count("Started supervisor process", 2)
    assert server.end() == 0
    wait_until(lambda: not processes_in(server.folder), "the end of all processes", 5)
    assert "Traceback" not in server.log
    assert "takes over" not in server.log


# Unix sockets


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_unix_socket_stays_over_reloads(run: Callable[..., Supervised], preload: tuple[str, ...]) -> None:
    server = run("--workers", "2", "--uds", "s", *preload)
    path = server.folder / "s"
    server.wait_for_workers(2)
    inode = path.stat().st_ino
    with Load(functools.partial(connect_to, path)) as load:
        if not preload:
            server.send(signal.SIGHUP)
            server.wait_for("Reloaded")
        server.send(signal.SIGTTOU)  # a worker ends, and leaves the file
        wait_until(lambda: len(server.workers()) == 1, "one worker")
        server.send(signal.SIGUSR2)
        server.pid = int(server.wait_for(r"Supervisor \[(\d+)\] takes over")[1])
        assert server.process.wait(WAIT_S) == 0
        assert path.stat().st_ino == inode
        load.wait_for_answers()
    assert not load.failures
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")
    assert not path.exists()


# Other signals


@pytest.mark.parametrize("back", [signal.SIGHUP, signal.SIGTTIN])
def test_withdrawn_workers_come_back(run: Callable[..., Supervised], back: int) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    server.send(signal.SIGWINCH)
    wait_until(lambda: not server.workers(), "the end of all workers")
    spent_s, begin = processor_time_s(server.pid), time.monotonic()
    with server.connect() as waiting:
        wait_until(lambda: time.monotonic() - begin > 1, "1 second")
        assert processor_time_s(server.pid) - spent_s < 0.2
        server.send(back)
        assert ask(waiting).endswith("v1")
    server.assert_ends()


def test_a_withdrawn_server_ends(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    server.send(signal.SIGWINCH)
    wait_until(lambda: not server.workers(), "the end of all workers")
    server.assert_ends()


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_log_files_are_opened_again(
    run: Callable[..., Supervised], tmp_path: Path, preload: tuple[str, ...]
) -> None:
    (tmp_path / "log.json").write_text(
        json.dumps(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"f": {"format": "%(process)d %(name)s %(message)s"}},
                "handlers": {"h": {"class": "logging.FileHandler", "filename": "log", "formatter": "f"}},
                "loggers": {"fastasgi": {"handlers": ["h"], "level": "INFO"}},
            }
        )
    )
    server = run("--workers", "2", "--log-config", "log.json", "--access-log", *preload)
    log, moved = tmp_path / "log", tmp_path / "log.1"

    def text() -> str:
        return log.read_text() if log.exists() else ""

    wait_until(lambda: text().count("startup complete") == 2, "the start of both workers")
    log.rename(moved)
    old_text = moved.read_text()
    server.send(signal.SIGUSR1)
    wait_until(log.exists, "a new file")
    workers = server.workers()

    def all_write() -> bool:
        with socket.create_connection(
            ("127.0.0.1", listening_ports(server.pid)["127.0.0.1"][0]), WAIT_S
        ) as sock:
            ask(sock)
        return all(f"{pid} fastasgi.access" in text() for pid in workers)

    wait_until(all_write, "access log lines of both workers")
    assert server.end() == 0
    assert "Finished supervisor" in text()
    assert "Finished supervisor" not in moved.read_text().removeprefix(old_text)


def test_a_storm_of_signals(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    with Load(server.connect) as load:
        numbers = [
            signal.SIGHUP,
            signal.SIGTTIN,
            signal.SIGUSR1,
            signal.SIGTTOU,
            signal.SIGCHLD,
            signal.SIGHUP,
        ]
        for number in numbers * 20:
            server.send(number)
        server.send(signal.SIGHUP)
        server.wait_for("Reloaded")
        load.wait_for_answers(100)
    assert not load.failures
    server.assert_ends()


def test_the_end_in_the_middle_of_everything(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGHUP):
        server.send(number)
    server.send(signal.SIGTERM)
    for number in (
        signal.SIGHUP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    ):
        server.send(number)
    assert server.process.wait(WAIT_S) == 0
    wait_until(lambda: not processes_in(server.folder), "the end of all processes", 8)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("preload", [(), ("--preload",)])
@pytest.mark.parametrize("phase", ["import", "serving"])
def test_ctrl_c_in_a_terminal_is_silent(tmp_path: Path, preload: tuple[str, ...], phase: str) -> None:
    (tmp_path / "app.py").write_text(
        f"{APP}\nprint('im' 'porting', flush=True)\n" + ("time.sleep(1)\n" if phase == "import" else "")
    )
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fastasgi", "app:app", "--port", "0", "--workers", "2", *preload],
        cwd=tmp_path, env=ENVIRONMENT, stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True, preexec_fn=lambda: take_terminal(0),
    )  # fmt: skip
    os.close(terminal)
    output: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(main, output), daemon=True)
    reader.start()
    try:
        mark, count = (b"importing", 1) if phase == "import" else (b"startup complete", 2)
        wait_until(lambda: b"".join(output).count(mark) >= count, f"{mark!r} in {output}")
        os.write(main, b"\x03")
        assert process.wait(WAIT_S) == 0, output
        reader.join(WAIT_S)
    finally:
        process.kill()
        process.wait()
        os.close(main)
    text = b"".join(output).decode()
    for bad in ("Traceback", "Aborted", "KeyboardInterrupt", "ERROR", "killed"):
        assert bad not in text, text
    assert processes_in(tmp_path) == []


def take_terminal(descriptor: int) -> None:
    """Make a terminal the controlling one of this new session, in the foreground."""
    import fcntl

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
    os.tcsetpgrp(descriptor, os.getpgrp())


def read_all(descriptor: int, output: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # EIO: no process has the terminal any more
        while data := os.read(descriptor, 4096):
            output.append(data)


# What surrounds the process


def test_closed_standard_streams(tmp_path: Path) -> None:
    """As daemons close them. A socket in their place would take what the application prints."""
    (tmp_path / "app.py").write_text(f"{APP}\nos.write(1, b'mmmm'); os.write(2, b'mmmm'); print('mmm')\n")
    ready, signalled = tmp_path / "ready", (tmp_path / "app.py")
    source = signalled.read_text().replace(
        'await send({"type": message["type"] + ".complete"})',
        'await send({"type": message["type"] + ".complete"}); open("ready", "a").write("x")',
    )
    signalled.write_text(source)
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", sys.executable, "-m", "fastasgi", "app:app",
         "--workers", "2", "--uds", "s", "--pid-file", "pid"],
        cwd=tmp_path, env=ENVIRONMENT,
    )  # fmt: skip
    try:
        wait_until(lambda: ready.exists() and len(ready.read_text()) == 2, "the start of both workers")
        with Load(functools.partial(connect_to, tmp_path / "s")) as load:
            load.wait_for_answers(50)
        assert not load.failures
        assert len({body.split()[0] for body in load.answers}) <= 2
        process.terminate()
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
    assert processes_in(tmp_path) == []


def test_nobody_reads_the_log(tmp_path: Path) -> None:
    """Its reader has gone: the server goes on, reloads and ends."""
    (tmp_path / "app.py").write_text(APP)
    process = subprocess.Popen(
        [sys.executable, "-m", "fastasgi", "app:app", "--workers", "2", "--uds", "s"],
        cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert b"Started supervisor" in process.stderr.readline()
        process.stderr.close()
        process.stdout.close()
        wait_until((tmp_path / "s").exists, "the socket")
        with Load(functools.partial(connect_to, tmp_path / "s")) as load:
            load.wait_for_answers()
            old = set(load.answers)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: set(load.answers) - old, "an answer of a new worker")
        assert not load.failures
        process.terminate()
        process.wait(WAIT_S)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not processes_in(tmp_path), "the end of all workers", 6)


def test_no_descriptors_left(run: Callable[..., Supervised]) -> None:
    """More workers than the system lets it have: those that are there go on, and it tries again slowly."""
    server = run("--workers", "1")
    server.wait_for_workers(1)
    used = len(os.listdir(f"/proc/{server.pid}/fd"))
    import resource

    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 1, 4096))
    spent_s, begin = processor_time_s(server.pid), time.monotonic()
    for number in (signal.SIGTTIN, signal.SIGHUP, signal.SIGUSR2):
        server.send(number)
    server.wait_for("Too many open files")
    wait_until(lambda: time.monotonic() - begin > 2, "2 seconds")
    assert processor_time_s(server.pid) - spent_s < 0.5
    assert server.version() == "v1"
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (4096, 4096))
    server.send(signal.SIGHUP)
    server.wait_for("Reloaded")
    assert server.version() == "v1"
    server.assert_ends()


def test_preloaded_code_is_imported_once(run: Callable[..., Supervised]) -> None:
    source = f"{APP}\nopen('imports', 'a').write('x')\n"
    server = run("--workers", "3", "--preload", source=source)
    server.wait_for_workers(3)
    imports = server.folder / "imports"
    assert imports.read_text() == "x"
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_for_workers(4)
    assert imports.read_text() == "x"
    server.assert_ends()
