"""The server inside a worker of gunicorn's.

Knows gunicorn's worker: its heartbeats, its pipe, and the time that it has to stop. Must not know: requests.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator

from gunicorn.workers.base import Worker  # type: ignore

from fastasgi.server import Server
from fastasgi.workers.gunicornsettings import FORCED_PART_S

HEARTBEAT_INTERVAL_S = 1.0  # at the most
CLOSE_IDLE_AFTER_S = 1.0  # once it is to stop; until then an idle connection may bring one more request


class GunicornServer(Server):
    """The server inside a FastASGIWorker: it sends heartbeats, and leaves signals to the worker."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.config)
        self._worker = worker
        self._running_loop: asyncio.AbstractEventLoop | None = None
        self._timers: list[asyncio.TimerHandle] = []
        # Other workers serve on the same sockets, so that clients need not notice the end of this one. With
        # timeout_drain they are to notice it.
        self.is_succeeded = not worker.config.timeout_drain

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: the worker handles signals."""
        yield

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Call back in the event loop. For signal handlers. Returns False if no event loop runs."""
        if self._running_loop is None:
            return False
        self._running_loop.call_soon_threadsafe(callback)
        return True

    def stop(self, at_once: bool) -> None:
        """Stop within graceful_timeout, or at once. For signal handlers and for the event loop."""
        self.force_exit = self.force_exit or at_once
        self.should_exit = True
        self.call_soon(self._limit_stop)

    def _limit_stop(self) -> None:
        if not self._timers:
            grace_s = self._worker.cfg.graceful_timeout
            until_forced_s = grace_s - min(FORCED_PART_S, grace_s / 2)
            loop = asyncio.get_running_loop()
            self._timers = [
                loop.call_later(CLOSE_IDLE_AFTER_S, self._close_idle),
                loop.call_later(until_forced_s, self.stop, True),
            ]

    def _close_idle(self) -> None:
        if self.context is not None:
            self.context.drain()

    @property
    def may_be_last(self) -> bool:
        """True: whether gunicorn stops all workers, or this one alone, is not known here."""
        return True

    def on_max_requests(self) -> None:
        """Stop, and tell gunicorn's side of the worker."""
        super().on_max_requests()
        self._worker.stop()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve as Server does, and send heartbeats, also during the application's start-up and shutdown."""
        loop = self._running_loop = asyncio.get_running_loop()
        loop.add_reader(self._worker.PIPE[0], self._on_wakeup)
        beating = asyncio.create_task(self._beat())
        try:
            await super().serve(sockets)
        finally:
            self._running_loop = None
            loop.remove_reader(self._worker.PIPE[0])
            beating.cancel()
            for timer in self._timers:
                timer.cancel()

    def _on_wakeup(self) -> None:
        """Called when the pipe is readable: signals write to it, and gunicorn's reloader from its thread."""
        os.read(self._worker.PIPE[0], 4096)
        if not self._worker.alive:
            self.stop(at_once=False)

    async def _beat(self) -> None:
        worker = self._worker
        # worker.timeout is half of the time after which the arbiter kills a silent worker; 0 sets no limit
        interval_s = min(HEARTBEAT_INTERVAL_S, worker.timeout / 2) or HEARTBEAT_INTERVAL_S
        while not worker.aborted:
            try:
                await worker.callback_notify()
            except Exception:
                worker.log.exception("Exception in callback_notify")
            if worker.ppid != os.getppid():
                worker.log.info("Parent changed, shutting down: %s", worker)
                worker.stop()
            await asyncio.sleep(interval_s)
