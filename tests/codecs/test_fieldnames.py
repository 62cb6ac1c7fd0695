"""Interned names of fields: each has its constant's index, and nothing else is found."""

import pytest

from fastasgi.codecs.fieldnames import NAMED, known_name


@pytest.mark.parametrize("name", NAMED)
def test_a_name_has_the_index_of_its_constant(name: str) -> None:
    assert known_name(name.encode()) == NAMED[name]


@pytest.mark.parametrize("name", [b"accept", b"user-agent", b"x-forwarded-for", b"set-cookie", b"etag"])
def test_other_names_are_interned_too(name: bytes) -> None:
    known = known_name(name)
    assert known is not None
    assert known not in NAMED.values()


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"\0",
        b"x-unheard-of",
        b"Host",
        b"host\0",
        b"hos",
        b"te\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"authority",
        b"\0authority",  # what a fold of ":authority" to the bytes of tokens would make of it
        b":",
        b":host",
        b":Path",
        b"access-control-request-method" + b"s" * 3,
        b"access-control-request-method" + b"s" * 4,
        b"x" * 1000,
    ],
)
def test_what_is_no_interned_name_is_not_found(name: bytes) -> None:
    assert known_name(name) is None
