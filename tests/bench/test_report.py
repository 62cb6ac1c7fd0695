"""The report of a run."""

import re
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from benchparts import good_turn, results_of

from bench import report
from bench import results as store
from bench.command import main
from bench.machine import Cores


def full_results() -> dict[str, Any]:
    turns = []
    for number in range(3):
        turns += [
            good_turn("fastasgi", 3000 + 10 * number, number),
            good_turn("uvicorn", 1000 + 5 * number, number),
        ]
        turns += [good_turn("floor", 9000, number, limit="generator")]
        turns += [good_turn(name, 1000, number, "rate-1000", limit="rate") for name in ("fastasgi", "node")]
        for name in ("fastasgi", "uvicorn"):
            turns.append(
                {"workload": "idle", "server": name, "round": number, "status": "ok"}
                | {"memory_mib": 50 + number, "resting_mib": 20, "connection_kib": 3.0 + number}
            )
            turns.append(
                {"workload": "start", "server": name, "round": number, "status": "ok"}
                | {"startup_s": 0.1 + number / 100, "memory_mib": 20.0, "cpu_s": 0.1}
            )
    turns.append(
        {
            "workload": "ws-echo",
            "server": "node",
            "round": 0,
            "status": "failed",
            "reason": "<b>boom</b> & bang",
        }
    )
    return results_of(*turns)


class Checker(HTMLParser):
    """Sees to it that tags are closed in order, and notes what would be loaded from elsewhere."""

    VOID = frozenset({"meta", "br", "hr", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attributes if name in ("src", "srcset", "data")]
        self.loads += [
            value or "" for name, value in attributes if name == "href" and not (value or "").startswith("#")
        ]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(results: dict[str, Any]) -> str:
    page = report.build_page(results)
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert checker.loads == []
    # A brace behind the style sheet is a text that was meant to be filled in.
    assert "{" not in checker.text[checker.text.index("Python web servers") :]
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"\b(nan|inf|None)\b", checker.text)
    return checker.text


def test_the_report_is_one_page_that_loads_nothing() -> None:
    text = check_page(full_results())
    assert "<Chip> & Co" in text
    assert "failed: <b>boom</b> & bang" in text
    assert "≥ 9\u202f000" in text
    assert "C epoll floor: a load generator used up its core, or was late: the server could do more." in text
    # 3000 to 1000, 3010 to 1005, 3020 to 1010.
    assert "3.002.98 to 3.01" in text
    assert "5.0 KiB" not in text
    assert "4.00 KiB" not in text
    assert "4.0 KiB" in text


def ratio_rows(results: dict[str, Any]) -> dict[str, list[str]]:
    """The cells of the ratio table, without their intervals, by the workload's title."""
    rows = re.findall(r"<tr><td><a [^>]*>(.*?)</a></td>(.*?)</tr>", report._ratio_table(results))
    cells = {title: re.findall("<td>(.*?)</td>", rest) for title, rest in rows}
    return {
        title: [re.sub("<small>.*?</small>|<.*?>", "", cell) for cell in row] for title, row in cells.items()
    }


def test_what_the_load_fixes_has_no_ratio_of_rates() -> None:
    turns = []
    for number in range(3):
        turns += [good_turn("fastasgi", 5000, number, "events", limit="rate", user_us=100.0, system_us=0.0)]
        turns += [good_turn("uvicorn", 5000, number, "events", limit="rate", user_us=250.0, system_us=0.0)]
    results = results_of(*turns)
    assert list(ratio_rows(results).values()) == [["—", "2.50", "", ""]]
    text = check_page(results)
    assert "—: the load fixed the rate" in text
    assert "events a second: as many as the load asks for" in text


def test_a_figure_that_the_database_held_back_is_a_lower_bound() -> None:
    turns = [
        good_turn(server, rate, number, limit=limit)
        for number in range(3)
        for server, rate, limit in (("fastasgi", 3000, "database"), ("uvicorn", 1000, "server"))
    ]
    results = results_of(*turns)
    assert next(iter(ratio_rows(results).values()))[0] == "≥ 3.00"
    text = check_page(results)
    assert "≥ 3\u202f000" in text
    assert "PostgreSQL used up its core: the server could do more." in text


@pytest.mark.parametrize(
    ("ours", "theirs", "rates", "cell"),
    [
        ("server", "server", (3000, 1000), '<span class="up">3.00'),
        ("generator", "server", (3000, 1000), '<span class="up">≥ 3.00'),
        ("server", "generator", (3000, 1000), '<span class="">≤ 3.00'),
        ("server", "generator", (500, 1000), '<span class="down">≤ 0.50'),
        ("generator", "server", (500, 1000), '<span class="">≥ 0.50'),
        ("generator", "generator", (3000, 1000), '<span class="">? 3.00'),
    ],
)
def test_a_ratio_has_a_colour_only_where_its_side_of_1_is_known(
    ours: str, theirs: str, rates: tuple[float, float], cell: str
) -> None:
    turns = []
    for number in range(3):
        turns += [good_turn("fastasgi", rates[0], number, limit=ours)]
        turns += [good_turn("uvicorn", rates[1], number, limit=theirs)]
    assert cell in report._ratio_table(results_of(*turns))


def test_nodes_cluster_stands_for_node_with_two_workers() -> None:
    turns = []
    for workload, server in (("hello", "node"), ("workers-2", "node-cluster")):
        turns += [good_turn("fastasgi", 3000, 0, workload), good_turn(server, 1500, 0, workload)]
    results = results_of(*turns)
    results["servers"]["node-cluster"] = {"title": "Node cluster", "settings": "x"}
    assert [row[2] for row in ratio_rows(results).values()] == ["2.00", "2.00"]
    assert "With 2 workers Node is its cluster module." in check_page(results)


def test_the_legend_names_only_what_is_in_the_table() -> None:
    turns = [good_turn("fastasgi", 3000), good_turn("uvicorn", 1000)]
    legend = check_page(results_of(*turns))
    for absent in ("interval", "≥:", "≤:", "?:", "—:", "cluster module"):
        assert absent not in legend
    assert "the interval that holds the true ratio" in check_page(full_results())


def test_a_commit_that_is_unknown_has_no_changes() -> None:
    results = results_of()
    results["machine"] |= {"commit": "unknown", "changed": True}
    assert "changes" not in check_page(results)
    results["machine"]["commit"] = "0123456789abcdef"
    assert "commit 0123456789 and changes that are not committed" in check_page(results)


def test_a_quantile_needs_ten_answers_beyond_it() -> None:
    # 1500 answers: 99 % leaves 15, 99.9 % one.
    turns = [good_turn("fastasgi", 1000, 0, "rate-1000", latencies=[[300, 1500]])]
    page = report.build_page(results_of(*turns))
    (row,) = re.findall("<tr><td>fastasgi</td>(.*?)</tr>", page.split('id="settings"')[0])
    assert [bool(cell) for cell in re.findall("<td>(.*?)</td>", row)[:4]] == [True, True, True, False]
    # The axis ends where the last curve does.
    ticks = re.findall('text-anchor="middle">([0-9.]+)</text>', page)
    assert ticks == ["0", "50", "90", "99"]


def test_shared_cores_are_told_and_no_others() -> None:
    results = results_of(good_turn("fastasgi", 1000))
    work = results["workloads"]["hello"]
    work["cores"] = Cores((0,), (1,), (1,)).as_json()
    text = check_page(results)
    assert "server on core 0; load from core 1; database on core 1, shared" in text
    assert "on cores that the load doesn't use, and stopped" in text
    work["cores"] = Cores((0, 1), (1,), ()).as_json()
    text = check_page(results)
    assert "server on cores 0, 1; load from core 1, shared with the server" in text
    assert "as far as there are enough" in text


def test_the_steps_of_a_mixed_workload_are_shown() -> None:
    def steps(p50_s: float) -> dict[str, Any]:
        logins = {"count": 2000, "failures": 0, "median_s": p50_s, "p95_s": 0.02, "p99_s": 0.03}
        return {"<log in>": logins, "rare": logins | {"count": 100, "failures": 2}}

    turns = [
        good_turn("fastasgi", 1000, number, "mixed", steps=steps(p50_s))
        for number, p50_s in enumerate((0.001, 0.009, 0.002))
    ]
    results = results_of(*turns, good_turn("uvicorn", 500, 0, "mixed"))
    check_page(results)
    table = report._step_table(results, "mixed")
    assert "<th>&lt;log in&gt;</th><th>rare</th>" in table
    assert re.findall("<tr><td>.*?</tr>", table) == [
        "<tr><td>fastasgi</td><td>2 ms<small>30 ms</small></td><td>2 ms<small>6 failed</small></td></tr>"
    ]
    assert report._step_table(results_of(good_turn("fastasgi", 1000)), "hello") == ""


def test_a_report_of_nothing_but_failures_can_be_made() -> None:
    turns = [
        {"workload": name, "server": "fastasgi", "round": 0, "status": "failed", "reason": "no luck"}
        for name in ("hello", "idle", "start", "rate-1000", "events")
    ]
    results = results_of(*turns, rounds=1, interrupted=True)
    text = check_page(results)
    assert text.count("failed: no luck") == 5
    assert "was interrupted" in text
    assert "Fewer than three rounds" in text
    assert report.build_chart(results) == ""
    check_page(results_of())


def test_a_server_without_cpu_time_does_not_break_the_report() -> None:
    turns = [
        good_turn(name, 100, number, user_us=0.0, system_us=0.0)
        for name in ("fastasgi", "uvicorn")
        for number in range(3)
    ]
    check_page(results_of(*turns))


def test_the_readmes_chart_is_svg_with_every_server(tmp_path: Path) -> None:
    store.save(tmp_path, full_results())
    assert report.write(tmp_path) == tmp_path / "report.html"
    root = xml.etree.ElementTree.parse(tmp_path / "chart.svg").getroot()
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word in ("fastasgi", "uvicorn", "C epoll floor")] == [
        "fastasgi",
        "uvicorn",
        "C epoll floor",
    ]
    texts = " ".join(words)
    # Rate and CPU time of each, of whom and when.
    assert "≥ 9\u202f000" in texts
    assert texts.count(" µs") == 3
    assert "<Chip> & Co, 2 cores, one worker each; 2026-11-21" in texts
    assert "≥: something else than the server was used up" in texts


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    store.save(tmp_path, results_of(format=99))
    with pytest.raises(ValueError, match="format 99"):
        store.load(tmp_path)
    assert main(["report", str(tmp_path)]) == 1
