"""Interned names of fields for Python: tests. The server itself looks them up from C."""

NAMED: dict[str, int]
"""The names that have a constant in C, and its value."""

def known_name(name: bytes) -> int | None:
    """The index of a name in lower case among the interned ones; None if it is none of them."""
