"""The import of the application in the supervisor, before workers are forked (the setting ``preload``)."""

import contextlib
import gc
import logging
import signal
import threading
from collections.abc import Iterator

from fastasgi.application.importer import keep_application_frames
from fastasgi.config import Config
from fastasgi.errors import FAILURE, AppImportError, FastasgiError
from fastasgi.processes.failures import ended_by_exit, exit_code_of
from fastasgi.processes.longstarts import told_of_import
from fastasgi.processes.signalqueue import SignalQueue
from fastasgi.system.handlers import SignalHandlers, is_main_thread

logger = logging.getLogger("fastasgi.error")


def preload(config: Config, signals: SignalQueue) -> int | None:
    """Import the application. Returns the exit code if the supervisor is to end: what failed is logged.

    A signal that is to end the supervisor breaks the import off.
    """
    with signals.interrupting():
        code = _load(config, signals)
    if code is not None:
        return code
    if threading.active_count() > 1:
        logger.warning("Importing the application has started threads; preloaded workers lack them.")
    gc.collect()
    gc.freeze()  # a worker's collector then leaves the memory that it shares with the others as it is
    return None


def _load(config: Config, signals: SignalQueue) -> int | None:
    try:
        with _time_limit(config.timeout_worker_startup), told_of_import():
            config.load()
    except FastasgiError as error:
        logger.error("%s", error)
        return error.exit_code
    except SystemExit as error:
        if not signals.is_empty:
            return 0
        logger.error("%s", ended_by_exit(error))
        return exit_code_of(error) or FAILURE
    except BaseException as error:
        keep_application_frames(error)
        logger.error("The application could not be loaded\n", exc_info=error)
        return FAILURE
    return None


@contextlib.contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    """Raise AppImportError out of the block if it takes longer; 0 sets no limit. Uses SIGALRM.

    Outside the main thread there is no limit.
    """

    def end(number: int, frame: object) -> None:
        raise AppImportError(
            f"timeout_worker_startup {limit_s:g}: the application's import takes longer: give it more time"
        )

    if not is_main_thread():  # no handler can be set there, and the alarm would end the process
        yield
        return
    with SignalHandlers() as handlers:
        handlers.set(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
