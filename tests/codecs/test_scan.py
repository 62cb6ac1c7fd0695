"""Scanning of request heads, and that nothing is read behind their end."""

import pytest
from heads import GOOD_HEADS, REFUSED, outcome
from hypothesis import given
from hypothesis import strategies as st

from fastasgi._parser import _scan, parse_request_head

# ---- Scanning

CLASSES = {
    "value": {0x09, *range(0x20, 0x7F), *range(0x80, 0x100)},
    "path": {*range(0x21, 0x7F)} - set(b"#?%"),
    "query": {*range(0x21, 0x7F)} - set(b"#"),
    "token": set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "regname": set(b"-._~!$&'()*+,;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "quoted": {0x09, 0x20, *range(0x21, 0x7F), *range(0x80, 0x100)} - set(b'"\\'),
}
IMPLEMENTATIONS = ["scalar", "16", "32", "chosen"]

every_scan = pytest.mark.parametrize(
    ("implementation", "kind"),
    [(name, kind) for name in IMPLEMENTATIONS for kind in CLASSES if _scan(name, kind, b"") is not None],
)


def test_short_classes_are_scanned_byte_by_byte_only() -> None:
    for kind in ("token", "regname", "quoted"):
        assert _scan("16", kind, b"") is _scan("32", kind, b"") is None


@every_scan
def test_scan_knows_all_bytes(implementation: str, kind: str) -> None:
    inside = bytes([min(CLASSES[kind] - set(b"\t "))])
    for byte in range(256):
        for where in (0, 5, 15, 16, 31, 32, 40, 70, 99):
            data = inside * where + bytes([byte]) + inside * (99 - where)
            assert _scan(implementation, kind, data) == (100 if byte in CLASSES[kind] else where)


@every_scan
def test_scan_finds_the_first_byte_at_any_place(implementation: str, kind: str) -> None:
    inside = bytes([min(CLASSES[kind] - set(b"\t "))])
    for length in range(101):
        for where in range(length + 1):
            data = inside * where + b"\0" * (length - where)
            assert _scan(implementation, kind, data) == where


@every_scan
def test_scan_starts_anywhere(implementation: str, kind: str) -> None:
    inside = bytes([min(CLASSES[kind] - set(b"\t "))])
    data = b"\0" * 64 + inside * 64 + b"\0" + inside * 70
    for start in range(64, 129):
        assert _scan(implementation, kind, data, start) == 128


@given(data=st.binary(max_size=130), start=st.integers(0, 130))
def test_scans_agree_with_the_scalar_one(data: bytes, start: int) -> None:
    start = min(start, len(data))
    for kind in CLASSES:
        found = {_scan(name, kind, data, start) for name in IMPLEMENTATIONS} - {None}
        assert found == {_scan("scalar", kind, data, start)}


# ---- The end of the input


def at_the_fence(fence: memoryview, data: bytes) -> memoryview:
    """`data`, ending where reading ends."""
    start = len(fence) - len(data)
    fence[start:] = data
    return fence[start:]


def test_no_prefix_is_read_behind_its_end(fence: memoryview) -> None:
    for head in GOOD_HEADS.values():
        for n in range(len(head) + 1):
            with at_the_fence(fence, head[:n]) as view:
                parsed = parse_request_head(view)
            assert (parsed is None) == (n < len(head))


def test_no_refused_prefix_is_read_behind_its_end(fence: memoryview) -> None:
    for head, status in REFUSED.values():
        for n in range(len(head) + 1):
            with at_the_fence(fence, head[:n]) as view:
                assert outcome(view) in {None, status}


@every_scan
def test_no_scan_reads_behind_its_end(fence: memoryview, implementation: str, kind: str) -> None:
    inside = bytes([min(CLASSES[kind] - set(b"\t "))])
    for length in range(101):
        with at_the_fence(fence, inside * length) as view:
            assert _scan(implementation, kind, view) == length
