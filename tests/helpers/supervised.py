"""A supervisor in a process of its own, and what tests ask it."""

import contextlib
import mmap
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load import WAIT_S
from serving import ServerProcess, processes_in, wait_until

from fastasgi.admin.counts import Counts, read_counts
from fastasgi.core.shares import ROW_SIZE, last_row

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

ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # two versions of app.py may be of one second


def processor_time_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Supervised(ServerProcess):
    """A supervisor in its folder, whose workers can be asked for."""

    def __init__(
        self, folder: Path, *arguments: str, environment: dict[str, str] | None = None, **more: Any
    ) -> None:
        self.folder = folder
        super().__init__(folder, *arguments, environment=environment or ENVIRONMENT, **more)
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


def connect_to(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(WAIT_S)
    sock.connect(str(path))
    return sock


def suspend(pid: int) -> None:
    """Stop a process by SIGSTOP, and wait until it stands."""
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"{pid} stands")


def sockets_on(port: int) -> int:
    """How many TCP sockets listen on a port, in all processes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


@contextlib.contextmanager
def shared_memory(server: Supervised) -> Iterator[mmap.mmap]:
    """The memory that the supervisor shares with its workers."""
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        if entry.readlink().name.startswith("memfd:"):
            with entry.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
                yield memory
            return
    raise AssertionError("no shared memory")


def rows_of(server: Supervised) -> list[bool]:
    """Of each row of that up to the last that was ever given: whether it is in use."""
    with shared_memory(server) as memory:
        return [any(memory[row * ROW_SIZE : (row + 1) * ROW_SIZE]) for row in range(1, last_row(memory) + 1)]


def counts_of(server: Supervised) -> list[Counts]:
    """What is counted in that."""
    with shared_memory(server) as memory:
        return read_counts(memory)
