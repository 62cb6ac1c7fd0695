"""TLS between an asyncio transport and a connection."""

import asyncio
import ssl
from typing import Any, Protocol, Self

from fastasgi.core.contracts import WorkerContext

class Source(Protocol):
    """Where TLS connections get their contexts: fastasgi.tls.contexts.TLS."""

    @property
    def needs_name(self) -> bool:
        """Whether the next connection's server name is to be read before OpenSSL gets the ClientHello."""

    def context_for(self, name: str | None) -> ssl.SSLContext:
        """The context for a connection to this server name."""

    def extension(self, connection: ssl.SSLObject) -> dict[str, Any]:
        """What the application is told of a connection after its handshake."""

    def fault_of_resumed(self, connection: ssl.SSLObject) -> str | None:
        """Why a connection that has resumed a session is refused; None if it is not."""

class TLSWorker:
    """What the TLS connections of one worker share: memory, and the source of their contexts."""

    def __init__(self, source: Source) -> None: ...

class TLSProtocol(asyncio.BufferedProtocol):
    """What the event loop makes for each connection: `functools.partial(TLSProtocol, worker, tls_worker)`."""

    def __new__(cls, worker: WorkerContext, tls_worker: TLSWorker) -> Self: ...
