"""Request heads (RFC 9112): what is refused, and what other servers did not refuse."""

import pytest
from heads import BROWSER_HEAD, REFUSED, both_parsers, get, outcome, parse

from fastasgi._parser import ParseError, parse_request_head

# ---- What is refused


BAD_IPV6 = [
    b"[]", b"[", b"[:]", b"[::1", b"::1", b"[:::]", b"[:::1]", b"[1:]", b"[:1]", b"[1::2::3]", b"[12345::]",
    b"[g::]", b"[::1]x", b"[::1]:x", b"[1:2:3:4:5:6:7]", b"[1:2:3:4:5:6:7:8:9]", b"[1:2:3:4:5:6:7:8::]",
    b"[::1:2:3:4:5:6:7:8]", b"[::1.2.3]", b"[1:2:3:4:5:6:7:1.2.3.4]", b"[::1.2.3.256]", b"[::1.2.3.04]",
    b"[::1.2.3.4.5]", b"[::1..2.3]", b"[1.2.3.4]", b"[fe80::1%25eth0]", b"[::1]]",
    b"[v1.]", b"[v.a]", b"[v1a]", b"[v]", b"[v1]", b"[1.a]", b"[vg.a]", b"[v1.a", b"[v1.a]]", b"[v1.a]x",
    b"[v1.a]:x", b"[v1.a/]", b"[v1.a%20]", b"[v1.a@]", b"[v1.[]", b"v1.a]", b"[ v1.a]", b"[v1.\xe9]",
]  # fmt: skip


@pytest.mark.parametrize(("head", "status"), REFUSED.values(), ids=REFUSED)
def test_refused(head: bytes, status: int) -> None:
    assert outcome(head) == status


@pytest.mark.parametrize(("head", "status"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_final(head: bytes, status: int) -> None:
    seen = [outcome(head[:n]) for n in range(len(head) + 1)]
    first = seen.index(status)
    assert seen == [None] * first + [status] * (len(head) + 1 - first)
    assert outcome(head + BROWSER_HEAD) == status


@pytest.mark.parametrize(("head", "status"), REFUSED.values(), ids=REFUSED)
def test_refused_with_llhttp_as_well(head: bytes, status: int) -> None:
    # llhttp's own errors have no status of their own.
    assert outcome(head + b"\r\n\r\n", llhttp=True) in {status, 400}


@pytest.mark.parametrize("host", BAD_IPV6)
def test_malformed_ipv6_host(host: bytes) -> None:
    assert outcome(get(b"A: b", host=b"Host: %b\r\n" % host)) == 400


@pytest.mark.parametrize(
    ("head", "needed"),
    [
        (b"G\0", 2),
        (b"CONNECT ", 8),
        (b"GET a", 5),
        (b"GET *", 5),
        (b"GET /\x7f", 6),
        (b"GET /?#", 7),
        (b"GET htp", 7),
        (b"GET http://a@", 13),
        (b"GET / HTTP/2.0", 14),
        (b"GET / HTTP/1.1\n", 15),
        (b"GET / HTTP/1.1\r\n ", 17),
        (b"GET / HTTP/1.1\r\nA\0", 18),
        (b"GET / HTTP/1.1\r\nHost: \0", 23),
        (b"GET / HTTP/1.1\r\nHost: a\rb", 25),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rx", 27),
        (b"GET / HTTP/1.1\r\nHost: a@\r\n", 26),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n", 35),
    ],
)
def test_an_error_is_reported_with_the_byte_that_shows_it(head: bytes, needed: int) -> None:
    assert outcome(head[: needed - 1]) is None
    assert isinstance(outcome(head[:needed]), int)


def test_parse_error_tells_status_and_reason() -> None:
    with pytest.raises(ParseError, match="Host is missing") as caught:
        parse_request_head(b"GET / HTTP/1.1\r\n\r\n")
    assert caught.value.status == 400
    assert isinstance(caught.value, ValueError)


# ---- Vulnerabilities that other servers had


def test_cve_2024_1135_transfer_encodings_are_not_merged() -> None:
    """gunicorn looked for chunked somewhere in several Transfer-Encoding fields."""
    for codings in (b"chunked, identity", b"chunked\r\nTransfer-Encoding: identity"):
        assert outcome(get(b"Transfer-Encoding: " + codings)) == 400
    assert outcome(get(b"Transfer-Encoding: identity, chunked")) == 501


def test_cve_2024_6827_an_unsupported_transfer_encoding_does_not_fall_back_to_content_length() -> None:
    """gunicorn did so."""
    assert outcome(get(b"Transfer-Encoding: xchunked\r\nContent-Length: 5")) == 400
    assert outcome(get(b"Content-Length: 5\r\nTransfer-Encoding: xchunked")) == 400
    assert outcome(get(b"Content-Length: 5\r\nTransfer-Encoding: gzip")) == 400


def test_cve_2026_44546_no_other_byte_ends_a_line() -> None:
    """daphne split header values at what Python's str.splitlines takes for a line end."""
    for byte in (b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e"):
        assert outcome(get(b"A: b%bC: d" % byte)) == 400
    assert parse(get(b"A: b\x85C: d")[:-4]).headers == [(b"host", b"a"), (b"a", b"b\x85C: d")]


@both_parsers
def test_cve_2026_69243_a_request_for_an_upgrade_keeps_its_body(llhttp: bool) -> None:
    """aiohttp took the body for the upgraded protocol's data."""
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    parsed = parse(get(upgrade + b"Content-Length: 5")[:-4], llhttp=llhttp)
    assert (parsed.upgrade, parsed.content_length) == (True, 5)
    parsed = parse(get(upgrade + b"Transfer-Encoding: chunked")[:-4], llhttp=llhttp)
    assert (parsed.upgrade, parsed.chunked) == (True, True)


@both_parsers
def test_cve_2021_22959_blank_before_a_colon(llhttp: bool) -> None:
    """llhttp took "Content-Length :" for Content-Length."""
    assert outcome(get(b"Content-Length : 5"), llhttp=llhttp) == 400


@both_parsers
def test_cve_2022_32213_malformed_transfer_encoding(llhttp: bool) -> None:
    """llhttp took values that contain chunked for chunked."""
    for value in (b"chunkedchunked", b"xchunked", b"chunked,", b",chunked", b"chunked, cow", b"\x0bchunked"):
        assert outcome(get(b"Transfer-Encoding: " + value), llhttp=llhttp) == 400


@both_parsers
def test_cve_2022_32214_field_ended_by_lf(llhttp: bool) -> None:
    """llhttp took LF alone for a line end."""
    assert outcome(get(b"A: b\nTransfer-Encoding: chunked"), llhttp=llhttp) == 400


@both_parsers
def test_cve_2022_32215_transfer_encoding_of_several_lines(llhttp: bool) -> None:
    """llhttp accepted a folded Transfer-Encoding."""
    assert outcome(get(b"Transfer-Encoding: chunked,\r\n identity"), llhttp=llhttp) == 400
    assert outcome(get(b"Transfer-Encoding:\r\n chunked"), llhttp=llhttp) == 400


@both_parsers
def test_cve_2022_35256_field_not_ended_by_crlf(llhttp: bool) -> None:
    """llhttp went on behind a field without a proper end."""
    assert outcome(get(b"A:\nTransfer-Encoding: chunked"), llhttp=llhttp) == 400
    assert outcome(get(b"A: b\r\n\nTransfer-Encoding: chunked"), llhttp=llhttp) == 400


@both_parsers
def test_cve_2023_30589_field_ended_by_cr(llhttp: bool) -> None:
    """llhttp took CR alone for a line end."""
    assert outcome(get(b"A: b\rTransfer-Encoding: chunked"), llhttp=llhttp) == 400


@both_parsers
def test_cve_2025_23167_head_ended_by_cr_and_any_byte(llhttp: bool) -> None:
    """llhttp took CR LF CR X for the end of a head."""
    assert outcome(b"GET / HTTP/1.1\r\nHost: a\r\n\rXGET /admin HTTP/1.1\r\n\r\n", llhttp=llhttp) == 400
