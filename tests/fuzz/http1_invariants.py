"""What must hold between the bytes of a client, the calls of the application, and what the client has got."""

from collections.abc import Sequence
from typing import Any

from fuzz import http_applications, websocket_applications
from fuzz.http1_model import Request, Stream, read_messages, read_stream
from fuzz.http1_responses import WEBSOCKET, Response, read_responses
from fuzz.http_applications import Call

FAILING_NAMES = {
    application.__name__ for application in http_applications.FAILING + websocket_applications.FAILING
}


def whole_requests(data: bytes, settings: dict[str, Any]) -> Stream:
    """Those that applications which read the whole body before they answer come to the end of."""
    stream = read_stream(data, settings)
    for number, request in enumerate(stream.requests):
        if not request.is_whole or request.is_too_large:
            return Stream(stream.requests[:number], request.refusals, request.method)
    return stream


def last_request(calls: Sequence[Call], settings: dict[str, Any]) -> int:
    """The index of the request of an orderly application whose response ended the connection, if any did."""
    for number, call in enumerate(calls):
        if method_of(call) == WEBSOCKET and call.name != "deny_by_response":
            return number
        has_body = call.name == "late_stream" and method_of(call) != "HEAD"
        is_unframed = has_body and call.scope["http_version"] == "1.0"
        if settings["timeout_keep_alive"] == 0 or is_unframed:
            return number
    return len(calls)


def describe(request: Request, settings: dict[str, Any]) -> tuple[Any, ...]:
    # "*" is no path: RFC 9112 section 3.2.4
    root_path = "" if request.raw_path == b"*" else settings.get("root_path", "")
    raw_path = root_path.encode() + request.raw_path
    return request.method, raw_path, request.query, request.headers, request.body


def method_of(call: Call) -> str:
    return WEBSOCKET if call.scope["type"] == "websocket" else call.scope["method"]


def described_call(call: Call) -> tuple[Any, ...]:
    scope = call.scope
    head = method_of(call), scope["raw_path"], scope["query_string"], scope["headers"]
    return *head, b"".join(call.body)


def check_conversation(
    sent: bytes, calls: Sequence[Call], got: bytes, settings: dict[str, Any], was_reset: bool
) -> list[Response]:
    """The application has seen a beginning of what was sent, each request once; the client got responses."""
    requests = read_stream(sent, settings).requests
    assert len(calls) <= len(requests)
    for call, request in zip(calls, requests, strict=False):
        *seen, body = described_call(call)
        *expected, sent_body = describe(request, settings)
        assert seen == expected
        assert sent_body.startswith(body)
        assert not call.has_whole_body or (request.is_whole and body == sent_body)
        messages = read_messages(request.frames)[:-1] if call.is_open else []
        heard = [message for message in call.heard if not isinstance(message, int)]
        assert heard == messages[: len(heard)]
    methods = [method_of(call) for call in calls]
    responses = read_responses(got, methods, not was_reset)
    assert len(responses) <= len(calls) + 1
    for number, response in enumerate(responses):
        assert not response.closes or len(calls) <= number + 1, "a request after the last response"
    return responses


def check_whole(responses: Sequence[Response], calls: Sequence[Call], requests: Sequence[Request]) -> None:
    """Nobody left early: only failing applications and malformed bodies have no whole response."""
    if any(call.name in FAILING_NAMES and call.scope["http_version"] == "1.0" for call in calls):
        # The reset that tells a broken response from a whole one may take earlier ones along.
        return
    for number, call in enumerate(calls):
        request = requests[number]
        if call.name in FAILING_NAMES or request.is_malformed or request.is_too_large or not request.is_whole:
            return
        assert number < len(responses), f"no response from {call.name}"
        assert responses[number].is_whole, f"no whole response from {call.name}"
