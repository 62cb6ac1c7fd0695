"""Many worker processes on the same listening sockets, as an operator directs them by signals.

``pool`` starts, watches and ends the workers; ``states`` opens with tables of all states and events. Knows
no event loop and no HTTP.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping

from fastasgi.config import Config
from fastasgi.errors import FastasgiError
from fastasgi.logging import log_process, reopen_log_files
from fastasgi.processes.adminprocess import AdminProcess
from fastasgi.processes.listeners import Listeners
from fastasgi.processes.messages import STOP
from fastasgi.processes.pool import WorkerPool
from fastasgi.processes.preload import preload
from fastasgi.processes.reload import ChangeWatch
from fastasgi.processes.replacement import OWN_VARIABLES, Predecessor, Replacement
from fastasgi.processes.reporter import Reporter
from fastasgi.processes.rows import Row, Rows
from fastasgi.processes.signalqueue import SignalQueue
from fastasgi.processes.startmethods import fork_worker, spawn_worker
from fastasgi.processes.states import Phase
from fastasgi.processes.workerprocess import WorkerProcess
from fastasgi.settings.declaration import settings_that_differ
from fastasgi.system.identity import ids_of_worker, name_process
from fastasgi.system.notify import Notifier
from fastasgi.system.pidfile import PidFile

logger = logging.getLogger("fastasgi.error")

POLL_S = 1.0  # between looks at what tells nothing by itself: memory, age

KEPT_SETTINGS = (  # those that a reload can't change
    "bind", "host", "port", "uds", "uds_permissions", "fd", "reuse_port", "backlog", "pid_file",
    "preload", "reload", "admin",
)  # fmt: skip


class Supervisor:
    """Keeps as many workers as its configuration says.

    make_config makes the configuration for each reload, and raises a FastasgiError if settings are wrong.
    environ is the environment of the workers. secrets are variables that have been taken out of it, and that
    this program gets again if it is started anew. Without sockets, which are bound, it binds what config
    names.
    """

    def __init__(
        self,
        config: Config,
        make_config: Callable[[], Config],
        environ: dict[str, str],
        secrets: Mapping[str, str],
        sockets: list[socket.socket] | None = None,
    ) -> None:
        self.make_config = make_config
        self.environ = {name: value for name, value in environ.items() if name not in OWN_VARIABLES}
        self.secrets = secrets
        self.cwd = _working_folder()
        self.predecessor = Predecessor.from_environment()  # until this one has taken over
        if self.predecessor is not None:
            self.listeners = self.predecessor.listeners()
            admin_listeners, memory = self.predecessor.admin_listeners(config), self.predecessor.memory
        else:
            self.listeners, admin_listeners = Listeners.bind_both(config, sockets)
            memory = -1
        self.has_bound = sockets is None  # otherwise whoever has bound the sockets has told where
        self.selector = selectors.DefaultSelector()  # its keys hold what to call when they are ready
        self.signals = SignalQueue()
        self.notifier = Notifier()
        self.rows = Rows(memory)
        self.workers = WorkerPool(
            config,
            self.rows,
            self.selector,
            self._start_worker,
            self._on_started,
            self._on_renewal_failed,
        )
        self.reporter = Reporter(self.workers, self.listeners)
        self.admin = AdminProcess(
            config, admin_listeners, self.rows.descriptor, self.environ, self.cwd, self.signals
        )
        self.phase = Phase.RUNNING
        self.before_reload: Config | None = None  # the configuration before a reload, until that is over
        self.replacement: Replacement | None = None  # once started, until it has failed
        self.pid_file: PidFile | None = None
        self.changes: ChangeWatch | None = None
        self.exit_code = 0
        self.poll_at = 0.0  # a monotonic time, like the next one
        self.looked_at = 0.0  # when the last turn dealt with what had happened

    @property
    def config(self) -> Config:
        """The configuration of the workers that are started from now on."""
        return self.workers.config

    @property
    def is_stopping(self) -> bool:
        """Whether nothing is started any more."""
        return self.phase is Phase.STOPPING

    @property
    def is_candidate(self) -> bool:
        """Whether another supervisor is in charge, and this one is to take its place."""
        return self.predecessor is not None

    def run(self) -> int:
        """Serve until told to stop; returns the exit code. Raises a FastasgiError if it can't begin."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_listeners)
            stack.callback(self.rows.close)
            stack.callback(self.admin.end)
            # Before the pid file or a log line tells anybody whom to signal
            stack.enter_context(self.signals.captured(_HANDLERS, self.selector))
            if self.config.pid_file is not None:
                self.pid_file = PidFile(os.fspath(self.config.pid_file))
                stack.callback(self.pid_file.remove)
                if not self.is_candidate:
                    self.pid_file.write()
            name_process(self.config, "supervisor")
            log_process("Started", "supervisor")
            self._tend_admin(time.monotonic())
            if self.config.preload and (code := preload(self.config, self.signals)) is not None:
                return code
            if self.config.reload:
                self.changes = stack.enter_context(ChangeWatch(self.config))
                self.selector.register(self.changes, selectors.EVENT_READ, self._on_change)
            if self.has_bound:
                self.config.log_listening(self.listeners.sockets)
            self.workers.resize(self.config.worker_count)
            self.looked_at = time.monotonic()
            self._fill(self.looked_at)
            try:
                while not self.is_stopping or self.workers.processes():
                    self._turn()
            finally:
                for process in self.workers.processes():
                    process.kill()
        log_process("Finished", "supervisor")
        return self.exit_code

    def _turn(self) -> None:
        """Deal with what has happened until now; if nothing has, wait first."""
        for key, _ in self.selector.select(self._time_left_s()):
            key.data()
        for name in self.signals.removed():
            _HANDLERS[name](self)
        now = time.monotonic()
        self._excuse_pause(now)
        if now >= self.poll_at:
            self.poll_at = now + POLL_S
            self._poll(now)
        self.workers.judge(now)
        if not self.is_stopping:
            self._fill(now)
            self._renew(now)
        self._tend_admin(now)

    def _tend_admin(self, now: float) -> None:
        """Report to the process of the admin listener; a candidate's predecessor has one that answers."""
        self.admin.tend(None if self.is_candidate else lambda: self.reporter.report(self.phase), now)

    def _time_left_s(self) -> float:
        """Seconds until something is due; never more than POLL_S."""
        now = time.monotonic()
        due = [self.poll_at, *self.workers.due_times(now), *self.admin.due_times()]
        # The last turn has dealt with what was due by then, or has left it to wait for another event
        return max(0.0, min(at for at in due if at > self.looked_at) - now)

    def _excuse_pause(self, now: float) -> None:
        """If this process was suspended, hold that time against no worker: it has been heard too late."""
        pause_s = now - self.looked_at - POLL_S
        self.looked_at = now
        if pause_s > POLL_S:
            self.workers.excuse(pause_s, now)

    def _poll(self, now: float) -> None:
        """What has to be looked at each second: certificates for new workers, limits, systemd's watchdog."""
        self.notifier.watchdog()
        if self.config.tls is not None:
            self.config.tls.poll(now)
        self.workers.retire_by_limits(now)

    def _close_listeners(self) -> None:
        if self.is_candidate:
            self.listeners.hand_over()  # the files of Unix sockets are still the predecessor's
            self.admin.listeners.hand_over()
        self.listeners.close()
        self.admin.listeners.close()

    # --- Workers ---

    def _fill(self, now: float) -> None:
        """Start the workers that are missing; stop if none can be started."""
        if self.phase is Phase.WITHDRAWN:
            return
        if self.workers.has_failed and self.workers.is_empty and not self.config.reload:
            logger.error("No worker has started")
            self._begin_stop()
        else:
            self.workers.fill(now)

    def _start_worker(self, slot: int, row: Row | None) -> WorkerProcess:
        sockets = self.listeners.sockets
        if self.config.preload:
            return fork_worker(self.config, slot, row, sockets, self._forget)
        return spawn_worker(self.config, slot, row, sockets, self.environ, self.cwd, self.signals.ignored)

    def _forget(self) -> None:
        """In a forked worker: close what is the supervisor's alone."""
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()
        for other in (self.predecessor, self.replacement):
            if other is not None:
                other.link.close()
        self.rows.close()
        self.admin.forget()

    def _on_started(self) -> None:
        """All workers are ready for the first time."""
        if self.predecessor is not None:
            self._take_over(self.predecessor)  # which tells the service manager
        else:
            self.notifier.ready()

    def _resize(self, count: int) -> None:
        self.workers.resize(count)
        logger.info("%d worker(s) from now on", count)

    def add_worker(self) -> None:
        """SIGTTIN: one more worker."""
        if not self.is_stopping:
            self.phase = Phase.RUNNING
            self._resize(len(self.workers.slots) + 1)

    def remove_worker(self) -> None:
        """SIGTTOU: one worker less, but never none."""
        if not self.is_stopping and len(self.workers.slots) > 1:
            self._resize(len(self.workers.slots) - 1)

    def withdraw(self) -> None:
        """SIGWINCH: end all workers gracefully; connections wait for SIGHUP or SIGTTIN.

        A terminal sends this signal too, when its window changes; then it means nothing.
        """
        if self.is_stopping or _is_in_foreground():
            return
        logger.info("Withdrawing all workers")
        self.phase = Phase.WITHDRAWN
        self.workers.let_go_all()

    def reap(self) -> None:
        """SIGCHLD: see which processes have ended."""
        if self.replacement is not None:
            self.replacement.poll()
        self.workers.reap()

    def reopen_logs(self) -> None:
        """SIGUSR1: open log files again after they have been moved.

        This process opens them first, since it may have the right to make files that workers lack.
        """
        reopen_log_files(ids_of_worker(self.config))
        self.admin.reopen_logs()
        for process in self.workers.processes():
            process.signal(signal.SIGUSR1)

    # --- The end ---

    def stop(self) -> None:
        """SIGTERM, SIGINT: end gracefully. The second time, at once."""
        if self.is_stopping:
            self.stop_now()
            return
        self.notifier.stopping()
        self._begin_stop()
        self.workers.let_go_all(STOP, self.config.timeout_drain)

    def stop_now(self) -> None:
        """SIGQUIT: end without waiting for requests."""
        self._begin_stop()
        self.workers.hurry_all()

    def _begin_stop(self) -> None:
        """Start nothing from now on. The caller sees to it that no slot has a process afterwards."""
        if not self.is_stopping:
            self.phase = Phase.STOPPING
            if self.workers.has_failed:
                self.exit_code = self.workers.failure_code
            # From now on there is something to connect to for as long as workers accept
            self.listeners.close_sockets()
            logger.info("Stopping workers")
            if self.replacement is not None:
                self.replacement.terminate()

    # --- Reload ---

    # A reload is:
    # 1. `reload` makes the new configuration, and adds one to the pool's generation number. Nothing starts.
    # 2. Each turn, `_renew` has the pool look for a worker of an older generation. It starts a successor in
    #    the same slot, which has the new configuration and loads the code anew. Two never start together.
    # 3. When the successor says READY the slot is its own. The old worker is told SUCCEEDED, and drains.
    # 4. The next turn finds the next slot. Once all slots are of the newest generation the reload is
    #    finished, and slots that are too many are removed.
    # If a successor ends or hangs before it is READY, the reload is given up: the old configuration is back,
    # and the workers that serve count as of the newest generation, whichever code they have. SIGHUP meanwhile
    # begins again at 1; given up then, the configuration is that from before the first of these reloads.

    def reload(self) -> None:
        """SIGHUP: read the configuration again, and give each worker a successor that loads the code anew.

        With ``preload`` this process has the code, and so a new supervisor is started, as for SIGUSR2.
        """
        if self.is_stopping:
            return
        if self.config.reload:
            # Changes of files cause reloads. This signal comes of a terminal that closes
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
        before, self.workers.config = self.config, config
        self.before_reload = self.before_reload or before
        if before.worker_count != config.worker_count > len(self.workers.slots):
            self._resize(config.worker_count)
        self.phase = Phase.RUNNING
        self.workers.outdate()

    def _renew(self, now: float) -> None:
        """Go on with the reload, and with the successors of workers that retire."""
        self.workers.renew(now)
        if self.before_reload is not None and self.workers.is_renewed:
            self._finish_reload(self.before_reload)

    def _finish_reload(self, before: Config) -> None:
        self.before_reload = None
        self.admin.reconfigure(self.config)
        # Not earlier: if the new code had failed, workers of the old would have been lost
        if before.worker_count != self.config.worker_count < len(self.workers.slots):
            self._resize(self.config.worker_count)
        self.notifier.ready()
        logger.info("Reloaded")

    def _on_renewal_failed(self) -> None:
        """A successor has not started. The one of a worker that retires is started again later."""
        if self.before_reload is not None:
            self._give_up_reload(self.before_reload)

    def _give_up_reload(self, before: Config) -> None:
        logger.error("Not reloaded, the workers go on as they are")
        failed, self.workers.config, self.before_reload = self.config, before, None
        if failed.worker_count != before.worker_count < len(self.workers.slots):
            self._resize(before.worker_count)
        before.configure_logging()
        self.workers.keep_outdated()
        self.notifier.ready()

    def _on_change(self) -> None:
        """Files have changed (the setting ``reload``)."""
        assert self.changes is not None
        names = self.changes.names()
        if not names or self.is_stopping:
            return
        logger.warning("Detected changes in %s. Reloading...", ", ".join(names))
        self.workers.restart_all()

    # --- Another supervisor ---

    def replace(self) -> None:
        """SIGUSR2: start this program anew with the same sockets.

        Once the workers of the new supervisor are ready it takes this one's place. If it fails this one goes
        on.
        """
        if self.is_stopping or self.is_candidate or self.replacement is not None:
            return
        logger.info("Starting a new supervisor")
        self.notifier.reloading()
        environ = {**self.environ, **self.secrets, **self.notifier.environ()}
        try:
            admin = (self.admin.listeners, self.rows.descriptor)
            self.replacement = Replacement(self.listeners, *admin, environ, self.cwd, self.signals.ignored)
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
            self.workers.let_go_all()
            self.admin.hand_over()

    def _take_over(self, predecessor: Predecessor) -> None:
        """The workers are ready: this supervisor does from now on what its predecessor did."""
        if self.pid_file is not None:
            try:
                self.pid_file.write(instead_of=os.getppid())
            except FastasgiError as error:
                logger.error("%s", error)
        self.predecessor = None
        self._tend_admin(time.monotonic())  # before the predecessor's process is told to end
        try:
            predecessor.take_over()
        except OSError:  # it has died, and the service manager does not know of this supervisor
            self.notifier.ready()


# By names: a platform that lacks one of the signals can import this
_HANDLERS: dict[str, Callable[[Supervisor], None]] = {
    "SIGTERM": Supervisor.stop,
    "SIGINT": Supervisor.stop,
    "SIGQUIT": Supervisor.stop_now,
    "SIGHUP": Supervisor.reload,
    "SIGUSR1": Supervisor.reopen_logs,
    "SIGUSR2": Supervisor.replace,
    "SIGTTIN": Supervisor.add_worker,
    "SIGTTOU": Supervisor.remove_worker,
    "SIGWINCH": Supervisor.withdraw,
    "SIGCHLD": Supervisor.reap,
}


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
