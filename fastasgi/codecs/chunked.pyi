"""The chunked decoder for Python: tests, fuzzing and measuring. The server itself calls it from C."""

class ChunkedBody:
    """A body in chunked transfer coding (RFC 9112 section 7.1). Chunk extensions and trailers are dropped."""

    def __init__(self) -> None: ...
    @property
    def done(self) -> bool:
        """Whether the whole body was fed."""

    @property
    def unused(self) -> bytes:
        """What was fed behind the end of the body."""

    def feed(self, data: bytes) -> bytes:
        """Decode the next piece of the coded body, of any size. Raises ParseError if it is malformed."""
