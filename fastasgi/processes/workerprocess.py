"""A worker process as its supervisor sees it."""

import contextlib
import os
import signal
import socket
import subprocess
import time

from fastasgi.core.counters import ENDS
from fastasgi.processes.messages import STANDS
from fastasgi.processes.rows import Row
from fastasgi.processes.states import MOVES, State

# With these signals a supervisor ends processes that it wants to end for these reasons
_ENDS_BY_SIGNAL = {"SIGTERM": ("asked", "limit"), "SIGKILL": ("overdue", "stall", "not_started")}


class WorkerProcess:
    """A running worker. control is this end of the socket pair to it; times are those of time.monotonic()."""

    def __init__(
        self, pid: int, slot: int, control: socket.socket, popen: "subprocess.Popen[bytes] | None"
    ) -> None:
        self.pid = pid
        self.slot = slot  # the number of the slot for which it was started
        self.control = control
        self.popen = popen  # None if it was forked
        self.row: Row | None = None  # its own, if it has one, until it has ended
        self.state = State.STARTING
        self.is_successor = False  # it was started to take the place of a worker that serves
        self.generation = 0  # the number of the reload from which it has its code
        self.started_at = time.monotonic()
        self.ready_at: float | None = None  # when it said READY, in whatever state it was
        self.heard_at = self.started_at  # when its event loop last turned, as far as is known
        self.kill_at: float | None = None  # None while it is in a slot, and once it has been killed
        self.stands_at = ""  # the place where it last said that it stands; empty after any other message
        self.end = ""  # why it ends, of core.counters.ENDS; empty if nobody has asked it to
        self.told_at = self.started_at  # when the log last said that it is still starting
        self._unread = b""  # the beginning of a line

    def become(self, state: State) -> None:
        """Move on to a state that may follow on the present one."""
        assert state in MOVES[self.state], f"{self.state} is not followed by {state}"
        self.state = state

    def excuse(self, pause_s: float, now: float) -> None:
        """Give it so many seconds more for all that it is to do in time."""
        self.started_at = min(now, self.started_at + pause_s)
        self.heard_at = min(now, self.heard_at + pause_s)
        if self.kill_at is not None:
            self.kill_at += pause_s

    def hear(self) -> bytes | None:
        """The single-byte messages that it has sent since the last call; None once it has closed its end.

        Lines that begin with STANDS are not among them: they set stands_at. Raises BlockingIOError if it has
        sent nothing.
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

    def reason_of_end(self, code: int) -> str:
        """Why it has ended with this exit code, negative for a signal: one of core.counters.ENDS."""
        signal_name = "" if code >= 0 else describe_exit(code).removeprefix("signal ")
        was_signalled = self.end in _ENDS_BY_SIGNAL.get(signal_name, ())  # by the supervisor
        if signal_name and not was_signalled:
            return signal_name if signal_name in ENDS else "other_signal"
        if self.end:
            return self.end
        return "exit" if self.ready_at is not None else "not_started"

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
        """Send it a signal, unless it has ended."""
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
        """Send it one of the ``messages``, unless it has ended."""
        with contextlib.suppress(OSError):
            self.control.send(message, socket.MSG_DONTWAIT)

    def resident_bytes(self) -> int:
        """Its resident memory; 0 if the platform does not say."""
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
