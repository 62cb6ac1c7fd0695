"""Header blocks of HPACK: representations in any order, what spoils them, and fields to encode."""

from random import Random

from headerblocks import Pair, added, indexed, never_added, not_added, size_update

from fastasgi.codecs.hpack import STATIC

NAMES = [
    *sorted({name for name, _ in STATIC}),
    b"x-own",
    b"x-auth-token",
    b"X-Upper",
    b"",
    b"a b",
    b":x",
    b"\0",
]
VALUES = [*(value for _, value in STATIC), b"a", b" a", b"v" * 200, b"w" * 4000, b"0" * 30, b"\0"]
SIZES = [0, 33, 60, 500, 4095, 4096]
SPOILERS = [b"\xff\x80", b"\x80", b"\x3f\xe2\x1f", b"\x7f\xff\xff\xff\xff\x0f", b"\x82\xff\xff", b"\x20"]
FOR_RESPONSES = [name for name in NAMES if name.isascii() and name.replace(b"-", b"").isalnum()]


def _text(rng: Random, usual: list[bytes]) -> bytes:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(usual)
    if kind < 0.8:
        return b"%d" % rng.randrange(20)
    return rng.randbytes(rng.choice([1, 2, 7, 8, 9, 40]))


def _representation(rng: Random) -> bytes:
    if rng.random() < 0.5:
        return indexed(rng.choice([rng.randint(1, 61), rng.randint(62, 70), rng.randint(60, 200)]))
    name = _text(rng, NAMES) if rng.random() < 0.5 else rng.randint(1, 64)
    literal = rng.choice([added, added, added, not_added, never_added])
    return literal(name, _text(rng, VALUES), coded=rng.random() < 0.5)


def make_block(rng: Random) -> bytes:
    """Whole representations; an index may be one that nothing has."""
    updates = [size_update(rng.choice(SIZES)) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    return b"".join(updates + [_representation(rng) for _ in range(rng.choice([0, 1, 3, 10, 60]))])


def spoil(rng: Random, block: bytes) -> bytes:
    at = rng.randint(0, len(block))
    kind = rng.random()
    if kind < 0.4 and at < len(block):
        return block[:at] + bytes([block[at] ^ 1 << rng.randint(0, 7)]) + block[at + 1 :]
    if kind < 0.6:
        return block[:at]
    piece = rng.choice([*SPOILERS, rng.randbytes(2)])
    return block[:at] + piece + block[at + rng.choice([0, len(piece)]) :]


def make_response(rng: Random) -> list[Pair]:
    """Fields as an application may give them: with tokens for names, and nothing in values that ends them."""
    values = [value for value in VALUES if b"\0" not in value]
    return [(rng.choice(FOR_RESPONSES), _value(rng, values)) for _ in range(rng.choice([0, 1, 4, 12, 90]))]


def _value(rng: Random, usual: list[bytes]) -> bytes:
    return _text(rng, usual).translate(None, b"\r\n\0")
