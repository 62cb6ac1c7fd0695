"""What a worker measures of itself while somebody can look: its event loop, collections, memory, descriptors.

Must not know: requests, who looks.
"""

import asyncio
import contextlib
import gc
import os
import resource
import sys
import time
from typing import Any

from fastasgi.core.counters import Counters

LOOK_S = 1.0  # between two looks at what the process uses
LAG_PROBE_S = 0.1  # between two looks at how late the event loop runs what is due


class Meter:
    """Measures one event loop and its process, from when it is made in the loop's thread until ``end``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._loop = loop
        self._counters = counters
        counters.begin(os.getpid(), _descriptors_limit())
        self._clock = SelectClock.of(loop) if isinstance(loop, asyncio.SelectorEventLoop) else ThreadClock()
        self._cpu_s, self._busy_s = time.process_time(), self._clock.busy_s()
        self._probe_again()
        self._look()
        self._on_gc = counters.on_gc
        gc.callbacks.append(self._on_gc)

    def end(self) -> None:
        """Measure no more."""
        self._probe.cancel()
        self._next_look.cancel()
        self._clock.end()
        gc.callbacks.remove(self._on_gc)

    def _look(self) -> None:
        """Tell what has been used since the last look, and what is in use now; look again after LOOK_S."""
        cpu_s, busy_s = time.process_time(), self._clock.busy_s()
        self._counters.note_usage(
            resident_bytes(), descriptor_count(), cpu_s - self._cpu_s, busy_s - self._busy_s
        )
        self._cpu_s, self._busy_s = cpu_s, busy_s
        self._next_look = self._loop.call_later(LOOK_S, self._look)

    def _probe_again(self) -> None:
        # Not the loop's own clock: uvloop's stands still while callbacks run
        self._probe_due_at = time.monotonic() + LAG_PROBE_S
        self._probe = self._loop.call_later(LAG_PROBE_S, self._on_probe)

    def _on_probe(self) -> None:
        self._counters.note_lag(max(0.0, time.monotonic() - self._probe_due_at))
        self._probe_again()


class SelectClock:
    """How long one of asyncio's event loops has been busy: all the time that it is not inside its select."""

    def __init__(self, selector: Any) -> None:
        self._selector = selector
        self._select = selector.select
        self._began_at = time.monotonic()
        self._idle_s = 0.0
        self._user_count = 0
        selector.select = self._timed_select

    @classmethod
    def of(cls, loop: asyncio.SelectorEventLoop) -> "SelectClock":
        """The one of an event loop, in which more than one server may run."""
        selector = loop._selector  # type: ignore[attr-defined]
        owner = getattr(selector.select, "__self__", None)
        clock = owner if isinstance(owner, SelectClock) else cls(selector)
        clock._user_count += 1
        return clock

    def _timed_select(self, timeout: float | None = None) -> Any:
        began_at = time.monotonic()
        try:
            return self._select(timeout)
        finally:
            self._idle_s += time.monotonic() - began_at

    def busy_s(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self._began_at - self._idle_s

    def end(self) -> None:
        """Leave the event loop as it was, if nobody else has this clock."""
        self._user_count -= 1
        if self._user_count == 0:
            del self._selector.select


class ThreadClock:
    """How long an event loop that does not tell when it waits has been busy: its thread's processor time."""

    def busy_s(self) -> float:
        """Seconds, of the calling thread."""
        return time.thread_time()

    def end(self) -> None:
        """Do nothing."""


def _descriptors_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


def resident_bytes() -> int:
    """This process's resident memory; elsewhere than on Linux the most that it has been."""
    try:
        with open("/proc/self/statm", "rb") as file:  # no codec, which the user may not be allowed to load
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def descriptor_count() -> int:
    """The number of this process's open file descriptors; 0 if the platform does not say."""
    try:
        # Since version 6.2 Linux tells the number as the folder's size
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        with contextlib.suppress(OSError):
            return len(os.listdir("/dev/fd")) - 1
    return 0
