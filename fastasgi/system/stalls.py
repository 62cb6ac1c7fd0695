"""Which call a process is in that does not get on: a blocked event loop, or a start-up that takes long.

Threads of their own look. Knows no server and no supervisor.
"""

import asyncio
import gc
import itertools
import os
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

STALL_S = (
    1.0  # for which an event loop has been blocked when that is first told, and then between two reports
)
LOOK_S = 0.25  # between two looks at the event loop
FRAMES_SHOWN = 8  # the innermost calls of a stack
MOST_CHARACTERS = 900  # of a stack in one line
LONGEST_PATH = 200  # characters of a request's path


class StallWatch:
    """A thread that looks whether an event loop is blocked. Made and started in the loop's own thread.

    tell is called in the watching thread, STALL_S after the loop was last seen to run and then again each
    STALL_S: with the seconds for which it has been blocked, the calls that it is in, and whether this is the
    first call for this stall. A loop that a debugger holds is not told of.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[float, str, bool], object]) -> None:
        self._loop = loop
        self._tell = tell
        self._ident = threading.get_ident()
        self._asked_at: float | None = (
            None  # monotonic time when the loop was last asked to run a callback; None: it has done so
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fastasgi-stall-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _turned(self) -> None:
        self._asked_at = None

    def _run(self) -> None:
        told_s = 0.0  # how long this stall was when it was last told
        looked_at, used_s = time.monotonic(), time.process_time()
        while not self._ended.wait(LOOK_S):
            now, used_before_s = time.monotonic(), used_s
            pause_s, looked_at, used_s = now - looked_at, now, time.process_time()
            asked_at = self._asked_at
            late_s = pause_s - LOOK_S
            is_running = self._loop.is_running()
            if asked_at is None and is_running and late_s > STALL_S and used_s - used_before_s > pause_s / 10:
                # C code has held the interpreter, in a call that the loop's thread is about to return from
                asked_at = now - late_s
                self._ask(asked_at)
            if asked_at is None:
                told_s = 0.0
                if is_running:
                    self._ask(now)
            elif not is_running:
                self._asked_at = None
            elif pause_s > STALL_S and used_s - used_before_s < pause_s / 10:
                self._asked_at = asked_at + pause_s  # the whole process was suspended
            elif now - asked_at >= told_s + STALL_S:
                self._tell_of(now - asked_at, told_s == 0)
                told_s = now - asked_at

    def _ask(self, at: float) -> None:
        """Ask the loop to run a callback, as of this time."""
        self._asked_at = at
        try:
            self._loop.call_soon_threadsafe(self._turned)
        except RuntimeError:  # it is closed
            self._ended.set()

    def _tell_of(self, stall_s: float, is_new: bool) -> None:
        frame = sys._current_frames().get(self._ident)
        if frame is not None and not _is_debugged(frame):
            self._tell(stall_s, describe(frame), is_new)


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


def where_main_thread_stands(waits_for: Any = None) -> str:
    """The stack of the main thread; if only its event loop is in it, that of a coroutine that waits."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    told = "" if frame is None else describe(frame)
    if not told and waits_for is not None:
        told = _joined(list(_frames_of(waits_for)))
    return told


def describe(frame: FrameType) -> str:
    """A stack in one line, the innermost call first, behind the request that it serves, if any.

    Calls of event loops and of the server are left out, and what has called the server.
    """
    frames = list(itertools.takewhile(_is_within_server, _outwards(frame)))
    stack = _joined(frames[::-1])
    request = next(filter(None, map(_request_in, reversed(frames))), None)
    return f"{request} is in {stack or 'the server'}" if request else stack


def _joined(frames: list[FrameType]) -> str:
    """Frames, outermost first, as one line."""
    calls = [_call(frame) for frame in reversed(frames) if not _is_machinery(frame)]
    more = ["..."] if len(calls) > FRAMES_SHOWN else []
    return " < ".join(calls[:FRAMES_SHOWN] + more)[:MOST_CHARACTERS]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _call(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({_short(code)}:{frame.f_lineno})".replace("\n", " ")


def _short(code: CodeType) -> str:
    """A file's name as short as it tells which: within the working folder, or the folder of packages."""
    name = code.co_filename
    _, found, inside = name.rpartition(f"site-packages{os.sep}")
    if found:
        return inside
    for folder in (os.getcwd(), os.path.dirname(os.__file__)):
        name = name.removeprefix(os.path.join(folder, ""))
    return name


# Packages whose calls say nothing of what an application does
_MACHINERY = ("fastasgi", "asyncio", "uvloop", "importlib", "selectors", "runpy", "threading", "gunicorn")


def _is_machinery(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    if name == "__main__":  # of a worker: python -m fastasgi.processes.child
        name = getattr(frame.f_globals.get("__spec__"), "name", name)
    if name == "fastasgi.demo":
        return False
    return str(name).partition(".")[0] in _MACHINERY or "<frozen importlib" in frame.f_code.co_filename


def _is_within_server(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") not in ("fastasgi.server", "fastasgi.processes.supervisor")


def _is_debugged(frame: FrameType) -> bool:
    return any(each.f_globals.get("__name__") in ("bdb", "pdb") for each in _outwards(frame))


def _request_in(frame: FrameType) -> str | None:
    """The request whose scope an ASGI application's call was given."""
    code = frame.f_code
    found = frame.f_locals
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        scope = found.get(name)
        if type(scope) is dict and scope.get("type") in ("http", "websocket"):
            path = urllib.parse.quote(str(scope.get("path")), safe="/%:@!$&'()*+,;=~")[:LONGEST_PATH]
            method = scope.get("method") if scope["type"] == "http" else "WebSocket"
            return f"{method} {path}"
    return None


def _frames_of(waiting: Any) -> Iterator[FrameType]:
    """The frames of a coroutine that waits, and of what it waits for."""
    for _ in range(1000):
        frame, awaited = _inside(waiting)
        if frame is not None:
            yield frame
        if awaited is None:
            return
        waiting = awaited


def _inside(waiting: Any) -> tuple[FrameType | None, Any]:
    if isinstance(waiting, CoroutineType):
        return waiting.cr_frame, waiting.cr_await
    if isinstance(waiting, AsyncGeneratorType):
        return waiting.ag_frame, waiting.ag_await
    if isinstance(waiting, GeneratorType):
        return waiting.gi_frame, waiting.gi_yieldfrom
    # What an asynchronous generator's methods return holds the generator, and does not say so
    generators = (CoroutineType, AsyncGeneratorType, GeneratorType)
    return None, next((each for each in gc.get_referents(waiting) if isinstance(each, generators)), None)
