"""The cases of the Autobahn test suite, by their numbers, as far as they are about frames.

What its fuzzing client sends is written to the codec in the same chops; what the codec reads is what an echo
server would answer. Sections 12 and 13 send fewer messages, and data of the same kinds made up here.
"""

import html
import json
import random
import zlib
from collections.abc import Iterable
from functools import cache

import pytest
from clientframes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    TAIL,
    TEXT,
    ClientDeflater,
    cut,
    fragments,
    frame,
)
from frameevents import binary, close, ping, pong, text

from fastasgi.codecs.deflate import Deflater, DeflateSettings, negotiate_deflate
from fastasgi.codecs.frames import FrameDecoder, FrameEvent, close_payload

HELLO = b"Hello, world!"
OCTETS = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
GREEK = bytes.fromhex("cebae1bdb9cf83cebcceb5")  # "kosme"


def chopped(data: bytes, size: int) -> list[bytes]:
    return [data[n : n + size] for n in range(0, len(data), size)]


def octets(*frames: bytes) -> list[bytes]:
    return chopped(b"".join(frames), 1)


def failed(code: int) -> FrameEvent:
    return FrameEvent("failed", b"", code)


def decode(chops: Iterable[bytes]) -> list[FrameEvent]:
    """What is read, up to the first failure, which is without its words."""
    decoder = FrameDecoder()
    events = []
    for chop in chops:
        events += decoder.feed(chop)
        if events and events[-1].kind == "failed":
            return [*events[:-1], failed(events[-1].close_code)]
    return events


# Number of the case: the chops in which the client sends, and what comes of them.
Cases = dict[str, tuple[list[bytes], list[FrameEvent]]]

NORMAL_CLOSE = frame(CLOSE, close_payload(1000, ""))


def lengths() -> Cases:
    """1.1 and 1.2: messages of all kinds of lengths."""
    cases: Cases = {}
    for section, opcode, octet, event in (("1.1", TEXT, b"*", text), ("1.2", BINARY, b"\xfe", binary)):
        for n, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), 1):
            cases[f"{section}.{n}"] = [frame(opcode, octet * size)], [event(octet * size)]
        cases[f"{section}.8"] = chopped(frame(opcode, octet * 65_536), 997), [event(octet * 65_536)]
    return cases


PAYLOADS = [b"payload-%d" % n for n in range(10)]

PINGS: Cases = {
    "2.1": ([frame(PING)], [ping()]),
    "2.2": ([frame(PING, HELLO)], [ping(HELLO)]),
    "2.3": ([frame(PING, OCTETS)], [ping(OCTETS)]),
    "2.4": ([frame(PING, b"\xfe" * 125)], [ping(b"\xfe" * 125)]),
    "2.5": ([frame(PING, b"\xfe" * 126)], [failed(1002)]),
    "2.6": (octets(frame(PING, b"\xfe" * 125)), [ping(b"\xfe" * 125)]),
    "2.7": ([frame(PONG), NORMAL_CLOSE], [pong(), close(1000)]),
    "2.8": ([frame(PONG, b"unsolicited"), NORMAL_CLOSE], [pong(b"unsolicited"), close(1000)]),
    "2.9": ([frame(PONG, b"unsolicited"), frame(PING, b"ping")], [pong(b"unsolicited"), ping(b"ping")]),
    "2.10": ([frame(PING, payload) for payload in PAYLOADS], [ping(payload) for payload in PAYLOADS]),
    "2.11": (
        octets(*[frame(PING, payload) for payload in PAYLOADS]),
        [ping(payload) for payload in PAYLOADS],
    ),
}

RESERVED_BITS: Cases = {
    "3.1": ([frame(TEXT, HELLO, rsv=0x10)], [failed(1002)]),
    "3.2": ([frame(TEXT, HELLO) + frame(TEXT, HELLO, rsv=0x20) + frame(PING)], [text(HELLO), failed(1002)]),
    "3.3": ([frame(TEXT, HELLO), frame(TEXT, HELLO, rsv=0x30), frame(PING)], [text(HELLO), failed(1002)]),
    "3.4": (
        octets(frame(TEXT, HELLO), frame(TEXT, HELLO, rsv=0x40), frame(PING)),
        [text(HELLO), failed(1002)],
    ),
    "3.5": ([frame(BINARY, OCTETS, rsv=0x50)], [failed(1002)]),
    "3.6": ([frame(PING, HELLO, rsv=0x60)], [failed(1002)]),
    "3.7": ([frame(CLOSE, rsv=0x70)], [failed(1002)]),
}


def reserved_opcodes() -> Cases:
    """4.1 and 4.2: data and control frames of opcodes that mean nothing."""
    cases: Cases = {}
    for section, first in (("4.1", 3), ("4.2", 11)):
        cases[f"{section}.1"] = [frame(first)], [failed(1002)]
        cases[f"{section}.2"] = [frame(first + 1, b"reserved opcode payload")], [failed(1002)]
        behind = [text(HELLO), failed(1002)]
        cases[f"{section}.3"] = [frame(TEXT, HELLO) + frame(first + 2) + frame(PING)], behind
        cases[f"{section}.4"] = [frame(TEXT, HELLO) + frame(first + 3, HELLO) + frame(PING)], behind
        cases[f"{section}.5"] = octets(frame(TEXT, HELLO), frame(first + 4, HELLO), frame(PING)), behind
    return cases


TWO = fragments(TEXT, [b"fragment1", b"fragment2"])
TWO_AROUND_A_PING = [TWO[0], frame(PING, b"ping"), TWO[1]]
JOINED = text(b"fragment1fragment2")
FIVE = fragments(TEXT, [b"fragment%d" % n for n in range(1, 6)])
FIVE_AROUND_PINGS = [*FIVE[:2], frame(PING, b"ping1"), *FIVE[2:4], frame(PING, b"ping2"), FIVE[4]]
FIVE_EVENTS = [ping(b"ping1"), ping(b"ping2"), text(b"".join([b"fragment%d" % n for n in range(1, 6)]))]
LONELY = frame(CONTINUATION, b"non-continuation payload")
LONELY_OPEN = frame(CONTINUATION, b"non-continuation payload", fin=False)

FRAGMENTS: Cases = {
    "5.1": ([frame(PING, b"fragment1", fin=False) + frame(CONTINUATION, b"fragment2")], [failed(1002)]),
    "5.2": ([frame(PONG, b"fragment1", fin=False) + frame(CONTINUATION, b"fragment2")], [failed(1002)]),
    "5.3": ([b"".join(TWO)], [JOINED]),
    "5.4": (TWO, [JOINED]),
    "5.5": (octets(*TWO), [JOINED]),
    "5.6": ([b"".join(TWO_AROUND_A_PING)], [ping(b"ping"), JOINED]),
    "5.7": (TWO_AROUND_A_PING, [ping(b"ping"), JOINED]),
    "5.8": (octets(*TWO_AROUND_A_PING), [ping(b"ping"), JOINED]),
    "5.9": ([LONELY + frame(TEXT, HELLO)], [failed(1002)]),
    "5.10": ([LONELY, frame(TEXT, HELLO)], [failed(1002)]),
    "5.11": (octets(LONELY, frame(TEXT, HELLO)), [failed(1002)]),
    "5.12": ([LONELY_OPEN + frame(TEXT, HELLO)], [failed(1002)]),
    "5.13": ([LONELY_OPEN, frame(TEXT, HELLO)], [failed(1002)]),
    "5.14": (octets(LONELY_OPEN, frame(TEXT, HELLO)), [failed(1002)]),
    "5.15": ([b"".join(TWO) + LONELY_OPEN + frame(TEXT, HELLO)], [JOINED, failed(1002)]),
    "5.16": ([LONELY_OPEN, *TWO] * 2, [failed(1002)]),
    "5.17": ([LONELY, *TWO] * 2, [failed(1002)]),
    "5.18": ([frame(TEXT, b"fragment1", fin=False) + frame(TEXT, b"fragment2")], [failed(1002)]),
    "5.19": ([b"".join(FIVE_AROUND_PINGS[:3]), b"".join(FIVE_AROUND_PINGS[3:])], FIVE_EVENTS),
    "5.20": (FIVE_AROUND_PINGS, FIVE_EVENTS),
}

UMLAUTS = "Hello-µ@ßöäüàá-UTF-8!!".encode()
SURROGATE = GREEK + b"\xed\xa0\x80edited"

UTF8_MESSAGES: Cases = {
    "6.1.1": ([frame(TEXT)], [text(b"")]),
    "6.1.2": (fragments(TEXT, [b"", b"", b""]), [text(b"")]),
    "6.1.3": (fragments(TEXT, [b"", b"middle frame payload", b""]), [text(b"middle frame payload")]),
    "6.2.1": ([frame(TEXT, UMLAUTS)], [text(UMLAUTS)]),
    "6.2.2": (fragments(TEXT, ["Hello-µ@ßöä".encode(), "üàá-UTF-8!!".encode()]), [text(UMLAUTS)]),
    "6.2.3": (fragments(TEXT, chopped(UMLAUTS, 1)), [text(UMLAUTS)]),
    "6.2.4": (fragments(TEXT, chopped(GREEK, 1)), [text(GREEK)]),
    "6.3.1": ([frame(TEXT, SURROGATE)], [failed(1007)]),
    "6.3.2": (fragments(TEXT, chopped(SURROGATE, 1)), [failed(1007)]),
}

# 6.5 on: the parts of Markus Kuhn's test of UTF-8 decoders, and whether each of their sequences is valid.
PREFIXES = [GREEK[:n] for n in range(1, len(GREEK) + 1)]
INCOMPLETE = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]
INCOMPLETE += [b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
HIGH_AND_LOW = [(high, low) for high in ("a080", "adbf", "ae80", "afbf") for low in ("b080", "bfbf")]
STARTS = [range(0xC0, 0xDF), range(0xE0, 0xEF), range(0xF0, 0xF7), range(0xF8, 0xFB), range(0xFC, 0xFD)]

SEQUENCES: list[list[tuple[bytes, bool]]] = [
    # 6.5 some valid sequences
    [
        (x.encode(), True)
        for x in ("hello$world", "hello¢world", "hello€world", "hello𤭢world", GREEK.decode())
    ],
    # 6.6 all prefixes of a valid text
    [(x, x.decode(errors="ignore").encode() == x) for x in PREFIXES],
    # 6.7 to 6.10 the first and the last possible sequence of each length
    [(x, True) for x in (b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80")],
    [(x, False) for x in (b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80")],
    [(x, True) for x in (b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf")],
    [(x, False) for x in (b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf")],
    # 6.11 other boundaries
    [
        (b"\xed\x9f\xbf", True),
        (b"\xee\x80\x80", True),
        (b"\xef\xbf\xbd", True),
        (b"\xf4\x8f\xbf\xbf", True),
        (b"\xf4\x90\x80\x80", False),
    ],
    # 6.12 unexpected continuation bytes
    [
        (b"\x80", False),
        (b"\xbf", False),
        *[((b"\x80\xbf" * 3)[:n], False) for n in range(2, 7)],
        (bytes(range(0x80, 0xBF)), False),
    ],
    # 6.13 lonely first bytes
    [(b"".join([b"%c " % x for x in start]), False) for start in STARTS],
    # 6.14 and 6.15 sequences without their last byte, alone and behind each other
    [(x, False) for x in INCOMPLETE],
    [(b"".join(INCOMPLETE), False)],
    # 6.16 impossible bytes
    [(x, False) for x in (b"\xfe", b"\xff", b"\xfe\xfe\xff\xff")],
    # 6.17 to 6.19 overlong forms: of a slash, of the greatest characters, of NUL
    [(bytes.fromhex(x), False) for x in ("c0af", "e080af", "f08080af", "f8808080af", "fc80808080af")],
    [(bytes.fromhex(x), False) for x in ("c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf")],
    [(bytes.fromhex(x), False) for x in ("c080", "e08080", "f0808080", "f880808080", "fc8080808080")],
    # 6.20 and 6.21 surrogates, alone and in pairs
    [(bytes.fromhex("ed" + x), False) for x in ("a080", "adbf", "ae80", "afbf", "b080", "be80", "bfbf")],
    [(bytes.fromhex(f"ed{high}ed{low}"), False) for high, low in HIGH_AND_LOW],
    # 6.22 noncharacters, which are valid
    [(chr(plane << 16 | low).encode(), True) for plane in range(17) for low in (0xFFFE, 0xFFFF)],
    # 6.23 specials, the replacement character among them
    [(chr(code).encode(), True) for code in range(0xFFF9, 0x10000)],
]

UTF8_SEQUENCES: Cases = {
    f"6.{section}.{n}": ([frame(TEXT, sequence)], [text(sequence) if valid else failed(1007)])
    for section, sequences in enumerate(SEQUENCES, 5)
    for n, (sequence, valid) in enumerate(sequences, 1)
}

LARGE = b"BAsd7&jh23" * 26_215
BEHIND = [text(HELLO), close(1000)]
TOO_LONG = b"\x03\xe8" + b"*" * 124

CLOSING: Cases = {
    "7.1.1": ([frame(TEXT, HELLO) + NORMAL_CLOSE], BEHIND),
    "7.1.2": ([NORMAL_CLOSE + frame(CLOSE)], [close(1000)]),
    "7.1.3": ([NORMAL_CLOSE + frame(PING)], [close(1000)]),
    "7.1.4": ([NORMAL_CLOSE + frame(TEXT, HELLO)], [close(1000)]),
    "7.1.5": ([TWO[0] + NORMAL_CLOSE + TWO[1]], [close(1000)]),
    "7.1.6": (
        chopped(frame(TEXT, LARGE) + frame(TEXT, HELLO) + NORMAL_CLOSE + frame(PING), 65_536),
        [text(LARGE), *BEHIND],
    ),
    "7.3.1": ([frame(CLOSE)], [close()]),
    "7.3.2": ([frame(CLOSE, b"a")], [failed(1002)]),
    "7.3.3": ([NORMAL_CLOSE], [close(1000)]),
    "7.3.4": ([frame(CLOSE, b"\x03\xe8Hello World!")], [close(1000, "Hello World!")]),
    "7.3.5": ([frame(CLOSE, TOO_LONG[:-1])], [close(1000, "*" * 123)]),
    "7.3.6": ([frame(CLOSE, TOO_LONG)], [failed(1002)]),
    "7.5.1": ([frame(CLOSE, b"\x03\xe8" + SURROGATE)], [failed(1007)]),
}


def close_codes() -> Cases:
    """7.7, 7.9 and 7.13: codes that are valid, and codes that are not."""
    valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
    invalid = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999]

    def sent(code: int) -> list[bytes]:
        return [frame(CLOSE, code.to_bytes(2, "big"))]

    return {
        **{f"7.7.{n}": (sent(code), [close(code)]) for n, code in enumerate(valid, 1)},
        **{f"7.9.{n}": (sent(code), [failed(1002)]) for n, code in enumerate(invalid, 1)},
        **{f"7.13.{n}": (sent(code), [failed(1002)]) for n, code in enumerate((5000, 65_535), 1)},
    }


CASES: Cases = {
    **lengths(),
    **PINGS,
    **RESERVED_BITS,
    **reserved_opcodes(),
    **FRAGMENTS,
    **UTF8_MESSAGES,
    **UTF8_SEQUENCES,
    **CLOSING,
    **close_codes(),
}


@pytest.mark.parametrize(("chops", "events"), CASES.values(), ids=CASES)
def test_case(chops: list[bytes], events: list[FrameEvent]) -> None:
    assert decode(chops) == events
    assert decode([b"".join(chops)]) == events
    assert decode(octets(*chops)) == events


def test_all_cases_are_here() -> None:
    """As many as the suite has of each section; 6.4 stands below."""
    counts = {section: sum(case.startswith(f"{section}.") for case in CASES) for section in range(1, 8)}
    assert counts == {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 141, 7: 37}


OUT_OF_RANGE = GREEK + b"\xf4\x90\x80\x80edited"


@pytest.mark.parametrize(
    "chops",
    [
        fragments(TEXT, cut(OUT_OF_RANGE, [11, 15])),
        fragments(TEXT, cut(OUT_OF_RANGE, [12, 13])),
        cut(frame(TEXT, OUT_OF_RANGE), [6 + 11, 6 + 15]),
        cut(frame(TEXT, OUT_OF_RANGE), [6 + 12, 6 + 13]),
    ],
    ids=["6.4.1", "6.4.2", "6.4.3", "6.4.4"],
)
def test_the_second_of_three_chops_is_refused_at_once(chops: list[bytes]) -> None:
    assert decode(chops[:1]) == []
    assert decode(chops[:2]) == [failed(1007)]


# ---- 12 and 13: permessage-deflate

# Bytes of a message (characters of a text), and of a fragment, 0: not fragmented. The suite sends 1000 each.
SIZES = [(size, 0) for size in (16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072)]
SIZES += [(size, 256) for size in (8192, 16_384, 32_768, 65_536, 131_072)]
SIZES += [(131_072, 1024), (131_072, 4096), (131_072, 32_768)]
BYTES_OF_A_CASE = 300_000
MAX_MESSAGES = 50

OFFER = b"permessage-deflate; client_no_context_takeover; client_max_window_bits"
ALONE = b"; server_no_context_takeover"
OFFERS = [
    [OFFER],
    [OFFER + ALONE],
    [OFFER + b"; server_max_window_bits=9"],
    [OFFER + b"; server_max_window_bits=15"],
    [OFFER + ALONE + b"; server_max_window_bits=9"],
    [OFFER + ALONE + b"; server_max_window_bits=15"],
    [OFFER + ALONE + b"; server_max_window_bits=9", OFFER + ALONE, OFFER],
]


@cache
def sample(kind: str) -> str | bytes:
    """Data like the suite's, at least 150 000 bytes: 12.1 to 12.5 send one kind each, 13 sends JSON."""
    rng = random.Random(kind)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzäöüß", k=rng.randint(2, 9))) for _ in range(800)]
    prose = " ".join(rng.choices(words, k=30_000))
    if kind == "json":
        return json.dumps(
            [{"id": n, "name": word, "of": rng.random()} for n, word in enumerate(words * 4)],
            ensure_ascii=False,
        )
    if kind == "html":
        return "".join(f'<p class="c{n % 7}">{html.escape(word)}</p>\n' for n, word in enumerate(words * 7))
    if kind == "prose":
        return prose.encode()
    if kind == "bitmap":
        return bytes((x * y // 300 + rng.randint(0, 3)) % 256 for y in range(400) for x in range(400))
    return b"".join([rng.randbytes(3000) + prose[n * 100 : n * 100 + 500].encode() for n in range(45)])


class DeflatingClient:
    """Sends and reads what was agreed on."""

    def __init__(self, settings: DeflateSettings) -> None:
        self._settings = settings
        self._deflate = ClientDeflater(
            window_bits=settings.client_max_window_bits, keeps_window=not settings.client_no_context_takeover
        )
        self._inflater = zlib.decompressobj(-settings.server_max_window_bits)

    def frames(self, message: str | bytes, fragment_bytes: int) -> bytes:
        opcode, data = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        data = self._deflate(data)
        return b"".join(fragments(opcode, chopped(data, fragment_bytes or len(data)), rsv=RSV1))

    def inflate(self, payload: bytes) -> bytes:
        if self._settings.server_no_context_takeover:
            self._inflater = zlib.decompressobj(-self._settings.server_max_window_bits)
        return self._inflater.decompress(payload + TAIL)


def check_echo(kind: str, offers: list[bytes], size: int, fragment_bytes: int) -> None:
    accepted = negotiate_deflate(offers, DeflateSettings(client_max_window_bits=12))
    assert accepted is not None
    settings = accepted[1]
    client, decoder, deflater = DeflatingClient(settings), FrameDecoder(deflate=settings), Deflater(settings)
    data = sample(kind)
    assert len(data) > size
    start = 0
    for _ in range(min(MAX_MESSAGES, max(2, BYTES_OF_A_CASE // size))):
        message = data[start : start + size]
        start = (start + size) % (len(data) - size)
        events = [
            event
            for chop in chopped(client.frames(message, fragment_bytes), 16_384)
            for event in decoder.feed(chop)
        ]
        assert events == [FrameEvent("text" if isinstance(message, str) else "binary", message)]
        raw = message.encode() if isinstance(message, str) else message
        answer = deflater.deflate(raw)
        assert answer is not None
        assert client.inflate(answer) == raw


every_size = pytest.mark.parametrize(
    ("size", "fragment_bytes"), SIZES, ids=[str(n) for n in range(1, len(SIZES) + 1)]
)


@every_size
@pytest.mark.parametrize(
    "kind",
    ["json", "bitmap", "prose", "html", "document"],
    ids=["12.1", "12.2", "12.3", "12.4", "12.5"],
)
def test_deflated_messages_of_each_kind(kind: str, size: int, fragment_bytes: int) -> None:
    check_echo(kind, [OFFER], size, fragment_bytes)


@every_size
@pytest.mark.parametrize("offers", OFFERS, ids=[f"13.{n}" for n in range(1, 8)])
def test_deflated_messages_of_each_offer(offers: list[bytes], size: int, fragment_bytes: int) -> None:
    check_echo("json", offers, size, fragment_bytes)
