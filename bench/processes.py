"""Starts and ends processes, each with a session of its own: none is left, whenever an interrupt comes."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Self

from bench import accounting

STOP_S = 5.0
POLL_S = 0.005
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def take_interrupts() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, once for all of them.

    A second one would come while what runs is being ended, and leave some of it. A signal that this process
    was started to ignore, as by nohup, stays ignored.
    """

    def interrupt(number: int, frame: object) -> NoReturn:
        for other in _taken():
            # Not SIG_IGN, which a child would inherit.
            signal.signal(other, lambda number, frame: None)
        raise KeyboardInterrupt

    for number in _taken():
        signal.signal(number, interrupt)


def _taken() -> list[signal.Signals]:
    """Those of the interrupts that this process doesn't ignore."""
    return [number for number in INTERRUPTS if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def on_cores(cores: tuple[int, ...]) -> Iterator[None]:
    """What is started meanwhile runs on these cores only."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP that come meanwhile take effect at the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: came.append(number)) for number in _taken()
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for interrupt in came[:1]:
            signal.raise_signal(interrupt)


class Processes:
    """Processes of which none outlives the block: ``with Processes() as group``."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with interrupts_deferred():
            for process in reversed(self._started):
                stop(process)

    def start(
        self, command: list[str], cores: tuple[int, ...], log: Path, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a process on these cores, the leader of a session, whose output goes to `log`.

        Raises OSError.
        """
        with open(log, "ab") as output, on_cores(cores):
            return self.start_piped(command, **{"stdout": output, "stderr": output, **options})

    def start_piped(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a process on any core, the leader of a session, with pipes for its output. Raises OSError."""
        with interrupts_deferred():
            pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            options = {**pipes, **options}
            self._started.append(subprocess.Popen(command, text=True, start_new_session=True, **options))
            return self._started[-1]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, the leader of a session of which nothing is left; what it wrote.

    Raises OSError.
    """
    with Processes() as group:
        process = group.start_piped(command, **options)
        out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def stop(process: subprocess.Popen[str]) -> None:
    """End the leader of a session, and all of its session: gently first, then for sure."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for pid in accounting.tree_pids(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    # Its port is free, and its memory given back, only when the last one has ended too.
    ends = time.monotonic() + STOP_S
    while accounting.tree_pids(process.pid) and time.monotonic() < ends:
        time.sleep(POLL_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


def last_line(log: Path) -> str:
    """The last line in a log that says something, shortened; for a message about why a process has ended."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:200] if lines else "it wrote nothing"
