"""permessage-deflate (RFC 7692): messages, their limits, negotiation."""

import random
import zlib

import pytest
from backpressure import MIB
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
    deflate_finally,
    fragments,
    frame,
)
from decoding import (
    DEFLATE,
    HELLO,
    LONG,
    all_settings,
    bytewise,
    decode,
    every_split,
    failed_after,
    failure,
    peak_of,
)
from frameevents import binary, ping, pong, text
from hypothesis import given
from hypothesis import strategies as st

from fastasgi._parser import ParseError
from fastasgi.codecs.deflate import Deflater, DeflateSettings, negotiate_deflate
from fastasgi.codecs.frames import FrameDecoder, FrameEvent

# ---- permessage-deflate (RFC 7692)


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
