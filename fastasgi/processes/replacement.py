"""One supervisor takes another's place: this program, started anew with the same listening sockets (SIGUSR2).

The two are joined by a socket pair. The new supervisor sends one byte once all its workers are ready, and
takes over; the old one then lets its workers end. If the new one fails, the end of the stream tells the old
one.

Knows processes, sockets and the environment. Must not know: workers.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from fastasgi.processes.listeners import Listeners
from fastasgi.system.sockets import inherited_socket

INHERIT_VARIABLE = "FASTASGI_INHERIT"  # what a supervisor tells the one that is to replace it, as JSON
# Variables that are meant for this process alone: what it starts does not inherit them
OWN_VARIABLES = (
    INHERIT_VARIABLE, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS",
)  # fmt: skip


class Replacement:
    """A supervisor that has been started to take this one's place.

    ``link`` is readable once it is ready to take over, or has failed. environ is its environment, to which
    the variable is added that tells it of this supervisor; ignored are the signals that it is to ignore.
    Raises OSError if it can't be started.
    """

    def __init__(
        self, listeners: Listeners, environ: Mapping[str, str], cwd: str, ignored: list[int]
    ) -> None:
        exported, fds = listeners.export()
        self.link, theirs = socket.socketpair()
        try:
            with theirs:
                inherited = {
                    "listeners": exported,
                    "fd": theirs.fileno(),
                    "pid": os.getpid(),
                    "ignored": ignored,
                }
                self._popen = subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]],
                    pass_fds=[*fds, theirs.fileno()],
                    env={**environ, INHERIT_VARIABLE: json.dumps(inherited)},
                    cwd=cwd,
                )
        except OSError:
            self.link.close()
            raise
        self.pid = self._popen.pid

    def hear(self) -> bool:
        """Once ``link`` is readable: whether it is ready to take over. If not, it has failed."""
        return self.link.recv(1) != b""

    def release(self) -> None:
        """Let it live on, since it has taken over: ``terminate`` and ``poll`` do nothing from now on."""
        self._popen.returncode = 0

    def terminate(self) -> None:
        """End it, unless it has taken over."""
        self._popen.terminate()

    def poll(self) -> None:
        """If it has ended, let the system forget its exit code."""
        self._popen.poll()

    def close(self) -> None:
        """Close the link to one that has failed, and wait for its end."""
        self.link.close()
        self._popen.wait()


class Predecessor:
    """The supervisor that has started this one to take its place, and is in charge until then."""

    def __init__(self, inherited: dict[str, Any]) -> None:
        self.link = inherited_socket(inherited["fd"])
        for number in inherited["ignored"]:
            signal.signal(number, signal.SIG_IGN)  # as the predecessor did before it handled them
        self._listeners = inherited["listeners"]

    @classmethod
    def from_environment(cls) -> "Predecessor | None":
        """The supervisor that this process's environment tells of, if any. It tells so only once."""
        inherited = json.loads(os.environ.pop(INHERIT_VARIABLE, "null"))
        # The variable may have been inherited through another process, which the predecessor has started
        if inherited is None or inherited["pid"] != os.getppid():
            return None
        return cls(inherited)

    def listeners(self) -> Listeners:
        """The listening sockets that it shares with this supervisor."""
        return Listeners.adopt(self._listeners)

    def take_over(self) -> None:
        """Tell it that this supervisor is in charge now. Raises OSError if it has died meanwhile."""
        with self.link:
            self.link.send(b"r")
