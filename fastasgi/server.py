"""One server in one event loop: starts the application, listens, handles signals, ends.

Must not know: other processes. ``launch`` decides how many there are.
"""

import asyncio
import contextlib
import logging
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastasgi.application.lifespan import Lifespan
from fastasgi.asgi.record import slow_ended, slow_requests
from fastasgi.config import STALL_S, Config
from fastasgi.core.contracts import WorkerContext
from fastasgi.core.counters import new_counters
from fastasgi.core.meter import Meter
from fastasgi.core.shares import Shares
from fastasgi.endpoints.health import HealthCheck
from fastasgi.errors import STARTUP_FAILURE as STARTUP_FAILURE
from fastasgi.logging import log_mapping, log_process
from fastasgi.logs.accessroute import make_access_log
from fastasgi.serverstate import ServerState as ServerState
from fastasgi.shutdown import FORCED_PHASE_TIMEOUT_S, LIFESPAN_END_S, Stoppable
from fastasgi.sinks.acceptor import Acceptor, Listener
from fastasgi.system.descriptors import make_room
from fastasgi.system.handlers import SignalHandlers, is_main_thread
from fastasgi.system.interpreter import log_interpreter
from fastasgi.system.slowlog import SlowLog
from fastasgi.system.sockets import listen_error
from fastasgi.system.stacks import write_report
from fastasgi.system.stalls import Stall, StallLog, StallWatch
from fastasgi.wires.opening import Opening

if TYPE_CHECKING:
    from fastasgi.admin.embedded import EmbeddedListener

logger = logging.getLogger("fastasgi.error")

LEAST_NOTIFY_S = 1.0  # between calls of callback_notify if timeout_notify is 0, as in uvicorn

HANDLED_SIGNALS: list[int] = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
]


class Server(Stoppable):
    """Serves one application in one event loop.

    ``started`` is True once requests are accepted. Setting ``should_exit``, from any thread or task, stops
    the server gracefully; setting ``force_exit`` too, at once. ``servers`` are its Listeners, one a socket,
    like an ``asyncio.Server`` each, and ``server_state`` tells what is open and runs. It may serve again
    afterwards; what was set stays set, by a signal too.

    Subclasses may extend ``startup``, ``shutdown`` and ``capture_signals``, and override the hooks
    ``on_context``, ``on_beat``, ``on_stall``, ``on_max_requests``, ``stop_signals`` and ``handle_exit``.
    ``context`` is what all connections share; None before the start.
    """

    lifespan: Lifespan

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.server_state = ServerState()
        self.is_succeeded = (
            False  # another process accepts on the same sockets: no client need notice this one's end
        )
        self.shares: Shares | None = None  # where other workers see how many connections this one has
        self.counters = new_counters()  # where others see what this one does
        self.measures = config.admin is not None  # also what costs with each request is counted
        self._is_serving = False
        self._admin_listener: EmbeddedListener | None = None  # only if it has been bound before
        self._signal_handlers = SignalHandlers()  # those that capture_signals has set, while it is entered
        self._captured_signals: list[int] = []
        self._stall_log, self._slow_log = StallLog(), SlowLog()
        self._reset()

    def _reset(self) -> None:
        """Forget an earlier run, but not should_exit and force_exit, which are set from outside."""
        self.started = False
        self.servers: list[Listener] = []
        self.is_draining = False
        self._forget_run()
        self.context: WorkerContext | None = None
        self._acceptor: Acceptor | None = None
        self._tick_handle: asyncio.Handle | None = None
        self._watches = contextlib.ExitStack()  # what looks at the event loop, to be ended

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in a new event loop until told to stop; a signal that stopped it is raised again at the end.

        Raises ConfigError, AppImportError, BindError, or SystemExit(3) if the application fails to start.
        """
        runner = asyncio.Runner(loop_factory=self.config.get_loop_factory())
        with self.capture_signals():
            serving = runner.get_loop().create_task(self.serve(sockets))
            try:
                while not serving.done():
                    # An application's sys.exit() ends the event loop, but has failed in its request only.
                    with contextlib.suppress(SystemExit):
                        runner.get_loop().run_until_complete(serving)
                serving.result()
            finally:
                # Closing the runner waits for every task, also for one that ignores its cancellation.
                if self._shutdown is None or not self._shutdown.has_given_up:
                    runner.close()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in the running event loop until told to stop. Raises what ``run`` raises.

        When it is cancelled, it stops listening at once, lets running requests end, stops the application,
        and then raises CancelledError. A second cancellation, which an anyio scope sends at once, has it wait
        for nothing more. A start-up of the application that is not done is broken off.
        """
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None) -> None:
        if self._is_serving:
            raise RuntimeError("this Server serves already: make another one of the same Config")
        self._is_serving = True
        try:
            if not self.config.loaded:
                self.config.load()
            self.lifespan = self.config.lifespan_class(self.config)
            self._reset()  # before anybody can look
            async with self.admin_listener():
                await self._serve_app(sockets)
        finally:
            self._is_serving = False
        log_process("Finished", "server")

    async def _serve_app(self, sockets: list[socket.socket] | None) -> None:
        await self.startup(sockets)
        try:
            await self.main_loop()
        except asyncio.CancelledError:
            self._stop_listening(sockets or [])  # before anything is awaited: that may be cancelled too
            raise
        finally:
            await self._end_of_run.see_through(self.shutdown(sockets))

    def admin_listener(self) -> contextlib.AbstractAsyncContextManager[None]:
        """What answers at the admin listener while the server starts, serves and ends. Raises BindError.

        Subclasses for which another process does so return a context that does nothing.
        """
        if self.config.admin is None:
            return contextlib.nullcontext()
        bound, self._admin_listener = self._admin_listener, None
        return bound or self._new_admin_listener()

    def bind_admin(self) -> None:
        """Bind the admin listener now, since what is to be done before ``serve`` may take the right to.

        Raises BindError or ConfigError.
        """
        if self.config.admin is not None:
            self._admin_listener = self._new_admin_listener()
            self._admin_listener.bind()

    def _new_admin_listener(self) -> "EmbeddedListener":
        from fastasgi.admin.embedded import EmbeddedListener  # here, since most servers have none

        return EmbeddedListener(self, Server)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, start the application, listen. ``config`` must be loaded and ``lifespan`` set.

        Raises BindError, or SystemExit(3) if the application's start-up fails.
        """
        self._reset()
        make_room()
        self._loop = self._begin_run()
        listeners = self.config.bind_sockets() if sockets is None else sockets
        log_process("Started", "server")
        if not self.config.is_supervised:  # else the supervisor tells it once
            log_interpreter()
        stall_s = self.config.log_stall_s or STALL_S
        self._watches.callback(self._stall_log.tell_rest, at_once=True)
        self._watches.callback(StallWatch(self._loop, stall_s, self.on_stall).end)
        try:
            await self._start_lifespan()
            log_mapping(self.config.uvicorn_names)
            # Not before, since the application's start-up may have set up logging
            self.context = self._make_context()
            self.on_context(self.context)
            self.server_state.follow(self.context)
            self._acceptor = Acceptor(self.context, self.config.tls)
            for sock in listeners:
                self._listen(sock)
            if sockets is None:
                self.config.log_listening(listeners)
        except BaseException:
            self._stop_listening(listeners)
            await self._end_of_run.see_through(self._end(self._loop.time()))
            raise
        self._tick_soon()
        if self.context.measures:
            self._watches.callback(Meter(self._loop, self.counters).end)
        self.started = True

    def on_stall(self, stall: Stall) -> None:
        """Called when the event loop is blocked, again each second, and at the end: log it, and count it.

        Another thread calls.
        """
        if self.config.log_stall_s > 0:
            self._stall_log.tell(stall)
        if self.context is not None:
            self.context.tell_gauges()
        self.counters.note_stall(stall.record(), stall.is_new)

    async def _start_lifespan(self) -> None:
        end = self._end_of_run
        starting = asyncio.create_task(self.lifespan.startup())
        is_done = False
        try:
            is_done = await end.is_done(starting, None, FORCED_PHASE_TIMEOUT_S)
        finally:
            if not is_done:
                end.hurry()
                await end.see_through(end.give_up(self.lifespan, starting))
                logger.error("Application startup was broken off")
        if not is_done:
            # The exit code by which a shell tells of a signal that has ended a process
            sys.exit(128 + self._captured_signals[-1] if self._captured_signals else STARTUP_FAILURE)
        starting.result()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)

    def _make_context(self) -> WorkerContext:
        config = self.config
        app = config.loaded_app
        health = None
        if config.health_path is not None:
            health = HealthCheck(config.health_path, lambda: self.is_draining)
            app = health.before(app)
        context = WorkerContext(
            asyncio.get_running_loop(),
            app,
            config,
            state=self.lifespan.state,
            logger=logger,
            access_log=make_access_log(config.access_log, config.access_log_format),
            counters=self.counters,
            measures=self.measures,
        )
        context.opener = Opening(context, config)
        context.passes_limits = None if health is None else health.is_asked
        context.registry.shares = self.shares
        context.registry.max_requests = self._max_requests()
        context.registry.on_max_requests = self.on_max_requests
        return context

    def _max_requests(self) -> int:
        limit = self.config.limit_max_requests
        return 0 if limit is None else limit + random.randint(0, self.config.limit_max_requests_jitter)

    def on_context(self, context: WorkerContext) -> None:
        """Called in the event loop once the WorkerContext of a run is made, before anything is accepted.

        It does nothing: it is for subclasses, which may register a wire with ``context.opener``.
        """

    def on_max_requests(self) -> None:
        """Called once limit_max_requests has been reached, in the event loop: stop gracefully."""
        logger.info("Maximum number of requests reached. Terminating process.")
        if self._acceptor is not None:
            self._acceptor.rests = True
        self._ask_exit()

    def _listen(self, sock: socket.socket) -> None:
        assert self._acceptor is not None
        try:
            sock.listen(self.config.backlog)
        except OSError as error:
            raise listen_error(sock, error) from None
        self.servers.append(self._acceptor.listen(sock))

    def _tick_soon(self) -> None:
        """Tick in the next turn of the event loop, and from then on in intervals.

        It can't be now: a tick runs tasks in place, which asyncio refuses inside the server's own task.
        """
        assert self._loop is not None
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._tick_handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        assert self._loop is not None
        assert self.context is not None
        self._tick_handle = self._loop.call_later(self.context.tick_interval_s, self._tick)
        self.context.tick()
        if self._acceptor is not None:
            self._acceptor.tick()
        if self.config.tls is not None:
            self.config.tls.poll(self._loop.time())
        if self.config.log_slow:
            self._slow_log.tell(slow_requests(self.context.registry, self.config.log_slow))
            self._slow_log.tell_ended(*slow_ended(self.context.registry))
        self._stall_log.tell_rest()
        self.on_beat()

    @property
    def may_be_last(self) -> bool:
        """Whether nobody may accept on the sockets once this server has stopped."""
        return not self.is_succeeded

    def on_beat(self) -> None:
        """Called in the event loop, at least once a second, from the start until all requests have ended.

        It does nothing: it is for subclasses that tell somebody that the event loop is not blocked.
        """

    async def main_loop(self) -> None:
        """Return when the server is to stop."""
        assert self._exit_asked is not None
        notifying = None
        if self.config.callback_notify is not None:
            notifying = asyncio.create_task(self._notify(self.config.callback_notify))
        try:
            await asyncio.wait({self._exit_asked})
        finally:
            if notifying is not None:
                notifying.cancel()

    async def _notify(self, callback: Callable[[], Any]) -> None:
        while True:
            try:
                await callback()
            except Exception as error:
                logger.error("Exception in callback_notify", exc_info=error)
            await asyncio.sleep(self.config.timeout_notify or LEAST_NOTIFY_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let running requests end within their times, and stop the application."""
        assert self._loop is not None
        if self._acceptor is not None:
            self._acceptor.rests = False
        await self._drain()
        began_at = self._loop.time()
        if self._acceptor is not None and self.may_be_last:
            await self._end_of_run.accept_last(self._acceptor)
        self._stop_listening(sockets or [])
        await self._end(began_at)

    async def _end(self, began_at: float) -> None:
        """Let running requests end within their times, and stop the application.

        began_at is when the first of these times began, of the event loop's clock.
        """
        assert self._loop is not None
        end = self._end_of_run
        grace_s = max(0.0, self.config.grace_timeout_s - (self._loop.time() - began_at))
        lifespan_ends_at = began_at + self.config.grace_timeout_s + LIFESPAN_END_S
        try:
            if self.context is not None:
                # With reload a successor waits for us
                keeps_idle = self.is_succeeded and not self.config.reload
                await end.end_requests(self.context, grace_s, keeps_idle, self._tick_soon)
        finally:
            if self._tick_handle is not None:
                self._tick_handle.cancel()
            if self.context is not None:
                self.context.finish_logs()
                self._slow_log.tell_ended(*slow_ended(self.context.registry))
            self._slow_log.tell_rest()
            if self._acceptor is not None:
                self._acceptor.close()
            try:
                await end.stop_lifespan(self.lifespan, lifespan_ends_at)
            finally:
                self._watches.close()

    async def _drain(self) -> None:
        """Serve on for timeout_drain. Health checks fail, and each response closes its connection."""
        hurried = self._end_of_run.hurried
        self.is_draining = True
        is_listening = any(server.is_serving() for server in self.servers)
        if not is_listening or self.is_succeeded or hurried.done():
            return
        if self.config.timeout_drain > 0:
            logger.info("Draining for %g seconds", self.config.timeout_drain)
            if self.context is not None:
                self.context.drain(keeps_idle=True, accepts=True)
            await asyncio.wait({hurried}, timeout=self.config.timeout_drain)

    def _stop_listening(self, sockets: list[socket.socket]) -> None:
        if self._acceptor is not None:
            self._acceptor.stop()
        for sock in sockets:
            sock.close()
        for file in self.config.socket_files:
            file.remove()
        self.config.socket_files.clear()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have ``handle_exit`` handle the signals that stop the server, and raise those that came at the end.

        The last one is raised first. Nothing is done outside the main thread, since Python calls no handlers
        there, or if the signals are captured already.
        """
        if self._signal_handlers.numbers or not is_main_thread():
            yield
            return
        self._captured_signals = []
        with self._signal_handlers as handlers:
            for number in self.stop_signals():
                handlers.set(number, self.handle_exit)
            yield
        captured, self._captured_signals = self._captured_signals, []
        for number in reversed(captured):
            _flush_streams()
            signal.raise_signal(number)

    def stop_signals(self) -> list[int]:
        """The signals that ``handle_exit`` is to be the handler of, asked for when they are captured."""
        return HANDLED_SIGNALS

    def renew_certificates(self) -> None:
        """Have the files of TLS read again, from any thread or signal handler. Without TLS do nothing."""
        if self.config.tls is not None:
            self._call_soon(self.config.tls.reload)

    def write_requests(self, frame: FrameType | None) -> None:
        """A signal handler: write to stderr what requests there are and where they wait."""
        if self.context is not None and frame is not None:
            write_report(self.context.loop, self.context.registry.running_tasks, frame)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler: the first signal stops the server gracefully, a second one at once."""
        self._captured_signals.append(sig)
        if self._should_exit:
            self.force_exit = True
            return
        self.should_exit = True  # before the log: another signal may interrupt that
        if not self.started:
            logger.info("Waiting for application startup to end first. (CTRL+C to force quit)")


def _flush_streams() -> None:
    """Write what is buffered, before a signal is raised that may end the process without it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
