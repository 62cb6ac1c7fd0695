"""What tests ask an admin listener."""

import http.client
import re
import socket
import statistics
import time
from pathlib import Path

from serving import WAIT_S, ServerProcess, wait_until

PATTERN = r"Admin listener on https?://\S+:(\d+)"


class AdminClient:
    """Asks the listener on a port of this machine, or at the path of a Unix socket."""

    def __init__(self, where: int | Path) -> None:
        self.where = where

    @classmethod
    def of(cls, server: ServerProcess) -> "AdminClient":
        """The one of a server that tells where it listens."""
        return cls(int(server.wait_for(PATTERN)[1]))

    def connect(self) -> socket.socket:
        """A connection to it."""
        if isinstance(self.where, int):
            return socket.create_connection(("127.0.0.1", self.where), WAIT_S)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(WAIT_S)
        sock.connect(str(self.where))
        return sock

    def get(self, path: str) -> tuple[int, str]:
        """The status and the body of an answer, on a connection of its own."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.connect()
        try:
            connection.request("GET", path, headers={"connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self, path: str) -> int:
        """The status of an answer; 0 if nobody listens."""
        try:
            return self.get(path)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def wait_for(self, path: str, status: int, limit_s: float = WAIT_S) -> str:
        """Wait for an answer of this status: its body."""
        wait_until(lambda: self.status(path) == status, f"{status} for {path}", limit_s)
        return self.get(path)[1]

    def workers(self) -> dict[int, str]:
        """The state of each worker process, by its number."""
        found = re.findall(r"^worker \d+ \[(\d+)\] (\w+)", self.get("/readyz?verbose")[1], re.MULTILINE)
        return {int(pid): state for pid, state in found}

    def time_s(self, path: str = "/livez", tries: int = 9) -> float:
        """Seconds to an answer, on a new connection: the median of some tries."""
        times = []
        for _ in range(tries):
            begin = time.monotonic()
            self.get(path)
            times.append(time.monotonic() - begin)
        return statistics.median(times)
