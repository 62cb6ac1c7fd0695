"""The requests in a stream of bytes, read in one go by the codecs alone: the measure of a connection."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuzz.http1_responses import WEBSOCKET

from fastasgi._parser import ParsedHead, ParseError, parse_request_head
from fastasgi.codecs.chunked import ChunkedBody
from fastasgi.codecs.deflate import DeflateSettings, negotiate_deflate
from fastasgi.codecs.frames import FrameDecoder

HEAD_OPTIONS = {
    "limit_request_line": "max_request_line_bytes",
    "limit_request_head": "max_head_bytes",
    "limit_request_fields": "max_header_count",
    "header_underscores": "underscores",
}
# 16 bytes in base64
WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


@dataclass
class Request:
    """A request whose head is accepted."""

    method: str  # WEBSOCKET where it opens one
    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_whole: bool
    is_malformed: bool
    is_too_large: bool
    frames: bytes = b""  # all that follows: a WebSocket's, if it is accepted

    @property
    def refusals(self) -> set[int]:
        """What its body is refused with, unless it is answered before: of two, what is seen first."""
        statuses = {400: self.is_malformed, 413: self.is_too_large}
        return {status for status, holds in statuses.items() if holds}


@dataclass
class Stream:
    """What the bytes of a client mean."""

    requests: list[Request]
    """All up to the first whose head is refused or incomplete, or that is the last of its connection."""
    refusals: set[int]
    """What the next request is refused with; empty: it isn't, or there is none."""
    refused_method: str = "GET"
    """Its method, where that is known."""


def read_stream(data: bytes, settings: Mapping[str, Any]) -> Stream:
    options = {HEAD_OPTIONS[name]: value for name, value in settings.items() if name in HEAD_OPTIONS}
    options["llhttp"] = settings.get("http") == "httptools"
    max_body_bytes = settings.get("limit_request_body") or len(data)
    requests: list[Request] = []
    while data:
        try:
            head = parse_request_head(data, **options)
        except ParseError as error:
            line = data.lstrip(b"\r\n")
            return Stream(requests, {error.status}, "HEAD" if line.startswith(b"HEAD ") else "GET")
        if head is None:
            break
        if settings.get("limit_request_body") and head.content_length > max_body_bytes:
            return Stream(requests, {413}, head.method)
        is_handshake = asks_for_websocket(head)
        if is_handshake and (status := handshake_refusal(head)):
            return Stream(requests, {status})
        data = data[head.consumed :]
        method = WEBSOCKET if is_handshake else head.method
        request = Request(method, head.raw_path, head.query, head.headers, b"", False, False, False)
        requests.append(request)
        if is_handshake:
            request.frames = data
        if head.chunked:
            data = _read_chunks(request, data, max_body_bytes)
        else:
            length = max(head.content_length, 0)
            request.body, data = data[:length], data[length:]
            request.is_whole = len(request.body) == length
        if not request.is_whole or not head.keep_alive:
            break
    return Stream(requests, set())


def read_messages(frames: bytes) -> list[str | bytes | int]:
    """A client's messages, and behind them the code with which it closes, is cut off, or leaves: 1006."""
    heard: list[str | bytes | int] = []
    for event in FrameDecoder().feed(frames):
        if event.kind in ("text", "binary"):
            heard.append(event.data)
        elif event.kind in ("close", "failed"):
            return [*heard, event.close_code]
    return [*heard, 1006]


def _values(head: ParsedHead, name: bytes) -> list[bytes]:
    return [value for given, value in head.headers if given == name]


def asks_for_websocket(head: ParsedHead) -> bool:
    """Whether this is a handshake, valid or not. Of any other method the field is one to be ignored."""
    protocols = b",".join(_values(head, b"upgrade")).lower().split(b",")
    may_upgrade = head.upgrade and head.minor_version == 1 and head.method == "GET"
    return may_upgrade and b"websocket" in [one.strip(b" \t") for one in protocols]


def handshake_refusal(head: ParsedHead) -> int:
    """The status where the head isn't what RFC 6455 section 4.2.1 demands, or announces a body; 0: it is."""
    versions = _values(head, b"sec-websocket-version")
    if versions and versions != [b"13"]:
        return 426
    keys = _values(head, b"sec-websocket-key")
    try:
        negotiate_deflate(_values(head, b"sec-websocket-extensions"), DeflateSettings())
    except ParseError as error:
        return error.status
    has_key = len(keys) == 1 and WEBSOCKET_KEY.fullmatch(keys[0])
    return 0 if versions and has_key and not head.chunked and head.content_length <= 0 else 400


def _read_chunks(request: Request, data: bytes, max_body_bytes: int) -> bytes:
    decoder = ChunkedBody()
    try:
        request.body = decoder.feed(data)
    except ParseError:
        request.is_malformed = True
        # What comes before the error may reach an application that streams.
        request.body = _decode_to_the_error(data)
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
