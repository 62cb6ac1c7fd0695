"""What counts were a moment ago, and what follows: rates, quantiles, and points of the last minutes."""

import functools
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fastasgi.admin.counts import Counts, Histogram, read_counts
from fastasgi.core.counters import new_counters

WINDOW_S = 10.0  # over which rates and quantiles are made
LEAST_S = 0.2  # between two looks of which one can make a rate
POINT_S = 2.0
HISTORY_S = 600.0
SLACK_S = 0.25  # by which looks may be late or early

COLUMNS = (
    "time_s", "requests_per_s", "client_errors_per_s", "server_errors_per_s", "aborted_per_s",
    "refusals_per_s", "first_byte_p50_s", "first_byte_p95_s", "first_byte_p99_s", "duration_p50_s",
    "duration_p95_s", "duration_p99_s", "lag_p99_s", "busy_share", "running", "connections", "websockets",
    "resident_bytes", "worker_failures", "stalls",
)  # fmt: skip
"""Of each point: its time, rates since the point before, quantiles over WINDOW_S, and what there was then.

worker_failures and stalls are numbers since the point before."""

EXPECTED_ENDS = ("asked", "limit")
"""Why workers end that have not failed."""

NOTHING = replace(read_counts(new_counters().memory)[0], is_running=False, starts=0)
"""Counts of what has never been."""


def classes(counts: Counts) -> Counter[str]:
    """The numbers of responses by class of status."""
    found: Counter[str] = Counter()
    for (_, _, name), number in counts.responses.items():
        found[name] += number
    return found


def total(counts: Counts, name: str) -> float:
    """A count of this name, or the sum if it has several."""
    value = getattr(counts, name)
    if isinstance(value, dict):
        value = sum(value.values())
    return float(sum(value) if isinstance(value, list) else value)


def failures(ends: Mapping[str, int]) -> int:
    """How many workers have ended that nobody has asked to."""
    return sum(number for cause, number in ends.items() if cause not in EXPECTED_ENDS)


def grown(now: float, before: float) -> float:
    """By how much a count has grown. One that has fallen is of other memory, and begins anew."""
    return max(0, now - before)


def since(now: Histogram, before: Histogram) -> Histogram:
    """The times that have been counted since."""
    counts = [max(0, a - b) for a, b in zip(now.counts, before.counts, strict=True)]
    return Histogram(counts, max(0.0, now.sum_s - before.sum_s))


@dataclass(frozen=True)
class Look:
    """What the counts were at a time of the monotonic clock."""

    time_s: float
    slots: dict[int, Counts]
    blocked_s: dict[int, float]  # slots whose event loop does not turn, and for how long it has not
    sums: Counts  # of all slots; NOTHING if there is none

    @classmethod
    def of(cls, time_s: float, rows: Iterable[Counts], blocked_s: dict[int, float]) -> "Look":
        """A look at these rows."""
        slots: dict[int, Counts] = {}
        for row in rows:
            slots[row.slot] = slots[row.slot].plus(row) if row.slot in slots else row
        sums = functools.reduce(Counts.plus, slots.values()) if slots else NOTHING
        return cls(time_s, slots, blocked_s, sums)


@dataclass(frozen=True)
class Change:
    """What has happened in one slot, or in all, between two looks. What can't be known is None."""

    seconds: float
    now: Counts
    before: Counts
    blocked_s: float = 0.0  # for how long an event loop has not turned
    processes: int = 1  # that run now
    _times: dict[str, Histogram] = field(default_factory=dict, compare=False)

    @property
    def is_known(self) -> bool:
        """Whether there are two looks to compare."""
        return self.now is not NOTHING and self.seconds >= LEAST_S

    def number(self, name: str) -> float:
        """How much a count of this name has grown; those that have a name each together."""
        return grown(total(self.now, name), total(self.before, name)) if self.is_known else 0

    def per_s(self, name: str) -> float | None:
        """The rate of the same."""
        return self.number(name) / self.seconds if self.is_known else None

    def share(self, name: str, more_s: float = 0.0) -> float | None:
        """The share of the time of all processes that a count in seconds, and more_s, is."""
        if not self.is_known:
            return None
        return min(1.0, (self.number(name) + more_s) / self.seconds / max(1, self.processes))

    def classes_per_s(self) -> dict[str, float]:
        """Rates of responses by class of status."""
        if not self.is_known:
            return {}
        before = classes(self.before)
        return {
            name: grown(number, before[name]) / self.seconds for name, number in classes(self.now).items()
        }

    def quantile(self, name: str, share: float) -> float | None:
        """Of the times of this name that have been counted; None if there are none."""
        if not self.is_known:
            return None
        if name not in self._times:
            self._times[name] = since(getattr(self.now, name), getattr(self.before, name))
        times = self._times[name]
        return times.quantile(share) if times.total else None

    def lag(self, share: float) -> float | None:
        """A quantile of the event loop's lag. One that is blocked can't measure it, but is so late."""
        lag = self.quantile("lag", share)
        return max(lag or 0.0, self.blocked_s) if self.blocked_s else lag


class Window:
    """The looks of the last WINDOW_S, at least two if there have been two."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()

    def add(self, look: Look) -> None:
        """Take a look that is later than all others."""
        self._looks.append(look)
        while len(self._looks) > 2 and look.time_s - self._looks[0].time_s > WINDOW_S + SLACK_S:
            self._looks.popleft()

    def change(self) -> Change:
        """What has happened in all slots together."""
        before, now = self._looks[0], self._looks[-1]
        return _change_between(before, now)

    def change_in(self, slot: int) -> Change:
        """What has happened in one slot."""
        before, now = self._looks[0], self._looks[-1]
        return Change(
            now.time_s - before.time_s,
            now.slots.get(slot, NOTHING),
            before.slots.get(slot, NOTHING),
            now.blocked_s.get(slot, 0.0),
        )


def _change_between(before: Look, now: Look) -> Change:
    """What has happened in all slots together between two looks."""
    running = sum(counts.is_running for counts in now.slots.values())
    return Change(
        now.time_s - before.time_s,
        now.sums,
        before.sums,
        max(now.blocked_s.values(), default=0.0),
        max(1, running),
    )


@dataclass
class Points:
    """The points of the last HISTORY_S, of which none has more than COLUMNS."""

    _points: deque[tuple[float | None, ...]] = field(
        default_factory=lambda: deque(maxlen=round(HISTORY_S / POINT_S))
    )
    _last: Look | None = None  # that a point was made of

    def add(self, look: Look, window: Change, busy_share: float | None) -> None:
        """Make a point of a look if it is due; window is the change up to this look."""
        if self._last is None:
            self._last = look
            return
        if look.time_s - self._last.time_s < POINT_S - SLACK_S:
            return
        self._points.append(_point(_change_between(self._last, look), look, window, busy_share))
        self._last = look
        while self._points and (self._points[0][0] or 0.0) < look.time_s - HISTORY_S:
            self._points.popleft()

    def columns(self, last_only: bool, began_at: float) -> dict[str, list[float | None]]:
        """The points by column, with times since began_at; the last point only, if that is wanted."""
        points = list(self._points)[-1:] if last_only else list(self._points)
        columns: dict[str, list[float | None]] = {
            name: [_short(point[i]) for point in points] for i, name in enumerate(COLUMNS)
        }
        columns["time_s"] = [round((point[0] or 0.0) - began_at, 3) for point in points]
        return columns

    def sum_of(self, name: str) -> int:
        """The sum of a column."""
        column = COLUMNS.index(name)
        return round(sum(point[column] or 0 for point in self._points))


def _point(change: Change, look: Look, window: Change, busy_share: float | None) -> tuple[float | None, ...]:
    rates = change.classes_per_s()
    quantiles = [
        window.quantile(name, share) for name in ("first_byte", "duration") for share in (0.5, 0.95, 0.99)
    ]
    return (
        look.time_s,
        change.per_s("responses"),
        *(rates.get(name, 0.0) if change.is_known else None for name in ("4xx", "5xx", "aborted")),
        change.per_s("refusals"),
        *quantiles,
        window.lag(0.99),
        busy_share,
        *(total(look.sums, name) for name in ("running", "open", "websockets", "resident_bytes")),
        grown(failures(change.now.ends), failures(change.before.ends)),
        change.number("stalls"),
    )


def _short(value: float | None) -> float | None:
    """With so many digits as one can believe."""
    if value is None or value == int(value):
        return value if value is None else int(value)
    return float(f"{value:.6g}")
