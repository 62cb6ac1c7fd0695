"""Metrics: what Prometheus reads is what was counted. The files that we ship use what there is."""

import dataclasses
import itertools
import json
import mmap
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from fastasgi.admin import metrics
from fastasgi.admin.counts import STARTS_S, Counts, Histogram, read_counts
from fastasgi.admin.metrics import BOUNDS_S, COUNTERS, GAUGES, HISTOGRAMS, MissingExtra, exposition, folded
from fastasgi.admin.report import CertificateReport, QueueReport, Report
from fastasgi.core.counters import (
    BUCKETS,
    CLASSES,
    METHODS,
    Counters,
    memory_size,
    new_counters,
    take_row,
)
from fastasgi.core.shares import new_row

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
DOCUMENT = DEPLOY.parent / "observability.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# As Prometheus 2.42 and 3 ask
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


def program(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class Told:
    """A source of rows that a test has filled."""

    def __init__(self, rows: list[Counts], **report: Any) -> None:
        self._rows = rows
        self._report = Report(
            **{
                "at": 2.0,
                "started_at": 1.0,
                "phase": "running",
                "is_live": True,
                "live_reason": "it is",
                "is_ready": True,
                "ready_reason": "it is",
                "queues": [QueueReport("http://[::1]:80", 3, 4096)],
                "certificates": [CertificateReport(["a"], 'a"\\b\n.pem', 99.5, "broken")],
                **report,
            }
        )

    def report(self) -> Report:
        return self._report

    def counts(self) -> list[Counts]:
        return self._rows


def rows_of(count: int, slot: int = 0) -> list[Counts]:
    """The counts of so many rows: each of a slot of its own from this one on."""
    memory = mmap.mmap(-1, memory_size(count + 1))
    for number in range(count):
        row = new_row(memory, count + 1)
        assert take_row(memory, row, slot + number)
        counters = Counters(memory, row)
        counters.note_lag(0.5)
        counters.note_usage(4096, 7, 1.25, 0.5)
        counters.note_stall({"at": 1.0, "duration_s": 2.5, "is_over": True}, is_new=True)
    return read_counts(memory)


def samples(rows: list[Counts], accept: str = "", **report: Any) -> dict[tuple[str, ...], float]:
    """The values of all series, by their names and labels' values."""
    body, _ = exposition(Told(rows, **report), accept)
    found: dict[tuple[str, ...], float] = {}
    for family in (parse_openmetrics if "openmetrics" in accept else parse)(body.decode()):
        for sample in family.samples:
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.mark.parametrize("accept", ["", "text/plain", OPENMETRICS])
def test_values_are_those_that_were_counted(accept: str) -> None:
    (row,) = rows_of(1)
    row = dataclasses.replace(
        row,
        responses={
            ("1.1", "GET", "2xx"): 5,
            ("2", "POST", "5xx"): 2,
            ("ws", "GET", "1xx"): 3,
            ("ws", "GET", "4xx"): 1,
        },
        running=4,
    )
    found = samples([row], accept)
    # Labels stand in the order of their names: method, class, version, worker
    assert found["fastasgi_http_responses_total", "GET", "2xx", "1.1", "0"] == 5
    assert found["fastasgi_http_responses_total", "POST", "5xx", "2", "0"] == 2
    assert found["fastasgi_websocket_handshakes_total", "accepted", "0"] == 3
    assert found["fastasgi_websocket_handshakes_total", "denied", "0"] == 1
    assert found["fastasgi_http_active_requests", "0"] == 4
    assert found["fastasgi_event_loop_stalled_seconds_total", "0"] == 2.5
    assert found["fastasgi_process_cpu_seconds_total", "0"] == 1.25
    assert found["fastasgi_event_loop_lag_seconds_count", "0"] == 1
    assert found["fastasgi_event_loop_lag_seconds_sum", "0"] == 0.5
    assert found["fastasgi_accept_queue_length", "http://[::1]:80"] == 3
    assert found["fastasgi_certificate_expiry_timestamp_seconds", 'a"\\b\n.pem'] == 99.5
    assert found["fastasgi_certificate_renewal_failed", 'a"\\b\n.pem'] == 1
    assert found["fastasgi_ready",] == 1


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (OPENMETRICS, metrics.OPENMETRICS),
        ("Application/OpenMetrics-Text", metrics.OPENMETRICS),
        (PROMETHEUS_2, metrics.OPENMETRICS),
        (PROMETHEUS_3, metrics.OPENMETRICS),
        ("", metrics.TEXT),
        ("*/*", metrics.TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", metrics.TEXT),
        ("application/openmetrics-text;q=0.5,text/plain", metrics.TEXT),
        ("application/openmetrics-text;q=0", metrics.TEXT),
        ("application/openmetrics-text;version=0.0.1", metrics.TEXT),
        ("application/openmetrics-text;version=2.0.0", metrics.TEXT),
        ("application/openmetrics-text;version=abc", metrics.TEXT),
        ("application/openmetrics-text;q=nan,\xff;;=,", metrics.TEXT),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, kind: str) -> None:
    body, found = exposition(Told([]), accept)
    assert found == kind
    assert body.endswith(b"# EOF\n") == (kind == metrics.OPENMETRICS)


PARTS = ["application/openmetrics-text", "text/plain", "version=", "1.0.0", "q=", "0.5", ";", ",", "=", "."]


@given(st.lists(st.sampled_from(PARTS) | st.text(st.characters(max_codepoint=255))).map("".join))
def test_no_accept_field_is_a_fault(accept: str) -> None:
    assert exposition(Told([]), accept)[1] in (metrics.TEXT, metrics.OPENMETRICS)


def test_errors_are_there_before_the_first() -> None:
    (row,) = rows_of(1)
    found = samples([dataclasses.replace(row, responses={("1.1", "GET", "2xx"): 5})])
    assert found["fastasgi_http_responses_total", "GET", "5xx", "1.1", "0"] == 0
    assert found["fastasgi_worker_ends_total", "SIGKILL", "0"] == 0
    assert found["fastasgi_refusals_total", "overload", "0"] == 0


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_paths_need_not_be_utf_8(accept: str) -> None:
    file, address = os.fsdecode(b"/\xff.pem"), os.fsdecode(b"unix socket /\xfe")
    found = samples(
        [],
        accept,
        certificates=[CertificateReport([], file, 7.0)],
        queues=[QueueReport(address, 1, 2)],
    )
    assert found["fastasgi_certificate_expiry_timestamp_seconds", r"/\udcff.pem"] == 7
    assert found["fastasgi_accept_queue_limit", r"unix socket /\udcfe"] == 2


def test_rows_of_one_slot_are_one_worker() -> None:
    one, other = rows_of(1), rows_of(1)
    found = samples([*one, *other])
    assert found["fastasgi_event_loop_stalls_total", "0"] == 2
    assert ("fastasgi_event_loop_stalls_total", "1") not in found


def test_a_server_that_counts_nothing_tells_how_it_is() -> None:
    found = samples([], is_ready=False)
    assert (found["fastasgi_live",], found["fastasgi_ready",]) == (1, 0)


@given(st.lists(st.floats(min_value=1e-6, max_value=1000), max_size=50))
def test_nothing_is_lost_of_a_histogram(times: list[float]) -> None:
    counters = new_counters()
    for seconds in times:
        counters.note_lag(seconds)
    (counts,) = read_counts(counters.memory)
    buckets = folded(counts.lag)
    values = [value for _, value in buckets]
    assert values == sorted(values)
    assert buckets[-1] == ("+Inf", len(times))
    for bound, value in buckets[:-1]:
        # A time right at a bound is on either side, by the nanosecond
        assert (
            sum(t < float(bound) - 1e-8 for t in times)
            <= value
            <= sum(t < float(bound) + 1e-8 for t in times)
        )


def test_histograms_have_few_buckets_of_exact_bounds() -> None:
    assert len(folded(Histogram([0] * BUCKETS, 0.0))) <= 20
    assert set(BOUNDS_S) <= set(STARTS_S)
    assert len(set(BOUNDS_S)) == len(BOUNDS_S)


def test_series_are_bounded() -> None:
    methods, classes = METHODS, CLASSES
    every = dict.fromkeys(itertools.product(("1.0", "1.1", "2", "ws"), methods, classes), 1)
    (row,) = rows_of(1)
    assert len(samples([dataclasses.replace(row, responses=every)])) < 400
    (few,) = rows_of(1)
    alone = samples([])
    assert len(samples([few])) - len(alone) < 130, "docs/observability.md says 130 a worker"


def test_a_scrape_is_quick() -> None:
    rows = rows_of(16)
    exposition(Told(rows), "")
    began_at = time.process_time()
    for _ in range(10):
        exposition(Told(rows), "")
    assert (time.process_time() - began_at) / 10 < 0.1, "it takes 10 to 20 ms"


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CollectorRegistry", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fastasgi\[metrics\]'"):
        exposition(Told([]), "")


# --- What is shipped ---


def names() -> set[str]:
    """The names of all series that there can be."""
    found = {f"{name}_total" for name, *_ in COUNTERS} | {name for name, *_ in GAUGES}
    for name, *_ in HISTOGRAMS:
        found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return found | {key[0] for key in samples([])}


def used_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:fastasgi|http_server)_[a-z_]+", text))


def dashboard_expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana" / "fastasgi.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_shows_what_there_is() -> None:
    expressions = dashboard_expressions()
    assert len(expressions) > 20
    assert used_names(" ".join(expressions)) <= names()


def test_the_dashboard_has_no_two_panels_in_one_place() -> None:
    board = json.loads((DEPLOY / "grafana" / "fastasgi.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24, "Grafana's grid has 24 columns"


def test_promtool_understands_the_dashboard(tmp_path: Path) -> None:
    """Its expressions, as rules: JSON is YAML."""
    promtool = program("promtool")
    rules = [
        {
            "record": f"panel{number}",
            "expr": text.replace("$__rate_interval", "5m").replace("$instance", ".*"),
        }
        for number, text in enumerate(dashboard_expressions())
    ]
    assert "$" not in json.dumps(rules)
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", "rules.yml"], cwd=tmp_path, check=True, timeout=60)


def test_labels_that_are_asked_for_are_there() -> None:
    """What a selector or a sum names has to be a label of all that is shown, or Prometheus's own."""
    body, _ = exposition(Told(rows_of(1)), "")
    labels = {"job", "instance", "http_request_method", "http_response_status_class"}
    labels |= {name for family in parse(body.decode()) for sample in family.samples for name in sample.labels}
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    for text in (*dashboard_expressions(), alerts):
        asked = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", text)
        for names_in_sum in re.findall(r"\bby \(([^)]*)\)", text):
            asked += re.findall(r"\w+", names_in_sum)
        asked += re.findall(r"\$labels\.(\w+)", text)
        assert set(asked) <= labels


def test_alerts_ask_for_what_there_is() -> None:
    text = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    expressions = re.findall(r"expr: (?:>-\n)?((?:.+\n)(?: {10}.+\n)*)", text)
    assert len(expressions) == text.count("- alert:")
    assert used_names(" ".join(expressions)) <= names()


def test_each_alert_is_tested_and_explained() -> None:
    alerts = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus" / "alerts.yml").read_text())
    tests = (DEPLOY / "prometheus" / "alerts_test.yml").read_text().split("alertname: ")[1:]
    assert {test.split()[0] for test in tests if "exp_alerts" in test} == set(alerts)
    assert {test.split()[0] for test in tests if "exp_alerts" not in test} == set(alerts), "a calm time"
    assert re.findall(r"(?m)^\| `(Fastasgi\w+)` \|", DOCUMENT.read_text()) == alerts


def test_each_metric_is_in_the_documentation() -> None:
    documented = used_names(DOCUMENT.read_text())
    families = {name for name, *_ in (*COUNTERS, *GAUGES, *HISTOGRAMS)}
    assert {
        name for name in families if name not in documented and f"{name}_total" not in documented
    } == set()
    assert documented - {"fastasgi_admin"} <= names() | families


def test_promtool_takes_alerts_and_their_tests() -> None:
    promtool = program("promtool")
    for arguments in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        subprocess.run([promtool, *arguments], cwd=DEPLOY / "prometheus", check=True, timeout=60)


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    promtool = program("promtool")
    (tmp_path / "token").write_text("secret")
    for name in ("prometheus.yml", "alerts.yml"):
        text = (DEPLOY / "prometheus" / name).read_text()
        (tmp_path / name).write_text(text.replace("/etc/prometheus/fastasgi.token", str(tmp_path / "token")))
    subprocess.run([promtool, "check", "config", "prometheus.yml"], cwd=tmp_path, check=True, timeout=60)


def test_promtool_finds_no_fault_with_a_scrape() -> None:
    promtool = program("promtool")
    body, _ = exposition(Told(rows_of(2)), "")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=body, capture_output=True, check=False, timeout=60
    )
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()
