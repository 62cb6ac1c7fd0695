"""Latencies in buckets."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.histogram import Histogram, bucket_of, latency_of


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_two_per_cent_of_the_sorted_value(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.02)
    assert histogram.total == len(values)


def test_buckets_hold_their_own_middle() -> None:
    assert all(bucket_of(latency_of(bucket)) == bucket for bucket in range(1200))
    assert bucket_of(0.0) == bucket_of(-1.0) == 0


def test_histograms_add_up_and_subtract() -> None:
    first, second = Histogram(), Histogram()
    first.add(0.001, 3)
    before = first.copy()
    second.add(0.001, 2)
    second.add(5.0)
    first.merge(second)
    assert first.difference(before).as_pairs() == second.as_pairs()
    assert Histogram(map(tuple, json.loads(json.dumps(first.as_pairs())))).counts == first.counts
    with pytest.raises(ValueError, match="empty"):
        Histogram().quantile(0.5)
