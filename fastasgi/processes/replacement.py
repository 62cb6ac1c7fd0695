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

from fastasgi.config import Config
from fastasgi.core.counters import LAYOUT
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
    memory is the descriptor of the memory in which workers count, -1 if there is none.
    Raises OSError if it can't be started.
    """

    def __init__(
        self,
        listeners: Listeners,
        admin_listeners: Listeners,
        memory: int,
        environ: Mapping[str, str],
        cwd: str,
        ignored: list[int],
    ) -> None:
        exported, fds = listeners.export()
        exported_admin, admin_fds = admin_listeners.export()
        fds = [*fds, *admin_fds, *([memory] if memory >= 0 else [])]
        self.link, theirs = socket.socketpair()
        try:
            with theirs:
                inherited = {
                    "listeners": exported,
                    "admin_listeners": exported_admin,
                    "memory": memory,
                    "layout": LAYOUT,
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
        self._admin_listeners = inherited["admin_listeners"]
        self.memory: int = inherited["memory"]  # the descriptor of that in which workers count; or -1
        if inherited["layout"] != LAYOUT and self.memory >= 0:  # another version's: counts begin anew
            os.close(self.memory)
            self.memory = -1

    @classmethod
    def from_environment(cls) -> "Predecessor | None":
        """The supervisor that this process's environment tells of, if any. It tells so only once."""
        inherited = json.loads(os.environ.pop(INHERIT_VARIABLE, "null"))
        # The variable may have been inherited through another process, which the predecessor has started
        if inherited is None or inherited["pid"] != os.getppid():
            return None
        # An older version tells of none of these
        return cls({"admin_listeners": {"fds": [], "files": []}, "memory": -1, "layout": 0, **inherited})

    def listeners(self) -> Listeners:
        """The listening sockets that it shares with this supervisor."""
        return Listeners.adopt(self._listeners)

    def admin_listeners(self, config: Config) -> Listeners:
        """The sockets of the admin listener, which it shares with this supervisor unless admin has changed.

        Raises BindError.
        """
        listeners = Listeners.adopt(self._admin_listeners)
        if listeners.admin == config.admin:
            return listeners
        listeners.close_sockets()
        others = Listeners.bind_admin(config)
        others.files += listeners.files  # which the predecessor leaves
        return others

    def take_over(self) -> None:
        """Tell it that this supervisor is in charge now. Raises OSError if it has died meanwhile."""
        with self.link:
            self.link.send(b"r")
