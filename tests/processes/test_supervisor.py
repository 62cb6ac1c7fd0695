"""The supervisor and its workers: start and end, Unix sockets, what surrounds the process."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from load import WAIT_S, Load
from serving import listening_ports, processes_in, wait_until
from supervised import APP, ENVIRONMENT, Supervised, ask, connect_to, hang, processor_time_s

from fastasgi import Config
from fastasgi.processes import supervisor
from fastasgi.processes.startmethods import spawn_worker
from fastasgi.processes.workerprocess import WorkerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


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

    monkeypatch.setattr(subprocess, "Popen", Popen)
    config = Config("app:app", port=0, workers=1)
    running = supervisor.Supervisor(config, lambda: config, {"x": "1"}, {"FASTASGI_SECRET": "y"})
    try:
        running.replace()
        with pytest.raises(OSError, match=r"^$"):
            spawn_worker(config, 0, None, [], running.environ, running.cwd, [])
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
    assert len(ports) == 2, "two addresses, which both workers share"
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
