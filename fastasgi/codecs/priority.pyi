"""Priorities of responses (RFC 9218), for tests. The server itself calls it from C."""

from typing import NamedTuple

class ResponsePriority(NamedTuple):
    """What a Priority field says."""

    urgency: int
    """From 0, the most urgent, to 7; 3 if it is not said."""
    incremental: bool
    """Whether the response is of use in parts."""

def parse_priority(value: bytes) -> ResponsePriority | None:
    """What a field's value says; None if it is not a dictionary of structured fields (RFC 9651)."""
