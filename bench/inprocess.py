"""A server and its client in one thread of one process: hardly more than the server's own work runs."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from fastasgi import Config
from fastasgi.core.contracts import WorkerContext
from fastasgi.sinks.acceptor import Acceptor
from fastasgi.wires.opening import Opening

READ_BYTES = 1 << 16


class InProcess:
    """One connection to an application that fastasgi serves, in an event loop that turns as the client waits.

    The server's clock stands still: no deadline expires, and all responses have the same date.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._acceptor = self._loop.run_until_complete(self._listen(app))
        self._client = socket.create_connection(self._listener.getsockname())
        self._client.setblocking(False)

    async def _listen(self, app: Callable[..., Awaitable[None]]) -> Acceptor:
        config = Config(app, log_config=None)
        config.load()
        context = WorkerContext(
            self._loop,
            config.loaded_app,
            config,
            state={},
            logger=logging.getLogger("fastasgi.error"),
            access_log=None,
        )
        context.opener = Opening(context, config)
        acceptor = Acceptor(context, None)
        acceptor.listen(self._listener)
        return acceptor

    def send(self, data: bytes) -> None:
        """Send as much as the kernel holds, which has to be all: the server doesn't read meanwhile."""
        self._client.sendall(data)

    def receive(self) -> bytes:
        """What the server sends next: it runs until then. Raises ValueError if it ends the connection."""
        while True:
            self._loop.stop()  # a loop that is stopped before it runs does so after one turn
            self._loop.run_forever()
            try:
                data = self._client.recv(READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                raise ValueError("the server has ended the connection")
            return data

    def close(self) -> None:
        """Leave the server, and end it."""
        self._client.close()
        self._acceptor.close()
        self._loop.close()
