"""What is told of a supervisor that goes silent or ends."""

import dataclasses

import pytest

from fastasgi.admin import source
from fastasgi.admin.report import Report
from fastasgi.admin.source import HeardSource

REPORT = Report(1.0, 1.0, "running", is_live=True, live_reason="lives", is_ready=True, ready_reason="serves")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The present, to be set as its one item."""
    now = [100.0]
    monkeypatch.setattr(source.time, "monotonic", lambda: now[0])
    return now


def test_the_last_report_is_told(clock: list[float]) -> None:
    heard = HeardSource(None)
    heard.hear(REPORT)
    clock[0] += 4.9
    assert heard.report() is REPORT
    assert heard.counts() == []


def test_a_supervisor_that_has_run_and_is_silent_is_not_live(clock: list[float]) -> None:
    heard = HeardSource(None)
    heard.hear(REPORT)
    clock[0] += 5.1
    told = heard.report()
    assert (told.is_live, told.is_ready) == (False, False)
    assert told.live_reason == told.ready_reason == "the supervisor has been silent for 5 s"
    heard.hear(REPORT)
    assert heard.report() is REPORT


def test_a_supervisor_that_imports_an_application_may_be_silent(clock: list[float]) -> None:
    heard = HeardSource(None)
    starting = dataclasses.replace(REPORT, phase="starting", is_ready=False)
    heard.hear(starting)
    clock[0] += 3600
    assert heard.report() is starting
    heard.note_end()
    assert not heard.report().is_live
    assert heard.report().live_reason == "the supervisor has ended"
