"""An event loop whose time jumps to the next timer as soon as nothing else can happen."""

import asyncio
import functools
import selectors
from collections.abc import Callable
from typing import Any

from wire import run_in

IDLE_S = 0.01  # so long nothing comes through any socket when nothing more is under way in one process


class JumpingLoop(asyncio.SelectorEventLoop):
    """Waits for sockets, but not for timers. Only for tests whose clients and server are both in it."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self._ahead_s = 0.0

    def time(self) -> float:
        return super().time() + getattr(self, "_ahead_s", 0.0)

    def jump(self, by_s: float) -> None:
        self._ahead_s += by_s


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= IDLE_S:
            return super().select(timeout)
        ready = super().select(IDLE_S)
        if not ready:
            self._loop.jump(timeout - IDLE_S)
        return ready


def in_jumping_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an asynchronous test in such a loop: timers come in order, and take no time."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_in(JumpingLoop, test, arguments)

    return run
