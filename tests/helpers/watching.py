"""What happens on a server's sockets, as compiled/watchedsinks.pyx tells it, and peers with plain sockets."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from watchedsinks import WatchedAcceptor
from wire import Served

Watch = Callable[[str, int], object]  # called with the name of an event, and its bytes


def watch_sinks(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> list[WatchedAcceptor]:
    """Have servers that start from now on tell what happens on their connections. Returns their acceptors."""
    acceptors = []

    def make_acceptor(*arguments: Any, **options: Any) -> WatchedAcceptor:
        acceptor = WatchedAcceptor(*arguments, **options)
        acceptor.watch = watch
        acceptors.append(acceptor)
        return acceptor

    monkeypatch.setattr("fastasgi.server.Acceptor", make_acceptor)
    return acceptors


@contextlib.contextmanager
def next_descriptor(number: int) -> Iterator[None]:
    """Have the next descriptor that is opened be this one, which is free: all below it are taken."""
    taken = []
    while (descriptor := os.dup(0)) < number:
        taken.append(descriptor)
    os.close(descriptor)
    try:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)


class Peer:
    """A client's socket. What is not awaited is done at once, before the event loop turns."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock

    @classmethod
    def connect(cls, server: Served) -> "Peer":
        """A peer whose connection waits until the server accepts it."""
        address = server.server.servers[0].sockets[0].getsockname()
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        sock.connect(address)
        return cls(sock)

    def send(self, data: bytes) -> None:
        """Send bytes for which there is room."""
        assert self.socket.send(data) == len(data)

    def end(self) -> None:
        """End the peer's side."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection by a reset; on a Unix socket by a close."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.socket.close()

    async def read(self, most: int = 65536) -> bytes:
        """Some bytes, or none at the end."""
        return await asyncio.get_running_loop().sock_recv(self.socket, most)

    async def until(self, end: bytes) -> bytes:
        """What comes, up to bytes that end with `end`."""
        data = b""
        while not data.endswith(end):
            piece = await self.read()
            assert piece, data
            data += piece
        return data

    async def rest(self) -> bytes:
        """All bytes up to the server's end of the connection."""
        data = bytearray()
        with contextlib.closing(self.socket):
            while piece := await self.read():
                data += piece
        return bytes(data)


class WatchedPeer(Peer):
    """A peer on a socket pair, and what has happened on the server's end."""

    def __init__(
        self, acceptor: WatchedAcceptor, *, send_buffer: int | None = None, sent: bytes = b""
    ) -> None:
        """Have the acceptor open a connection, on which `sent` waits. send_buffer: the server's, in bytes."""
        theirs, ours = socket.socketpair()  # so that the server's has the lowest number that is free
        super().__init__(ours)
        if send_buffer is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if sent:
            self.send(sent)
        self.events: list[tuple[str, int]] = []
        acceptor.watch = lambda event, n: self.events.append((event, n))
        self.descriptor = theirs.fileno()  # the server's
        self.sink = acceptor.open_on(theirs, ("127.0.0.1", 1))

    @property
    def is_lost(self) -> bool:
        """Whether the server has let go of the connection."""
        return ("lost", 0) in self.events
