"""The chunked decoder: what it reads however it is cut, and what it refuses."""

import itertools
from collections.abc import Iterable

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastasgi._parser import ParseError
from fastasgi.codecs.chunked import ChunkedBody

# Coded body: what it decodes to.
GOOD_BODIES = {
    "empty": (b"0\r\n\r\n", b""),
    "one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "two chunks": (b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", b"hello, world"),
    "hexadecimal size": (b"1a\r\n%b\r\n0\r\n\r\n" % (b"x" * 26), b"x" * 26),
    "upper-case size": (b"1A\r\n%b\r\n0\r\n\r\n" % (b"x" * 26), b"x" * 26),
    "leading zeros": (b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n", b"hello"),
    "data like framing": (b"7\r\n0\r\n\r\n\r\n\r\n1\r\n\0\r\n0\r\n\r\n", b"0\r\n\r\n\r\n\0"),
    "extension": (b"5;a\r\nhello\r\n0;b\r\n\r\n", b"hello"),
    "extension with value": (b"5;a=b;c=d\r\nhello\r\n0\r\n\r\n", b"hello"),
    "quoted extension": (b'5;a="b; \t\\"\xff\\\\";c=""\r\nhello\r\n0\r\n\r\n', b"hello"),
    "extension with blanks": (b'5 ;\ta = b \t;c\t=  "d" ; e\r\nhello\r\n0\r\n\r\n', b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nA: b\r\nContent-Length:\r\nC:\t\xff \r\n\r\n", b"hello"),
}

REFUSED_BODIES = {
    "no size": b"\r\nhello",
    "blank for a size": b" \r\n",
    "blank before a size": b" 5\r\nhello",
    "sign": b"+5\r\nhello",
    "negative size": b"-5\r\nhello",
    "0x": b"0x5\r\nhello",
    "underscore": b"1_0\r\n",
    "not hexadecimal": b"g\r\n",
    "17 digits": b"00000000000000005\r\nhello",
    "size of 2**63": b"8000000000000000\r\n",
    "size of 2**64 + 5": b"10000000000000005\r\nhello",
    "LF behind the size": b"5\nhello",
    "CR behind the size": b"5\rhello",
    "CR CR LF behind the size": b"5\r\r\nhello",
    "blank behind the size": b"5 \r\nhello",
    "tab behind the size": b"5\t\r\nhello",
    "NUL behind the size": b"5\0\r\nhello",
    "other bytes behind the data": b"5\r\nhelloXX0\r\n\r\n",
    "longer data": b"5\r\nhello!\r\n0\r\n\r\n",
    "shorter data": b"5\r\nhell\r\n0\r\n\r\n",
    "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "CR behind the data": b"5\r\nhello\r0\r\n\r\n",
    "LF CR behind the data": b"5\r\nhello\n\r0\r\n\r\n",
    "empty extension": b"5;\r\nhello",
    "two semicolons": b"5;;a\r\nhello",
    "extension without semicolon": b"5 a\r\nhello",
    "extension without name": b"5;=a\r\nhello",
    "extension without value": b"5;a=\r\nhello",
    "blank behind an extension": b"5;a \r\nhello",
    "blank behind a value": b"5;a=b \r\nhello",
    "blank in an extension": b"5;a b\r\nhello",
    "two values": b"5;a=b=c\r\nhello",
    "separator in an extension": b"5;a/b\r\nhello",
    "LF in an extension": b"5;a\nhello",
    "CR in an extension": b"5;a\rb\r\nhello",
    "NUL in an extension": b"5;a\0\r\nhello",
    "LF in a quoted extension": b'5;a="\n"\r\nhello',
    "CRLF in a quoted extension": b'5;a="\r\n"\r\nhello',
    "escaped LF in a quoted extension": b'5;a="\\\n"\r\nhello',
    "DEL in a quoted extension": b'5;a="\x7f"\r\nhello',
    "token behind a quoted extension": b'5;a="b"c\r\nhello',
    "quote inside a value": b'5;a=b"c"\r\nhello',
    "LF for the empty line": b"0\r\n\n",
    "CR for the empty line": b"0\r\n\rX",
    "trailer without colon": b"0\r\nA\r\n\r\n",
    "trailer without name": b"0\r\n: b\r\n\r\n",
    "blank in a trailer's name": b"0\r\nA : b\r\n\r\n",
    "folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "LF in a trailer": b"0\r\nA: b\nC: d\r\n\r\n",
    "CR in a trailer": b"0\r\nA: b\rC: d\r\n\r\n",
    "NUL in a trailer": b"0\r\nA: \0\r\n\r\n",
}

good_bodies = pytest.mark.parametrize(("coded", "body"), GOOD_BODIES.values(), ids=GOOD_BODIES)


def decode(pieces: Iterable[bytes]) -> tuple[bytes, bool, bytes]:
    """The decoded body, whether it is complete, and what came behind it."""
    decoder = ChunkedBody()
    body = b"".join([decoder.feed(piece) for piece in pieces])
    return body, decoder.done, decoder.unused


def refused_after(coded: bytes) -> int | None:
    """How many bytes it takes to see that `coded` is malformed, fed one by one; None: it isn't."""
    decoder = ChunkedBody()
    for n in range(len(coded)):
        try:
            decoder.feed(coded[n : n + 1])
        except ParseError:
            return n + 1
    return None


def refused(coded: bytes) -> bool:
    try:
        ChunkedBody().feed(coded)
    except ParseError:
        return True
    return False


@good_bodies
def test_whole(coded: bytes, body: bytes) -> None:
    assert decode([coded]) == (body, True, b"")


@good_bodies
def test_byte_by_byte(coded: bytes, body: bytes) -> None:
    assert decode(coded[n : n + 1] for n in range(len(coded))) == (body, True, b"")


@good_bodies
def test_every_split(coded: bytes, body: bytes) -> None:
    for n in range(len(coded) + 1):
        assert decode([coded[:n], b"", coded[n:]]) == (body, True, b"")


@good_bodies
def test_every_prefix_is_incomplete(coded: bytes, body: bytes) -> None:
    for n in range(len(coded)):
        part, done, unused = decode([coded[:n]])
        assert body.startswith(part)
        assert not done
        assert not unused


@good_bodies
@pytest.mark.parametrize("behind", [b"G", b"\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"\0" * 100])
def test_bytes_behind_the_body_are_left_alone(coded: bytes, body: bytes, behind: bytes) -> None:
    assert decode([coded + behind]) == (body, True, behind)
    assert decode([coded[:-1], coded[-1:] + behind]) == (body, True, behind)
    assert decode([coded, behind]) == (body, True, behind)


@pytest.mark.parametrize("coded", REFUSED_BODIES.values(), ids=REFUSED_BODIES)
def test_refused(coded: bytes) -> None:
    assert refused(coded)
    assert refused_after(coded) is not None


def test_a_refusal_is_final() -> None:
    decoder = ChunkedBody()
    for piece in (b"x", b"5\r\nhello\r\n0\r\n\r\n"):
        with pytest.raises(ParseError, match="malformed") as caught:
            decoder.feed(piece)
        assert caught.value.status == 400
    assert not decoder.done


@pytest.mark.parametrize(
    ("coded", "needed"),
    [
        (b"x", 1),
        (b"5\n", 2),
        (b"5\rx", 3),
        (b"5 \r", 3),
        (b"8000000000000000", 16),
        (b"00000000000000000", 17),
        (b"1\r\nax", 5),
        (b"1\r\na\rx", 6),
        (b"5;a\n", 4),
        (b"0\r\n ", 4),
        (b"0\r\n\rx", 5),
    ],
)
def test_an_error_is_reported_with_the_byte_that_shows_it(coded: bytes, needed: int) -> None:
    assert refused_after(coded) == needed


# ---- Vulnerabilities that other servers had


def test_cve_2025_43859_line_end_behind_a_chunk_is_checked() -> None:
    """h11 took any two bytes for the CRLF behind a chunk's data."""
    assert refused(b"5\r\nhelloXX2\r\n45\r\n0\r\n\r\n")
    assert refused(b"5\r\nhello\rX2\r\n45\r\n0\r\n\r\n")
    assert refused(b"5\r\nhelloX\n2\r\n45\r\n0\r\n\r\n")


def test_cve_2021_22960_chunk_extensions_are_parsed() -> None:
    """llhttp skipped all bytes of a chunk extension, line ends among them."""
    assert refused(b"5;a\nhello\r\n0\r\n\r\n")
    assert refused(b'5;a="\n"\r\nhello\r\n0\r\n\r\n')
    assert refused(b"5;\0\r\nhello\r\n0\r\n\r\n")


# ---- Limits


def test_extensions_of_one_line_are_bounded() -> None:
    def coded(n: int) -> bytes:
        return b"1;" + b"e" * n + b"\r\nx\r\n0\r\n\r\n"

    assert decode([coded(4095)])[:2] == (b"x", True)
    assert refused(coded(4096))
    assert refused_after(b"1;" + b"e" * 5000) == 2 + 4097


def test_extensions_of_a_body_are_bounded() -> None:
    chunk = b"1;" + b"e" * 1023 + b"\r\nx\r\n"
    assert decode([chunk * 16, b"0\r\n\r\n"])[:2] == (b"x" * 16, True)
    assert refused(chunk * 16 + b"1;") is False
    assert refused(chunk * 16 + b"1;e")


def test_chunks_without_extensions_are_not_bounded() -> None:
    assert decode([b"1\r\nx\r\n" * 10_000, b"0\r\n\r\n"])[:2] == (b"x" * 10_000, True)


def test_trailers_are_bounded() -> None:
    def coded(n: int) -> bytes:
        return b"0\r\nA:" + b"b" * n + b"\r\n\r\n"

    assert decode([coded(8192 - 6)])[:2] == (b"", True)
    assert refused(coded(8192 - 5))
    assert decode([b"0\r\n" + b"A:\r\n" * 64 + b"\r\n"])[:2] == (b"", True)
    assert refused(b"0\r\n" + b"A:\r\n" * 65 + b"\r\n")


def test_the_greatest_chunk() -> None:
    assert decode([b"7fffffffffffffff\r\n", b"x" * 1000]) == (b"x" * 1000, False, b"")


# ---- httptools as the oracle


class Body:
    """Collects a body from httptools' callbacks."""

    def __init__(self) -> None:
        self.data = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.complete = True


def decode_by_llhttp(coded: bytes) -> tuple[bytes, bool] | None:
    """The decoded body and whether it is complete; None: refused."""
    body = Body()
    parser = httptools.HttpRequestParser(body)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(coded)
    except httptools.HttpParserError:
        return None
    return body.data, body.complete


@st.composite
def coded_bodies(draw: st.DrawFn) -> bytes:
    """A well-formed coded body with extensions and trailers."""
    extension = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b\\"c"', b";a;b=c"])
    trailers = st.lists(st.sampled_from([b"A: b\r\n", b"X-Long: " + b"v" * 50 + b"\r\n"]), max_size=3)
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    size = st.sampled_from([b"%x", b"%X", b"%08x"])
    coded = b"".join([b"%b%b\r\n%b\r\n" % (draw(size) % len(x), draw(extension), x) for x in chunks])
    return coded + b"0" + draw(extension) + b"\r\n" + b"".join(draw(trailers)) + b"\r\n"


@given(coded_bodies(), st.lists(st.integers(0, 250), max_size=6))
def test_well_formed_bodies_are_decoded_as_by_llhttp(coded: bytes, cuts: list[int]) -> None:
    cuts = [0, *sorted(min(cut, len(coded)) for cut in cuts), len(coded)]
    pieces = [coded[start:end] for start, end in itertools.pairwise(cuts)]
    body, done, unused = decode(pieces)
    assert (body, done) == decode_by_llhttp(coded)
    assert done
    assert not unused


@given(coded_bodies(), st.integers(0, 250), st.binary(max_size=3), st.integers(0, 3))
def test_spoilt_bodies_have_one_outcome(coded: bytes, start: int, piece: bytes, length: int) -> None:
    coded = coded[:start] + piece + coded[start + length :]
    assert refused(coded) == (refused_after(coded) is not None)
    if not refused(coded):
        body, done, unused = decode([coded])
        assert decode(coded[n : n + 1] for n in range(len(coded))) == (body, done, unused)
        assert decode_by_llhttp(coded[: len(coded) - len(unused)]) in {(body, done), None}
