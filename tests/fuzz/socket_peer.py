"""The peer of a server's connection: the other end of a socket pair."""

import contextlib
import socket
from typing import Any

from watchedsinks import WatchedAcceptor

SEND_BUFFER_BYTES = 16_384  # of each end; Linux doubles it, and counts the kernel's own records too


class SocketPeer:
    """What the peer sends, takes and breaks is in the hands of a test; poll() takes what has come.

    `room` is what it takes, in bytes; None: all. The kernel keeps a little more, and beyond that the server
    has to hold it.
    """

    def __init__(self, room: int | None) -> None:
        self.output = bytearray()
        self.is_reset = False  # the server has broken the connection off
        self.has_ended = False  # the peer has all that it will get
        self.is_lost = False  # the server has let go of the connection
        self.read_bytes = 0  # by the server
        self.can_send = True
        self._socket, self._server_socket = socket.socketpair()
        for sock in (self._socket, self._server_socket):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._room = room
        self._is_open = True
        self._sink: Any = None

    def open(self, acceptor: WatchedAcceptor, port: int) -> None:
        """Have the server accept the connection. To be called in a callback of the loop."""
        acceptor.watch = self._watch
        self._sink = acceptor.open_on(self._server_socket, ("127.0.0.1", port))

    def _watch(self, event: str, n: int) -> None:
        if event == "read ends":
            self.read_bytes += n
        elif event == "lost":
            self.is_lost = True
            self._sink = None

    @property
    def held_bytes(self) -> int:
        """What the server holds for this peer, since the kernel does not take it."""
        return 0 if self._sink is None else self._sink.held_bytes

    def feed(self, data: bytes) -> bytes:
        """Send what the socket takes; returns the rest."""
        try:
            return data[self._socket.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            self.can_send = False
            return data

    def feed_eof(self) -> None:
        """End the peer's side."""
        self.can_send = False
        if self._is_open:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """Close the peer's end, whatever the server has still sent."""
        if self._is_open:
            self._is_open = self.can_send = False
            self.has_ended = True
            self._socket.close()

    def take(self, n: int | None) -> None:
        """Take n bytes more; None: all that comes from now on."""
        self._room = None if n is None or self._room is None else self._room + n
        self.poll()

    def poll(self) -> None:
        """Take what has come, as far as there is room."""
        while self._is_open and not self.has_ended and self._room != 0:
            try:
                data = self._socket.recv(65_536 if self._room is None else min(self._room, 65_536))
            except BlockingIOError:
                return
            except OSError:
                data = b""
                self.is_reset = True
            self.has_ended = not data
            self.output += data
            if self._room is not None:
                self._room -= len(data)
