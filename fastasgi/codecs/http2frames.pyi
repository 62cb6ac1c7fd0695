"""HTTP/2 frames for Python: names of errors, and the codec for tests. The server itself calls it from C."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

class FrameSettings(NamedTuple):
    """What a client's SETTINGS say (RFC 9113 section 6.5.2). 2**32 - 1 as a limit is none."""

    header_table_size: int
    least_header_table_size: int
    """The smallest size that the last frame has named; header_table_size if it has named none."""
    max_concurrent_streams: int
    initial_window_size: int
    max_frame_size: int
    max_header_list_size: int
    enable_push: bool
    enable_connect_protocol: bool
    no_rfc7540_priorities: bool

def error_name(code: int) -> str:
    """RFC 9113's name of an error code; its number in hexadecimal if it has none."""

def decode_frame_head(data: bytes) -> tuple[int, int, int, int, int]:
    """Length, type, flags and stream of a client's frame, and the error code of what is wrong there, or 0.

    Raises ValueError if `data` has less than nine bytes.
    """

def decode_content(frame: bytes) -> tuple[bytes, int] | int:
    """What a DATA or HEADERS carries, and the stream that it depends on, or 0; or an error code.

    Raises ValueError if the frame is not whole.
    """

def decode_settings(payloads: Iterable[bytes]) -> FrameSettings | int:
    """What the payloads of SETTINGS frames, one after the other, say; or an error code."""

def encode_settings(settings: Mapping[int, int]) -> bytes:
    """A SETTINGS frame with these values by identifiers."""

def encode_settings_ack() -> bytes:
    """A SETTINGS frame that acknowledges the peer's."""

def encode_window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; `increment` is in bytes."""

def encode_rst_stream(stream_id: int, error_code: int) -> bytes:
    """An RST_STREAM frame."""

def encode_ping(opaque: bytes, *, ack: bool = False) -> bytes:
    """A PING frame. Raises ValueError if `opaque` has other than eight bytes."""

def encode_goaway(last_stream_id: int, error_code: int, text: bytes = b"") -> bytes:
    """A GOAWAY frame; the text is for people who debug."""

def encode_block(
    block: bytes, stream_id: int, *, flags: int = 0, promises: bool = False, max_frame_size: int = 16384
) -> bytes:
    """The frames of a header block: a HEADERS, and CONTINUATION frames as needed; the last has END_HEADERS.

    `promises` makes a PUSH_PROMISE of the first one: the block begins with the four bytes of the promised
    stream. Raises ValueError if `max_frame_size` is not within 1 and 2**24 - 1.
    """
