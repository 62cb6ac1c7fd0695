"""The WebSocket codec: what it reads however it is cut, what it refuses and when, limits, compression."""

import itertools
import os
import random
import subprocess
import sys
import tracemalloc
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from clientframes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TAIL,
    TEXT,
    ClientDeflater,
    cut,
    deflate_finally,
    fragments,
    frame,
)
from frameevents import binary, close, ping, pong, text
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from fastasgi._parser import ParseError
from fastasgi.codecs.frames import (
    Deflater,
    DeflateSettings,
    FrameDecoder,
    FrameEvent,
    close_payload,
    encode_frame,
    negotiate_deflate,
)

MIB = 1024 * 1024
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


# ---- What is read

GREEK = "κόσμε"
LONG = "Grüße, 你好, 🙂! " * 300

GOOD_STREAMS = {
    "text": (frame(TEXT, b"Hello"), [text("Hello")]),
    "binary": (frame(BINARY, b"\x00\xff\x80"), [binary(b"\x00\xff\x80")]),
    "empty text": (frame(TEXT), [text("")]),
    "empty binary": (frame(BINARY), [binary(b"")]),
    "one byte": (frame(TEXT, b"a") + frame(BINARY, b"\x80"), [text("a"), binary(b"\x80")]),
    "Latin-1": (frame(TEXT, "é".encode()), [text("é")]),
    "all widths": (frame(TEXT, "a é € 🙂 \0".encode()), [text("a é € 🙂 \0")]),
    "key of zeros": (frame(TEXT, b"Hello", key=bytes(4)), [text("Hello")]),
    "key like the payload": (frame(BINARY, b"aaaaaaa", key=b"aaaa"), [binary(b"aaaaaaa")]),
    "125 bytes": (frame(TEXT, b"x" * 125), [text("x" * 125)]),
    "126 bytes": (frame(TEXT, b"x" * 126), [text("x" * 126)]),
    "127 bytes": (frame(BINARY, b"x" * 127), [binary(b"x" * 127)]),
    "long": (frame(TEXT, LONG.encode()), [text(LONG)]),
    "ping and pong": (
        frame(PING) + frame(PING, b"\xff" * 125) + frame(PONG) + frame(PONG, b"x"),
        [ping(), ping(b"\xff" * 125), pong(), pong(b"x")],
    ),
    "two fragments": (b"".join(fragments(TEXT, [b"Hel", b"lo"])), [text("Hello")]),
    "empty fragments": (b"".join(fragments(BINARY, [b"", b"", b"a", b"", b"bc", b""])), [binary(b"abc")]),
    "only empty fragments": (b"".join(fragments(TEXT, [b"", b"", b""])), [text("")]),
    "fragments that cut characters": (
        b"".join(fragments(TEXT, bytewise(GREEK.encode()))),
        [text(GREEK)],
    ),
    "fragments of other lengths": (
        b"".join(fragments(BINARY, [b"a" * 300, b"b", b"c" * 126, b"d" * 70])),
        [binary(b"a" * 300 + b"b" + b"c" * 126 + b"d" * 70)],
    ),
    "control frames between fragments": (
        frame(TEXT, b"\xe2", fin=False)
        + frame(PING, b"1")
        + frame(CONTINUATION, b"\x82", fin=False)
        + frame(PONG, b"2")
        + frame(PING)
        + frame(CONTINUATION, b"\xac"),
        [ping(b"1"), pong(b"2"), ping(), text("€")],
    ),
    "close between fragments": (
        frame(TEXT, b"Hel", fin=False) + frame(CLOSE, close_payload(1001, "")),
        [close(1001)],
    ),
    "close": (frame(CLOSE), [close()]),
    "close with a code": (frame(CLOSE, b"\x03\xe8"), [close(1000)]),
    "close with a reason": (frame(CLOSE, b"\x0f\xa0" + GREEK.encode()), [close(4000, GREEK)]),
    "close with the longest reason": (frame(CLOSE, b"\x03\xe8" + b"r" * 123), [close(1000, "r" * 123)]),
    "all in turn": (
        frame(TEXT, b"1") + frame(BINARY, b"2") + frame(PING, b"3") + frame(TEXT, b"4") + frame(CLOSE),
        [text("1"), binary(b"2"), ping(b"3"), text("4"), close()],
    ),
}

good_streams = pytest.mark.parametrize(("data", "events"), GOOD_STREAMS.values(), ids=GOOD_STREAMS)


@good_streams
def test_whole(data: bytes, events: list[FrameEvent]) -> None:
    assert decode([data]) == events


@good_streams
def test_byte_by_byte(data: bytes, events: list[FrameEvent]) -> None:
    assert decode(bytewise(data)) == events


@good_streams
def test_every_split(data: bytes, events: list[FrameEvent]) -> None:
    for pieces in every_split(data) if len(data) < 1000 else ([data[:n], data[n:]] for n in range(len(data))):
        assert decode(pieces) == events


@good_streams
def test_a_prefix_is_no_more_than_its_events(data: bytes, events: list[FrameEvent]) -> None:
    for n in range(len(data)):
        found = decode([data[:n]])
        assert found == events[: len(found)]
        assert len(found) < len(events)


@good_streams
def test_bytes_behind_it_are_the_next_frame(data: bytes, events: list[FrameEvent]) -> None:
    if events[-1].kind == "close":
        assert decode([data + b"\xff" * 100]) == events
        assert decode([data, b"\xff" * 100]) == events
    else:
        assert decode([data + frame(PING, b"next")]) == [*events, ping(b"next")]
        assert failure(decode([data + b"\xff"])) == 1002


@good_streams
def test_wsproto_reads_the_same(data: bytes, events: list[FrameEvent]) -> None:
    assert by_wsproto([data]) == by_wsproto(bytewise(data)) == events


def test_long_messages_in_reads_of_any_size() -> None:
    data = random.Random(3).randbytes(200_000)
    wire = frame(BINARY, data) + b"".join(fragments(BINARY, [data[:70_000], data[70_000:]]))
    for size in (1000, 4095, 4096, 65_537, len(wire)):
        assert decode(wire[n : n + size] for n in range(0, len(wire), size)) == [binary(data)] * 2


def test_a_text_in_reads_of_any_size_is_decoded_as_a_whole() -> None:
    words = "naïve 你好 🙂 plain ascii words that go on for a while " * 200
    wire = frame(TEXT, words.encode())
    for size in (1, 7, 16, 61, 1000, 4096):
        assert decode(wire[n : n + size] for n in range(0, len(wire), size)) == [text(words)]


def test_messages_are_objects_of_their_own() -> None:
    """What is given away does not change with what comes later."""
    decoder = FrameDecoder()
    wire = frame(BINARY, b"a" * 1000)
    events = decoder.feed(wire[:500]) + decoder.feed(wire[500:])
    events += decoder.feed(frame(BINARY, b"b" * 1000)) + decoder.feed(frame(PING, b"c"))
    assert events == [binary(b"a" * 1000), binary(b"b" * 1000), ping(b"c")]


def test_a_decoder_forgets_what_it_gave_away() -> None:
    decoder = FrameDecoder()
    wire = memoryview(frame(BINARY, b"a" * MIB))
    tracemalloc.start()
    try:
        decoder.feed(wire[: MIB // 2])
        decoder.feed(wire[MIB // 2 :])
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > MIB
    assert current < MIB // 16


# ---- What is refused

# The bytes; the close code; how many bytes show it, by default all.
REFUSED: dict[str, tuple[bytes, int, int | None]] = {
    "not masked": (frame(TEXT, b"Hello", key=None), 1002, 2),
    "empty, not masked": (frame(TEXT, key=None), 1002, None),
    "close, not masked": (frame(CLOSE, key=None), 1002, None),
    "RSV1 of a text, not negotiated": (frame(TEXT, b"a", rsv=RSV1), 1002, 1),
    "RSV2": (frame(TEXT, b"a", rsv=RSV2), 1002, 1),
    "RSV3": (frame(BINARY, b"a", rsv=RSV3), 1002, 1),
    "RSV1 of a ping": (frame(PING, rsv=RSV1), 1002, 1),
    "RSV2 of a close": (frame(CLOSE, rsv=RSV2), 1002, 1),
    "RSV3 of a continuation": (frame(TEXT, fin=False) + frame(CONTINUATION, rsv=RSV3), 1002, 7),
    "all reserved bits": (frame(TEXT, rsv=RSV1 | RSV2 | RSV3), 1002, 1),
    **{f"opcode {opcode}": (frame(opcode), 1002, 1) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "ping of 126 bytes": (frame(PING, b"x" * 126), 1002, 2),
    "close of 126 bytes": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002, 2),
    "short ping with a long length": (frame(PING, b"x", length_bytes=2), 1002, 2),
    "pong with a 64-bit length": (frame(PONG, b"x", length_bytes=8), 1002, 2),
    "fragmented ping": (frame(PING, fin=False), 1002, 1),
    "fragmented pong": (frame(PONG, fin=False), 1002, 1),
    "fragmented close": (frame(CLOSE, fin=False), 1002, 1),
    "length 0 in 2 bytes": (frame(TEXT, length_bytes=2), 1002, 4),
    "length 125 in 2 bytes": (frame(TEXT, b"x" * 125, length_bytes=2), 1002, 4),
    "length 0 in 8 bytes": (frame(TEXT, length_bytes=8), 1002, 10),
    "length 65535 in 8 bytes": (frame(TEXT, b"x" * 65_535, length_bytes=8), 1002, 10),
    "length 2**63": (frame(BINARY, length=2**63), 1002, 10),
    "length 2**64 - 1": (frame(BINARY, length=2**64 - 1), 1002, 10),
    "continuation of nothing": (frame(CONTINUATION, b"a"), 1002, 1),
    "continuation of nothing, not final": (frame(CONTINUATION, fin=False), 1002, 1),
    "continuation behind a message": (frame(TEXT, b"a") + frame(CONTINUATION, b"b"), 1002, 8),
    "continuation behind the last one": (
        b"".join(fragments(TEXT, [b"a", b"b"])) + frame(CONTINUATION),
        1002,
        15,
    ),
    "message inside a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002, 8),
    "binary inside an empty text": (frame(TEXT, fin=False) + frame(BINARY, fin=False), 1002, 7),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002, None),
    "close code 0": (frame(CLOSE, bytes(2)), 1002, None),
    "close code 999": (frame(CLOSE, b"\x03\xe7"), 1002, None),
    "close code 1005": (frame(CLOSE, b"\x03\xed"), 1002, None),
    "close code 5000 with a reason": (frame(CLOSE, b"\x13\x88why"), 1002, None),
    "close reason, not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007, None),
    "close reason, half a character": (frame(CLOSE, b"\x03\xe8\xe2\x82"), 1007, None),
    "close reason, a surrogate": (frame(CLOSE, b"\x03\xe8\xed\xa0\x80x"), 1007, None),
    "text, not UTF-8": (frame(TEXT, b"abc\xffdef"), 1007, 6 + 4),
    "text, an overlong form": (frame(TEXT, b"\xc0\xafx"), 1007, 6 + 1),
    "text, a surrogate": (frame(TEXT, b"\xed\xa0\x80x"), 1007, 6 + 2),
    "text, above U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007, 6 + 2),
    "text, a lonely continuation byte": (frame(TEXT, b"\x80"), 1007, 6 + 1),
    "text, half a character at the end": (frame(TEXT, b"x\xe2\x82"), 1007, None),
    "fragments, half a character at the end": (b"".join(fragments(TEXT, [b"\xe2", b"\x82"])), 1007, None),
    "fragments, half a character and nothing": (b"".join(fragments(TEXT, [b"\xe2", b""])), 1007, 13),
    "fragments, half a character and another": (b"".join(fragments(TEXT, [b"\xe2", b"\xe2x"])), 1007, 14),
    "fragments, half a character and ASCII": (b"".join(fragments(TEXT, [b"\xe2", b"xyz"])), 1007, 14),
    "fragments, a bad byte in the first": (b"".join(fragments(TEXT, [b"x\xffx", b"x"])), 1007, 8),
    "fragments, a bad byte behind a ping": (
        frame(TEXT, b"\xe2\x82", fin=False) + frame(PING) + frame(CONTINUATION, b"\x82\x82", fin=False),
        1007,
        8 + 6 + 8,
    ),
}

refused = pytest.mark.parametrize(("data", "code", "needed"), REFUSED.values(), ids=REFUSED)


@refused
def test_refused(data: bytes, code: int, needed: int | None) -> None:
    whole = decode([data])
    assert failure(whole) == code
    splits = every_split(data) if len(data) < 1000 else [[data[:n], data[n:]] for n in range(20)]
    for pieces in splits:
        assert decode(pieces) == whole


@refused
def test_refused_with_the_byte_that_shows_it(data: bytes, code: int, needed: int | None) -> None:
    assert failed_after(data) == needed or (needed is None and failed_after(data) == len(data))
    end = len(data) if needed is None else needed
    # The bytes of a whole read after the one that shows it do not matter.
    assert failure(decode([data[:end]])) == code
    assert all(event.kind != "failed" for event in decode([data[: end - 1]]))


@refused
def test_wsproto_refuses_the_same(data: bytes, code: int, needed: int | None) -> None:
    # It tells a head's faults only when all of the head has come.
    assert failure(by_wsproto([data])) == code


def test_a_refusal_is_final() -> None:
    decoder = FrameDecoder()
    [first] = decoder.feed(b"\x81\x00")
    assert decoder.feed(frame(TEXT, b"Hello")) == [first]
    assert decoder.feed(b"") == [first]


def test_what_came_before_a_refusal_is_read() -> None:
    data = frame(TEXT, b"1") + frame(PING, b"2") + frame(TEXT, b"3", rsv=RSV2) + frame(TEXT, b"4")
    events = decode([data])
    assert events[:2] == [text("1"), ping(b"2")]
    assert failure(events) == 1002
    assert len(events) == 3
    assert decode(bytewise(data)) == events


@pytest.mark.parametrize("end", range(0, 70, 3))
def test_a_bad_byte_in_a_large_frame_is_seen_before_the_rest(end: int) -> None:
    data = frame(TEXT, b"x" * end + b"\xff" + b"y" * 100_000)
    head = 14
    assert decode([data[: head + end]]) == []
    assert failure(decode([data[: head + end + 1]])) == 1007


def test_every_first_byte() -> None:
    for first in range(256):
        fin, rsv, opcode = first & 0x80, first & 0x70, first & 15
        allowed = not rsv and (opcode in (TEXT, BINARY) or (fin and opcode in (CLOSE, PING, PONG)))
        assert (decode([bytes([first])]) == []) == allowed, first
        assert decode([bytes([first])]) == decode([bytes([first]) + b"\x80" + bytes(4)])[:1] or allowed


def test_every_close_code() -> None:
    valid = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    for code in range(0x10000):
        [event] = decode([frame(CLOSE, code.to_bytes(2, "big"))])
        assert event == close(code) if code in valid else failure([event]) == 1002


# ---- Limits


def test_a_message_of_the_limit_and_one_byte_more() -> None:
    for size in (1, 100, 125, 126, 70_000):
        assert decode([frame(BINARY, b"x" * size)], max_message_bytes=size) == [binary(b"x" * size)]
        events = decode([frame(BINARY, b"x" * (size + 1))], max_message_bytes=size)
        assert failure(events) == 1009
        assert str(size) in events[0].close_reason


def test_a_message_above_the_limit_is_refused_with_its_length() -> None:
    for size, head in ((101, 2), (126, 4), (70_000, 10)):
        data = frame(TEXT, b"x" * size)
        assert decode([data[: head - 1]], max_message_bytes=100) == []
        assert failure(decode([data[:head]], max_message_bytes=100)) == 1009


def test_the_limit_is_of_all_fragments() -> None:
    parts = [b"x" * 40, b"", b"x" * 40, b"x" * 20]
    for pieces in every_split(b"".join(fragments(TEXT, parts))):
        assert decode(pieces, max_message_bytes=100) == [text("x" * 100)]
    data = b"".join(fragments(TEXT, [*parts, b"x"]))
    for pieces in every_split(data):
        assert failure(decode(pieces, max_message_bytes=100)) == 1009


def test_the_limit_is_not_of_control_frames() -> None:
    data = frame(TEXT, b"x" * 10, fin=False) + frame(PING, b"y" * 125) + frame(CONTINUATION)
    assert decode([data], max_message_bytes=10) == [ping(b"y" * 125), text("x" * 10)]


def test_without_a_limit_the_longest_length_waits_for_its_payload() -> None:
    for first in (b"", frame(BINARY, b"x" * 100, fin=False)):
        head = frame(CONTINUATION if first else BINARY, length=2**62 - 200)
        assert decode([first + head, b"x" * 1000], max_message_bytes=0) == []
    assert failure(decode([frame(BINARY, length=2**63 - 1)], max_message_bytes=0)) == 1009


@pytest.mark.parametrize("limit", [-1, -(2**40)])
def test_a_limit_below_0_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_message_bytes must be 0 .no limit. or more, not {limit}"):
        FrameDecoder(max_message_bytes=limit)


def peak_of(work: Callable[[], object]) -> int:
    """The most memory that was allocated at once, bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_length_that_is_only_announced_costs_nothing(opcode: int) -> None:
    decoders = [FrameDecoder(max_message_bytes=2**40) for _ in range(100)]
    data = frame(opcode, b"x" * 10, length=2**39)

    def feed_all() -> None:
        for decoder in decoders:
            decoder.feed(data)

    assert peak_of(feed_all) < len(decoders) * 300


def test_a_buffer_has_at_most_twice_what_came() -> None:
    decoder = FrameDecoder(max_message_bytes=64 * MIB)
    data = memoryview(frame(BINARY, b"x" * MIB, length=64 * MIB))

    def feed_all() -> None:
        for n in range(0, len(data), 10_000):
            assert decoder.feed(data[n : n + 10_000]) == []

    # Half of the largest one while it is moved
    assert peak_of(feed_all) < 3 * MIB + 100_000


MAX_FRAGMENTS = 131_072


def test_fragments_cost_no_more_than_their_bytes_up_to_their_limit() -> None:
    for opcode, part in itertools.product((TEXT, BINARY), (b"", b"x")):
        decoder = FrameDecoder()
        decoder.feed(frame(opcode, fin=False))
        many = memoryview(frame(CONTINUATION, part, fin=False) * (MAX_FRAGMENTS - 1))

        def feed_all(decoder: FrameDecoder = decoder, many: memoryview = many) -> None:
            assert decoder.feed(many) == []

        assert peak_of(feed_all) < 3 * MAX_FRAGMENTS * len(part) + 20_000
        [event] = decoder.feed(frame(CONTINUATION))
        assert len(event.data) == (MAX_FRAGMENTS - 1) * len(part)


@pytest.mark.parametrize("rsv", [0, RSV1], ids=["plain", "deflated"])
def test_a_message_of_too_many_fragments(rsv: int) -> None:
    one = [frame(TEXT, fin=False, rsv=rsv), frame(CONTINUATION, fin=False) * MAX_FRAGMENTS]
    deflate = DeflateSettings() if rsv else None
    assert decode(one, deflate=deflate) == []
    assert failure(decode([*one, frame(CONTINUATION)], deflate=deflate)) == 1009


def test_a_message_of_too_many_final_blocks() -> None:
    """Each one begins a new stream: two bytes cost as much time as a whole message does otherwise."""
    few, many = b"\x03\x00" * 1024, b"\x03\x00" * 1026
    [event] = decode([frame(BINARY, few, rsv=RSV1)], deflate=DeflateSettings())
    assert event.data == b""
    assert failure(decode([frame(BINARY, many, rsv=RSV1)], deflate=DeflateSettings())) == 1009
    apart = [frame(BINARY, b"\x03\x00", fin=False, rsv=RSV1)]
    apart += [frame(CONTINUATION, b"\x03\x00", fin=False)] * 1100
    assert failure(decode(apart, deflate=DeflateSettings())) == 1009


def test_a_million_fragments_meet_the_limit() -> None:
    data = frame(TEXT, fin=False) + frame(CONTINUATION, b"x", fin=False) * 100_000
    assert failure(decode([data], max_message_bytes=99_999)) == 1009


def test_no_allocation_that_fails_breaks_it() -> None:
    """In a process of its own: an allocation would fail in any thread of this one."""
    pytest.importorskip("_testcapi")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = Path(__file__).parent.parent / "helpers" / "frames_without_memory.py"
    subprocess.run([sys.executable, "-X", "faulthandler", str(script)], env=environment, check=True)


# ---- permessage-deflate (RFC 7692)

HELLO = bytes.fromhex("f248cdc9c90700")

# RFC 7692 section 7.2.3, by its subsections
RFC_EXAMPLES = {
    "7.2.3.1 one block": ([frame(TEXT, HELLO, rsv=RSV1)], ["Hello"]),
    "7.2.3.1 two fragments": (fragments(TEXT, [HELLO[:3], HELLO[3:]], rsv=RSV1), ["Hello"]),
    "7.2.3.2 the second refers to the first": (
        [frame(TEXT, HELLO, rsv=RSV1), frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1)],
        ["Hello", "Hello"],
    ),
    "7.2.3.3 a block without compression": (
        [frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=RSV1)],
        ["Hello"],
    ),
    "7.2.3.4 a final block": ([frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=RSV1)], ["Hello"]),
    "7.2.3.5 two blocks": ([frame(TEXT, bytes.fromhex("f24805000000ffffcac9c90700"), rsv=RSV1)], ["Hello"]),
    "7.2.3.6 an empty message": ([frame(TEXT, b"\x00", rsv=RSV1)], [""]),
}


@pytest.mark.parametrize(("frames", "texts"), RFC_EXAMPLES.values(), ids=RFC_EXAMPLES)
def test_examples_of_rfc_7692(frames: list[bytes], texts: list[str]) -> None:
    data = b"".join(frames)
    for pieces in every_split(data):
        assert decode(pieces, deflate=DEFLATE) == [text(x) for x in texts]
    assert decode(bytewise(data) * 2, deflate=DEFLATE) == [text(x) for x in texts] * 2


DEFLATE_REFUSED = {
    "RSV1 of a continuation": frame(TEXT, HELLO[:2], fin=False, rsv=RSV1)
    + frame(CONTINUATION, HELLO[2:], rsv=RSV1),
    "RSV1 of a continuation of a plain message": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, rsv=RSV1),
    "RSV1 of a ping": frame(PING, HELLO, rsv=RSV1),
    "RSV1 of a pong": frame(PONG, rsv=RSV1),
    "RSV1 of a close": frame(CLOSE, rsv=RSV1),
    "RSV2": frame(TEXT, HELLO, rsv=RSV2),
    "RSV1 and RSV3": frame(TEXT, HELLO, rsv=RSV1 | RSV3),
    "RSV1 of opcode 3": frame(3, HELLO, rsv=RSV1),
}


@pytest.mark.parametrize("data", DEFLATE_REFUSED.values(), ids=DEFLATE_REFUSED)
def test_where_rsv1_may_not_stand(data: bytes) -> None:
    for pieces in every_split(data):
        assert failure(decode(pieces, deflate=DEFLATE)) == 1002


INVALID_DEFLATED = {
    "block type 3": b"\x07",
    "wrong length of a stored block": b"\x00\x05\x00\xff\xff12345",
    "reference before the beginning": bytes.fromhex("f200110000"),
    "not UTF-8": ClientDeflater()(b"abc\xffdef"),
    "half a character at the end": ClientDeflater()(b"x\xe2\x82"),
    "not UTF-8 in a large one": ClientDeflater()(b"x" * 200_000 + b"\xff" + b"x" * 10_000),
}


@pytest.mark.parametrize("payload", INVALID_DEFLATED.values(), ids=INVALID_DEFLATED)
def test_invalid_deflated_texts(payload: bytes) -> None:
    for pieces in every_split(frame(TEXT, payload, rsv=RSV1)):
        assert failure(decode(pieces, deflate=DEFLATE)) == 1007


def test_a_bad_byte_of_a_deflated_text_is_seen_as_it_arrives() -> None:
    deflated = ClientDeflater(level=0)(b"x" * 1000 + b"\xff" + random.Random(4).randbytes(50_000))
    data = frame(TEXT, deflated, rsv=RSV1)
    assert failed_after(data, deflate=DEFLATE) < 1100


def test_plain_and_deflated_messages_in_turn() -> None:
    """Plain messages are no part of the window."""
    deflater = ClientDeflater()
    data = b"".join(
        [
            frame(TEXT, deflater(b"Hello, " * 20), rsv=RSV1),
            frame(TEXT, b"plain"),
            frame(BINARY, deflater(b"Hello, " * 20), rsv=RSV1),
            frame(TEXT, deflater(b"Hello, " * 20), rsv=RSV1),
        ]
    )
    expected = [text("Hello, " * 20), text("plain"), binary(b"Hello, " * 20), text("Hello, " * 20)]
    for pieces in every_split(data):
        assert decode(pieces, deflate=DEFLATE) == expected


def test_control_frames_between_deflated_fragments() -> None:
    deflated = ClientDeflater()(LONG.encode())
    first, second, third = fragments(TEXT, [deflated[:50], b"", deflated[50:]], rsv=RSV1)
    data = first + frame(PING, b"1") + second + frame(PONG, b"2") + third
    for pieces in every_split(data):
        assert decode(pieces, deflate=DEFLATE) == [ping(b"1"), pong(b"2"), text(LONG)]


def test_many_small_deflated_fragments() -> None:
    deflated = ClientDeflater()(random.Random(5).randbytes(20_000))
    data = b"".join(fragments(BINARY, bytewise(deflated), rsv=RSV1))
    assert decode([data], deflate=DEFLATE) == [binary(random.Random(5).randbytes(20_000))]


def test_empty_deflated_messages() -> None:
    """One without any byte is none that RFC 7692 makes, and does no harm to those behind it."""
    deflater = ClientDeflater()
    one, two = deflater(b"Hello"), deflater(b"Hello")
    for empty in ([b""], [b"", b""], [b"\x00"], [b"", b"\x00", b""], [b"\x02\x00"]):
        data = frame(TEXT, one, rsv=RSV1) + b"".join(fragments(TEXT, empty, rsv=RSV1))
        data += frame(TEXT, two, rsv=RSV1)
        for pieces in every_split(data):
            assert decode(pieces, deflate=DEFLATE) == [text("Hello"), text(""), text("Hello")]


@pytest.mark.parametrize(
    "behind", [b"", b"\x00", b"\x00\x00\x00\xff\xff\x00"], ids=["bare", "padded", "blocks"]
)
@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_a_final_block_does_not_break_later_messages(behind: bytes, size: int) -> None:
    data = random.Random(6).randbytes(size)
    deflater = ClientDeflater()
    messages = [deflate_finally(data) + behind] * 2
    messages += [deflater(b"Hello"), deflater(b"Hello"), deflate_finally(b"") + behind, deflate_finally(data)]
    expected = [binary(x) for x in (data, data, b"Hello", b"Hello", b"", data)]
    wire = b"".join([frame(BINARY, x, rsv=RSV1) for x in messages])
    assert decode([wire], deflate=DEFLATE) == expected
    for end in range(0, len(wire), max(1, len(wire) // 200)):
        assert decode([wire[:end], wire[end:]], deflate=DEFLATE) == expected
    cut_up = [b"".join(fragments(BINARY, [x[:-1], x[-1:], b""], rsv=RSV1)) for x in messages]
    assert decode(cut_up, deflate=DEFLATE) == expected


def test_data_behind_a_final_block_is_of_the_same_message() -> None:
    payload = deflate_finally(b"Hello, ") + deflate_finally(b"world") + ClientDeflater()(b"!")
    for pieces in every_split(frame(TEXT, payload, rsv=RSV1)):
        assert decode(pieces, deflate=DEFLATE) == [text("Hello, world!")]


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


@all_settings
def test_messages_of_all_settings(settings: DeflateSettings) -> None:
    rng = random.Random(7)
    deflater = ClientDeflater(
        window_bits=settings.client_max_window_bits, keeps_window=not settings.client_no_context_takeover
    )
    common = rng.randbytes(300)
    messages = [
        b"",
        common,
        common * 3,
        rng.randbytes(70_000),
        common,
        b"a" * 300_000,
        rng.randbytes(10) + common,
    ]
    wire = b"".join([frame(BINARY, deflater(x), rsv=RSV1) for x in messages])
    expected = [binary(x) for x in messages]
    assert decode([wire], deflate=settings) == expected
    assert decode([wire[n : n + 701] for n in range(0, len(wire), 701)], deflate=settings) == expected


def test_each_message_alone_where_no_window_is_kept() -> None:
    settings = DeflateSettings(client_no_context_takeover=True)
    data = frame(TEXT, HELLO, rsv=RSV1) + frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1)
    events = decode([data], deflate=settings)
    assert events[0] == text("Hello")
    assert failure(events) == 1007


def test_the_smallest_window_of_a_client() -> None:
    """zlib's own deflater has no window of 8 bits; with 9, it refers no further back than 250 bytes."""
    settings = DeflateSettings(client_max_window_bits=8)
    rng = random.Random(8)
    data = b"".join(rng.choices([rng.randbytes(20) for _ in range(30)], k=500))
    deflated = ClientDeflater(window_bits=9)(data)
    assert len(deflated) < len(data)
    assert decode([frame(BINARY, deflated, rsv=RSV1)], deflate=settings) == [binary(data)]


def test_a_reference_out_of_the_window_is_refused() -> None:
    data = random.Random(9).randbytes(2000)
    deflater = ClientDeflater()
    wire = b"".join([frame(BINARY, deflater(data), rsv=RSV1) for _ in range(2)])
    assert decode([wire], deflate=DeflateSettings(client_max_window_bits=11)) == [binary(data)] * 2
    assert failure(decode([wire], deflate=DeflateSettings(client_max_window_bits=10))) == 1007


# ---- Limits of deflated messages


def bomb(megabytes: int) -> bytes:
    """Deflates to 1/1000 of its size; each MiB of it is a block of its own."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(MIB)
    first = stream.compress(zeros) + stream.flush(zlib.Z_FULL_FLUSH)
    second = stream.compress(zeros) + stream.flush(zlib.Z_FULL_FLUSH)
    return (first + second * (megabytes - 1))[:-4]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_bomb_costs_no_more_than_the_limit(opcode: int) -> None:
    data = memoryview(frame(opcode, bomb(1024), rsv=RSV1))
    assert len(data) < 2 * MIB
    for size in (1000, len(data)):
        decoder = FrameDecoder(max_message_bytes=MIB, deflate=DEFLATE)
        events: list[FrameEvent] = []

        def feed_all(
            decoder: FrameDecoder = decoder, events: list[FrameEvent] = events, size: int = size
        ) -> None:
            for n in range(0, len(data), size):
                events += decoder.feed(data[n : n + size])
                if events:
                    break

        # The buffer, half of it while it is moved, and what zlib has
        assert peak_of(feed_all) < 1.5 * MIB + 300_000
        assert failure(events) == 1009
    assert peak_of(lambda: decoder.feed(data)) < 10_000


def test_the_limit_is_of_the_inflated_message() -> None:
    for size in (1, 5, 100, 65_535, 65_536, 65_537, 131_072, 200_000):
        for data in (bytes(size), random.Random(size).randbytes(size)):
            wire = frame(BINARY, ClientDeflater()(data), rsv=RSV1)
            for pieces in ([wire], [wire[:20], wire[20:]], [wire[:-1], wire[-1:]]):
                assert decode(pieces, deflate=DEFLATE, max_message_bytes=size) == [binary(data)]
                assert decode(pieces, deflate=DEFLATE, max_message_bytes=0) == [binary(data)]
                if size > 1:
                    events = decode(pieces, deflate=DEFLATE, max_message_bytes=size - 1)
                    assert failure(events) == 1009


def test_a_message_that_deflates_to_more_than_the_limit() -> None:
    data = random.Random(10).randbytes(1000)
    deflated = ClientDeflater()(data)
    assert len(deflated) > 1000
    assert decode([frame(BINARY, deflated, rsv=RSV1)], deflate=DEFLATE, max_message_bytes=1000) == [
        binary(data)
    ]


def test_a_bad_byte_before_the_limit_is_what_is_reported() -> None:
    deflated = ClientDeflater()(b"x" * 50 + b"\xff" + b"x" * 200)
    for pieces in every_split(frame(TEXT, deflated, rsv=RSV1)):
        assert failure(decode(pieces, deflate=DEFLATE, max_message_bytes=100)) == 1007
    deflated = ClientDeflater()(b"x" * 150 + b"\xff")
    for pieces in every_split(frame(TEXT, deflated, rsv=RSV1)):
        assert failure(decode(pieces, deflate=DEFLATE, max_message_bytes=100)) == 1009


def test_too_much_is_seen_before_what_is_wrong_behind_it() -> None:
    good = ClientDeflater(level=0)(b"x" * 50)
    too_much = ClientDeflater(level=0)(b"x" * 60) + b"\x00\x3c\x00\xc3\xff" + b"x" * 60 + b"\x07"
    for pieces in every_split(b"".join(fragments(BINARY, [good + TAIL, too_much], rsv=RSV1))):
        assert failure(decode(pieces, deflate=DEFLATE, max_message_bytes=100)) == 1009


def test_the_limit_is_met_at_the_same_byte_however_it_comes() -> None:
    """zlib may have taken all input, and stop amid what that gives."""
    deflated = ClientDeflater(level=9)(b"x" * 65_800)
    for end in range(len(deflated)):
        wire = frame(BINARY, deflated[:end], fin=False, rsv=RSV1)
        for limit in (65_535, 65_536, 65_600, 65_700):
            events = decode([wire], deflate=DEFLATE, max_message_bytes=limit)
            assert decode(bytewise(wire), deflate=DEFLATE, max_message_bytes=limit) == events


def test_a_long_deflated_message_that_inflates_to_nothing() -> None:
    """Empty blocks: they cost time for each byte, and no memory."""
    decoder = FrameDecoder(max_message_bytes=10, deflate=DEFLATE)
    decoder.feed(frame(BINARY, b"\x00", fin=False, rsv=RSV1))
    data = memoryview(frame(CONTINUATION, b"\x00\x00\xff\xff\x00" * 2_000, fin=False))
    assert peak_of(lambda: [decoder.feed(data) for _ in range(6)]) < 200_000
    assert decoder.feed(frame(CONTINUATION)) == [binary(b"")]
    decoder.feed(frame(BINARY, b"\x00", fin=False, rsv=RSV1))
    events = [event for _ in range(7) for event in decoder.feed(data)]
    assert events[0].close_code == 1009


# ---- Own frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("compressed", [False, True])
def test_heads_of_own_frames(size: int, compressed: bool) -> None:
    rsv = RSV1 if compressed else 0
    assert encode_frame("binary", b"x" * size, compressed=compressed) == frame(
        BINARY, b"x" * size, key=None, rsv=rsv
    )


def test_own_frames_as_wsproto_reads_them() -> None:
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(
        encode_frame("text", GREEK.encode())
        + encode_frame("binary", b"x" * 70_000)
        + encode_frame("ping", b"1")
        + encode_frame("pong", b"")
        + encode_frame("close", close_payload(1000, GREEK))
    )
    assert [(f.opcode, f.payload) for f in client.received_frames()] == [
        (Opcode.TEXT, GREEK),
        (Opcode.BINARY, b"x" * 70_000),
        (Opcode.PING, b"1"),
        (Opcode.PONG, b""),
        (Opcode.CLOSE, (1000, GREEK)),
    ]


def test_payloads_of_close_frames() -> None:
    assert close_payload(1000, "") == b"\x03\xe8"
    assert close_payload(1012, "bye") == b"\x03\xf4bye"
    assert close_payload(4999, "é" * 61) == b"\x13\x87" + "é".encode() * 61
    assert close_payload(1005, "") == b""


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1006, 1015, 2999, 5000, 65_536 + 1000])
def test_a_code_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match=f"^{code} is no code of a Close frame"):
        close_payload(code, "")


def test_a_reason_needs_a_code() -> None:
    with pytest.raises(ValueError, match="1005 is no code"):
        close_payload(1005, "why")


def test_a_reason_that_is_too_long() -> None:
    assert len(close_payload(1000, "x" * 123)) == 125
    with pytest.raises(ValueError, match="at most 123 bytes, not 124"):
        close_payload(1000, "é" * 62)


def test_a_reason_that_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        close_payload(1000, "\ud800")


@all_settings
def test_own_deflated_messages_as_wsproto_reads_them(settings: DeflateSettings) -> None:
    rng = random.Random(11)
    common = rng.randbytes(300)
    messages = [common, b"", b"", common * 3, rng.randbytes(70_000), common, b"a" * 300_000, common]
    deflater = Deflater(settings)
    client = FrameProtocol(client=True, extensions=[wsproto_extension(settings)])
    for message in messages:
        payload = deflater.deflate(message)
        assert payload is not None
        client.receive_bytes(encode_frame("binary", payload, compressed=True))
        frames: list[Any] = list(client.received_frames())
        assert b"".join(f.payload for f in frames) == message
        assert frames[-1].message_finished


def test_small_messages_are_left_plain() -> None:
    deflater = Deflater(DEFLATE, min_bytes=10)
    assert deflater.deflate(b"x" * 9) is None
    assert deflater.deflate(b"x" * 10) is not None


def test_a_kept_window_makes_repeated_messages_small() -> None:
    data = random.Random(12).randbytes(500)
    keeping, alone = Deflater(DEFLATE), Deflater(DeflateSettings(server_no_context_takeover=True))
    first, second = keeping.deflate(data), keeping.deflate(data)
    assert first is not None
    assert second is not None
    assert len(second) < 20 < len(first)
    assert alone.deflate(data) == alone.deflate(data) == first


# ---- Negotiation (RFC 7692 section 7.1)

WISHES = {
    "none": DEFLATE,
    "small": DeflateSettings(server_max_window_bits=12, client_max_window_bits=11),
    "alone": DeflateSettings(True, True),
}

# Wishes, the fields' values; the response, what is agreed on
ACCEPTED: list[tuple[str, list[bytes], bytes, DeflateSettings]] = [
    ("none", [b"permessage-deflate"], b"", DEFLATE),
    ("none", [b"permessage-deflate; client_max_window_bits"], b"", DEFLATE),
    (
        "none",
        [b"permessage-deflate; client_max_window_bits=10"],
        b"; client_max_window_bits=10",
        DeflateSettings(client_max_window_bits=10),
    ),
    (
        "none",
        [b"permessage-deflate; client_max_window_bits=8"],
        b"; client_max_window_bits=8",
        DeflateSettings(client_max_window_bits=8),
    ),
    (
        "none",
        [b"permessage-deflate; server_max_window_bits=10"],
        b"; server_max_window_bits=10",
        DeflateSettings(server_max_window_bits=10),
    ),
    (
        "none",
        [b"permessage-deflate; server_max_window_bits=15"],
        b"; server_max_window_bits=15",
        DEFLATE,
    ),
    (
        "none",
        [b"permessage-deflate; server_no_context_takeover"],
        b"; server_no_context_takeover",
        DeflateSettings(server_no_context_takeover=True),
    ),
    (
        "none",
        [b"permessage-deflate; client_no_context_takeover"],
        b"; client_no_context_takeover",
        DeflateSettings(client_no_context_takeover=True),
    ),
    (
        "none",
        [
            b"permessage-deflate; client_max_window_bits=9; server_max_window_bits=10;"
            b"client_no_context_takeover; server_no_context_takeover"
        ],
        b"; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10;"
        b" client_max_window_bits=9",
        DeflateSettings(True, True, 10, 9),
    ),
    # What the server wishes for
    (
        "small",
        [b"permessage-deflate"],
        b"; server_max_window_bits=12",
        DeflateSettings(server_max_window_bits=12),
    ),
    (
        "small",
        [b"permessage-deflate; client_max_window_bits"],
        b"; server_max_window_bits=12; client_max_window_bits=11",
        DeflateSettings(False, False, 12, 11),
    ),
    (
        "small",
        [b"permessage-deflate; client_max_window_bits=15; server_max_window_bits=15"],
        b"; server_max_window_bits=12; client_max_window_bits=11",
        DeflateSettings(False, False, 12, 11),
    ),
    (
        "small",
        [b"permessage-deflate; client_max_window_bits=9; server_max_window_bits=9"],
        b"; server_max_window_bits=9; client_max_window_bits=9",
        DeflateSettings(False, False, 9, 9),
    ),
    (
        "alone",
        [b"permessage-deflate"],
        b"; server_no_context_takeover; client_no_context_takeover",
        DeflateSettings(True, True),
    ),
    # The first offer that can be met
    (
        "none",
        [b"permessage-deflate; server_max_window_bits=8, permessage-deflate; client_no_context_takeover"],
        b"; client_no_context_takeover",
        DeflateSettings(client_no_context_takeover=True),
    ),
    (
        "none",
        [b"permessage-deflate; server_max_window_bits=10, permessage-deflate"],
        b"; server_max_window_bits=10",
        DeflateSettings(server_max_window_bits=10),
    ),
    ("none", [b"permessage-deflate; unknown", b"x-other; a=b, permessage-deflate"], b"", DEFLATE),
    # The grammar
    ("none", [b"", b" ,, \tpermessage-deflate \t,"], b"", DEFLATE),
    (
        "none",
        [b'permessage-deflate\t;server_max_window_bits \t= "1\\0" ;\tclient_no_context_takeover '],
        b"; client_no_context_takeover; server_max_window_bits=10",
        DeflateSettings(False, True, 10, 15),
    ),
]


@pytest.mark.parametrize(("wishes", "values", "response", "agreed"), ACCEPTED)
def test_accepted_offers(wishes: str, values: list[bytes], response: bytes, agreed: DeflateSettings) -> None:
    assert negotiate_deflate(values, WISHES[wishes]) == (b"permessage-deflate" + response, agreed)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x-webkit-deflate-frame",
        b"Permessage-Deflate",
        b"permessage-deflate; unknown",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; client_no_context_takeover=true",
        b"permessage-deflate; server_max_window_bits",
        b"permessage-deflate; server_max_window_bits=7",
        b"permessage-deflate; server_max_window_bits=8",
        b"permessage-deflate; server_max_window_bits=16",
        b"permessage-deflate; server_max_window_bits=010",
        b"permessage-deflate; server_max_window_bits=+9",
        b"permessage-deflate; client_max_window_bits=7",
        b"permessage-deflate; client_max_window_bits=16",
        b"permessage-deflate; client_max_window_bits=x",
        b"permessage-deflate; client_max_window_bits; client_max_window_bits",
        b"permessage-deflate; client_max_window_bits=10; client_max_window_bits=10",
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ],
)
def test_declined_offers(value: bytes) -> None:
    assert negotiate_deflate([value], DEFLATE) is None


@pytest.mark.parametrize(
    "value",
    [
        b"permessage deflate",
        b"permessage-deflate;",
        b"permessage-deflate; ; client_max_window_bits",
        b"; client_max_window_bits",
        b"permessage-deflate; =10",
        b"permessage-deflate; client_max_window_bits=",
        b'permessage-deflate; client_max_window_bits=""',
        b'permessage-deflate; client_max_window_bits="',
        b'permessage-deflate; client_max_window_bits="10',
        b'permessage-deflate; client_max_window_bits=10"',
        b'permessage-deflate; client_max_window_bits="1"0"',
        b'permessage-deflate; client_max_window_bits="10\\"',
        b'permessage-deflate; a="b,c"',
        b'permessage-deflate; a="b c"',
        b"permessage-deflate; a=b=c",
        b"permessage-deflate; a(b)",
        b"permessage-deflate\x00",
        b"permessage-deflate, x-\xff",
        b"x y, permessage-deflate",
    ],
)
def test_malformed_offers(value: bytes) -> None:
    for values in ([value], [b"permessage-deflate", value], [value, b"permessage-deflate"]):
        with pytest.raises(ParseError, match="the Sec-WebSocket-Extensions field is malformed") as caught:
            negotiate_deflate(values, DEFLATE)
        assert caught.value.status == 400


def test_long_offers_are_not_read() -> None:
    offer = b"permessage-deflate"
    for behind in (b" ", b", x", b"; a"):
        most = offer + (4096 - len(offer)) // len(behind) * behind
        assert (negotiate_deflate([most], DEFLATE) is None) == (behind == b"; a")
        for values in ([most + behind + b"   "], [most, behind + b"   "], [b","] * 5000 + [offer]):
            with pytest.raises(ParseError, match="more than 4096 bytes") as caught:
                negotiate_deflate(values, DEFLATE)
            assert caught.value.status == 431


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DeflateSettings(server_max_window_bits=8), "server_max_window_bits must be from 9 to 15, not 8"),
        (DeflateSettings(server_max_window_bits=16), "server_max_window_bits must be from 9 to 15, not 16"),
        (DeflateSettings(client_max_window_bits=7), "client_max_window_bits must be from 8 to 15, not 7"),
        (DeflateSettings(client_max_window_bits=0), "client_max_window_bits must be from 8 to 15, not 0"),
    ],
)
def test_window_sizes_out_of_range(settings: DeflateSettings, message: str) -> None:
    for use in (
        lambda: negotiate_deflate([], settings),
        lambda: Deflater(settings),
        lambda: FrameDecoder(deflate=settings),
    ):
        with pytest.raises(ValueError, match=message):
            use()


TOKENS = b"""permessage-deflate server_max_window_bits client_max_window_bits client_no_context_takeover
    10 9 8 x = " , ; \\""".split()


@given(
    st.lists(
        st.sampled_from([*TOKENS, b" ", b"\t"]),
        max_size=14,
    )
)
def test_whatever_is_agreed_on_was_offered(tokens: list[bytes]) -> None:
    value = b"".join(tokens)
    try:
        accepted = negotiate_deflate([value], DeflateSettings(server_max_window_bits=12))
    except ParseError:
        return
    if accepted is not None:
        response, agreed = accepted
        assert b"permessage-deflate" in value
        assert 9 <= agreed.server_max_window_bits <= 12
        assert (b"client_max_window_bits" in response) <= (b"client_max_window_bits" in value)
        # It is understood as it was meant.
        assert negotiate_deflate([response], DEFLATE) == (response, agreed)


# ---- wsproto as the oracle


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


def same(ours: list[FrameEvent], theirs: list[FrameEvent]) -> bool:
    """Whether both are the same, but for the words of a failure."""

    def without_reasons(events: list[FrameEvent]) -> list[FrameEvent]:
        return [event._replace(close_reason="") if event.kind == "failed" else event for event in events]

    return without_reasons(ours) == without_reasons(theirs)


keys = st.binary(min_size=4, max_size=4)
texts = st.one_of(
    st.text(max_size=30),
    st.text(st.sampled_from("aé€🙂"), max_size=200),
    st.text("xyz", min_size=100, max_size=400),
)
payloads = st.one_of(st.binary(max_size=30), st.binary(min_size=100, max_size=300))
controls = st.one_of(
    st.tuples(st.just(PING), st.binary(max_size=125)), st.tuples(st.just(PONG), st.binary(max_size=125))
)
places = st.lists(st.integers(0, 3000), max_size=6)


@st.composite
def streams(
    draw: st.DrawFn, settings: DeflateSettings | None = None, controls_between: bool = True
) -> tuple[bytes, list[FrameEvent]]:
    """Frames of a client that keeps the protocol, and what they mean."""
    wire: list[bytes] = []
    events: list[FrameEvent] = []
    deflater = settings and ClientDeflater(
        window_bits=settings.client_max_window_bits, keeps_window=not settings.client_no_context_takeover
    )

    def add_controls() -> None:
        for opcode, data in draw(st.lists(controls, max_size=1)):
            wire.append(frame(opcode, data, key=draw(keys)))
            events.append(FrameEvent("ping" if opcode == PING else "pong", data))

    for message in draw(st.lists(st.one_of(texts, payloads), max_size=5)):
        opcode, data = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        rsv = 0
        if deflater and draw(st.booleans()):
            data, rsv = deflater(data), RSV1
        parts = cut(data, draw(st.lists(st.integers(0, 300), max_size=3)))
        *others, last = fragments(opcode, parts, rsv=rsv, key=draw(keys))
        for part in others:
            wire.append(part)
            if controls_between:
                add_controls()
        wire.append(last)
        events.append(text(message) if isinstance(message, str) else binary(message))
        add_controls()
    if draw(st.booleans()):
        code = draw(st.sampled_from([1000, 1001, 1008, 3000, 4999]))
        wire.append(frame(CLOSE, close_payload(code, "bye"), key=draw(keys)))
        events.append(close(code, "bye"))
    return b"".join(wire), events


@given(streams(), places)
def test_any_stream_is_read_as_meant_and_as_by_wsproto(
    stream: tuple[bytes, list[FrameEvent]], cuts: list[int]
) -> None:
    data, events = stream
    pieces = cut(data, cuts)
    assert decode(pieces) == events
    assert by_wsproto(pieces) == events


@given(data=st.data(), settings=st.sampled_from(ALL_SETTINGS), cuts=places)
def test_any_deflated_stream_is_read_as_meant_and_as_by_wsproto(
    data: st.DataObject, settings: DeflateSettings, cuts: list[int]
) -> None:
    wire, events = data.draw(streams(settings, controls_between=False))
    pieces = cut(wire, cuts)
    assert decode(pieces, deflate=settings) == events
    assert by_wsproto(pieces, settings) == events


@given(data=st.data(), settings=st.sampled_from(ALL_SETTINGS), cuts=places)
def test_any_deflated_stream_with_control_frames(
    data: st.DataObject, settings: DeflateSettings, cuts: list[int]
) -> None:
    wire, events = data.draw(streams(settings))
    assert decode(cut(wire, cuts), deflate=settings) == events


@given(streams(), st.integers(0, 2000), st.binary(max_size=3), st.integers(0, 3), places)
def test_a_spoilt_stream_has_one_outcome_and_that_of_wsproto(
    stream: tuple[bytes, list[FrameEvent]], start: int, piece: bytes, length: int, cuts: list[int]
) -> None:
    data, _ = stream
    start = min(start, len(data))
    data = data[:start] + piece + data[start + length :]
    events = decode([data])
    assert decode(cut(data, cuts)) == decode(bytewise(data)) == events
    theirs = by_wsproto([data])
    if same(events, theirs):
        return
    # wsproto tells a head's faults only when the head is whole, and takes code 1014 for one of them.
    if theirs == events[:-1]:
        assert failure(events) == 1002
        assert by_wsproto([data + bytes(14)])[-1].kind == "failed"
    else:
        assert [event.close_code for event in events if event.kind == "close"] == [1014]


def test_wsproto_does_not_know_code_1014() -> None:
    """Bad Gateway, which IANA has registered after RFC 6455."""
    data = frame(CLOSE, b"\x03\xf6")
    assert decode([data]) == [close(1014)]
    assert failure(by_wsproto([data])) == 1002


def test_wsproto_waits_for_all_of_a_bad_head() -> None:
    data = b"\x83"
    assert failure(decode([data])) == 1002
    assert by_wsproto([data]) == []
    assert failure(by_wsproto([data + b"\x80"])) == 1002


def test_wsproto_forgets_in_a_control_frame_that_a_message_is_deflated() -> None:
    first, second = fragments(TEXT, [HELLO[:3], HELLO[3:]], rsv=RSV1)
    data = first + frame(PING) + second
    assert decode([data], deflate=DEFLATE) == [ping(), text("Hello")]
    assert by_wsproto([data], DEFLATE)[-1] != text("Hello")


def test_wsproto_reads_no_message_behind_a_final_block() -> None:
    data = frame(TEXT, deflate_finally(b"Hello"), rsv=RSV1) + frame(TEXT, HELLO, rsv=RSV1)
    assert decode([data], deflate=DEFLATE) == [text("Hello")] * 2
    assert by_wsproto([data], DEFLATE) != [text("Hello")] * 2


def test_wsproto_breaks_behind_a_deflated_message_without_a_byte() -> None:
    data = frame(TEXT, rsv=RSV1) + frame(TEXT, HELLO, rsv=RSV1)
    assert decode([data], deflate=DEFLATE) == [text(""), text("Hello")]
    assert by_wsproto([data], DEFLATE) != [text(""), text("Hello")]
