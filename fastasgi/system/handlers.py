"""The signal handlers that this process has set, and what was there before.

A process that the application forks serves nobody. Handlers that stop the server would only keep it from
ending, and its signals would reach its parent's event loop by the wake-up descriptor. So such a copy begins
with what was there before: one hook a process sees to that. Knows no server.
"""

import faulthandler
import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from fastasgi.system.stacks import STDERR

Handler = Callable[[int, FrameType | None], Any]


class SignalHandlers:
    """Handlers that are set one by one and put back together, at the end of a ``with`` block for example.

    Whoever sets them keeps this object for as long: without it they stay, in copies of the process too. In
    such a copy it is empty. Outside the main thread it sets nothing, since Python calls no handlers there.
    """

    def __init__(self) -> None:
        self._ref = weakref.ref(self)
        self._handlers: dict[int, tuple[Handler, Any]] = {}  # each with what was there before
        self._stack_writers: set[int] = set()
        self._wakeup_before: int | None = None

    @property
    def numbers(self) -> set[int]:
        """The signals that are handled."""
        return self._stack_writers.union(self._handlers)

    @property
    def ignored(self) -> list[int]:
        """The signals that are handled and were ignored before."""
        return [number for number, (_, before) in self._handlers.items() if before is signal.SIG_IGN]

    def set(self, number: int, handler: Handler) -> None:
        """Have a signal handled."""
        if is_main_thread():
            before = self._handlers[number][1] if number in self._handlers else signal.getsignal(number)
            self.adopt(number, handler, before)
            signal.signal(number, handler)

    def adopt(self, number: int, handler: Handler, before: Any) -> None:
        """Count a handler that somebody else sets among these; before is to be put back in its place."""
        # None: no Python code has set it, and none can put it back
        self._handlers[number] = handler, signal.SIG_DFL if before is None else before
        self._note()

    def write_stacks(
        self, number: int, write_more: Callable[[FrameType | None], object] = lambda frame: None
    ) -> None:
        """Have a signal write the stacks of all threads to stderr, at once, whatever the threads do.

        Then write_more is called with the frame that the main thread is in, as soon as that runs Python code.
        """
        if is_main_thread():
            if number in self._stack_writers:
                faulthandler.unregister(number)
            self.set(number, lambda _, frame: write_more(frame))
            self._stack_writers.add(number)
            faulthandler.register(number, file=STDERR, all_threads=True, chain=True)

    def wake(self, descriptor: int) -> None:
        """Have each signal write its number to this descriptor, which does not block."""
        if is_main_thread():
            self._wakeup_before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
            self._note()

    def restore(self) -> None:
        """Put back what was there before, whatever the application has set meanwhile."""
        if self._wakeup_before is not None:
            signal.set_wakeup_fd(self._wakeup_before)
        self._unregister_stack_writers()
        for number, (_, before) in self._handlers.items():
            signal.signal(number, before)
        self._clear()

    def forget(self) -> None:
        """In a copy of the process: put back what was there before, but not in place of the application's."""
        self._unregister_stack_writers()
        for number, (handler, before) in self._handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before)
        signal.set_wakeup_fd(-1)
        self._clear()

    def _note(self) -> None:
        if self._ref not in _used:
            _used[:] = [*(ref for ref in _used if ref() is not None), self._ref]

    def _clear(self) -> None:
        if self._ref in _used:
            _used.remove(self._ref)
        self._handlers.clear()
        self._wakeup_before = None

    def _unregister_stack_writers(self) -> None:
        # Before handlers are put back: it puts back what was in place of a signal when that was registered
        while self._stack_writers:
            faulthandler.unregister(self._stack_writers.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()


def is_main_thread() -> bool:
    """Whether this is the thread in which Python calls signal handlers, and lets them be set."""
    return threading.current_thread() is threading.main_thread()


# Those that have set something, the first one first, for as long as somebody keeps them
_used: list[weakref.ref[SignalHandlers]] = []

# .mask is what a thread that forks blocks at other times; None if no handler is set
_forking = threading.local()


def _all_used() -> list[SignalHandlers]:
    return [handlers for ref in _used if (handlers := ref()) is not None]


def _hold_signals() -> None:
    """Before a fork: a signal that the copy got before it has forgotten our handlers would be lost."""
    used = _all_used()
    numbers = {number for handlers in used for number in handlers.numbers}
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers) if used else None


def _let_signals_through() -> None:
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _forget_all() -> None:
    for handlers in reversed(_all_used()):
        handlers.forget()
    _let_signals_through()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_signals, after_in_parent=_let_signals_through, after_in_child=_forget_all
    )
