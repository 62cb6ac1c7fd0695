"""What is open and runs in one worker."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastasgi.core.shares import Shares

class Registry:
    """The open connections and running application calls of one worker."""

    @property
    def connection_count(self) -> int:
        """Open connections."""

    @property
    def exchange_count(self) -> int:
        """Application calls that run."""

    @property
    def request_count(self) -> int:
        """Requests that have begun since the start."""

    max_requests: int
    """The number of requests at which `on_max_requests` is called; 0 means never."""

    on_max_requests: Callable[[], object] | None
    """Called once, when `max_requests` requests have begun."""

    shares: Shares | None
    """Where other workers read how many connections are open."""

    def open_connections(self) -> set[Any]:
        """A copy of the set of open connections."""

    def running_tasks(self) -> set[asyncio.Task[None]]:
        """The tasks of the application calls that have not returned."""

    async def wait_idle(self) -> None:
        """Return once no connection is open and no application call runs."""
