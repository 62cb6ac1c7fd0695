"""What the WebSocket codec says that it has read, in the words of a test."""

from fastasgi.codecs.frames import FrameEvent


def text(data: str | bytes) -> FrameEvent:
    return FrameEvent("text", data if isinstance(data, str) else data.decode())


def binary(data: bytes) -> FrameEvent:
    return FrameEvent("binary", data)


def ping(data: bytes = b"") -> FrameEvent:
    return FrameEvent("ping", data)


def pong(data: bytes = b"") -> FrameEvent:
    return FrameEvent("pong", data)


def close(code: int = 1005, reason: str = "") -> FrameEvent:
    return FrameEvent("close", b"", code, reason)
