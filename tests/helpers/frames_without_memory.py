"""A program: feeds the WebSocket codec while one allocation after the other fails. It must not crash.

What the codec says behind a MemoryError is of no account; but it stays within its memory.
"""

import _testcapi  # type: ignore[import-not-found]
import itertools

from clientframes import BINARY, CLOSE, PING, RSV1, RSV2, TEXT, ClientDeflater, fragments, frame

from fastasgi.codecs.deflate import DeflateSettings
from fastasgi.codecs.frames import FrameDecoder, close_payload

MAX_ALLOCATIONS = 100
LONG = "Grüße, 你好, 🙂! ".encode() * 300
LARGE_BINARY = frame(BINARY, b"x" * 3000)
LARGE_TEXT = frame(TEXT, LONG)

STREAMS = [
    [LARGE_TEXT],
    [LARGE_BINARY[:1000], LARGE_BINARY[1000:1500], LARGE_BINARY[1500:]],
    [LARGE_TEXT[:1000], LARGE_TEXT[1000:]],
    fragments(BINARY, [b"x" * 10, b"x" * 1000, b"x" * 70_000, b"x"]),
    fragments(TEXT, [ClientDeflater()(LONG * 30), b""], rsv=RSV1),
    [frame(PING, b"x"), frame(CLOSE, close_payload(1000, "κόσμε"))],
    [frame(TEXT, b"\xff"), frame(TEXT, b"a", rsv=RSV2)],
]


def fails(decoder: FrameDecoder, piece: bytes, number: int) -> bool:
    """Whether feeding the piece takes an allocation of this number, counted from 0: it fails."""
    feed = decoder.feed
    _testcapi.set_nomemory(number, number + 1)
    try:
        feed(piece)
    except MemoryError:
        return True
    finally:
        _testcapi.remove_mem_hooks()
    return False


def failures(pieces: list[bytes]) -> int:
    """How many allocations failed, over all pieces."""
    count = 0
    for n, number in itertools.product(range(len(pieces)), range(MAX_ALLOCATIONS)):
        decoder = FrameDecoder(deflate=DeflateSettings())
        for piece in pieces[:n]:
            decoder.feed(piece)
        count += fails(decoder, pieces[n], number)
        for piece in [*pieces[n + 1 :], *pieces]:
            decoder.feed(piece)
    return count


for stream in STREAMS:
    assert failures(stream)
