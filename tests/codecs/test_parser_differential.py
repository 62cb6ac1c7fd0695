"""The own grammar against httptools: where both accept they agree; each difference has name and reason."""

import contextlib
import types
import urllib.parse
from dataclasses import dataclass, field

import httptools
import pytest
from heads import GOOD_HEADS, spoilt_heads
from hypothesis import assume, given

from fastasgi._parser import ParsedHead, ParseError, parse_request_head
from fastasgi.codecs.chunked import ChunkedBody


@dataclass
class Message:
    """A request as httptools sees it; its callbacks fill it."""

    method: str = ""
    target: bytes = b""
    version: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    keep_alive: bool = False
    upgrade: bool = False
    heads: int = 0
    body: bytes = b""
    complete: int = 0

    def feed(self, data: bytes) -> "Message":
        parser = httptools.HttpRequestParser(self)
        self._parser = parser
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(data)
        return self

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.heads += 1
        self.method = self._parser.get_method().decode()
        self.version = self._parser.get_http_version()
        self.keep_alive = self._parser.should_keep_alive()
        self.upgrade = self._parser.should_upgrade()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def by_httptools(data: bytes) -> Message | None:
    """The request that httptools sees in `data`; None: it refuses it, or needs more."""
    try:
        message = Message().feed(data)
    except httptools.HttpParserError:
        return None
    return message if message.heads else None


def assert_same(parsed: ParsedHead, message: Message) -> None:
    """The same request, as far as both tell it in the same words."""
    assert message.heads == 1
    assert parsed.method == message.method
    assert f"1.{parsed.minor_version}" == message.version
    headers = [(name.lower(), value.strip(b" \t")) for name, value in message.headers]
    if message.target.lower().startswith(b"http"):
        url = urllib.parse.urlsplit(message.target)
        assert (parsed.raw_path, parsed.query) == (url.path or b"/", url.query)
        assert [x for x in parsed.headers if x[0] != b"host"] == [x for x in headers if x[0] != b"host"]
    else:
        path, _, query = message.target.partition(b"?")
        assert (parsed.raw_path, parsed.query) == (path, query)
        assert parsed.headers == headers
    assert parsed.upgrade == message.upgrade


def body_of(parsed: ParsedHead) -> tuple[bytes, bytes]:
    """A body as `parsed` announces it: as it is sent, and as it is meant."""
    if parsed.chunked:
        return b"3;x\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n", b"abcde"
    return (b"x" * parsed.content_length,) * 2 if parsed.content_length > 0 else (b"", b"")


@given(spoilt_heads())
def test_where_both_accept_they_agree(head: bytes) -> None:
    try:
        parsed = parse_request_head(head)
    except ParseError:
        parsed = None
    assume(parsed is not None)
    assert parsed is not None
    head = head[: parsed.consumed]
    message = by_httptools(head)
    assume(message is not None)
    assert message is not None
    assert_same(parsed, message)
    if parsed.minor_version == 1:
        assert parsed.keep_alive == message.keep_alive
    if parsed.content_length < 10_000 and not message.upgrade:
        sent, meant = body_of(parsed)
        message = Message().feed(head + sent)
        assert (message.body, message.complete) == (meant, 1)


@pytest.mark.parametrize("head", GOOD_HEADS.values(), ids=GOOD_HEADS)
def test_good_heads_are_read_alike(head: bytes) -> None:
    parsed = parse_request_head(head)
    assert parsed is not None
    message = by_httptools(head)
    if parsed.method == "G" or b"HTTP/1.2" in head:
        assert message is None
    else:
        assert message is not None
        assert_same(parsed, message)
        assert parsed.keep_alive == message.keep_alive


# ---- What only the own grammar accepts


def test_any_token_is_a_method() -> None:
    """RFC 9110 section 9.1: methods are for the application to know; llhttp has a list."""
    for method in (b"BREW", b"get", b"GET1", b"G-E.T"):
        head = method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
        parsed = parse_request_head(head)
        assert parsed is not None
        assert parsed.method == method.decode()
        with pytest.raises(httptools.HttpParserInvalidMethodError):
            Message().feed(head)


def test_a_later_minor_version_is_ours() -> None:
    """RFC 9110 section 2.5; llhttp knows 1.0 and 1.1 only."""
    head = b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"
    parsed = parse_request_head(head)
    assert parsed is not None
    assert parsed.minor_version == 1
    with pytest.raises(httptools.HttpParserError, match="Invalid HTTP version"):
        Message().feed(head)


@given(spoilt_heads())
def test_httptools_refuses_nothing_else_that_is_accepted(head: bytes) -> None:
    try:
        parsed = parse_request_head(head)
    except ParseError:
        parsed = None
    assume(parsed is not None)
    assert parsed is not None
    line, _, fields = head[: parsed.consumed].lstrip(b"\r\n").partition(b"\r\n")
    if parsed.minor_version:
        line = line[:-1] + b"1"
    with contextlib.suppress(httptools.HttpParserInvalidMethodError):
        Message().feed(line + b"\r\n" + fields)


# ---- What both accept, and see in another way


def test_blanks_behind_a_value_are_no_part_of_it() -> None:
    """RFC 9110 section 5.5."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: b \t\r\n\r\n"
    assert Message().feed(head).headers[1] == (b"X", b"b \t")
    parsed = parse_request_head(head)
    assert parsed is not None
    assert parsed.headers[1] == (b"x", b"b")


def test_close_wins_over_keep_alive() -> None:
    """RFC 9112 section 9.3: close is looked for first."""
    head = b"GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"
    assert Message().feed(head).keep_alive
    parsed = parse_request_head(head)
    assert parsed is not None
    assert not parsed.keep_alive


def test_a_request_for_an_upgrade_may_have_a_body() -> None:
    """RFC 9110 section 7.8: Upgrade may be ignored, and then the next request begins behind the body."""
    fields = b"Host: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n"
    head = b"POST / HTTP/1.1\r\n" + fields + b"\r\n"
    sent = b"3\r\nabc\r\n0\r\n\r\n"
    assert Message().feed(head + sent).body == b""
    parsed = parse_request_head(head + sent)
    assert parsed is not None
    assert parsed.chunked
    assert ChunkedBody().feed(sent) == b"abc"


# ---- What only httptools accepts


HOST = b"Host: a\r\n\r\n"

# A head that httptools accepts: why the own grammar does not.
STRICTER = {
    # RFC 9112 section 2.2 tells to skip empty lines.
    "empty line ended by LF": (b"\nGET / HTTP/1.1\r\n" + HOST, "the method is malformed"),
    "empty line ended by CR": (b"\rGET / HTTP/1.1\r\n" + HOST, "the method is malformed"),
    # RFC 9112 section 3: one blank between the parts.
    "blanks before the target": (b"GET  / HTTP/1.1\r\n" + HOST, "the target is neither"),
    "blanks before the version": (
        b"GET /  HTTP/1.1\r\n" + HOST,
        "the request line does not end in a version",
    ),
    "no version": (b"GET /\r\n" + HOST, "the target is malformed"),
    # RFC 9112 section 3.2: no fragment.
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST, "the target is malformed"),
    # RFC 9112 section 3.2.4.
    "asterisk with GET": (b"GET * HTTP/1.1\r\n" + HOST, r"the target \* goes with OPTIONS only"),
    # RFC 9112 section 3.2.2: this server is no proxy for other schemes.
    "other scheme": (b"GET ftp://a/ HTTP/1.1\r\n" + HOST, "the target is neither"),
    # RFC 9110 sections 4.2.1 and 4.2.4.
    "userinfo": (b"GET http://u@a/ HTTP/1.1\r\n" + HOST, "the target's host is malformed"),
    # RFC 9110 section 9.3.6 leaves CONNECT to proxies.
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\n" + HOST, "CONNECT is not implemented"),
    # RFC 9112 section 2.3.
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST, "the version is not one of HTTP/1"),
    # RFC 9112 section 3.2.
    "no host": (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", "Host is missing"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\n" + HOST, "Host is repeated"),
    "host with blank": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "Host is malformed"),
    # RFC 9112 section 6.1: only what is understood, and not from HTTP/1.0.
    "gzip": (
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" + HOST,
        "a transfer coding other than chunked",
    ),
    "no coding": (
        b"GET / HTTP/1.1\r\nTransfer-Encoding: , chunked\r\n" + HOST,
        "Transfer-Encoding is malformed",
    ),
    "chunked in HTTP/1.0": (
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" + HOST,
        "Transfer-Encoding in HTTP/1.0",
    ),
    "gzip alone, with upgrade": (
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nConnection: upgrade\r\nUpgrade: x\r\n" + HOST,
        "chunked is not the last transfer coding",
    ),
    # RFC 9110 section 10.1.1.
    "other expectation": (b"GET / HTTP/1.1\r\nExpect: miracles\r\n" + HOST, "an expectation other than"),
}


@pytest.mark.parametrize(("head", "reason"), STRICTER.values(), ids=STRICTER)
def test_stricter_than_httptools(head: bytes, reason: str) -> None:
    message = by_httptools(head)
    assert message is not None
    assert message.heads == 1
    with pytest.raises(ParseError, match="^" + reason):
        parse_request_head(head)


@given(spoilt_heads())
def test_stricter_than_httptools_for_these_reasons_only(head: bytes) -> None:
    try:
        parse_request_head(head)
    except ParseError as error:
        refusal = str(error)
    else:
        refusal = ""
    assume(refusal)
    if by_httptools(head) is not None:
        reasons = [reason.replace("\\", "") for _, reason in STRICTER.values()]
        assert refusal.startswith(tuple(reasons))


# ---- The llhttp parser of this package


def lenient(protocol: object) -> httptools.HttpRequestParser:
    """llhttp with other ideas of a line's end."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_lf_after_cr=True, lenient_optional_cr_before_lf=True
    )
    return parser


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n",
    ],
)
def test_a_lenient_llhttp_is_held_to_crlf(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fastasgi._parser.httptools",
        types.SimpleNamespace(
            HttpRequestParser=lenient,
            HttpParserError=httptools.HttpParserError,
            HttpParserUpgrade=httptools.HttpParserUpgrade,
        ),
    )
    good = GOOD_HEADS["browser"]
    assert parse_request_head(good, llhttp=True) == parse_request_head(good)
    with pytest.raises(ParseError, match="llhttp sees line ends other than CRLF"):
        parse_request_head(head, llhttp=True)


@given(spoilt_heads())
def test_llhttp_accepts_nothing_that_is_refused_without(head: bytes) -> None:
    parsed = None
    with contextlib.suppress(ParseError):
        parsed = parse_request_head(head, llhttp=True)
    assert parsed is None or parsed == parse_request_head(head)
