"""WebSocket frames (RFC 6455 section 5): what is read, what is refused, what is written."""

import itertools
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from backpressure import MIB
from clientframes import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, RSV2, RSV3, TEXT, fragments, frame
from decoding import (
    DEFLATE,
    LONG,
    all_settings,
    by_wsproto,
    bytewise,
    decode,
    every_split,
    failed_after,
    failure,
    peak_of,
    wsproto_extension,
)
from frameevents import binary, close, ping, pong, text
from wsproto.frame_protocol import FrameProtocol, Opcode

from fastasgi.codecs.deflate import Deflater, DeflateSettings
from fastasgi.codecs.frames import FrameDecoder, FrameEvent, close_payload, encode_frame

# ---- What is read

GREEK = "κόσμε"

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
