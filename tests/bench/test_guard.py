"""The guard of instruction counts."""

from pathlib import Path

import pytest

from bench import guard
from bench.errors import BenchError


def test_the_guard_fails_on_growth_and_on_what_is_not_counted_any_more() -> None:
    changes = guard.compare(
        {"a": 100, "b": 100, "c": 100, "d": 100}, {"a": 102.9, "b": 103.1, "c": 50, "e": 7}
    )
    assert {change.name: change.fails for change in changes} == {
        "a": False,
        "b": True,
        "c": False,
        "d": True,
        "e": False,
    }
    lines = dict(zip("abcde", map(guard.describe, changes), strict=True))
    assert "FAILED: more than 3%" in lines["b"]
    assert "record anew" in lines["c"]
    assert "not counted any more" in lines["d"]
    assert "not recorded yet" in lines["e"]


def test_callgrinds_total_is_read(tmp_path: Path) -> None:
    dump = tmp_path / "counts.2"
    dump.write_text("version: 1\nevents: Ir\n\nfn=(1) x\n1 5\n\nsummary: 12345\n\ntotals: 12345\n")
    assert guard.read_total(dump) == 12345
    dump.write_text("version: 1\n")
    with pytest.raises(BenchError, match="no total"):
        guard.read_total(dump)
    with pytest.raises(BenchError, match="wrote no"):
        guard.read_total(tmp_path / "counts.3")
