"""A server in the test's event loop, and a scripted HTTP/2 peer of it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from http2peer import HTTP2Peer
from wire import App, Served, served


@contextlib.asynccontextmanager
async def peer_of(
    app: App, *values: tuple[int, int], **settings: Any
) -> AsyncIterator[tuple[Served, HTTP2Peer]]:
    """A server with these settings, and a peer that has sent SETTINGS with these values."""
    async with served(app, client_type=HTTP2Peer, **settings) as server:
        peer: HTTP2Peer = await server.connect()
        await peer.open(*values)
        yield server, peer
