"""WebSocket frames of a client: streams that keep the protocol, and what spoils them."""

from random import Random

from clientframes import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    RSV1,
    TEXT,
    ClientDeflater,
    cut,
    deflate_finally,
    fragments,
    frame,
)

from fastasgi.codecs.deflate import DeflateSettings
from fastasgi.codecs.frames import FrameEvent, close_payload

SIZES = [0, 0, 1, 2, 5, 16, 31, 100, 125, 126, 127, 128, 200, 1000, 5000, 65_535, 65_536, 70_000]
ALPHABETS = ["ab c", "aé", "€ࠀ퟿", "a🙂\U0010ffff", "\0\x7f\x80\u07ff\u0800\uffff\U00010000"]
SPOILERS = [
    b"\xff",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\x80",
    b"\x00\x00\xff\xff",
    b"\xc1\x80\0\0\0\0",
    b"\x88\x80",
]


def make_settings(rng: Random) -> DeflateSettings | None:
    if rng.random() < 0.4:
        return None
    alone = rng.random() < 0.5
    return DeflateSettings(client_no_context_takeover=alone, client_max_window_bits=rng.choice([9, 12, 15]))


def make_message(rng: Random) -> str | bytes:
    size = rng.choice(SIZES)
    if rng.random() < 0.5:
        return "".join(rng.choices(rng.choice(ALPHABETS), k=size))
    return rng.randbytes(size) if rng.random() < 0.5 else rng.randbytes(1) * size


def make_control(rng: Random) -> tuple[bytes, FrameEvent]:
    data = rng.randbytes(rng.choice([0, 1, 20, 125]))
    opcode = rng.choice([PING, PONG])
    return frame(opcode, data, key=rng.randbytes(4)), FrameEvent("ping" if opcode == PING else "pong", data)


def make_stream(rng: Random, settings: DeflateSettings | None) -> tuple[bytes, list[FrameEvent]]:
    """What a client sends that keeps the protocol, and what is to be read."""
    wire: list[bytes] = []
    events: list[FrameEvent] = []
    deflate = settings and ClientDeflater(
        window_bits=settings.client_max_window_bits, keeps_window=not settings.client_no_context_takeover
    )

    def add_control() -> None:
        if rng.random() < 0.2:
            data, event = make_control(rng)
            wire.append(data)
            events.append(event)

    for _ in range(rng.choice([1, 1, 2, 3, 10])):
        message = make_message(rng)
        opcode, data = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        rsv = 0
        if settings and deflate and rng.random() < 0.6:
            # What a deflater says behind a final block of its own may not refer to what was before.
            if settings.client_no_context_takeover and rng.random() < 0.2:
                data = deflate_finally(data, window_bits=settings.client_max_window_bits)
            else:
                data = deflate(data)
            rsv = RSV1
        places = [rng.randint(0, len(data)) for _ in range(rng.choice([0, 0, 0, 1, 2, 6]))]
        *others, last = fragments(opcode, cut(data, places), rsv=rsv, key=rng.randbytes(4))
        for part in others:
            wire.append(part)
            add_control()
        wire.append(last)
        events.append(FrameEvent("text" if opcode == TEXT else "binary", message))
        add_control()
    if rng.random() < 0.2:
        wire.append(frame(CLOSE, close_payload(1001, "bye"), key=rng.randbytes(4)))
        events.append(FrameEvent("close", b"", 1001, "bye"))
    return b"".join(wire), events


def mutate(rng: Random, data: bytes) -> bytes:
    """Spoil a stream in one place, for the most part near its beginning, where heads are."""
    start = rng.randint(0, min(len(data), rng.choice([2, 20, 200, len(data)])))
    kind = rng.random()
    if kind < 0.5 and start < len(data):
        return data[:start] + bytes([data[start] ^ 1 << rng.randint(0, 7)]) + data[start + 1 :]
    if kind < 0.7:
        return data[:start] + data[start + rng.randint(1, 20) :]
    piece = rng.choice([*SPOILERS, rng.randbytes(3)])
    return data[:start] + piece + data[start + (len(piece) if kind < 0.85 else 0) :]
