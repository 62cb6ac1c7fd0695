"""The reader of TLS ClientHellos for tests. The server itself calls it from C."""

from collections.abc import Iterable

class ClientHello:
    """A hello, or why it is refused."""

    records: bytearray
    """All bytes that have come."""
    name: str | None
    """The server name; None if there is none that can be read."""
    fault: str | None
    """Why it is to be refused; None if it is not."""
    alert: int
    """The alert with which it is to be refused (RFC 8446 section 6)."""

def decode_client_hello(pieces: Iterable[bytes], follows_retry: bool = False) -> ClientHello | None:
    """The hello with which these bytes of a client, in this order, begin; None if it is not whole yet."""
