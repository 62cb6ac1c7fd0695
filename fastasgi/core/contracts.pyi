"""The compiled core for the server's Python layer: what the connections of one worker share."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastasgi.logs.accesslog import AccessLog
from fastasgi.trust.forwarded import Forwarding
from fastasgi.trust.peers import TrustedPeers

class WorkerContext:
    """What all connections of one worker share: application, settings, clock, counters, buffers.

    Made inside the running event loop, in the contextvars context that every request is to start from.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: Callable[..., Awaitable[None]],
        *,
        state: dict[str, Any],
        root_path: str = "",
        http: str = "auto",
        headers: list[tuple[bytes, bytes]],
        date_header: bool,
        keep_alive_timeout_s: float,
        head_timeout_s: float,
        body_timeout_s: float = 60.0,
        write_timeout_s: float = 60.0,
        max_request_line_bytes: int,
        max_head_bytes: int,
        max_header_count: int,
        max_body_bytes: int,
        max_concurrency: int,
        max_requests: int,
        header_underscores: str,
        logger: logging.Logger,
        access_log: AccessLog | None,
        asgi_version: str = "3.0",
        ws: bool = True,
        ws_max_size: int = 16777216,
        ws_max_queue: int = 32,
        ws_ping_interval_s: float = 20.0,
        ws_ping_timeout_s: float = 20.0,
        ws_per_message_deflate: bool = True,
        tls_handshake_timeout_s: float = 0,
        passes_limits: Callable[[Any], bool] | None = None,
        forwarding: Forwarding | None = None,
        proxy_peers: TrustedPeers | None = None,
    ) -> None:
        """Each scope gets a shallow copy of `state`; `headers` start every response.

        `http` is "auto" or "fastasgi" for our own parser, or "httptools". Of the limits `max_body_bytes`,
        `max_concurrency` and `max_requests`, 0 is none. A `keep_alive_timeout_s` of 0 keeps no connection, a
        `head_timeout_s` of 0 sets no limit. `passes_limits` says of an HTTP scope whether it is served beyond
        `max_concurrency`. `header_underscores` is "allow", "drop" or "refuse". Raises
        ValueError for a limit that the parser can't keep.
        """

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def app(self) -> Callable[..., Awaitable[None]]: ...
    @property
    def tick_interval_s(self) -> float:
        """How often tick() is to be called, in seconds."""

    @property
    def connection_count(self) -> int:
        """Open connections."""

    @property
    def exchange_count(self) -> int:
        """Application calls that run."""

    @property
    def request_count(self) -> int:
        """Requests begun since the start."""

    @property
    def draining(self) -> bool:
        """Whether drain() was called."""

    def open_connections(self) -> set[Any]:
        """A copy of the set of open connections."""

    def running_tasks(self) -> set[asyncio.Task[None]]:
        """The tasks of the application calls that have not returned."""

    on_max_requests: Callable[[], object] | None
    """Called once, when `max_requests` requests have begun."""

    def finish_logs(self) -> None:
        """Write what logs still lack, once nothing is served any more."""

    def tick(self) -> None:
        """Move the clock: expire deadlines, renew the date, write the access log.

        To be called each `tick_interval_s` from an event loop's callback, not from a task.
        """

    def drain(self, *, lingers: bool = False, accepts: bool = False) -> None:
        """Shutdown, first phase: idle connections close, the others after the exchange that runs."""

    def disconnect(self) -> None:
        """Shutdown, second phase: every running exchange is told that its client has gone."""

    def cancel(self) -> None:
        """Shutdown, third phase: every running application task is cancelled."""

    def abort(self) -> None:
        """Shutdown, last phase: every transport is closed without waiting for its peer."""

    async def wait_idle(self) -> None:
        """Return once no connection is open and no application call runs."""
