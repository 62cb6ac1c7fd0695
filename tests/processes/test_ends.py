"""Why workers end, as it is counted."""

import os
import signal
import socket
import sys
from collections.abc import Callable

import pytest
from serving import wait_until
from supervised import Supervised, counts_of

from fastasgi.processes.workerprocess import WorkerProcess


@pytest.mark.parametrize(
    ("end", "was_ready", "code", "reason"),
    [
        ("", True, 7, "exit"),
        ("", True, 0, "exit"),
        ("", False, 3, "not_started"),
        ("asked", True, 0, "asked"),
        ("asked", True, 3, "asked"),
        ("limit", True, 0, "limit"),
        # By signals of the supervisor
        ("asked", False, -signal.SIGTERM, "asked"),
        ("overdue", True, -signal.SIGKILL, "overdue"),
        ("stall", True, -signal.SIGKILL, "stall"),
        ("not_started", False, -signal.SIGKILL, "not_started"),
        # By those of others, such as the kernel's when memory runs out
        ("", True, -signal.SIGKILL, "SIGKILL"),
        ("", False, -signal.SIGKILL, "SIGKILL"),
        ("asked", True, -signal.SIGKILL, "SIGKILL"),
        ("limit", True, -signal.SIGKILL, "SIGKILL"),
        ("", False, -signal.SIGTERM, "SIGTERM"),
        ("asked", True, -signal.SIGSEGV, "SIGSEGV"),
        ("", True, -signal.SIGUSR1, "other_signal"),
        ("", True, -64, "other_signal"),
    ],
)
def test_the_reason_of_an_end(end: str, was_ready: bool, code: int, reason: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = WorkerProcess(0, 0, ours, None)
        process.end = end
        process.ready_at = 1.0 if was_ready else None
        assert process.reason_of_end(code) == reason


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ends_are_counted_in_the_slots_row(run: Callable[..., Supervised]) -> None:
    """The row is the next worker's, which goes on counting in it."""
    server = run("--workers", "1", "--limit-max-requests", "3", "--timeout-worker-healthcheck", "1")
    expected: dict[str, int] = {}

    def expect(cause: str) -> None:
        expected[cause] = expected.get(cause, 0) + 1

        def ends() -> dict[str, int]:
            return {name: sum(counts.ends[name] for counts in counts_of(server)) for name in expected}

        wait_until(lambda: ends() == expected, lambda: f"{expected}, and not {ends()}")
        server.wait_for_workers(sum(expected.values()) + 1)

    server.wait_for_workers(1)
    for _ in range(3):
        server.get()
    expect("limit")
    os.kill(server.workers()[0], signal.SIGTERM)
    expect("asked")
    server.send(signal.SIGHUP)
    expect("asked")
    os.kill(server.workers()[0], signal.SIGSEGV)
    expect("SIGSEGV")
    server.get("/die")
    expect("exit")
    with server.connect() as sock:
        sock.sendall(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
        expect("stall")
    assert sum(counts.starts for counts in counts_of(server)) == sum(expected.values()) + 1
    server.assert_ends()
