"""Feeds frames to the WebSocket codec, whole and in pieces."""

import tracemalloc
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from frameevents import binary, close, ping, pong, text
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from fastasgi.codecs.deflate import DeflateSettings
from fastasgi.codecs.frames import FrameDecoder, FrameEvent

DEFLATE = DeflateSettings()


def decode(
    pieces: Iterable[bytes], *, max_message_bytes: int = 0, deflate: DeflateSettings | None = None
) -> list[FrameEvent]:
    """What the decoder makes of the pieces, up to the first failure."""
    decoder = FrameDecoder(max_message_bytes=max_message_bytes, deflate=deflate)
    events = []
    for piece in pieces:
        # An array has no byte behind its last one, so that the sanitizer sees any that is read.
        events += decoder.feed(memoryview(array("B", piece)))
        if events and events[-1].kind == "failed":
            break
    return events


def bytewise(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def every_split(data: bytes) -> Iterator[list[bytes]]:
    """All ways to cut the data in two, and in three around one byte."""
    for n in range(len(data) + 1):
        yield [data[:n], data[n:]]
        yield [data[:n], b"", data[n : n + 1], data[n + 1 :]]


def failure(events: Sequence[FrameEvent]) -> int:
    """The code of the failure that the events end with."""
    assert events[-1].kind == "failed", events
    assert events[-1].close_reason
    return events[-1].close_code


def failed_after(data: bytes, *, deflate: DeflateSettings | None = None) -> int:
    """How many bytes it takes to see that the data is refused, fed one by one."""
    decoder = FrameDecoder(deflate=deflate)
    for n, piece in enumerate(bytewise(data), 1):
        events = decoder.feed(piece)
        if events and events[-1].kind == "failed":
            return n
    raise AssertionError("it was not refused")


LONG = "Grüße, 你好, 🙂! " * 300


def peak_of(work: Callable[[], object]) -> int:
    """The most memory that was allocated at once, bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HELLO = bytes.fromhex("f248cdc9c90700")

ALL_SETTINGS = [
    DeflateSettings(server_alone, client_alone, server_bits, client_bits)
    for server_alone in (False, True)
    for client_alone in (False, True)
    for server_bits in (9, 12, 15)
    for client_bits in (9, 12, 15)
]

all_settings = pytest.mark.parametrize(
    "settings", ALL_SETTINGS, ids=["-".join(map(str, x)) for x in ALL_SETTINGS]
)


def wsproto_extension(settings: DeflateSettings) -> PerMessageDeflate:
    """wsproto's permessage-deflate, with these settings agreed on."""
    extension = PerMessageDeflate(
        client_no_context_takeover=settings.client_no_context_takeover,
        client_max_window_bits=settings.client_max_window_bits,
        server_no_context_takeover=settings.server_no_context_takeover,
        server_max_window_bits=settings.server_max_window_bits,
    )
    extension._enabled = True
    return extension


def by_wsproto(pieces: Iterable[bytes], deflate: DeflateSettings | None = None) -> list[FrameEvent]:
    """What wsproto makes of the pieces, up to a Close frame or a failure."""
    server = FrameProtocol(client=False, extensions=[] if deflate is None else [wsproto_extension(deflate)])
    events: list[FrameEvent] = []
    parts: list[Any] = []
    try:
        for piece in pieces:
            server.receive_bytes(piece)
            for received in server.received_frames():
                payload: Any = received.payload
                if received.opcode is Opcode.CLOSE:
                    return [*events, close(*payload)]
                if received.opcode is Opcode.PING:
                    events.append(ping(bytes(payload)))
                elif received.opcode is Opcode.PONG:
                    events.append(pong(bytes(payload)))
                else:
                    parts.append(payload)
                    if received.message_finished:
                        is_text = received.opcode is Opcode.TEXT
                        events.append(text("".join(parts)) if is_text else binary(b"".join(parts)))
                        parts = []
    except ParseFailed as error:
        events.append(FrameEvent("failed", b"", int(error.code), str(error)))
    return events


texts = st.one_of(
    st.text(max_size=30),
    st.text(st.sampled_from("aé€🙂"), max_size=200),
    st.text("xyz", min_size=100, max_size=400),
)
