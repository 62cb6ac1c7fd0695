"""Clients that wait to be accepted while the event loop is blocked."""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from serving import WAIT_S, wait_until
from wire import CLOSE, request

BLOCKING_APP = """
import time

async def app(scope, receive, send):
    if scope["path"] == "/block":
        open("blocks", "x").close()
        time.sleep(1)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})
"""


def answers_to_waiting(port: int, act: Callable[[], object], folder: Path, count: int = 50) -> list[bytes]:
    """The answers to so many clients, and one, of a server with BLOCKING_APP that runs in this folder.

    They have connected when `act` is called, and the first one's request blocks the event loop.
    """
    with contextlib.ExitStack() as stack:
        socks = []
        for path in ("/block", *count * ["/"]):
            socks.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S)))
            socks[-1].sendall(request(f"GET {path} HTTP/1.1", CLOSE))
            wait_until((folder / "blocks").exists, "the call that blocks")
        act()
        return [read_all(sock) for sock in socks]


def read_all(sock: socket.socket) -> bytes:
    """What comes up to the end of the connection, a reset too."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return data
