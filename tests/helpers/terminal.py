"""A program on a terminal of its own, driven by a test."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from serving import WAIT_S

QUIET_S = 0.05

# What a terminal does not show: colours and other sequences, bells
HIDDEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x07")


class Terminal:
    """A program whose standard streams are a terminal of so many columns."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str], columns: int = 100) -> None:
        self._descriptor, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, cwd=folder, env=environ, start_new_session=True
        )
        os.close(inner)
        self.output = ""

    def type(self, text: str) -> None:
        """Press keys, and forget what was written before."""
        self.output = ""
        os.write(self._descriptor, text.encode())

    def wait_for(self, pattern: str) -> str:
        """What the program has written, as it is seen, once the pattern is in it."""
        deadline = time.monotonic() + WAIT_S
        while not re.search(pattern, seen := HIDDEN.sub("", self.output)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {seen!r}"
            assert self._read(), f"no {pattern!r}, and the program has ended: {seen!r}"
        return seen

    def rest(self) -> str:
        """All that the program has written, once it has ended."""
        deadline = time.monotonic() + WAIT_S
        while self._read():
            assert time.monotonic() < deadline, f"not ended: {self.output!r}"
        self._process.wait(WAIT_S)
        return self.output

    def _read(self) -> bool:
        """Read what there is; False once the program has ended."""
        if not select.select([self._descriptor], [], [], QUIET_S)[0]:
            return True
        try:
            piece = os.read(self._descriptor, 65536)
        except OSError:  # as Linux tells the end
            return False
        self.output += piece.decode(errors="replace")
        return bool(piece)

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait(WAIT_S)
        os.close(self._descriptor)
