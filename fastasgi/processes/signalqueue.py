"""The signals that a supervisor has got and not dealt with yet."""

import contextlib
import selectors
import signal
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType

from fastasgi.system.handlers import SignalHandlers


class SignalQueue:
    """Signals wait here for the supervisor's next turn, in the order in which they came."""

    def __init__(self) -> None:
        self._numbers: deque[int] = deque()
        self._handlers = SignalHandlers()
        self._interrupts = False  # a signal that is to end the supervisor raises SystemExit at once

    @property
    def is_empty(self) -> bool:
        """Whether no signal waits."""
        return not self._numbers

    @property
    def ignored(self) -> list[int]:
        """The captured signals that were ignored before, as SIGHUP is under nohup."""
        return self._handlers.ignored

    @contextlib.contextmanager
    def captured(self, names: Iterable[str], selector: selectors.BaseSelector) -> Iterator[None]:
        """A block in which the signals of these names are queued. Each one ends the selector's wait."""
        wakeup, woken = socket.socketpair()
        for sock in (wakeup, woken):
            sock.setblocking(False)
        selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(4096))
        try:
            with self._handlers as handlers:
                for name in names:
                    handlers.set(getattr(signal, name), self._on_signal)
                handlers.wake(wakeup.fileno())
                yield
        finally:
            selector.unregister(woken)
            wakeup.close()
            woken.close()

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """A block out of which SIGTERM, SIGINT and SIGQUIT raise SystemExit: an import may take long."""
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._numbers.append(number)
        if self._interrupts and number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            raise SystemExit(0)

    def removed(self) -> Iterator[str]:
        """The names of the signals that wait. Each is removed before it is given."""
        while self._numbers:
            yield signal.Signals(self._numbers.popleft()).name
