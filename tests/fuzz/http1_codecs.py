"""Invariants of the HTTP/1 codecs, each called alone."""

from array import array
from random import Random
from typing import Any

from fuzz.http1_inputs import split

from fastasgi._parser import ParsedHead, ParseError, parse_request_head
from fastasgi.codecs.chunked import ChunkedBody

STATUSES = {400, 414, 417, 431, 501, 505}

Outcome = ParsedHead | int | None


def checked_status(error: ParseError) -> int:
    assert error.status in STATUSES
    assert str(error)
    return error.status


def parse(data: bytes, **options: Any) -> Outcome:
    """The head, the status of a refusal, or None: more is needed."""
    # An array has no byte behind its last one, so that the sanitizer sees any that is read.
    try:
        return parse_request_head(array("B", data), **options)
    except ParseError as error:
        return checked_status(error)


def make_limits(rng: Random) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {}
    return {
        "max_request_line_bytes": rng.choice([16, 40, 100, 8192]),
        "max_head_bytes": rng.choice([16, 100, 300, 65_536]),
        "max_header_count": rng.choice([1, 3, 20, 128]),
        "underscores": rng.choice(["allow", "drop", "refuse"]),
    }


def check_heads(rng: Random, data: bytes) -> None:
    """One outcome however much has arrived, and llhttp accepts nothing that the own grammar refuses."""
    limits = make_limits(rng)
    outcome = parse(data, **limits)
    for _ in range(3):
        end = rng.randint(0, len(data))
        early = parse(data[:end], **limits)
        assert early is None or early == outcome, (data[:end], early, outcome)
    if isinstance(outcome, ParsedHead):
        assert 0 < outcome.consumed <= len(data)
        assert parse(data[: outcome.consumed], **limits) == outcome
        assert parse(data[: outcome.consumed - 1], **limits) is None
    by_llhttp = parse(data, llhttp=True, **limits)
    if isinstance(by_llhttp, ParsedHead):
        assert by_llhttp == outcome, (data, by_llhttp, outcome)


def decode(parts: list[bytes]) -> tuple[bytes, bool, bytes] | None:
    """The body, whether it is whole, and what follows it. None: malformed."""
    decoder = ChunkedBody()
    try:
        body = b"".join([decoder.feed(part) for part in parts])
    except ParseError:
        return None
    return body, decoder.done, decoder.unused


def check_chunked_body(rng: Random, data: bytes) -> None:
    """One outcome however it arrives."""
    start = data.find(b"\r\n\r\n")
    data = data[start + 4 :] if start >= 0 else data
    whole = decode([data])
    assert decode(split(rng, data)) == whole
    if whole is not None and whole[1]:
        body, _, unused = whole
        assert len(body) + len(unused) < len(data)
        assert data.endswith(unused)
