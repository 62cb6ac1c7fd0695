"""Signals to a supervisor: more and fewer workers, log files, the terminal's."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from http2load import HTTP2Load
from load import WAIT_S, Load
from serving import listening_ports, processes_in, wait_until
from supervised import APP, ENVIRONMENT, Supervised, ask, processor_time_s, sockets_on

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

GROWING_APP = APP.replace("body = f", "KEPT.append(b'x' * 2**20); body = f") + "KEPT = []\n"


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
        for count in (2, 1):
            server.send(signal.SIGTTOU)
            server.wait_for_count(f"{count} worker(s) from now on", count)
        server.send(signal.SIGTTOU)  # the last worker stays
        wait_until(lambda: len(server.workers()) == 1, "one worker")
        for number in (2, 3):
            server.send(signal.SIGTTIN)
            server.wait_for_count("2 worker(s) from now on", number + 1)
            server.send(signal.SIGTTOU)
            server.wait_for_count("1 worker(s) from now on", number)
        server.send(signal.SIGTTIN)
        server.wait_for_count("2 worker(s) from now on", 5)
        wait_until(lambda: len(server.workers()) == 2, "two workers")
        assert sockets_on(server.port) == 1
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
    with Load(server.connect) as load, HTTP2Load(server.connect, 1) as http2_load:
        wait_until(lambda: len(load.answers) >= 5, "answers of five workers")
        wait_until(lambda: len(http2_load.answers) >= 5, "answers of five workers by HTTP/2")
    assert not load.failures
    assert not http2_load.failures
    server.assert_ends()


def test_a_limit_that_the_application_alone_exceeds_starts_no_storm(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", "--limit-worker-rss", "1")
    server.wait_for_workers(2)
    begin, started = time.monotonic(), server.count("Application startup complete.")
    wait_until(lambda: time.monotonic() - begin > 4, "4 seconds")
    assert server.count("Application startup complete.") - started <= 2
    server.assert_ends()


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
