"""A worker process as its supervisor sees it, and the two ways to make one."""

import atexit
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from fastasgi.application.importer import MainSource, main_source
from fastasgi.config import Config
from fastasgi.errors import AppImportError, ConfigError
from fastasgi.processes import child
from fastasgi.processes.messages import HELD_SIGNALS, STANDS
from fastasgi.settings.declaration import init_values


class WorkerProcess:
    """A running worker. Times are time.monotonic()'s."""

    def __init__(
        self, pid: int, slot: int, control: socket.socket, popen: "subprocess.Popen[bytes] | None"
    ) -> None:
        self.pid = pid
        self.slot = slot
        self.control = control
        self.popen = popen  # None where it was forked
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.heard_at = self.started_at  # when its event loop last turned, as far as we know
        self.is_retiring = False  # a successor is due
        self.generation = 0  # the reload from which it has its code
        self.kill_at: float | None = None  # when it is killed, unless it has ended
        self.is_condemned = False  # what will be killed has been found guilty, and the log says of what
        self.stands_at = ""  # where it stood when it last said so; told since its loop turned, or it started
        self.told_at = self.started_at  # when the log last said that it is still starting
        self._unread = b""  # the beginning of a line

    def hear(self) -> bytes | None:
        """The single-byte messages that it has sent since the last call; None once it has closed its end.

        What it has said of where it stands is in stands_at afterwards. Raises BlockingIOError for nothing.
        """
        try:
            data = self.control.recv(4096)
        except BlockingIOError:
            raise
        except OSError:
            data = b""
        if not data:
            return None
        said = b""
        self._unread += data
        while (at := self._unread.find(STANDS)) >= 0 and (end := self._unread.find(b"\n", at)) >= 0:
            said += self._unread[:at]
            self.stands_at = self._unread[at + 1 : end].decode(errors="replace")
            self._unread = self._unread[end + 1 :]
        if at < 0:
            said, self._unread = said + self._unread, b""
        return said

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.popen is not None:
            return self.popen.poll()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended meanwhile is left alone."""
        if self.popen is not None:
            self.popen.send_signal(number)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.signal(signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def tell(self, message: bytes) -> None:
        """Send it one of the ``messages``; one that has ended meanwhile is left alone."""
        with contextlib.suppress(OSError):
            self.control.send(message, socket.MSG_DONTWAIT)

    def resident_bytes(self) -> int:
        """Its resident memory; 0 where the platform does not say."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0


def spawn_worker(
    config: Config,
    slot: int,
    sockets: list[socket.socket],
    environ: dict[str, str],
    cwd: str,
    ignored: list[int],
) -> WorkerProcess:
    """Start a worker in a fresh interpreter, which imports the application itself.

    It ignores the signals in ignored, as this process did at first. Raises ConfigError, or OSError where the
    system has no room for it.
    """
    fds = [sock.fileno() for sock in sockets]
    settings = _pickled(init_values(config))
    order = {
        "settings": settings,
        # What this program's main module has is found in a module of another name there
        "main": _main_source() if b"__main__" in settings else None,
        # A file that can't be used any more is no reason not to start
        "tls_files": None if config.tls is None else config.tls.files,
        "slot": slot,
        "sockets": fds,
        "sys_path": sys.path,
        "argv": sys.argv,
    }
    data = pickle.dumps(order)
    ours, theirs = socket.socketpair()
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        with theirs, _held_signals():
            popen = subprocess.Popen(
                [sys.executable, *flags, "-m", child.__name__, *map(str, (theirs.fileno(), *ignored))],
                pass_fds=[theirs.fileno(), *fds],
                env=environ,
                cwd=cwd,
            )
    except OSError:
        ours.close()
        raise
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # ended already, as its exit code tells
        ours.sendall(len(data).to_bytes(4, "big") + data)
    return WorkerProcess(popen.pid, slot, ours, popen)


def _pickled(settings: dict[str, Any]) -> bytes:
    try:
        return pickle.dumps(settings)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"a setting can't be passed to a worker process ({error}): name objects by import strings, "
            "define functions at the top of a module, or use preload"
        ) from None


def _main_source() -> MainSource:
    source = main_source()
    if source is None:
        raise AppImportError(
            "a setting is defined in this program's main module, which workers can't read, since it has no "
            "file: define it in a module"
        )
    return source


def fork_worker(
    config: Config, slot: int, sockets: list[socket.socket], forget: Callable[[], None]
) -> WorkerProcess:
    """Start a worker as a copy of this process, which has loaded the application.

    In the copy forget drops what is not to be shared. Raises OSError where the system has no room for it.
    """
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or nobody reads it
            stream.flush()
    try:
        with theirs, _held_signals():
            pid = os.fork()
            if pid == 0:
                ours.close()
                forget()
                _disown_children()
                _end_with(lambda: child.serve(config, slot, sockets, theirs, child.handle_signals()))
    except OSError:
        ours.close()
        raise
    return WorkerProcess(pid, slot, ours, None)


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Block, here and in a process started meanwhile, what a worker handles; it lets that through itself.

    Otherwise such a signal would meet an interpreter that is starting, or a copy that handles nothing yet.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _disown_children() -> None:
    """Leave what multiprocessing has started to the process that has: at our exit it would end it."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()


def _end_with(serve: Callable[[], object]) -> NoReturn:
    """End a forked process after what it has to do, as an interpreter of its own would."""
    code = 1
    try:
        serve()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            if code == 0:  # an application that has failed to start may have left threads that never end
                threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def describe_exit(code: int) -> str:
    """An exit code in words: ``exit code 1``, ``signal SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
