"""The two ways to start a worker: spawn, a fresh interpreter, and fork, a copy of this process.

Knows the inside of a worker, which it runs. Must not know: what becomes of the worker.
"""

import atexit
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from fastasgi.application.importer import MainSource, main_source
from fastasgi.config import Config
from fastasgi.errors import AppImportError, ConfigError
from fastasgi.processes import child
from fastasgi.processes.messages import HELD_SIGNALS
from fastasgi.processes.rows import Row
from fastasgi.processes.workerprocess import WorkerProcess
from fastasgi.settings.declaration import init_values


def spawn_worker(
    config: Config,
    slot: int,
    row: Row | None,
    sockets: list[socket.socket],
    environ: dict[str, str],
    cwd: str,
    ignored: list[int],
) -> WorkerProcess:
    """Start a worker in a fresh interpreter, which imports the application itself.

    slot is the number of its slot, row a row of its own, environ its environment and cwd its working folder.
    It ignores the signals in ignored, as this process did before it handled them. Raises ConfigError or
    AppImportError if the settings can't be passed to another process, and OSError if the system can't start
    one.
    """
    fds = [sock.fileno() for sock in sockets]
    settings = pickled(init_values(config))
    order = {
        "settings": settings,
        # Only if a setting is defined in this program's main module: it has another name in the worker
        "main": _main_source() if b"__main__" in settings else None,
        # Read already: a worker also starts if a file has become unusable meanwhile
        "tls_files": None if config.tls is None else config.tls.files,
        "slot": slot,
        "sockets": fds,
        "row": None if row is None else (row.descriptor, row.number),
        "sys_path": sys.path,
        "argv": sys.argv,
    }
    data = pickle.dumps(order)
    inherited = fds if row is None else [*fds, row.descriptor]
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            popen = spawn(child.__name__, theirs, inherited, environ, cwd, ignored)
    except OSError:
        ours.close()
        raise
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended; its exit code tells why
        ours.sendall(len(data).to_bytes(4, "big") + data)
    return WorkerProcess(popen.pid, slot, ours, popen)


def spawn(
    module: str,
    control: socket.socket,
    fds: list[int],
    environ: dict[str, str],
    cwd: str,
    ignored: list[int],
) -> "subprocess.Popen[bytes]":
    """Run a module in a fresh interpreter: ``python -m MODULE FD SIGNAL...``, with the control socket's FD.

    The process inherits fds too, and starts with the signals that it handles blocked; ignored are those that
    it is to ignore. Raises OSError.
    """
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    with held_signals():
        return subprocess.Popen(
            [sys.executable, *flags, "-m", module, *map(str, (control.fileno(), *ignored))],
            pass_fds=[control.fileno(), *fds],
            env=environ,
            cwd=cwd,
        )


def pickled(settings: dict[str, Any]) -> bytes:
    """Settings for another process. Raises ConfigError if they can't be passed."""
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
    config: Config, slot: int, row: Row | None, sockets: list[socket.socket], forget: Callable[[], None]
) -> WorkerProcess:
    """Start a worker as a copy of this process, which has loaded the application.

    slot is the number of its slot, row a row of its own. The copy calls forget first, which closes what
    belongs to this process alone. Raises OSError if the system can't make the copy.
    """
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the stream may be closed, or nobody may read it
            stream.flush()
    try:
        with theirs, held_signals():
            pid = os.fork()
            if pid == 0:
                ours.close()
                forget()
                _disown_children()
                _end_with(lambda: child.serve(config, slot, row, sockets, theirs, child.handle_signals()))
    except OSError:
        ours.close()
        raise
    return WorkerProcess(pid, slot, ours, None)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Block the signals that a worker handles, in this process and in a worker started meanwhile.

    The worker unblocks them once it handles them. Otherwise such a signal would meet an interpreter that is
    starting, or a copy of this process that handles nothing yet.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _disown_children() -> None:
    """In a forked worker: forget what multiprocessing has started, or the exit would end those processes."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()


def _end_with(serve: Callable[[], object]) -> NoReturn:
    """Call serve, then end this forked process as an interpreter of its own would end."""
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
