"""The file that holds the process id of a running server."""

import contextlib
import logging
import os
import stat
import tempfile

from fastasgi.errors import BindError

logger = logging.getLogger("fastasgi.error")


class PidFile:
    """The pid file at a path. It belongs to the process whose id is in it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def write(self, instead_of: int | None = None) -> None:
        """Put this process's id into the file, in one step.

        Raises BindError if the file can't be written, or names a running process other than `instead_of`.
        """
        if os.path.exists(self.path) and not stat.S_ISREG(os.stat(self.path).st_mode):
            raise BindError(f"pid_file {self.path!r} is not a regular file: choose another --pid-file")
        pid = self._read()
        if pid is not None and pid not in (os.getpid(), instead_of) and _is_running(pid):
            raise BindError(
                f"pid_file {self.path!r} names the running process {pid}: "
                "stop that, or choose another --pid-file"
            )
        try:
            descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(self.path), prefix=".fastasgi-pid-")
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(f"{os.getpid()}\n")
                os.chmod(temporary, 0o644)
                os.replace(temporary, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise BindError(
                f"pid_file {self.path!r} can't be written ({error.strerror}): choose another --pid-file"
            ) from None

    def remove(self) -> None:
        """Remove the file, unless it belongs to another process by now."""
        if self._read() == os.getpid():
            try:
                os.unlink(self.path)
            except OSError as error:
                logger.warning("pid_file %r can't be removed: %s", self.path, error.strerror)

    def _read(self) -> int | None:
        try:
            with open(self.path, encoding="ascii") as file:
                pid = int(file.read(32))
        except (OSError, ValueError):
            return None
        return pid if pid > 0 else None  # kill(2) takes others for groups of processes


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
