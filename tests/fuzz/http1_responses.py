"""Reads what a server has sent on one connection, by h11, which accepts only what RFC 9112 does."""

from collections.abc import Sequence
from dataclasses import dataclass

import h11
from clientframes import BINARY, CLOSE, PING, PONG, TEXT

MAX_HEAD_BYTES = 262_144
WEBSOCKET = "websocket"  # in place of the method of a request that opens one


@dataclass
class Response:
    """One response, without the interim ones before it."""

    status: int
    closes: bool
    is_whole: bool
    body: bytes  # of a 101: the frames behind it


def read_responses(data: bytes, methods: Sequence[str], has_ended: bool) -> list[Response]:
    """The responses to requests of these methods, in order, and of refusals behind them.

    Raises h11.RemoteProtocolError where the bytes are none, and AssertionError for bytes behind a response
    that closes. Only the last one may be cut short.
    """
    responses: list[Response] = []
    while data:
        assert not responses or (responses[-1].is_whole and not responses[-1].closes), "bytes behind the end"
        method = methods[len(responses)] if len(responses) < len(methods) else "GET"
        response, data = _read_response(data, method if method in ("HEAD", WEBSOCKET) else "GET", has_ended)
        if response is not None:
            responses.append(response)
    return responses


def _read_response(data: bytes, method: str, has_ended: bool) -> tuple[Response | None, bytes]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    headers = [("host", "a")]
    if method == WEBSOCKET:
        method = "GET"
        headers += [("upgrade", "websocket"), ("connection", "upgrade")]
    connection.send(h11.Request(method=method, target="/", headers=headers))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    response = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.PAUSED:
            frames = connection.trailing_data[0]
            return Response(101, True, are_whole(frames), frames), b""
        if isinstance(event, h11.Response):
            # Without a length the end of the connection is the end of the body.
            response = Response(event.status_code, connection.their_state is h11.MUST_CLOSE, False, b"")
            closes = [value for name, value in event.headers if name == b"connection"]
            response.closes = b"close" in closes
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        elif event is h11.NEED_DATA:
            if not has_ended or response is None:
                break
            try:
                connection.receive_data(b"")
                event = connection.next_event()
            except h11.RemoteProtocolError:
                break
            assert isinstance(event, h11.EndOfMessage)
            response.closes = True
            break
    if response is None:
        return None, b""
    response.is_whole = isinstance(event, h11.EndOfMessage)
    response.body = bytes(body)
    return response, connection.trailing_data[0] if response.is_whole else b""


def are_whole(frames: bytes) -> bool:
    """Whether the last frame of a server is whole; fails where one isn't as RFC 6455 section 5 has it."""
    opcode = TEXT
    while frames:
        assert opcode != CLOSE, "a frame behind a Close"
        size = frames[1] if len(frames) > 1 else 0
        length_bytes = {126: 2, 127: 8}.get(size, 0)
        head_bytes = 2 + length_bytes
        if len(frames) < head_bytes:
            return False
        opcode = frames[0] & 0x0F
        assert frames[0] & 0xF0 == 0x80, "a fragment, or an extension that nobody has asked for"
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG)
        assert size < 0x80, "a server does not mask"
        if length_bytes:
            size = int.from_bytes(frames[2:head_bytes], "big")
            assert size > (0xFFFF if length_bytes == 8 else 125), "not the shortest form"
        assert opcode < CLOSE or size <= 125, "a long control frame"
        payload = frames[head_bytes : head_bytes + size]
        if len(payload) < size:
            return False
        if opcode == TEXT:
            payload.decode()
        elif opcode == CLOSE:
            assert len(payload) != 1
            payload[2:].decode()
        frames = frames[head_bytes + size :]
    return True
