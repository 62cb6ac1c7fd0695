"""Accepts connections on a worker's listening sockets."""

import socket

from fastasgi.core.contracts import WorkerContext
from fastasgi.sinks.tlssink import Source

class Listener:
    """One listening socket, as an asyncio.Server shows it."""

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The socket; none once it accepts no more."""

    def is_serving(self) -> bool:
        """Whether it accepts connections."""

    def close(self) -> None:
        """Accept no more, and close the socket."""

class Acceptor:
    """Accepts the connections of one worker."""

    def __init__(self, worker: WorkerContext, tls_source: Source | None) -> None:
        """`tls_source` is None for connections without TLS."""

    def listen(self, sock: socket.socket) -> Listener:
        """Accept on a socket that listens."""

    rests: bool
    """Whether nothing is accepted until accept_waiting() is called."""

    def accept_waiting(self) -> None:
        """Accept all that wait now, for instance because nobody will later. To be called outside tasks."""

    def tick(self) -> None:
        """To be called each second or more often."""

    def stop_deferring(self) -> bool:
        """Have connections accepted without their first bytes. Returns whether some may be under way."""

    def stop(self) -> None:
        """Accept no more, and close the listening sockets."""

    def close(self) -> None:
        """Accept no more, and watch no connection any more."""
