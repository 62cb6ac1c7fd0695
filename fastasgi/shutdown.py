"""How a server's run ends: its requests in phases, each with its time, then the application's lifespan.

Knows what is open and the application's lifespan. Must not know: signals, who asked for the end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastasgi.application.lifespan import Lifespan
from fastasgi.core.contracts import WorkerContext
from fastasgi.sinks.acceptor import Acceptor

logger = logging.getLogger("fastasgi.error")

DEFERRED_S = 0.4  # for the first bytes of the last clients, if many have come: see Acceptor.stop_deferring
NOTICE_AFTER_S = 0.1  # of waiting for requests before the log says so
PHASE_TIMEOUT_S = 2.0  # for requests to end once they are disconnected, and once more when they are cancelled
FORCED_PHASE_TIMEOUT_S = 0.1  # for requests to end in any phase after a second signal
FORCED_LIFESPAN_TIMEOUT_S = 2.0  # for the application's own shutdown after a second signal
# With these the process has ended 8 seconds after the grace time. By default that is 28 seconds after the
# signal, and an orchestrator kills after 30.
LIFESPAN_END_S = 6.0  # after the grace time, when the application's own shutdown is broken off
BROKEN_OFF_S = 1.4  # for the application's own shutdown to end once it is broken off


class Shutdown:
    """The end of one run, which may be hurried: then nothing is waited for long.

    ``has_given_up`` becomes True if tasks have outlived all that was done to end them.
    """

    def __init__(self) -> None:
        self.has_given_up = False
        self.hurried: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hurry(self) -> None:
        """Wait for nothing more."""
        if not self.hurried.done():
            self.hurried.set_result(None)

    async def accept_last(self, acceptor: Acceptor) -> None:
        """Accept all connections that wait, also those of clients whose requests are still on their way.

        It is done in callbacks, since requests begin at once, which asyncio refuses inside a task.
        """
        loop = asyncio.get_running_loop()
        loop.call_soon(acceptor.accept_waiting)
        await asyncio.sleep(0)
        if acceptor.stop_deferring():
            await asyncio.wait({self.hurried}, timeout=DEFERRED_S)
            loop.call_soon(acceptor.accept_waiting)
            await asyncio.sleep(0)

    async def end_requests(
        self,
        context: WorkerContext,
        grace_timeout_s: float,
        keeps_idle: bool,
        tick_soon: Callable[[], None],
    ) -> None:
        """Go through the phases, until all connections and requests have ended.

        keeps_idle is ``WorkerContext.drain``'s. tick_soon is called at the beginning of each phase.
        """

        def begin_shutdown() -> None:
            context.drain(keeps_idle=keeps_idle)
            # Who reads this may count on it: from now on each response says that it is the connection's last
            logger.info("Shutting down")

        phases: list[tuple[Callable[[], None], float, str]] = [
            (begin_shutdown, grace_timeout_s, ""),
            (context.disconnect, PHASE_TIMEOUT_S, "Disconnecting %d request(s), graceful shutdown is over."),
            (context.cancel, PHASE_TIMEOUT_S, "Cancelling %d request(s), graceful shutdown is over."),
            (context.abort, FORCED_PHASE_TIMEOUT_S, "Giving up %d request(s) that ignore cancellation."),
        ]
        idle = asyncio.create_task(context.registry.wait_idle())
        notice = asyncio.get_running_loop().call_later(NOTICE_AFTER_S, _log_waiting, context)
        try:
            for begin, timeout_s, message in phases:
                if message and context.registry.exchange_count:
                    logger.error(message, context.registry.exchange_count)
                begin()
                tick_soon()
                if await self.is_done(idle, timeout_s, FORCED_PHASE_TIMEOUT_S):
                    break
                notice.cancel()
            else:
                self.has_given_up = True
        finally:
            notice.cancel()
            idle.cancel()

    async def stop_lifespan(self, lifespan: Lifespan, ends_at: float) -> None:
        """Have the application's own shutdown run; it is broken off at ends_at, of the event loop's clock."""
        stopping = asyncio.create_task(lifespan.shutdown())
        left_s = max(0.0, ends_at - asyncio.get_running_loop().time())
        if await self.is_done(stopping, left_s, FORCED_LIFESPAN_TIMEOUT_S):
            stopping.result()
        elif self.hurried.done():
            await self.give_up(lifespan, stopping)
        else:
            logger.error(
                "Application shutdown is broken off: it has not ended %g seconds after the grace time "
                "(timeout_graceful_shutdown)",
                LIFESPAN_END_S,
            )
            await self.give_up(lifespan, stopping, BROKEN_OFF_S)

    async def give_up(
        self,
        lifespan: Lifespan,
        work: "asyncio.Task[None]",
        timeout_s: float = 2 * FORCED_LIFESPAN_TIMEOUT_S,
    ) -> None:
        """Cancel work of the lifespan's and wait for it: by default as long as cancelling its call takes."""
        work.cancel()
        await asyncio.wait({work}, timeout=timeout_s)
        self.has_given_up = self.has_given_up or not work.done() or lifespan.is_running

    async def is_done(
        self, work: "asyncio.Task[None]", timeout_s: float | None, hurried_timeout_s: float
    ) -> bool:
        """Whether work ends within timeout_s (None: in the end), or soon after the end is hurried."""
        await asyncio.wait((work, self.hurried), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self.hurried.done() and not work.done():
            await asyncio.wait({work}, timeout=hurried_timeout_s)
        return work.done()

    async def see_through(self, work: Coroutine[Any, Any, None]) -> None:
        """Await work to its end. A cancellation meanwhile hurries it, as a second signal does."""
        task = asyncio.create_task(work)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
                self.hurry()
        task.result()
        try:
            if cancelled is not None:
                raise cancelled
        finally:
            del cancelled  # whose traceback leads here


def _log_waiting(context: WorkerContext) -> None:
    logger.info(
        "Waiting for %d connection(s) and %d request(s) to end. (CTRL+C to force quit)",
        context.registry.connection_count,
        context.registry.exchange_count,
    )


class Stoppable:
    """What can be told to stop from outside, before it runs, while it does, or by another run's signal."""

    def __init__(self) -> None:
        self._should_exit = False
        self._force_exit = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget_run()

    def _forget_run(self) -> None:
        """Forget an earlier run, but not should_exit and force_exit."""
        self._exit_asked: asyncio.Future[None] | None = None
        self._shutdown: Shutdown | None = None

    def _begin_run(self) -> asyncio.AbstractEventLoop:
        """Run in the running event loop, which is returned."""
        self._loop = asyncio.get_running_loop()
        self._exit_asked, self._shutdown = self._loop.create_future(), Shutdown()
        if self._should_exit:
            self._ask_exit()
        if self._force_exit:
            self._ask_force()
        return self._loop

    @property
    def should_exit(self) -> bool:
        """Whether it is to stop gracefully."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if value:
            self._call_soon(self._ask_exit)

    @property
    def force_exit(self) -> bool:
        """Whether, once stopping, it is to wait for nothing."""
        return self._force_exit

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        self._force_exit = value
        if value:
            self._call_soon(self._ask_force)

    @property
    def _end_of_run(self) -> Shutdown:
        """How this run ends, from its beginning on."""
        assert self._shutdown is not None
        return self._shutdown

    def _call_soon(self, callback: Callable[[], object]) -> None:
        """Have the event loop call back, from any thread or signal handler. Nothing is done if none runs."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(callback)

    def _ask_exit(self) -> None:
        """Have this run stop. Called in the event loop."""
        if self._exit_asked is not None and not self._exit_asked.done():
            self._exit_asked.set_result(None)

    def _ask_force(self) -> None:
        """Have this run, once it stops, wait for nothing. Called in the event loop."""
        if self._shutdown is not None:
            self._shutdown.hurry()
