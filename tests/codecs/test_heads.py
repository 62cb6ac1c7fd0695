"""Response heads: what is written of a status, of fields, and of what the server adds."""

import http

import pytest

from fastasgi.codecs.heads import DefaultFields, choose_framing, encode_head, encode_refusal, reason_phrase

DATE = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"  # RFC 9110 section 5.6.7
SECOND = 784111777


def default_fields(dated: bool = True) -> DefaultFields:
    fields = DefaultFields([(b"Server", b"fastasgi"), (b"x-own", b"1")], dated=dated)
    fields.renew(SECOND)
    return fields


def test_an_interim_head_is_its_status_and_its_fields() -> None:
    head = encode_head(103, [(b"link", b"</a.css>"), (b"link", b"</b.css>")])
    assert head == b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nlink: </b.css>\r\n\r\n"
    assert encode_head(100, []) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_the_servers_own_fields_come_first() -> None:
    head = encode_head(200, [(b"A", b"b"), (b"empty", b"")], default_fields())
    own = b"Server: fastasgi\r\n" + DATE + b"x-own: 1\r\n"
    assert head == b"HTTP/1.1 200 OK\r\n" + own + b"A: b\r\nempty: \r\n\r\n"


@pytest.mark.parametrize(
    ("has_server", "has_date", "own"),
    [
        (True, False, DATE + b"x-own: 1\r\n"),
        (False, True, b"Server: fastasgi\r\nx-own: 1\r\n"),
        (True, True, b"x-own: 1\r\n"),
    ],
)
def test_what_the_application_sends_itself_is_left_out(has_server: bool, has_date: bool, own: bytes) -> None:
    head = encode_head(200, [], default_fields(), has_server=has_server, has_date=has_date)
    assert head == b"HTTP/1.1 200 OK\r\n" + own + b"\r\n"


def test_there_may_be_no_own_fields() -> None:
    assert encode_head(200, [], DefaultFields([], dated=False)) == b"HTTP/1.1 200 OK\r\n\r\n"


def test_the_date_is_that_of_the_second() -> None:
    fields = DefaultFields([], dated=True)
    assert encode_head(200, [], fields) == b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
    assert not fields.renew(0)
    assert fields.renew(SECOND)
    assert not fields.renew(SECOND)
    assert encode_head(200, [], fields) == b"HTTP/1.1 200 OK\r\n" + DATE + b"\r\n"


@pytest.mark.parametrize(
    ("framing", "line"),
    [
        ("head", b""),
        ("length", b"content-length: 9223372036854775807\r\n"),
        ("chunks", b"transfer-encoding: chunked\r\n"),
        ("close", b""),
    ],
)
@pytest.mark.parametrize(
    ("option", "end"),
    [(None, b""), ("close", b"connection: close\r\n"), ("keep-alive", b"connection: keep-alive\r\n")],
)
def test_framing_and_connection_come_last(framing: str, line: bytes, option: str | None, end: bytes) -> None:
    head = encode_head(299, [(b"a", b"b")], framing=framing, length=2**63 - 1, option=option)
    assert head == b"HTTP/1.1 299 \r\na: b\r\n" + line + end + b"\r\n"


@pytest.mark.parametrize("length", [0, 9, 10, 12345, 10**18])
def test_a_length_is_in_decimal(length: int) -> None:
    assert encode_head(200, [], framing="length", length=length).endswith(
        b"\r\ncontent-length: %d\r\n\r\n" % length
    )


@pytest.mark.parametrize("status", [0, 99, 1000, -1])
def test_a_status_has_three_digits(status: int) -> None:
    with pytest.raises(ValueError, match="is no status"):
        encode_head(status, [])


# RFC 9112 section 6.3
@pytest.mark.parametrize(
    ("bodiless", "has_length", "is_whole", "minor_version", "framing"),
    [
        (True, False, False, 1, "head"),
        (True, False, True, 0, "head"),
        (False, True, False, 1, "head"),
        (False, True, True, 0, "head"),
        (False, False, True, 1, "length"),
        (False, False, True, 0, "length"),
        (False, False, False, 1, "chunks"),
        (False, False, False, 0, "close"),
    ],
)
def test_what_ends_the_body(
    bodiless: bool, has_length: bool, is_whole: bool, minor_version: int, framing: str
) -> None:
    assert framing == choose_framing(
        bodiless=bodiless, has_length=has_length, is_whole=is_whole, minor_version=minor_version
    )


@pytest.mark.parametrize("is_head", [False, True], ids=["GET", "HEAD"])
def test_a_refusal_is_a_whole_response(is_head: bool) -> None:
    response = encode_refusal(
        503, [(b"retry-after", b"1")], b"Not now", default_fields(dated=False), is_head=is_head
    )
    assert response == (
        b"HTTP/1.1 503 Service Unavailable\r\nServer: fastasgi\r\nx-own: 1\r\nretry-after: 1\r\n"
        b"content-type: text/plain; charset=utf-8\r\ncontent-length: 7\r\nconnection: close\r\n\r\n"
        + (b"" if is_head else b"Not now")
    )


# RFC 9110 section 15.5: http.HTTPStatus of CPython 3.11 and 3.12 has the names of RFC 7231
NAMES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


def test_statuses_have_their_registered_names() -> None:
    for status in http.HTTPStatus:
        assert reason_phrase(status) == NAMES.get(status, status.phrase)


@pytest.mark.parametrize("status", [0, 99, 299, 499, 600, 999, -1])
def test_other_statuses_have_no_name(status: int) -> None:
    assert reason_phrase(status) == ""
