"""Tells systemd how the service fares: the protocol of sd_notify(3)."""

import contextlib
import os
import socket
import time


class Notifier:
    """Sends to the socket that NOTIFY_SOCKET names; does nothing if there is none."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self._watchdog_interval_s = 0.0
        self._watchdog_at = 0.0
        if not address or not hasattr(socket, "AF_UNIX"):
            return
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with contextlib.suppress(ValueError):
                self._watchdog_interval_s = max(0.0, int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6)

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # a service manager that does not listen is no reason to stop
                self._socket.sendto("\n".join(lines).encode(), self._address)

    def ready(self) -> None:
        """Say that the service has started, or has reloaded."""
        self._send("READY=1", "STATUS=Serving")

    def reloading(self) -> None:
        """Say that the service reloads; ``ready`` is to follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the service stops."""
        self._send("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """Say that another process is the service's main process from now on, and that it is ready."""
        self._send(f"MAINPID={pid}", "READY=1", "STATUS=Serving")

    def watchdog(self) -> None:
        """Say that the process is alive, as often as systemd asks for. To be called at least each second."""
        now = time.monotonic()
        if self._watchdog_interval_s and now >= self._watchdog_at:
            self._watchdog_at = now + max(0.0, self._watchdog_interval_s - 1.0)
            self._send("WATCHDOG=1")

    def environ(self) -> dict[str, str]:
        """The variables that let another process notify in our place."""
        names = ("NOTIFY_SOCKET", "WATCHDOG_USEC")
        return {name: os.environ[name] for name in names if name in os.environ}

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
