"""Request heads (RFC 9112): what is read, limits, any bytes."""

import urllib.parse

import pytest
from heads import BROWSER_HEAD, GOOD_HEADS, both_parsers, get, outcome, parse, spoilt_heads
from hypothesis import given
from hypothesis import strategies as st

from fastasgi._parser import HeadParser, ParsedHead, parse_request_head

good_heads = pytest.mark.parametrize("head", GOOD_HEADS.values(), ids=GOOD_HEADS)


# ---- What is read


@both_parsers
def test_every_part_of_a_head(llhttp: bool) -> None:
    assert parse(
        b"POST /caf%C3%A9?x=%20 HTTP/1.1\r\n"
        b"Host: example.org:8000\r\n"
        b"Content-Length: 12\r\n"
        b"X-Custom:  a value \t\r\n"
        b"Connection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\n"
        b"Expect: 100-Continue",
        llhttp=llhttp,
    )[1:] == (
        "POST",
        "/café",
        b"/caf%C3%A9",
        b"x=%20",
        1,
        [
            (b"host", b"example.org:8000"),
            (b"content-length", b"12"),
            (b"x-custom", b"a value"),
            (b"connection", b"keep-alive, Upgrade"),
            (b"upgrade", b"websocket"),
            (b"expect", b"100-Continue"),
        ],
        12,
        False,
        True,
        True,
        True,
    )


@both_parsers
def test_the_least_head(llhttp: bool) -> None:
    expected = ("G", "/", b"/", b"", 0, [], -1, False, False, False, False)
    assert parse(b"G / HTTP/1.0", llhttp=False)[1:] == expected
    assert parse(b"GET / HTTP/1.0", llhttp=llhttp)[2:] == expected[1:]


@good_heads
def test_all_prefixes_need_more_data(head: bytes) -> None:
    assert [outcome(head[:n]) for n in range(len(head))] == [None] * len(head)


@good_heads
@pytest.mark.parametrize("behind", [b"G", b"\r\n", b"\0", b" x: y\r\n", b"\xff" * 64, BROWSER_HEAD])
def test_bytes_behind_a_head_do_not_matter(head: bytes, behind: bytes) -> None:
    alone = parse_request_head(head)
    assert alone is not None
    assert alone.consumed == len(head)
    assert parse_request_head(head + behind) == alone


@good_heads
def test_llhttp_gives_the_same_head(head: bytes) -> None:
    parsed = outcome(head, llhttp=True)
    if head.startswith(b"G / "):
        assert parsed == 400  # llhttp knows a list of methods only
    else:
        assert parsed == parse_request_head(head)
        assert outcome(head + b"behind", llhttp=True) == parsed
        assert [outcome(head[:n], llhttp=True) for n in range(len(head))] == [None] * len(head)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"])
@both_parsers
def test_method(method: str, llhttp: bool) -> None:
    parsed = parse(method.encode() + b" / HTTP/1.1\r\nHost: a", llhttp=llhttp)
    assert parsed.method == method


@pytest.mark.parametrize("method", ["get", "FOO", "GETS", "GE", "!#$%&'*+-.^_`|~09azAZ", "M" * 100])
def test_method_is_any_token(method: str) -> None:
    assert parse(method.encode() + b" / HTTP/1.1\r\nHost: a").method == method


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"/", "/", b"/", b""),
        (b"//a//b", "//a//b", b"//a//b", b""),
        (b"/?", "/", b"/", b""),
        (b"/a?b?c/d", "/a", b"/a", b"b?c/d"),
        (b"/a%2Fb%3Fc?%2F", "/a/b?c", b"/a%2Fb%3Fc", b"%2F"),
        (b"/%", "/%", b"/%", b""),
        (b"/%0d%0a%00", "/\r\n\0", b"/%0d%0a%00", b""),
        (b"/%ff", "/\ufffd", b"/%ff", b""),
        (b"/" + b"a%20" * 900, "/" + "a " * 900, b"/" + b"a%20" * 900, b""),
        (b"/\"<>\\^`{|}'", "/\"<>\\^`{|}'", b"/\"<>\\^`{|}'", b""),
        (b"http://h", "/", b"/", b""),
        (b"HtTpS://h:1?q", "/", b"/", b"q"),
        (b"http://h/a%20b?q", "/a b", b"/a%20b", b"q"),
    ],
)
def test_target(target: bytes, path: str, raw_path: bytes, query: bytes) -> None:
    parsed = parse(b"GET %b HTTP/1.1\r\nHost: h" % target)
    assert (parsed.path, parsed.raw_path, parsed.query) == (path, raw_path, query)


@both_parsers
def test_asterisk_form(llhttp: bool) -> None:
    parsed = parse(b"OPTIONS * HTTP/1.1\r\nHost: h", llhttp=llhttp)
    assert (parsed.path, parsed.raw_path, parsed.query) == ("*", b"*", b"")


def test_options_of_an_absolute_target_without_path_is_of_the_server() -> None:
    """RFC 9112 section 3.2.4."""
    assert parse(b"OPTIONS http://h HTTP/1.1\r\nHost: h").path == "*"
    assert parse(b"OPTIONS http://h/ HTTP/1.1\r\nHost: h").path == "/"
    assert parse(b"OPTIONS http://h? HTTP/1.1\r\nHost: h").path == "/"


@both_parsers
def test_authority_of_an_absolute_target_replaces_host(llhttp: bool) -> None:
    """RFC 9112 section 3.2.2."""
    parsed = parse(b"GET http://real:80/ HTTP/1.1\r\nA: b\r\nHost: spoofed\r\nC: d", llhttp=llhttp)
    assert parsed.headers == [(b"a", b"b"), (b"host", b"real:80"), (b"c", b"d")]
    parsed = parse(b"GET http://real/ HTTP/1.0\r\nA: b", llhttp=llhttp)
    assert parsed.headers == [(b"a", b"b"), (b"host", b"real")]
    full = b"GET http://real/ HTTP/1.0\r\nA: b\r\nB: c"
    assert len(parse(full, llhttp=llhttp, max_header_count=2).headers) == 3


@pytest.mark.parametrize(
    "host",
    [
        b"", b"a", b"a:", b"a:0", b"a:65535", b"a:00080", b":80", b"127.0.0.1", b"EXAMPLE.org", b"a%20b",
        b"-._~!$&'()*+,;=", b"x" * 300, b"[::]", b"[::1]", b"[::1]:80", b"[1::]", b"[1:2:3:4:5:6:7:8]",
        b"[1:2:3:4:5:6:7::]", b"[::2:3:4:5:6:7:8]", b"[1::3:4:5:6:7:8]", b"[1:2:3:4:5:6:1.2.3.4]",
        b"[::ffff:255.0.10.99]", b"[1::1.2.3.4]", b"[ABCD:ef01::]", b"[v1.foo]", b"[v1.foo]:80",
        b"[VaF09.:-._~!$&'()*+,;=:]",
    ],
)  # fmt: skip
def test_host(host: bytes) -> None:
    assert dict(parse(b"GET / HTTP/1.1\r\nHost: " + host).headers) == {b"host": host}


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close", False),
        (b"1.1", b"Connection: foo , CLOSE,, bar", False),
        (b"1.1", b"Connection: keep-alive, close", False),
        (b"1.1", b"Connection: close\r\nConnection: keep-alive", False),
        (b"1.1", b"Connection: closed", True),
        (b"1.1", b"Connection:", True),
        (b"1.2", b"", True),
        (b"1.9", b"Connection: close", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive", True),
        (b"1.0", b"Connection: foo, Keep-Alive", True),
        (b"1.0", b"Connection: keep-alive, close", False),
        (b"1.0", b"Connection: keep-alive2", False),
    ],
)
@both_parsers
def test_keep_alive(version: bytes, fields: bytes, expected: bool, llhttp: bool) -> None:
    lines = b"GET / HTTP/%b\r\nHost: a%b" % (version, b"\r\n" + fields if fields else b"")
    assert parse(lines, llhttp=llhttp).keep_alive is expected


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        (b"1.1", b"Connection: upgrade\r\nUpgrade: h2c", True),
        (b"1.1", b"Upgrade: h2c\r\nConnection: x,UPGRADE", True),
        (b"1.1", b"Upgrade: h2c", False),
        (b"1.1", b"Connection: upgrade", False),
        (b"1.1", b"Connection: upgrade\r\nUpgrade: ", False),
        (b"1.2", b"Connection: upgrade\r\nUpgrade: h2c", True),
        (b"1.0", b"Connection: upgrade\r\nUpgrade: h2c", True),
    ],
)
@both_parsers
def test_upgrade(version: bytes, fields: bytes, expected: bool, llhttp: bool) -> None:
    """RFC 9110 section 7.8: who reads the head is to ignore it in HTTP/1.0."""
    assert parse(b"GET / HTTP/%b\r\nHost: a\r\n%b" % (version, fields), llhttp=llhttp).upgrade is expected


@pytest.mark.parametrize("line", [b"GET /a HTTP/1.%d", b"OPTIONS * HTTP/1.%d", b"GET http://a/a HTTP/1.%d"])
@both_parsers
def test_a_later_minor_version_is_read_as_ours(line: bytes, llhttp: bool) -> None:
    """RFC 9110 section 2.5."""
    fields = b"\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue"
    ours = parse(line % 1 + fields, llhttp=llhttp)
    assert ours.expect_continue
    for minor in range(2, 10):
        assert parse(line % minor + fields, llhttp=llhttp) == ours


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
@both_parsers
def test_empty_lines_before_a_request_line(count: int, llhttp: bool) -> None:
    """RFC 9112 section 2.2."""
    before = b"\r\n" * count
    for n in range(len(before) + 1):
        assert outcome(before[:n], llhttp=llhttp) is None
    head = GOOD_HEADS["post"]
    parsed = parse_request_head(before + head, llhttp=llhttp)
    assert parsed is not None
    assert parsed.consumed == len(before + head)
    assert parsed[1:] == parse(head[:-4], llhttp=llhttp)[1:]


@both_parsers
def test_expectations_of_http_1_0_are_ignored(llhttp: bool) -> None:
    """RFC 9110 section 10.1.1."""
    assert not parse(b"GET / HTTP/1.0\r\nExpect: 100-continue", llhttp=llhttp).expect_continue
    assert not parse(b"GET / HTTP/1.0\r\nExpect: miracles", llhttp=llhttp).expect_continue
    assert parse(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-CONTINUE", llhttp=llhttp).expect_continue


@pytest.mark.parametrize("length", [0, 5, 2**63 - 1])
@both_parsers
def test_content_length(length: int, llhttp: bool) -> None:
    parsed = parse(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d" % length, llhttp=llhttp)
    assert (parsed.content_length, parsed.chunked) == (length, False)


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED", b"chunked \t"])
def test_transfer_encoding(coding: bytes) -> None:
    parsed = parse(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + coding)
    assert (parsed.content_length, parsed.chunked) == (-1, True)


@pytest.mark.parametrize("byte", [b"\t", b" ", b"!", b"~", b"\x80", b"\xff"])
@both_parsers
def test_field_value_bytes(byte: bytes, llhttp: bool) -> None:
    value = b"a" + byte * 40 + b"z"
    assert parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + value, llhttp=llhttp).headers[1] == (b"x", value)


def test_names_are_lower_case_whatever_their_length() -> None:
    letters = b"aB!#$%&'*+-.^_`|~09Zz" * 4
    for n in range(1, len(letters)):
        for behind in (b"", b"x" * 64):
            head = get(b"%b:%b" % (letters[:n], b"v" if n % 2 else b""))
            parsed = parse_request_head(head + behind)
            assert parsed is not None
            assert parsed.headers[1][0] == letters[:n].lower()


@pytest.mark.parametrize(
    "name",
    [b"Te", b"Accept", b"X-Forwarded-For", b"Sec-Ch-Ua-Full-Version-List", b"Upgrade-Insecure-Requests"],
)
def test_common_names_are_not_created_again(name: bytes) -> None:
    spellings = (name, name.upper(), name.lower())
    parsed = [parse(get(b"%b: %b" % (spelling, spelling))[:-4]) for spelling in spellings]
    assert {head.headers[1][0] for head in parsed} == {name.lower()}
    assert len({id(head.headers[1][0]) for head in parsed}) == 1


def test_a_name_that_resembles_a_common_one_is_another() -> None:
    for name in (b"Accepu", b"Accep", b"Accept-", b"Contenu-Length", b"Upgrade-Insecure-Request", b"ccept"):
        assert parse(get(name + b": 1")[:-4]).headers[1] == (name.lower(), b"1")


def test_pairs_that_come_again_are_equal_whatever_came_between() -> None:
    values = [b"v" * n for n in (0, 1, 3, 4, 7, 8, 9, 191, 192, 193, 1000)]
    values += [b"%d" % n for n in range(600)]
    for _ in range(2):
        for value in values:
            head = parse(get(b"User-Agent: %b\r\nAccept: %b\r\nCookie: %b" % ((value,) * 3))[:-4])
            assert head.headers[1:] == [(b"user-agent", value), (b"accept", value), (b"cookie", value)]


def test_a_pair_that_comes_again_is_shared_unless_it_may_be_a_secret() -> None:
    fields = b"User-Agent: test of sharing\r\nAuthorization: test of sharing"
    parser = HeadParser()
    first, second = (parser.read(get(fields)).headers for _ in range(2))
    assert first == second
    assert first is not second
    assert first[1] is second[1]
    assert first[2] is not second[2]
    assert first[2][1] is not second[2][1]


@given(st.text(st.sampled_from("/aZ09%cC3A9fFeE2é€😀+&=.;@"), max_size=40) | st.binary(max_size=40))
def test_path_is_decoded_as_by_urllib(text: str | bytes) -> None:
    raw = b"/" + urllib.parse.quote(text, safe="/%").encode("ascii")
    assert parse(b"GET %b HTTP/1.1\r\nHost: a" % raw).path == urllib.parse.unquote(raw.decode("ascii"))


@given(st.lists(st.sampled_from(b"% %% %4 %41 %c3%a9 %C3 %gg a / +".split()), max_size=8))
def test_broken_escapes_are_kept_as_by_urllib(parts: list[bytes]) -> None:
    raw = b"/" + b"".join(parts)
    assert parse(b"GET %b HTTP/1.1\r\nHost: a" % raw).path == urllib.parse.unquote(raw.decode("ascii"))


# ---- Limits


@both_parsers
@pytest.mark.parametrize("length", range(96, 101))
def test_request_line_of_the_greatest_length(length: int, llhttp: bool) -> None:
    limits = {"max_request_line_bytes": 100, "llhttp": llhttp}
    path = b"/" + b"a" * (length - 14)
    line = b"GET %b HTTP/1.1" % path
    assert len(line) == length
    assert parse(line + b"\r\nHost: a", **limits).raw_path == path
    assert [outcome((line + b"\r\nHost")[:n], **limits) for n in range(length + 6)] == [None] * (length + 6)


@both_parsers
@pytest.mark.parametrize(
    "line",
    [
        b"GET /%b HTTP/1.1\r\n" % (b"a" * 87),
        b"M" * 101,
        b"GET /" + b"a" * 96,
        b"GET /?" + b"a" * 95,
        b"GET http://" + b"a" * 90,
        b"\r\nGET /" + b"a" * 96,
    ],
)
def test_too_long_request_line(line: bytes, llhttp: bool) -> None:
    limits = {"max_request_line_bytes": 100, "llhttp": llhttp}
    seen = [outcome(line[:n], **limits) for n in range(len(line) + 1)]
    first = seen.index(414)
    assert seen == [None] * first + [414] * (len(line) + 1 - first)
    assert first == 101 + 2 * line.startswith(b"\r\n")


@both_parsers
def test_head_of_the_greatest_length(llhttp: bool) -> None:
    head = b"\r\n" + GOOD_HEADS["post"]
    limits = {"max_head_bytes": len(head), "llhttp": llhttp}
    parsed = parse_request_head(head + b"behind", **limits)
    assert parsed is not None
    assert parsed.consumed == len(head)


@both_parsers
def test_empty_lines_count_as_the_heads(llhttp: bool) -> None:
    limits = {"max_head_bytes": 50, "llhttp": llhttp}
    blank = b"\r\n" * 25
    assert outcome(blank, **limits) is None
    assert outcome(blank + b"G", **limits) == 431
    assert outcome(blank + b"\r\n", **limits) == 431
    data = blank[:20] + GOOD_HEADS["hello"]
    seen = [outcome(data[:n], **limits) for n in range(len(data) + 1)]
    assert seen == [None] * 50 + [431] * (len(data) - 49)


@both_parsers
def test_too_long_head(llhttp: bool) -> None:
    head = GOOD_HEADS["post"]
    limits = {"max_head_bytes": len(head) - 1, "llhttp": llhttp}
    assert outcome(head, **limits) == 431
    assert outcome(head[:-1], **limits) == 431
    assert outcome(head[:-2], **limits) is None
    assert outcome(head[:-2] + b"A: " + b"b" * 100, **limits) == 431


def test_what_lies_behind_a_limit_is_not_looked_at() -> None:
    assert outcome(b"GET /" + b"a" * 95 + b"\0", max_request_line_bytes=100) == 414
    assert outcome(b"GET /" + b"a" * 94 + b"\0", max_request_line_bytes=100) == 400
    assert outcome(b"GET /" + b"a" * 200 + b"\0", max_request_line_bytes=100) == 414
    assert outcome(get(b"A: " + b"b" * 200 + b"\0"), max_head_bytes=100) == 431


@both_parsers
def test_number_of_fields(llhttp: bool) -> None:
    head = get(b"\r\n".join(b"A-%d: b" % n for n in range(9)))
    assert len(parse(head[:-4], llhttp=llhttp, max_header_count=10).headers) == 10
    assert outcome(head, llhttp=llhttp, max_header_count=9) == 431


def test_one_field_too_many_is_refused_at_its_first_byte() -> None:
    head = get(b"A: b\r\nB: c")[:-4]
    assert outcome(head, max_header_count=3) is None
    assert outcome(head, max_header_count=2) == 431
    assert outcome(head[: head.index(b"B: c")], max_header_count=2) is None
    assert outcome(head[: head.index(b"B: c") + 1], max_header_count=2) == 431


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_request_line_bytes", 0),
        ("max_request_line_bytes", 2**40),
        ("max_head_bytes", 0),
        ("max_head_bytes", 2**40),
        ("max_header_count", 0),
        ("max_header_count", 2**30),
        ("underscores", "maybe"),
    ],
)
def test_impossible_limits(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}: not "):
        parse_request_head(b"", **{name: value})


# ---- Underscores


@both_parsers
def test_underscores_allowed(llhttp: bool) -> None:
    parsed = parse(get(b"X_A: 1\r\nContent_Length: x")[:-4], llhttp=llhttp)
    assert parsed.headers[1:] == [(b"x_a", b"1"), (b"content_length", b"x")]
    assert parsed.content_length == -1


@both_parsers
def test_underscores_dropped(llhttp: bool) -> None:
    limits = {"underscores": "drop", "max_header_count": 4, "llhttp": llhttp}
    fields = b"X_A: 1\r\nB: _\r\n%b: 3" % (b"c_" * 40)
    assert parse(get(fields)[:-4], **limits).headers == [(b"host", b"a"), (b"b", b"_")]
    assert outcome(get(fields + b"\r\nX_Y: counts"), **limits) == 431
    assert outcome(get(b"X_A: \0"), **limits) == 400


@both_parsers
def test_underscores_refused(llhttp: bool) -> None:
    limits = {"underscores": "refuse", "llhttp": llhttp}
    assert outcome(get(b"X_A: 1"), **limits) == 400
    assert outcome(get(b"Content_Length: 1"), **limits) == 400
    assert parse(get(b"X: _")[:-4], **limits).headers[1] == (b"x", b"_")


# ---- Any bytes


@given(spoilt_heads() | st.binary(max_size=60), st.booleans())
def test_any_bytes_have_one_outcome(head: bytes, small: bool) -> None:
    """What a prefix decides, stays: a refusal with its status, a head with its length."""
    limits = {"max_request_line_bytes": 24, "max_head_bytes": 80, "max_header_count": 3} if small else {}
    seen = [outcome(head[:n], **limits) for n in range(len(head) + 1)]
    needed = next((n for n, result in enumerate(seen) if result is not None), len(seen))
    assert seen[:needed] == [None] * needed
    assert all(result == seen[needed] for result in seen[needed:])
    if needed < len(seen) and isinstance(seen[needed], ParsedHead):
        assert seen[needed].consumed == needed


@given(spoilt_heads())
def test_a_head_read_has_only_what_http_allows(head: bytes) -> None:
    parsed = outcome(head)
    if isinstance(parsed, ParsedHead):
        assert parsed.path.startswith("/") or (parsed.path, parsed.method) == ("*", "OPTIONS")
        assert not set(parsed.raw_path + parsed.query) & {*range(0x21), *range(0x7F, 0x100), ord("#")}
        names = [name for name, _ in parsed.headers]
        assert names.count(b"host") == 1 or parsed.minor_version == 0
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
        assert parsed.chunked == (b"transfer-encoding" in names)
        for name, value in parsed.headers:
            assert name
            assert name == name.lower()
            assert value == value.strip(b" \t")
            assert not set(value) & ({*range(0x20), 0x7F} - {0x09})
