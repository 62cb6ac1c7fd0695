"""The document of /status: rates and percentiles against what was counted, bounds, sentences."""

import json
import math
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import Told, histogram, responses, row, worker

from fastasgi.admin.document import Document
from fastasgi.admin.history import COLUMNS, HISTORY_S, POINT_S, WINDOW_S
from fastasgi.admin.report import CertificateReport, QueueReport
from fastasgi.admin.status import FRAMES, RECORDS, TEXT_LIMIT, Status


class Watched:
    """A Status, its source, and the clocks that it goes by."""

    def __init__(self, *rows: Any) -> None:
        self.told = Told(*rows)
        self.time_s = 1000.0
        self.unix_s = time.time()
        self.status = Status(self.told, lambda: self.time_s, lambda: self.unix_s)

    def after(self, seconds: float, *rows: Any) -> Document:
        """The update once so much time has passed, and these rows are there; without any the rows before."""
        self.time_s += seconds
        self.unix_s += seconds
        if rows:
            self.told.rows = list(rows)
        return self.status.update()

    def texts(self) -> list[str]:
        """The problems that are told now."""
        return [problem["text"] for problem in self.after(1)["problems"]]


# --- Rates and percentiles ---


def test_the_first_look_knows_no_rates() -> None:
    watched = Watched(row(responses=responses(1000), duration=histogram([0.1])))
    document = watched.status.document()
    assert document["now"]["requests_per_s"] is None
    assert document["now"]["duration"] == {"p50_s": None, "p95_s": None, "p99_s": None}
    assert document["now"]["error_share"] is None
    assert document["totals"]["requests"] == 1000
    assert document["workers"][0]["busy_share"] is None
    assert document["history"]["columns"]["time_s"] == []


def test_rates_are_of_what_was_counted_since() -> None:
    watched = Watched(row(responses=responses(1000)))
    watched.after(0)
    now = watched.after(5, row(responses={**responses(1045), **responses(5, "5xx")}))["now"]
    assert now["window_s"] == 5
    assert now["requests_per_s"] == 10
    assert now["responses_per_s"] == {"2xx": 9, "5xx": 1}
    assert now["error_share"] == 0.1


def test_a_row_that_appears_counts_from_0() -> None:
    watched = Watched()
    assert watched.after(0)["now"]["requests_per_s"] is None
    assert watched.after(2, row(responses=responses(10)))["now"]["requests_per_s"] == 5
    both = row(responses=responses(10)), row(1, responses=responses(30))
    document = watched.after(2, *both)
    assert document["now"]["requests_per_s"] == 10
    assert [each["requests_per_s"] for each in document["workers"]] == [2.5, 7.5]


def test_rows_of_one_slot_are_told_together() -> None:
    rows = row(0, 100, responses=responses(10), running=2), row(0, 101, responses=responses(5), running=1)
    watched = Watched(*rows)
    watched.told.say(workers=[worker(0, 101, "starting"), worker(0, 100, "retiring")])
    [each] = watched.after(1)["workers"]
    assert (each["requests"], each["running"], each["starts"]) == (15, 3, 2)
    assert [process["pid"] for process in each["processes"]] == [100, 101]
    assert each["state"] == "retiring"


@given(st.lists(st.lists(st.integers(0, 1000), min_size=2, max_size=2), min_size=1, max_size=30))
def test_no_rate_is_negative(numbers: list[list[int]]) -> None:
    watched = Watched()
    for each in numbers:
        rows = [row(slot, responses=responses(n), lag=histogram([0.1] * n)) for slot, n in enumerate(each)]
        watched.after(1, *rows)
    document = watched.status.document()
    assert document["now"]["requests_per_s"] is None or document["now"]["requests_per_s"] >= 0
    for name, column in document["history"]["columns"].items():
        assert all(value is None or value >= 0 for value in column), name


@given(st.lists(st.floats(1e-5, 600), min_size=1, max_size=200), st.lists(st.floats(1e-5, 600), max_size=50))
def test_percentiles_are_those_of_the_window(times: list[float], earlier: list[float]) -> None:
    watched = Watched(row(duration=histogram(earlier)))
    watched.after(0)
    told = watched.after(2, row(duration=histogram(earlier + times)))["now"]["duration"]
    for share, value in ((0.5, told["p50_s"]), (0.95, told["p95_s"]), (0.99, told["p99_s"])):
        exact = sorted(times)[max(0, math.ceil(share * len(times)) - 1)]
        assert value == pytest.approx(exact, rel=0.05)


def test_percentiles_forget_what_is_older_than_the_window() -> None:
    watched = Watched(row())
    watched.after(0)
    slow = row(duration=histogram([5.0] * 10))
    assert watched.after(1, slow)["now"]["duration"]["p99_s"] == pytest.approx(5, rel=0.05)
    for _ in range(round(WINDOW_S) + 1):
        document = watched.after(1)
    assert document["now"]["duration"]["p99_s"] is None


def test_counts_that_have_fallen_are_of_other_memory_and_tell_nothing() -> None:
    watched = Watched(row(responses=responses(10), duration=histogram([0.1] * 10)))
    watched.after(0)
    now = watched.after(2, row(responses=responses(1), duration=histogram([0.1])))["now"]
    assert now["requests_per_s"] == 0
    assert now["duration"]["p99_s"] is None


def test_looks_that_are_far_apart_make_a_window_that_is_long() -> None:
    watched = Watched(row())
    watched.after(0)
    now = watched.after(300, row(responses=responses(600)))["now"]
    assert (now["window_s"], now["requests_per_s"]) == (300, 2)
    now = watched.after(1, row(responses=responses(610)))["now"]
    assert (now["window_s"], now["requests_per_s"]) == (1, 10)


def test_whoever_asks_again_at_once_is_told_the_same() -> None:
    watched = Watched(row())
    watched.after(0)
    first = watched.after(1, row(responses=responses(10)))
    again = watched.after(0.1, row(responses=responses(20)))
    assert (again["time_s"], again["totals"]) == (first["time_s"], first["totals"])


def test_load_is_a_share_of_the_time_of_all_workers() -> None:
    watched = Watched(row(0), row(1))
    watched.after(0)
    document = watched.after(4, row(0, busy_s=3.0, cpu_s=1.0, gc_pause_s=[0.8, 0, 0]), row(1, busy_s=1.0))
    assert document["now"]["busy_share"] == 0.5
    assert document["now"]["gc_share"] == 0.1
    assert [each["busy_share"] for each in document["workers"]] == [0.75, 0.25]
    assert [each["cpu_share"] for each in document["workers"]] == [0.25, 0]


# --- Event loops that do not turn ---


def test_a_loop_that_turns_is_not_blocked() -> None:
    watched = Watched(row())
    for _ in range(5):
        document = watched.after(1, row(beat_at=watched.unix_s + 0.5))
    assert document["workers"][0]["blocked_s"] == 0


def test_a_loop_that_does_not_turn_is_blocked_and_busy() -> None:
    still = row(beat_at=time.time() - 0.2)
    watched = Watched(still)
    for _ in range(5):
        document = watched.after(1)
    [each] = document["workers"]
    assert each["blocked_s"] == pytest.approx(5, abs=0.5)
    assert each["busy_share"] == 1
    assert each["lag_p99_s"] == pytest.approx(5, abs=0.5)
    assert document["now"]["lag"]["p99_s"] == pytest.approx(5, abs=0.5)
    assert "Worker 0 is blocked for 6 s: its event loop does not turn." in watched.texts()
    watched.told.say(workers=[worker(0, 100, stands_at="GET / is in view (main.py:3)")])
    assert "Worker 0 is blocked for 7 s: GET / is in view (main.py:3)." in watched.texts()


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_wall_clock_that_jumps_blocks_nothing(step_s: float) -> None:
    watched = Watched(row())
    watched.after(1, row(beat_at=watched.unix_s))
    watched.unix_s += step_s
    assert watched.after(1, row(beat_at=watched.unix_s - step_s + 0.9))["workers"][0]["blocked_s"] <= 2
    document = watched.after(1, row(beat_at=watched.unix_s))
    assert document["workers"][0]["blocked_s"] == 0
    assert document["problems"] == []
    columns = watched.status.document()["history"]["columns"]
    assert columns["time_s"] == sorted(columns["time_s"])  # type: ignore[type-var]


def test_a_worker_that_starts_is_not_blocked() -> None:
    watched = Watched(row(beat_at=time.time() - 60))
    watched.told.say(workers=[worker(0, 100, "starting", stands_at="main.py:3 load")])
    [each] = watched.after(1)["workers"]
    assert each["blocked_s"] == 0
    assert each["processes"][0]["stands_at"] == "main.py:3 load"


# --- Workers that end ---


def test_a_worker_that_dies_has_failed_until_another_starts() -> None:
    watched = Watched(row(0))
    watched.told.say(workers=[worker(0, 100)])
    assert watched.after(1)["workers"][0]["state"] == "serving"
    watched.told.say(workers=[])
    document = watched.after(3, row(0, pid=0, ends={"SIGKILL": 1}))
    assert document["workers"][0]["state"] == "failed"
    assert document["workers"][0]["ends"] == {"SIGKILL": 1}
    assert "Worker 0 has ended unasked, and has no process now." in watched.texts()
    watched.told.say(workers=[worker(0, 101)])
    document = watched.after(3, row(0, pid=101, ends={"SIGKILL": 1}))
    assert document["workers"][0]["state"] == "serving"
    assert watched.texts() == ["1 worker has ended unasked in the last 10 minutes."]
    assert sum(watched.status.document()["history"]["columns"]["worker_failures"]) == 1  # type: ignore[arg-type]


def test_a_worker_that_was_asked_to_end_has_not_failed() -> None:
    watched = Watched(row(0), row(1))
    watched.after(1)
    document = watched.after(3, row(0), row(1, pid=0, ends={"asked": 1}))
    assert [each["state"] for each in document["workers"]][1] == "none"
    assert document["problems"] == []


# --- The history ---


def test_the_history_is_bounded_and_an_update_has_its_last_point() -> None:
    watched = Watched(row())
    for i in range(round(HISTORY_S) + 100):
        update = watched.after(1, row(responses=responses(10 * i)))
    whole = watched.status.document()["history"]
    assert whole["is_whole"]
    assert not update["history"]["is_whole"]
    assert set(whole["columns"]) == set(COLUMNS)
    for name, column in whole["columns"].items():
        assert len(column) == HISTORY_S / POINT_S
        assert update["history"]["columns"][name] == column[-1:]
    assert set(whole["columns"]["requests_per_s"]) == {10}
    assert len(json.dumps(update)) < 10_000


def test_points_older_than_the_history_go_even_if_few_come() -> None:
    watched = Watched(row())
    for _ in range(100):
        watched.after(15)
    times = watched.status.document()["history"]["columns"]["time_s"]
    assert times[-1] - times[0] <= HISTORY_S  # type: ignore[operator]


# --- Records, texts, sentences ---


def test_the_last_records_of_all_rows_are_told_newest_first_and_cut() -> None:
    stalls = [
        {
            "at": i,
            "duration_s": 1.0,
            "request": "GET /" + "x" * 5000,
            "where": ["f"] * 99,
            "is_over": True,
        }
        for i in range(16)
    ]
    refusals = [
        {
            "at": i,
            "status": 400,
            "reason": "no",
            "kind": "bad_request",
            "client": "::1",
            "method": "GET",
            "path": "/",
        }
        for i in range(32)
    ]
    rows = [row(slot, last_stalls=stalls, last_refusals=refusals) for slot in range(4)]
    document = Watched(*rows).status.document()
    assert [each["at"] for each in document["stalls"]] == [15.0] * 4 + [14.0] * 4 + [13.0] * 4 + [
        12.0
    ] * 4 + [11.0] * 4 + [10.0] * 4
    assert len(document["refusals"]) == RECORDS
    assert all(len(each["request"]) == TEXT_LIMIT for each in document["stalls"])
    assert all(len(each["where"]) == FRAMES for each in document["stalls"])


def test_records_that_lack_something_are_told_all_the_same() -> None:
    odd: list[dict[str, Any]] = [{}, {"at": math.nan, "duration_s": math.inf, "where": None, "request": None}]
    document = Watched(row(last_stalls=odd, last_refusals=odd)).status.document()
    json.dumps(document, allow_nan=False)
    assert len(document["stalls"]) == len(document["refusals"]) == 2


def test_without_memory_health_is_told_and_that_nothing_is_counted() -> None:
    watched = Watched()
    watched.told.say(workers=[worker(0, 100)])
    watched.after(1)
    document = watched.after(3)
    assert document["workers"][0]["state"] == "serving"
    assert document["now"]["requests_per_s"] is None
    assert [each["text"] for each in document["problems"]] == [
        "Nothing is counted: the workers have no memory in common, as the log says."
    ]
    json.dumps(watched.status.document(), allow_nan=False)


def test_all_is_well() -> None:
    watched = Watched(row())
    assert watched.texts() == []


def test_severe_problems_come_first() -> None:
    now = time.time()
    watched = Watched(row(descriptors=90, descriptors_limit=100, is_shedding=True))
    watched.told.say(
        is_ready=False,
        ready_reason="the server is stopping",
        queues=[QueueReport("http://127.0.0.1:80", 64, 128), QueueReport("http://127.0.0.1:81", 128, 128)],
        certificates=[
            CertificateReport(["a.example"], "a.pem", now - 1),
            CertificateReport(["b.example"], "b.pem", now + 86400, "no such file"),
            CertificateReport([], "c.pem", now + 365 * 86400),
        ],
    )
    assert watched.texts() == [
        "Not ready: the server is stopping.",
        "Overload: new requests are answered 503 until the delay is gone.",
        "128 connections, of 128 that may, wait to be accepted at http://127.0.0.1:81.",
        "The certificate of a.example has expired.",
        "Worker 0 has 90 of 100 descriptors open.",
        "64 connections, of 128 that may, wait to be accepted at http://127.0.0.1:80.",
        "The certificate of b.example expires in 1.0 days.",
        "The certificate of b.example could not be read again: no such file.",
    ]


def test_errors_are_told_while_they_happen() -> None:
    watched = Watched(row())
    watched.after(0)
    watched.after(4, row(responses={**responses(97), **responses(3, "5xx")}))
    assert watched.texts() == ["3.0 % of responses in the last 5 s were errors (5xx)."]
    for _ in range(round(WINDOW_S) + 1):
        watched.after(1)
    assert watched.texts() == []


def test_stalls_of_the_last_minutes_are_told() -> None:
    watched = Watched(row())
    watched.after(0)
    watched.after(3, row(stalls=2))
    assert watched.texts() == ["Event loops have stalled 2 times in the last 10 minutes."]


def test_a_document_is_json() -> None:
    watched = Watched(row(beat_at=time.time()), row(1, pid=0))
    watched.told.say(workers=[worker(0, 100)], settings={"app": "main:app", "workers": "2"})
    for _ in range(5):
        watched.after(2)
    document = watched.status.document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["server"]["name"] == "main:app"
    assert replace(watched.told.report_).settings == document["settings"]
