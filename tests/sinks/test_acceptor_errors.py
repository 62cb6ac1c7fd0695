"""What accept fails with: no descriptors, and the errors that a system makes seldom."""

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving import ServerProcess, Start, wait_until
from supervised import processor_time_s
from waiting import read_all
from wire import CLOSE, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, preloads a library")
each_loop = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
WAIT_S = 20.0
PAUSED = "New connections wait: "


# --- No descriptors ---

DESCRIPTORS = 64
RESERVE = 8  # of so few
SCARCE_APP = f"""
import contextlib, resource

resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))

async def app(scope, receive, send):
    body = b"hi"
    if scope["path"] == "/open":
        with contextlib.ExitStack() as stack:
            for _ in range({RESERVE} - 2):
                stack.enter_context(open(__file__))
            body = b"opened"
    length = (b"content-length", b"%d" % len(body))
    await send({{"type": "http.response.start", "status": 200, "headers": [length]}})
    await send({{"type": "http.response.body", "body": body}})
"""
LOG_CONFIG = """
version: 1
disable_existing_loggers: false
formatters: {plain: {format: "%(levelname)s %(message)s"}}
handlers:
  stderr: {class: logging.StreamHandler, formatter: plain}
  file: {class: logging.FileHandler, filename: LOG, formatter: plain}
root: {level: INFO, handlers: [stderr, file]}
"""


class Clients:
    """Connections that are opened at once, each with a request."""

    def __init__(self, port: int, count: int, stack: contextlib.ExitStack) -> None:
        self.poll = select.poll()
        self.waiting = {}
        self.answered: list[socket.socket] = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S))
            sock.sendall(request())
            self.waiting[sock.fileno()] = sock
            self.poll.register(sock, select.POLLIN)

    def take_answers(self, limit_s: float = 0.0) -> int:
        """How many are answered now, or at the first moment within this time at which some are."""
        ready = self.poll.poll(limit_s * 1000)
        for descriptor, _ in ready:
            sock = self.waiting.pop(descriptor)
            self.poll.unregister(descriptor)
            assert sock.recv(4096).endswith(b"hi")
            self.answered.append(sock)
        return len(ready)


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def ask(sock: socket.socket, path: str) -> bytes:
    sock.sendall(request(f"GET {path} HTTP/1.1"))
    return sock.recv(4096)


@each_loop
def test_clients_wait_while_there_are_no_descriptors(loop: str, start: Start, tmp_path: Path) -> None:
    """Meanwhile no processor time is spent, and what is not a connection has descriptors."""
    log = tmp_path / "log"
    (tmp_path / "log.yaml").write_text(LOG_CONFIG.replace("LOG", str(log)))
    arguments = ("--port", "0", "--loop", loop, "--no-access-log", "--log-config", "log.yaml")
    server = start(SCARCE_APP, "app:app", *arguments)
    pid = server.process.pid
    with contextlib.ExitStack() as stack:
        clients = Clients(server.port, DESCRIPTORS, stack)
        server.wait_for(PAUSED)
        while clients.take_answers(0.2):
            pass
        assert len(clients.answered) > DESCRIPTORS / 2
        assert descriptors_of(pid) == DESCRIPTORS - RESERVE

        before_s, begin = processor_time_s(pid), time.monotonic()
        assert clients.take_answers(0.7) == 0
        assert ask(clients.answered[0], "/open").endswith(b"opened")
        assert processor_time_s(pid) - before_s < 0.2 * (time.monotonic() - begin)

        for _ in range(RESERVE + 2):
            clients.answered.pop(0).close()
            begin = time.monotonic()
            assert clients.take_answers(WAIT_S) == 1
            assert time.monotonic() - begin < 0.5
            assert descriptors_of(pid) == DESCRIPTORS - RESERVE

        log.rename(tmp_path / "old")
        server.process.send_signal(signal.SIGUSR1)
        wait_until(log.exists, "the log file that is opened again")
        for sock in clients.answered:
            sock.close()
        clients.answered.clear()
        while clients.waiting:
            assert clients.take_answers(WAIT_S)
    server.end()
    assert server.log.count(f"{PAUSED}no file descriptors are left") == server.log.count("WARNING") == 1
    assert server.log.count("\n") < 20, server.log


# --- What a library in front of the system's makes accept4 fail with ---

CC = shutil.which("cc")
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

// The first FAIL_COUNT connections, once there is a file FAIL_FILE, fail with FAIL_ERROR; where FAIL_LOSES is
// set they are lost by that.
int accept4(int listener, struct sockaddr *address, socklen_t *size, int flags)
{
    static int failed;
    int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    const char *error = getenv("FAIL_ERROR");
    if (error != NULL && failed < atoi(getenv("FAIL_COUNT"))) {
        failed++;
        if (getenv("FAIL_LOSES") != NULL) {
            int fd = real(listener, address, size, flags);
            if (fd < 0) {
                failed--;
                return fd;
            }
            close(fd);
        }
        errno = atoi(error);
        return -1;
    }
    return real(listener, address, size, flags);
}
"""
PLAIN_APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes accept4 fail."""
    if CC is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run([CC, "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"], check=True)
    return library


def start_failing(start: Start, shim: Path, error: int, count: int, loop: str, **more: str) -> ServerProcess:
    environment = {"LD_PRELOAD": str(shim), "FAIL_ERROR": str(error), "FAIL_COUNT": str(count), **more}
    arguments = ("--port", "0", "--loop", loop, "--no-access-log")
    return start(PLAIN_APP, "app:app", *arguments, environment={**os.environ, **environment})


def get(port: int) -> bytes:
    """What a connection of its own is answered; nothing if it is lost."""
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(request("GET / HTTP/1.1", CLOSE))
        return read_all(sock)


MOST_WAIT_S = 3  # three pauses of a tenth of a second, on a machine that does other work


@pytest.mark.parametrize("lacks", ["ENFILE", "EMFILE", "ENOMEM", "ENOBUFS"])
@each_loop
def test_a_connection_waits_until_the_system_has_what_it_lacked(
    lacks: str, loop: str, start: Start, shim: Path
) -> None:
    number = getattr(errno, lacks)
    server = start_failing(start, shim, number, 3, loop)
    begin = time.monotonic()
    assert get(server.port).endswith(b"hi")
    assert 0.1 < time.monotonic() - begin < MOST_WAIT_S
    assert get(server.port).endswith(b"hi")
    server.end()
    assert server.log.count(f"WARNING:  {PAUSED}{os.strerror(number)} (0 are open)") == 1, server.log
    assert server.log.count(PAUSED) == 1


@pytest.mark.parametrize("error", ["ECONNABORTED", "EPROTO", "EPERM", "EINTR", "ENETDOWN", "EHOSTUNREACH"])
@each_loop
def test_a_connection_that_failed_by_itself_does_not_hold_up_the_next(
    error: str, loop: str, start: Start, shim: Path
) -> None:
    server = start_failing(start, shim, getattr(errno, error), 3, loop, FAIL_LOSES="1")
    port = server.port
    begin = time.monotonic()
    answers = [get(port) for _ in range(10)]
    assert time.monotonic() - begin < 0.5
    assert [b"200 OK" in answer for answer in answers] == 3 * [False] + 7 * [True]
    server.end()
    assert "WARNING" not in server.log
    assert "ERROR" not in server.log
