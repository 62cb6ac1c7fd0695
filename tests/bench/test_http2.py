"""HTTP/2 for a load generator: its requests, and the count of responses at every cut."""

import itertools
from collections.abc import Callable

import hpack
import pytest
from benchparts import SIMPLE
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from http2answers import answer_hello
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import http2
from bench.errors import UnsupportedError
from bench.http2 import CONNECTION, StreamCounter, build_frame
from bench.responses import BodyLength, ResponseError

ONE, THREE = b"\0\0\0\1", b"\0\0\0\3"
BEGIN = build_frame(http2.SETTINGS, 0, CONNECTION, b"")
OK = b"\x88"
ENDS = http2.END_STREAM


def head(stream: bytes, block: bytes = OK, flags: int = 0) -> bytes:
    return build_frame(http2.HEADERS, http2.END_HEADERS | flags, stream, block)


def data(stream: bytes, body: bytes = b"Hello, World!", flags: int = ENDS) -> bytes:
    return build_frame(http2.DATA, flags, stream, body)


def simple(stream: bytes) -> bytes:
    return head(stream) + data(stream)


def begun(body_length: BodyLength | None = None) -> StreamCounter:
    counter = StreamCounter(body_length)
    assert counter.feed(BEGIN) == []
    return counter


RESPONSES = [
    pytest.param(simple, id="head and body"),
    pytest.param(lambda stream: head(stream, flags=ENDS), id="head alone"),
    pytest.param(
        lambda stream: head(stream) + data(stream, flags=0) + data(stream, b""), id="empty at the end"
    ),
    pytest.param(
        lambda stream: head(stream) + data(stream, flags=0) + head(stream, b"\x00\x01t\x01v", ENDS),
        id="trailers",
    ),
    pytest.param(lambda stream: head(stream, b"\x08\x03103") + simple(stream), id="early hints"),
    pytest.param(
        lambda stream: (
            build_frame(http2.HEADERS, ENDS, stream, OK[:0])
            + build_frame(http2.CONTINUATION, 0, stream, OK)
            + build_frame(http2.CONTINUATION, http2.END_HEADERS, stream, b"")
        ),
        id="continuation",
    ),
    pytest.param(
        lambda stream: (
            head(stream, b"\x02" + bytes(5) + OK + b"\0\0", http2.PADDED | http2.PRIORITY)
            + data(stream, b"\x03abc\0\0\0", ENDS | http2.PADDED)
        ),
        id="padding and priority",
    ),
    pytest.param(
        lambda stream: head(stream, flags=ENDS) + build_frame(0xFA, 255, stream, b"?"), id="unknown frame"
    ),
]


@pytest.mark.parametrize("response", RESPONSES)
def test_a_response_counts_when_its_last_frame_has_come(response: Callable[[bytes], bytes]) -> None:
    whole = response(ONE)
    for split in range(len(whole) + 1):
        counter = begun()
        assert counter.feed(whole[:split]) + counter.feed(whole[split:]) == [ONE]
    counter = StreamCounter()
    assert [*itertools.chain(*(counter.feed(bytes([byte])) for byte in BEGIN + whole))] == [ONE]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([response.values[0] for response in RESPONSES]), max_size=12), st.data())
def test_any_cut_of_any_responses_gives_their_streams(
    responses: list[Callable[[bytes], bytes]], drawn: st.DataObject
) -> None:
    streams = [(2 * number + 1).to_bytes(4, "big") for number in range(len(responses))]
    joined = BEGIN + b"".join(response(stream) for response, stream in zip(responses, streams, strict=True))
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(joined)), max_size=10)))
    counter = StreamCounter()
    pieces = [joined[a:b] for a, b in zip([0, *cuts], [*cuts, len(joined)], strict=True)]
    assert [*itertools.chain(*map(counter.feed, pieces))] == streams


def test_frames_of_several_responses_may_alternate() -> None:
    counter = begun(BodyLength())
    assert counter.feed(simple(ONE) * 3) == [ONE] * 3
    assert counter.feed(head(ONE) + head(THREE) + data(ONE, b"Hello, ", 0)) == []
    assert counter.feed(data(THREE)) == [THREE]
    assert counter.feed(data(ONE, b"World!") + simple(THREE)) == [ONE, THREE]


def test_what_repeats_is_known_by_its_bytes_and_what_differs_is_read() -> None:
    counter = begun(BodyLength())
    assert counter.feed(simple(ONE) + simple(THREE)) == [ONE, THREE]
    read = counter._read
    counter._read = lambda *frame: pytest.fail("a frame was read")  # type: ignore[method-assign]
    assert counter.feed(simple(THREE) * 32) == [THREE] * 32
    counter._read = read  # type: ignore[method-assign]
    # Of the same length.
    with pytest.raises(ResponseError, match="status 500"):
        counter.feed(simple(ONE) + simple(THREE).replace(OK, b"\x8e"))


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize("resized", [0, 100, 65536])
def test_hpack_finds_the_same_statuses(huffman: bool, resized: int) -> None:
    for status in range(100, 600):
        encoder = hpack.Encoder()
        if resized:
            encoder.header_table_size = resized
        fields = [(b":status", b"%d" % status), (b"server", b"x")]
        assert http2.read_status(encoder.encode(fields, huffman=huffman)) == status


@pytest.mark.parametrize(
    "block", [b"", b"\x3f", b"\xbe", b"\x83", b"\x48\x03", b"\x48\x0320", b"\x48\x82\xff\xff"]
)
def test_a_block_without_a_status_at_its_begin_is_a_failure(block: bytes) -> None:
    with pytest.raises(ResponseError, match="without a status"):
        http2.read_status(block)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (head(ONE, b"\x8d"), "answered with status 404"),
        (head(ONE, b"\x08\x03503", ENDS), "answered with status 503"),
        (head(ONE, b"\x08\x03103", ENDS), "without a status of its own"),
        (head(ONE) + data(ONE, b"Hello, World"), "a body of 12 bytes, where others had 13"),
        (head(ONE, flags=ENDS), "a body of 0 bytes"),
        (data(ONE), "data without a head"),
        (data(CONNECTION), "data without a head"),
        (build_frame(http2.CONTINUATION, http2.END_HEADERS, ONE, OK), "without its begin"),
        (head(ONE) + data(ONE, b"\x03abc", ENDS | http2.PADDED).replace(b"\x03a", b"\x04a"), "more padding"),
        (build_frame(http2.RST_STREAM, 0, ONE, b"\0\0\0\7"), "stream reset with REFUSED_STREAM"),
        (build_frame(http2.RST_STREAM, 0, ONE, b"\0\0\0\x63"), "stream reset with error code 99"),
        (
            build_frame(http2.GOAWAY, 0, CONNECTION, bytes(4) + b"\0\0\0\x0bflood"),
            "connection ended with ENHANCE_YOUR_CALM b'flood'",
        ),
        (build_frame(http2.PUSH_PROMISE, 4, ONE, b"\0\0\0\2" + OK), "a push"),
        (b"\x00\x40\x01\0\1" + ONE, "a frame of 16385 bytes"),
    ],
)
def test_what_is_no_good_response_is_a_failure(frames: bytes, message: str) -> None:
    for before in (b"", simple(THREE) * 2):
        length = BodyLength()
        length.check(13)
        with pytest.raises(ResponseError, match=message):
            begun(length).feed(before + frames)


def test_an_answer_of_http1_is_no_support_for_http2() -> None:
    with pytest.raises(UnsupportedError, match=r"the preface of HTTP/2 with b'HTTP/1\.1 200 OK"):
        StreamCounter().feed(SIMPLE)


def test_a_second_opinion_on_the_first_head_has_to_agree() -> None:
    assert StreamCounter(decode=hpack.Decoder().decode).feed(BEGIN + simple(ONE) + simple(THREE)) == [
        ONE,
        THREE,
    ]
    with pytest.raises(ResponseError, match="status 200, and by hpack 204"):
        StreamCounter(decode=lambda block: [(":status", "204")]).feed(BEGIN + simple(ONE))


def test_settings_and_pings_are_acknowledged_once() -> None:
    counter = StreamCounter()
    ping = build_frame(http2.PING, 0, CONNECTION, b"01234567")
    acknowledged = build_frame(http2.SETTINGS, http2.ACK, CONNECTION, b"")
    counter.feed(BEGIN + ping)
    assert counter.take_replies() == acknowledged + build_frame(
        http2.PING, http2.ACK, CONNECTION, b"01234567"
    )
    counter.feed(acknowledged + build_frame(http2.PING, http2.ACK, CONNECTION, bytes(8)))
    assert counter.take_replies() == b""


def test_credit_is_returned_for_all_data_that_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "WINDOW", 100)
    counter, credit, padded = begun(), 0, data(ONE, b"\x01abc\0", ENDS | http2.PADDED)
    counter.take_replies()
    # The first one is read and the others are known again.
    for _ in range(40):
        counter.feed(simple(ONE) * 2 + head(ONE) + padded)
        frame = counter.take_replies()
        if frame:
            assert frame[:9] == b"\0\0\4\x08\0" + CONNECTION
            credit += int.from_bytes(frame[9:], "big")
    assert 0 <= 40 * (13 + 13 + 5) - credit <= 50


@pytest.mark.parametrize(("path", "tls"), [("/", False), ("/items/5?q=abc", True)])
def test_h2_reads_the_requests_and_the_counter_the_answers(path: str, tls: bool) -> None:
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    requests, counter = http2.Requests(path, tls=tls), StreamCounter(BodyLength(), hpack.Decoder().decode)
    server.receive_data(http2.build_preface())
    assert server.outbound_flow_control_window == http2.WINDOW
    for count in (1, 32):
        streams, frames = requests.open(count)
        events = [event for event in server.receive_data(frames) if isinstance(event, RequestReceived)]
        assert [event.stream_id.to_bytes(4, "big") for event in events] == streams
        for event in events:
            assert dict(event.headers) == {
                b":method": b"GET",
                b":scheme": b"https" if tls else b"http",
                b":authority": b"127.0.0.1",
                b":path": path.encode(),
            }
            assert server.local_flow_control_window(event.stream_id) > http2.WINDOW - 1000
            answer_hello(server, event.stream_id)
        assert counter.feed(server.data_to_send()) == streams
    # h2 takes no acknowledgement that it isn't waiting for.
    server.receive_data(counter.take_replies())
