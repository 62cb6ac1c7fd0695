"""Ratios with their confidence intervals."""

import math
import statistics

import pytest

from bench.figures import ratio_of_pairs, student_t_95


def test_a_ratio_of_paired_rounds_has_students_interval() -> None:
    pairs = [(2.0, 1.0), (2.2, 1.0), (1.8, 1.0), (2.0, 1.0)]
    ratio = ratio_of_pairs(pairs)
    logarithms = [math.log(a / b) for a, b in pairs]
    half = 3.182 * statistics.stdev(logarithms) / 2
    assert ratio.value == pytest.approx(math.exp(statistics.fmean(logarithms)))
    assert ratio.low == pytest.approx(ratio.value * math.exp(-half))
    assert ratio.high == pytest.approx(ratio.value * math.exp(half))
    assert ratio.certain


def test_what_slows_both_of_a_pair_does_not_widen_the_interval() -> None:
    ratio = ratio_of_pairs([(100, 50), (10, 5), (1, 0.5)])
    assert ratio.low == pytest.approx(2)
    assert ratio.high == pytest.approx(2)


def test_a_ratio_that_may_be_1_or_has_a_single_pair_is_not_certain() -> None:
    assert not ratio_of_pairs([(1.1, 1), (0.9, 1), (1.05, 1)]).certain
    single = ratio_of_pairs([(3, 1)])
    assert (round(single.value, 6), single.low, single.high, single.certain) == (3, None, None, False)
    with pytest.raises(ValueError, match="no pairs"):
        ratio_of_pairs([])


def test_students_factor_falls_to_the_normal_distributions() -> None:
    factors = [student_t_95(degrees) for degrees in range(1, 400)]
    assert factors == sorted(factors, reverse=True)
    # From the tables of the distribution, which give three decimals.
    exact = {1: 12.706, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086, 25: 2.060}
    exact |= {30: 2.042, 40: 2.021, 60: 2.000, 100: 1.984, 120: 1.980, 10**6: 1.960}
    assert {degrees: round(student_t_95(degrees), 3) for degrees in exact} == exact
