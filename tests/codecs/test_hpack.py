"""Decoding of HPACK (RFC 7541): what is malformed, limits, the dynamic table, what is remembered."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import hpack
import pytest
from headerblocks import (
    STATIC_FIELDS,
    Pair,
    added,
    huffman,
    indexed,
    integer,
    never_added,
    not_added,
    size_of,
    size_update,
    string,
)

from fastasgi.codecs.fieldnames import NAMED
from fastasgi.codecs.hpack import STATIC, FieldList, HPACKDecoder, HPACKError

NEWEST = STATIC_FIELDS + 1  # the index of the entry that was added last

# ---- The examples of RFC 7541 appendix C: blocks, fields, and the sizes of the table behind them

REQUESTS = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
_DATE = b"Mon, 21 Oct 2013 20:13:2%d GMT"
RESPONSES = [
    [
        (b":status", b"302"),
        (b"cache-control", b"private"),
        (b"date", _DATE % 1),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"307"),
        (b"cache-control", b"private"),
        (b"date", _DATE % 1),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", _DATE % 2),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]
EXAMPLES = {
    "C.2.1 literal with indexing": (
        ["400a637573746f6d2d6b65790d637573746f6d2d686561646572"],
        [[(b"custom-key", b"custom-header")]],
        [55],
    ),
    "C.2.2 literal without indexing": (
        ["040c2f73616d706c652f70617468"],
        [[(b":path", b"/sample/path")]],
        [0],
    ),
    "C.2.3 literal never indexed": (
        ["100870617373776f726406736563726574"],
        [[(b"password", b"secret")]],
        [0],
    ),
    "C.2.4 indexed": (["82"], [[(b":method", b"GET")]], [0]),
    "C.3 requests": (
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        REQUESTS,
        [57, 110, 164],
    ),
    "C.4 requests by Huffman code": (
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
        REQUESTS,
        [57, 110, 164],
    ),
    "C.5 responses, with a table of 256 bytes": (
        [
            "3fe101"
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
            "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41"
            "53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f"
            "6e3d31",
        ],
        RESPONSES,
        [222, 222, 215],
    ),
    "C.6 responses by Huffman code, with a table of 256 bytes": (
        [
            "3fe101"
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97"
            "c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd"
            "5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
        RESPONSES,
        [222, 222, 215],
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_rfc(example: str) -> None:
    decoder = HPACKDecoder()
    blocks, expected, sizes = EXAMPLES[example]
    for block, fields, size in zip(blocks, expected, sizes, strict=True):
        assert decoder.read(bytes.fromhex(block)) == fields
        assert decoder.table_size == size


def test_the_table_behind_the_last_example() -> None:
    decoder = HPACKDecoder()
    for block in EXAMPLES["C.6 responses by Huffman code, with a table of 256 bytes"][0]:
        decoder.read(bytes.fromhex(block))
    assert decoder.table == [RESPONSES[2][5], (b"content-encoding", b"gzip"), (b"date", _DATE % 2)]


def test_the_static_table_is_that_of_others() -> None:
    assert list(STATIC) == list(hpack.table.HeaderTable.STATIC_TABLE)
    for index, pair in enumerate(STATIC, 1):
        assert HPACKDecoder().read(indexed(index)) == [pair]


# ---- What is malformed

MALFORMED = {
    "index 0": (indexed(0), "the index 0 of a field"),
    "index behind the static table": (indexed(62), "the index of a field is beyond the tables"),
    "index of 32 bits": (indexed(2**32 - 1), "the index of a field is beyond the tables"),
    "index of a name behind the static table": (
        not_added(62, b""),
        "the index of a name is beyond the tables",
    ),
    "index of a name to add behind the static table": (
        added(70, b""),
        "the index of a name is beyond the tables",
    ),
    "integer that ends early": (b"\xff", "the block ends within an integer"),
    "integer that ends behind a continuation": (b"\xff\x80\x80", "the block ends within an integer"),
    "integer of 33 bits": (indexed(2**32), "an integer has more than 32 bits"),
    "integer of 5 continuation bytes, all set": (
        b"\xff\xff\xff\xff\xff\x7f",
        "an integer has more than 32 bits",
    ),
    "integer with 6 continuation bytes": (
        b"\xff\x80\x80\x80\x80\x80\x00",
        "an integer has more than 32 bits",
    ),
    "integer without end": (b"\xff" + b"\x80" * 100_000, "an integer has more than 32 bits"),
    "no name": (b"\x40", "the block ends before a string"),
    "no value": (b"\x41", "the block ends before a string"),
    "name that ends early": (b"\x40\x02a", "the block ends within a string"),
    "value that ends early": (b"\x41\x02a", "the block ends within a string"),
    "coded value that ends early": (b"\x41\x82\xff", "the block ends within a string"),
    "value of 4 GiB": (b"\x41" + integer(2**32 - 1, 7), "the block ends within a string"),
    "length that ends early": (b"\x41\x7f\x80", "the block ends within an integer"),
    "EOS in a string": (b"\x41\x84\xff\xff\xff\xff", "the Huffman code of a string is malformed"),
    "EOS before ten times 0": (
        b"\x41\x8a\xff\xff\xff\xfc" + bytes(6),
        "the Huffman code of a string is malformed",
    ),
    "padding of 8 bits": (b"\x41\x82\x1f\xff", "the Huffman code of a string is malformed"),
    "padding alone of 8 bits": (b"\x41\x81\xff", "the Huffman code of a string is malformed"),
    "padding of zeros": (b"\x41\x82\xf8\x00", "the Huffman code of a string is malformed"),
    "padding with one zero": (b"\x41\x81\x1e", "the Huffman code of a string is malformed"),
    "EOS in a name": (b"\x40\x84\xff\xff\xff\xff\x00", "the Huffman code of a string is malformed"),
    "table larger than allowed": (
        size_update(4097),
        "the table is made larger than SETTINGS_HEADER_TABLE_SIZE",
    ),
    "table of 4 GiB": (
        size_update(2**32 - 1),
        "the table is made larger than SETTINGS_HEADER_TABLE_SIZE",
    ),
    "size update that ends early": (b"\x3f", "the block ends within an integer"),
    "size update behind a field": (
        indexed(2) + size_update(100),
        "the table's size is changed behind a field",
    ),
    "size update between fields": (
        indexed(2) + size_update(4096) + indexed(2),
        "the table's size is changed behind a field",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed(case: str) -> None:
    block, reason = MALFORMED[case]
    with pytest.raises(HPACKError, match=f"^{reason}$"):
        HPACKDecoder().read(block)


def test_an_evicted_entry_has_no_index() -> None:
    decoder = HPACKDecoder()
    decoder.read(added(b"a", b"b"))
    assert decoder.read(indexed(NEWEST)) == [(b"a", b"b")]
    with pytest.raises(HPACKError, match="beyond the tables"):
        decoder.read(size_update(0) + indexed(NEWEST))


def test_integers_of_every_length() -> None:
    for length in [0, 1, 126, 127, 128, 254, 255, 16_510, 16_511, 20_000]:
        value = b"v" * length
        for coded in (False, True):
            assert HPACKDecoder().read(not_added(b"a", value, coded=coded)) == [(b"a", value)]


def test_integers_need_not_have_the_shortest_form() -> None:
    block = b"\x00" + string(b"a") + b"\x7f\x80\x80\x80\x80\x00" + b"v" * 127
    assert HPACKDecoder().read(block) == [(b"a", b"v" * 127)]


# ---- Huffman's code


def test_the_code_of_these_tests_is_that_of_the_rfc() -> None:
    assert huffman(b"www.example.com").hex() == "f1e3c2e5f23a6ba0ab90f4ff"


def test_every_byte_by_its_code() -> None:
    for byte in range(256):
        for n in (1, 2, 3, 7, 8, 9, 40):
            text = bytes([byte]) * n
            assert HPACKDecoder().read(not_added(b"a", text, coded=True)) == [(b"a", text)]
    text = bytes(range(256)) * 3
    assert HPACKDecoder().read(not_added(text, text, coded=True)) == [(text, text)]


def test_no_string_is_read_behind_its_end(fence: memoryview) -> None:
    for text in (b"www.example.com", b"\x00\xff" * 5, b"a", b"0123456789" * 7):
        block = not_added(b"x" * (len(text) % 7), text, coded=True)
        for n in range(len(block) + 1):
            start = len(fence) - n
            fence[start:] = block[:n]
            with fence[start:] as view:
                try:
                    assert HPACKDecoder().read(view) == ([] if n == 0 else [(b"x" * (len(text) % 7), text)])
                    assert n in (0, len(block))
                except HPACKError:
                    assert 0 < n < len(block)


# ---- What names and values may have


def faults_of(name: bytes, value: bytes) -> int:
    decoder = HPACKDecoder()
    fields = FieldList()
    decoder.read(added(name, value), fields)
    (fresh,) = fields.details
    decoder.read(indexed(NEWEST), fields)
    (again,) = fields.details
    decoder.read(not_added(NEWEST, value), fields)
    (named,) = fields.details
    assert fresh.faults == again.faults == named.faults
    return fresh.faults


@pytest.mark.parametrize("name", [b"a", b"x-y", b"!#$%&'*+-.^_`|~09az", b"host", b":path", b":protocol"])
def test_good_names(name: bytes) -> None:
    assert faults_of(name, b"x") == 0


@pytest.mark.parametrize(
    "name",
    [b"", b"A", b"Host", b"a b", b"a\0", b"\0", b"a\n", b":", b":x", b":Path", b"a:", b"\xe9", b"a\x7f"],
)
def test_faulty_names(name: bytes) -> None:
    assert faults_of(name, b"x") == 1
    assert faults_of(name, b"\0") == 3


@pytest.mark.parametrize("value", [b"", b"x", b"a b", b"a\tb", b"\xff\x80", b"x" * 100 + b" y"])
def test_good_values(value: bytes) -> None:
    assert faults_of(b"a", value) == 0


@pytest.mark.parametrize(
    "value",
    [b" ", b"\t", b" x", b"x ", b"x\t", b"a\rb", b"a\n", b"\0", b"a\x7f", b"\x1f", b"x" * 100 + b"\0y"],
)
def test_faulty_values(value: bytes) -> None:
    assert faults_of(b"a", value) == 2


def test_known_names() -> None:
    fields = FieldList()
    names = [*NAMED, "x-unheard-of"]
    HPACKDecoder().read(b"".join(not_added(name.encode(), b"x") for name in names), fields)
    assert [field.known for field in fields.details] == [*NAMED.values(), None]


# ---- Limits


def test_fields_up_to_the_count() -> None:
    fields = FieldList(max_count=3)
    block = indexed(2) * 3
    assert len(HPACKDecoder().read(block, fields)) == 3
    assert not fields.has_more
    assert len(HPACKDecoder().read(block + indexed(2), fields)) == 3
    assert fields.has_more


def test_cookie_crumbs_do_not_count() -> None:
    fields = FieldList(max_count=1)
    crumbs = not_added(32, b"a=b") * 500
    assert len(HPACKDecoder().read(crumbs + indexed(2), fields)) == 501
    assert not fields.has_more
    assert len(HPACKDecoder().read(crumbs + indexed(2) * 2, fields)) == 501
    assert fields.has_more


def test_fields_up_to_the_size() -> None:
    pairs = [(b"name", b"value"), (b"cookie", b"a=b")]
    fields = FieldList(max_size=size_of(pairs))
    block = b"".join(not_added(name, value) for name, value in pairs)
    assert HPACKDecoder().read(block, fields) == pairs
    assert not fields.has_more
    fields = FieldList(max_size=size_of(pairs) - 1)
    assert HPACKDecoder().read(block, fields) == pairs[:1]
    assert fields.has_more


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(indexed(NEWEST), id="indexed"),
        pytest.param(added(NEWEST, b""), id="added"),
        pytest.param(not_added(32, b""), id="crumbs"),
        pytest.param(not_added(b"", b""), id="empty"),
    ],
)
def test_too_much(field: bytes) -> None:
    decoder = HPACKDecoder()
    decoder.read(added(b"a", b"b"))
    fields = FieldList(max_size=1000)
    with pytest.raises(HPACKError, match="four times"):
        decoder.read(field * 200, fields)
    assert size_of([field[:2] for field in fields.details]) <= 1000


def test_four_times_the_size_is_not_too_much() -> None:
    fields = FieldList(max_size=1000)
    assert len(HPACKDecoder().read(not_added(b"", b"12345678") * 100, fields)) == 25
    with pytest.raises(HPACKError, match="four times"):
        HPACKDecoder().read(not_added(b"", b"12345678") * 101, fields)


def test_the_table_stays_right_behind_what_is_not_kept() -> None:
    decoder = HPACKDecoder()
    fields = FieldList(max_count=2)
    block = b"".join(added(b"n%d" % n, b"v") for n in range(4))
    assert decoder.read(block, fields) == [(b"n0", b"v"), (b"n1", b"v")]
    assert fields.has_more
    assert decoder.read(indexed(NEWEST) + indexed(NEWEST + 1), fields) == [(b"n3", b"v"), (b"n2", b"v")]
    assert not fields.has_more


@pytest.mark.parametrize(
    "limits", [{"max_count": 0}, {"max_count": 2**21}, {"max_size": 0}, {"max_size": 2**29}]
)
def test_impossible_limits(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(limits))} is "):
        FieldList(**limits)


# ---- The dynamic table


def test_the_oldest_entries_are_evicted() -> None:
    decoder = HPACKDecoder()
    pairs = [(b"name-%03d" % n, b"value-%03d" % n) for n in range(200)]
    most = 4096 // size_of(pairs[:1])
    for n, (name, value) in enumerate(pairs, 1):
        decoder.read(added(name, value))
        assert decoder.table == pairs[max(0, n - most) : n][::-1]
        assert decoder.table_size == size_of(decoder.table)


def test_as_many_entries_as_there_can_be() -> None:
    decoder = HPACKDecoder()
    decoder.read(added(b"", b"") * 300)
    assert decoder.table == [(b"", b"")] * 128
    assert decoder.read(indexed(STATIC_FIELDS + 128)) == [(b"", b"")]


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder = HPACKDecoder()
    decoder.read(added(b"a", b"b"))
    large = (b"a", b"x" * 4064)
    assert decoder.read(added(*large)) == [large]
    assert decoder.table == []
    largest = (b"a", b"x" * 4063)
    decoder.read(added(*largest))
    assert decoder.table == [largest]


def test_a_name_of_the_entry_that_is_evicted_for_it() -> None:
    decoder = HPACKDecoder()
    decoder.read(size_update(40) + added(b"evicted", b""))
    assert decoder.read(added(NEWEST, b"x")) == [(b"evicted", b"x")]
    assert decoder.table == [(b"evicted", b"x")]
    assert decoder.read(added(NEWEST, b"xx")) == [(b"evicted", b"xx")]
    assert decoder.table == []


def test_size_updates() -> None:
    decoder = HPACKDecoder()
    decoder.read(added(b"a", b"1") + added(b"a", b"2") + added(b"a", b"3"))
    decoder.read(size_update(70))
    assert decoder.table == [(b"a", b"3"), (b"a", b"2")]
    decoder.read(size_update(34) + size_update(4096))
    assert decoder.table == [(b"a", b"3")]
    decoder.read(size_update(0) + size_update(4096) + indexed(2) + added(b"b", b""))
    assert decoder.table == [(b"b", b"")]


# ---- Pairs


def test_an_indexed_field_is_the_pair_of_its_entry() -> None:
    decoder = HPACKDecoder()
    (first,) = decoder.read(added(b"authorization", b"secret"))
    again, literal = decoder.read(indexed(NEWEST) + not_added(23, b"secret"))
    assert again is first
    assert literal == first
    assert literal is not first
    assert HPACKDecoder().read(indexed(2))[0] is HPACKDecoder().read(indexed(2))[0]


def test_connections_share_the_pairs_that_are_no_secrets() -> None:
    fields = FieldList()
    block = added(b"user-agent", b"test of sharing") + added(b"cookie", b"test of sharing")
    (agent, cookie), (other_agent, other_cookie) = (HPACKDecoder().read(block, fields) for _ in range(2))
    assert agent is other_agent
    assert cookie == other_cookie
    assert cookie is not other_cookie


# ---- What a field means


class Meaning:
    """Something to remember, of which a test sees when it is forgotten."""


def meanings_of(decoder: HPACKDecoder, block: bytes) -> list[Any]:
    fields = FieldList()
    decoder.read(block, fields)
    return [field.meaning for field in fields.details]


def remember(decoder: HPACKDecoder, block: bytes, meaning: object) -> None:
    fields = FieldList()
    decoder.read(block, fields)
    decoder.remember_field(fields, 0, meaning)


def test_a_meaning_stays_with_its_entry() -> None:
    decoder = HPACKDecoder()
    remember(decoder, added(b"a", b"b"), "one")
    remember(decoder, added(b"a", b"b"), "two")
    assert meanings_of(decoder, indexed(NEWEST) + indexed(NEWEST + 1) + indexed(2)) == ["two", "one", None]
    for n in range(100):
        decoder.read(added(b"x", b"%d" % n))
    remember(decoder, indexed(NEWEST + 100), "three")
    assert meanings_of(decoder, indexed(NEWEST + 100) + indexed(NEWEST + 101)) == ["three", "one"]


def test_a_meaning_is_forgotten_with_its_entry() -> None:
    decoder = HPACKDecoder()
    meaning = Meaning()
    gone = weakref.ref(meaning)
    remember(decoder, added(b"a", b"b"), meaning)
    del meaning
    assert gone() is not None
    decoder.read(size_update(0))
    assert gone() is None


def test_a_decoder_lets_go_of_all() -> None:
    decoder = HPACKDecoder()
    gone = []
    for block in (added(b"a", b"b"), added(b"c", b"d"), indexed(NEWEST), indexed(4)):
        meaning = Meaning()
        gone.append(weakref.ref(meaning))
        remember(decoder, block, meaning)
        del meaning
    fields = FieldList()
    (pair,) = decoder.read(added(b"last", b"x"), fields)
    decoder.read(indexed(NEWEST) + indexed(NEWEST + 1) + indexed(4), fields)
    assert [one() is None for one in gone] == [False, True, False, False]
    del decoder
    assert [one() is None for one in gone] == [True, True, False, False]
    del fields
    assert all(one() is None for one in gone)
    lone = object()
    assert sys.getrefcount(pair) == sys.getrefcount(lone)


def test_an_entry_that_is_gone_remembers_nothing() -> None:
    decoder = HPACKDecoder()
    fields = FieldList()
    decoder.read(added(b"a", b"b"), fields)
    decoder.read(size_update(0) + size_update(4096) + added(b"c", b"d"))
    meaning = Meaning()
    gone = weakref.ref(meaning)
    decoder.remember_field(fields, 0, meaning)
    del meaning
    assert gone() is None
    assert meanings_of(decoder, indexed(NEWEST)) == [None]


def test_what_has_no_entry_remembers_nothing() -> None:
    decoder = HPACKDecoder()
    for block in (not_added(b"a", b"b"), never_added(b"a", b"b"), added(b"a", b"x" * 5000), indexed(8)):
        remember(decoder, block, "nothing")
        assert meanings_of(decoder, block) == [None]


def test_pseudo_fields_of_the_static_table_remember() -> None:
    decoder = HPACKDecoder()
    for index in range(1, 8):
        remember(decoder, indexed(index), index)
    assert meanings_of(decoder, bytes(0x80 | index for index in range(1, 9))) == [*range(1, 8), None]
    assert meanings_of(HPACKDecoder(), indexed(4)) == [None]


# ---- What can happen within


def test_a_collection_within_may_lead_to_another_connection() -> None:
    """Pairs are tuples, whose allocation may run finalizers: here they decode what another connection got."""
    others: list[list[Pair]] = []

    class Finalized:
        def __init__(self) -> None:
            self.circle = self

        def __del__(self) -> None:
            pairs = [(b"other-%d" % n, b"x" * 50) for n in range(50)]
            block = b"".join(added(name, value, coded=True) for name, value in pairs)
            assert HPACKDecoder().read(block, FieldList()) == pairs
            others.append(pairs)

    pairs = [(b"own-%d" % n, b"y" * 60) for n in range(60)]
    block = b"".join(added(name, value, coded=True) for name, value in pairs)
    decoder = HPACKDecoder()
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(20):
            Finalized()
            assert decoder.read(block) == pairs
    finally:
        gc.set_threshold(*before)
    assert others


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs _testcapi")
def test_memory_that_runs_out() -> None:
    program = Path(__file__).parent.parent / "helpers" / "hpack_without_memory.py"
    environment = {**os.environ, "PYTHONPATH": str(program.parent)}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
