"""Labels and numbers of charts."""

import itertools

from bench import charts
from bench.charts import format_number, format_tick, format_time, nice_ceiling


def test_labels_of_curves_do_not_touch() -> None:
    wanted = [100.0, 101.0, 299.0, 300.0, 99.0, 298.0]
    heights = charts._spread_labels(wanted)
    order = sorted(heights)
    assert all(below - above >= charts._LABEL_HEIGHT for above, below in itertools.pairwise(order))
    assert sorted(range(6), key=heights.__getitem__) == sorted(range(6), key=wanted.__getitem__)
    assert order[-1] <= charts._HEIGHT


def test_numbers_are_short_and_have_units() -> None:
    assert [format_number(x) for x in (0.5, 9.996, 99.96, 1234567)] == [
        "0.50",
        "10.0",
        "100",
        "1\u202f234\u202f567",
    ]
    assert [format_tick(x) for x in (0, 250.0, 1500, 250000, 1.5e6)] == ["0", "250", "1.5k", "250k", "1.5M"]
    assert [format_time(x) for x in (1e-6, 0.00025, 0.001, 0.0123, 1, 12.34)] == [
        "1 µs",
        "250 µs",
        "1 ms",
        "12.3 ms",
        "1 s",
        "12.3 s",
    ]
    assert [nice_ceiling(x) for x in (0, 1, 1.1, 7, 9, 12000)] == [1, 1, 1.5, 8, 10, 15000]
