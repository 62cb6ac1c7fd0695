"""WebSocket frames as a client sends them (RFC 6455 section 5), and as it must not."""

import zlib
from collections.abc import Sequence

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10

KEY = b"\x01\x80\x7f\xfe"
TAIL = b"\x00\x00\xff\xff"


def masked(payload: bytes, key: bytes) -> bytes:
    """The payload with the mask put on, or taken off (RFC 6455 section 5.3)."""
    n = len(payload)
    mask = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(n, "big")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = KEY,
    length_bytes: int | None = None,
    length: int | None = None,
) -> bytes:
    """One frame. `key` None: not masked. `length_bytes`, 0, 2 or 8, is the form of the length, by default the
    shortest; `length` is what the head says, by default the truth.
    """
    n = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if n < 126 else 2 if n < 0x10000 else 8
    head = bytes([fin << 7 | rsv | opcode, (key is not None) << 7 | {0: n, 2: 126, 8: 127}[length_bytes]])
    head += n.to_bytes(length_bytes, "big") if length_bytes else b""
    return head + payload if key is None else head + key + masked(payload, key)


def fragments(opcode: int, parts: Sequence[bytes], *, rsv: int = 0, key: bytes = KEY) -> list[bytes]:
    """The frames of one message, a fragment for each part."""
    last = len(parts) - 1
    return [
        frame(0 if n else opcode, part, fin=n == last, rsv=0 if n else rsv, key=key)
        for n, part in enumerate(parts)
    ]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data in pieces, cut at these places, as far as it has them."""
    ends = [*sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class ClientDeflater:
    """Compresses messages as a client does (RFC 7692 section 7.2.1)."""

    def __init__(self, *, window_bits: int = 15, keeps_window: bool = True, level: int = 6) -> None:
        self._options = (level, zlib.DEFLATED, -window_bits)
        self._keeps_window = keeps_window
        self._stream = zlib.compressobj(*self._options)

    def __call__(self, data: bytes) -> bytes:
        if not self._keeps_window:
            self._stream = zlib.compressobj(*self._options)
        payload = self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        assert payload.endswith(TAIL)
        return payload[:-4]


def deflate_finally(data: bytes, *, window_bits: int = 15) -> bytes:
    """A whole deflate stream, with a final block at its end."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -window_bits)
    return stream.compress(data) + stream.flush()
