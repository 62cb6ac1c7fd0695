"""What a server has open and has served, for programs that look on. Knows the compiled core's counts only."""

import asyncio
from typing import Any

from fastasgi.core.contracts import WorkerContext


class ServerState:
    """Counts and sets of one server, each made when it is read; changing a set changes nothing.

    What is not running has none. After the server's end the count stays, until it serves again.
    """

    def __init__(self) -> None:
        self._context: WorkerContext | None = None

    def follow(self, context: WorkerContext | None) -> None:
        """Tell of this worker from now on."""
        self._context = context

    @property
    def total_requests(self) -> int:
        """Requests whose application call has begun since the start; uvicorn counts those that have ended."""
        return 0 if self._context is None else self._context.registry.request_count

    @property
    def connections(self) -> set[Any]:
        """The open connections, for their number: they have no attributes that programs may use."""
        return set() if self._context is None else self._context.registry.open_connections()

    @property
    def tasks(self) -> "set[asyncio.Task[None]]":
        """The tasks of the application calls that wait for something; others are done before one can look."""
        return set() if self._context is None else self._context.registry.running_tasks()
