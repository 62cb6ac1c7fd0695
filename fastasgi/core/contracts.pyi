"""The compiled core for the server's Python layer: what the connections of one worker share."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastasgi.core.counters import Counters
from fastasgi.core.registry import Registry
from fastasgi.logs.accesslog import AccessLog

class Opener:
    """Says who speaks on a new connection."""

class Wire:
    """A protocol that peers may speak."""

class WorkerContext:
    """What all connections of one worker share: application, settings, clock, counters, buffers.

    Made inside the running event loop, in the contextvars context that every request is to start from.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: Callable[..., Awaitable[None]],
        config: Any,
        *,
        state: dict[str, Any],
        logger: logging.Logger,
        access_log: AccessLog | None,
        counters: Counters | None = None,
        measures: bool = False,
    ) -> None:
        """`config` is a Config, of which the settings that connections need are read. Each scope gets a
        shallow copy of `state`. `opener` is to be set before the first connection comes. `counters` is where
        the worker counts, None for memory of its own; with `measures` it also counts what costs with each
        request.
        """

    @property
    def counters(self) -> Counters:
        """What this worker has done."""

    @property
    def measures(self) -> bool:
        """Whether also what costs with each request is counted."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def app(self) -> Callable[..., Awaitable[None]]: ...
    @property
    def registry(self) -> Registry:
        """What is open and runs."""

    opener: Opener
    """Says who speaks on a new connection."""

    passes_limits: Callable[[Any], bool] | None
    """Says whether the request of an HTTP scope is served beyond `limit_concurrency`; None if none is."""

    @property
    def tick_interval_s(self) -> float:
        """How often tick() is to be called, in seconds."""

    @property
    def draining(self) -> bool:
        """Whether drain() was called."""

    def finish_logs(self) -> None:
        """Write what logs still lack, once nothing is served any more."""

    def tell_gauges(self) -> None:
        """Count what is open and runs now. From any thread."""

    def tick(self) -> None:
        """Move the clock: expire deadlines, renew the date, write the access log.

        To be called each `tick_interval_s` from an event loop's callback, not from a task.
        """

    def drain(self, *, keeps_idle: bool = False, accepts: bool = False) -> None:
        """Shutdown, first phase: close idle connections, and the others after the exchange that runs.

        With `keeps_idle`, idle connections may have one more request within their keep-alive time. With
        `accepts`, new connections still come, and WebSockets go on.
        """

    def disconnect(self) -> None:
        """Shutdown, second phase: tell every running exchange that its client has gone."""

    def cancel(self) -> None:
        """Shutdown, third phase: cancel the task of every application call that runs."""

    def abort(self) -> None:
        """Shutdown, last phase: close every sink without waiting for its peer."""
