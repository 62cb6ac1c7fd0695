import errno
import logging
import os
from collections.abc import Iterator

import pytest

from fastasgi.core.shares import ROW_SIZE
from fastasgi.processes import rows as module
from fastasgi.processes.rows import Row, Rows


@pytest.fixture
def rows() -> Iterator[Rows]:
    rows = Rows()
    yield rows
    rows.close()


def take(rows: Rows) -> Row:
    row = rows.take()
    assert row is not None
    return row


def content(row: Row) -> bytes:
    return row.memory[row.number * ROW_SIZE :][:ROW_SIZE]


def test_nobody_has_anothers_row(rows: Rows) -> None:
    taken = [take(rows) for _ in range(5)]
    assert [row.number for row in taken] == [1, 2, 3, 4, 5]
    rows.give_back(taken[3])
    rows.give_back(taken[1])
    assert [take(rows).number for _ in range(3)] == [2, 4, 6]


def test_a_row_that_is_given_back_is_empty(rows: Rows) -> None:
    row, other = take(rows), take(rows)
    for each in (row, other):
        each.memory[each.number * ROW_SIZE] = 7
    rows.give_back(row)
    assert content(row) == bytes(ROW_SIZE)
    assert content(other) != bytes(ROW_SIZE)
    assert content(take(rows)) == bytes(ROW_SIZE)


def test_rows_that_are_all_taken(rows: Rows) -> None:
    taken = [take(rows) for _ in range(module.ROWS - 1)]
    assert rows.take() is None
    rows.give_back(None)
    assert rows.take() is None
    rows.give_back(taken[500])
    assert take(rows).number == taken[500].number


def test_a_row_is_shared_with_whoever_inherits_the_descriptor(rows: Rows) -> None:
    row = take(rows)
    inherited = Row.inherited(os.dup(row.descriptor), row.number)
    inherited.memory[row.number * ROW_SIZE] = 7
    assert content(row) == content(inherited) != bytes(ROW_SIZE)
    inherited.shares()


def test_workers_start_without_rows_if_there_is_no_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(size: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(module, "open_shared", fail)
    with caplog.at_level(logging.WARNING, "fastasgi.error"):
        rows = Rows()
    assert rows.take() is None
    assert [record.getMessage() for record in caplog.records] == [
        "Workers can't see how many connections the others have: [Errno 24] Too many open files"
    ]
    rows.close()
