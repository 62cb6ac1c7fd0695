"""Statistics: the middle and spread of a server's turns, and ratios with confidence intervals."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.histogram import Histogram
from bench.results import good_turns

# The normal distribution's factor for a two-sided interval of 95 %.
_Z_95 = 1.959964
# Student's, by degrees of freedom.
_T_95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
# Answers that have to lie beyond a quantile for it to say something.
MIN_BEYOND = 10


def student_t_95(degrees: int) -> float:
    """The factor of the standard error that makes a two-sided interval of 95 %, to three decimals.

    Beyond the table by the expansion for many degrees (Abramowitz and Stegun, 26.7.5).
    """
    if degrees <= len(_T_95):
        return _T_95[degrees - 1]
    z = _Z_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def is_told(share: float, count: int) -> bool:
    """Whether so many answers are enough for the quantile `share`."""
    # The shares have no exact binary form.
    return count * (1 - share) >= MIN_BEYOND - 1e-6


@dataclass(frozen=True)
class Spread:
    """The median of some turns, with the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Raises statistics.StatisticsError if there are none."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means with its confidence interval of 95 %.

    A ratio from a single pair has none: low and high are None.
    """

    value: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def ratio_of_pairs(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """How much greater the first of each pair is than the second.

    A pair is of one round, so that what slowed the machine then is in both. The value is the geometric mean
    of the pairs' ratios, the interval Student's of their logarithms. Raises ValueError for no pairs, or
    none above 0.
    """
    logarithms = [math.log(first / second) for first, second in pairs]
    if not logarithms:
        raise ValueError("no pairs")
    mean = statistics.fmean(logarithms)
    if len(logarithms) == 1:
        return Ratio(math.exp(mean), None, None, 1)
    error = statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    half = student_t_95(len(logarithms) - 1) * error
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(pairs))


def cpu_us(turn: dict[str, Any]) -> float:
    """CPU time of a request in microseconds, of user space and kernel."""
    return float(turn["user_us"] + turn["system_us"])


def paired(
    results: dict[str, Any], workload: str, first: str, second: str, measure: str
) -> list[tuple[float, float]]:
    """The figures of the rounds in which both servers brought some.

    The measure is `rate`, or `per_cpu`: requests in a second of CPU time.
    """

    def value(turn: dict[str, Any]) -> float:
        return float(turn["rate"]) if measure == "rate" else 1e6 / cpu_us(turn)

    theirs = {turn["round"]: turn for turn in good_turns(results, workload, second)}
    return [
        (value(turn), value(theirs[turn["round"]]))
        for turn in good_turns(results, workload, first)
        if turn["round"] in theirs
        and "rate" in turn
        # A short turn may take less CPU time than the kernel's clock shows.
        and (measure == "rate" or (cpu_us(turn) > 0 and cpu_us(theirs[turn["round"]]) > 0))
    ]


@dataclass(frozen=True)
class Figure:
    """What a summary shows of one server at one workload with requests."""

    rate: Spread
    cpu_us: Spread
    system_us: float
    """The kernel's part of the CPU time."""
    limit: str
    """What limited most of the turns; a key of turn.LIMITS."""
    latencies: Histogram
    failures: int

    @property
    def is_lower_bound(self) -> bool:
        """Whether the server could have done more in most of the turns."""
        return self.limit in ("generator", "shared core", "other processes", "database")

    @property
    def has_fixed_rate(self) -> bool:
        """Whether the load fixed the rate in most of the turns, so that it says nothing of the server."""
        return self.limit == "rate"


def figure_of(turns: list[dict[str, Any]]) -> Figure:
    """Sum up turns that brought a rate. Raises ValueError if there are none."""
    if not turns:
        raise ValueError("no turns")
    latencies = Histogram()
    for turn in turns:
        latencies.merge(Histogram((bucket, count) for bucket, count in turn["latencies"]))
    limits = [turn["limit"] for turn in turns]
    return Figure(
        Spread.of([turn["rate"] for turn in turns]),
        Spread.of([cpu_us(turn) for turn in turns]),
        statistics.median(turn["system_us"] for turn in turns),
        max(limits, key=limits.count),
        latencies,
        sum(sum(turn["failures"].values()) for turn in turns),
    )
