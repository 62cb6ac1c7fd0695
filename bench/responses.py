"""Counts the complete HTTP/1.1 responses in what a connection brings. Knows nothing of sockets.

Made for a load generator: a response that was seen before is known again by its bytes, so that a read full of
pipelined responses costs one comparison. Whatever is new is read field by field.
"""


class ResponseError(Exception):
    """What came isn't a response with a status from 200 to 299; the message says what it is."""


CHUNKED = -2
UNTIL_CLOSE = -3


def is_refusal(head: bytes) -> bool:
    """Whether a response head has status 503."""
    return head[9:12] == b"503"


def read_framing(head: bytes, takes_refusals: bool = False) -> int:
    """The body's length by a response head, its blank line left out; or CHUNKED, or UNTIL_CLOSE.

    RFC 9112 section 6.3, for answers to requests other than HEAD and CONNECT. Raises ResponseError.
    """
    status_line, *fields = head.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise ResponseError(f"no HTTP response: {status_line[:40]!r}")
    if not rest.startswith(b"2") and not (takes_refusals and is_refusal(head)):
        raise ResponseError(f"answered with status {rest[:3].decode('latin-1')}")
    length = UNTIL_CLOSE
    for field in fields:
        name, _, value = field.partition(b":")
        name, value = name.lower(), value.strip()
        if name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise ResponseError(f"transfer coding {value!r}")
            return CHUNKED
        if name == b"content-length":
            if not value.isdigit():
                raise ResponseError(f"content-length {value!r}")
            length = int(value)
    return 0 if rest[:3] in (b"204", b"205") else length


class BodyLength:
    """How long each body has to be: as the first one, on whichever connection that came."""

    def __init__(self) -> None:
        self.bytes: int | None = None

    def check(self, length: int) -> None:
        """A body of `length` bytes came. Raises ResponseError if others had another length."""
        if self.bytes is None:
            self.bytes = length
        elif length != self.bytes:
            raise ResponseError(f"a body of {length} bytes, where others had {self.bytes}")


class ResponseCounter:
    """The responses of one connection. `feed` takes what came, cut anywhere.

    With a BodyLength, a response with a body of another length isn't one that counts. With `takes_refusals`
    one of status 503 does, however long.
    """

    def __init__(self, body_length: BodyLength | None = None, *, takes_refusals: bool = False) -> None:
        self.refused = False
        """Whether the last response had status 503."""
        self._takes_refusals = takes_refusals
        self._body_length = body_length
        self._body_bytes = 0
        self._held = bytearray()
        self._skip = 0
        self._chunked = False
        self._until_close = False
        # The last whole response that came in one piece, and repeats of it by their number.
        self._known = b""
        self._repeats: dict[int, bytes] = {}

    def feed(self, data: bytes) -> int:
        """How many responses became complete with `data`.

        Raises ResponseError; the counter is then useless.
        """
        if not self._held and not self._skip and not self._chunked and self._known:
            count, rest = divmod(len(data), len(self._known))
            if not rest and count and data == self._repeated(count):
                self.refused = False
                return count
        return self._read(data)

    def close(self) -> int:
        """The connection has ended: 1 if that completes a response, else 0.

        Raises ResponseError if it cuts one.
        """
        if self._until_close:
            self._until_close = False
            self._check(self._body_bytes)
            return 1
        if self._held or self._skip or self._chunked:
            raise ResponseError("connection closed within a response")
        return 0

    def _check(self, length: int) -> None:
        if self._body_length and not self.refused:
            self._body_length.check(length)

    def _repeated(self, count: int) -> bytes:
        if count not in self._repeats:
            self._repeats[count] = self._known * count
        return self._repeats[count]

    def _read(self, data: bytes) -> int:
        if self._until_close:
            self._body_bytes += len(data)
            return 0
        if self._skip >= len(data) and not self._chunked:
            # Most of a large body: nothing of it is looked at.
            self._skip -= len(data)
            return int(self._skip == 0 and bool(data))
        start = 0
        count = 0
        if self._skip and not self._chunked:
            start, self._skip, count = self._skip, 0, 1
        if self._held:
            data, start = bytes(self._held) + data[start:], 0
            self._held.clear()
        while start < len(data):
            if self._chunked:
                start, ended = self._read_chunk(data, start)
                count += ended
                if start < 0:
                    break
                continue
            end = data.find(b"\r\n\r\n", start)
            if end < 0:
                self._held += data[start:]
                break
            head = data[start:end]
            self.refused = self._takes_refusals and is_refusal(head)
            length = read_framing(head, self._takes_refusals)
            body = end + 4
            if length == CHUNKED:
                self._chunked, self._body_bytes, start = True, 0, body
                continue
            if length == UNTIL_CLOSE:
                self._until_close, self._body_bytes = True, len(data) - body
                break
            self._check(length)
            if body + length <= len(data):
                self._learn(data[start : body + length])
                start = body + length
                count += 1
            else:
                self._skip = body + length - len(data)
                break
        return count

    def _learn(self, response: bytes) -> None:
        if response != self._known and not self.refused:
            self._known, self._repeats = response, {}

    def _read_chunk(self, data: bytes, start: int) -> tuple[int, int]:
        """Read on in a chunked body: where to go on, -1 for more data, and 1 if the body has ended."""
        if self._skip:
            step = min(self._skip, len(data) - start)
            self._skip -= step
            return start + step, 0
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            self._held += data[start:]
            return -1, 0
        digits = data[start:line_end].partition(b";")[0].strip()
        try:
            size = int(digits, 16)
        except ValueError:
            raise ResponseError(f"chunk size {digits[:20]!r}") from None
        if size:
            self._skip = size + 2
            self._body_bytes += size
            return line_end + 2, 0
        # The last chunk; trailers, if any, up to the blank line.
        end = data.find(b"\r\n\r\n", line_end)
        if end < 0:
            self._held += data[start:]
            return -1, 0
        self._chunked = False
        self._check(self._body_bytes)
        return end + 4, 1
