"""The WebSocket codec for Python: tests, fuzzing and measuring. The server itself calls most of it from C."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

class DeflateSettings(NamedTuple):
    """What is agreed on, or, of a server, wished for permessage-deflate (RFC 7692 section 7.1).

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
    """Raise ValueError where a window size is out of its range."""

def negotiate_deflate(
    values: Iterable[bytes], settings: DeflateSettings
) -> tuple[bytes, DeflateSettings] | None:
    """Accept the first offer of permessage-deflate that can be met; None: there is none.

    `values` are those of all Sec-WebSocket-Extensions fields of the request, in order. Returns the value of
    the response's field, and what is agreed on. What `settings` asks for stands in the response whether or
    not the client offers it, as RFC 7692 allows; but client_max_window_bits only where the client offers it.
    Raises ParseError with status 400 where a value is malformed (RFC 6455 section 9.1) and 431 where they
    have more than 4096 bytes, and ValueError as check_deflate_settings.
    """

class Deflater:
    """Deflates the messages of one connection, as negotiated, but none shorter than `min_bytes`."""

    def __init__(self, settings: DeflateSettings, *, min_bytes: int = 0) -> None: ...
    def deflate(self, data: bytes) -> bytes | None:
        """The payload of the compressed message; None: it is to be sent plain."""

class FrameEvent(NamedTuple):
    """What a client has sent."""

    kind: Literal["text", "binary", "ping", "pong", "close", "failed"]
    """"failed": what came breaks the protocol or a limit; nothing follows."""
    data: str | bytes = b""
    """A message, a str where it is a text; the payload of a ping or pong."""
    close_code: int = 0
    """Of a Close frame; 1005 where it has none. Of a failure, the one to answer with: 1002, 1007 or 1009;
    1011 where a MemoryError was raised before."""
    close_reason: str = ""
    """Of a Close frame; or what is wrong."""

class FrameDecoder:
    """Reads the frames of one client (RFC 6455 section 5).

    `max_message_bytes` is of a message's payload, inflated; 0: no limit. `deflate` is what negotiate_deflate
    has agreed on; None: nothing. Raises ValueError where they make no sense.
    """

    def __init__(
        self, *, max_message_bytes: int = 16777216, deflate: DeflateSettings | None = None
    ) -> None: ...
    def feed(self, data: bytes | bytearray | memoryview) -> list[FrameEvent]:
        """What the next piece of input completes. What follows a Close frame is thrown away."""

def encode_frame(
    kind: Literal["text", "binary", "ping", "pong", "close"], payload: bytes, *, compressed: bool = False
) -> bytes:
    """A frame of the server: not fragmented, not masked."""

def close_payload(code: int, reason: str) -> bytes:
    """The payload of a Close frame (RFC 6455 section 5.5.1); empty for code 1005 without a reason.

    Raises ValueError where the code may not be sent, or the reason has more than 123 bytes or surrogates.
    """
