"""A worker process as its supervisor sees it."""

import contextlib
import os
import signal
import socket
import subprocess
import time

from fastasgi.processes.messages import STANDS


class WorkerProcess:
    """A running worker. Times are time.monotonic()'s."""

    def __init__(
        self, pid: int, slot: int, control: socket.socket, popen: "subprocess.Popen[bytes] | None"
    ) -> None:
        self.pid = pid
        self.slot = slot
        self.control = control
        self.popen = popen  # None where it was forked
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.heard_at = self.started_at  # when its event loop last turned, as far as we know
        self.is_retiring = False  # a successor is due
        self.generation = 0  # the reload from which it has its code
        self.kill_at: float | None = None  # when it is killed, unless it has ended
        self.is_condemned = False  # what will be killed has been found guilty, and the log says of what
        self.stands_at = ""  # where it stood when it last said so; told since its loop turned, or it started
        self.told_at = self.started_at  # when the log last said that it is still starting
        self._unread = b""  # the beginning of a line

    def hear(self) -> bytes | None:
        """The single-byte messages that it has sent since the last call; None once it has closed its end.

        What it has said of where it stands is in stands_at afterwards. Raises BlockingIOError for nothing.
        """
        try:
            data = self.control.recv(4096)
        except BlockingIOError:
            raise
        except OSError:
            data = b""
        if not data:
            return None
        said = b""
        self._unread += data
        while (at := self._unread.find(STANDS)) >= 0 and (end := self._unread.find(b"\n", at)) >= 0:
            said += self._unread[:at]
            self.stands_at = self._unread[at + 1 : end].decode(errors="replace")
            self._unread = self._unread[end + 1 :]
        if at < 0:
            said, self._unread = said + self._unread, b""
        return said

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.popen is not None:
            return self.popen.poll()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended meanwhile is left alone."""
        if self.popen is not None:
            self.popen.send_signal(number)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.signal(signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def tell(self, message: bytes) -> None:
        """Send it one of the ``messages``; one that has ended meanwhile is left alone."""
        with contextlib.suppress(OSError):
            self.control.send(message, socket.MSG_DONTWAIT)

    def resident_bytes(self) -> int:
        """Its resident memory; 0 where the platform does not say."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0


def describe_exit(code: int) -> str:
    """An exit code in words: ``exit code 1``, ``signal SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
