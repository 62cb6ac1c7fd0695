"""The WebSocket codec for Python: tests, fuzzing and measuring. The server itself calls most of it from C."""

from typing import Literal, NamedTuple

from fastasgi.codecs.deflate import DeflateSettings

class FrameEvent(NamedTuple):
    """What a client has sent."""

    kind: Literal["text", "binary", "ping", "pong", "close", "failed"]
    """"failed": what came breaks the protocol or a limit; nothing follows."""
    data: str | bytes = b""
    """A message, a str if it is a text; the payload of a ping or pong."""
    close_code: int = 0
    """Of a Close frame; 1005 if it has none. Of a failure, the one to answer with: 1002, 1007 or 1009;
    1011 if a MemoryError was raised before."""
    close_reason: str = ""
    """The reason of a Close frame; or what is wrong."""

class FrameDecoder:
    """Reads the frames of one client (RFC 6455 section 5).

    `max_message_bytes` is of a message's payload, inflated; 0: no limit. `deflate` is what negotiate_deflate
    has agreed on; None: nothing. Raises ValueError if they make no sense.
    """

    def __init__(
        self, *, max_message_bytes: int = 16777216, deflate: DeflateSettings | None = None
    ) -> None: ...
    def feed(self, data: bytes | bytearray | memoryview) -> list[FrameEvent]:
        """The events that the next piece of input completes. Bytes behind a Close frame are thrown away."""

def encode_frame(
    kind: Literal["text", "binary", "ping", "pong", "close"], payload: bytes, *, compressed: bool = False
) -> bytes:
    """A frame of the server: not fragmented, not masked."""

def close_payload(code: int, reason: str) -> bytes:
    """The payload of a Close frame (RFC 6455 section 5.5.1); empty for code 1005 without a reason.

    Raises ValueError if the code may not be sent, or the reason has more than 123 bytes or surrogates.
    """
