"""Counting WebSocket messages, and the handshake."""

import h11
import pytest
from benchparts import SIMPLE

from bench import websocket
from bench.errors import UnsupportedError
from bench.micro_frames import build_frame


def unmasked(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    return bytes([first]) + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")) + payload


def test_messages_are_counted_at_every_split_and_pings_are_not() -> None:
    frames = unmasked(b"one") + unmasked(b"ping", 0x89) + unmasked(b"x" * 300, 0x82) + unmasked(b"")
    for split in range(len(frames) + 1):
        counter = websocket.MessageCounter()
        assert counter.feed(frames[:split]) + counter.feed(frames[split:]) == 3
    counter = websocket.MessageCounter()
    assert sum(counter.feed(frames[i : i + 1]) for i in range(len(frames))) == 3


@pytest.mark.parametrize("frame", [unmasked(b"", 0x88), unmasked(b"part", 0x01), build_frame(b"masked", 1)])
def test_other_frames_are_failures(frame: bytes) -> None:
    with pytest.raises(websocket.FrameError):
        websocket.MessageCounter().feed(frame)


def test_a_handshake_that_is_refused_is_not_supported() -> None:
    assert websocket.read_handshake(b"HTTP/1.1 101 Switching") is None
    with pytest.raises(UnsupportedError, match="200 OK"):
        websocket.read_handshake(SIMPLE)
    with pytest.raises(UnsupportedError, match="Accept"):
        websocket.read_handshake(b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: no\r\n\r\n")


def test_the_handshake_is_one_that_h11_and_the_key_of_the_rfc_agree_with() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(websocket.build_handshake("/ws"))
    headers = dict(connection.next_event().headers)
    assert headers[b"upgrade"] == b"websocket"
    accepted = (
        b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: " + websocket._ACCEPT + b"\r\n\r\nrest"
    )
    assert websocket.read_handshake(accepted) == b"rest"
