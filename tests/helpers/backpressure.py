"""How tests see that a sender is held back: what was to grow grows no more."""

import asyncio
import socket
from collections.abc import Callable

MIB = 2**20

STALL_S = 0.1  # so long nothing moves where it is to be said that nothing moves any more

# What the kernel buffers on both sides of a loopback connection, at the most that it tunes itself to
KERNEL_BYTES = 16 * MIB


async def until_stalled(read: Callable[[], int]) -> int:
    """The value that has begun to grow, when it grows no more."""
    value = 0
    while value == 0 or read() != value:
        value = read()
        await asyncio.sleep(STALL_S)
    return value


async def send_until_stalled(sock: socket.socket, piece: bytes, most: int) -> int:
    """Send the piece again and again on a connected socket that the running loop reads.

    Returns how many bytes went out when nothing moved any more, or when they were at least `most`.
    """
    loop = asyncio.get_running_loop()
    sent = 0
    with sock.dup() as sock:
        while sent < most:
            try:
                sent += sock.send(piece)
            except BlockingIOError:
                writable = loop.create_future()
                loop.add_writer(sock, lambda future=writable: future.done() or future.set_result(None))
                moved, _ = await asyncio.wait([writable], timeout=STALL_S)
                loop.remove_writer(sock)
                if not moved:
                    break
    return sent
