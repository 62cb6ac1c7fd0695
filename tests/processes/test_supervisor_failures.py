"""Workers that die or hang, and how the supervisor replaces them."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from load import WAIT_S, Load
from serving import processes_in, wait_until
from supervised import APP, Supervised, hang, processor_time_s, rows_of, suspend

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


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


@pytest.mark.parametrize("kind", [(), ("--preload",)], ids=["spawn", "fork"])
def test_what_the_application_starts_inherits_no_socket_and_no_memory(
    run: Callable[..., Supervised], kind: tuple[str, ...]
) -> None:
    source = APP.replace("time.sleep(60)", "print(os.popen('ls -l /proc/self/fd').read(), flush=True)")
    server = run("--workers", "1", *kind, source=source)
    server.wait_for_workers(1)
    wait_until(lambda: rows_of(server) == [True], "a row in use")
    server.get("/block")
    server.assert_ends()
    assert "pipe:" in server.output
    assert "socket:" not in server.output
    assert "memfd:" not in server.output


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
    wait_until(lambda: time.monotonic() - begin > 1.5, "1.5 seconds")
    assert server.count("did not start") - failures <= 1
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
    wait_until(lambda: time.monotonic() - begin > 1.5, "1.5 seconds")
    assert server.count("has died") - deaths <= 1
    server.send(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize("path", ["/block"])
def test_a_worker_that_hangs_is_replaced_and_says_where(run: Callable[..., Supervised], path: str) -> None:
    server = run("--workers", "2", "--timeout-worker-healthcheck", "1")
    server.wait_for_workers(2)
    with Load(server.connect, clients=2) as load, server.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        worker = int(server.wait_for(r"Worker \[(\d+)\] has blocked its event loop for 1 seconds")[1])
        server.wait_for(r'app.py", line \d+ in app')
        server.wait_for_workers(3)
        wait_until(lambda: worker not in processes_in(server.folder), "its end")
        load.wait_for_answers()
    assert server.count("has blocked its event loop") == 1
    assert sum(load.failures.values()) <= 2, "a connection each that the worker had"
    server.assert_ends()


def test_a_busy_worker_that_turns_is_left_alone(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", "--timeout-worker-healthcheck", "2")
    server.wait_for_workers(1)
    # Longer than the limit all together, each far below it
    for _ in range(6):
        server.get("/busy")
    assert server.log.count("Application startup complete.") == 1
    assert "has blocked its event loop" not in server.log
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
    wait_until(lambda: time.monotonic() - begin > 2.5, "2.5 seconds")
    for pid in suspended:
        os.kill(pid, signal.SIGCONT)
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > 2.5, "2.5 seconds")
    assert server.workers() == workers
    assert "has blocked its event loop" not in server.log
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
