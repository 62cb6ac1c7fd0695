"""The client's end of a WebSocket on any wire, frame by frame."""

from dataclasses import dataclass
from typing import Any

from clientframes import BINARY, CLOSE, PING, PONG, TEXT, frame
from wire import Connection

DEFLATE = "sec-websocket-extensions: permessage-deflate"


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A client's Close frame; without a code where it is None."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


@dataclass
class Frame:
    """A frame of the server."""

    opcode: int
    payload: bytes
    compressed: bool = False


class WebSocket:
    """The client's end of an open WebSocket. Reading fails where a server's frame breaks RFC 6455."""

    def __init__(self, client: Connection, response: Any) -> None:
        self.client = client
        self.response = response

    async def write(self, *frames: bytes) -> None:
        await self.client.write(b"".join(frames))

    async def send(self, message: str | bytes) -> None:
        await self.write(
            frame(TEXT, message.encode()) if isinstance(message, str) else frame(BINARY, message)
        )

    async def ping(self, payload: bytes = b"") -> bytes:
        """Ping, and the payload of the pong, which has to be the next frame."""
        await self.write(frame(PING, payload))
        return await self.next(PONG)

    async def frame(self) -> Frame:
        first, second = await self.client.reader.readexactly(2)
        assert first & 0x80, "the server does not fragment"
        assert not first & 0x30
        assert not second & 0x80, "a server does not mask"
        size = second
        if size >= 126:
            size = int.from_bytes(await self.client.reader.readexactly(2 if size == 126 else 8), "big")
            assert size >= (126 if second == 126 else 0x10000), "not the shortest form"
        return Frame(first & 0x0F, await self.client.reader.readexactly(size), bool(first & 0x40))

    async def next(self, opcode: int) -> bytes:
        """The payload of the next frame, which has to be of this kind and plain."""
        received = await self.frame()
        assert (received.opcode, received.compressed) == (opcode, False), received
        return received.payload

    async def receive(self) -> str | bytes:
        """The next frame, which has to be a message."""
        received = await self.frame()
        assert received.opcode in (TEXT, BINARY), received
        assert not received.compressed
        return received.payload.decode() if received.opcode == TEXT else received.payload

    async def closing(self) -> tuple[int, str]:
        """Code and reason of the next frame, which has to be a Close; 1005 without a code."""
        payload = await self.next(CLOSE)
        return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()

    async def closed(self) -> tuple[int, str]:
        """The Close frame that the server has sent, and behind it the end of the connection."""
        closing = await self.closing()
        assert await self.client.rest() == b""
        return closing

    async def close(self, code: int | None = 1000, reason: bytes = b"") -> tuple[int, str]:
        """Close, and the server's answer to that, which has to be the next frame and the last one."""
        await self.write(close_frame(code, reason))
        return await self.closed()


async def open_websocket(
    running: Any, *fields: str, target: str = "/", behind: bytes = b"", **options: Any
) -> WebSocket:
    """Open a WebSocket on a connection of its own; `behind` goes out together with the handshake.

    Options are those of Served.connect().
    """
    client = await running.connect(**options)
    response = await client.shake(*fields, target=target, behind=behind)
    assert response.status == 101, response
    return WebSocket(client, response)


# --- Applications ---


async def accept(receive: Any, send: Any, **values: Any) -> None:
    """Accept the connection, with these values in the message."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **values})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends each message back as it came."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
