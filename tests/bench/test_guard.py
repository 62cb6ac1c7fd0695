"""The guard of instruction counts."""

import sys
from pathlib import Path

import pytest

from bench import guard, micro
from bench.codec import Codec
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


def test_the_loop_is_taken_off_and_the_rest_shared_by_what_a_step_does_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codecs = [Codec("one", "", "", lambda: print), Codec("many", "", "", lambda: print, batch=32)]
    loops = micro.COUNTED_LOOPS
    totals = [50 * loops, (50 + 700) * loops, (50 + 32 * 600) * (loops // 32)]

    def write_dumps(python: Path, fastasgi: Path, what: str, prefix: tuple[str, ...]) -> None:
        [out] = [argument.partition("=")[2] for argument in prefix if "out-file" in argument]
        for number, total in enumerate(totals, 1):
            Path(f"{out}.{2 * number}").write_text(f"totals: {total}\n")

    monkeypatch.setattr(guard, "run_micro", write_dumps)
    monkeypatch.setattr(guard.shutil, "which", lambda program: program)
    monkeypatch.setattr(micro, "guarded", lambda: codecs)
    assert guard.count_instructions(Path(), Path()) == {"one": 700, "many": 600}


def test_all_that_is_guarded_does_its_work() -> None:
    guard.run_micro(Path(sys.executable), guard.installed_fastasgi(), "count")
