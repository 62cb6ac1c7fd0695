"""Response heads for Python: the names of statuses, and the codec for tests.

The server itself calls the codec from C.
"""

from collections.abc import Iterable
from typing import Literal

_Fields = list[tuple[bytes, bytes]]
_Framing = Literal["head", "length", "chunks", "close"]

class FieldError(ValueError):
    """A response field that may not go on the wire: it would let the application's data end the field."""

def reason_phrase(status: int) -> str:
    """RFC 9110's name of a status, and that of other registered ones; empty if there is none."""

class DefaultFields:
    """The server's own fields, which every final response begins with: those given, and, if `dated`, Date."""

    def __init__(self, fields: Iterable[tuple[bytes, bytes]], *, dated: bool) -> None: ...
    def renew(self, second: int) -> bool:
        """Set the second since the epoch that Date names. Return whether it is another one than before."""

def encode_head(
    status: int,
    fields: _Fields,
    defaults: DefaultFields | None = None,
    *,
    has_server: bool = False,
    has_date: bool = False,
    framing: _Framing = "head",
    length: int = 0,
    option: Literal["close", "keep-alive"] | None = None,
) -> bytes:
    """A response's head. `defaults` is None for an interim one; `length` is used with the framing "length".

    `has_server` and `has_date` say that `fields` have what `defaults` would add. Raises ValueError if
    `status` is not within 100 and 999.
    """

def choose_framing(*, bodiless: bool, has_length: bool, is_whole: bool, minor_version: int) -> _Framing:
    """What tells a client where the body of a response ends (RFC 9112 section 6.3).

    `bodiless`: method or status allow no body. `has_length`: the application has given its length.
    `is_whole`: all of it is there with the head. The client speaks HTTP/1.x, x being `minor_version`.
    """

def encode_refusal(
    status: int, fields: _Fields, text: bytes, defaults: DefaultFields, *, is_head: bool = False
) -> bytes:
    """A whole response in the application's place, after which the connection is closed.

    With `is_head` it answers a HEAD, and does not have the text.
    """
