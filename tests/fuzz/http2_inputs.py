"""What HTTP/2 clients send: valid frames of all kinds, what spoils them, how reads split them."""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import hpack
from fuzz import frames_inputs
from fuzz.http1_inputs import make_body
from fuzz.http1_responses import WEBSOCKET
from http2peer import (
    FRAME_SIZE,
    MAX_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    WINDOW,
    Fields,
    Frame,
    FrameType,
    Setting,
    continuation,
    data,
    goaway,
    headers,
    ping,
    priority,
    priority_update,
    push_promise,
    rst_stream,
    settings,
    window_update,
)

METHODS = b"GET GET GET POST POST PUT HEAD DELETE OPTIONS PATCH X-%$!".split()
TARGETS = [b"/", b"/a/b", b"/%C3%A9%2f%zz?q=%20&r", b"/?", b"/" + b"p" * 400, b"//x;y=(1)"]
AUTHORITIES = [b"a:1", b"[::1]:8000", b"example.com"]
FIELDS = [
    (b"accept", b"*/*"), (b"cookie", b"a=b; c=d"), (b"cookie", b"e=f"), (b"cookie", b"g"),
    (b"x-name", b"caf\xc3\xa9 \xff"), (b"a", b""), (b"c", b"x \t y"), (b"x_y", b"1"), (b"n" * 40, b"1"),
    (b"user-agent", b"u" * 190), (b"x-long", b"v" * 3000), (b"te", b"trailers"), (b"priority", b"u=1, i"),
    (b"priority", b"u=9"), (b"expect", b"100-continue"),
    (b"content-type", b"text/plain"), (b"authorization", b"secret"), (b"via", b"2 p"),
]  # fmt: skip
TRAILERS: list[Fields] = [[], [(b"t", b"1")], [(b"a", b"b"), (b"x-long", b"t" * 500)]]
ROOM = 700_000  # bytes of bodies, for which the connection's window has room whenever they are received
BODY_SIZES = [0, 1, 1, 2, 15, 100, 1000, 5000, 40_000]
VALUES = [
    (Setting.HEADER_TABLE_SIZE, 0), (Setting.HEADER_TABLE_SIZE, 100), (Setting.HEADER_TABLE_SIZE, 65_536),
    (Setting.ENABLE_PUSH, 0), (Setting.MAX_CONCURRENT_STREAMS, 10), (Setting.INITIAL_WINDOW_SIZE, 2000),
    (Setting.INITIAL_WINDOW_SIZE, WINDOW), (Setting.INITIAL_WINDOW_SIZE, 10**6),
    (Setting.MAX_FRAME_SIZE, 2**24 - 1), (Setting.MAX_HEADER_LIST_SIZE, 100), (0xFF, 1),
]  # fmt: skip
FIRST_VALUES = [*VALUES, (Setting.NO_RFC7540_PRIORITIES, 1)]  # that one is never changed
WEBSOCKET_FIELDS = [(b"sec-websocket-version", b"13"), (b"origin", b"http://a")]
EXTREMES = [
    PREFACE, SETTINGS_ACK, settings((Setting.INITIAL_WINDOW_SIZE, 0)),
    settings((Setting.INITIAL_WINDOW_SIZE, 2**31)),
    settings((Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW)), settings(*[(0xFF, 1)] * 40),
    settings((Setting.ENABLE_PUSH, 2)),
    window_update(0, 0), window_update(1, 0), window_update(0, MAX_WINDOW), window_update(1, MAX_WINDOW),
    rst_stream(0), rst_stream(1), rst_stream(3), rst_stream(2**31 - 1), goaway(),
    goaway(MAX_WINDOW, 0xFF, b"bye"),
    data(0, b"x"), data(1, b"x"), data(1, b"", end_stream=True), data(1, b"x" * FRAME_SIZE),
    data(1, padding=255),
    headers(1, b""), headers(1, b"\x82\x84\x86", end_headers=False),
    headers(5, b"\x82\x84\x86", depends_on=5),
    headers(2**31 - 1, b"\x82\x84\x86"), headers(7, b"\xff" * 20),
    headers(9, b"\x82\x84\x86\x41\x01a" + b"\xbe" * 3000),
    continuation(1, b"\x82"), continuation(1, b"", end_headers=False), push_promise(1, 2, b"\x82"),
    ping(), ping(ack=True), bytes(Frame(FrameType.PING, 0, 1, bytes(8))), priority(1, 1), priority(0),
    priority(9),
    priority_update(1, b"u=0"), priority_update(0, b"u=0"), priority_update(1, b"\xff" * 200),
    bytes(Frame(0x16, 0xFF, 1, bytes(100))), bytes(Frame(FrameType.DATA, 0, 1, bytes(FRAME_SIZE + 1))),
    bytes(Frame(FrameType.SETTINGS, 0, 0, bytes(5))), bytes(Frame(FrameType.GOAWAY, 0, 0, bytes(3))),
]  # fmt: skip


@dataclass
class Request:
    """A request, as the application is to see it."""

    method: str  # WEBSOCKET of one that opens a WebSocket
    raw_path: bytes
    query: bytes
    headers: Fields
    body: bytes = b""


@dataclass
class Script:
    """A client's frames, and what they mean: requests by streams, SETTINGS in order, the windows given.

    The streams `given_up` are reset by the client, which `leaves` if it ends with GOAWAY.
    """

    frames: list[bytes] = field(default_factory=list)
    requests: dict[int, Request] = field(default_factory=dict)
    settings: list[dict[int, int]] = field(default_factory=list)
    credit: Counter[int] = field(default_factory=Counter)
    given_up: set[int] = field(default_factory=set)
    leaves: bool = False
    is_valid: bool = True

    @property
    def data(self) -> bytes:
        return b"".join(self.frames)


class ScriptMaker:
    """Makes one Script."""

    def __init__(self, rng: Random, websocket_share: float, reset_share: float) -> None:
        self.rng = rng
        self.reset_share = reset_share
        self.websocket_share = websocket_share
        self.encoder = hpack.Encoder()
        self.script = Script()
        self.opened: list[int] = []
        self.next_stream = rng.choice([1, 1, 1, 7, 1001])
        self.room = ROOM

    def make(self) -> Script:
        """A valid one."""
        rng = self.rng
        self._set(FIRST_VALUES, PREFACE)
        left = rng.choice([1, 1, 2, 3, 10, 40])
        most = rng.choice([1, 3, 20])  # requests that are sent at once
        sending: list[tuple[int, list[bytes]]] = []
        while left or sending:
            if left and (not sending or (len(sending) < most and rng.random() < 0.5)):
                left -= 1
                sending.append((self.next_stream, self._request()))
            elif rng.random() < 0.15:
                self._add_noise()
            else:
                stream, frames = at = rng.choice(sending)
                if rng.random() < self.reset_share:
                    frames[:] = [rst_stream(stream, rng.choice([0, 8, 0xFF]))]
                    self.script.given_up.add(stream)
                self.script.frames.append(frames.pop(0))
                if not frames:
                    sending.remove(at)
        if rng.random() < 0.1:
            self.script.leaves = True
            self.script.frames.append(goaway(debug=b"leaving"))
        return self.script

    def _set(self, possible: list[tuple[int, int]], before: bytes = b"") -> None:
        values = self.rng.sample(possible, self.rng.choice([0, 1, 3]))
        self.script.settings.append(dict(values))
        self.script.frames.append(before + settings(*values))

    def _add_noise(self) -> None:
        """A frame that belongs to no request."""
        rng = self.rng
        stream = rng.choice([0, *self.opened])
        kind = rng.randrange(6)
        if kind == 0:
            self._set(VALUES)
            return
        increment = rng.choice([1, 100, 10_000])
        frame = [
            ping(rng.randbytes(8), ack=rng.random() < 0.2),
            window_update(stream, increment),
            priority(stream or self.next_stream, rng.choice([0, self.next_stream + 2])),
            priority_update(
                stream or self.next_stream, rng.choice([b"", b"u=0", b"u=7, i", b"i=?0", b"\xff"])
            ),
            bytes(Frame(rng.choice([0x16, 0xA, 0xFF]), rng.randrange(256), stream, rng.randbytes(9))),
        ][kind - 1]
        if kind == 2:
            self.script.credit[stream] += increment
        self.script.frames.append(frame)

    def _request(self) -> list[bytes]:
        """Encode the head of a request, as the next frames; returns the frames behind it."""
        rng = self.rng
        stream = self.next_stream
        self.next_stream += rng.choice([2, 2, 2, 4, 100])
        self.opened.append(stream)
        if rng.random() < self.websocket_share:
            return self._websocket(stream)
        method = rng.choice(METHODS)
        target = b"*" if method == b"OPTIONS" and rng.random() < 0.3 else rng.choice(TARGETS)
        body = make_body(rng, rng.choice(BODY_SIZES)) if rng.random() < 0.5 else b""
        self.room -= len(body)
        if self.room < 0:
            body = b""
        fields = rng.sample(FIELDS, rng.choice([0, 0, 1, 2, 5]))
        if [name for name, _ in fields].count(b"priority") > 1:
            fields.remove((b"priority", b"u=9"))
        fields.append((b"n", b"%d" % stream))
        if rng.random() < 0.5:
            fields.append((b"content-length", b"%d" % len(body)))
        authority = rng.choice(AUTHORITIES)
        pseudo = [(b":method", method), (b":scheme", b"http"), (b":path", target)]
        if rng.random() < 0.2:
            rng.shuffle(pseudo)
            self._put_head(stream, [*pseudo, *fields, (b"host", authority)], not body)
        else:
            pseudo.append((b":authority", authority))
            rng.shuffle(pseudo)
            self._put_head(stream, [*pseudo, *fields], not body)
        raw_path, _, query = target.partition(b"?")
        head = [(b"host", authority), *joined(fields)]
        self.script.requests[stream] = Request(method.decode(), raw_path, query, head, body)
        return self._body(stream, body) if body else [b""]

    def _websocket(self, stream: int) -> list[bytes]:
        pseudo = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http")]
        target, authority = self.rng.choice(TARGETS), self.rng.choice(AUTHORITIES)
        pseudo += [(b":path", target), (b":authority", authority)]
        fields = [*WEBSOCKET_FIELDS, (b"n", b"%d" % stream)]
        self._put_head(stream, [*pseudo, *fields], False)
        raw_path, _, query = target.partition(b"?")
        head = [(b"host", authority), *fields]
        self.script.requests[stream] = Request(WEBSOCKET, raw_path, query, head)
        frames = frames_inputs.make_stream(self.rng, None)[0][: max(0, min(self.room, 100_000))]
        self.room -= len(frames)
        return self._body(stream, frames, 3)

    def _put_head(self, stream: int, fields: Fields, ends: bool) -> None:
        rng = self.rng
        if rng.random() < 0.05:
            self.encoder.header_table_size = rng.choice([0, 100, 4096])
        block = self.encoder.encode(
            [(*pair, rng.random() < 0.1) for pair in fields], huffman=rng.random() < 0.7
        )
        pieces = cut(rng, block, FRAME_SIZE - 300, rng.choice([1, 1, 1, 2, 7]))
        padding = rng.choice([None, None, None, 0, 5, 255])
        depends_on = rng.choice([None, None, None, 0, stream + 2])
        frame = headers(
            stream, pieces[0], end_stream=ends, end_headers=len(pieces) == 1, padding=padding,
            depends_on=depends_on, weight=rng.randint(1, 256), exclusive=rng.random() < 0.5,
        )  # fmt: skip
        parts = [frame]
        parts += [
            continuation(stream, piece, end_headers=i == len(pieces)) for i, piece in enumerate(pieces[1:], 2)
        ]
        self.script.frames.append(b"".join(parts))

    def _body(self, stream: int, body: bytes, kinds: int = 4) -> list[bytes]:
        """DATA, and an end to it: on the last piece, on an empty one, or by trailers: the last kind."""
        rng = self.rng
        pieces = cut(rng, body, FRAME_SIZE - 256, rng.choice([1, 1, 2, 5, 30]))
        frames = [data(stream, piece, padding=rng.choice([None, None, None, 0, 9])) for piece in pieces[:-1]]
        kind = rng.randrange(kinds)
        frames.append(data(stream, pieces[-1], end_stream=kind < 2))
        if kind == 2:
            frames.append(data(stream, b"", end_stream=True))
        elif kind == 3:
            # Of fields that are in no table, since it is not told when they are sent
            frames.append(headers(stream, literals(rng.choice(TRAILERS))))
        return frames


def literals(fields: Fields) -> bytes:
    """A block that needs no table and changes none."""
    return hpack.Encoder().encode([(*pair, True) for pair in fields], huffman=False)


def joined(fields: Fields) -> Fields:
    """The fields with all crumbs of the cookie in the place of the first (RFC 9113 section 8.2.3)."""
    crumbs = [value for name, value in fields if name == b"cookie"]
    result: Fields = []
    for name, value in fields:
        if name != b"cookie":
            result.append((name, value))
        elif crumbs:
            result.append((name, b"; ".join(crumbs)))
            crumbs = []
    return result


def cut(rng: Random, payload: bytes, most: int, count: int) -> list[bytes]:
    """A payload in about so many pieces of at most so many bytes; one at least."""
    cuts = {rng.randint(0, len(payload)) for _ in range(count - 1)} | set(range(0, len(payload), most))
    edges = sorted({0, *cuts, len(payload)})
    return [payload[a:b] for a, b in itertools.pairwise(edges)] or [b""]


def mutate(rng: Random, frames: list[bytes]) -> None:
    """Spoil a client's frames in one place."""
    at = rng.randrange(len(frames))
    frame = bytearray(frames[at])
    kind = rng.randrange(9)
    if kind == 0:
        frames.insert(at, rng.choice(EXTREMES))
    elif kind == 1:
        frames[at:at] = [rng.choice(EXTREMES)] * rng.choice([2, 100, 1100])
    elif kind == 2:
        del frames[at]
        frames.append(b"")
    elif kind == 3:
        frames.insert(rng.randrange(len(frames)), frames[at])
    elif kind == 4:
        frames.insert(rng.randrange(len(frames)), frames.pop(at))
    elif kind == 5 and frame:
        frame[rng.randrange(min(9, len(frame)))] = rng.choice([0, 1, 2, 4, 8, 0x25, 0xFF])
        frames[at] = bytes(frame)
    elif kind == 6 and frame:
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        frames[at] = bytes(frame)
    elif kind == 7:
        start = rng.randint(0, len(frame))
        frames[at] = bytes(frame[:start]) + rng.randbytes(rng.randint(1, 3)) + bytes(frame[start:])
    else:
        start = rng.randint(0, len(frame))
        frames[at] = bytes(frame[:start] + frame[start + rng.choice([1, 2, 9]) :])


def make_script(
    rng: Random, websocket_share: float = 0, reset_share: float = 0, mutations: int = 0
) -> Script:
    """All that a client sends on one connection.

    So many of its requests are to open a WebSocket; before so many frames it gives the request up.
    """
    script = ScriptMaker(rng, websocket_share, reset_share).make()
    for _ in range(mutations):
        mutate(rng, script.frames)
    if mutations and rng.random() < 0.2:
        last = rng.randrange(len(script.frames))
        script.frames[last:] = [script.frames[last][: rng.randint(0, len(script.frames[last]))]]
    script.is_valid = not mutations
    return script


def split(rng: Random, frames: list[bytes]) -> list[bytes]:
    """Cut a client's frames into reads."""
    joined = b"".join(frames)
    kind = rng.randrange(5)
    if kind == 0:
        return [joined]
    if kind == 1:
        return [frame for frame in frames if frame]
    if kind == 2 and len(joined) < 1500:
        return [joined[n : n + 1] for n in range(len(joined))]
    if kind == 3:
        ends = list(itertools.accumulate(len(frame) for frame in frames))
        cuts = [end + rng.randint(-2, 10) for end in rng.sample(ends, min(len(ends), 40))]
    else:
        cuts = [rng.randint(0, len(joined)) for _ in range(rng.choice([1, 2, 5, 30]))]
    edges = sorted({0, *(cut for cut in cuts if 0 < cut < len(joined)), len(joined)})
    return [joined[a:b] for a, b in itertools.pairwise(edges)]
