"""A supervisor of several workers, made by hand."""

import os
import socket
import sys

from fastasgi.config import Config
from fastasgi.processes.supervisor import Supervisor


class Multiprocess:
    """Serves with config's number of workers on sockets that config, or the program, has bound.

    What ``fastasgi.run`` does by itself. Signals are those of any supervisor.
    """

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        self.config = config
        self.sockets = sockets

    def run(self) -> None:
        """Serve until a signal comes. Raises SystemExit with an exit code if workers don't start."""
        supervisor = Supervisor(self.config, lambda: self.config, dict(os.environ), {}, self.sockets)
        if code := supervisor.run():
            sys.exit(code)
