"""Notices an event loop that does not turn, and a start-up that takes long. Threads of their own look.

Knows no server and no supervisor.
"""

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from fastasgi.system.pause import Pause
from fastasgi.system.stacks import Base, Standing, is_debugged, standing

logger = logging.getLogger("fastasgi.error")

LOOKS = 2  # within the time after which a stall is told
LONGEST_LOOK_S = 0.25  # between two looks
SHORTEST_LOOK_S = 0.02
AGAIN_S = 1.0  # between two reports of the same stall
ASK_S = 1.0  # between two times that the event loop is asked to run a callback though it seems to be idle
END_S = 1.0  # that the thread has to end
LOOP_PACKAGES = ("asyncio", "selectors", "uvloop")
PAIR_S = 10.0  # in which at most one stall has lines in the log
NOWHERE = "it does not say where"


@dataclass(frozen=True)
class Stall:
    """An event loop that has been blocked, or is."""

    at: float  # Unix time at which it began
    duration_s: float  # until now, or until its end
    request: str  # the one that holds the loop, as "GET /path"; empty if none does
    where: list[str]  # the calls that it is in, or was when that was last seen; the innermost one first
    is_new: bool  # this is the first report
    is_over: bool
    is_held: bool  # C code has held the interpreter: where it stands was seen when that returned

    @property
    def text(self) -> str:
        """Where it stands, in one line."""
        return Standing(self.request, self.where).text

    def record(self) -> dict[str, Any]:
        """What the dashboard shows of it."""
        record = asdict(self)
        return {**record, "duration_s": round(self.duration_s, 3), "at": round(self.at, 3)}


class StallWatch:
    """A thread that looks whether an event loop is blocked. Made and started in the loop's own thread.

    tell is called in the watching thread: threshold_s after the loop was last seen to run, then again each
    AGAIN_S, and once it turns again, or is not watched any more. A loop that a debugger holds is not told of.
    What tell raises goes to the loop's exception handler.

    While the thread of the loop is in no Python code but the server's, the loop is taken to be idle, and is
    asked to run a callback each ASK_S only: an idle server is not to be kept awake.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, threshold_s: float, tell: Callable[[Stall], object]
    ) -> None:
        self._loop = loop
        self._threshold_s = threshold_s
        self._look_s = min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, threshold_s / LOOKS))
        self._tell = tell
        self._ident = threading.get_ident()
        # Monotonic times: when the loop was last asked to run a callback, None once it has; and when it did
        self._asked_at: float | None = None
        self._turned_at = time.monotonic()
        self._told: Stall | None = None  # the stall under way, as it was last told
        self._told_at = 0.0
        self._has_failed = False
        self._is_closed = False  # the loop is
        self._base: Base | None = None  # the frame that runs the loop
        self._is_ended = False
        self._pause = Pause()
        loop.call_soon(self._turned)  # which finds the frame that runs the loop
        self._thread = threading.Thread(target=self._run, name="fastasgi-stall-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more. To be called in the loop's thread, or when the loop has ended.

        Nothing is told once this returns, unless a handler of the log takes longer than END_S.
        """
        self._turned_at = time.monotonic()
        if not self._is_ended:
            self._is_ended = True
            self._pause.end()
            self._thread.join(END_S)

    def _turned(self) -> None:
        self._turned_at = time.monotonic()
        self._asked_at = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _package(frame) in LOOP_PACKAGES:
            frame = frame.f_back
        self._base = None if frame is None else (id(frame), frame.f_code)

    def _run(self) -> None:
        looked_at = time.monotonic()
        wait_s = self._look_s
        while (woken_at := self._pause.wait(wait_s)) >= 0 and not self._is_closed:
            now = time.monotonic()
            suspended_s = woken_at - looked_at - wait_s
            is_held = now - woken_at > self._threshold_s
            if not self._loop.is_running():
                self._asked_at = None
            elif suspended_s > self._threshold_s:
                # The wait was over too late: the whole process was suspended, or had no processor
                if self._asked_at is not None:
                    self._asked_at += suspended_s
            else:
                self._guarded(self._look, now, woken_at if is_held else None)
            wait_s = self._time_left_s()
            looked_at = time.monotonic()
        self._guarded(self._tell_end)

    def _time_left_s(self) -> float:
        """Until the next look: it comes sooner if a stall is to be told before."""
        if self._asked_at is None or self._told is not None:
            return self._look_s
        left_s = self._asked_at + self._threshold_s - time.monotonic()
        return min(self._look_s, max(SHORTEST_LOOK_S, left_s))

    def _guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        """Act. What the application has put into scopes, frames and logging may raise; that is told once."""
        try:
            act(*arguments)
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                message = "The event loop's stalls can't be told of"
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(
                        self._loop.call_exception_handler, {"message": message, "exception": error}
                    )

    def _look(self, now: float, held_since: float | None) -> None:
        """See whether the loop turns. held_since: since when C code has held the interpreter, if it has."""
        frame = sys._current_frames().get(self._ident)
        if self._asked_at is None:
            if self._told is not None:
                self._tell_end()
            if held_since is not None:
                # The call that held the interpreter is about to return
                self._ask(held_since)
            elif not self._is_idle(frame):
                # What it stands in has begun since the last look, in the middle of that time on the average
                self._ask(max(self._turned_at, now - self._look_s / 2))
            elif now - self._turned_at >= ASK_S:
                self._ask(now)
        if self._asked_at is not None:
            blocked_s = now - self._asked_at
            is_due = self._told is None or now - self._told_at >= AGAIN_S
            if blocked_s >= self._threshold_s and is_due and frame is not None and not is_debugged(frame):
                self._tell_of(blocked_s, frame, now, held_since is not None)

    def _is_idle(self, frame: FrameType | None) -> bool:
        """Whether a thread is in no code but that of the event loop, and the server's."""
        while frame is not None and (id(frame), frame.f_code) != self._base:
            if _package(frame) not in (*LOOP_PACKAGES, "fastasgi"):
                return False
            frame = frame.f_back
        return frame is not None

    def _ask(self, at: float) -> None:
        """Ask the loop to run a callback, as of this time."""
        self._asked_at = at
        try:
            self._loop.call_soon_threadsafe(self._turned)
        except RuntimeError:
            self._is_closed = True

    def _tell_of(self, blocked_s: float, frame: FrameType, now: float, is_held: bool) -> None:
        stands = standing(frame, self._base, asyncio.current_task(self._loop))
        told = self._told
        at = time.time() - blocked_s if told is None else told.at
        self._told_at = now
        self._told = Stall(at, blocked_s, stands.request, stands.calls, told is None, False, is_held)
        self._tell(self._told)

    def _tell_end(self) -> None:
        told, self._told = self._told, None
        if told is not None:
            lasted_s = max(told.duration_s, self._turned_at + time.time() - time.monotonic() - told.at)
            self._tell(Stall(told.at, lasted_s, told.request, told.where, False, True, told.is_held))


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


class StallLog:
    """Logs stalls: a line when one is told, and one when it is over; at most one such pair in PAIR_S.

    The others are counted, in a line of their own once that time is over. Any thread may call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said_at = -PAIR_S  # a monotonic time: of the last pair
        self._says = False  # the stall under way has a line
        self._unsaid = 0  # stalls since then without one
        self._longest_s = 0.0  # of those

    def tell(self, stall: Stall) -> None:
        """Log this report of a stall, or count it."""
        self.tell_rest()
        with self._lock:
            if stall.is_new:
                self._says = time.monotonic() - self._said_at >= PAIR_S
                if self._says:
                    self._said_at = time.monotonic()
                else:
                    self._unsaid += 1
            says = self._says
            self._says = says and not stall.is_over
            if not says:
                self._longest_s = max(self._longest_s, stall.duration_s)
        if says and stall.is_new:
            how = ", by code that did not let other threads run" if stall.is_held else ""
            logger.warning(
                "The event loop has been blocked for %s s%s: %s",
                _seconds(stall.duration_s),
                how,
                stall.text or NOWHERE,
            )
        elif says and stall.is_over:
            logger.warning(
                "The event loop turns again after %s s: %s", _seconds(stall.duration_s), stall.text or NOWHERE
            )

    def tell_rest(self, at_once: bool = False) -> None:
        """Log how many stalls have had no line, if there are any, at_once or once PAIR_S is over."""
        with self._lock:
            is_due = at_once or time.monotonic() - self._said_at >= PAIR_S
            unsaid = self._unsaid if is_due else 0
            longest_s = self._longest_s
            if unsaid:
                self._unsaid, self._longest_s = 0, 0.0
        if unsaid:
            logger.warning(
                "The event loop was blocked %d more time%s, for %s s at the most",
                unsaid,
                "" if unsaid == 1 else "s",
                _seconds(longest_s),
            )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2f}"


class StartWatch:
    """A thread that calls tell each interval_s, with the seconds since the start-up began, until its end."""

    def __init__(self, interval_s: float, tell: Callable[[float], object]) -> None:
        self._interval_s = interval_s
        self._tell = tell
        self._began_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastasgi-start-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell nothing more: once this returns the thread has ended."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._tell(time.monotonic() - self._began_at)
