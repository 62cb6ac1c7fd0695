"""The codec of PROXY protocol headers for tests. The server itself calls it from C."""

from typing import NamedTuple

class DecodedProxyHeader(NamedTuple):
    """A PROXY header. Both ends are None if it tells of no client (LOCAL, UNKNOWN)."""

    consumed: int
    """Its length in bytes."""
    version: int
    source: tuple[str, int] | bytes | None
    """The client: address and port, or the path of a unix socket."""
    destination: tuple[str, int] | bytes | None
    """Where the client connected to."""

def decode_proxy_header(data: bytes) -> DecodedProxyHeader | None:
    """The header at the start of `data`; None if it is not complete yet.

    Raises ValueError for a malformed one.
    """
