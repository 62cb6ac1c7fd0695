"""An event loop that can be turned from inside a task, as nest_asyncio and some debuggers do it."""

import asyncio
import functools
import heapq
import time
from collections.abc import Awaitable, Callable
from typing import Any

from wire import TEST_S, run_in

NESTED_TURNS = 3


class NestingLoop(asyncio.SelectorEventLoop):
    """Can be turned from inside a task of its own; asyncio's keeps count of what is ready meanwhile."""

    def turn(self) -> None:
        """Make one turn; waits for input only where nothing is ready."""
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        timeout_s = None
        if ready or self._stopping:
            timeout_s = 0.0
        elif scheduled:
            timeout_s = max(0.0, scheduled[0]._when - self.time())
        self._process_events(self._selector.select(timeout_s))
        while scheduled and scheduled[0]._when <= self.time() + self._clock_resolution:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            if not ready:
                break
            handle = ready.popleft()
            if not handle._cancelled:
                self._run_handle(handle)

    _run_once = turn  # what asyncio calls for each turn

    def _run_handle(self, handle: asyncio.Handle) -> None:
        task = asyncio.current_task(self)
        if task is not None:
            asyncio.tasks._leave_task(self, task)
        try:
            handle._run()
        finally:
            if task is not None:
                asyncio.tasks._enter_task(self, task)


def in_nesting_loop(test: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_in(NestingLoop, test, arguments)

    return run


def turn_loop() -> None:
    """One turn of the running event loop, from inside a task."""
    asyncio.get_running_loop().turn()  # type: ignore[attr-defined]


def nested(work: Awaitable[Any]) -> Any:
    """What run_until_complete() gives where it may be called from inside a task."""
    task = asyncio.ensure_future(work)
    while not task.done():
        turn_loop()
    return task.result()


def nest() -> None:
    for _ in range(NESTED_TURNS):
        asyncio.get_running_loop().call_soon(lambda: None)  # so that it does not wait for input
        turn_loop()


def turn_until(condition: Callable[[], object]) -> None:
    """Turn the running event loop until a condition holds. Fails where it never does."""
    ends_at = time.monotonic() + TEST_S / 2
    while not condition():
        assert time.monotonic() < ends_at, "turned in vain"
        turn_loop()
