"""The resident memory of another process, and an application through which much goes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from backpressure import MIB

GIB = 2**30

# An application through which much goes: up, down in pieces, and from a file
APP = """
async def app(scope, receive, send):
    if scope["path"] == "/upload":
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    elif scope["path"] == "/stream":
        count, size = map(int, scope["query_string"].split(b","))
        piece = bytes(size)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(count):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": scope["query_string"].decode()})
"""

linux_only = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


class Memory:
    """The resident memory of a process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def _bytes(self, name: str) -> int:
        [line] = [x for x in (self._folder / "status").read_text().splitlines() if x.startswith(f"{name}:")]
        return int(line.split()[1]) * 1024

    @property
    def resident(self) -> int:
        """Bytes that it has now."""
        return self._bytes("VmRSS")

    @contextlib.contextmanager
    def grows_by_less_than(self, most: int, before: int | None = None) -> Iterator[None]:
        """Fails if it ever has so many bytes more within the block than before it, or than `before`."""
        (self._folder / "clear_refs").write_text("5")  # resets the peak
        if before is None:
            before = self.resident
        yield
        growth = self._bytes("VmHWM") - before
        assert growth < most, f"{growth / MIB:.1f} MiB"
