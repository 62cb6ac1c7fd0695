"""permessage-deflate for Python: settings, negotiation and tests. The server itself calls the rest from C."""

from collections.abc import Iterable
from typing import NamedTuple

class DeflateSettings(NamedTuple):
    """What a server wishes for permessage-deflate, or what is agreed on (RFC 7692 section 7.1).

    Window sizes are exponents of 2: the server's from 9 to 15, since zlib deflates with no smaller one, the
    client's from 8 to 15.
    """

    server_no_context_takeover: bool = False
    """No message of the server refers to an earlier one."""
    client_no_context_takeover: bool = False
    """No message of the client refers to an earlier one."""
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15

def check_deflate_settings(settings: DeflateSettings) -> None:
    """Raise ValueError if a window size is out of its range."""

def negotiate_deflate(
    values: Iterable[bytes], settings: DeflateSettings
) -> tuple[bytes, DeflateSettings] | None:
    """Accept the first offer of permessage-deflate that can be met; None if there is none.

    `values` are those of all Sec-WebSocket-Extensions fields of the request, in order. Returns the value of
    the response's field, and what is agreed on. What `settings` asks for stands in the response whether or
    not the client offers it, as RFC 7692 allows; but client_max_window_bits only if the client offers it.
    Raises ParseError with status 400 if a value is malformed (RFC 6455 section 9.1) and 431 if they
    have more than 4096 bytes, and ValueError as check_deflate_settings does.
    """

class Deflater:
    """Deflates the messages of one connection, as negotiated, but none shorter than `min_bytes`."""

    def __init__(self, settings: DeflateSettings, *, min_bytes: int = 0) -> None: ...
    def deflate(self, data: bytes) -> bytes | None:
        """The payload of the compressed message; None if it is to be sent plain."""
