"""Encoding by HPACK (RFC 7541): what is added to the table and what never is; the limits of a peer."""

import sys

import hpack
import pytest
from headerblocks import STATIC_FIELDS, Pair, added, indexed, not_added, size_of, size_update

from fastasgi.codecs.heads import DefaultFields
from fastasgi.codecs.hpack import HPACKEncoder

NEWEST = STATIC_FIELDS + 1  # the index of the entry that was added last

Headers = list[Pair]


def decoded(*blocks: bytes) -> list[Headers]:
    """What another decoder reads."""
    decoder = hpack.Decoder()
    return [
        [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)] for block in blocks
    ]


@pytest.mark.parametrize(
    ("status", "block"),
    [
        (200, b"\x88"),
        (204, b"\x89"),
        (206, b"\x8a"),
        (304, b"\x8b"),
        (400, b"\x8c"),
        (404, b"\x8d"),
        (500, b"\x8e"),
    ],
)
def test_statuses_of_the_static_table(status: int, block: bytes) -> None:
    assert HPACKEncoder().encode([], status=status) == block


@pytest.mark.parametrize("status", [100, 103, 201, 301, 418, 503, 999])
def test_other_statuses_are_added(status: int) -> None:
    encoder = HPACKEncoder()
    first, again = (encoder.encode([], status=status) for _ in range(2))
    assert again == indexed(NEWEST)
    assert decoded(first, again) == [[(b":status", b"%d" % status)]] * 2


@pytest.mark.parametrize("length", [0, 9, 10, 123456, 2**63 - 1])
def test_content_length_is_not_added(length: int) -> None:
    encoder = HPACKEncoder()
    block = encoder.encode([], content_length=length)
    assert block == not_added(28, b"%d" % length)
    assert encoder.table == []


ADDED_AT_ONCE = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"vary", b"Accept-Encoding"),
    (b"content-encoding", b"br"),
    (b"access-control-allow-origin", b"*"),
    (b"strict-transport-security", b"max-age=63072000"),
    (b"x-frame-options", b"DENY"),
]
ADDED_LATER = [
    (b"x-own", b"value"),
    (b"content-security-policy", b"default-src 'self'"),
    (b"accept", b"*/*"),
    (b"x" * 40, b""),
]
NOT_ADDED = [
    (b"etag", b'"abc"'),
    (b"location", b"/elsewhere"),
    (b"last-modified", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    (b"age", b"3"),
    (b"content-length", b"13"),
    (b"content-range", b"bytes 0-1/2"),
    (b"retry-after", b"1"),
    (b"x-request-id", b"7f2c"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"x-large", b"x" * 3072),
    (b"cache-control", b"x" * 3072),
]
NEVER_ADDED = [
    (b"set-cookie", b"a=b; Secure"),
    (b"www-authenticate", b"Basic"),
    (b"authorization", b"x"),
    (b"proxy-authorization", b"x"),
    (b"cookie", b"a=b"),
    (b"x-csrf-token", b"x"),
    (b"x-auth-token", b"x"),
    (b"my-api-key", b"x"),
    (b"client-secret", b"x"),
    (b"x-csrfish", b"x"),
]


@pytest.mark.parametrize("field", ADDED_AT_ONCE, ids=lambda field: field[0].decode())
def test_what_is_added_at_once(field: Pair) -> None:
    encoder = HPACKEncoder()
    first, again = encoder.encode([field]), encoder.encode([field])
    assert again == indexed(NEWEST)
    assert first[0] & 0xC0 == 0x40
    assert decoded(first, again) == [[field]] * 2


@pytest.mark.parametrize("field", ADDED_LATER, ids=lambda field: field[0].decode())
def test_what_is_added_when_it_comes_again(field: Pair) -> None:
    encoder = HPACKEncoder()
    blocks = [encoder.encode([field]) for _ in range(4)]
    assert [block[0] & 0xC0 for block in blocks[:2]] == [0x00, 0x40]
    assert blocks[2:] == [indexed(NEWEST)] * 2
    assert decoded(*blocks) == [[field]] * 4


def test_values_that_never_come_again_do_not_fill_the_table() -> None:
    encoder = HPACKEncoder()
    kept = (b"content-type", b"application/json")
    for n in range(1000):
        encoder.encode([kept, (b"x-process-time", b"0.%06d" % n)])
    assert encoder.table == [kept]


@pytest.mark.parametrize("field", NOT_ADDED, ids=lambda field: field[0].decode())
def test_what_is_not_added(field: Pair) -> None:
    encoder = HPACKEncoder()
    blocks = [encoder.encode([field]) for _ in range(3)]
    assert encoder.table == []
    assert {block[0] & 0xF0 for block in blocks} == {0x00}
    assert decoded(*blocks) == [[field]] * 3


@pytest.mark.parametrize("field", NEVER_ADDED, ids=lambda field: field[0].decode())
def test_what_nobody_may_add(field: Pair) -> None:
    encoder = HPACKEncoder()
    blocks = [encoder.encode([field]) for _ in range(3)]
    assert encoder.table == []
    for block in blocks:
        (header,) = hpack.Decoder().decode(block, raw=True)
        assert header == field
        assert isinstance(header, hpack.NeverIndexedHeaderTuple)


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"te",
        b"Connection",
    ],
)
def test_connection_specific_fields_are_left_out(name: bytes) -> None:
    encoder = HPACKEncoder()
    assert encoder.encode([(name, b"close"), (b"etag", b"1"), (name, b"x")]) == not_added(34, b"1")


def test_names_are_lowered_and_values_stripped() -> None:
    encoder = HPACKEncoder()
    given = [(b"Content-Type", b" text/plain\t"), (b"X-Own", b"a b"), (b"ETAG", b" "), (b"Set-Cookie", b" a")]
    expected = [(b"content-type", b"text/plain"), (b"x-own", b"a b"), (b"etag", b""), (b"set-cookie", b"a")]
    blocks = [encoder.encode(given), encoder.encode(expected), encoder.encode(given)]
    assert decoded(*blocks) == [expected] * 3
    assert encoder.table == [(b"x-own", b"a b"), (b"content-type", b"text/plain")]
    assert blocks[2].startswith(indexed(NEWEST + 1) + indexed(NEWEST))


def test_strings_are_coded_where_that_is_shorter_and_worth_it() -> None:
    encoder = HPACKEncoder()
    assert encoder.encode([(b"etag", b"a" * 23)]) == not_added(34, b"a" * 23)
    assert encoder.encode([(b"etag", b"a" * 24)]) == not_added(34, b"a" * 24, coded=True)
    assert encoder.encode([(b"etag", b"\xff" * 24)]) == not_added(34, b"\xff" * 24)
    assert encoder.encode([(b"vary", b"*a")]) == added(59, b"*a")  # 13 bits, and 3 of padding
    assert encoder.encode([(b"vary", b"aaa")]) == added(59, b"aaa", coded=True)


# ---- The server's own fields


def default_fields(second: int = 784111777) -> DefaultFields:
    defaults = DefaultFields([(b"Server", b"fastasgi"), (b"x-own", b"1")], dated=True)
    defaults.renew(second)
    return defaults


DEFAULTS = [(b"server", b"fastasgi"), (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b"x-own", b"1")]


def test_default_fields_take_a_byte_each() -> None:
    encoder = HPACKEncoder()
    defaults = default_fields()
    blocks = [encoder.encode([], status=200, defaults=defaults) for _ in range(5)]
    assert [len(block) for block in blocks[2:]] == [4, 4, 4]
    assert decoded(*blocks) == [[(b":status", b"200"), *DEFAULTS]] * 5


def test_default_fields_stay_right_when_the_table_or_the_date_changes() -> None:
    encoder = HPACKEncoder()
    defaults, others = default_fields(), DefaultFields([(b"server", b"other")], dated=False)
    decoder = hpack.Decoder()
    for n in range(300):
        fields: Headers = [(b"vary", b"%d" % (n // 3))] if n % 7 < 5 else []
        if n % 11 == 0:
            defaults.renew(784111777 + n)
        if n % 50 == 49:
            encoder.limit_table([0, 4096, 100, 4096][n // 50 % 4])
        if n % 13 == 12:
            expected = [(b"server", b"other"), *fields]
            block = encoder.encode(fields, defaults=others)
        else:
            date = b"Sun, 06 Nov 1994 08:%02d:%02d GMT" % divmod(49 * 60 + 37 + n // 11 * 11, 60)
            expected = [DEFAULTS[0], (b"date", date), DEFAULTS[2], *fields]
            block = encoder.encode(fields, defaults=defaults)
        assert decoder.decode(block, raw=True) == expected


@pytest.mark.parametrize(("has_server", "has_date"), [(True, False), (False, True), (True, True)])
def test_default_fields_that_the_application_has_set(has_server: bool, has_date: bool) -> None:
    encoder = HPACKEncoder()
    defaults = default_fields()
    expected = [field for field, has in zip(DEFAULTS, (has_server, has_date, False), strict=True) if not has]
    blocks = [
        encoder.encode([], defaults=defaults, has_server=has_server, has_date=has_date) for _ in range(3)
    ]
    blocks.append(encoder.encode([], defaults=defaults))
    assert decoded(*blocks) == [expected] * 3 + [DEFAULTS]


def test_default_fields_without_a_date_and_with_two_servers() -> None:
    defaults = DefaultFields([(b"server", b"a"), (b"server", b"b"), (b"connection", b"close")], dated=False)
    assert decoded(HPACKEncoder().encode([], defaults=defaults)) == [[(b"server", b"a"), (b"server", b"b")]]
    assert HPACKEncoder().encode([], defaults=DefaultFields([], dated=False)) == b""


# ---- The peer's SETTINGS_HEADER_TABLE_SIZE

SMALL = (b"vary", b"x")


def test_a_smaller_table_is_told_in_the_next_block() -> None:
    encoder = HPACKEncoder()
    encoder.limit_table(100)
    assert encoder.encode([]) == size_update(100)
    assert encoder.encode([]) == b""


def test_a_larger_table_than_ours_is_not_used() -> None:
    encoder = HPACKEncoder()
    encoder.limit_table(2**32 - 1)
    assert encoder.encode([]) == b""
    for n in range(200):
        encoder.encode([(b"vary", b"%d" % n + b"x" * 100)])
    assert size_of(encoder.table) <= 4096


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([100, 4096], [100, 4096]),
        ([100, 0, 200], [0, 200]),
        ([0, 100, 50, 4096], [0, 4096]),
        ([4096], []),
        ([100, 100], [100]),
        ([8192, 2000, 8192], [2000, 4096]),
    ],
)
def test_of_several_changes_the_smallest_is_told_too(sizes: list[int], told: list[int]) -> None:
    encoder = HPACKEncoder()
    for size in sizes:
        encoder.limit_table(size)
    assert encoder.encode([]) == b"".join(map(size_update, told))
    assert encoder.encode([]) == b""


def test_a_table_that_grows_again() -> None:
    encoder = HPACKEncoder()
    encoder.limit_table(100)
    encoder.encode([])
    encoder.limit_table(200)
    assert encoder.encode([]) == size_update(200)
    encoder.limit_table(150)
    encoder.limit_table(300)
    assert encoder.encode([]) == size_update(150) + size_update(300)


def test_a_smaller_table_evicts() -> None:
    encoder = HPACKEncoder()
    blocks = [encoder.encode([(b"vary", b"1"), (b"vary", b"2"), (b"vary", b"3")])]
    encoder.limit_table(2 * size_of([(b"vary", b"1")]))
    assert encoder.table == [(b"vary", b"3"), (b"vary", b"2")]
    blocks.append(encoder.encode([(b"vary", b"3"), (b"vary", b"1")]))
    assert decoded(*blocks)[1] == [(b"vary", b"3"), (b"vary", b"1")]


def test_no_table() -> None:
    encoder = HPACKEncoder()
    before = encoder.encode([SMALL])
    encoder.limit_table(0)
    blocks = [encoder.encode([SMALL, (b"x", b"y")], status=201) for _ in range(3)]
    assert blocks[1] == not_added(8, b"201") + not_added(59, b"x") + not_added(b"x", b"y")
    assert encoder.table == []
    assert decoded(before, *blocks)[3] == [(b":status", b"201"), SMALL, (b"x", b"y")]


def test_more_entries_than_the_encoder_refers_to() -> None:
    encoder = HPACKEncoder()
    pairs = [(b"vary", b"%d" % n) for n in range(100)]
    blocks = [encoder.encode([pair]) for pair in pairs]
    assert encoder.table == pairs[:35:-1]
    blocks += [encoder.encode([pair]) for pair in pairs[::-1]]
    assert decoded(*blocks) == [[pair] for pair in pairs + pairs[::-1]]
    assert blocks[100:102] == [indexed(NEWEST), indexed(NEWEST + 1)]


def test_an_encoder_lets_go_of_all() -> None:
    encoder = HPACKEncoder()
    name = bytes(bytearray(b"vary"))
    fields = [(name, b"value-%d" % n) for n in range(100)]
    values = [value for _, value in fields]
    before = [sys.getrefcount(value) for value in values]
    names_before = sys.getrefcount(name)
    encoder.encode(fields)
    assert sys.getrefcount(name) == names_before + len(encoder.table)
    assert sys.getrefcount(values[99]) == before[99] + 1
    assert sys.getrefcount(values[0]) == before[0]
    encoder.limit_table(0)
    assert [sys.getrefcount(value) for value in values] == before
    assert sys.getrefcount(name) == names_before
    encoder.limit_table(4096)
    encoder.encode(fields)
    defaults = default_fields()
    held = sys.getrefcount(defaults)
    for _ in range(5):
        encoder.encode([], defaults=defaults)
    assert sys.getrefcount(defaults) == held + 1
    del encoder
    assert [sys.getrefcount(value) for value in values] == before
    assert sys.getrefcount(defaults) == held
