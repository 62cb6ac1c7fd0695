"""Load on a server from clients that speak HTTP/2, see load.py."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable

from http2peer import HTTP2Peer, Response
from load import PACE_S, Load, failure_of

STREAMS = 8  # requests at once of one client


class HTTP2Load(Load):
    """Clients that have several requests at once on one connection, which they keep until a GOAWAY.

    After that they begin nothing on it, and open another one. What a GOAWAY says is not served they ask for
    again (RFC 9113 section 6.8): that is no failure, and is counted in `repeated`.
    """

    def __init__(self, connect: Callable[[], socket.socket], clients: int = 3) -> None:
        super().__init__(connect, 0)
        self.repeated = 0
        self.connections = 0
        self._threads = [
            threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True) for _ in range(clients)
        ]

    async def _serve(self) -> None:
        while not self._is_over:
            begin = time.monotonic()
            try:
                sock = self._connect()
            except OSError as error:
                self._note(None, failure_of(error, False), begin)
                await asyncio.sleep(PACE_S)
                continue
            self.connections += 1
            peer = HTTP2Peer(*await asyncio.open_connection(sock=sock))
            await peer.open(waits=False)
            await asyncio.gather(*[self._ask(peer) for _ in range(STREAMS)])
            peer.close()

    async def _ask(self, peer: HTTP2Peer) -> None:
        """Ask again and again, until the connection takes no more."""
        while not (self._is_over or peer.goaways or peer.end):
            begin = time.monotonic()
            was_open = peer.next_stream > 1
            stream = await peer.request()
            response = await peer.response(stream)
            if response.is_whole and response.status == 200:
                self._note(response.body.decode(), None, begin)
            elif peer.goaways and stream > peer.goaways[-1].last_stream:
                self.repeated += 1
            else:
                self._note(None, failure_of(ValueError(_told(response)), was_open), begin)
            await asyncio.sleep(PACE_S)


def _told(response: Response) -> str:
    if response.reset is not None:
        return f"reset with {response.reset}"
    if response.is_whole:
        return str(response.status)
    return "closed inside an answer" if response.status else "closed"
