"""What the applications say of an upload, and the body that they serve as a download."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any


class Digest:
    """Counts and hashes a body, piece by piece."""

    def __init__(self) -> None:
        self._count = 0
        self._hash = hashlib.sha256()

    def feed(self, piece: bytes) -> None:
        self._count += len(piece)
        self._hash.update(piece)

    def report(self) -> dict[str, Any]:
        return {"bytes": self._count, "sha256": self._hash.hexdigest()}


def report_of(pieces: Iterable[bytes]) -> dict[str, Any]:
    digest = Digest()
    for piece in pieces:
        digest.feed(piece)
    return digest.report()


async def report_of_stream(pieces: AsyncIterable[bytes]) -> dict[str, Any]:
    digest = Digest()
    async for piece in pieces:
        digest.feed(piece)
    return digest.report()


def download() -> Iterator[bytes]:
    """4 MiB in 64 pieces, each filled with its own number."""
    for number in range(64):
        yield bytes([number]) * 65536


async def download_stream() -> AsyncIterator[bytes]:
    for piece in download():
        yield piece
