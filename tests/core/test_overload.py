"""The rule by which requests are refused, with a clock of the tests' own."""

import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastasgi.core.overload import SheddingRule

TARGET_S = 0.02
TARGET, INTERVAL = 20_000_000, 400_000_000
BEGIN = 10**12


class Probed:
    """A rule whose probe goes off as late as a test says."""

    def __init__(self) -> None:
        self.rule = SheddingRule(TARGET_S)
        self.now = BEGIN
        self.completed = 0
        self.rule.start_probe(self.now)

    def turn(self, late: int, completed: int = 1) -> None:
        """The probe is late by so much; so many requests have been completed since it last went off."""
        self.now = self.due + late
        self.completed += completed
        self.rule.note_probe(self.now, self.completed)
        self.rule.start_probe(self.now)

    @property
    def due(self) -> int:
        return self.rule.start_probe(self.now)

    def ask(self, waited: int, running: int = 1) -> bool:
        """Whether a request is refused that comes when the probe is overdue by so much."""
        return self.rule.refuses(self.due + waited, self.completed, running)

    def overload(self) -> None:
        """Have the loop late for an interval, and more."""
        for _ in range(8):
            self.turn(4 * TARGET)
        assert self.rule.is_shedding


def test_an_interval_is_20_targets() -> None:
    rule = SheddingRule(TARGET_S)
    assert (rule.target_ns, rule.interval_ns) == (TARGET, INTERVAL)


def test_it_begins_when_each_probe_of_an_interval_was_late() -> None:
    probed = Probed()
    probed.turn(TARGET + 1)
    first = probed.now
    while probed.due + 2 * TARGET - first < INTERVAL:
        probed.turn(2 * TARGET)
        assert not probed.rule.is_shedding
        assert not probed.ask(TARGET)
    probed.turn(2 * TARGET)
    assert probed.rule.is_shedding
    assert probed.ask(5 * TARGET)


def test_one_probe_in_time_puts_it_off() -> None:
    probed = Probed()
    for _ in range(20):
        probed.turn(INTERVAL - TARGET)
        probed.turn(TARGET)
        assert not probed.ask(INTERVAL)
    assert not probed.rule.is_shedding


@given(st.lists(st.integers(0, TARGET), min_size=1, max_size=200))
def test_while_the_loop_is_in_time_it_never_begins(lates: list[int]) -> None:
    probed = Probed()
    for late in lates:
        assert not probed.ask(late)
        probed.turn(late)
    assert not probed.rule.is_shedding


@given(st.integers(0, 100 * INTERVAL), st.integers(0, INTERVAL - 2 * TARGET))
def test_a_stall_and_what_has_queued_up_meanwhile_drain_by_themselves(stall: int, drain: int) -> None:
    probed = Probed()
    probed.turn(stall)
    assert not probed.ask(drain)
    probed.turn(drain)
    probed.turn(0)
    assert not probed.ask(INTERVAL)
    assert not probed.rule.is_shedding


def test_it_begins_within_a_long_turn_too() -> None:
    probed = Probed()
    probed.turn(2 * TARGET)
    assert not probed.ask(INTERVAL - 2 * TARGET)
    assert probed.ask(INTERVAL)
    assert probed.rule.is_shedding
    assert probed.rule.refused == 1


def test_all_are_refused_while_the_loop_is_very_late() -> None:
    probed = Probed()
    probed.overload()
    for running in (0, 1, 100):
        assert probed.ask(4 * TARGET + 1, running)


def test_one_is_let_in_where_nothing_runs_and_the_loop_is_in_time() -> None:
    probed = Probed()
    probed.overload()
    assert not any(probed.ask(0, running=0) for _ in range(100))
    # There are as many tokens as have been earned, and no more
    assert [probed.ask(0, running=1) for _ in range(100)].count(False) <= 1


def test_it_lets_in_what_can_be_completed() -> None:
    """The loop completes 1000 requests a second, and 3000 come."""
    probed = Probed()
    for _ in range(20):
        probed.turn(3 * TARGET, completed=70)
    let_in = 0
    for _ in range(10):
        let_in += sum(not probed.ask(waited) for waited in range(0, TARGET // 2, TARGET // 120))
        probed.turn(TARGET // 2, completed=20)
    # In a fifth of a second. It grows, since the loop is not late
    assert 200 <= let_in < 260


@given(st.integers(1, 50))
def test_it_ends_after_an_interval_in_which_few_are_refused(asked: int) -> None:
    probed = Probed()
    probed.overload()
    turns = 0
    while probed.rule.is_shedding:
        for _ in range(asked):
            probed.ask(0, running=0)
        probed.turn(0)
        turns += 1
        assert turns <= 2 * INTERVAL // (TARGET // 2)
    assert not probed.ask(INTERVAL)


def test_it_ends_if_nobody_asks() -> None:
    probed = Probed()
    probed.overload()
    for _ in range(2 * INTERVAL // (TARGET // 2)):
        probed.turn(0, completed=0)
    assert not probed.rule.is_shedding


@given(st.data())
def test_whatever_happens_it_refuses_only_while_it_sheds(data: st.DataObject) -> None:
    probed = Probed()
    refused = 0
    for _ in range(data.draw(st.integers(1, 60))):
        late = data.draw(st.integers(0, 2 * INTERVAL))
        for waited in sorted(data.draw(st.lists(st.integers(0, late), max_size=5))):
            if probed.ask(waited, data.draw(st.integers(0, 3))):
                refused += 1
                assert probed.rule.is_shedding
        probed.turn(late, data.draw(st.integers(0, 1000)))
    assert probed.rule.refused == refused


# --- A model of an event loop ---


@dataclass(frozen=True)
class Handler:
    """What a request does: it keeps the loop, waits for something else, keeps the loop again."""

    before_s: float
    waits_s: float = 0.0
    after_s: float = 0.0

    @property
    def capacity(self) -> float:
        """How many the loop can answer in a second."""
        return 1 / (self.before_s + self.after_s)


@dataclass
class Outcome:
    """What a model has found."""

    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    rested_s: float = 0.0

    def in_time(self) -> int:
        return sum(latency_s <= 1 for latency_s in self.latencies_s)

    def p99_s(self) -> float:
        return sorted(self.latencies_s)[int(0.99 * len(self.latencies_s))]


SHED_S = 8e-6  # for a request to be refused
EVENTS_MOST = 512
PROBE = -1.0


class Model:
    """An event loop: a turn has the requests that have come, then the timers that were due when it began."""

    def __init__(self, handler: Handler, arrivals: list[float]) -> None:
        self.rule = SheddingRule(TARGET_S)
        self.handler, self.arrivals = handler, arrivals
        self.now = 0.0
        self.timers: list[tuple[float, int, float]] = []  # when, order, when the request came or PROBE
        self.numbers = itertools.count()
        self.asked = self.has_probe = False
        self.running = self.completed = 0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        at = 0
        while at < len(self.arrivals) or self.running:
            times = [timer[0] for timer in self.timers[:1]] + self.arrivals[at : at + 1]
            self.outcome.rested_s += max(0.0, min(times) - self.now)
            polled_at = self.now = max(self.now, min(times))
            end = min(at + EVENTS_MOST, len(self.arrivals))
            while at < end and self.arrivals[at] <= polled_at:
                self.begin(self.arrivals[at])
                at += 1
            due = []
            while self.timers and self.timers[0][0] <= polled_at:
                due.append(heapq.heappop(self.timers)[2])
            for came_at in due:
                self.go_on(came_at)
        return self.outcome

    def begin(self, came_at: float) -> None:
        self.asked = True
        if not self.has_probe:
            self.start_probe()
        if self.rule.refuses(self.now_ns, self.completed, self.running):
            self.now += SHED_S
            self.outcome.refused += 1
            return
        self.running += 1
        self.now += self.handler.before_s
        if self.handler.waits_s:
            self.wait_until(self.now + self.handler.waits_s, came_at)
        else:
            self.complete(came_at)

    def go_on(self, came_at: float) -> None:
        if came_at != PROBE:
            self.now += self.handler.after_s
            self.complete(came_at)
            return
        self.has_probe = False
        if self.rule.note_probe(self.now_ns, self.completed) or self.asked:
            self.start_probe()
        self.asked = False

    def complete(self, came_at: float) -> None:
        self.running -= 1
        self.completed += 1
        self.outcome.latencies_s.append(self.now - came_at)

    def start_probe(self) -> None:
        self.has_probe = True
        self.wait_until(self.rule.start_probe(self.now_ns) / 1e9, PROBE)

    def wait_until(self, at: float, what: float) -> None:
        heapq.heappush(self.timers, (at, next(self.numbers), what))

    @property
    def now_ns(self) -> int:
        return int(self.now * 1e9) + 1


def arriving(rate: float, seconds: float) -> list[float]:
    """When requests come that know nothing of each other."""
    source = random.Random(1)
    times = list(itertools.accumulate(source.expovariate(rate) for _ in range(int(rate * seconds))))
    return times


BUSY = Handler(5e-3)
WAITING = Handler(0.5e-3, 50e-3, 0.5e-3)
LONG_WAITING = Handler(0.05e-3, 200e-3, 1e-3)


@pytest.mark.parametrize("times", [1, 2, 3, 5])
@pytest.mark.parametrize("handler", [BUSY, WAITING], ids=["busy", "waiting"])
def test_most_of_the_capacity_goes_into_answers_in_time(handler: Handler, times: int) -> None:
    seconds = 10.0
    outcome = Model(handler, arriving(times * handler.capacity, seconds)).run()
    assert outcome.in_time() > 0.9 * handler.capacity * seconds
    assert outcome.p99_s() < 1


def test_long_waits_leave_the_loop_busy() -> None:
    """What is let in makes the loop late 0.2 s later only, by 50 times the target if all of it was let in."""
    outcome = Model(LONG_WAITING, arriving(2 * LONG_WAITING.capacity, 20.0)).run()
    assert outcome.in_time() > 0.9 * LONG_WAITING.capacity * 20
    assert outcome.rested_s < 2


@pytest.mark.parametrize("handler", [BUSY, WAITING, LONG_WAITING], ids=["busy", "waiting", "long waiting"])
def test_a_load_that_can_be_answered_is(handler: Handler) -> None:
    outcome = Model(handler, arriving(0.7 * handler.capacity, 20.0)).run()
    assert outcome.refused == 0


@given(st.integers(1, 70))
def test_a_burst_that_drains_within_an_interval_is_answered(count: int) -> None:
    """70 requests at once, of 5 ms each, beside others that come one by one."""
    arrivals = sorted([0.02 * number for number in range(100)] + [0.5] * count)
    outcome = Model(BUSY, arrivals).run()
    assert outcome.refused == 0
