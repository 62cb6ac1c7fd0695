"""A server process and an in-process server, each ready to answer when a test gets it."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from fastasgi import Config, Server

WAIT_S = 20.0
STACKS_S = 1.0  # for workers to write their stacks, once a test has failed


def wait_until(condition: Callable[[], Any], what: object = "", limit_s: float = WAIT_S) -> Any:
    """The first true result of the condition.

    Fails if none comes in time; `what` are the words for it, or a function that returns them.
    """
    deadline = time.monotonic() + limit_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what() if callable(what) else what}"
        time.sleep(0.01)
    return result


@contextlib.contextmanager
def signal_set(number: int, handler: signal.Handlers) -> Iterator[None]:
    """Processes that are started meanwhile ignore a signal, or not, whatever the test's own process does."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class ServerProcess:
    """``python -m fastasgi`` with these arguments, or another command, in this folder.

    On demand it is in a process group of its own.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: dict[str, str] | None = None,
        leads_group: bool = False,
        command: tuple[str, ...] = (sys.executable, "-m", "fastasgi"),
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0 if leads_group else None,
        )
        self.errors: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.errors.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def log(self) -> str:
        return "".join(self.errors)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of a pattern in what the process has written to stderr."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or re.search(pattern, self.log), WAIT_S)
            found = re.search(pattern, self.log)
        assert found, f"no {pattern!r} in:\n{self.log}"
        return found

    @property
    def port(self) -> int:
        return int(self.wait_for(r"running on https?://.*:(\d+) ")[1])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait: the return code, and the access log as ``output``."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the process: its return code. Fails with what its processes are doing."""
        try:
            code = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {WAIT_S:g} s:\n{self._tell_standing()}") from None
        self._reader.join(WAIT_S)
        self.output = self.process.stdout.read()
        return code

    def _tell_standing(self) -> str:
        """Where this process and its children stand in the kernel, and the log with the stacks of workers."""
        lines = []
        children = [int(pid) for pid in read_all(self.process.pid, "task/*/children").split()]
        for pid in (self.process.pid, *children):
            command = read_all(pid, "cmdline").replace("\0", " ")
            lines.append(f"{pid} in {read_all(pid, 'task/*/wchan')}: {command}\n")
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR2)  # not to a supervisor, which would start another one
        self._reader.join(STACKS_S)
        return "".join(lines) + self.log

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        self.process.stdout.close()
        self.process.stderr.close()


Start = Callable[..., ServerProcess]  # what the fixture `start` gives

HI_APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})
"""


@contextlib.asynccontextmanager
async def serving(app: Any, server_type: type[Server] = Server, **settings: Any) -> AsyncIterator[Server]:
    """A server in the running loop, accepting connections; it is stopped gracefully in the end."""
    ready = asyncio.Event()

    async def note_ready() -> None:
        ready.set()

    settings.setdefault("port", 0)
    server = server_type(Config(app, callback_notify=note_ready, **settings))
    serve = asyncio.create_task(server.serve())
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({serve, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield server
    finally:
        server.should_exit = True
        async with asyncio.timeout(WAIT_S):
            await serve


def read_all(pid: int, pattern: str) -> str:
    """What files of a process in /proc hold; nothing where there is no /proc, or once it has ended."""
    found = []
    for path in Path(f"/proc/{pid}").glob(pattern):
        with contextlib.suppress(OSError):
            found.append(path.read_text())
    return " ".join(found)


def processes_in(folder: Path) -> list[int]:
    """The processes whose current folder this is, but for those that have ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == folder:
                    found.append(int(entry.name))
    return found


def listening_ports(pid: int) -> dict[str, list[int]]:
    """The TCP ports on which a process listens, by the loopback address of their family."""
    found: dict[str, list[int]] = {}
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(entry.readlink()))
    for name, host in (("tcp", "127.0.0.1"), ("tcp6", "::1")):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.setdefault(host, []).append(int(fields[1].rpartition(":")[2], 16))
    return found


def port_of(server: Server) -> int:
    return server.servers[0].sockets[0].getsockname()[1]


async def fetch(port: int, head: str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n") -> bytes:
    """All that a server on 127.0.0.1 answers until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode("latin-1"))
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    writer.close()
    return answer


class LineRoute:
    """Where the access lines of a test go, instead of an AccessRoute: to this callable."""

    logger = None
    prefix = ""
    use_colors = at_once = False
    descriptor = -1
    flush: Callable[[], None]

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write

    def look(self) -> bool:
        """As AccessRoute's."""
        return True

    def close(self) -> None:
        """As AccessRoute's."""
