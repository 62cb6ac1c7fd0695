"""The window that a generator measures."""

from bench.histogram import Histogram
from bench.recorder import Recorder


def test_a_window_counts_what_came_within_it_and_what_is_overdue() -> None:
    recorder = Recorder()
    recorder.answered(0.5, 7, 100)
    recorder.failed("before")
    recorder.open()
    recorder.answered(0.001, 2, 50)
    recorder.failed("within")
    recorder.overdue = lambda: [recorder.opened_at - 1, recorder.opened_at, recorder.opened_at]
    figures = recorder.close()
    assert (figures["count"], figures["received_bytes"]) == (2, 50)
    assert figures["failures"] == {"within": 1}
    # The first was due before the window: it isn't the window's.
    assert figures["overdue"] == 2
    assert Histogram(map(tuple, figures["latencies"])).total == 4
