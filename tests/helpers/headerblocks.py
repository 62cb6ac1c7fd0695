"""HPACK's representations one by one (RFC 7541 section 6), for header blocks as no encoder makes them."""

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

STATIC_FIELDS = 61
OVERHEAD = 32  # bytes that an entry has beyond name and value (RFC 7541 section 4.1)

Pair = tuple[bytes, bytes]


def integer(number: int, bits: int, pattern: int = 0) -> bytes:
    """An integer in the lowest bits of a byte with this pattern."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([pattern | number])
    number -= most
    more = []
    while number >= 128:
        more.append(number % 128 | 128)
        number //= 128
    return bytes([pattern | most, *more, number])


def huffman(text: bytes) -> bytes:
    return _HUFFMAN.encode(text) if text else b""


def string(text: bytes, *, coded: bool = False) -> bytes:
    return integer(len(huffman(text)), 7, 0x80) + huffman(text) if coded else integer(len(text), 7) + text


def indexed(index: int) -> bytes:
    return integer(index, 7, 0x80)


def _literal(bits: int, pattern: int, name: bytes | int, value: bytes, coded: bool) -> bytes:
    if isinstance(name, int):
        return integer(name, bits, pattern) + string(value, coded=coded)
    return integer(0, bits, pattern) + string(name, coded=coded) + string(value, coded=coded)


def added(name: bytes | int, value: bytes, *, coded: bool = False) -> bytes:
    """A literal that is added to the table; its name is given, or the index of one."""
    return _literal(6, 0x40, name, value, coded)


def not_added(name: bytes | int, value: bytes, *, coded: bool = False) -> bytes:
    return _literal(4, 0x00, name, value, coded)


def never_added(name: bytes | int, value: bytes, *, coded: bool = False) -> bytes:
    return _literal(4, 0x10, name, value, coded)


def size_update(size: int) -> bytes:
    return integer(size, 5, 0x20)


def size_of(pairs: list[Pair]) -> int:
    """The size of a list of fields, and of a table that has them."""
    return sum(len(name) + len(value) + OVERHEAD for name, value in pairs)
