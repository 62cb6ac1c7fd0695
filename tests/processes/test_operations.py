"""What an operator does to a server under load fails no request, whatever the server listens on."""

import contextlib
import functools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from http2load import HTTP2Load
from load import WAIT_S, Load
from serving import listening_ports, processes_in, wait_until
from supervised import APP, ENVIRONMENT, Supervised, connect_to

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# Listens on two ports by descriptors 3 and 4 and becomes the server, as a service manager starts it
LAUNCHER = """
import fcntl, os, socket, sys
socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
with open("ports", "w") as file:
    print(*[sock.getsockname()[1] for sock in socks], file=file)
for number, fd in enumerate([fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100) for sock in socks], 3):
    os.dup2(fd, number)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

Connect = Callable[[], socket.socket]


def connect_tcp(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WAIT_S)


def listen(folder: Path, run: Callable[..., Supervised], kind: str) -> tuple[Supervised, list[Connect]]:
    """A server with two workers, and functions that connect to each of its addresses."""
    if kind in ("systemd", "fd"):
        (folder / "app.py").write_text(APP)
        (folder / "launcher.py").write_text(LAUNCHER)
        command = (sys.executable, "launcher.py", "-m", "fastasgi")
        arguments = ["app:app", "--no-access-log", "--workers", "2"]
        arguments += ["--bind", "fd://3", "--bind", "fd://4"] if kind == "fd" else []
        server = Supervised(folder, *arguments, environment=ENVIRONMENT, command=command)
        server.wait_for_workers(2)
        ports = [int(port) for port in (folder / "ports").read_text().split()]
        return server, [functools.partial(connect_tcp, port) for port in ports]
    binds = {
        "one": ("--port", "0"),
        "several": ("--bind", "127.0.0.1:0", "--bind", "unix:s", "--bind", "127.0.0.1:0"),
    }
    server = run("--workers", "2", *binds[kind])
    server.wait_for_workers(2)
    connects: list[Connect] = [
        functools.partial(connect_tcp, port) for port in listening_ports(server.pid)["127.0.0.1"]
    ]
    if kind == "several":
        connects.append(functools.partial(connect_to, folder / "s"))
    return server, connects


@pytest.fixture
def listening(
    tmp_path: Path, run: Callable[..., Supervised]
) -> Iterator[Callable[..., tuple[Supervised, list[Connect]]]]:
    """Starts a server: ``listening(kind)``. It ends with the test."""
    started: list[Supervised] = []

    def listening(kind: str) -> tuple[Supervised, list[Connect]]:
        server, connects = listen(tmp_path, run, kind)
        started.append(server)
        return server, connects

    yield listening
    for pid in processes_in(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for server in started:
        server.close()


def reload(server: Supervised) -> None:
    times = server.count("Reloaded")
    server.send(signal.SIGHUP)
    server.wait_for_reload(2, times + 1)


def resize(server: Supervised) -> None:
    started = server.count("Application startup complete.")
    for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1), (signal.SIGTTIN, 2)):
        server.send(number)
        wait_until(lambda count=count: len(server.workers()) == count, f"{count} workers")
        started += number == signal.SIGTTIN
        server.wait_for_workers(started)


def replace(server: Supervised) -> None:
    server.send(signal.SIGUSR2)
    new = int(server.wait_for(r"Supervisor \[(\d+)\] takes over")[1])
    assert server.process.wait(WAIT_S) == 0
    server.pid = new


def withdraw(server: Supervised) -> None:
    server.send(signal.SIGWINCH)
    wait_until(lambda: not server.workers(), "the end of all workers")
    reload(server)


@pytest.mark.parametrize("kind", ["one", "several", "systemd", "fd"])
def test_no_request_fails(listening: Callable[..., tuple[Supervised, list[Connect]]], kind: str) -> None:
    server, connects = listening(kind)
    loads = [Load(connect, 4 if len(connects) == 1 else 2) for connect in connects]
    loads += [HTTP2Load(connect, 1) for connect in connects]
    with contextlib.ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        for operation in (reload, resize, withdraw, replace):
            old = set(server.workers())
            operation(server)
            assert len(server.workers()) == 2
            assert len(old & set(server.workers())) <= (operation is resize)
            for load in loads:
                load.wait_for_answers()
                assert not load.failures, operation
    assert not any(load.failures for load in loads), [load.failures for load in loads]
    os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")
    assert "Traceback" not in server.log
    assert "is killed" not in server.log


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_server_takes_before_it_ends_is_answered(run: Callable[..., Supervised], workers: int) -> None:
    """By HTTP/2 there is no request that a client may not send any more, and does not know it."""
    server = run("--workers", f"{workers}")
    server.wait_for_workers(workers)
    connect = functools.partial(connect_tcp, server.port)
    with HTTP2Load(connect, 4) as load:
        load.wait_for_answers()
        server.send(signal.SIGTERM)
        server.wait()
        wait_until(lambda: load.failures, "a connection that is refused")
    assert set(load.failures) == {"fresh: ConnectionRefusedError"}
    assert "Traceback" not in server.log
