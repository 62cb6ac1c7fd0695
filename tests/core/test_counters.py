"""Counters by themselves: histograms, the rings of records, and what is read while it is written."""

import json
import math
import mmap
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastasgi.admin.counts import STARTS_S, Counts, Histogram, read_counts
from fastasgi.core.counters import (
    BUCKETS,
    Counters,
    area_of,
    bucket_of_time,
    bucket_start_s,
    memory_size,
    new_counters,
    read_row,
    rows_in,
    take_row,
)
from fastasgi.core.shares import new_row


def read(counters: Counters) -> Counts:
    (counts,) = read_counts(counters.memory)
    return counts


# --- Histograms ---


def test_buckets_follow_one_another() -> None:
    assert STARTS_S[0] == 0
    assert sorted(set(STARTS_S)) == STARTS_S
    assert STARTS_S[-1] > 3600
    assert [bucket_of_time(start + 1e-9) for start in STARTS_S[:40]] == list(range(40))


@given(st.floats(min_value=1e-6, max_value=3600))
def test_a_time_is_known_to_four_percent(seconds: float) -> None:
    bucket = bucket_of_time(seconds)
    low, high = bucket_start_s(bucket), bucket_start_s(bucket + 1)
    assert low <= seconds + 2e-9
    assert seconds < high + 2e-9
    assert abs((low + high) / 2 - seconds) <= 0.04 * seconds


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-12])
def test_times_that_are_none_are_the_shortest(seconds: float) -> None:
    assert bucket_of_time(seconds) == 0


def test_times_of_days_are_the_longest() -> None:
    assert bucket_of_time(1e9) == BUCKETS - 1


@given(st.lists(st.floats(min_value=1e-6, max_value=100), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_those_of_the_times(times: list[float], share: float) -> None:
    counters = new_counters()
    for seconds in times:
        counters.note_lag(seconds)
    lag = read(counters).lag
    exact = sorted(times)[max(0, math.ceil(share * len(times)) - 1)]
    assert lag.total == len(times)
    assert lag.sum_s == pytest.approx(sum(times), rel=1e-3, abs=1e-6)
    assert abs(lag.quantile(share) - exact) <= 0.04 * exact
    assert lag.at_most(1000) == len(times)
    assert lag.at_most(0) == 0


def test_a_histogram_of_nothing() -> None:
    empty = read(new_counters()).lag
    assert (empty.quantile(0.5), empty.total, empty.at_most(1)) == (0.0, 0, 0)


def test_what_was_counted_since() -> None:
    counters = new_counters()
    counters.note_lag(0.5)
    before = read(counters).lag
    counters.note_lag(2.0)
    since = read(counters).lag.minus(before)
    assert (since.total, since.sum_s) == (1, 2.0)
    assert before.plus(since) == read(counters).lag


# --- Records ---


def stall(number: int, **more: Any) -> dict[str, Any]:
    return {"at": float(number), "duration_s": 1.0, "is_over": False, "where": [], **more}


def test_the_last_records_are_kept() -> None:
    counters = new_counters()
    for number in range(40):
        counters.note_stall(stall(number), is_new=True)
    counts = read(counters)
    assert counts.stalls == 40
    assert [record["at"] for record in counts.last_stalls] == [float(number) for number in range(24, 40)]


def test_a_stall_that_is_over_is_told_again() -> None:
    counters = new_counters()
    counters.note_stall(stall(1), is_new=True)
    counters.note_stall(stall(1, duration_s=3.5, is_over=True), is_new=False)
    counts = read(counters)
    assert (counts.stalls, counts.stalled_s) == (1, 3.5)
    assert [record["duration_s"] for record in counts.last_stalls] == [3.5]


def test_a_stack_that_is_too_long_loses_its_outer_calls() -> None:
    counters = new_counters()
    counters.note_stall(stall(1, where=[f"{number} {'x' * 90}" for number in range(100)]), is_new=True)
    (record,) = read(counters).last_stalls
    assert 5 < len(record["where"]) < 100
    assert record["where"][0].startswith("0 ")


def test_a_record_that_can_not_be_cut_is_refused() -> None:
    counters = new_counters()
    with pytest.raises(ValueError, match="a record has"):
        counters.note_stall(stall(1, request="x" * 5000), is_new=True)
    assert read(counters).last_stalls == []


def test_a_record_that_is_being_written_is_not_read() -> None:
    counters = new_counters()
    counters.note_stall(stall(1, request="GET /"), is_new=True)
    text = json.dumps(stall(1, request="GET /")).encode()
    at = counters.memory.find(text) - 8
    (version,) = struct.unpack_from("I", counters.memory, at)
    struct.pack_into("I", counters.memory, at, version + 1)
    assert read(counters).last_stalls == []
    struct.pack_into("I", counters.memory, at, version)
    assert len(read(counters).last_stalls) == 1


# --- Memory ---


def test_a_row_that_nobody_has_had_is_not_read() -> None:
    memory = mmap.mmap(-1, memory_size(4))
    assert rows_in(len(memory)) == 4
    assert read_row(memory, 2) is None
    assert read_counts(memory) == []


@pytest.mark.parametrize("row", [0, 4, -1, 2**20])
def test_rows_that_are_not_there(row: int) -> None:
    memory = mmap.mmap(-1, memory_size(4))
    for call in (
        lambda: area_of(len(memory), row),
        lambda: read_row(memory, row),
        lambda: Counters(memory, row),
    ):
        with pytest.raises(ValueError, match=f"there is no row {row}"):
            call()


def test_rows_are_added_up() -> None:
    memory = mmap.mmap(-1, memory_size(4))
    rows = []
    for slot in (0, 1):
        row = new_row(memory, 4)
        assert take_row(memory, row, slot)
        rows.append(Counters(memory, row))
    for number, counters in enumerate(rows, 1):
        counters.note_usage(100, number, 1.0, 0.5)
        counters.note_stall(stall(5 - number), is_new=True)
        counters.note_lag(float(number))
        counters.on_gc("start", {})
        counters.on_gc("stop", {"generation": 2})
    one, other = read_counts(memory)
    both = one.plus(other)
    assert (both.descriptors, both.cpu_s, both.stalls, both.gc_pauses) == (3, 2.0, 2, [0, 0, 2])
    assert both.lag == Histogram([a + b for a, b in zip(one.lag.counts, other.lag.counts, strict=True)], 3.0)
    assert [record["at"] for record in both.last_stalls] == [3.0, 4.0]
    assert both.is_running
    assert both.starts == 2


def test_a_collection_that_began_before_is_not_counted() -> None:
    counters = new_counters()
    counters.on_gc("stop", {"generation": 1})
    assert read(counters).gc_pauses == [0, 0, 0]


def test_a_generation_that_is_not_known_counts_as_the_oldest() -> None:
    counters = new_counters()
    counters.on_gc("start", {})
    counters.on_gc("stop", {"generation": random.randrange(3, 9)})
    assert read(counters).gc_pauses == [0, 0, 1]
