"""Two commits compared."""

from benchparts import good_turn

from bench import compare
from bench.workloads import WORKLOADS


def test_a_comparison_of_commits_shows_ratios_and_failures() -> None:
    pairs = [(good_turn("fastasgi", 1000 + n), good_turn("fastasgi", 1100 + 2 * n)) for n in range(5)]
    text = compare.describe(compare.Comparison(WORKLOADS["hello"], pairs, ["base: no luck", "base: no luck"]))
    assert text.count("base: no luck") == 1
    assert "rate x 1.102 [1.100 to 1.104]" in text
    assert "CPU time a request x 0.908" in text


def test_commits_are_compared_where_turns_took_no_cpu_time_or_had_a_fixed_rate() -> None:
    idle = good_turn("fastasgi", 100, user_us=0.0, system_us=0.0, limit="rate")
    text = compare.describe(compare.Comparison(WORKLOADS["hello"], [(idle, idle)], []))
    assert "rate fixed by the load   CPU time a request too little to measure" in text
