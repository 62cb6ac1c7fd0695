"""WorkerPool: what each event does to a process in each state, as the tables of ``states`` say."""

import contextlib
import math
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastasgi import Config
from fastasgi.processes.messages import BEAT, HURRY, READY, RETIRE, STOP, SUCCEEDED
from fastasgi.processes.pool import STACKS_S, START_ALONE_S, WorkerPool
from fastasgi.processes.rows import Row, Rows
from fastasgi.processes.slot import FIRST_BACKOFF_S, SERVED_BACKOFF_S, STEADY_S
from fastasgi.processes.states import MOVES, State
from fastasgi.processes.workerlimits import BEAT_S, FORCED_EXIT_S
from fastasgi.processes.workerprocess import WorkerProcess


class Program:
    """What is known of a process that runs: an exit code once it has ended, and the signals it has got."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


class Worker:
    """A process of the pool, and the end of its socket pair that a worker has."""

    def __init__(self, pid: int, slot: int) -> None:
        ours, self.control = socket.socketpair()
        self.program = Program()
        self.process = WorkerProcess(pid, slot, ours, self.program)  # type: ignore[arg-type]

    @property
    def state(self) -> State:
        return self.process.state

    @property
    def signals(self) -> list[int]:
        return self.program.signals

    def heard(self) -> bytes:
        """What the supervisor has told it."""
        self.control.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return self.control.recv(100)
        return b""


class Crew:
    """A pool whose processes are driven by a test, and whose clock stands unless the test moves it."""

    def __init__(self, workers: int, settings: dict[str, Any]) -> None:
        self.now = 1000.0
        self.started: list[Worker] = []
        self.events: list[str] = []
        self.selector = selectors.DefaultSelector()
        self.rows = Rows()
        self.refuses = False  # the system starts no process
        self.pool = WorkerPool(
            Config("app:app", workers=workers, **settings),
            self.rows,
            self.selector,
            self._start,
            lambda: self.events.append("started"),
            lambda: self.events.append("renewal failed"),
        )

    def _start(self, slot: int, row: Row | None) -> WorkerProcess:
        if self.refuses:
            raise OSError("no process can be started")
        self.started.append(Worker(len(self.started), slot))
        return self.started[-1].process

    def turn(self, after_s: float = 0.0) -> None:
        """What a supervisor does in each turn."""
        self.now += after_s
        for key, _ in self.selector.select(0):
            key.data()
        self.pool.judge(self.now)
        self.pool.fill(self.now)
        self.pool.renew(self.now)

    def say(self, worker: Worker, message: bytes) -> None:
        worker.control.send(message)
        self.turn()

    def end(self, worker: Worker, code: int = 1) -> None:
        worker.program.code = code
        self.pool.reap()

    def close(self) -> None:
        for worker in self.started:
            worker.control.close()
            worker.process.control.close()
        self.selector.close()
        self.rows.close()


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Crew]]:
    """Makes a Crew: ``crew(workers, setting=...)``. Its first turn has been."""
    made: list[Crew] = []

    def crew(workers: int = 1, **settings: Any) -> Crew:
        new = Crew(workers, settings)
        made.append(new)
        monkeypatch.setattr(time, "monotonic", lambda: new.now)
        new.pool.resize(workers)
        new.turn()
        return new

    yield crew
    for each in made:
        each.close()


@pytest.fixture
def serving(crew: Callable[..., Crew]) -> Callable[..., Crew]:
    """Makes a Crew of which all workers are ready."""

    def serving(workers: int = 1, **settings: Any) -> Crew:
        new = crew(workers, **settings)
        for _ in range(workers):
            new.say(new.started[-1], READY)
            new.turn()
        new.events.clear()
        return new

    return serving


@pytest.mark.parametrize("state", State)
def test_a_state_moves_to_those_that_may_follow_and_no_others(state: State) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for following in State:
            process = WorkerProcess(1, 0, ours, None)
            process.state = state
            if following in MOVES[state]:
                process.become(following)
                assert process.state is following
            else:
                with pytest.raises(AssertionError):
                    process.become(following)
    assert all(MOVES[each] & {State.STARTING} == set() for each in State)


def test_a_worker_serves_once_it_is_ready(crew: Callable[..., Crew]) -> None:
    both = crew(2)
    (first,) = both.started
    assert first.state is State.STARTING
    both.turn(START_ALONE_S - 0.1)
    assert len(both.started) == 1, "the first one starts alone"
    both.say(first, READY)
    assert first.state is State.SERVING
    assert both.events == []
    both.say(both.started[1], READY)
    assert both.events == ["started"]
    assert [worker.process.slot for worker in both.started] == [0, 1]


def test_a_worker_that_asks_for_a_successor_serves_until_that_is_ready(
    serving: Callable[..., Crew],
) -> None:
    one = serving()
    (old,) = one.started
    one.say(old, RETIRE)
    assert old.state is State.RETIRING
    _, new = one.started
    one.say(old, RETIRE)
    assert len(one.started) == 2
    assert old.heard() == b""
    one.say(new, READY)
    assert (old.state, new.state) == (State.LEAVING, State.SERVING)
    assert (old.heard(), old.signals) == (SUCCEEDED, [])
    one.end(old, 0)
    assert one.pool.processes() == [new.process]
    assert one.events == []


def test_new_code_comes_to_one_slot_after_the_other(serving: Callable[..., Crew]) -> None:
    two = serving(2)
    two.pool.outdate()
    two.turn()
    two.turn()
    assert len(two.started) == 3
    assert not two.pool.is_renewed
    two.say(two.started[2], READY)
    assert len(two.started) == 4
    two.say(two.started[3], READY)
    assert two.pool.is_renewed
    assert [worker.state for worker in two.started] == 2 * [State.LEAVING] + 2 * [State.SERVING]


def test_a_successor_that_fails_leaves_the_worker_where_it_is(serving: Callable[..., Crew]) -> None:
    one = serving()
    one.say(one.started[0], RETIRE)
    one.end(one.started[1], 3)
    assert one.events == ["renewal failed"]
    assert one.pool.failure_code == 3
    assert one.started[0].state is State.RETIRING
    one.turn()
    one.end(one.started[2])
    one.turn()
    assert len(one.started) == 3, "it backs off"
    one.turn(FIRST_BACKOFF_S)
    assert len(one.started) == 4


def test_what_a_failed_reload_leaves_is_as_good_as_new(serving: Callable[..., Crew]) -> None:
    two = serving(2)
    two.pool.outdate()
    two.turn()
    two.end(two.started[2])
    two.pool.keep_outdated()
    two.turn(10.0)
    assert two.pool.is_renewed
    assert len(two.started) == 3


def test_a_first_start_that_fails_is_not_tried_again(crew: Callable[..., Crew]) -> None:
    one = crew()
    one.end(one.started[0], 5)
    one.turn(60.0)
    assert len(one.started) == 1
    assert (one.pool.has_failed, one.pool.is_empty, one.pool.failure_code) == (True, True, 5)


def test_a_start_that_fails_waits_for_a_change_of_files(crew: Callable[..., Crew]) -> None:
    one = crew(reload=True)
    one.end(one.started[0], 5)
    assert one.pool.slots[0].start_at == math.inf
    one.pool.restart_all()
    one.turn()
    assert len(one.started) == 2


def test_changed_files_have_a_worker_start_when_the_old_one_has_ended(serving: Callable[..., Crew]) -> None:
    one = serving(reload=True)
    (old,) = one.started
    one.pool.restart_all()
    one.turn()
    assert (old.state, old.heard()) == (State.LEAVING, SUCCEEDED)
    assert len(one.started) == 1
    one.end(old, 0)
    one.turn()
    assert len(one.started) == 2


def test_a_worker_that_has_served_for_a_while_and_dies_is_replaced_at_once(
    serving: Callable[..., Crew],
) -> None:
    one = serving()
    for count in (2, 3, 4):
        one.now += STEADY_S
        one.end(one.started[-1], -9)
        one.turn()
        assert len(one.started) == count
        one.say(one.started[-1], READY)


def test_workers_that_die_soon_are_replaced_after_growing_pauses(serving: Callable[..., Crew]) -> None:
    one = serving()
    pauses_s = []
    for _ in range(6):
        one.end(one.started[-1], -9)
        pauses_s.append(one.pool.slots[0].start_at - one.now)
        one.turn(pauses_s[-1])
        one.say(one.started[-1], READY)
    assert pauses_s == [0.0, FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, *3 * [SERVED_BACKOFF_S]]


def test_a_worker_that_does_not_get_ready_is_condemned(crew: Callable[..., Crew]) -> None:
    one = crew(timeout_worker_startup=5)
    (worker,) = one.started
    one.turn(5.0)
    assert worker.state is State.STARTING
    one.turn(0.1)
    assert (worker.state, worker.signals) == (State.CONDEMNED, [signal.SIGUSR2])
    assert one.pool.has_failed
    one.turn(STACKS_S)
    assert worker.signals == [signal.SIGUSR2, signal.SIGKILL]
    one.turn(60.0)
    assert worker.signals == [signal.SIGUSR2, signal.SIGKILL], "once"


def test_a_condemned_worker_that_says_that_it_is_ready_is_killed_all_the_same(
    crew: Callable[..., Crew],
) -> None:
    one = crew(timeout_worker_startup=5)
    (worker,) = one.started
    one.turn(5.1)
    one.say(worker, READY)
    assert worker.state is State.CONDEMNED
    one.turn(STACKS_S)
    assert worker.signals == [signal.SIGUSR2, signal.SIGKILL]


def test_a_worker_whose_loop_does_not_turn_is_replaced_at_once(serving: Callable[..., Crew]) -> None:
    one = serving(timeout_worker_healthcheck=5)
    (worker,) = one.started
    one.now += 5.0
    one.say(worker, BEAT)
    one.turn(5.0 + BEAT_S)
    assert worker.state is State.SERVING
    one.turn(0.1)
    assert (worker.state, worker.signals) == (State.CONDEMNED, [signal.SIGUSR2])
    assert len(one.started) == 2


def test_a_pause_of_the_supervisor_is_held_against_nobody(serving: Callable[..., Crew]) -> None:
    one = serving(timeout_worker_healthcheck=5)
    one.now += 600.0
    one.pool.excuse(600.0, one.now)
    one.turn()
    assert one.started[0].state is State.SERVING


def test_a_worker_that_is_too_old_retires(serving: Callable[..., Crew]) -> None:
    one = serving(limit_worker_lifetime=60)
    one.pool.retire_by_limits(one.now + 60.0)
    assert one.started[0].state is State.SERVING
    one.pool.retire_by_limits(one.now + 60.1)
    assert one.started[0].state is State.RETIRING


def test_the_worker_of_a_slot_that_is_removed_is_let_go(serving: Callable[..., Crew]) -> None:
    two = serving(2)
    two.pool.resize(1)
    kept, removed = two.started
    assert (kept.state, kept.heard()) == (State.SERVING, b"")
    assert (removed.state, removed.heard()) == (State.LEAVING, SUCCEEDED)
    two.end(removed, 0)
    assert two.pool.processes() == [kept.process]


def test_a_slot_that_comes_back_has_a_worker_of_its_own(serving: Callable[..., Crew]) -> None:
    two = serving(2)
    two.pool.resize(1)
    two.pool.resize(2)
    two.turn()
    assert [worker.state for worker in two.started] == [State.SERVING, State.LEAVING, State.STARTING]
    two.end(two.started[1], 0)
    two.say(two.started[2], READY)
    assert two.pool.processes() == [two.started[0].process, two.started[2].process]


def test_all_workers_are_told_to_stop(serving: Callable[..., Crew]) -> None:
    one = serving()
    one.say(one.started[0], RETIRE)
    old, new = one.started
    one.pool.let_go_all(STOP)
    assert {old.state, new.state} == {State.LEAVING}
    assert (old.heard(), old.signals) == (STOP, [])
    assert (new.heard(), new.signals) == (STOP, [signal.SIGTERM]), "it may not listen yet"
    assert new.process.kill_at == one.now + FORCED_EXIT_S
    one.say(new, READY)
    assert new.process.kill_at == old.process.kill_at, "its time to end is counted from here"


def test_all_workers_are_hurried_those_that_leave_too(serving: Callable[..., Crew]) -> None:
    two = serving(2)
    leaving, other = two.started
    two.say(leaving, RETIRE)
    new = two.started[2]
    two.say(new, READY)
    assert leaving.heard() == SUCCEEDED
    two.pool.hurry_all()
    for worker in (leaving, other, new):
        assert (worker.state, worker.heard()) == (State.LEAVING, HURRY)
        assert worker.signals == [signal.SIGTERM]
        assert worker.process.kill_at == two.now + FORCED_EXIT_S
    two.pool.judge(two.now + FORCED_EXIT_S)
    assert other.signals == [signal.SIGTERM, signal.SIGKILL]


def row_of(worker: Worker) -> int:
    assert worker.process.row is not None
    return worker.process.row.number


def test_each_process_has_a_row_of_its_own_until_it_has_ended(serving: Callable[..., Crew]) -> None:
    two = serving(2)
    first, second = two.started
    two.say(first, RETIRE)
    two.say(two.started[2], READY)
    assert [row_of(worker) for worker in two.started] == [1, 2, 3]
    two.say(second, RETIRE)
    assert row_of(two.started[3]) == 4, "the first one has not ended"
    two.end(first, -9)
    two.say(two.started[2], RETIRE)
    two.say(two.started[3], READY)
    two.turn()
    assert row_of(two.started[4]) == 1


def test_a_worker_that_dies_while_it_serves_or_starts_gives_its_row_back(
    serving: Callable[..., Crew],
) -> None:
    one = serving()
    for _ in range(10):
        one.end(one.started[-1], -9)
        one.turn(SERVED_BACKOFF_S)
        one.end(one.started[-1], 3)
        one.turn(60.0)
        one.say(one.started[-1], READY)
    assert {row_of(worker) for worker in one.started} == {1}


def test_what_could_not_be_started_has_no_row(serving: Callable[..., Crew]) -> None:
    one = serving()
    one.refuses = True
    one.say(one.started[0], RETIRE)
    one.turn(60.0)
    one.refuses = False
    one.turn(60.0)
    assert [row_of(worker) for worker in one.started] == [1, 2]
