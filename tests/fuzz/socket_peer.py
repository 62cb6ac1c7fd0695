"""The peer of a server's connection on a real transport: the other end of a socket pair."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any


class SocketPeer:
    """The same calls as MemoryTransport has for the peer's side; poll() moves what has come."""

    def __init__(self, sock: socket.socket, room: int | None) -> None:
        self.output = bytearray()
        self.is_aborted = False
        self.has_ended = False
        self.is_lost = False  # set by the protocol's connection_lost
        self._socket = sock
        self._room = room
        self._is_open = True

    @classmethod
    async def connect(
        cls, loop: asyncio.AbstractEventLoop, make_protocol: Callable[[], Any], room: int | None
    ) -> tuple["SocketPeer", Any]:
        """A peer and the server's protocol."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        _, protocol = await loop.connect_accepted_socket(make_protocol, theirs)
        return cls(ours, room), protocol

    @property
    def reads(self) -> bool:
        return self._is_open

    def feed(self, data: bytes) -> bytes:
        """Send what the socket takes; returns the rest."""
        try:
            return data[self._socket.send(data) :] if self._is_open else b""
        except BlockingIOError:
            return data
        except OSError:
            return b""

    def feed_eof(self) -> None:
        if self._is_open:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.has_ended = True

    def reset(self) -> None:
        if self._is_open:
            self._is_open = False
            self.has_ended = self.is_aborted = True
            self._socket.close()

    def take(self, n: int | None) -> None:
        self._room = None if n is None or self._room is None else self._room + n
        self.poll()

    def poll(self) -> None:
        while self._is_open and not self.has_ended and self._room != 0:
            try:
                data = self._socket.recv(65_536 if self._room is None else min(self._room, 65_536))
            except BlockingIOError:
                return
            except OSError:
                data = b""
                self.is_aborted = True
            self.has_ended = not data
            self.output += data
            if self._room is not None:
                self._room -= len(data)
