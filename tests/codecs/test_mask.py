"""Unmasking and the check of UTF-8: each implementation, in any alignment, across any cut."""

import itertools
import random

import pytest
from clientframes import cut, masked
from hypothesis import given
from hypothesis import strategies as st

from fastasgi.codecs.frames import _check_utf8, _unmask

KEY = b"\x01\x82\x7c\xf8"
IMPLEMENTATIONS = [
    name for name in ("scalar", "16", "32", "chosen") if _unmask(name, b"", KEY, 0, bytearray()) is not None
]

every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def naively_unmasked(data: bytes, key: bytes, offset: int) -> bytes:
    return bytes(byte ^ key[(offset + n) % 4] for n, byte in enumerate(data))


def unmasked(implementation: str, data: bytes | memoryview, key: bytes, offset: int) -> tuple[bytes, bool]:
    """The unmasked bytes, and whether one of them is 0x80 or more."""
    target = bytearray(len(data))
    high = _unmask(implementation, data, key, offset, target)
    assert high is not None
    return bytes(target), high


# ---- Unmasking


def test_the_helper_of_other_tests_masks_as_the_naive_loop() -> None:
    for length in range(20):
        assert masked(bytes(range(length)), KEY) == naively_unmasked(bytes(range(length)), KEY, 0)


@every_implementation
def test_all_lengths_and_phases(implementation: str) -> None:
    data = random.Random(1).randbytes(300)
    for length in range(201):
        for offset in range(5):
            expected = naively_unmasked(data[:length], KEY, offset)
            target, high = unmasked(implementation, data[:length], KEY, offset)
            assert target == expected
            assert high == (not expected.isascii())


@every_implementation
def test_all_alignments(implementation: str) -> None:
    data = memoryview(random.Random(2).randbytes(400))
    target = bytearray(400)
    for start in range(33):
        for length in (0, 1, 7, 15, 16, 31, 33, 64, 129, 200):
            piece = data[start : start + length]
            for there in (0, 1, 15, 31):
                with memoryview(target)[there : there + length] as view:
                    _unmask(implementation, piece, KEY, start, view)
                    assert view == naively_unmasked(bytes(piece), KEY, start)


@every_implementation
def test_nothing_beside_the_target_is_written(implementation: str) -> None:
    for length in range(201):
        target = bytearray(b"\xaa" * (length + 80))
        with memoryview(target)[40 : 40 + length] as view:
            _unmask(implementation, b"b" * length, KEY, 0, view)
        assert target[:40] == target[40 + length :] == b"\xaa" * 40


@every_implementation
def test_one_high_byte_is_seen_at_any_place(implementation: str) -> None:
    for length in range(1, 201):
        plain = bytearray(length)
        assert unmasked(implementation, masked(bytes(plain), KEY), KEY, 0)[1] is False
        for where in range(length):
            plain[where] = 0x80
            assert unmasked(implementation, masked(bytes(plain), KEY), KEY, 0)[1] is True
            plain[where] = 0


@every_implementation
@given(data=st.binary(max_size=700), key=st.binary(min_size=4, max_size=4), offset=st.integers(0, 2**40))
def test_any_data_and_key(implementation: str, data: bytes, key: bytes, offset: int) -> None:
    expected = naively_unmasked(data, key, offset)
    assert unmasked(implementation, data, key, offset) == (expected, not expected.isascii())


# ---- UTF-8


def state_of(data: bytes) -> str:
    """What bytes.decode says of a text that may go on."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # An incomplete sequence at the end is the beginning of one that some bytes complete.
        if error.end == len(data) and error.reason == "unexpected end of data":
            return "part"
        return "bad"
    return "whole"


def state_at_every_split(data: bytes) -> set[str]:
    """How the check ends, over all ways to cut the data in two."""
    return {_check_utf8([data[:n], data[n:]]) for n in range(len(data) + 1)}


EDGES = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF]
EDGES += [0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF]


def test_all_sequences_of_two_bytes() -> None:
    for pair in itertools.product(range(256), repeat=2):
        data = bytes(pair)
        assert state_at_every_split(data) == {state_of(data)}, data


@pytest.mark.parametrize("first", EDGES)
def test_all_sequences_of_three_and_four_edge_bytes(first: int) -> None:
    for rest in itertools.chain(itertools.product(EDGES, repeat=2), itertools.product(EDGES, repeat=3)):
        data = bytes([first, *rest])
        assert _check_utf8([data]) == _check_utf8([data[:1], data[1:2], data[2:]]) == state_of(data), data


def test_every_character() -> None:
    for code in [*range(0x20000), *range(0x20000, 0x110000, 251), 0x10FFFE, 0x10FFFF]:
        if not 0xD800 <= code < 0xE000:
            data = chr(code).encode()
            assert _check_utf8([data]) == "whole"
            assert len(data) == 1 or _check_utf8([data[:-1]]) == "part"


CHARACTERS = ["a", "é", "€", "ࠀ", "퟿", "𐀀", "🙂", "\U0010ffff"]
WRONG = [
    b"\x80",
    b"\xc1\x80",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xff",
]


@pytest.mark.parametrize("character", CHARACTERS)
def test_a_character_across_the_edges_of_vectors(character: str) -> None:
    for before in range(70):
        data = b"x" * before + character.encode()
        for end in range(before, len(data) + 1):
            assert _check_utf8([data[:end]]) == state_of(data[:end])
        for after in (0, 1, 15, 16, 17, 40):
            whole = data + b"y" * after
            assert state_at_every_split(whole) == {"whole"}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_byte_across_the_edges_of_vectors(wrong: bytes) -> None:
    for before in range(70):
        for after in (0, 1, 15, 16, 17, 40):
            data = b"x" * before + wrong + b"y" * after
            assert state_at_every_split(data) == {"bad"}


def test_it_is_bad_with_the_first_byte_that_is() -> None:
    text = "κόσμε".encode()
    for wrong, bad_at in ((b"\xed\xa0\x80", 1), (b"\xf4\x90\x80\x80", 1), (b"\xe2\x82a", 2), (b"\xff", 0)):
        data = text + wrong
        assert _check_utf8([data[: len(text) + bad_at]]) in {"whole", "part"}
        assert _check_utf8([data[: len(text) + bad_at + 1]]) == "bad"


def test_nothing_makes_a_bad_text_good_again() -> None:
    assert _check_utf8([b"\xff", b"", b"x" * 100, "é".encode()]) == "bad"


@given(
    st.lists(st.sampled_from([c.encode() for c in CHARACTERS] + [b"x" * 17] + WRONG), max_size=12),
    st.lists(st.integers(0, 200), max_size=4),
)
def test_any_text_in_any_pieces(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    assert _check_utf8(cut(data, places)) == state_of(data)


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=4))
def test_any_bytes_in_any_pieces(data: bytes, places: list[int]) -> None:
    assert _check_utf8(cut(data, places)) == state_of(data)


# ---- The end of the input


@every_implementation
def test_unmasking_touches_nothing_outside(fence: memoryview, implementation: str) -> None:
    for length in range(201):
        for piece in (fence[:length], fence[len(fence) - length :]):
            unmasked(implementation, piece, KEY, 0)
            _unmask(implementation, b"x" * length, KEY, 0, piece)


def test_the_check_touches_nothing_outside(fence: memoryview) -> None:
    fence[:] = ("é" * len(fence)).encode()[: len(fence)]
    for length in range(0, 101, 2):
        assert _check_utf8([fence[:length]]) == "whole"
        assert _check_utf8([fence[len(fence) - length :]]) == "whole"
