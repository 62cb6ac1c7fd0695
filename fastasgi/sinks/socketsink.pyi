"""The event loop's side of a connection."""

import asyncio
from typing import Self

from fastasgi.core.contracts import WorkerContext

class ServerProtocol(asyncio.BufferedProtocol):
    """What the event loop makes for each connection: `functools.partial(ServerProtocol, worker)`."""

    def __new__(cls, worker: WorkerContext) -> Self: ...
