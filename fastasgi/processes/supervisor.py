"""Many worker processes: starts, watches, replaces and stops them. Holds the listening sockets for all.

Knows no event loop and no HTTP; ``messages`` has what it says and hears.
"""

import contextlib
import logging
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping

from fastasgi.config import Config
from fastasgi.errors import STARTUP_FAILURE, FastasgiError
from fastasgi.logging import log_process, reopen_log_files
from fastasgi.processes.failures import exit_code_for
from fastasgi.processes.listeners import Listeners
from fastasgi.processes.longstarts import NOWHERE, tell_of_start
from fastasgi.processes.messages import HURRY, READY, RETIRE, STOP, SUCCEEDED
from fastasgi.processes.preload import preload
from fastasgi.processes.reload import ChangeWatch
from fastasgi.processes.replacement import OWN_VARIABLES, Predecessor, Replacement
from fastasgi.processes.signalqueue import SignalQueue
from fastasgi.processes.startmethods import fork_worker, spawn_worker
from fastasgi.processes.workerprocess import WorkerProcess, describe_exit
from fastasgi.server import BROKEN_OFF_S, FORCED_LIFESPAN_TIMEOUT_S, LIFESPAN_END_S
from fastasgi.settings.declaration import settings_that_differ
from fastasgi.system.identity import ids_of_worker, name_process
from fastasgi.system.notify import Notifier
from fastasgi.system.pidfile import PidFile

logger = logging.getLogger("fastasgi.error")

START_ALONE_S = 2.0  # that the first worker has before the others start: most failures are then told once
HANDSHAKE_S = 1.0  # for TCP handshakes to end on a socket that gets no new ones, and for its queue to empty
STACKS_S = 0.5  # for a worker that hangs to write its stacks
EXIT_S = (
    LIFESPAN_END_S + BROKEN_OFF_S + 0.1
)  # beyond the grace time, when a worker that has not ended is killed
FORCED_EXIT_S = FORCED_LIFESPAN_TIMEOUT_S + 1.0  # the same after a second signal
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0  # between starts of a worker that does not get ready
SERVED_BACKOFF_S = 2.0  # at the most between starts of one that does, and dies soon
STEADY_S = 2.0  # a worker that has served so long is replaced at once when it dies
POLL_S = 1.0  # between looks at what tells nothing by itself: memory, age
BEAT_S = 1.0  # at the most between two beats of a worker whose event loop turns

KEPT_SETTINGS = (  # those that a reload can't change
    "bind", "host", "port", "uds", "uds_permissions", "fd", "backlog", "pid_file", "preload", "reload",
)  # fmt: skip


class Slot:
    """The place of one worker. It keeps its listening sockets while processes come and go."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.current: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None  # starting; takes the place of current once it is ready
        self.failures = 0  # starts in a row that have come to nothing
        self.start_at = 0.0  # not before this monotonic time
        self.started_at = 0.0  # when the last process was started

    def processes(self) -> list[WorkerProcess]:
        """Those that serve here or are going to."""
        return [process for process in (self.current, self.successor) if process is not None]


class Supervisor:
    """Keeps as many workers as its configuration says.

    make_config makes the configuration for each reload. It raises a FastasgiError where settings are wrong.
    environ is the environment of the workers; secrets are the variables that it has been left without, and
    that this program started anew is to have. It binds what config names, or takes sockets that are bound.
    """

    def __init__(
        self,
        config: Config,
        make_config: Callable[[], Config],
        environ: dict[str, str],
        secrets: Mapping[str, str],
        sockets: list[socket.socket] | None = None,
    ) -> None:
        self.config = config
        self.make_config = make_config
        self.environ = {name: value for name, value in environ.items() if name not in OWN_VARIABLES}
        self.secrets = secrets
        self.cwd = _working_folder()
        self.predecessor = Predecessor.from_environment()  # until that has ended
        if self.predecessor is not None:
            self.listeners = self.predecessor.listeners(config.backlog)
        else:
            self.listeners = Listeners.bind(config, sockets)
        self.has_bound = sockets is None  # otherwise whoever did has told where
        self.slots: list[Slot] = []
        self.leaving: list[WorkerProcess] = []  # no slot's any more: they drain, or are about to be killed
        self.removed: list[tuple[float, Slot]] = []  # slots that get no new connections, and until when
        self.renewing: Slot | None = None  # whose process gets a successor: one slot after the other
        self.generation = 0  # one more with each reload
        self.previous: Config | None = None  # the configuration before a reload, until that is done
        self.has_started = False  # all workers have been ready once
        self.has_served = False  # a worker has been ready once
        self.is_stopping = False
        self.is_idle = False  # by SIGWINCH: no workers until SIGHUP or SIGTTIN
        self.exit_code = 0
        self.failure_code = STARTUP_FAILURE  # of the last start of a worker that has failed
        self.replacement: Replacement | None = None
        self.pid_file: PidFile | None = None
        self.changes: ChangeWatch | None = None
        self.notifier = Notifier()
        self.poll_at = 0.0
        self.looked_at = 0.0  # when the last turn dealt with what had happened
        self.signals = SignalQueue()
        self.selector = selectors.DefaultSelector()
        self.handlers: dict[str, Callable[[], None]] = {
            "SIGTERM": self.stop,
            "SIGINT": self.stop,
            "SIGQUIT": self.stop_now,
            "SIGHUP": self.reload,
            "SIGUSR1": self.reopen_logs,
            "SIGUSR2": self.replace,
            "SIGTTIN": self.add_worker,
            "SIGTTOU": self.remove_worker,
            "SIGWINCH": self.withdraw,
            "SIGCHLD": self.reap,
        }

    @property
    def is_candidate(self) -> bool:
        """Whether another supervisor is in charge, and this one to take its place."""
        return self.predecessor is not None and self.predecessor.is_in_charge

    def run(self) -> int:
        """Serve until told to stop; returns the exit code. Raises a FastasgiError where it can't begin."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_listeners)
            # Before anybody can know whom to signal
            stack.enter_context(self.signals.captured(self.handlers, self.selector))
            if self.config.pid_file is not None:
                self.pid_file = PidFile(os.fspath(self.config.pid_file))
                stack.callback(self.pid_file.remove)
                if not self.is_candidate:
                    self.pid_file.write()
            name_process(self.config, "supervisor")
            log_process("Started", "supervisor")
            if self.config.preload and (code := preload(self.config, self.signals)) is not None:
                return code
            if self.config.reload:
                self.changes = stack.enter_context(ChangeWatch(self.config))
                self.selector.register(self.changes, selectors.EVENT_READ, self._on_change)
            if self.has_bound:
                self.config.log_listening(self.listeners.of_slot(0))
            self._resize(self.config.worker_count)
            self.looked_at = time.monotonic()
            self._fill(self.looked_at)
            try:
                while not self.is_stopping or self._processes():
                    self._turn()
            finally:
                for process in self._processes():
                    process.kill()
        log_process("Finished", "supervisor")
        return self.exit_code

    def _turn(self) -> None:
        """Deal with what has happened until now; wait where nothing has."""
        for key, _ in self.selector.select(self._time_left()):
            key.data()
        for name in self.signals.removed():
            self.handlers[name]()
        now = time.monotonic()
        self._excuse_pause(now)
        if now >= self.poll_at:
            self.poll_at = now + POLL_S
            self._poll(now)
        self._judge(now)
        if not self.is_stopping:
            self._close_removed(now)
            self._fill(now)
            self._renew(now)
            self._steer()

    def _time_left(self) -> float:
        """Seconds until something is due; never more than POLL_S."""
        now = time.monotonic()
        due = [self.poll_at]
        due += [at for at, _ in self.removed]
        due += [slot.start_at for slot in self.slots if not slot.processes()]
        due += [now + START_ALONE_S / 20] if not self.has_served else []
        due += [process.kill_at for process in self._processes() if process.kill_at is not None]
        # What was due at the last turn and is not done waits for something else
        return max(0.0, min(at for at in due if at > self.looked_at) - now)

    def _excuse_pause(self, now: float) -> None:
        """Where this process was suspended, its workers may have been too, or have been heard too late."""
        pause_s = now - self.looked_at - POLL_S
        self.looked_at = now
        if pause_s > POLL_S:
            for process in self._processes():
                process.started_at = min(now, process.started_at + pause_s)
                process.heard_at = min(now, process.heard_at + pause_s)
                if process.kill_at is not None:
                    process.kill_at += pause_s

    def _steer(self) -> None:
        """Let new connections go where a worker serves; where none does, they wait for any, at first for the
        one that is started first."""
        if not (self.is_candidate or self.is_stopping):
            serving = [slot.index for slot in self.slots if slot.current is not None]
            waiting = [slot.index for slot in self.slots] if self.has_served else [0]
            self.listeners.steer(serving or waiting)

    def _close_listeners(self) -> None:
        if self.is_candidate:
            self.listeners.hand_over()  # the files are still our predecessor's
        self.listeners.close()

    def _processes(self) -> list[WorkerProcess]:
        return [process for slot in self._all_slots() for process in slot.processes()] + self.leaving

    def _all_slots(self) -> list[Slot]:
        return self.slots + [slot for _, slot in self.removed]

    # --- Signals ---

    def stop(self) -> None:
        """SIGTERM, SIGINT: end gracefully. The second time, at once."""
        if self.is_stopping:
            self.stop_now()
            return
        self.notifier.stopping()
        self._begin_stop()
        for process in self._dismiss_all():
            self._send_off(process, STOP)
            self._leave(process, self.config.timeout_drain)

    def stop_now(self) -> None:
        """SIGQUIT: end without waiting for requests."""
        self._begin_stop()
        self.leaving += self._dismiss_all()
        for process in self.leaving:
            process.signal(signal.SIGTERM)  # for one that does not listen yet
            process.tell(HURRY)
            process.kill_at = min(process.kill_at or math.inf, time.monotonic() + FORCED_EXIT_S)

    def _begin_stop(self) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            if not self.has_served and any(slot.failures for slot in self.slots):
                self.exit_code = self.failure_code
            # From now on who accepts decides how long there is something to connect to
            self.listeners.close_sockets()
            logger.info("Stopping workers")
            if self.replacement is not None:
                self.replacement.terminate()  # without effect once it has taken over

    def reload(self) -> None:
        """SIGHUP: read the configuration again, and give each worker a successor that loads the code anew."""
        if self.is_stopping:
            return
        if self.config.reload:
            # Files tell when to reload: this is the terminal, which closes
            self.stop()
            return
        if self.config.preload:
            self.replace()
            return
        logger.info("Reloading")
        self.notifier.reloading()
        try:
            config = self.make_config()
        except FastasgiError as error:
            logger.error("Not reloaded, the workers go on as they are: %s", error)
            self.notifier.ready()
            return
        for name in settings_that_differ(self.config, config, KEPT_SETTINGS):
            logger.warning("%s has changed; this takes SIGUSR2 or a restart", name)
        for name in KEPT_SETTINGS:
            setattr(config, name, getattr(self.config, name))
        before, self.config = self.config, config
        self.previous = self.previous or before
        if before.worker_count != config.worker_count > len(self.slots):
            self._try_resize(config.worker_count)
        self.is_idle = False
        self.generation += 1
        for slot in self.slots:
            slot.failures, slot.start_at = 0, 0.0

    def _finish_reload(self, previous: Config) -> None:
        self.previous = None
        # Not before: had the new code failed, workers of the old would be lost
        if previous.worker_count != self.config.worker_count < len(self.slots):
            self._try_resize(self.config.worker_count)
        self.notifier.ready()
        logger.info("Reloaded")

    def _give_up_reload(self, previous: Config) -> None:
        logger.error("Not reloaded, the workers go on as they are")
        failed, self.config, self.previous = self.config, previous, None
        if failed.worker_count != previous.worker_count < len(self.slots):
            self._try_resize(previous.worker_count)
        previous.configure_logging()
        for slot in self.slots:
            for process in slot.processes():
                process.generation = self.generation
        self.notifier.ready()

    def reopen_logs(self) -> None:
        """SIGUSR1: open log files again, for whoever has moved them; here first, where rights suffice."""
        reopen_log_files(ids_of_worker(self.config))
        for process in self._processes():
            process.signal(signal.SIGUSR1)

    def add_worker(self) -> None:
        """SIGTTIN: one more worker."""
        if not self.is_stopping:
            self.is_idle = False
            self._try_resize(len(self.slots) + 1)

    def remove_worker(self) -> None:
        """SIGTTOU: one worker less, but never none."""
        if not self.is_stopping and len(self.slots) > 1:
            self._try_resize(len(self.slots) - 1)

    def withdraw(self) -> None:
        """SIGWINCH: end all workers gracefully; connections wait for SIGHUP or SIGTTIN.

        A terminal sends this signal too, when its window changes; then it means nothing.
        """
        if self.is_stopping or _is_in_foreground():
            return
        logger.info("Withdrawing all workers")
        self.is_idle = True
        for process in self._dismiss_all():
            self._let_go(process)

    def replace(self) -> None:
        """SIGUSR2: start this program anew with the same sockets.

        Once its workers are ready it takes our place. Where it fails we go on.
        """
        if self.is_stopping or self.is_candidate or self.replacement is not None:
            return
        logger.info("Starting a new supervisor")
        self.notifier.reloading()
        environ = {**self.environ, **self.secrets, **self.notifier.environ()}
        try:
            self.replacement = Replacement(self.listeners, environ, self.cwd, self.signals.ignored)
        except OSError as error:
            logger.error("The new supervisor can't be started, this one goes on: %s", error)
            self.notifier.ready()
            return
        self.selector.register(self.replacement.link, selectors.EVENT_READ, self._on_replacement)

    def _on_replacement(self) -> None:
        """The new supervisor is ready to take over, or has failed."""
        assert self.replacement is not None
        self.selector.unregister(self.replacement.link)
        if not self.replacement.hear():
            self.replacement.close()
            self.replacement = None
            if not self.is_stopping:
                logger.error("The new supervisor did not start; this one goes on")
                self.notifier.ready()
        elif not self.is_stopping:
            logger.info("Supervisor [%d] takes over", self.replacement.pid)
            self.listeners.hand_over()
            self.notifier.main_pid(self.replacement.pid)
            self.notifier.close()
            self.replacement.release()
            self._begin_stop()
            for process in self._dismiss_all():
                self._let_go(process)

    def _take_over(self, predecessor: Predecessor) -> None:
        """The workers are ready: this supervisor does from now on what its predecessor did."""
        if self.pid_file is not None:
            try:
                self.pid_file.write(instead_of=os.getppid())
            except FastasgiError as error:
                logger.error("%s", error)
        try:
            predecessor.take_over()
        except OSError:  # it has died, and the service manager does not know of this supervisor
            self.notifier.ready()
        self.selector.register(predecessor.link, selectors.EVENT_READ, self._on_predecessor_gone)

    def _on_predecessor_gone(self) -> None:
        assert self.predecessor is not None
        self.selector.unregister(self.predecessor.link)
        self.predecessor.link.close()
        self.predecessor = None

    # --- Processes come and go ---

    def _resize(self, count: int) -> None:
        """Have `count` slots. Those too many get no new connections, and their workers end a while later.

        Raises BindError, with no slot changed.
        """
        for index in range(len(self.slots), count):
            self.listeners.of_slot(index)
        at = time.monotonic() + HANDSHAKE_S
        while len(self.slots) > count:
            self.removed.append((at, self.slots.pop()))
        while len(self.slots) < count:
            again = [entry for entry in self.removed if entry[1].index == len(self.slots)]
            if again:
                self.removed.remove(again[0])
            self.slots.append(again[0][1] if again else Slot(len(self.slots)))

    def _try_resize(self, count: int) -> None:
        try:
            self._resize(count)
        except FastasgiError as error:
            logger.error("There are still %d workers: %s", len(self.slots), error)
        else:
            logger.info("%d worker(s) from now on", count)

    def _close_removed(self, now: float) -> None:
        for entry in list(self.removed):
            at, slot = entry
            if now < at:
                continue
            self.removed.remove(entry)
            for process in self._dismiss(slot):
                self._let_go(process)
        # A socket that a process still accepts on is not to be closed, nor to be made anew beside it
        if self.predecessor is None:
            used = [*(slot.index for _, slot in self.removed), *(process.slot for process in self.leaving)]
            self.listeners.release(max(len(self.slots), *(index + 1 for index in used), 1))

    def _fill(self, now: float) -> None:
        """Start what is missing."""
        if self.is_idle:
            return
        has_failed = not self.has_served and any(slot.failures for slot in self.slots)
        if has_failed and not self.config.reload and not any(slot.processes() for slot in self.slots):
            logger.error("No worker has started")
            self._begin_stop()
            return
        for slot in self.slots:
            if slot.processes() or now < slot.start_at or (slot.failures and not self.has_served):
                continue
            if self.config.reload and any(process.slot == slot.index for process in self.leaving):
                continue  # what the old code holds, the new code may need
            if slot.index and not self.has_served and now < self.slots[0].started_at + START_ALONE_S:
                continue
            self._start(slot)

    def _renew(self, now: float) -> None:
        """Start the next successor, unless one is starting."""
        if self.renewing is None:
            outdated = (
                slot
                for slot in self.slots
                if slot.current is not None
                and slot.successor is None
                and (slot.current.is_retiring or slot.current.generation != self.generation)
                and now >= slot.start_at
            )
            self.renewing = next(outdated, None)
            if self.renewing is not None:
                self._start(self.renewing)
        if self.previous is not None and all(
            slot.current is not None and slot.current.generation == self.generation for slot in self.slots
        ):
            self._finish_reload(self.previous)

    def _start(self, slot: Slot) -> None:
        slot.started_at = time.monotonic()
        sockets = self.listeners.of_slot(slot.index)
        try:
            if self.config.preload:
                process = fork_worker(self.config, slot.index, sockets, lambda: self._forget(sockets))
            else:
                ignored = self.signals.ignored
                process = spawn_worker(self.config, slot.index, sockets, self.environ, self.cwd, ignored)
        except OSError as error:
            logger.error("A worker can't be started: %s", error)
            self._start_failed(slot, slot.started_at)
            return
        process.generation = self.generation
        slot.successor = process
        self.selector.register(process.control, selectors.EVENT_READ, lambda: self._on_control(process))

    def _forget(self, sockets: list[socket.socket]) -> None:
        """In a forked worker: drop what is the supervisor's."""
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()
        for other in (self.predecessor, self.replacement):
            if other is not None:
                other.link.close()
        self.listeners.keep_only(sockets)

    def _on_control(self, process: WorkerProcess) -> None:
        """A worker has said something, or has closed its end."""
        if process.control.fileno() < 0:
            return  # it has ended since select() returned
        try:
            said = process.hear()
        except BlockingIOError:
            return
        if said is None:
            self._drop_control(process)
            self.reap()
            return
        if not said:
            return
        process.heard_at = time.monotonic()
        process.stands_at = ""
        slot = self._slot_of(process)
        if READY in said:
            process.ready_at = process.heard_at
            if slot is None and process.kill_at is not None:
                process.kill_at = process.heard_at + self._exit_time_s(process, self.config.timeout_drain)
            if slot is not None and slot.successor is process:
                self._take_place(slot)
        if RETIRE in said and slot is not None:
            if not process.is_retiring:
                logger.info("Worker [%d] asks for a successor", process.pid)
            self._retire(slot, process)

    def _slot_of(self, process: WorkerProcess) -> Slot | None:
        return next((slot for slot in self._all_slots() if process in slot.processes()), None)

    def _take_place(self, slot: Slot) -> None:
        """The successor is ready."""
        former, slot.current, slot.successor = slot.current, slot.successor, None
        self.has_served = True
        if former is not None:
            slot.failures = 0
            self._let_go(former)
        if self.renewing is slot:
            self.renewing = None
        if not self.has_started and all(each.current is not None for each in self.slots):
            self.has_started = True
            if self.predecessor is not None and self.predecessor.is_in_charge:
                self._take_over(self.predecessor)  # which tells the service manager, which knows it
            else:
                self.notifier.ready()

    def _retire(self, slot: Slot, process: WorkerProcess) -> None:
        """Have a worker succeeded that has reached a limit. It serves until then."""
        if process is slot.current and not process.is_retiring and not self.is_stopping:
            process.is_retiring = True

    def _let_go(self, process: WorkerProcess) -> None:
        """A process that no slot needs any more is to drain and end."""
        self._send_off(process, SUCCEEDED)
        self._leave(process, 0.0)

    def _send_off(self, process: WorkerProcess, message: bytes) -> None:
        if process.ready_at is None:
            process.signal(signal.SIGTERM)
        process.tell(message)  # it may be ready, and we have not heard of it

    def _leave(self, process: WorkerProcess, drain_s: float) -> None:
        process.kill_at = time.monotonic() + self._exit_time_s(process, drain_s)
        self.leaving.append(process)

    def _dismiss(self, slot: Slot) -> list[WorkerProcess]:
        processes = slot.processes()
        slot.current = slot.successor = None
        if self.renewing is slot:
            self.renewing = None
        return processes

    def _dismiss_all(self) -> list[WorkerProcess]:
        return [process for slot in self._all_slots() for process in self._dismiss(slot)]

    def reap(self) -> None:
        """SIGCHLD: see which processes have ended."""
        if self.replacement is not None:
            self.replacement.poll()
        for process in self._processes():
            code = process.poll()
            if code is not None:
                self._drop_control(process)
                self._ended(process, code)

    def _drop_control(self, process: WorkerProcess) -> None:
        if process.control.fileno() >= 0:
            with contextlib.suppress(KeyError):
                self.selector.unregister(process.control)
            process.control.close()

    def _ended(self, process: WorkerProcess, code: int) -> None:
        now = time.monotonic()
        slot = self._slot_of(process)
        if slot is None:
            self.leaving.remove(process)
        elif slot.successor is process:
            slot.successor = None
            logger.error("Worker [%d] did not start: %s", process.pid, describe_exit(code))
            self.failure_code = exit_code_for(code)
            self._start_failed(slot, now)
        else:
            slot.current = None
            logger.error("Worker [%d] has died: %s", process.pid, describe_exit(code))
            self._back_off(slot, now, None if process.ready_at is None else now - process.ready_at)

    def _start_failed(self, slot: Slot, now: float) -> None:
        self._back_off(slot, now, None)
        if self.renewing is slot:
            self.renewing = None
            if self.previous is not None:
                self._give_up_reload(self.previous)
        elif self.config.reload:
            slot.start_at = math.inf
            logger.info("Waiting for a change")

    def _back_off(self, slot: Slot, now: float, served_s: float | None) -> None:
        """Let a slot wait before its next start, twice as long each time that a process did not stay.

        served_s is how long the last one was ready, None where it never was.
        """
        slot.failures = 0 if served_s is not None and served_s >= STEADY_S else slot.failures + 1
        doubled = FIRST_BACKOFF_S * 2 ** min(slot.failures - 2, 16)
        longest = LONGEST_BACKOFF_S if served_s is None else SERVED_BACKOFF_S
        slot.start_at = now + (min(longest, doubled) if slot.failures > 1 else 0.0)

    def _on_change(self) -> None:
        """--reload: files have changed."""
        assert self.changes is not None
        names = self.changes.take()
        if not names or self.is_stopping:
            return
        logger.warning("Detected changes in %s. Reloading...", ", ".join(names))
        for slot in self.slots:
            slot.start_at = 0.0
            slot.failures = 0
            for process in self._dismiss(slot):
                self._let_go(process)

    # --- Watching ---

    def _poll(self, now: float) -> None:
        """What has to be looked at each second: certificates for new workers, limits, systemd's watchdog."""
        self.notifier.watchdog()
        if self.config.tls is not None:
            self.config.tls.poll(now)
        limit = self.config.limit_worker_rss
        life_s = self.config.limit_worker_lifetime
        for slot in self.slots:
            process = slot.current
            if process is None or process.is_retiring or now - process.started_at < STEADY_S:
                continue
            if limit is not None and process.resident_bytes() > limit * 2**20:
                logger.warning("Worker [%d] uses more than %d MiB and gets a successor", process.pid, limit)
                self._retire(slot, process)
            elif life_s is not None and now - process.started_at > life_s:
                logger.info("Worker [%d] is older than %g seconds and gets a successor", process.pid, life_s)
                self._retire(slot, process)

    def _judge(self, now: float) -> None:
        """Find who hangs, and kill whose time is over."""
        for slot in self._all_slots():
            for process in slot.processes():
                if process.ready_at is None:
                    limit_s, name = self.config.timeout_worker_startup, "timeout_worker_startup"
                    silent_s, what = now - process.started_at, "is not ready after"
                    tell_of_start(process, now)
                else:
                    limit_s, name = self.config.healthcheck_timeout_s, "timeout_worker_healthcheck"
                    silent_s, what = now - process.heard_at - BEAT_S, "has not turned its loop for"
                if silent_s > limit_s > 0:
                    self._condemn(process, f"{what} {limit_s:g} seconds ({name})", now)
        for process in self._processes():
            if process.kill_at is not None and now >= process.kill_at:
                if not process.is_condemned:
                    logger.error("Worker [%d] does not end and is killed", process.pid)
                process.kill_at = None
                process.signal(signal.SIGKILL)

    def _condemn(self, process: WorkerProcess, what: str, now: float) -> None:
        """Replace a worker that hangs; it has a moment to write where."""
        logger.error(
            "Worker [%d] %s and is replaced: %s. Its stacks:", process.pid, what, process.stands_at or NOWHERE
        )
        slot = self._slot_of(process)
        assert slot is not None
        process.signal(signal.SIGUSR2)
        process.is_condemned = True
        process.kill_at = now + STACKS_S
        self.leaving.append(process)
        if slot.current is process:
            slot.current = None
            self._back_off(slot, now, math.inf)
        else:
            slot.successor = None
            self._start_failed(slot, now)

    def _exit_time_s(self, process: WorkerProcess, drain_s: float) -> float:
        """How long a worker may take to end."""
        if process.ready_at is None:
            return FORCED_EXIT_S
        return drain_s + self.config.grace_timeout_s + EXIT_S


def _working_folder() -> str:
    """The working folder as the shell names it: a link to a release leads to the next one after a change."""
    named = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    return os.getcwd()


def _is_in_foreground() -> bool:
    """Whether a terminal sends its signals to this process."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
