"""Signal handlers as they are set, put back, and seen by copies of the process."""

import faulthandler
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving import WAIT_S

from fastasgi import Config, Server
from fastasgi.system.handlers import SignalHandlers

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

NUMBER, OTHER = signal.SIGUSR1, signal.SIGUSR2


def ours(number: int, frame: object) -> None:
    pass


def theirs(number: int, frame: object) -> None:
    pass


@pytest.fixture(autouse=True)
def before() -> Iterator[None]:
    """The signals of these tests have a handler of somebody's; afterwards all is as it was."""
    handlers = [(number, signal.signal(number, theirs)) for number in (NUMBER, OTHER, signal.SIGTERM)]
    yield
    for number, handler in handlers:
        signal.signal(number, handler)


def in_copy(look: Callable[[], Any]) -> Any:
    """What a copy of this process sees, made by this thread."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(look()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        seen = stream.read()
    os.waitpid(pid, 0)
    return json.loads(seen)


def here(call: Callable[[], Any]) -> Any:
    return call()


def in_thread(call: Callable[[], Any]) -> Any:
    """What a thread of its own gets from a call."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    thread.join(WAIT_S)
    return got[0]


from_each_thread = pytest.mark.parametrize("run", [here, in_thread])


def names(*numbers: int) -> list[str]:
    """The names of these signals' handlers."""
    return [getattr(signal.getsignal(number), "__name__", "?") for number in numbers]


def test_they_are_put_back_together() -> None:
    with SignalHandlers() as handlers:
        handlers.set(NUMBER, ours)
        handlers.set(OTHER, ours)
        assert names(NUMBER, OTHER) == ["ours", "ours"]
        assert handlers.numbers == {NUMBER, OTHER}
    assert names(NUMBER, OTHER) == ["theirs", "theirs"]
    assert handlers.numbers == set()


def test_what_was_there_before_the_first_is_put_back() -> None:
    with SignalHandlers() as handlers:
        handlers.set(NUMBER, lambda *_: None)
        handlers.set(NUMBER, ours)
        assert names(NUMBER) == ["ours"]
    assert names(NUMBER) == ["theirs"]


def test_those_that_were_ignored_are_known() -> None:
    signal.signal(NUMBER, signal.SIG_IGN)
    with SignalHandlers() as handlers:
        handlers.set(NUMBER, ours)
        handlers.set(OTHER, ours)
        assert handlers.ignored == [NUMBER]


def test_outside_the_main_thread_nothing_is_set() -> None:
    handlers = SignalHandlers()

    def set_all() -> None:
        handlers.set(NUMBER, ours)
        handlers.write_stacks(OTHER)
        handlers.wake(0)
        handlers.restore()

    in_thread(set_all)
    assert names(NUMBER) == ["theirs"]
    assert handlers.numbers == set()


@from_each_thread
def test_a_copy_has_what_was_there_before(run: Callable[..., Any]) -> None:
    with SignalHandlers() as handlers:
        handlers.set(NUMBER, ours)
        assert run(lambda: in_copy(lambda: (names(NUMBER), len(handlers.numbers)))) == [["theirs"], 0]
        assert names(NUMBER) == ["ours"]
    assert run(lambda: in_copy(lambda: names(NUMBER))) == ["theirs"]


def test_a_copy_of_several_has_what_was_there_before_all_of_them() -> None:
    first, second = SignalHandlers(), SignalHandlers()
    with first:
        first.set(NUMBER, ours)
        with second:
            second.set(NUMBER, lambda *_: None)
            second.set(OTHER, ours)
            first.set(signal.SIGTERM, ours)
            seen = in_copy(lambda: names(NUMBER, OTHER, signal.SIGTERM))
    assert seen == ["theirs"] * 3


def test_those_that_are_set_again_count_as_the_last() -> None:
    again, other = SignalHandlers(), SignalHandlers()
    with again:
        again.set(NUMBER, ours)
    with other:
        other.set(NUMBER, lambda *_: None)
        with again:
            again.set(NUMBER, ours)
            assert in_copy(lambda: names(NUMBER)) == ["theirs"]


def test_a_copy_keeps_what_the_application_has_set() -> None:
    def applications(number: int, frame: object) -> None:
        pass

    with SignalHandlers() as handlers:
        handlers.set(NUMBER, ours)
        handlers.set(OTHER, ours)
        signal.signal(NUMBER, applications)
        assert in_copy(lambda: names(NUMBER, OTHER)) == ["applications", "theirs"]


def test_those_of_somebody_else_are_adopted() -> None:
    signal.signal(NUMBER, ours)
    handlers = SignalHandlers()
    handlers.adopt(NUMBER, ours, signal.SIG_IGN)
    assert in_copy(lambda: signal.getsignal(NUMBER) is signal.SIG_IGN)
    assert names(NUMBER) == ["ours"]


@from_each_thread
def test_a_copy_writes_no_stacks(run: Callable[..., Any]) -> None:
    handlers = SignalHandlers()
    handlers.write_stacks(OTHER)
    assert run(lambda: in_copy(lambda: faulthandler.unregister(OTHER))) is False
    assert faulthandler.unregister(OTHER) is True
    handlers.restore()


@from_each_thread
def test_a_copy_wakes_nobody(run: Callable[..., Any]) -> None:
    sleeping, waking = socket.socketpair()
    with sleeping, waking:
        waking.setblocking(False)
        with SignalHandlers() as handlers:
            handlers.set(NUMBER, ours)
            handlers.wake(waking.fileno())
            assert run(lambda: in_copy(lambda: signal.set_wakeup_fd(-1))) == -1
            signal.raise_signal(NUMBER)
            assert sleeping.recv(1) == bytes([NUMBER])
        assert signal.set_wakeup_fd(-1) == -1


@from_each_thread
def test_a_copy_blocks_what_its_thread_has_blocked_and_nothing_else(run: Callable[..., Any]) -> None:
    def blocked() -> list[int]:
        return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    def copy() -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, [OTHER])
        try:
            return in_copy(blocked), blocked()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [OTHER])

    with SignalHandlers() as handlers:
        handlers.set(NUMBER, ours)
        assert run(copy) == ([OTHER], [OTHER])


def test_one_that_nobody_keeps_is_forgotten() -> None:
    handlers = SignalHandlers()
    handlers.set(NUMBER, ours)
    gone = weakref.ref(handlers)
    del handlers
    gc.collect()
    assert gone() is None
    assert in_copy(lambda: names(NUMBER)) == ["ours"]


EARLY = """
import os, signal, sys

# Before the copy has forgotten anything, as where its parent is quick
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))

from fastasgi.system.handlers import SignalHandlers

with SignalHandlers() as handlers:
    handlers.set(signal.SIGTERM, lambda *_: print("handled"))
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_signal_to_a_copy_that_has_just_begun_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert done.stdout == f"{-signal.SIGTERM}\n"


# A server's


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is served")


def test_a_server_in_a_copy_captures_signals_itself() -> None:
    server = Server(Config(app))

    def capture() -> list[str]:
        found = names(signal.SIGTERM)
        for capturing in (server, Server(Config(app))):
            with capturing.capture_signals():
                found += names(signal.SIGTERM)
            found += names(signal.SIGTERM)
        return found

    with server.capture_signals():
        assert in_copy(capture) == ["theirs", "handle_exit", "theirs", "handle_exit", "theirs"]
        assert names(signal.SIGTERM) == ["handle_exit"]


def test_a_server_inside_itself_captures_once() -> None:
    server = Server(Config(app))
    with server.capture_signals():
        with server.capture_signals():
            pass
        assert names(signal.SIGTERM) == ["handle_exit"]
    assert names(signal.SIGTERM) == ["theirs"]


def test_a_server_that_is_done_is_not_kept() -> None:
    server = Server(Config(app))
    gone = weakref.ref(server)
    with server.capture_signals():
        pass
    del server
    gc.collect()
    assert gone() is None
