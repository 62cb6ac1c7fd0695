"""The summary of a run, and what of runs is in the repository."""

import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from benchparts import ROOT, full_results, good_turn, results_of

from bench import results as store
from bench import run, summary
from bench.machine import Cores
from bench.servers import SERVERS
from bench.summary import build_chart, build_summary, format_number, format_time
from bench.workloads import WORKLOADS


def check_summary(results: dict[str, Any]) -> str:
    """The summary, in which each table is one and nothing was left to be filled in."""
    text = build_summary(results)
    assert not re.search(r"[{}]|\b(nan|inf|None)\b", text)
    for block in text.split("\n\n"):
        if block.startswith("|"):
            widths = {line.replace("\\|", "").count("|") for line in block.rstrip("\n").split("\n")}
            assert len(widths) == 1
    return text


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    """The cells of the table below a heading, by what stands in the first column."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.split("\n") if line.startswith("| ")][2:]
    return {
        cells[0]: cells[1:] for cells in ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    }


def ratio_rows(results: dict[str, Any]) -> dict[str, list[str]]:
    """The cells of the table of ratios, without their intervals, by the workload's title."""
    rows = rows_of(build_summary(results), "fastasgi against uvicorn and Node")
    return {title: [re.sub(r" \(.*?\)|\*\*", "", cell) for cell in row] for title, row in rows.items()}


def test_the_summary_says_what_was_measured_and_how() -> None:
    text = check_summary(full_results())
    assert "&lt;Chip> &amp; Co, 2 cores" in text
    assert "Linux 6, x86_64, CPython 3.11.1" in text
    assert "3 rounds" in text
    assert "failed: &lt;b>boom&lt;/b> &amp; bang" in text
    assert "≥ 9\u202f000" in text
    assert "- generator: a load generator used up its core, or was late: the server could do more" in text
    # 3000 to 1000, 3010 to 1005, 3020 to 1010.
    assert "**3.00** (2.98 to 3.01)" in text
    assert "| fastasgi | 4.0 | 51 |" in text
    assert "locust 2" in text


def test_a_figure_has_its_median_and_its_spread() -> None:
    rows = rows_of(check_summary(full_results()), WORKLOADS["hello"].title)
    assert rows["fastasgi"][:3] == ["3\u202f010 (3\u202f000 to 3\u202f020)", "166 (166 to 167)", "66.4"]
    assert rows["fastasgi"][-1] == "server"
    assert rows["C epoll floor"][0] == "≥ 9\u202f000"


def test_failures_are_told_where_there_were_some() -> None:
    turns = [good_turn("fastasgi", 1000, failures={"reset": 2}), good_turn("uvicorn", 1000)]
    rows = rows_of(check_summary(results_of(*turns)), WORKLOADS["hello"].title)
    assert [row[-1] for row in rows.values()] == ["2", ""]
    assert "failures" not in check_summary(results_of(turns[1]))


def test_what_the_load_fixes_has_no_ratio_of_rates() -> None:
    turns = []
    for number in range(3):
        for server, user_us in (("fastasgi", 100.0), ("uvicorn", 250.0)):
            changes = {"limit": "rate", "user_us": user_us, "system_us": 0.0}
            turns += [good_turn(server, 1000, number, "rate-1000", **changes)]
    results = results_of(*turns)
    assert list(ratio_rows(results).values()) == [["—", "2.50", "", ""]]
    text = check_summary(results)
    assert "—: the load fixed the rate" in text
    assert "- rate: the load has a fixed rate, which was kept up" in text


def test_a_figure_that_the_database_held_back_is_a_lower_bound() -> None:
    turns = [
        good_turn(server, rate, number, limit=limit)
        for number in range(3)
        for server, rate, limit in (("fastasgi", 3000, "database"), ("uvicorn", 1000, "server"))
    ]
    results = results_of(*turns)
    assert next(iter(ratio_rows(results).values()))[0] == "≥ 3.00"
    text = check_summary(results)
    assert "≥ 3\u202f000" in text
    assert "PostgreSQL used up its core: the server could do more" in text


@pytest.mark.parametrize(
    ("ours", "theirs", "rates", "cell"),
    [
        ("server", "server", (3000, 1000), "**3.00**"),
        ("generator", "server", (3000, 1000), "**≥ 3.00**"),
        ("server", "generator", (3000, 1000), "≤ 3.00"),
        ("server", "generator", (500, 1000), "**≤ 0.50**"),
        ("generator", "server", (500, 1000), "≥ 0.50"),
        ("generator", "generator", (3000, 1000), "? 3.00"),
    ],
)
def test_a_ratio_is_bold_only_if_its_side_of_1_is_known(
    ours: str, theirs: str, rates: tuple[float, float], cell: str
) -> None:
    turns = []
    for number in range(3):
        turns += [good_turn("fastasgi", rates[0], number, limit=ours)]
        turns += [good_turn("uvicorn", rates[1], number, limit=theirs)]
    assert f"| {cell} (" in summary._ratios(results_of(*turns))


def test_the_legend_names_only_what_is_in_the_table() -> None:
    turns = [good_turn("fastasgi", 3000), good_turn("uvicorn", 1000)]
    legend = check_summary(results_of(*turns))
    for absent in ("interval", "Bold", "≥:", "≤:", "?:", "—:"):
        assert absent not in legend
    assert "the interval that holds the true ratio" in check_summary(full_results())


def test_a_commit_that_is_unknown_has_no_changes() -> None:
    results = results_of()
    results["machine"] |= {"commit": "unknown", "changed": True}
    assert "changes" not in check_summary(results)
    results["machine"]["commit"] = "0123456789abcdef"
    assert "commit 0123456789 and changes that are not committed" in check_summary(results)


def test_a_quantile_needs_ten_answers_beyond_it() -> None:
    # 1500 answers: 99 % leaves 15, 99.9 % one.
    turns = [good_turn("fastasgi", 1000, 0, "rate-1000", latencies=[[300, 1500]])]
    rows = rows_of(check_summary(results_of(*turns)), WORKLOADS["rate-1000"].title)
    assert [bool(cell) for cell in rows["fastasgi"][3:7]] == [True, True, True, False]


def test_peaks_have_tables_of_their_own_and_no_ratios() -> None:
    burst = {"median_s": 0.0201, "p90_s": 0.03, "worst_s": 0.04, "standing_before_s": 0.0111}
    burst |= {"standing_during_s": 0.0222, "standing_ratio": 2.0, "generator_busy": 0.25}
    overload = {"goodput": 0.754, "capacity": 199.6, "arrivals": 4000, "opened": 300, "lost": 2}
    overload |= {"lateness_p99_s": 0.0031, "answered_p99_s": 0.2, "refused": 1000}
    turns = []
    for name, figures in (("burst", burst), ("overload-2", overload)):
        for number in range(3):
            turn = {"workload": name, "server": "fastasgi", "round": number, "status": "ok"}
            turn["limit"] = "server" if number else "other processes"
            turns.append(turn | {key: value * (1 + number) for key, value in figures.items()})
    text = check_summary(results_of(*turns))
    # The medians are the second round's.
    rows = rows_of(text, WORKLOADS["burst"].title)
    assert rows["fastasgi"] == ["40.2", "60.0", "80.0", "22.2", "44.4", "4.00", "50", "server"]
    rows = rows_of(text, WORKLOADS["overload-2"].title)
    assert rows["fastasgi"] == ["1.51", "400", "399", "2000", "600", "4", "6.2", "server"]
    assert "fastasgi against" not in text


def test_shared_cores_are_told_and_no_others() -> None:
    results = results_of(good_turn("fastasgi", 1000))
    work = results["workloads"]["hello"]
    work["cores"] = Cores((0,), (1,), (1,)).as_json()
    assert "Server on core 0; load from core 1; database on core 1, shared." in check_summary(results)
    work["cores"] = Cores((0, 1), (1,), ()).as_json()
    assert "Server on cores 0, 1; load from core 1, shared with the server." in check_summary(results)


def test_a_summary_of_nothing_but_failures_can_be_made() -> None:
    turns = [
        {"workload": name, "server": "fastasgi", "round": 0, "status": "failed", "reason": "no luck"}
        for name in ("hello", "idle", "start", "rate-1000", "ws-echo")
    ]
    results = results_of(*turns, rounds=1, interrupted=True)
    text = check_summary(results)
    assert text.count("failed: no luck") == 5
    assert "was interrupted" in text
    assert "Fewer than three rounds" in text
    assert build_chart(results) == ""
    check_summary(results_of())


def test_a_server_without_cpu_time_does_not_break_the_summary() -> None:
    turns = [
        good_turn(name, 100, number, user_us=0.0, system_us=0.0)
        for name in ("fastasgi", "uvicorn")
        for number in range(3)
    ]
    check_summary(results_of(*turns))


def test_summary_and_chart_are_made_of_a_folder(tmp_path: Path) -> None:
    store.save(tmp_path, full_results())
    assert summary.write(tmp_path) == tmp_path / "summary.md"
    assert (tmp_path / "summary.md").read_text() == build_summary(full_results())
    xml.etree.ElementTree.parse(tmp_path / "chart.svg")


def test_a_whole_run_has_a_summary_that_can_be_committed() -> None:
    reason = "another process answers on port 12345: " + "x" * 100
    turns = []
    for name, work in WORKLOADS.items():
        for server in SERVERS.values():
            if server.takes_part(work):
                turns += [good_turn(server.name, 123456.7 + number, number, name) for number in range(3)]
        turns += [good_turn("uvicorn", 1, 3, name) | {"status": "failed", "reason": reason}]
        for turn in turns:
            turn |= {key: 1234.5 for columns in summary.VALUES.values() for _, key, *_ in columns}
    results = results_of(*turns)
    results["servers"] = {name: run._describe_server(server, {}) for name, server in SERVERS.items()}
    assert len(check_summary(results).encode()) <= summary.MAX_BYTES


def test_the_readme_shows_the_chart_and_the_summary_of_a_run() -> None:
    shown = re.findall(r"\((bench/results/[^)]*)\)", (ROOT / "README.md").read_text())
    assert {Path(path).name for path in shown} == {"summary.md", "chart.svg"}
    if not (ROOT / "bench" / "results").is_dir():
        pytest.skip("a source distribution has no results")
    for path in shown:
        assert 0 < (ROOT / path).stat().st_size <= summary.MAX_BYTES


def test_numbers_are_short_and_have_units() -> None:
    assert [format_number(x) for x in (0.5, 9.996, 99.96, 1234567)] == [
        "0.50",
        "10.0",
        "100",
        "1\u202f234\u202f567",
    ]
    assert [format_time(x) for x in (1e-6, 0.00025, 0.001, 0.0123, 1, 12.34)] == [
        "1 µs",
        "250 µs",
        "1 ms",
        "12.3 ms",
        "1 s",
        "12.3 s",
    ]
