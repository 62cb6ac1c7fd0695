"""Request heads for the parser's tests: good ones, and a strategy that spoils them."""

from hypothesis import strategies as st

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
