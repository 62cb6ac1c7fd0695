"""An asyncio transport without a socket: what the peer sends, takes and breaks is in the hands of a test."""

import asyncio
from typing import Any

HIGH_WATER = 65_536
LOW_WATER = 16_384
POISONED_BYTES = 100_000


class MemoryTransport(asyncio.Transport):
    """The server's end of a connection.

    Keeps asyncio's contract with protocols: connection_lost comes in a turn of its own; nothing is read while
    reading is paused. Fails where the protocol breaks its part: a write after close or write_eof.
    `room` is what the peer takes, in bytes; beyond that writes are held back. None: all.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol: Any, room: int | None, port: int = 50_000
    ) -> None:
        super().__init__({"peername": ("127.0.0.1", port), "sockname": ("127.0.0.1", 8000)})
        self.output = bytearray()
        self.is_lost = False
        self.is_aborted = False
        self._loop = loop
        self._protocol = protocol
        self._room = room
        self._unsent = bytearray()
        self._low, self._high = LOW_WATER, HIGH_WATER
        self._reads = True
        self._closing = False
        self._wrote_eof = False
        self._writing_is_paused = False
        self._losing = False
        protocol.connection_made(self)

    # The peer's side; to be called in a callback of the loop, as a real transport calls its protocol

    @property
    def reads(self) -> bool:
        return self._reads and not self._closing and not self.is_lost

    @property
    def has_ended(self) -> bool:
        """The peer has all that it will get."""
        return self.is_lost or (self._wrote_eof and not self._unsent)

    def feed(self, data: bytes) -> bytes:
        """One read of what the peer has sent; returns what is left to read."""
        with memoryview(self._protocol.get_buffer(-1)) as view:
            n = min(len(view), len(data))
            view[:n] = data[:n]
            self._protocol.buffer_updated(n)
            if n < POISONED_BYTES:
                # Who still looks at a read after its event sees this. A larger one may be an object now.
                view[:n] = b"\xaa" * n
        return data[n:]

    def feed_eof(self) -> None:
        if not self._protocol.eof_received():
            self.close()

    def reset(self) -> None:
        self._lose(ConnectionResetError("reset by the fuzzer"))

    def take(self, n: int | None) -> None:
        """The peer takes n bytes more; None: all that comes from now on."""
        self._room = None if n is None or self._room is None else self._room + n
        self._send()

    # asyncio.Transport

    def write(self, data: Any) -> None:
        assert isinstance(data, bytes)
        self.writelines([data])

    def writelines(self, parts: Any) -> None:
        assert not self._wrote_eof, "a write after write_eof()"
        assert not self._closing or self._losing, "a write after close()"
        if self._losing or self.is_lost:
            return
        for part in parts:
            self._unsent += part
        self._send()
        if len(self._unsent) > self._high and not self._writing_is_paused:
            self._writing_is_paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        assert not self._closing or self._losing, "write_eof() after close()"
        self._wrote_eof = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._closing = True
        if not self._unsent:
            self._lose(None)

    def abort(self) -> None:
        self._closing = self.is_aborted = True
        self._lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER if high is None else high
        self._low = min(self._high, LOW_WATER if low is None else low)
        if len(self._unsent) > self._high and not self._writing_is_paused:
            self._writing_is_paused = True
            self._protocol.pause_writing()

    def _send(self) -> None:
        n = len(self._unsent) if self._room is None else min(self._room, len(self._unsent))
        if self._losing or n == 0:
            return
        self.output += self._unsent[:n]
        del self._unsent[:n]
        if self._room is not None:
            self._room -= n
        if self._writing_is_paused and len(self._unsent) <= self._low:
            self._loop.call_soon(self._resume_writing)
        if self._closing and not self._unsent:
            self._lose(None)

    def _resume_writing(self) -> None:
        if self._writing_is_paused and len(self._unsent) <= self._low and not self.is_lost:
            self._writing_is_paused = False
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        if not self._losing:
            self._losing = True
            self._closing = True
            self.is_aborted = self.is_aborted or error is not None
            self._unsent.clear()
            self._loop.call_soon(self._report_loss, error)

    def _report_loss(self, error: Exception | None) -> None:
        self.is_lost = True
        self._protocol.connection_lost(error)
