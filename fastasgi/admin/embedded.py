"""The admin listener of a server that has no supervisor: a thread of its process, with its own event loop.

While the server's loop is blocked it answers, but not while C code holds the interpreter.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from fastasgi.admin.binding import bind_admin, close_admin, log_admin
from fastasgi.admin.listener import PATIENCE_S, listener_config
from fastasgi.admin.report import SILENT_S, Report, WorkerReport
from fastasgi.admin.reportparts import certificate_reports, queue_reports, setting_reports
from fastasgi.admin.shared import SHARED_SETTINGS
from fastasgi.admin.source import EmbeddedSource
from fastasgi.config import Config
from fastasgi.core.counters import Counters

logger = logging.getLogger("fastasgi.error")

END_S = 5.0  # that the thread has to end


class Embedded(Protocol):
    """What is asked of a server, from another thread."""

    config: Config
    counters: Counters
    started: bool
    is_draining: bool
    servers: list[Any]  # Listeners, each with its sockets

    @property
    def should_exit(self) -> bool:
        """Whether it is to stop."""


class Serving(Protocol):
    """What serves the listener."""

    should_exit: bool
    force_exit: bool

    def run(self, sockets: list[Any]) -> None:
        """Serve until should_exit is set."""


class EmbeddedListener:
    """Answers for one server from ``async with`` on to its end. make_server makes what serves a Config.

    Raises BindError if the address can't be had, unless ``bind`` has been called before.
    """

    def __init__(self, server: Embedded, make_server: Callable[[Config], Serving]) -> None:
        self._server = server
        self._started_at = time.time()
        self._ready_at: float | None = None
        self._source = EmbeddedSource(self.report, server.counters.memory)
        config = server.config
        self._listener = make_server(
            listener_config(
                {name: getattr(config, name) for name in SHARED_SETTINGS} | {"log_config": None},
                None if config.tls is None else config.tls.files,
                self._source,
            )
        )
        self._thread = threading.Thread(target=self._run, name="fastasgi-admin", daemon=True)
        self._sockets: list[Any] = []
        self._files: list[Any] = []

    def bind(self) -> None:
        """Bind the address now. Raises BindError."""
        self._sockets, self._files = bind_admin(self._server.config)

    async def __aenter__(self) -> None:
        if not self._sockets:
            self.bind()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        log_admin(self._sockets, self._server.config)
        logger.addFilter(self._is_for_the_log)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no thread
            logger.error("The admin listener can't be started: %s", error)
            self._set_ended()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.should_exit = True
        try:
            await asyncio.wait({self._ended}, timeout=PATIENCE_S)
            self._listener.force_exit = True
            await asyncio.wait({self._ended}, timeout=END_S)
            if not self._ended.done():
                logger.error("The admin listener does not end")
            elif self._thread.ident is not None:  # it has been started
                self._thread.join(END_S)
        finally:
            logger.removeFilter(self._is_for_the_log)
            close_admin(self._sockets, self._files)

    def _is_for_the_log(self, record: logging.LogRecord) -> bool:
        """Whether it says more than that the listener starts and ends: the server says that of itself."""
        return record.thread != self._thread.ident or record.levelno >= logging.WARNING

    def _run(self) -> None:
        try:
            self._listener.run(self._sockets)
        except BaseException as error:
            logger.error("The admin listener has ended", exc_info=error)
        finally:
            with contextlib.suppress(RuntimeError):  # the server's loop has been closed meanwhile
                self._loop.call_soon_threadsafe(self._set_ended)

    def _set_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def report(self) -> Report:
        """The server as it is now."""
        server = self._server
        has_to_end = server.should_exit or server.is_draining
        phase = "stopping" if has_to_end else "running" if server.started else "starting"
        if phase == "running" and self._ready_at is None:
            self._ready_at = time.time()
        is_ready, reason = self._readiness(phase)
        sockets = [sock for listener in server.servers for sock in listener.sockets]
        return Report(
            at=time.time(),
            started_at=self._started_at,
            phase=phase,
            is_live=True,
            live_reason="the process runs",
            is_ready=is_ready,
            ready_reason=reason,
            workers=[WorkerReport(0, os.getpid(), _STATES[phase], self._started_at, self._ready_at)],
            queues=queue_reports(sockets, server.config.is_ssl),
            certificates=certificate_reports(server.config.tls),
            settings=setting_reports(server.config),
        )

    def _readiness(self, phase: str) -> tuple[bool, str]:
        if phase == "starting":
            return False, "the application is starting"
        if phase == "stopping":
            return False, "the server is stopping"
        (counts,) = self._source.counts()
        if time.time() - counts.beat_at > SILENT_S:
            return False, f"the event loop has not turned for {SILENT_S:g} s"
        return True, "the server accepts connections"


_STATES = {"starting": "starting", "running": "serving", "stopping": "leaving"}
