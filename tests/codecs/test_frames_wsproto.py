"""WebSocket frames, with wsproto as the oracle."""

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
from decoding import ALL_SETTINGS, DEFLATE, HELLO, by_wsproto, bytewise, decode, failure, texts
from frameevents import binary, close, ping, text
from hypothesis import given
from hypothesis import strategies as st

from fastasgi.codecs.deflate import DeflateSettings
from fastasgi.codecs.frames import FrameEvent, close_payload

# ---- wsproto as the oracle


def same(ours: list[FrameEvent], theirs: list[FrameEvent]) -> bool:
    """Whether both are the same, but for the words of a failure."""

    def without_reasons(events: list[FrameEvent]) -> list[FrameEvent]:
        return [event._replace(close_reason="") if event.kind == "failed" else event for event in events]

    return without_reasons(ours) == without_reasons(theirs)


keys = st.binary(min_size=4, max_size=4)
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
