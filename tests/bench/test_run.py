"""A run keeps what it has measured."""

import os
import signal
import threading
from pathlib import Path

import pytest
from benchparts import FakeEnvironment, fake_server, linux, plan

from bench import accounting, run, summary
from bench import results as store
from bench.servers import SERVERS
from bench.workloads import WORKLOADS


@linux
def test_the_results_name_the_python_of_the_environment(tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path)
    environment.python = tmp_path / "python"
    environment.python.write_text("#!/bin/sh\necho 3.99.1\n")
    environment.python.chmod(0o755)
    found = run.carry_out(plan(fake_server(), rounds=1), environment, tmp_path)
    assert found["machine"]["python"] == "3.99.1"


def test_a_line_tells_a_peaks_figures() -> None:
    fake = fake_server()
    burst = {
        "status": "ok",
        "median_s": 0.0204,
        "worst_s": 0.04,
        "standing_during_s": 0.02,
        "standing_ratio": 2,
    }
    line = run.describe_turn(WORKLOADS["burst"], fake, burst)
    assert "first answers within 20 ms, at worst 40 ms" in line
    assert "99 % within 20 ms, 2.00 times as before" in line
    overload = {"status": "ok", "goodput": 0.754, "capacity": 199.6}
    line = run.describe_turn(WORKLOADS["overload-2"], fake, overload)
    assert "0.75 of 200 a second answered in time" in line


@linux
def test_a_run_keeps_what_others_gave_when_one_fails(tmp_path: Path) -> None:
    servers = fake_server(), fake_server("raise SystemExit('broken')", "broken"), SERVERS["daphne"]
    found = run.carry_out(plan(*servers), FakeEnvironment(tmp_path), tmp_path)
    assert found == store.load(tmp_path)
    assert [(turn["server"], turn["round"], turn["status"]) for turn in found["turns"]] == [
        ("fake", 0, "ok"),
        ("broken", 0, "failed"),
        ("daphne", 0, "missing"),
        ("fake", 1, "ok"),
        ("broken", 1, "failed"),
    ]


@linux
@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_its_results(tmp_path: Path, interrupt: signal.Signals) -> None:
    before = set(accounting.tree_pids(os.getpid()))
    interrupter = fake_server(f"import os; os.kill({os.getpid()}, {int(interrupt)}); input()", "interrupter")
    assert threading.current_thread() is threading.main_thread()
    found = run.carry_out(plan(fake_server(), interrupter), FakeEnvironment(tmp_path), tmp_path)
    assert found["interrupted"]
    assert [turn["status"] for turn in store.load(tmp_path)["turns"]] == ["ok"]
    assert set(accounting.tree_pids(os.getpid())) <= before
    assert "interrupted" in summary.build_summary(found)


@linux
def test_a_run_whose_output_nobody_reads_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(run, "print", broken, raising=False)
    with pytest.raises(BrokenPipeError):
        run.carry_out(plan(fake_server()), FakeEnvironment(tmp_path), tmp_path)
    found = store.load(tmp_path)
    assert [turn["status"] for turn in found["turns"]] == ["ok"]
    assert found["interrupted"]
