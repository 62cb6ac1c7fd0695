"""How a process of ours ends, above all one whose start fails: its exit code, and what stderr says."""

import atexit
import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import NoReturn

from fastasgi.application.importer import keep_application_frames
from fastasgi.errors import FAILURE, FastasgiError


def exit_with(error: BaseException) -> NoReturn:
    """End the process after one line for a mistake of the user's, or the traceback of the application's code.

    An application that ends the process itself as it is loaded gives the exit code, but never 0. Any other
    error is raised again.
    """
    is_applications = keep_application_frames(error)
    if isinstance(error, SystemExit) and is_applications and not exit_code_of(error):
        error = FastasgiError(ended_by_exit(error))
    if isinstance(error, FastasgiError):
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if isinstance(error, SystemExit) or not is_applications:
        raise error
    traceback.print_exception(error)
    sys.exit(FAILURE)


@contextlib.contextmanager
def owned_process() -> Iterator[None]:
    """A block that is all that this process does: if it ends with a failure, threads are not waited for.

    An application that has failed to start may have left threads behind that never end.
    """
    try:
        yield
        _end_application()
    except SystemExit as error:
        code = exit_code_of(error)
        others = [each for each in threading.enumerate() if each is not threading.main_thread()]
        if code == 0 or all(each.daemon for each in others):
            _end_application()
            raise
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_application() -> None:
    """Wait for the application's threads and call its exit functions, while the process can still fork.

    The interpreter does both as well, but CPython before 3.12.3 lets nothing fork by then (gh-113964). A
    multiprocessing.Pool that has to replace a worker at that moment, as after Ctrl-C, then never ends.
    """
    with contextlib.suppress(KeyboardInterrupt):  # it breaks off the wait, as in the interpreter's own end
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def exit_code_of(error: SystemExit) -> int:
    """What a process that this ends has as exit code."""
    if isinstance(error.code, int):
        return error.code & 0xFF
    return 0 if error.code is None else 1


def ended_by_exit(error: SystemExit) -> str:
    """The line about an application that has ended its own start."""
    return f"The application has ended its import by sys.exit({error.code!r})"


def exit_code_for(worker_code: int) -> int:
    """The exit code of a server whose worker has failed to start with this one, negative for a signal."""
    if worker_code < 0:
        return 128 - worker_code  # as a shell tells it
    return worker_code or FAILURE
