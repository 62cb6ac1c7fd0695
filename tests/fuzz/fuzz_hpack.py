"""Header blocks mean what another decoder reads in them, within the limits; both read what is encoded.

Run by `make fuzz`, and for moments by tests/fuzz/test_fuzz.py.
"""

from array import array
from random import Random

import hpack
from fuzz.driver import main
from fuzz.hpack_inputs import SIZES, make_block, make_response, spoil
from headerblocks import Pair, size_of

from fastasgi.codecs.heads import DefaultFields
from fastasgi.codecs.hpack import FieldList, HPACKDecoder, HPACKEncoder, HPACKError

TABLE_BYTES = 4096
LEFT_OUT = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te"}


def view_of(block: bytes) -> memoryview:
    """An array has no byte behind its last one, so that the sanitizer sees any that is read."""
    return memoryview(array("B", block))


def theirs(decoder: hpack.Decoder, block: bytes) -> list[Pair] | None:
    """What the other decoder reads; None if it refuses the block."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except hpack.HPACKError:
        return None


def ours(decoder: HPACKDecoder, block: bytes, fields: FieldList) -> list[Pair] | str:
    """What is read; if the block is refused, why."""
    try:
        return decoder.read(view_of(block), fields)
    except HPACKError as error:
        return str(error)


def check_list(fields: FieldList, max_count: int, max_size: int) -> None:
    """What is kept is within the limits, and a meaning is that of its field."""
    kept = [(field.name, field.value) for field in fields.details]
    assert size_of(kept) <= max_size
    assert sum(name != b"cookie" for name, _ in kept) <= max_count
    for field in fields.details:
        assert field.meaning in (None, (field.name, field.value))


def check_table(decoder: HPACKDecoder, other: hpack.Decoder) -> None:
    assert decoder.table == [
        (bytes(name), bytes(value)) for name, value in other.header_table.dynamic_entries
    ]
    assert decoder.table_size == size_of(decoder.table) <= TABLE_BYTES


def check_blocks(rng: Random, blocks: list[bytes]) -> None:
    """Decode the blocks of one connection, up to the first that is refused."""
    max_count, max_size = rng.choice([(128, 65536), (1000, 2**20), (3, 65536), (128, 500)])
    decoder, other = HPACKDecoder(), hpack.Decoder(max_header_list_size=2**24)
    fields = FieldList(max_count=max_count, max_size=max_size)
    for block in blocks:
        expected = theirs(other, block)
        found = ours(decoder, block, fields)
        check_list(fields, max_count, max_size)
        if isinstance(found, str):
            # The other one takes integers with more bytes.
            assert expected is None or "integer" in found or size_of(expected) > 4 * max_size
            return
        assert expected is not None
        if fields.has_more:
            assert size_of(expected) > max_size or len(expected) > max_count
            assert size_of(expected) <= 4 * max_size
            remaining = iter(expected)
            assert all(pair in remaining for pair in found)
        else:
            assert found == expected
        check_table(decoder, other)
        for index in range(len(found)):
            if rng.random() < 0.3:
                decoder.remember_field(fields, index, found[index])


def make_defaults(rng: Random) -> DefaultFields | None:
    if rng.random() < 0.3:
        return None
    fields = [(b"server", b"fastasgi"), (b"x-own", b"1"), (b"x-request-id", b"2")]
    return DefaultFields(rng.sample(fields, rng.randint(0, 3)), dated=rng.random() < 0.8)


def pairs_of(defaults: DefaultFields | None) -> list[Pair]:
    """The default fields, read by a decoder that knows nothing yet."""
    return HPACKDecoder().read(HPACKEncoder().encode([], defaults=defaults))


def check_responses(rng: Random, count: int) -> None:
    """Encode the heads of responses on one connection, whose peer changes the size of the table."""
    encoder = HPACKEncoder()
    decoder, other = HPACKDecoder(), hpack.Decoder(max_header_list_size=2**24)
    fields = FieldList(max_count=1000, max_size=2**24)
    defaults = make_defaults(rng)
    usual = make_response(rng)
    for _ in range(count):
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            encoder.limit_table(rng.choice(SIZES))
        if defaults is not None and rng.random() < 0.1:
            defaults.renew(rng.randrange(2**31))
        given = usual if rng.random() < 0.5 else make_response(rng)
        status = rng.choice([200, 304, 404, 201, 503, rng.randint(100, 999)])
        length = rng.choice([-1, 0, 13])
        block = encoder.encode(given, status=status, defaults=defaults, content_length=length)
        expected = [(b":status", b"%d" % status), *pairs_of(defaults)]
        expected += [(name.lower(), value.strip(b" \t")) for name, value in given if name not in LEFT_OUT]
        expected += [(b"content-length", b"%d" % length)] if length >= 0 else []
        assert ours(decoder, block, fields) == theirs(other, block) == expected
        assert encoder.table == decoder.table[: len(encoder.table)]
        check_table(decoder, other)


class HPACKTarget:
    """Header blocks of a peer, good ones, spoilt ones and any bytes; and responses."""

    def run_case(self, seed: int) -> None:
        rng = Random(seed)
        if rng.random() < 0.3:
            check_responses(rng, rng.choice([1, 3, 20]))
            return
        blocks = [make_block(rng) for _ in range(rng.choice([1, 3, 20]))]
        for _ in range(rng.choice([0, 0, 1, 3])):
            at = rng.randrange(len(blocks))
            blocks[at] = spoil(rng, blocks[at]) if rng.random() < 0.9 else rng.randbytes(rng.randint(0, 60))
        check_blocks(rng, blocks)

    def run_input(self, data: bytes) -> None:
        for seed in range(20):
            rng = Random(seed)
            cut = rng.randint(0, len(data))
            check_blocks(rng, [data])
            check_blocks(rng, [data[:cut], data[cut:]])
            ours(HPACKDecoder(), data, FieldList(max_count=1, max_size=16))

    def close(self) -> None:
        """Nothing is shared."""


if __name__ == "__main__":
    main(HPACKTarget)
