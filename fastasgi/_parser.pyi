"""The HTTP/1.x parser for Python: tests, fuzzing and measuring. The server itself calls it from C."""

from typing import Literal, NamedTuple

class ParseError(ValueError):
    """Malformed or refused input. `status` is the HTTP status that answers it, the message says why."""

    status: int
    def __init__(self, status: int, reason: str) -> None: ...

class ParsedHead(NamedTuple):
    """A request head."""

    consumed: int
    """Bytes of the input that the head takes, with the empty lines before it."""
    method: str
    path: str
    """The path, percent-decoded, as UTF-8; invalid sequences are replaced."""
    raw_path: bytes
    """The path as it came, without the query; in an absolute-form target, what follows the authority."""
    query: bytes
    minor_version: int
    """0 or 1, of HTTP/1.x; 1 also for a later version (RFC 9110 section 2.5)."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, in the order of the wire."""
    content_length: int
    """-1 if it is not given. It is never given together with `chunked`."""
    chunked: bool
    """The body has chunked transfer coding."""
    keep_alive: bool
    """Whether version and Connection ask for a connection that is kept (RFC 9112 section 9.3)."""
    expect_continue: bool
    upgrade: bool
    """Connection names upgrade, and there is an Upgrade field with a protocol.

    It is to be ignored in HTTP/1.0 (RFC 9110 section 7.8).
    """

class HeadParser:
    """Reads request heads by a strict grammar. One object serves any number of heads, one after the other.

    `max_request_line_bytes` leaves the CRLF of the line out; `max_head_bytes` is of empty lines before it,
    request line, fields and blank line together. `underscores` says what happens to a header with "_" in its
    name. Raises ValueError if a limit makes no sense.
    """

    def __init__(
        self,
        *,
        max_request_line_bytes: int = 8192,
        max_head_bytes: int = 65536,
        max_header_count: int = 128,
        underscores: Literal["allow", "drop", "refuse"] = "allow",
    ) -> None: ...
    def read(self, data: bytes | bytearray | memoryview) -> ParsedHead | None:
        """Parse a head as parse_request_head does.

        The heads of one parser share the pairs of headers that repeat.
        """

class LlhttpHeadParser(HeadParser):
    """A HeadParser whose fields are read by llhttp, by way of httptools."""

def parse_request_head(
    data: bytes | bytearray | memoryview,
    *,
    llhttp: bool = False,
    max_request_line_bytes: int = 8192,
    max_head_bytes: int = 65536,
    max_header_count: int = 128,
    underscores: Literal["allow", "drop", "refuse"] = "allow",
) -> ParsedHead | None:
    """Parse the request head at the start of `data`; None if it is not complete yet.

    `llhttp` reads the fields with llhttp instead of fastasgi's grammar; the limits are HeadParser's. Raises
    ParseError with status 400, 414, 417, 431, 501 or 505, as early as `data` shows an error.
    """
