"""Fields of HTTP/2 requests for Python: tests, fuzzing and measuring. The server itself calls it from C."""

from typing import Literal, NamedTuple

from fastasgi.codecs.hpack import HPACKDecoder

class DecodedHead(NamedTuple):
    """What the fields of a request mean; of one that is malformed nothing but `fault` and `reason` counts."""

    fault: Literal["malformed", "refused"] | None
    """"malformed": the stream is to be reset (RFC 9113 section 8.1.1); "refused": `status` answers it."""
    status: int
    """Of a refused request: 400, 414, 417, 431 or 501."""
    reason: str | None
    method: str
    """This and the next four are empty as far as a refused request lacks them."""
    path: str
    """The path, percent-decoded, as UTF-8; invalid sequences are replaced."""
    raw_path: bytes
    query: bytes
    scheme: bytes
    """In lower case."""
    protocol: bytes | None
    """Of an extended CONNECT (RFC 8441)."""
    authority: bytes | None
    """The value of :authority, or of host if there is none."""
    headers: list[tuple[bytes, bytes]]
    """The host first; the crumbs of a cookie are joined."""
    priority: bytes | None
    """The value of a Priority field."""
    content_length: int
    """-1 if it is not given."""
    expect_continue: bool
    tells_client: bool
    """Whether a proxy tells of the client, by Forwarded or X-Forwarded-*."""
    via_proxy: bool
    """Whether there is Via or X-Forwarded-For."""
    accepts_trailers: bool

class HTTP2RequestHead:
    """Reads the fields of requests. One object serves any number of them, one after the other.

    The limits are those of HTTP/1.1's HeadParser: `max_request_line_bytes` is of the line that a request
    would have there, `max_head_bytes` of a field list (RFC 9113 section 6.5.2). Raises ValueError if one
    makes no sense.
    """

    def __init__(
        self,
        *,
        max_request_line_bytes: int = 8192,
        max_head_bytes: int = 65536,
        max_header_count: int = 128,
        underscores: Literal["allow", "drop", "refuse"] = "allow",
    ) -> None: ...

def decode_request(head: HTTP2RequestHead, decoder: HPACKDecoder, block: bytes) -> DecodedHead:
    """Decode a request's header block. Raises HPACKError if that can't be done."""

def decode_trailers(head: HTTP2RequestHead, decoder: HPACKDecoder, block: bytes) -> str | None:
    """Why the trailers in a block are malformed; None if they are not. Raises HPACKError."""
