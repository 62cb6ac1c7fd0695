"""What tests of scopes share: an application that keeps them, and clients of every kind of address."""

import copy
import socket
from pathlib import Path
from typing import Any

from wire import respond


class Scopes(list[dict[str, Any]]):
    """An application that keeps the scopes it is called with, and does with them what it likes."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.append(copy.deepcopy(scope))
        scope["headers"].append((b"x-more", b"1"))
        scope["extensions"]["more"] = {}
        scope["path"] = scope["raw_path"] = scope["client"] = None
        await respond(send, b"")
        scope.clear()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def bound_and_connected(own: Path, path: Path) -> socket.socket:
    """A client that has bound its end to a path of its choice."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(own))
    sock.connect(str(path))
    return sock
