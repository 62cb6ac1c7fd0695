"""A program: feeds the HPACK codec while one allocation after the other fails. It must not crash.

What the codec says behind a MemoryError is of no account; but it stays within its memory.
"""

import _testcapi  # type: ignore[import-not-found]
import contextlib
from collections.abc import Callable

from fastasgi.codecs.hpack import FieldList, HPACKDecoder, HPACKEncoder, HPACKError

MAX_ALLOCATIONS = 300
FIELDS = [(b"x-%d" % n, b"value of %d" % n) for n in range(60)] + [
    (b"cookie", b"y" * 6000),
    (b"X-Upper", b" z "),
]


def fails(call: Callable[[], object], number: int) -> bool:
    """Whether a call takes an allocation of this number, counted from 0: it fails."""
    _testcapi.set_nomemory(number, number + 1)
    try:
        call()
    except MemoryError:
        return True
    except HPACKError:
        return False
    finally:
        _testcapi.remove_mem_hooks()
    return False


def try_all(make: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> int:
    """How many allocations failed. `make` gives what is tried, and what is done behind it."""
    count = 0
    for number in range(MAX_ALLOCATIONS):
        tried, behind = make()
        count += fails(tried, number)
        with contextlib.suppress(HPACKError):
            behind()
    return count


encoder = HPACKEncoder()
blocks = [encoder.encode(FIELDS) for _ in range(3)]


def decoding() -> tuple[Callable[[], object], Callable[[], object]]:
    decoder = HPACKDecoder()
    fields = FieldList()
    return lambda: [decoder.read(block, fields) for block in blocks], lambda: decoder.read(blocks[0], fields)


def encoding() -> tuple[Callable[[], object], Callable[[], object]]:
    encoder = HPACKEncoder()
    return lambda: [encoder.encode(FIELDS) for _ in range(3)], lambda: encoder.encode(FIELDS)


assert try_all(decoding)
assert try_all(encoding)
