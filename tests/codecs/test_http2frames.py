"""HTTP/2 frames (RFC 9113): layouts, held against hyperframe's, and what is wrong with a frame by itself."""

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from fastasgi.codecs.http2frames import (
    FrameSettings,
    decode_content,
    decode_frame_head,
    decode_settings,
    encode_block,
    encode_goaway,
    encode_ping,
    encode_rst_stream,
    encode_settings,
    encode_settings_ack,
    encode_window_update,
    error_name,
)

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION, PRIORITY_UPDATE = 8, 9, 16
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 1, 1, 4, 8, 32
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM = 1, 3, 6, 11
NO_LIMIT = 2**32 - 1

streams = st.integers(1, 2**31 - 1)
numbers = st.integers(0, 2**32 - 1)


def head(length: int, kind: int, flags: int = 0, stream_id: int = 1) -> bytes:
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big")


def frame(payload: bytes, kind: int, flags: int = 0, stream_id: int = 1) -> bytes:
    return head(len(payload), kind, flags, stream_id) + payload


def setting(setting_id: int, value: int) -> bytes:
    return setting_id.to_bytes(2, "big") + value.to_bytes(4, "big")


def frames_of(data: bytes) -> list[Frame]:
    """The frames that hyperframe reads."""
    found = []
    while data:
        parsed, length = Frame.parse_frame_header(memoryview(data[:9]))
        parsed.parse_body(memoryview(data[9 : 9 + length]))
        found.append(parsed)
        data = data[9 + length :]
    return found


# ---- Heads


@given(
    length=st.integers(0, 2**24 - 1),
    kind=st.integers(0, 255),
    flags=st.integers(0, 255),
    stream_id=st.integers(0, 2**31 - 1),
)
def test_a_head_is_four_numbers(length: int, kind: int, flags: int, stream_id: int) -> None:
    data = head(length, kind, flags, stream_id)
    assert decode_frame_head(data)[:4] == (length, kind, flags, stream_id)
    reserved = data[:5] + bytes([data[5] | 0x80]) + data[6:]
    assert decode_frame_head(reserved) == decode_frame_head(data + b"behind")


def test_a_head_has_nine_bytes() -> None:
    with pytest.raises(ValueError, match="nine"):
        decode_frame_head(bytes(8))


@pytest.mark.parametrize(
    ("length", "kind", "flags", "stream_id", "expected"),
    [
        pytest.param(16384, DATA, 0, 1, 0, id="the largest payload"),
        pytest.param(16385, DATA, 0, 1, FRAME_SIZE_ERROR, id="a larger one"),
        pytest.param(16385, 0xEE, 0, 0, FRAME_SIZE_ERROR, id="a larger one of an unknown type"),
        pytest.param(16384, 0xEE, 0xFF, 0, 0, id="an unknown type"),
        pytest.param(16384, 0xEE, 0xFF, 7, 0, id="an unknown type on a stream"),
        *(
            pytest.param(length, kind, 0, 0, PROTOCOL_ERROR, id=f"type {kind} without a stream")
            for kind, length in (
                (DATA, 1),
                (HEADERS, 1),
                (PRIORITY, 5),
                (RST_STREAM, 4),
                (PUSH_PROMISE, 4),
                (CONTINUATION, 1),
            )
        ),
        *(
            pytest.param(length, kind, 0, 1, PROTOCOL_ERROR, id=f"type {kind} on a stream")
            for kind, length in ((SETTINGS, 6), (PING, 8), (GOAWAY, 8), (PRIORITY_UPDATE, 4))
        ),
        pytest.param(4, PUSH_PROMISE, 0, 1, PROTOCOL_ERROR, id="a push of a client"),
        pytest.param(4, PRIORITY, 0, 1, 0, id="a priority of four bytes is its stream's fault"),
        pytest.param(0, SETTINGS, 0, 0, 0, id="no settings"),
        pytest.param(12, SETTINGS, 0, 0, 0, id="two settings"),
        pytest.param(11, SETTINGS, 0, 0, FRAME_SIZE_ERROR, id="a part of a setting"),
        pytest.param(0, SETTINGS, ACK, 0, 0, id="settings acknowledged"),
        pytest.param(6, SETTINGS, ACK, 0, FRAME_SIZE_ERROR, id="settings acknowledged with a payload"),
        *(
            pytest.param(length, kind, 0, stream_id, error, id=f"{length} bytes of type {kind}")
            for kind, stream_id, good, bad in (
                (RST_STREAM, 1, (4,), (0, 3, 5)),
                (WINDOW_UPDATE, 1, (4,), (0, 3, 5)),
                (WINDOW_UPDATE, 0, (4,), (0, 3, 5)),
                (PING, 0, (8,), (0, 7, 9)),
                (GOAWAY, 0, (8, 9, 16384), (0, 7)),
                (PRIORITY_UPDATE, 0, (4, 5, 100), (0, 3)),
                (DATA, 1, (0,), ()),
                (HEADERS, 1, (0,), ()),
                (CONTINUATION, 1, (0,), ()),
            )
            for lengths, error in ((good, 0), (bad, FRAME_SIZE_ERROR))
            for length in lengths
        ),
    ],
)
def test_what_is_wrong_with_a_head(length: int, kind: int, flags: int, stream_id: int, expected: int) -> None:
    assert decode_frame_head(head(length, kind, flags, stream_id))[4] == expected


# ---- Padding


@given(
    data=st.binary(max_size=300),
    padding=st.none() | st.integers(0, 255),
    dependency=st.none() | st.integers(0, 2**31 - 1),
    is_headers=st.booleans(),
)
def test_content_is_found_where_hyperframe_has_put_it(
    data: bytes, padding: int | None, dependency: int | None, is_headers: bool
) -> None:
    made = HeadersFrame(1, data) if is_headers else DataFrame(1, data)
    if padding is not None:
        made.flags.add("PADDED")
        made.pad_length = padding
    if is_headers and dependency is not None:
        made.flags.add("PRIORITY")
        made.depends_on = dependency
        made.exclusive = True
    expected = (dependency or 0) if is_headers else 0
    assert decode_content(made.serialize()) == (data, expected)


@pytest.mark.parametrize(
    ("payload", "kind", "flags", "expected"),
    [
        pytest.param(b"", DATA, PADDED, FRAME_SIZE_ERROR, id="no pad length"),
        pytest.param(b"\0", DATA, PADDED, (b"", 0), id="nothing but a pad length"),
        pytest.param(b"\2xy", DATA, PADDED, (b"", 0), id="nothing but padding"),
        pytest.param(b"\3xy", DATA, PADDED, PROTOCOL_ERROR, id="more padding than payload"),
        pytest.param(b"\xff", HEADERS, PADDED, PROTOCOL_ERROR, id="padding that is not there"),
        pytest.param(b"\2xy", DATA, PRIORITY_FLAG, (b"\2xy", 0), id="a flag that DATA does not have"),
        pytest.param(bytes(4), HEADERS, PRIORITY_FLAG, FRAME_SIZE_ERROR, id="a part of a priority"),
        pytest.param(bytes(5), HEADERS, PADDED | PRIORITY_FLAG, FRAME_SIZE_ERROR, id="a part, padded"),
        pytest.param(b"\0\0\0\x07\0x", HEADERS, PRIORITY_FLAG, (b"x", 7), id="a priority"),
        pytest.param(
            b"\1\0\0\0\x07\0", HEADERS, PADDED | PRIORITY_FLAG, PROTOCOL_ERROR, id="padding into a priority"
        ),
        pytest.param(b"\1\0\0\0\x07\0.", HEADERS, PADDED | PRIORITY_FLAG, (b"", 7), id="all of them"),
    ],
)
def test_padding_and_priority_have_to_be_there(
    payload: bytes, kind: int, flags: int, expected: tuple[bytes, int] | int
) -> None:
    assert decode_content(frame(payload, kind, flags)) == expected


@pytest.mark.parametrize("data", [b"", head(0, DATA)[:8], head(1, DATA), head(0, DATA) + b"x"])
def test_content_is_of_one_whole_frame(data: bytes) -> None:
    with pytest.raises(ValueError, match="frame"):
        decode_content(data)


# ---- Settings

INITIAL = FrameSettings(4096, 4096, NO_LIMIT, 65535, 16384, NO_LIMIT, True, False, False)


def test_what_holds_without_settings() -> None:
    assert decode_settings([]) == decode_settings([b""]) == INITIAL


@pytest.mark.parametrize(
    ("setting_id", "field", "values", "faulty", "error"),
    [
        (1, "header_table_size", (0, 1, 4096, NO_LIMIT), (), 0),
        (2, "enable_push", (0, 1), (2, NO_LIMIT), PROTOCOL_ERROR),
        (3, "max_concurrent_streams", (0, 1, NO_LIMIT), (), 0),
        (4, "initial_window_size", (0, 1, 2**31 - 1), (2**31, NO_LIMIT), FLOW_CONTROL_ERROR),
        (5, "max_frame_size", (16384, 2**24 - 1), (0, 16383, 2**24, NO_LIMIT), PROTOCOL_ERROR),
        (6, "max_header_list_size", (0, 1, NO_LIMIT), (), 0),
        (8, "enable_connect_protocol", (0, 1), (2, NO_LIMIT), PROTOCOL_ERROR),
        (9, "no_rfc7540_priorities", (0, 1), (2, NO_LIMIT), PROTOCOL_ERROR),
    ],
)
def test_each_setting_has_its_bounds(
    setting_id: int, field: str, values: tuple[int, ...], faulty: tuple[int, ...], error: int
) -> None:
    for value in values:
        settings = decode_settings([setting(setting_id, value)])
        least = value if setting_id == 1 else 4096
        assert settings == INITIAL._replace(**{field: value, "least_header_table_size": least})
    for value in faulty:
        assert decode_settings([setting(setting_id, value)]) == error


def test_unknown_settings_are_passed_over() -> None:
    unknown = b"".join(setting(setting_id, NO_LIMIT) for setting_id in (0, 7, 10, 0xFFFF))
    assert decode_settings([unknown]) == INITIAL


def test_settings_are_taken_in_order() -> None:
    assert decode_settings([setting(4, 1) + setting(4, 2), setting(3, 5)]) == INITIAL._replace(
        initial_window_size=2, max_concurrent_streams=5
    )


def test_the_smallest_table_of_a_frame_is_known() -> None:
    shrunk = setting(1, 100) + setting(1, 0) + setting(1, 8192)
    expected = INITIAL._replace(header_table_size=8192, least_header_table_size=0)
    assert decode_settings([shrunk]) == expected
    assert decode_settings([shrunk, b""]) == expected._replace(least_header_table_size=8192)


def test_settings_are_whole_and_not_too_many() -> None:
    assert decode_settings([setting(4, 1)[:5]]) == FRAME_SIZE_ERROR
    assert decode_settings([setting(4, 1) * 32]) == INITIAL._replace(initial_window_size=1)
    assert decode_settings([setting(4, 1) * 33]) == ENHANCE_YOUR_CALM


# ---- What we send


@given(settings=st.dictionaries(st.integers(1, 0xFFFF), numbers, max_size=8))
def test_hyperframe_reads_our_settings(settings: dict[int, int]) -> None:
    (parsed,) = frames_of(encode_settings(settings))
    assert isinstance(parsed, SettingsFrame)
    assert (parsed.settings, parsed.stream_id, set(parsed.flags)) == (settings, 0, set())


def test_hyperframe_reads_our_acknowledgement() -> None:
    (parsed,) = frames_of(encode_settings_ack())
    assert isinstance(parsed, SettingsFrame)
    assert (parsed.settings, parsed.stream_id, set(parsed.flags)) == ({}, 0, {"ACK"})


@given(stream_id=st.integers(0, 2**31 - 1), increment=st.integers(1, 2**31 - 1))
def test_hyperframe_reads_our_window_updates(stream_id: int, increment: int) -> None:
    assert encode_window_update(stream_id, increment) == WindowUpdateFrame(stream_id, increment).serialize()


@given(stream_id=streams, error_code=numbers)
def test_hyperframe_reads_our_resets(stream_id: int, error_code: int) -> None:
    assert encode_rst_stream(stream_id, error_code) == RstStreamFrame(stream_id, error_code).serialize()


@given(opaque=st.binary(min_size=8, max_size=8), ack=st.booleans())
def test_hyperframe_reads_our_pings(opaque: bytes, ack: bool) -> None:
    assert encode_ping(opaque, ack=ack) == PingFrame(0, opaque, flags=["ACK"] if ack else []).serialize()


def test_a_ping_has_eight_bytes() -> None:
    for n in (0, 7, 9):
        with pytest.raises(ValueError, match="eight"):
            encode_ping(bytes(n))


@given(last_stream_id=st.integers(0, 2**31 - 1), error_code=numbers, text=st.binary(max_size=100))
def test_hyperframe_reads_our_farewells(last_stream_id: int, error_code: int, text: bytes) -> None:
    expected = GoAwayFrame(0, last_stream_id, error_code, text).serialize()
    assert encode_goaway(last_stream_id, error_code, text) == expected


@given(
    block=st.binary(max_size=200),
    size=st.integers(1, 70),
    stream_id=streams,
    ends=st.booleans(),
)
def test_a_header_block_is_cut_into_frames(block: bytes, size: int, stream_id: int, ends: bool) -> None:
    frames = encode_block(block, stream_id, flags=END_STREAM if ends else 0, max_frame_size=size)
    first, *others = frames_of(frames)
    assert isinstance(first, HeadersFrame)
    assert all(isinstance(other, ContinuationFrame) for other in others)
    pieces = [parsed.data for parsed in (first, *others)]
    assert b"".join(pieces) == block
    assert all(len(piece) == size for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= size or block == b""
    assert {parsed.stream_id for parsed in (first, *others)} == {stream_id}
    assert ["END_HEADERS" in parsed.flags for parsed in (first, *others)] == [False] * len(others) + [True]
    assert ["END_STREAM" in parsed.flags for parsed in (first, *others)] == [ends] + [False] * len(others)


def test_a_promise_is_cut_into_frames() -> None:
    frames = encode_block(b"\0\0\0\2block", 1, promises=True, max_frame_size=7)
    first, second = frames_of(frames)
    assert isinstance(first, PushPromiseFrame)
    assert (first.promised_stream_id, first.data, second.data) == (2, b"blo", b"ck")


@pytest.mark.parametrize("size", [0, 2**24])
def test_a_frame_size_has_bounds(size: int) -> None:
    with pytest.raises(ValueError, match="max_frame_size"):
        encode_block(b"", 1, max_frame_size=size)


# ---- Names


def test_errors_have_the_names_of_the_rfc() -> None:
    assert [error_name(code) for code in range(14)] == [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ]
    assert (error_name(14), error_name(2**32 - 1)) == ("0xe", "0xffffffff")
