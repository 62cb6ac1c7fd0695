"""The inside of a worker process: serves as its supervisor says, and ends when the supervisor is gone.

What the two say to each other stands in ``messages``.

SIGTERM has a worker ask for a successor. So a SIGTERM that is sent to one worker loses no request, and one
that is sent to all processes does not count twice.
SIGUSR1 reopens log files; SIGUSR2 writes the stacks of all threads to stderr, and where each request waits.
"""

import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from fastasgi.application.importer import import_main, keep_application_frames
from fastasgi.config import Config
from fastasgi.errors import FAILURE, STARTUP_FAILURE, FastasgiError
from fastasgi.logging import reopen_log_files
from fastasgi.processes import messages
from fastasgi.processes.failures import ended_by_exit, exit_with, owned_process
from fastasgi.processes.rows import Row
from fastasgi.server import Server
from fastasgi.system.descriptors import make_room
from fastasgi.system.handlers import SignalHandlers
from fastasgi.system.identity import apply_process_settings
from fastasgi.system.orphan import end_orphan
from fastasgi.system.sockets import inherited_socket
from fastasgi.system.stacks import where_main_thread_stands
from fastasgi.system.stalls import AGAIN_S, Stall, StartWatch

logger = logging.getLogger("fastasgi.error")

ORPHAN_GRACE_S = 2.0  # for requests, once the supervisor is gone
ORPHAN_LIFE_S = 4  # the most that a worker outlives its supervisor


class SupervisedServer(Server):
    """A Server that tells its supervisor how it fares. ``handle_signals`` has set its handlers before."""

    def __init__(self, config: Config, control: socket.socket, row: Row | None) -> None:
        super().__init__(config)
        if row is not None:
            self.shares, self.counters = row.shares(), row.counters()
        self._control = control
        self._beat = messages.BEAT
        self._start_watch = StartWatch(AGAIN_S, self._on_slow_start)

    def _on_slow_start(self, spent_s: float) -> None:
        lifespan = getattr(self, "lifespan", None)
        self._tell_where(where_main_thread_stands(None if lifespan is None else lifespan.waiting))

    def on_stall(self, stall: Stall) -> None:
        """Log it, and tell the supervisor where the event loop stands."""
        super().on_stall(stall)
        if not stall.is_over:
            self._tell_where(stall.text)

    def _tell_where(self, where: str) -> None:
        self._tell(messages.STANDS + where.encode(errors="replace") + b"\n")

    def _tell(self, message: bytes) -> None:
        # A supervisor that does not read is suspended, which does not matter, or gone, which watch() sees
        with contextlib.suppress(OSError):
            self._control.send(message, socket.MSG_DONTWAIT)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell the supervisor."""
        await super().startup(sockets)
        self._start_watch.end()
        self._tell(messages.READY)

    def on_beat(self) -> None:
        """Tell the supervisor that the event loop is not blocked, or that a successor is wanted."""
        self._tell(self._beat)

    def on_max_requests(self) -> None:
        """Ask for a successor, and serve on until there is one."""
        self._retire(messages.LIMIT)

    def _retire(self, message: bytes) -> None:
        if self._beat == messages.BEAT:
            self._beat = message
            self._tell(message)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ask for a successor at SIGTERM, or stop after the start if that is not done yet.

        Only HURRY breaks off what runs.
        """
        if self.started:
            self._retire(messages.RETIRE)
        else:
            self.should_exit = True

    def admin_listener(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Do nothing: the supervisor has a process for that."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: ``handle_signals`` has set the handlers."""
        yield

    def watch(self) -> None:
        """Follow the supervisor, in a thread of its own: a busy event loop must not keep an orphan alive."""
        while True:
            try:
                command = self._control.recv(1)
            except OSError:
                command = b""
            if command == messages.STOP:
                self.should_exit = True
            if command == messages.SUCCEEDED:
                self.is_succeeded = True
                self.should_exit = True
            if command == messages.HURRY:
                self.should_exit = True
                self.force_exit = True
            if not command:
                break
        self.config.timeout_graceful_shutdown = min(ORPHAN_GRACE_S, self.config.grace_timeout_s)
        self.config.timeout_drain = 0
        self.should_exit = True
        time.sleep(ORPHAN_LIFE_S)
        os._exit(1)


def handle_signals() -> SignalHandlers:
    """Handle what has been held back until now. SIGTERM still ends the process: an import may take long."""
    handlers = SignalHandlers()
    # A terminal sends SIGINT, SIGHUP and SIGQUIT to supervisor and workers; the supervisor decides
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        # Programs that the application starts ignore what is ignored here, and nothing else
        if signal.getsignal(number) is not signal.SIG_IGN:
            handlers.set(number, lambda *_: None)
            signal.siginterrupt(number, False)
    handlers.set(signal.SIGUSR1, lambda *_: reopen_log_files())
    handlers.write_stacks(signal.SIGUSR2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, messages.HELD_SIGNALS)
    return handlers


def serve(
    config: Config,
    slot: int,
    row: Row | None,
    sockets: list[socket.socket],
    control: socket.socket,
    handlers: SignalHandlers,
) -> None:
    """Serve until told to stop; the exit code is SystemExit's, or 0. handlers are of ``handle_signals``."""
    make_room()
    server = SupervisedServer(config, control, row)
    threading.Thread(target=server.watch, name="fastasgi-supervisor-watch", daemon=True).start()
    try:
        apply_process_settings(config, slot)
        end_orphan(ORPHAN_LIFE_S)
        if not config.loaded:
            _load(config)
        handlers.set(signal.SIGTERM, server.handle_exit)
        handlers.write_stacks(signal.SIGUSR2, server.write_requests)
        server.run(sockets)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        exit_with(error)
    finally:
        for sock in sockets:
            sock.close()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _load(config: Config) -> None:
    try:
        config.load()
    except FastasgiError:
        raise
    except SystemExit as error:
        logger.error("%s", ended_by_exit(error))
        raise
    except BaseException as error:
        # Where the user reads the log, not on stderr alone
        keep_application_frames(error)
        logger.error("The application could not be loaded\n", exc_info=error)
        sys.exit(FAILURE)


def receive_order(control: socket.socket) -> dict[str, Any]:
    """What the supervisor has sent first, pickled."""
    with control.makefile("rb", buffering=0) as stream:
        size = int.from_bytes(_read(stream, 4), "big")
        order: dict[str, Any] = pickle.loads(_read(stream, size))
    return order


def _read(stream: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            sys.exit(1)  # the supervisor has died meanwhile
        data += piece
    return data


def main() -> None:
    """What a spawned worker runs: ``python -m fastasgi.processes.child FD SIGNAL...``, signals to ignore."""
    descriptor, *ignored = map(int, sys.argv[1:])
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    handlers = handle_signals()
    control = inherited_socket(descriptor)
    order = receive_order(control)
    sys.path[:] = order["sys_path"]
    sys.argv[:] = order["argv"]
    try:
        if order["main"] is not None:
            import_main(order["main"])
        config = Config.with_tls_files(order["tls_files"], **pickle.loads(order["settings"]))
    except FastasgiError as error:
        exit_with(error)
    row = None if order["row"] is None else Row.inherited(*order["row"])
    sockets = [inherited_socket(fd) for fd in order["sockets"]]
    serve(config, order["slot"], row, sockets, control, handlers)


if __name__ == "__main__":
    with owned_process():
        main()
