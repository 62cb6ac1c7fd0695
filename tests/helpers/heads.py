"""Request heads for the parser's tests: good ones, and a strategy that spoils them."""

import pytest
from hypothesis import strategies as st

from fastasgi._parser import ParsedHead, ParseError, parse_request_head

BROWSER_HEAD = (
    b"GET /?a=b HTTP/1.1\r\n"
    b"Host: 127.0.0.1:8000\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.9\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Cookie: session=abcdef0123456789abcdef0123456789; theme=dark\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Connection: keep-alive\r\n"
    b"\r\n"
)

GOOD_HEADS = {
    "hello": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n",
    "browser": BROWSER_HEAD,
    "shortest": b"G / HTTP/1.0\r\n\r\n",
    "leading empty line": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "leading empty lines": b"\r\n" * 20 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "later version": b"POST / HTTP/1.2\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "address of the future": b"GET http://[v1.x:y] HTTP/1.1\r\nHost: [vF.a]:80\r\n\r\n",
    "post": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n",
    "chunked": b"PUT /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n",
    "escaped": b"GET /a%20b/%C3%A9%zz?x=%20&y HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute": b"GET http://example.org:80/p?q HTTP/1.1\r\nHost: other\r\nAccept: */*\r\n\r\n",
    "absolute, no path": b"GET HTTPS://[::1] HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "close": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "old keep-alive": b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
    "blanks": b"GET / HTTP/1.1\r\nHost:a\r\nA:\r\nB: \t \r\nC:\t x \t y \t\r\n\r\n",
    "obs-text": b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: caf\xc3\xa9 \xff\r\n\r\n",
    "long names": b"GET / HTTP/1.1\r\nHost: a\r\n%b: 1\r\n%b: 2\r\n\r\n" % (b"X" * 31, b"y-" * 40),
    "long values": b"GET /%b HTTP/1.1\r\nHost: a\r\nCookie: %b\r\n\r\n" % (b"p" * 300, b"c" * 700),
}

# What is put into good heads to spoil them: what grammars of HTTP disagree on.
PIECES = [
    b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\n ", b"\0", b"\x01", b"\x0b",
    b"\x7f", b"\x80", b"\xff", b":", b";", b",", b"/", b"?", b"#", b"%", b"@", b"*", b"[", b"]", b"_", b'"',
    b"HTTP/1.1", b"HTTP/1.2", b"HTTP/2.0", b"Host: b\r\n", b"Host:\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity, chunked\r\n", b"Transfer-Encoding: gzip\r\n", b", gzip", b"x;y=z, ",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"X_Y: 1\r\n",
    b"X : 1\r\n", b" folded\r\n", b"A: b\nC: d\r\n", b"chunked", b"close", b"5", b"0", b"http://h",
]  # fmt: skip


@st.composite
def spoilt_heads(draw: st.DrawFn) -> bytes:
    """A good head in which up to four spans are replaced."""
    head = draw(st.sampled_from(list(GOOD_HEADS.values())))
    for _ in range(draw(st.integers(0, 4))):
        lines = [0, *(n + 2 for n in range(len(head)) if head[n : n + 2] == b"\r\n")]
        start = draw(st.sampled_from(lines) | st.integers(0, len(head)))
        length = draw(st.sampled_from([0, 0, 1, 1, 2, 8]))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
        head = head[:start] + piece + head[start + length :]
    return head


both_parsers = pytest.mark.parametrize("llhttp", [False, True], ids=["own", "llhttp"])


def parse(lines: bytes, *, llhttp: bool = False, **limits: object) -> ParsedHead:
    """Parse a whole head given without its last two CRLF."""
    parsed = parse_request_head(lines + b"\r\n\r\n", llhttp=llhttp, **limits)
    assert parsed is not None
    assert parsed.consumed == len(lines) + 4
    return parsed


def outcome(data: bytes, **options: object) -> ParsedHead | int | None:
    """The parsed head, the status of a refusal, or None: more data needed."""
    try:
        return parse_request_head(data, **options)
    except ParseError as error:
        return error.status


def get(
    fields: bytes, *, target: bytes = b"/", version: bytes = b"HTTP/1.1", host: bytes = b"Host: a\r\n"
) -> bytes:
    """A GET request's head."""
    return b"GET %b %b\r\n%b%b\r\n\r\n" % (target, version, host, fields)


REFUSED = {
    # The request line
    "no method": (b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank before the method": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "control byte in the method": (b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "separator in the method": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tab behind the method": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two blanks behind the method": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    "bare LF behind an empty line": (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "bare CR behind an empty line": (b"\r\n\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two CR before LF": (b"\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank behind an empty line": (b"\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "bare LF before": (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "bare CR before": (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "empty target": (b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target without slash": (get(b"A: b", target=b"a"), 400),
    "fragment": (get(b"A: b", target=b"/a#b"), 400),
    "fragment in the query": (get(b"A: b", target=b"/?a#b"), 400),
    "control byte in the path": (get(b"A: b", target=b"/\x01"), 400),
    "DEL in the path": (get(b"A: b", target=b"/\x7f"), 400),
    "tab in the path": (get(b"A: b", target=b"/\t"), 400),
    "blank in the path": (get(b"A: b", target=b"/a b"), 400),
    "raw UTF-8 in the path": (get(b"A: b", target="/é".encode()), 400),
    "NUL in the query": (get(b"A: b", target=b"/?\0"), 400),
    "raw UTF-8 in the query": (get(b"A: b", target="/?é".encode()), 400),
    "asterisk with GET": (get(b"A: b", target=b"*"), 400),
    "asterisk with more": (b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "authority form": (get(b"A: b", target=b"a:80"), 400),
    "another scheme": (get(b"A: b", target=b"ftp://a/"), 400),
    "scheme with more letters": (get(b"A: b", target=b"httpss://a/"), 400),
    "one slash behind the scheme": (get(b"A: b", target=b"http:/a/"), 400),
    "userinfo": (get(b"A: b", target=b"http://u:p@a/"), 400),
    "absolute target without host": (get(b"A: b", target=b"http:///a"), 400),
    "absolute target with port only": (get(b"A: b", target=b"http://:80/a"), 400),
    "absolute target with bad host": (get(b"A: b", target=b"http://a^b/"), 400),
    "absolute target with bad port": (get(b"A: b", target=b"http://a:x/"), 400),
    "absolute target with bad IPv6": (get(b"A: b", target=b"http://[::1/"), 400),
    "fragment behind an authority": (get(b"A: b", target=b"http://a#b"), 400),
    "no version": (b"GET /\r\nHost: a\r\n\r\n", 400),
    "two blanks before the version": (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank behind the version": (get(b"A: b", version=b"HTTP/1.1 "), 400),
    "version in lower case": (get(b"A: b", version=b"http/1.1"), 400),
    "version of another protocol": (get(b"A: b", version=b"ICAP/1.0"), 400),
    "version with two digits": (get(b"A: b", version=b"HTTP/1.10"), 400),
    "version without point": (get(b"A: b", version=b"HTTP/11"), 400),
    "version without minor": (get(b"A: b", version=b"HTTP/1."), 400),
    "HTTP/0.9": (get(b"A: b", version=b"HTTP/0.9"), 505),
    "HTTP/2.0": (get(b"A: b", version=b"HTTP/2.0"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "PRI in HTTP/1.1": (b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "LF behind the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "CR behind the request line": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    # Field lines
    "no name": (get(b": b"), 400),
    "no colon": (get(b"A"), 400),
    "blank before the colon": (get(b"A : b"), 400),
    "tab before the colon": (get(b"A\t: b"), 400),
    "blank in the name": (get(b"A B: c"), 400),
    "blank before the first name": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "folded line": (get(b"A: b\r\n c"), 400),
    "folded line with tab": (get(b"A: b\r\n\tc"), 400),
    "folded empty line": (get(b"A: b\r\n \r\nC: d"), 400),
    "NUL in the name": (get(b"A\0: b"), 400),
    "NUL behind a common name": (get(b"Accept\0: b"), 400),
    "separator in the name": (get(b"A(b): c"), 400),
    "obs-text in the name": (get(b"\xe9: c"), 400),
    "quote in the name": (get(b'"a": c'), 400),
    "NUL in a value": (get(b"A: b\0c"), 400),
    "control byte in a value": (get(b"A: b\x1fc"), 400),
    "DEL in a value": (get(b"A: b\x7fc"), 400),
    "control byte deep in a value": (get(b"A: %b\x08%b" % (b"b" * 200, b"c" * 200)), 400),
    "bare LF in a value": (get(b"A: b\nC: d"), 400),
    "bare CR in a value": (get(b"A: b\rC: d"), 400),
    "bare CR at the end of a value": (get(b"A: b\r\r\nC: d"), 400),
    "LF for the empty line": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "CR for the empty line": (b"GET / HTTP/1.1\r\nHost: a\r\n\rA: b\r\n\r\n", 400),
    # Host
    "missing host": (get(b"A: b", host=b""), 400),
    "missing host with absolute target": (get(b"A: b", target=b"http://a/", host=b""), 400),
    "repeated host": (get(b"Host: a"), 400),
    "repeated host in HTTP/1.0": (get(b"Host: a", version=b"HTTP/1.0"), 400),
    "blank in the host": (get(b"A: b", host=b"Host: a b\r\n"), 400),
    "slash in the host": (get(b"A: b", host=b"Host: a/b\r\n"), 400),
    "userinfo in the host": (get(b"A: b", host=b"Host: u@a\r\n"), 400),
    "raw UTF-8 in the host": (get(b"A: b", host="Host: é\r\n".encode()), 400),
    "broken escape in the host": (get(b"A: b", host=b"Host: a%2\r\n"), 400),
    "port without digits": (get(b"A: b", host=b"Host: a:x\r\n"), 400),
    "signed port": (get(b"A: b", host=b"Host: a:+1\r\n"), 400),
    "port out of range": (get(b"A: b", host=b"Host: a:65536\r\n"), 400),
    "port far out of range": (get(b"A: b", host=b"Host: a:%b\r\n" % (b"9" * 40)), 400),
    "two ports": (get(b"A: b", host=b"Host: a:1:2\r\n"), 400),
    # Body framing
    "negative content length": (get(b"Content-Length: -1"), 400),
    "signed content length": (get(b"Content-Length: +1"), 400),
    "empty content length": (get(b"Content-Length:"), 400),
    "hexadecimal content length": (get(b"Content-Length: 0x1"), 400),
    "blank in the content length": (get(b"Content-Length: 1 2"), 400),
    "content length with letters": (get(b"Content-Length: 1a"), 400),
    "content length of 2**63": (get(b"Content-Length: 9223372036854775808"), 400),
    "content length of 19 nines": (get(b"Content-Length: 9999999999999999999"), 400),
    "content length of 20 digits": (get(b"Content-Length: 00000000000000000001"), 400),
    "list of equal content lengths": (get(b"Content-Length: 5, 5"), 400),
    "repeated equal content length": (get(b"Content-Length: 5\r\nContent-Length: 5"), 400),
    "repeated zero content length": (get(b"Content-Length: 0\r\nContent-Length: 0"), 400),
    "repeated other content length": (get(b"Content-Length: 5\r\nContent-Length: 6"), 400),
    "content length, then transfer encoding": (get(b"Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
    "transfer encoding, then content length": (get(b"Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
    "transfer encoding in HTTP/1.0": (get(b"Transfer-Encoding: chunked", version=b"HTTP/1.0"), 400),
    "empty transfer encoding": (get(b"Transfer-Encoding:"), 400),
    "repeated transfer encoding": (get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
    "chunked twice": (get(b"Transfer-Encoding: chunked, chunked"), 400),
    "identity": (get(b"Transfer-Encoding: identity"), 400),
    "unknown transfer encoding": (get(b"Transfer-Encoding: cow"), 400),
    "gzip": (get(b"Transfer-Encoding: gzip"), 400),
    "gzip and deflate": (get(b"Transfer-Encoding: gzip, deflate"), 400),
    "gzip, chunked": (get(b"Transfer-Encoding: gzip, chunked"), 501),
    "gzip, and chunked in another field": (
        get(b"Transfer-Encoding: gzip\r\nA: b\r\nTransfer-Encoding: chunked"), 501,
    ),
    "gzip, chunked with content length": (
        get(b"Transfer-Encoding: gzip\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"), 400,
    ),
    "gzip, chunked in HTTP/1.0": (get(b"Transfer-Encoding: gzip, chunked", version=b"HTTP/1.0"), 400),
    "gzip, chunked without host": (get(b"Transfer-Encoding: gzip, chunked", host=b""), 400),
    "other cases and blanks, chunked": (get(b"Transfer-Encoding:\tX-Cow\t, \tCHUNKED "), 501),
    "coding with parameters, chunked": (get(b'Transfer-Encoding: cow;a=b ; c="d", chunked'), 501),
    "coding with chunked in its name, chunked": (get(b"Transfer-Encoding: chunkedx, xchunked, chunked"), 501),
    "coding with chunked in its name": (get(b"Transfer-Encoding: gzip, xchunked"), 400),
    "two words, chunked": (get(b"Transfer-Encoding: gzip gzip, chunked"), 400),
    "quoted coding, chunked": (get(b'Transfer-Encoding: "gzip", chunked'), 400),
    "nothing, chunked": (get(b"Transfer-Encoding: , chunked"), 400),
    "nothing between two codings": (get(b"Transfer-Encoding: gzip,, chunked"), 400),
    "chunked, nothing": (get(b"Transfer-Encoding: gzip, chunked,"), 400),
    "chunked with a parameter, chunked": (get(b"Transfer-Encoding: chunked;a=b, chunked"), 400),
    "chunked, gzip, chunked": (get(b"Transfer-Encoding: chunked, gzip, chunked"), 400),
    "chunked, gzip": (get(b"Transfer-Encoding: chunked, gzip"), 400),
    "quoted chunked": (get(b'Transfer-Encoding: "chunked"'), 400),
    "chunked with parameter": (get(b"Transfer-Encoding: chunked;a=b"), 400),
    "chunked behind a vertical tab": (get(b"Transfer-Encoding: \x0bchunked"), 400),
    "another expectation": (get(b"Expect: miracles"), 417),
    "one more expectation": (get(b"Expect: 100-continue, miracles"), 417),
}  # fmt: skip
