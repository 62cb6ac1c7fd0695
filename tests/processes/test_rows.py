import errno
import logging
import os
import time
from collections.abc import Iterator

import pytest

from fastasgi.admin.counts import read_counts
from fastasgi.core.counters import area_of
from fastasgi.core.shares import ROW_SIZE
from fastasgi.processes import rows as module
from fastasgi.processes.rows import Row, Rows


@pytest.fixture
def rows() -> Iterator[Rows]:
    rows = Rows()
    yield rows
    rows.close()


def take(rows: Rows, slot: int = 0) -> Row:
    row = rows.take(slot)
    assert row is not None
    return row


def content(row: Row) -> bytes:
    return row.memory[row.number * ROW_SIZE :][:ROW_SIZE]


def test_nobody_has_anothers_row(rows: Rows) -> None:
    taken = [take(rows) for _ in range(5)]
    assert [row.number for row in taken] == [1, 2, 3, 4, 5]
    rows.give_back(taken[3], "asked")
    rows.give_back(taken[1], "asked")
    assert [take(rows).number for _ in range(3)] == [2, 4, 6]


def test_a_row_stays_with_its_slot(rows: Rows) -> None:
    taken = [take(rows, slot) for slot in (0, 1, 2)]
    for row in taken:
        rows.give_back(row, "exit")
    assert [take(rows, slot).number for slot in (2, 0, 1, 3)] == [3, 1, 2, 4]


def test_a_row_that_is_given_back_is_empty(rows: Rows) -> None:
    row, other = take(rows), take(rows)
    for each in (row, other):
        each.memory[each.number * ROW_SIZE] = 7
    rows.give_back(row, "asked")
    assert content(row) == bytes(ROW_SIZE)
    assert content(other) != bytes(ROW_SIZE)
    assert content(take(rows)) == bytes(ROW_SIZE)


def test_what_is_counted_outlives_who_has_counted(rows: Rows) -> None:
    for end in ("exit", "SIGKILL", "asked"):
        row = take(rows, 4)
        row.counters().note_stall({"at": 1.0, "duration_s": 2.5, "is_over": True}, is_new=True)
        row.counters().note_usage(4096, 3, 0.25, 0.5)
        row.counters().begin(77, 1024)
        (counts,) = read_counts(row.memory)
        assert (counts.slot, counts.pid, counts.is_running, counts.descriptors) == (4, 77, True, 3)
        rows.give_back(row, end)
    (counts,) = read_counts(row.memory)
    assert (counts.pid, counts.is_running, counts.resident_bytes, counts.descriptors) == (0, False, 0, 0)
    assert (counts.starts, counts.stalls, counts.stalled_s) == (3, 3, 7.5)
    assert (counts.cpu_s, counts.busy_s) == (0.75, 1.5)
    ends = {end: number for end, number in counts.ends.items() if number}
    assert ends == {"exit": 1, "SIGKILL": 1, "asked": 1}


def test_a_stall_that_lasts_to_the_end_is_over_then(rows: Rows) -> None:
    row = take(rows)
    stall = {"at": time.time() - 5, "duration_s": 3.0, "is_over": False}
    row.counters().note_stall(stall, is_new=True)
    rows.give_back(row, "stall")
    (counts,) = read_counts(row.memory)
    assert (counts.stalls, counts.last_stalls[0]["is_over"]) == (1, True)
    assert 5 <= counts.stalled_s < 60
    rows.give_back(take(rows), "asked")
    assert read_counts(row.memory)[0].stalled_s == counts.stalled_s


def test_a_process_that_was_not_started_is_not_counted(rows: Rows) -> None:
    row = take(rows)
    rows.give_back(row, "")
    (counts,) = read_counts(row.memory)
    assert counts.starts == sum(counts.ends.values()) == 0


def test_rows_that_are_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 8)
    rows = Rows()
    taken = [take(rows) for _ in range(7)]
    assert rows.take(0) is None
    rows.give_back(None, "asked")
    assert rows.take(0) is None
    rows.give_back(taken[5], "asked")
    assert take(rows).number == taken[5].number
    rows.close()


def test_a_row_is_shared_with_whoever_inherits_the_descriptor(rows: Rows) -> None:
    row = take(rows)
    inherited = Row.inherited(os.dup(row.descriptor), row.number)
    inherited.memory[row.number * ROW_SIZE] = 7
    assert content(row) == content(inherited) != bytes(ROW_SIZE)
    inherited.shares()
    inherited.counters().note_lag(1.0)
    assert read_counts(row.memory)[0].lag.total == 1


def test_two_supervisors_share_a_memory(rows: Rows) -> None:
    successor = Rows(os.dup(rows.descriptor))
    ours, theirs = take(rows, 0), take(successor, 0)
    assert ours.number != theirs.number
    rows.give_back(ours, "asked")
    assert take(successor, 0).number == ours.number
    successor.close()


def test_workers_start_without_rows_if_there_is_no_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(size: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(module, "open_shared", fail)
    with caplog.at_level(logging.WARNING, "fastasgi.error"):
        rows = Rows()
    assert rows.take(0) is None
    assert [record.getMessage() for record in caplog.records] == [
        "Workers can't see each other's connections, nor be counted: [Errno 24] Too many open files"
    ]
    rows.close()


def test_a_worker_starts_without_a_row_if_memory_is_full(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert rows.memory is not None
    assert take(rows).number == 1
    monkeypatch.setattr(module, "allocate", fail)
    with caplog.at_level(logging.WARNING, "fastasgi.error"):
        assert rows.take(1) is None
    assert "No space left on device" in caplog.text
    assert [counts.slot for counts in read_counts(rows.memory)] == [0]
    monkeypatch.undo()
    assert take(rows, 1).number == 2


def test_a_row_that_is_not_there() -> None:
    for row in (0, 1024, -1):
        with pytest.raises(ValueError, match=f"there is no row {row}"):
            area_of(1024 * 65536, row)
