"""Latencies, counted in buckets that are 2 % wide."""

import math
from collections.abc import Iterable

GROWTH = 1.02
_SCALE = 1 / math.log(GROWTH)
FLOOR_S = 1e-6


def bucket_of(latency_s: float) -> int:
    """The number of the bucket; 0 holds all up to 1 microsecond."""
    return int(math.log(latency_s / FLOOR_S) * _SCALE) + 1 if latency_s > FLOOR_S else 0


def latency_of(bucket: int) -> float:
    """The geometric middle of a bucket, in seconds: at most 1 % off what was counted there."""
    return FLOOR_S * GROWTH ** (bucket - 0.5) if bucket else FLOOR_S


class Histogram:
    """How often each latency was seen."""

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts: dict[int, int] = dict(counts)

    def add(self, latency_s: float, count: int = 1) -> None:
        """Count `count` answers that took `latency_s` seconds each."""
        bucket = bucket_of(latency_s)
        self.counts[bucket] = self.counts.get(bucket, 0) + count

    def merge(self, other: "Histogram") -> None:
        """Add all that another one holds."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def difference(self, earlier: "Histogram") -> "Histogram":
        """What was counted since `earlier`, a copy of this one at that time."""
        return Histogram(
            (bucket, count - earlier.counts.get(bucket, 0))
            for bucket, count in self.counts.items()
            if count != earlier.counts.get(bucket, 0)
        )

    def copy(self) -> "Histogram":
        """An independent one with the same counts."""
        return Histogram(self.counts.items())

    @property
    def total(self) -> int:
        """How many answers were counted."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float:
        """Seconds that this share of the answers did not exceed. Raises ValueError if there are none."""
        if not self.counts:
            raise ValueError("an empty histogram has no quantiles")
        wanted = max(1, math.ceil(share * self.total - 1e-9))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                break
        return latency_of(bucket)

    def as_pairs(self) -> list[list[int]]:
        """Bucket and count, for JSON; the constructor takes them back."""
        return [[bucket, count] for bucket, count in sorted(self.counts.items())]
