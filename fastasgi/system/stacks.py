"""Where code stands: the calls of a thread, the request that they serve, and what a coroutine waits for.

All of it may be called in any thread, about code that runs meanwhile. Knows no server.
"""

import asyncio
import contextlib
import functools
import gc
import itertools
import os
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

FRAMES_SHOWN = 8  # the innermost calls of a stack
MOST_CHARACTERS = 900  # of a stack in one line
LONGEST_PATH = 200  # characters of a request's path
MOST_CALLS = 32  # of a stack that are kept
MOST_SEARCHED = 200  # calls of a stack, the outermost ones, in which a request is looked for
MOST_AWAITED = 1000  # how deep coroutines that wait for each other are followed
MOST_TASKS = 50  # that are looked at in a search, or listed

STDERR = 2  # the descriptor: a program may have put something without one in sys.stderr's place


# A frame and its code: the frame itself would keep alive what it refers to
Base = tuple[int, CodeType]


class Standing(NamedTuple):
    """Where a thread stands: the request that it serves, empty if none, and the calls that it is in.

    The innermost call comes first. Calls of event loops and of the server are left out, and what has called
    the server.
    """

    request: str
    calls: list[str]

    @property
    def text(self) -> str:
        """All in one line."""
        stack = joined(self.calls)
        return f"{self.request} is in {stack or 'the server'}" if self.request else stack


def where_main_thread_stands(waits_for: Any = None) -> str:
    """The stack of the main thread; if only its event loop is in it, that of a coroutine that waits."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    told = "" if frame is None else standing(frame).text
    if not told and waits_for is not None:
        told = joined(calls_of(list(_frames_of(waits_for))))
    return told


def standing(frame: FrameType, base: Base | None = None, task: "asyncio.Task[Any] | None" = None) -> Standing:
    """Where the thread stands that this frame is the innermost one of.

    base is the frame that runs its event loop: that and those outside of it are left out. task is what the
    loop runs now: if no call of the stack has a request, it is that of this task.
    """
    frames = list(itertools.takewhile(lambda each: _is_within_server(each, base), _outwards(frame)))
    request = next(filter(None, map(_request_in, reversed(frames[-MOST_SEARCHED:]))), "")
    if not request and task is not None:
        request = request_of(task)
    return Standing(request, calls_of(reversed(frames[:MOST_SEARCHED])))


def request_of(task: "asyncio.Task[Any]") -> str:
    """The request that a task serves, or that a task serves that waits for it; empty if none is found."""
    pending, seen = [task], set[int]()
    while pending and len(seen) < MOST_TASKS:
        each = pending.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            frames = itertools.islice(_frames_of(each.get_coro()), MOST_SEARCHED)
            if (request := next(filter(None, map(_request_in, frames)), "")) != "":
                return request
            pending.extend(_waiting_for(each))
    return ""


def _waiting_for(future: "asyncio.Future[Any]") -> Iterator["asyncio.Task[Any]"]:
    """The tasks that wait for a future: by an await, gather(), wait() or wait_for(), or as a group's host."""
    # This attribute is in no documentation; futures that are not asyncio's lack it
    for callback, _ in getattr(future, "_callbacks", None) or ():
        owner = getattr(callback, "__self__", None)
        # The callback of an await is a method of the task
        host = owner if isinstance(owner, asyncio.Task) else getattr(owner, "_parent_task", None)
        if isinstance(host, asyncio.Task):
            yield host
        held = getattr(callback, "args", ()) if isinstance(callback, functools.partial) else ()
        for value in (*held, *_closed_over(callback)):
            yield from _hosts(value, future)


def _closed_over(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # it is empty
            yield cell.cell_contents


def _hosts(value: Any, future: "asyncio.Future[Any]") -> Iterator["asyncio.Task[Any]"]:
    if isinstance(value, asyncio.Future) and value is not future and not isinstance(value, asyncio.Task):
        yield from _waiting_for(value)
    host = getattr(getattr(value, "cancel_scope", None), "_host_task", None)  # of an anyio TaskGroup
    if isinstance(host, asyncio.Task):
        yield host


def calls_of(frames: Iterable[FrameType]) -> list[str]:
    """The calls of frames, outermost first, with the innermost one first: MOST_CALLS of them."""
    told = (_call(frame) for frame in reversed([*frames]) if not _is_machinery(frame))
    return list(itertools.islice(told, MOST_CALLS))


def joined(calls: list[str]) -> str:
    """Calls, the innermost one first, as one line."""
    more = ["..."] if len(calls) > FRAMES_SHOWN else []
    return " < ".join(calls[:FRAMES_SHOWN] + more)[:MOST_CHARACTERS]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _call(frame: FrameType) -> str:
    code = frame.f_code
    return printable(f"{code.co_qualname} ({_short(code)}:{frame.f_lineno})")


def printable(text: str) -> str:
    """A text without control characters: those, and lone surrogates, are written as Python writes them."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def _short(code: CodeType) -> str:
    """A file's name as short as it tells which: within the working folder, or the folder of packages."""
    name = code.co_filename
    _, found, inside = name.rpartition(f"site-packages{os.sep}")
    if found:
        return inside
    folders = [os.path.dirname(os.__file__)]
    with contextlib.suppress(OSError):  # the working folder has been removed
        folders.insert(0, os.getcwd())
    for folder in folders:
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


def _is_within_server(frame: FrameType, base: Base | None) -> bool:
    if (id(frame), frame.f_code) == base:
        return False
    return frame.f_globals.get("__name__") not in ("fastasgi.server", "fastasgi.processes.supervisor")


def is_debugged(frame: FrameType) -> bool:
    """Whether a debugger has this frame, or has called it."""
    return any(each.f_globals.get("__name__") in ("bdb", "pdb") for each in _outwards(frame))


def request_text(method: str, path: str) -> str:
    """A request as one word or two, without its query; the path as in a URL, and not for ever long."""
    return printable(f"{method} {urllib.parse.quote(path, safe=SAFE, errors='replace')[:LONGEST_PATH]}")


SAFE = "/%:@!$&'()*+,;=~"


def _request_in(frame: FrameType) -> str | None:
    """The request whose scope an ASGI application's call was given."""
    code = frame.f_code
    found = frame.f_locals
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        scope = found.get(name)
        if type(scope) is dict and scope.get("type") in ("http", "websocket"):
            method = scope.get("method") if scope["type"] == "http" else "WebSocket"
            return request_text(str(method), str(scope.get("path")))
    return None


def waits(task: "asyncio.Task[Any]") -> list[str]:
    """What a suspended task waits for, innermost first: what it awaits in words, then the calls.

    A task that waits for another one is followed into that, and the host of a task group, or of gather(),
    into one of its tasks.
    """
    frames: list[FrameType] = []
    seen = set[int]()
    awaited: Any = task
    while isinstance(awaited, asyncio.Task) and not awaited.done() and id(awaited) not in seen:
        if len(frames) >= MOST_AWAITED:
            break
        seen.add(id(awaited))
        steps = list(_steps(awaited.get_coro()))
        own = [frame for frame, _ in steps if frame is not None]
        frames += own
        awaited = next((_future_in(inner) for _, inner in reversed(steps) if inner is not None), None)
        if not isinstance(awaited, asyncio.Task):
            awaited = _child(awaited, own) or awaited
    words = ""
    if frames and _is_machinery(frames[-1]):
        words = _in_words(frames[-1])
    elif awaited is not None:
        words = f"a {type(awaited).__name__}"
    return [*([words] if words else []), *calls_of(frames)]


def _child(awaited: Any, frames: list[FrameType]) -> "asyncio.Task[Any] | None":
    """A task that is not done, of those that the task with these frames waits for together."""
    groups = [getattr(awaited, "_children", ())]  # of gather()
    for frame in frames[::-1][:MOST_CALLS]:
        for name, value in frame.f_locals.items():
            if type(value).__name__ == "TaskGroup":  # asyncio's and anyio's
                groups.append(getattr(value, "_tasks", ()))
            elif name in ("fs", "fut") and frame.f_globals.get("__name__") == "asyncio.tasks":
                groups.append(value if name == "fs" else [value])  # of wait() and of wait_for()
    tasks = itertools.chain.from_iterable(group for group in groups if isinstance(group, (set, list)))
    return next((each for each in tasks if isinstance(each, asyncio.Task) and not each.done()), None)


def report(loop: asyncio.AbstractEventLoop, tasks: Iterable["asyncio.Task[Any]"], frame: FrameType) -> str:
    """Lines that tell where an event loop stands, and each of these tasks: its request and what it waits for.

    frame is the innermost one of the loop's thread.
    """
    current = asyncio.current_task(loop)
    lines = [f"Its event loop: {standing(frame, None, current).text or 'in no code of the application'}"]
    others = [task for task in tasks if task is not current]
    for task in others[:MOST_TASKS]:
        lines.append(
            f"{request_of(task) or 'A request'} waits: {joined(waits(task)) or 'it does not say where'}"
        )
    if len(others) > MOST_TASKS:
        lines.append(f"... and {len(others) - MOST_TASKS} more requests")
    return "\n".join(lines)


def write_report(
    loop: asyncio.AbstractEventLoop, tasks: Callable[[], Iterable["asyncio.Task[Any]"]], frame: FrameType
) -> None:
    """Write ``report`` to stderr, in a signal handler.

    It doesn't go by sys.stderr, which the signal may have interrupted.
    """
    try:
        text = report(loop, tasks(), frame)
    except Exception as error:
        text = f"Where requests wait can't be told ({type(error).__name__})"
    with contextlib.suppress(OSError):
        os.write(STDERR, f"Process [{os.getpid()}]:\n{text}\n".encode(errors="replace"))


def _in_words(frame: FrameType) -> str:
    """A call of a library's that waits, by its name: asyncio.sleep."""
    module = str(frame.f_globals.get("__name__")).partition(".")[0]
    return f"{module}'s {frame.f_code.co_qualname}"


def _future_in(awaited: Any) -> Any:
    """The future, or task, that an iterator over it stands for; None if it is no such iterator."""
    if awaited is None or isinstance(awaited, asyncio.Future):
        return awaited
    return next((each for each in gc.get_referents(awaited) if isinstance(each, asyncio.Future)), None)


def _frames_of(waiting: Any) -> Iterator[FrameType]:
    """The frames of a coroutine that waits, and of what it waits for."""
    return (frame for frame, _ in _steps(waiting) if frame is not None)


def _steps(waiting: Any) -> Iterator[tuple[FrameType | None, Any]]:
    """The frame of a coroutine that waits with what it waits for, then those of that, and so on."""
    for _ in range(MOST_AWAITED):
        frame, awaited = _inside(waiting)
        yield frame, awaited
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
