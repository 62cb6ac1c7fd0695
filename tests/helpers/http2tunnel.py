"""A stream of a scripted HTTP/2 peer as a client's end of a connection, for WebSockets (RFC 8441)."""

import asyncio

from http2peer import HTTP2Peer, Response, data, rst_stream
from websocketwire import WebSocket

VERSION = "sec-websocket-version: 13"


class Tunnel:
    """A stream that was opened by an extended CONNECT. It is its own reader, as WebSocket wants one."""

    def __init__(self, peer: HTTP2Peer, stream: int) -> None:
        self.peer = peer
        self.stream = stream
        self._taken = 0

    @property
    def reader(self) -> "Tunnel":
        return self

    @property
    def response(self) -> Response:
        return self.peer.of(self.stream)

    async def write(self, data: bytes) -> None:
        """Send these bytes as the server's windows allow."""
        await self.peer.send(self.stream, data)

    async def end(self) -> None:
        """End the client's side of the stream."""
        await self.peer.write(data(self.stream, end_stream=True))

    async def reset(self) -> None:
        """RST_STREAM with CANCEL, as a client does whose connection to the user is lost."""
        await self.peer.write(rst_stream(self.stream))

    async def readexactly(self, n: int) -> bytes:
        """The next n bytes. Raises asyncio.IncompleteReadError if the stream ends before."""
        response = self.response
        await self.peer.until(
            lambda: len(response.body) - self._taken >= n or response.is_over, f"{n} bytes on {self.stream}"
        )
        piece = response.body[self._taken : self._taken + n]
        self._taken += len(piece)
        if len(piece) < n:
            raise asyncio.IncompleteReadError(piece, n)
        return piece

    async def rest(self) -> bytes:
        """All bytes up to the end of the stream, or to its reset."""
        await self.peer.until(lambda: self.response.is_over, f"the end of stream {self.stream}")
        piece = self.response.body[self._taken :]
        self._taken += len(piece)
        return piece


async def open_tunnel(
    peer: HTTP2Peer,
    *fields: str,
    target: str = "/",
    protocol: str = "websocket",
    end_stream: bool = False,
    behind: bytes = b"",
) -> Tunnel:
    """A stream on which this protocol was asked for and answered, with what goes out right behind that.

    Fields are lines of the request, without the version that WebSockets need.
    """
    lines = (f":protocol: {protocol}", *fields)
    tunnel = Tunnel(peer, await peer.begin("CONNECT", target, *lines, end_stream=end_stream))
    if behind:
        await tunnel.write(behind)
    await peer.head(tunnel.stream)
    return tunnel


async def open_websocket(peer: HTTP2Peer, *fields: str, target: str = "/", behind: bytes = b"") -> WebSocket:
    """Open a WebSocket on a stream of its own."""
    tunnel = await open_tunnel(peer, VERSION, *fields, target=target, behind=behind)
    assert tunnel.response.status == 200, tunnel.response
    assert not tunnel.response.is_over
    return WebSocket(tunnel, tunnel.response)
