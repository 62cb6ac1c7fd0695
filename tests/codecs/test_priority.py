"""The priority of a response (RFC 9218): which values count, and which spoil the whole field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastasgi.codecs.priority import ResponsePriority, parse_priority

DEFAULT = ResponsePriority(3, False)

# Values of all types (RFC 9651 section 3.3) that are neither an urgency nor true
OF_OTHER_TYPES = [
    b"-1",
    b"8",
    b"10",
    b"999999999999999",
    b"-999999999999999",
    b"1.0",
    b"-0.125",
    b"123456789012.999",
    b'""',
    b'"a \\"\\\\, u=1"',
    b"token",
    b"*a/b:c!#$%&'*+-.^_`|~",
    b"::",
    b":aGVsbG8=:",
    b"?0",
    b"@1659578233",
    b"@-1",
    b'%"caf%c3%a9"',
    b"()",
    b"( 1 )",
    b'(1 2.5  "x";a;b=?0)',
    b"(1;a=2)",
]

MALFORMED = [
    b",",
    b"u=1,",
    b"u=1, ",
    b",u=1",
    b"u=1,,i",
    b"u=1 i",
    b"u=1;",
    b"u=1;=2",
    b"u=1;a=",
    b"u=1;a=(1)",  # an inner list is no parameter
    b"u =1",
    b"u= 1",
    b"u=",
    b"=1",
    b"U=1",
    b"1",
    b"-a",
    b"u==1",
    b"u=1=",
    b"a=1.",
    b"a=.5",
    b"a=-",
    b"a=--1",
    b"a=1.2345",
    b"a=1234567890123.1",
    b"a=1234567890123456",
    b'a="',
    b'a="x',
    b'a="\\x"',
    b'a="\\',
    b'a="\t"',
    b'a="\xc3\xa9"',
    b"a=:",
    b"a=:aGk=",
    b"a=:-:",
    b"a=?",
    b"a=?2",
    b"a=?true",
    b"a=@",
    b"a=@x",
    b"a=@1.5",
    b"a=%",
    b"a=%x",
    b'a=%"%C3"',
    b'a=%"%c"',
    b'a=%"x',
    b"a=(",
    b"a=(1",
    b"a=(1 ",
    b"a=(1,2)",
    b'a=("x"1)',
    b"a=(1;)",
    b"a=((1))",
    b"a=(1\t2)",
    b"a={",
    b"u=1\0",
    b"u=1\xff",
    b"u=1\r\n",
]


@pytest.mark.parametrize("urgency", range(8))
def test_urgency_and_incremental(urgency: int) -> None:
    value = b"u=%d" % urgency
    assert parse_priority(value) == (urgency, False)
    for incremental in (b"i", b"i=?1"):
        assert parse_priority(value + b", " + incremental) == (urgency, True)
        assert parse_priority(incremental + b"," + value) == (urgency, True)
    assert parse_priority(value + b", i=?0") == (urgency, False)


@pytest.mark.parametrize("value", [b"", b" ", b"   ", b"i=?0", b"x", b"x=1, y=2"])
def test_what_is_not_said_is_the_default(value: bytes) -> None:
    assert parse_priority(value) == DEFAULT


def test_blanks_stand_around_commas_and_at_the_ends() -> None:
    assert parse_priority(b"  u=1 \t,\t i  ") == (1, True)
    assert parse_priority(b"u=1\t") == (1, False)
    assert parse_priority(b"\tu=1") is None


def test_numbers_may_begin_with_zeros() -> None:
    assert parse_priority(b"u=000000000000005") == (5, False)
    assert parse_priority(b"u=-0") == (0, False)


def test_parameters_of_a_value_are_passed_over() -> None:
    assert parse_priority(b'u=1;a;b=2; c="x", i;q=0.5') == (1, True)


@pytest.mark.parametrize("other", OF_OTHER_TYPES)
def test_a_value_of_another_type_or_range_does_not_count(other: bytes) -> None:
    assert parse_priority(b"u=" + other) == DEFAULT
    assert parse_priority(b"i=" + other + b", u=1") == (1, False)
    assert parse_priority(b"i=1, u=?1") == DEFAULT


@pytest.mark.parametrize("other", OF_OTHER_TYPES)
def test_unknown_parameters_are_passed_over(other: bytes) -> None:
    assert parse_priority(b"u=2, *unknown-1._=" + other + b";a;b=c, i") == (2, True)
    assert parse_priority(b"uu=1, ui=2, ii") == DEFAULT


def test_the_last_of_one_key_counts() -> None:
    assert parse_priority(b"u=1, u=5, i, i=?0") == (5, False)
    assert parse_priority(b"u=1, u=token, i, i=1") == DEFAULT


@pytest.mark.parametrize("value", MALFORMED)
def test_nothing_of_a_malformed_value_counts(value: bytes) -> None:
    assert parse_priority(value) is None
    assert parse_priority(b"u=1, i, " + value) is None


PIECES = st.sampled_from(
    [b"u", b"i", b"=", b"3", b"-", b",", b" ", b";", b"?1", b"(", b")", b".", b'"', b"\\", b":"]
)


@given(
    value=st.lists(PIECES | st.sampled_from(OF_OTHER_TYPES), max_size=10).map(b"".join)
    | st.binary(max_size=30)
)
def test_any_bytes_have_a_priority_or_none(value: bytes) -> None:
    parsed = parse_priority(value)
    assert parsed is None or 0 <= parsed.urgency <= 7
    if parsed is not None and value.strip(b" \t"):
        assert parse_priority(b"u=1, " + value.lstrip(b" ")) is not None
