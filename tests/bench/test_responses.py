"""Counting HTTP/1.1 responses: at every cut, and what is none."""

import h11
import pytest
from benchparts import EMPTY, SIMPLE
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.responses import BodyLength, ResponseCounter, ResponseError

RESPONSES = [
    pytest.param(SIMPLE, id="length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length:0\r\n\r\n", id="empty"),
    pytest.param(b"HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n", id="204"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", id="chunked"
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"a;x=y\r\n0123\r\n\r\n78\r\n01\r\n#\r\n0\r\nt: v\r\n\r\n",
        id="chunked with extension, line ends within, trailer",
    ),
    pytest.param(b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\n\r\n\r\n", id="a body of line ends"),
]


@pytest.mark.parametrize("response", RESPONSES)
def test_a_response_counts_when_its_last_byte_has_come(response: bytes) -> None:
    for split in range(len(response)):
        counter = ResponseCounter()
        assert counter.feed(response[:split]) == 0
        assert counter.feed(response[split:]) == 1
    counter = ResponseCounter()
    assert [counter.feed(response[i : i + 1]) for i in range(len(response))] == [0] * (len(response) - 1) + [
        1
    ]
    assert counter.close() == 0


@pytest.mark.parametrize("response", RESPONSES)
def test_what_follows_a_response_belongs_to_the_next(response: bytes) -> None:
    for size in range(len(SIMPLE)):
        counter = ResponseCounter()
        assert counter.feed(response + SIMPLE[:size]) == 1
        assert counter.feed(SIMPLE[size:]) == 1


def test_pipelined_responses_are_counted_at_every_split() -> None:
    several = b"".join(response.values[0] for response in RESPONSES) + SIMPLE * 5
    for split in range(len(several) + 1):
        counter = ResponseCounter()
        assert counter.feed(several[:split]) + counter.feed(several[split:]) == len(RESPONSES) + 5


def test_known_responses_in_whole_reads_are_counted_by_comparison() -> None:
    counter = ResponseCounter()
    assert counter.feed(SIMPLE) == 1
    assert [counter.feed(SIMPLE * n) for n in (16, 1, 3, 16)] == [16, 1, 3, 16]
    # The same length, another second: it must be read, not guessed.
    assert counter.feed(SIMPLE.replace(b"Hello", b"HELLO") * 2) == 2
    with pytest.raises(ResponseError, match="500"):
        counter.feed(SIMPLE + SIMPLE.replace(b"200 OK", b"500 NO"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([response.values[0] for response in RESPONSES]), min_size=1, max_size=12),
    st.data(),
)
def test_any_cut_of_any_responses_gives_their_number(responses: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(responses)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(joined)), max_size=10)))
    counter = ResponseCounter()
    pieces = [joined[a:b] for a, b in zip([0, *cuts], [*cuts, len(joined)], strict=True)]
    assert sum(map(counter.feed, pieces)) == len(responses)


@pytest.mark.parametrize("response", RESPONSES)
def test_h11_finds_the_same_end(response: bytes) -> None:
    # h11 takes an empty piece for the end of the connection.
    for size in range(1, len(response) + 1):
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(response[:size])
        ended = False
        while (event := connection.next_event()) is not h11.NEED_DATA and not ended:
            ended = isinstance(event, h11.EndOfMessage)
        assert ended == bool(ResponseCounter().feed(response[:size]))


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (EMPTY, "a body of 0 bytes, where others had 13"),
        (SIMPLE.replace(b"13", b"14") + b"!", "a body of 14 bytes"),
        (CHUNKED % b"", "a body of 0 bytes"),
        (CHUNKED % b"6\r\nHello,\r\n6\r\nWorld!\r\n", "a body of 12 bytes"),
    ],
)
def test_a_body_of_another_length_than_the_first_is_a_failure(response: bytes, message: str) -> None:
    length = BodyLength()
    assert ResponseCounter(length).feed(SIMPLE * 3) == 3
    # On this connection or on another, and alone or among others.
    for data in (response, SIMPLE * 2 + response):
        with pytest.raises(ResponseError, match=message):
            ResponseCounter(length).feed(data)
    assert ResponseCounter(length).feed(CHUNKED % b"6\r\nHello,\r\n7\r\n World!\r\n") == 1
    # Where bodies may differ, they do.
    assert ResponseCounter().feed(SIMPLE + response) == 2


def test_a_body_until_the_close_has_the_others_length_too() -> None:
    length = BodyLength()
    assert ResponseCounter(length).feed(SIMPLE) == 1
    for rest, complete in ((b"", False), (b"o, World!", True), (b"o, World!!", False)):
        counter = ResponseCounter(length)
        assert counter.feed(b"HTTP/1.0 200 OK\r\n\r\nHell") + counter.feed(rest) == 0
        if complete:
            assert counter.close() == 1
        else:
            with pytest.raises(ResponseError, match="where others had 13"):
                counter.close()


def test_a_response_without_length_ends_with_the_connection() -> None:
    counter = ResponseCounter()
    assert counter.feed(b"HTTP/1.0 200 OK\r\n\r\nsome") == 0
    assert counter.feed(b" more") == 0
    assert counter.close() == 1


@pytest.mark.parametrize("size", range(1, len(SIMPLE)))
def test_a_connection_that_closes_within_a_response_is_a_failure(size: int) -> None:
    counter = ResponseCounter()
    counter.feed(SIMPLE[:size])
    with pytest.raises(ResponseError, match="closed within"):
        counter.close()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"SSH-2.0-x\r\n\r\n", "no HTTP response"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "transfer coding"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nz\r\n", "chunk size"),
    ],
)
def test_what_is_no_good_response_is_a_failure(response: bytes, message: str) -> None:
    with pytest.raises(ResponseError, match=message):
        ResponseCounter().feed(response)
