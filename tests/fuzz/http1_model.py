"""The requests in a stream of bytes, read in one go by the codecs alone: the measure of a connection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastasgi._chunked import ChunkedBody
from fastasgi._parser import ParseError, parse_request_head

HEAD_OPTIONS = {
    "max_request_line_bytes": "max_request_line_bytes",
    "max_head_bytes": "max_head_bytes",
    "max_header_count": "max_header_count",
    "header_underscores": "underscores",
}


@dataclass
class Request:
    """A request whose head is accepted."""

    method: str
    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_whole: bool
    is_malformed: bool
    is_too_large: bool


def read_requests(data: bytes, settings: Mapping[str, Any]) -> list[Request]:
    """All requests up to the first that is refused, incomplete, or the last of its connection."""
    options = {HEAD_OPTIONS[name]: value for name, value in settings.items() if name in HEAD_OPTIONS}
    options["llhttp"] = settings.get("http") == "httptools"
    max_body_bytes = settings.get("max_body_bytes") or len(data)
    requests: list[Request] = []
    while data:
        try:
            head = parse_request_head(data, **options)
        except ParseError:
            break
        if head is None or (settings.get("max_body_bytes") and head.content_length > max_body_bytes):
            break
        data = data[head.consumed :]
        request = Request(head.method, head.raw_path, head.query, head.headers, b"", False, False, False)
        requests.append(request)
        if head.chunked:
            data = _read_chunks(request, data, max_body_bytes)
        else:
            length = max(head.content_length, 0)
            request.body, data = data[:length], data[length:]
            request.is_whole = len(request.body) == length
        if not request.is_whole or not head.keep_alive:
            break
    return requests


def _read_chunks(request: Request, data: bytes, max_body_bytes: int) -> bytes:
    decoder = ChunkedBody()
    try:
        request.body = decoder.feed(data)
    except ParseError:
        request.is_malformed = True
        # What comes before the error may reach an application that streams.
        request.body = _decode_to_the_error(data)
        return b""
    request.is_too_large = len(request.body) > max_body_bytes
    request.is_whole = decoder.done
    return decoder.unused


def _decode_to_the_error(data: bytes) -> bytes:
    low, high = 0, len(data)
    while low < high:
        middle = (low + high + 1) // 2
        try:
            ChunkedBody().feed(data[:middle])
            low = middle
        except ParseError:
            high = middle - 1
    return ChunkedBody().feed(data[:low])
