"""TLS between an asyncio transport and a connection."""

import asyncio
import ssl
from typing import Any, Protocol, Self

from fastasgi.core.contracts import WorkerContext

class Source(Protocol):
    """Where TLS connections get what they are opened with: fastasgi.tls.contexts.TLS."""

    @property
    def needs_name(self) -> bool:
        """Whether the next connection's server name is to be read before OpenSSL gets the ClientHello."""

    def context_for(self, name: str | None) -> ssl.SSLContext:
        """What a connection to this server name is opened with."""

    def extension(self, connection: ssl.SSLObject) -> dict[str, Any]:
        """What the application is told of a connection, after its handshake."""

    def fault_of_resumed(self, connection: ssl.SSLObject) -> str | None:
        """Why a connection that has resumed a session is refused all the same; None: it is not."""

class TLSWorker:
    """What the TLS connections of one worker share: memory, and where they get what they are opened with."""

    def __init__(self, source: Source) -> None: ...

class TLSProtocol(asyncio.BufferedProtocol):
    """What the event loop makes for each connection: `functools.partial(TLSProtocol, worker, tls_worker)`."""

    def __new__(cls, worker: WorkerContext, tls_worker: TLSWorker) -> Self: ...
