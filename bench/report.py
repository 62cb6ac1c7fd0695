"""The report of a run: one HTML page without outside assets, and the README's chart."""

import statistics
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from bench import results as store
from bench.charts import Bar, bars, curves, format_number, format_time, picture
from bench.figures import Figure, Ratio, Spread, figure_of, is_told, paired, ratio_of_pairs

OURS = "fastasgi"
# Stands for a ratio of rates that the load fixed.
FIXED = "—"
# Whom ratios are against, and by which servers: the first of them that took part in the workload.
REFERENCES = {"uvicorn": ("uvicorn",), "Node": ("node", "node-cluster")}
CHART_WORKLOAD = "hello"
LIMITS = {
    "server": "the server used up its cores",
    "generator": "a load generator used up its core, or was late: the server could do more",
    "shared core": "server and generator share a core, or two threads of one: the server could do more",
    "other processes": "other processes took the rest of a core: the server could do more",
    "database": "PostgreSQL used up its core: the server could do more",
    "rate": "the load has a fixed rate, which was kept up: that says nothing of the server's own",
    "waiting": "no core was used up: the latency of each answer counts",
}


def write(folder: Path) -> Path:
    """Make report.html, and chart.svg where there are figures for it, from the folder's results.json."""
    results = store.load(folder)
    page = folder / "report.html"
    store.write_whole(page, build_page(results))
    chart = build_chart(results)
    if chart:
        store.write_whole(folder / "chart.svg", chart)
    return page


def build_page(results: dict[str, Any]) -> str:
    """The whole page."""
    sections: dict[str, list[str]] = {}
    for name, work in results["workloads"].items():
        sections.setdefault(work["section"], []).append(_workload_card(results, name, work))
    parts = [
        f'<h2 id="{_anchor(section)}">{escape(section)}</h2>{"".join(cards)}'
        for section, cards in sections.items()
    ]
    links = "".join(f'<a href="#{_anchor(section)}">{escape(section)}</a>' for section in sections)
    style = (Path(__file__).parent / "report.css").read_text()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastasgi: servers compared, {escape(results["machine"]["date"][:10])}</title>
<style>
{style}</style>
</head>
<body>
<main>
{_head(results)}
<nav>{links}<a href="#settings">Settings</a></nav>
{_ratio_table(results)}
{"".join(parts)}
{_settings(results)}
</main>
</body>
</html>
"""


def _anchor(section: str) -> str:
    return section.lower().replace(" ", "-")


def _head(results: dict[str, Any]) -> str:
    machine, settings = results["machine"], results["settings"]
    commit = machine["commit"][:10]
    if machine["changed"] and commit != "unknown":
        commit += " and changes that are not committed"
    facts = {
        "Machine": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        "System": f"{machine['system']}, {machine['architecture']}, CPython {machine['python']}",
        "fastasgi": f"commit {commit}",
        "Each turn": f"{settings['seconds']:g} s after {settings['warmup_s']:g} s of warm-up, "
        f"{settings['rounds']} round{'s' if settings['rounds'] > 1 else ''}",
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    warnings = [escape(note) for note in results["notes"]]
    if results["interrupted"]:
        warnings.insert(0, "The run was interrupted: what follows is what it had measured.")
    if settings["rounds"] < 3:
        warnings.append("Fewer than three rounds: a quick look, and no comparison to quote.")
    turns = [turn for turn in results["turns"] if "limit" in turn]
    disturbed = sum(turn["limit"] == "other processes" for turn in turns)
    if disturbed > len(turns) / 10:
        warnings.append(
            f"Other processes took part of the cores in {disturbed} "
            f"of {len(turns)} turns: compare CPU time, not rates."
        )
    shown = "".join(f'<p class="warning">{text}</p>' for text in warnings)
    return (
        f'<header><h1>Python web servers, measured</h1><p class="soft">{escape(machine["date"][:10])} · '
        f"load by locust</p>{shown}<dl class='facts'>{listed}</dl></header>"
    )


def _figure(results: dict[str, Any], workload: str, server: str) -> Figure | None:
    turns = [turn for turn in store.good_turns(results, workload, server) if "rate" in turn]
    return figure_of(turns) if turns else None


def _style(server: str) -> str:
    return "ours" if OURS in server else "floor" if server == "floor" else ""


def _workload_card(results: dict[str, Any], name: str, work: dict[str, Any]) -> str:
    charts = {"start": _start_charts, "idle": _memory_charts}.get(work["kind"], _rate_charts)(
        results, name, work
    )
    return (
        f'<section class="card" id="w-{name}"><h3>{escape(work["title"])}</h3>'
        f'<p class="note">{_cores_note(work)}</p>'
        f"{charts}{_step_table(results, name)}{_left_out(results, name)}</section>"
    )


def _cores_note(work: dict[str, Any]) -> str:
    if not work.get("cores"):
        return ""
    server, generators, database = (set(work["cores"][who]) for who in ("server", "generators", "database"))
    parts = [f"server on {_core_list(server)}", f"load from {_core_list(generators)}"]
    if server & generators:
        parts[-1] += ", shared with the server"
    if database:
        parts.append(f"database on {_core_list(database)}")
        if database & (server | generators):
            parts[-1] += ", shared"
    return "; ".join(parts)


def _shares_cores(results: dict[str, Any]) -> bool:
    """Whether some workload's server had a core together with the load."""
    cores = [work["cores"] for work in results["workloads"].values() if work.get("cores")]
    return any(set(one["server"]) & set(one["generators"]) for one in cores)


def _core_list(numbers: set[int]) -> str:
    return f"core{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}"


def _rate_charts(results: dict[str, Any], name: str, work: dict[str, Any]) -> str:
    found = {server: _figure(results, name, server) for server in results["servers"]}
    figures = {server: figure for server, figure in found.items() if figure}
    if not figures:
        return ""
    title = {server: results["servers"][server]["title"] for server in figures}
    if work["kind"] == "rated":
        lines = [
            (title[server], figure.latencies) for server, figure in figures.items() if figure.latencies.counts
        ]
        return curves(lines, "latency from the planned start of each request") + _latency_table(
            figures, title
        )
    rates = [
        Bar(
            title[server],
            figure.rate,
            ("≥ " if figure.is_lower_bound else "") + format_number(figure.rate.median),
            _style(server) + (" bound" if figure.is_lower_bound else ""),
            hint=_describe(figure),
        )
        for server, figure in figures.items()
    ]
    costs = [
        Bar(
            title[server],
            figure.cpu_us,
            f"{format_number(figure.cpu_us.median)} µs",
            _style(server),
            # Both parts are medians of their own, and are scaled to the median of the sum.
            figure.cpu_us.median * figure.user_us / max(figure.user_us + figure.system_us, 1e-9),
            f"user {figure.user_us:.1f} µs, kernel {figure.system_us:.1f} µs",
        )
        for server, figure in figures.items()
    ]
    fixed = all(figure.has_fixed_rate for figure in figures.values())
    better = "as many as the load asks for" if fixed else "more is better"
    charts = bars(rates, f"{work['unit']} a second: {better}") + bars(
        costs, "CPU time for each, user and (lighter) kernel: less is better"
    )
    limits = sorted({figure.limits[0] for figure in figures.values()}, key=list(LIMITS).index)
    told = "; ".join(
        f"{escape(', '.join(title[server] for server in figures if figures[server].limits[0] == limit))}: "
        f"{LIMITS[limit]}"
        for limit in limits
        if limit != "server"
    )
    return f'<div class="pair">{charts}</div>' + (f'<p class="note">{told}.</p>' if told else "")


def _describe(figure: Figure) -> str:
    text = f"server {figure.server_busy:.0%} busy, generator {figure.generator_busy:.0%} busy; "
    text += LIMITS[figure.limits[0]]
    for share, words in ((0.5, "half"), (0.99, "99 %")):
        if is_told(share, figure.latencies.total):
            text += f"; {words} answered within {format_time(figure.latencies.quantile(share))}"
    return text + (f"; {figure.failures} failures" if figure.failures else "")


def _latency_table(figures: dict[str, Figure], title: dict[str, str]) -> str:
    shares = (0.5, 0.9, 0.99, 0.999)
    rows = []
    for server, figure in figures.items():
        cells = "".join(
            f"<td>{format_time(figure.latencies.quantile(share))}</td>"
            if is_told(share, figure.latencies.total)
            else "<td></td>"
            for share in shares
        )
        late = "<small>the generator was late</small>" if figure.limits[0] == "generator" else ""
        rate, cost = format_number(figure.rate.median), format_number(figure.cpu_us.median)
        rows.append(
            f"<tr><td>{escape(title[server])}{late}</td>{cells}<td>{rate}</td><td>{cost} µs</td></tr>"
        )
    head = "".join(f"<th>{100 * share:g} %</th>" for share in shares)
    return _table(f"<tr><th>within</th>{head}<th>requests/s</th><th>CPU each</th></tr>", rows, 6)


def _table(head: str, rows: list[str], columns: int) -> str:
    """A table of figures with so many columns behind the first, which stands above them on narrow pages."""
    return (
        f'<div class="scroll"><table class="figures" style="--columns:{columns}"><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _step_table(results: dict[str, Any], name: str) -> str:
    """Of the steps that the workload's users take, how long each took; empty where that wasn't kept."""
    turns = {
        server: [turn["steps"] for turn in store.good_turns(results, name, server) if turn.get("steps")]
        for server in results["servers"]
    }
    steps = list(dict.fromkeys(step for kept in turns.values() for one in kept for step in one))
    if not steps:
        return ""
    rows = [
        f"<tr><td>{escape(results['servers'][server]['title'])}</td>"
        f"{''.join(f'<td>{_step_cell(kept, step)}</td>' for step in steps)}</tr>"
        for server, kept in turns.items()
        if kept
    ]
    head = "".join(f"<th>{escape(step)}</th>" for step in steps)
    return (
        '<p class="note steps">Each step: half of the answers came within the first time, 99 % within the '
        "second (medians of the rounds)</p>" + _table(f"<tr><th></th>{head}</tr>", rows, len(steps))
    )


def _step_cell(kept: list[dict[str, Any]], step: str) -> str:
    found = [steps[step] for steps in kept if step in steps]
    cell = ""
    for share, key in ((0.5, "median_s"), (0.99, "p99_s")):
        values = [one[key] for one in found if is_told(share, one["count"])]
        if values:
            shown = format_time(statistics.median(values))
            cell += f"<small>{shown}</small>" if cell else shown
    failures = sum(one["failures"] for one in found)
    return cell + (f"<small>{failures} failed</small>" if failures else "")


def _value_bars(
    results: dict[str, Any], name: str, key: str, scale: float, text: Callable[[float], str], caption: str
) -> str:
    chart = []
    for server, described in results["servers"].items():
        values = [turn[key] * scale for turn in store.good_turns(results, name, server)]
        if values:
            spread = Spread.of(values)
            chart.append(Bar(described["title"], spread, text(spread.median), _style(server)))
    return bars(chart, caption) if chart else ""


def _start_charts(results: dict[str, Any], name: str, work: dict[str, Any]) -> str:
    times = _value_bars(
        results, name, "startup_s", 1e3, lambda value: f"{value:.0f} ms", "milliseconds: less is better"
    )
    memory = _value_bars(
        results, name, "memory_mib", 1, lambda value: f"{value:.0f} MiB", "memory after the first answer, MiB"
    )
    return f'<div class="pair">{times}{memory}</div>'


def _memory_charts(results: dict[str, Any], name: str, work: dict[str, Any]) -> str:
    each = _value_bars(
        results,
        name,
        "connection_kib",
        1,
        lambda value: f"{value:.1f} KiB",
        "KiB for each connection: less is better",
    )
    whole = _value_bars(
        results, name, "memory_mib", 1, lambda value: f"{value:.0f} MiB", "the whole server with them, MiB"
    )
    return f'<div class="pair">{each}{whole}</div>'


def _left_out(results: dict[str, Any], name: str) -> str:
    """Which servers have no figure here, or fewer turns than the others, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for server, described in results["servers"].items():
        for turn in store.turns_of(results, name, server):
            if turn["status"] != "ok":
                servers = reasons.setdefault((turn["status"], turn["reason"]), [])
                if described["title"] not in servers:
                    servers.append(described["title"])
    rows = [
        f'<li class="{status}"><b>{escape(", ".join(servers))}</b>: '
        f"{escape(('failed: ' if status == 'failed' else '') + reason)}</li>"
        for (status, reason), servers in reasons.items()
    ]
    return f'<ul class="out">{"".join(rows)}</ul>' if rows else ""


def _ratio_table(results: dict[str, Any]) -> str:
    references = {
        title: present
        for title, servers in REFERENCES.items()
        if (present := [server for server in servers if server in results["servers"]])
    }
    if OURS not in results["servers"]:
        return ""
    rows = []
    for name, work in results["workloads"].items():
        if work["kind"] in ("start", "idle", "rated"):
            continue
        cells = []
        for servers in references.values():
            reference = next((one for one in servers if store.turns_of(results, name, one)), servers[0])
            cells += [_ratio_cell(results, name, reference, measure) for measure in ("rate", "per_cpu")]
        if any(cells):
            inner = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.append(f'<tr><td><a href="#w-{name}">{escape(work["title"])}</a></td>{inner}</tr>')
    if not rows:
        return ""
    groups = "".join(f'<th colspan="2">÷ {escape(title)}</th>' for title in references)
    measures = "<th>rate</th><th>per CPU second</th>" * len(references)
    head = f"<tr><th></th>{groups}</tr><tr><th></th>{measures}</tr>"
    cluster = "node" in results["servers"] and "node-cluster" in results["servers"]
    return (
        f'<h2 id="ratios">fastasgi against {escape(" and ".join(references))}</h2>'
        f'<div class="card"><p class="note">{_ratio_legend("".join(rows), cluster)}</p>'
        f"{_table(head, rows, 2 * len(references))}</div>"
    )


def _ratio_legend(rows: str, cluster: bool) -> str:
    """What the figures mean, and of the marks those that stand there."""
    marks = {
        "<small>": "Below each the interval that holds the true ratio with 95 % confidence, from the rounds; "
        "a colour says that the true ratio isn't 1.",
        "≥": "≥: fastasgi was held back by something else than itself.",
        "≤": "≤: the other was held back by something else than itself.",
        "?": "?: both were held back by something else than themselves.",
        FIXED: f"{FIXED}: the load fixed the rate.",
    }
    legend = [
        text for mark, text in marks.items() if f">{mark}" in rows or (mark == "<small>" and mark in rows)
    ]
    if cluster:
        legend.append("With 2 workers Node is its cluster module.")
    return " ".join(
        [
            "fastasgi's figure divided by the other's: above 1, fastasgi does more.",
            *legend,
            "Requests per CPU second hold whatever limited the rate.",
        ]
    )


def _ratio_cell(results: dict[str, Any], name: str, reference: str, measure: str) -> str:
    pairs = paired(results, name, OURS, reference, measure)
    figures = [_figure(results, name, server) for server in (OURS, reference)]
    if not pairs:
        return ""
    ratio = ratio_of_pairs(pairs)
    mark = ""
    if measure == "rate":
        if any(figure is not None and figure.has_fixed_rate for figure in figures):
            return f"<span>{FIXED}</span>"
        ours, theirs = (figure is not None and figure.is_lower_bound for figure in figures)
        mark = {(True, False): "≥ ", (False, True): "≤ ", (True, True): "? "}.get((ours, theirs), "")
    # Where one was held back, the true ratio may lie on the other side of 1.
    colour = ""
    if ratio.certain and ratio.value > 1 and mark in ("", "≥ "):
        colour = "up"
    elif ratio.certain and ratio.value < 1 and mark in ("", "≤ "):
        colour = "down"
    return f'<span class="{colour}">{mark}{ratio.value:.2f}</span>{_interval(ratio)}'


def _interval(ratio: Ratio) -> str:
    # From two rounds it is so wide that it says nothing.
    return (
        "" if ratio.low is None or ratio.pairs < 3 else f"<small>{ratio.low:.2f} to {ratio.high:.2f}</small>"
    )


def _settings(results: dict[str, Any]) -> str:
    versions = results["versions"]
    rows = "".join(
        f"<tr><td>{escape(described['title'])}</td><td>{escape(described['settings'])}</td>"
        f"<td>{escape(described.get('versions', ''))}</td></tr>"
        for described in results["servers"].values()
    )
    others = ", ".join(
        f"{name} {versions[name]}"
        for name in ("locust", "gevent", "starlette", "fastapi", "asyncpg", "postgresql")
        if name in versions
    )
    cores = ", on cores that the load doesn't use"
    if _shares_cores(results):
        cores += " as far as there are enough: where they are shared, the workload says so"
    return f"""<h2 id="settings">Settings</h2>
<div class="card"><div class="scroll"><table class="text">
<thead><tr><th>server</th><th>settings</th><th>versions</th></tr></thead><tbody>{rows}</tbody></table></div></div>
<div class="card"><h3>How it is measured</h3>
<p>Each server is started for each turn{cores}, and stopped after it; the servers take turns, so that what
slows the machine slows all of them. The load comes from locust in processes of its own: users with raw
connections and prebuilt requests, since locust's own HTTP client would be the bottleneck; where that client
is used, the workload says so. Bars are the median of the rounds, whiskers the least and the greatest.</p>
<p>CPU time is the kernel's account of the server's processes, children included. It holds even where the
server is not the bottleneck, so look at it first. A hatched bar, and ≥, is a lower bound: a generator, the
database, a shared core or other processes held the server back. With few connections, or a fixed rate, the
rate is the load's more than the server's. All servers have their access log off, and keep-alive long enough
for the turn.</p>
<p>At a fixed rate latency counts from the moment at which a request was planned, not from when it was sent:
a stall shows in every request that it held up.</p>
<p class="note">{escape(others)}</p></div>"""


def build_chart(results: dict[str, Any]) -> str:
    """The README's chart, or an empty text where there is nothing to show."""
    rates, costs, bounds = [], [], False
    for server, described in results["servers"].items():
        figure = _figure(results, CHART_WORKLOAD, server)
        if figure:
            bounds = bounds or figure.is_lower_bound
            mark = "≥ " if figure.is_lower_bound else ""
            rate, cost = format_number(figure.rate.median), format_number(figure.cpu_us.median)
            rates.append(Bar(described["title"], figure.rate, f"{mark}{rate}", _style(server)))
            costs.append(Bar(described["title"], figure.cpu_us, f"{cost} µs", _style(server)))
    if not rates:
        return ""
    machine = results["machine"]
    return picture(
        [("requests a second: more is better", rates), ("CPU time of each: less is better", costs)],
        results["workloads"][CHART_WORKLOAD]["title"],
        f"{machine['processor']}, {machine['cores']} cores, one worker each; {machine['date'][:10]}",
        "≥: something else than the server was used up; its CPU time holds all the same." if bounds else "",
    )
