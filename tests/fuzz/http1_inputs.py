"""HTTP/1.x byte streams of a client: valid requests in all forms, what spoils them, how reads split them."""

import itertools
from random import Random

from fuzz import frames_inputs
from heads import GOOD_HEADS, PIECES

METHODS = b"GET GET GET POST POST PUT HEAD DELETE OPTIONS PATCH X-%$!".split()
TARGETS = [
    b"/", b"/a/b", b"/%C3%A9%2f%zz?q=%20&r", b"/?", b"/" + b"p" * 400, b"//x;y=(1)", b"http://other:81/p?q",
    b"HTTPS://[::1]", b"http://h?q", b"http://[v1.f:0]:1/",
]  # fmt: skip
FIELDS = [
    b"Accept: */*", b"Cookie: a=b; c=d", b"X-Name: caf\xc3\xa9 \xff", b"A:", b"B: \t ", b"C:\t x \t y \t",
    b"X_Y: 1", b"User-Agent: " + b"u" * 190, b"X-Long: " + b"v" * 5000, b"Connection: keep-alive",
    b"Connection: close", b"Connection: upgrade, x", b"Upgrade: h2c", b"Upgrade: websocket", b"TE: trailers",
    b"Content-Type: text/plain", b"%b: 1" % (b"n" * 40), b"Keep-Alive: 1", b"Forwarded: for=x",
]  # fmt: skip
EXTENSIONS = [b"", b"", b"", b";a", b" ; a = b", b';q="x\\"y;z"', b";" + b"e" * 300]
TRAILERS = [b"", b"", b"", b"T: 1\r\n", b"A: b\r\nContent-Length: 5\r\n", b"X: " + b"t" * 500 + b"\r\n"]
HANDSHAKE_FIELDS = [
    b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]  # fmt: skip
HANDSHAKE_OPTIONS = [
    b"Sec-WebSocket-Protocol: a, b", b"Sec-WebSocket-Extensions: x; a=1", b"Origin: http://a",
    b"Connection: keep-alive", b"Connection: close", b"Upgrade: h2c", b"Content-Length: 0", b"Cookie: a=b",
]  # fmt: skip
HANDSHAKE_SPOILERS = [
    b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Key: c2hvcnQ=", b"Sec-WebSocket-Extensions: a b",
    b"Content-Length: 3", b"Transfer-Encoding: chunked", *HANDSHAKE_FIELDS[2:],
]  # fmt: skip
BODY_SIZES = [0, 1, 1, 2, 15, 16, 100, 1000, 5000, 70_000]
HUGE_BODY_SIZES = [262_144, 300_000, 700_000]
EXTREMES = [
    b"0", b"-1", b"+1", b"00", b"1e3", b"0x10", b"7fffffffffffffff", b"8000000000000000",
    b"ffffffffffffffff0",
    b"9223372036854775807", b"9223372036854775808", b"99999999999999999999", b"a" * 70_000, b"\r\n" * 40,
    b"X: y\r\n" * 200, b"1\r\nx\r\n" * 500, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]  # fmt: skip


def make_body(rng: Random, size: int) -> bytes:
    return rng.randbytes(min(size, 97)) * (size // 97) + rng.randbytes(size % 97) if size else b""


def chunked(rng: Random, body: bytes) -> bytes:
    """The body in chunked transfer coding, with extensions and trailers now and then."""
    parts = []
    at = 0
    largest = rng.choice([1, 3, 50, 5000, 100_000])
    if len(body) > 2000 * largest:
        largest = len(body)
    while at < len(body):
        size = rng.randint(1, min(largest, len(body) - at))
        line = b"%b%x%b\r\n" % (rng.choice([b"", b"", b"0"]), size, rng.choice(EXTENSIONS))
        parts += [line, body[at : at + size], b"\r\n"]
        at += size
    parts += [b"0", rng.choice(EXTENSIONS), b"\r\n", rng.choice(TRAILERS), b"\r\n"]
    return b"".join(parts)


def make_request(rng: Random, number: int, huge: bool = False) -> bytes:
    """A valid request; the number stands in a header, so that no two of a stream are alike."""
    if rng.random() < 0.05:
        return rng.choice(list(GOOD_HEADS.values()))
    method = rng.choice(METHODS)
    version = rng.choice([b"1.1", b"1.1", b"1.1", b"1.2", b"1.0"])
    target = b"*" if method == b"OPTIONS" and rng.random() < 0.3 else rng.choice(TARGETS)
    lines = [b"%b %b HTTP/%b" % (method, target, version), b"Host: a:1", b"N: %d" % number]
    lines += rng.sample(FIELDS, rng.choice([0, 0, 1, 2, 5]))
    body = b""
    if rng.random() < 0.5:
        body = make_body(rng, rng.choice(HUGE_BODY_SIZES if huge else BODY_SIZES))
        if version != b"1.0" and rng.random() < 0.5:
            lines.append(rng.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"]))
            body = chunked(rng, body)
        else:
            lines.append(b"Content-Length: %d" % len(body))
        if rng.random() < 0.2:
            lines.append(b"Expect: 100-continue")
    if rng.random() < 0.1:
        lines[:0] = [b""] * rng.choice([1, 1, 2, 30])
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def make_handshake(rng: Random, number: int) -> bytes:
    """A request that opens a WebSocket, for the most part with frames behind it, or one to be refused."""
    fields = [*HANDSHAKE_FIELDS, *rng.sample(HANDSHAKE_OPTIONS, rng.choice([0, 0, 1, 2]))]
    spoils = rng.random()
    if spoils < 0.1:
        fields.append(rng.choice(HANDSHAKE_SPOILERS))
    elif spoils < 0.2:
        del fields[rng.randrange(len(HANDSHAKE_FIELDS))]
    rng.shuffle(fields)
    target = rng.choice(TARGETS)
    lines = [b"GET %b HTTP/1.1" % target, b"Host: a:1", b"N: %d" % number, *fields]
    frames = frames_inputs.make_stream(rng, None)[0] if rng.random() < 0.7 else b""
    return b"\r\n".join(lines) + b"\r\n\r\n" + frames


def mutate(rng: Random, data: bytes) -> bytes:
    """Spoil a stream in one place."""
    lines = [n for n in range(min(len(data), 20_000)) if data[n : n + 1] in (b"\r", b"\n", b":", b" ", b";")]
    start = rng.randint(0, len(data))
    if lines and rng.random() < 0.7:
        start = min(max(rng.choice(lines) + rng.randint(-1, 2), 0), len(data))
    end = min(start + rng.choice([0, 0, 1, 1, 2, 8, 100]), len(data))
    kind = rng.randrange(7)
    if kind == 0:
        return data[:start] + rng.choice(PIECES) + data[end:]
    if kind == 1:
        return data[:start] + rng.randbytes(rng.randint(1, 3)) + data[end:]
    if kind == 2:
        return data[:start] + rng.choice(EXTREMES) + data[end:]
    if kind == 3:
        return data[:start] + data[end:]
    if kind == 4:
        return data[:end] + data[start:end] * rng.randint(1, 3) + data[end:]
    if kind == 5:
        other = rng.randint(0, len(data))
        return data[:start] + data[other : other + rng.choice([5, 50, 500])] + data[end:]
    flipped = bytes([data[start] ^ (1 << rng.randrange(8))]) if start < len(data) else b""
    return data[:start] + flipped + data[start + 1 :]


def make_stream(rng: Random, handshake_share: float = 0) -> bytes:
    """All that a client sends on one connection. So many of its requests are to open a WebSocket."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.choice([1, 10, 100, 5000]))
    huge = rng.random() < 0.02
    count = rng.choice([1, 1, 2, 3, 6, 70, 140]) if not huge else 1
    requests = [
        make_handshake(rng, number)
        if handshake_share and rng.random() < handshake_share
        else make_request(rng, number, huge)
        for number in range(count)
    ]
    data = b"".join(requests if count < 50 else [one for one in requests if len(one) < 500])
    for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
        data = mutate(rng, data)
    return data if rng.random() < 0.8 else data[: rng.randint(0, len(data))]


def split(rng: Random, data: bytes) -> list[bytes]:
    """Cut a stream into reads."""
    kind = rng.randrange(5)
    if kind == 0:
        return [data]
    if kind == 1 and len(data) < 1500:
        return [data[n : n + 1] for n in range(len(data))]
    if kind == 2:
        ends = [n + 1 for n in range(min(len(data), 20_000)) if data[n] in b"\r\n"]
        cuts = [end + rng.randint(-1, 1) for end in rng.sample(ends, min(len(ends), 40))]
    elif kind == 3:
        cuts = [rng.randint(0, len(data)) for _ in range(rng.choice([1, 2, 5, 30]))]
    else:
        size = rng.choice([7, 100, 1460, 65_536])
        cuts = list(range(0, len(data), max(size, len(data) // 300)))
    edges = sorted({0, *(cut for cut in cuts if 0 < cut < len(data)), len(data)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]
