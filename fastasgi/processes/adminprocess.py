"""The process that answers at the admin listener, as its supervisor has it. ``adminchild`` is its inside.

Never waits for it, but at the end: it may be suspended, or read nothing, while the server goes on.
"""

import contextlib
import dataclasses
import logging
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from fastasgi.admin.binding import log_admin
from fastasgi.admin.report import Report
from fastasgi.admin.shared import SHARED_SETTINGS
from fastasgi.config import Config
from fastasgi.errors import ConfigError
from fastasgi.processes.listeners import Listeners
from fastasgi.processes.messages import ADMIN_END, ADMIN_SUCCEEDED
from fastasgi.processes.signalqueue import SignalQueue
from fastasgi.processes.startmethods import pickled, spawn
from fastasgi.processes.workerprocess import describe_exit
from fastasgi.settings.declaration import settings_that_differ
from fastasgi.system.adminsettings import admin_token
from fastasgi.tls.contexts import TLSFiles

logger = logging.getLogger("fastasgi.error")

INTERVAL_S = 1.0  # between two reports while nothing changes
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0  # between two starts, if it does not stay
STEADY_S = 10.0  # once it has run so long, the next start comes at once
END_S = 2.0  # that it has to end
HANG_S = 20.0  # without a beat of its event loop; then another one is started
SUCCEEDED_S = 8.0  # that it has to end once it has a successor
INSIDE = "fastasgi.processes.adminchild"

# Those that the process has in common with the server
SETTINGS = (
    *SHARED_SETTINGS, "log_config", "log_level", "use_colors", "user", "group", "umask", "process_name",
)  # fmt: skip


class AdminProcess:
    """Started and looked after by ``tend``, and ended by ``end``. Without a socket there never is a process.

    listeners have the sockets; descriptor is that of the memory in which workers count, -1 if there is none.
    environ is its environment, cwd its working folder; it ignores the signals that signals ignores.
    """

    def __init__(
        self,
        config: Config,
        listeners: Listeners,
        descriptor: int,
        environ: dict[str, str],
        cwd: str,
        signals: SignalQueue,
    ) -> None:
        self.config = config  # of the next start
        self.listeners = listeners
        self._descriptor = descriptor
        self._environ = environ
        self._cwd = cwd
        self._signals = signals
        self._running: _Running | None = None
        self._succeeded: list[_Running] = []  # which have a successor, and have not ended yet
        self._start_at = 0.0  # monotonic times, like the next one
        self._started_at = 0.0
        self._failures = 0
        self._token: bytes | None = None  # that of the process
        self._has_ended = not listeners.sockets  # for good

    @property
    def pid(self) -> int | None:
        """The process that answers, or is about to."""
        return None if self._running is None else self._running.popen.pid

    def due_times(self) -> list[float]:
        """When ``tend`` is to be called, even if nothing happens until then."""
        if self._has_ended:
            return []
        starts = [self._start_at] if self._running is None else []
        return [*starts, *(each.kill_at for each in self._succeeded)]

    def tend(self, report: Callable[[], Report] | None, now: float) -> None:
        """Tell it what has changed, and each INTERVAL_S that nothing has; start it again if it has ended.

        report makes what is told. Without it the process is there and does not answer yet.
        """
        self._reap(now)
        if self._has_ended:
            return
        self._follow_certificates()
        if self._running is None and now >= self._start_at:
            self._start()
        if self._running is not None and report is not None:
            self._running.tell(report())

    def _reap(self, now: float) -> None:
        for former in self._succeeded[:]:
            if former.popen.poll() is not None:
                former.control.close()
                self._succeeded.remove(former)
            elif now >= former.kill_at:
                former.popen.kill()
        if self._running is not None and self._running.silent_s(now) > HANG_S:
            logger.error("The admin listener's process [%d] hangs, and is replaced", self.pid)
            self._running.popen.kill()  # its end is seen by poll, now or later
            self._running.excuse(now)
        if self._running is not None and (code := self._running.popen.poll()) is not None:
            logger.error("The admin listener's process [%d] has ended: %s", self.pid, describe_exit(code))
            self._running.control.close()
            self._running = None
            self._back_off(now)

    def _back_off(self, now: float) -> None:
        """Have the next start come later the more of them have failed in a row, and the first one now."""
        self._failures = 1 if now - self._started_at > STEADY_S else self._failures + 1
        wait_s = 0.0 if self._failures == 1 else FIRST_BACKOFF_S * 2 ** min(self._failures - 2, 16)
        self._start_at = now + min(wait_s, LONGEST_BACKOFF_S)

    def _follow_certificates(self) -> None:
        """Replace a process that began with other certificates: it may not be able to read the new ones."""
        if self._running is not None and self._running.tls_files != _tls_files(self.config):
            self._let_go()

    def _start(self) -> None:
        """Start the process. If the system can't, say so in the log and try again later."""
        first = self._started_at == 0.0
        self._started_at = time.monotonic()
        sockets = self.listeners.sockets
        fds = [sock.fileno() for sock in sockets] + ([self._descriptor] if self._descriptor >= 0 else [])
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                popen = spawn(INSIDE, theirs, fds, self._environ, self._cwd, self._signals.ignored)
        except OSError as error:
            ours.close()
            logger.error("The admin listener's process can't be started: %s", error)
            self._back_off(self._started_at)
            return
        # If the file is gone meanwhile, the token that it had holds
        self._token = _token(self.config) or self._token
        if first:
            log_admin(sockets, self.config)
        self._running = _Running(popen, ours, _tls_files(self.config), self._order())

    def _order(self) -> bytes:
        settings = {name: getattr(self.config, name) for name in SETTINGS}
        if self._token is not None:
            settings |= {"admin_token_file": None, "admin_token": self._token.decode()}
        return pickle.dumps(
            {
                "settings": pickled(settings),
                # Read already: the user that it becomes may not be allowed to
                "tls_files": _tls_files(self.config),
                "sockets": [sock.fileno() for sock in self.listeners.sockets],
                "memory": self._descriptor,
                "sys_path": sys.path,
            }
        )

    def forget(self) -> None:
        """In a forked worker: close what is the supervisor's alone."""
        self._has_ended = True
        self.listeners.close_sockets()
        for process in self._all():
            process.control.close()

    def reconfigure(self, config: Config) -> None:
        """Have these settings from now on: if the process has others, another one takes its place.

        Otherwise it goes on, and with it what browsers that look at it have been shown.
        """
        if self._has_ended:
            return
        has_others = bool(settings_that_differ(self.config, config, SETTINGS))
        self.config = config
        if has_others or self._token != _token(config):
            self._let_go()

    def hand_over(self) -> None:
        """Another supervisor has the sockets too, and its process answers: end this one soon, for good."""
        self._has_ended = True
        self._let_go()
        self.listeners.hand_over()
        self.listeners.close_sockets()

    def _let_go(self) -> None:
        """Have the process end once another one has had time to start, which takes its place."""
        if self._running is not None:
            self._running.say(ADMIN_SUCCEEDED)
            self._running.kill_at = time.monotonic() + SUCCEEDED_S
            self._succeeded.append(self._running)
            self._running = None
        self._failures, self._start_at = 0, 0.0

    def reopen_logs(self) -> None:
        """Have it open log files again."""
        for process in self._all():
            process.popen.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        """End the process for good. Waits END_S at most, then kills it."""
        self._has_ended = True
        ends_at = time.monotonic() + END_S
        for process in self._all():
            process.say(ADMIN_END)
        for process in self._all():
            process.end(ends_at)
        self._running, self._succeeded = None, []

    def _all(self) -> "list[_Running]":
        return [*self._succeeded, *([] if self._running is None else [self._running])]


class _Running:
    """A process that has been started with these certificates, and gets its order.

    What is said to it is sent as far as it can be without waiting; while it does not read, no more than one
    report is kept for it.
    """

    def __init__(
        self,
        popen: "subprocess.Popen[bytes]",
        control: socket.socket,
        tls_files: TLSFiles | None,
        order: bytes,
    ) -> None:
        self.popen = popen
        self.control = control  # this end of the socket pair to it
        self.tls_files = tls_files
        self.kill_at = 0.0  # a monotonic time; only once it has a successor
        self._heard_at = self._looked_at = time.monotonic()
        self._told: Report | None = None  # the last report that was sent, or begun
        self._unsent = b""
        control.setblocking(False)
        self._send(len(order).to_bytes(4, "big") + order)

    def tell(self, report: Report) -> None:
        """Tell it this, unless it has been told already or has not read what was said before."""
        self._send(b"")
        if not self._unsent and (self._told is None or _differs(report, self._told)):
            self._told = report
            self._send(report.to_json().encode() + b"\n")

    def silent_s(self, now: float) -> float:
        """For how long it has told no beat; time in which nobody has looked does not count."""
        self._heard_at += max(0.0, now - self._looked_at - 2 * INTERVAL_S)
        self._looked_at = now
        with contextlib.suppress(OSError):
            if self.control.recv(4096):
                self._heard_at = now
        return now - self._heard_at

    def excuse(self, now: float) -> None:
        """Count its silence from now on."""
        self._heard_at = now

    def say(self, message: bytes) -> None:
        """Tell it one of the ``messages``, after which it is told nothing else but to end."""
        self._send(message)

    def _send(self, data: bytes) -> None:
        self._unsent += data
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                self._unsent = self._unsent[self.control.send(self._unsent) :]

    def end(self, ends_at: float) -> None:
        """Close the connection to it, which ends it too, and wait for its end until a monotonic time."""
        self.control.close()
        try:
            self.popen.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def _token(config: Config) -> bytes | None:
    """The token that a process would ask for which started now; None also if it can't be read now."""
    assert config.admin is not None
    with contextlib.suppress(ConfigError):  # which is told when the settings are read, or by the process
        return admin_token(config.admin, config.admin_token_file, config.admin_token)
    return None


def _tls_files(config: Config) -> TLSFiles | None:
    return None if config.tls is None else config.tls.files


def _differs(report: Report, told: Report) -> bool:
    """Whether a report is worth being told after another one."""
    if report.at - told.at >= INTERVAL_S or report.at < told.at:
        return True
    return dataclasses.replace(report, at=told.at, queues=told.queues) != told
