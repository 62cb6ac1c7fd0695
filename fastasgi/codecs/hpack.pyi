"""HPACK for Python: tests, fuzzing and measuring. The server itself calls it from C."""

from typing import Any, NamedTuple

from fastasgi.codecs.heads import DefaultFields

_Pair = tuple[bytes, bytes]

STATIC: tuple[_Pair, ...]
"""The static table (RFC 7541 appendix A), of which the first entry has the index 1."""

class HPACKError(ValueError):
    """A block that can't be decoded: it is malformed or has too much. Nothing that follows can be decoded."""

class DecodedField(NamedTuple):
    """A decoded field."""

    name: bytes
    value: bytes
    known: int | None
    """The index of an interned name."""
    faults: int
    """1: the name may not stand in HTTP/2; 2: the value may not; 3: neither."""
    meaning: Any
    """What was remembered for the field's entry."""
    entry: int
    """The entry that the field comes from or has made; 0: none."""

class FieldList:
    """The fields of the last block that was decoded into it.

    `max_count` are the fields that are kept, those named cookie not counted; `max_size` the bytes that are
    kept, names, values and 32 for each field. Raises ValueError if they make no sense.
    """

    def __init__(self, *, max_count: int = 128, max_size: int = 65536) -> None: ...
    @property
    def has_more(self) -> bool:
        """Whether the block had more than is kept."""
    @property
    def details(self) -> list[DecodedField]: ...

class HPACKDecoder:
    """Reads the header blocks of one peer, whose dynamic table has at most 4096 bytes."""

    def read(self, data: bytes | bytearray | memoryview, fields: FieldList | None = None) -> list[_Pair]:
        """Decode a whole block. Raises HPACKError, also for more than four times `max_size` of `fields`."""
    def remember_field(self, fields: FieldList, index: int, meaning: object) -> None:
        """Remember what a field that was decoded means, for as long as its entry is in the table."""
    @property
    def table(self) -> list[_Pair]:
        """The dynamic table, the newest entry first."""
    @property
    def table_size(self) -> int: ...

class HPACKEncoder:
    """Writes the header blocks for one peer."""

    def encode(
        self,
        fields: list[_Pair],
        *,
        status: int = 0,
        defaults: DefaultFields | None = None,
        has_server: bool = False,
        has_date: bool = False,
        content_length: int = -1,
    ) -> bytes:
        """A block: the status unless 0, the server's own fields, the given ones, a length unless -1.

        `has_server` and `has_date` say that `fields` have what `defaults` would add.
        """
    def limit_table(self, max_size: int) -> None:
        """Take the peer's SETTINGS_HEADER_TABLE_SIZE."""
    @property
    def table(self) -> list[_Pair]:
        """The dynamic table as far as it is used, the newest entry first."""
