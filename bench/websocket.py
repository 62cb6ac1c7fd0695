"""What a load generator needs of RFC 6455: the handshake, one frame to send, a count of those that come."""

import base64
import hashlib

from bench.errors import UnsupportedError

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = base64.b64encode(b"fastasgi's bench")
_ACCEPT = base64.b64encode(hashlib.sha1(_KEY + _GUID).digest())


class FrameError(Exception):
    """The server sent something else than whole, unmasked messages: what it sent."""


def build_handshake(path: str) -> bytes:
    """The client's opening handshake (RFC 6455 section 4.1)."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {_KEY.decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def read_handshake(data: bytes) -> bytes | None:
    """What follows the server's handshake, None while it isn't complete.

    Raises UnsupportedError if the server refuses it.
    """
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        return None
    status = head.split(b"\r\n")[0].decode("latin-1")
    if " 101" not in status:
        raise UnsupportedError(f"it answers the WebSocket handshake with {status[9:40]!r}")
    if _ACCEPT not in head:
        raise UnsupportedError("it answers the WebSocket handshake with a wrong Sec-WebSocket-Accept")
    return rest


def build_text(payload: bytes) -> bytes:
    """A whole text message as a client sends it: masked, with the key 0 that leaves the payload as it is.

    The payload has up to 125 bytes.
    """
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


class MessageCounter:
    """The messages of one connection. `feed` takes what came, cut anywhere. Pings are passed over."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> int:
        """How many messages became complete. Raises FrameError for a close, a fragment or a masked frame."""
        data = self._held + data
        start = count = 0
        while len(data) - start >= 2:
            first, size = data[start], data[start + 1]
            head = 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if len(data) - start < head:
                    break
                size = int.from_bytes(data[start + 2 : start + head], "big") if size < 128 else size
            if first == 0x88:
                raise FrameError("the server closed the WebSocket")
            if first not in (0x81, 0x82, 0x89, 0x8A) or data[start + 1] & 0x80:
                raise FrameError(f"a frame that starts with {data[start : start + 2].hex()}")
            if len(data) - start < head + size:
                break
            count += first in (0x81, 0x82)
            start += head + size
        self._held = data[start:]
        return count
