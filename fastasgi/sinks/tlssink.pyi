"""TLS between a socket and a connection."""

import ssl
from typing import Any, Protocol

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

class TLSSink:
    """Reads and writes for a connection, in TLS records."""
