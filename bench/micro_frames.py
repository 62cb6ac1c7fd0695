"""Micro-benchmarks of WebSocket frames: fastasgi's codec against websockets and wsproto. See micro.py."""

from itertools import cycle

from bench.codec import Codec, Step, check

KEY = b"\x1f\x83\x2c\xe5"


def build_frame(payload: bytes, opcode: int) -> bytes:
    """A client's whole message, masked (RFC 6455 section 5.2)."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    masked = bytes(byte ^ key for byte, key in zip(payload, cycle(KEY), strict=False))
    return bytes([0x80 | opcode]) + length + KEY + masked


INPUTS = {
    "small": ("WebSocket text of 32 bytes, read", b"x" * 32, 1),
    "large": ("WebSocket message of 16 KiB, read", b"x" * 16384, 2),
}
WRITTEN = "WebSocket text of 32 bytes, written"
TEXT = b"x" * 32


def _fastasgi_read(payload: bytes, opcode: int) -> Step:
    from fastasgi.codecs.frames import FrameDecoder

    frame = build_frame(payload, opcode)
    feed = FrameDecoder().feed
    check(feed(frame)[0].data in (payload, payload.decode()))
    return lambda: feed(frame)


def _wsproto_read(payload: bytes, opcode: int) -> Step:
    from wsproto.connection import Connection, ConnectionType

    frame = build_frame(payload, opcode)
    connection = Connection(ConnectionType.SERVER)

    def step() -> list[object]:
        connection.receive_data(frame)
        return list(connection.events())

    check(len(step()) == 1)
    return step


def _websockets_read(payload: bytes, opcode: int) -> Step:
    from websockets.protocol import SERVER, Protocol, State

    frame = build_frame(payload, opcode)
    protocol = Protocol(SERVER, state=State.OPEN)

    def step() -> list[object]:
        protocol.receive_data(frame)
        return list(protocol.events_received())

    check(len(step()) == 1)
    return step


def _fastasgi_write() -> Step:
    from fastasgi.codecs.frames import encode_frame

    check(encode_frame("text", TEXT) == b"\x81\x20" + TEXT)
    return lambda: encode_frame("text", TEXT)


def _wsproto_write() -> Step:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import TextMessage

    connection = Connection(ConnectionType.SERVER)
    message = TextMessage(data=TEXT.decode())
    check(connection.send(message) == b"\x81\x20" + TEXT)
    return lambda: connection.send(message)


def _websockets_write() -> Step:
    from websockets.protocol import SERVER, Protocol, State

    protocol = Protocol(SERVER, state=State.OPEN)

    def step() -> list[bytes]:
        protocol.send_text(TEXT)
        return protocol.data_to_send()

    check(b"".join(step()) == b"\x81\x20" + TEXT)
    return step


def _read_codecs(kind: str) -> list[Codec]:
    title, payload, opcode = INPUTS[kind]
    return [
        Codec(f"frame-{kind}", "fastasgi", title, lambda: _fastasgi_read(payload, opcode), guarded=True),
        Codec(f"frame-{kind}-websockets", "websockets", title, lambda: _websockets_read(payload, opcode)),
        Codec(f"frame-{kind}-wsproto", "wsproto", title, lambda: _wsproto_read(payload, opcode)),
    ]


CODECS = [
    *_read_codecs("small"),
    *_read_codecs("large"),
    Codec("frame-write", "fastasgi", WRITTEN, _fastasgi_write, guarded=True),
    Codec("frame-write-websockets", "websockets", WRITTEN, _websockets_write),
    Codec("frame-write-wsproto", "wsproto", WRITTEN, _wsproto_write),
]
