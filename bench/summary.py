"""What is kept of a run in the repository: a summary in Markdown, and the README's chart.

The summary says everything by which a reader can check a figure: versions, machine, settings, the figures of
each server at each workload with their spread, what limited them, and what failed.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import results as store
from bench.chart import Bar, picture
from bench.figures import Figure, Ratio, Spread, figure_of, is_told, paired, ratio_of_pairs
from bench.turn import LIMITS

# What a summary may take in the repository.
MAX_BYTES = 50_000
OURS = "fastasgi"
# By server, the heading of the ratios against it.
REFERENCES = {"uvicorn": "uvicorn", "node": "Node"}
CHART_WORKLOAD = "hello"
SHARES = (0.5, 0.9, 0.99, 0.999)
# Stands for a ratio of rates that the load fixed.
FIXED = "—"
# Of the kinds of workload without a rate, the columns: heading, key of a turn's value, its scale, decimals.
VALUES = {
    "burst": (
        ("ms to the first answer, median", "median_s", 1e3, 1),
        ("90 % within", "p90_s", 1e3, 1),
        ("worst", "worst_s", 1e3, 1),
        ("standing ones before, 99 % within, ms", "standing_before_s", 1e3, 1),
        ("during", "standing_during_s", 1e3, 1),
        ("ratio", "standing_ratio", 1, 2),
        ("generator busy, %", "generator_busy", 100, 0),
    ),
    "overload": (
        ("share of capacity answered within 1 s", "goodput", 1, 2),
        ("99 % of answers within, ms", "answered_p99_s", 1e3, 0),
        ("capacity/s", "capacity", 1, 0),
        ("refused", "refused", 1, 0),
        ("connections", "opened", 1, 0),
        ("lost", "lost", 1, 0),
        ("generator late, 99 % within, ms", "lateness_p99_s", 1e3, 1),
    ),
    "start": (("ms to the first answer", "startup_s", 1e3, 0), ("MiB then", "memory_mib", 1, 0)),
    "idle": (("KiB a connection", "connection_kib", 1, 1), ("MiB in all", "memory_mib", 1, 0)),
}


def write(folder: Path) -> Path:
    """Make summary.md, and chart.svg if there are figures for it, from the folder's results.json."""
    results = store.load(folder)
    path = folder / "summary.md"
    store.write_whole(path, build_summary(results))
    if chart := build_chart(results):
        store.write_whole(folder / "chart.svg", chart)
    return path


def build_summary(results: dict[str, Any]) -> str:
    """The whole summary."""
    sections = [_head(results), _ratios(results)]
    sections += [_workload(results, name, work) for name, work in results["workloads"].items()]
    sections += [_limits(results), _settings(results)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(results: dict[str, Any]) -> str:
    machine, settings = results["machine"], results["settings"]
    commit = machine["commit"][:10]
    if machine["changed"] and commit != "unknown":
        commit += " and changes that are not committed"
    rounds = f"{settings['rounds']} round{'s' if settings['rounds'] > 1 else ''}"
    lines = [
        f"# Servers compared, {machine['date'][:10]}",
        "",
        "A run of fastasgi's bench, whose README says how it measures.",
        "",
        f"- Machine: {_text(machine['processor'])}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        f"- System: {machine['system']}, {machine['architecture']}, CPython {machine['python']}",
        f"- fastasgi: commit {commit}",
        f"- Each turn: {settings['seconds']:g} s after {settings['warmup_s']:g} s of warm-up, {rounds}",
    ]
    warnings = _warnings(results)
    return "\n".join(lines + ([""] if warnings else []) + [f"> {text}" for text in warnings])


def _warnings(results: dict[str, Any]) -> list[str]:
    """What keeps figures of this run from being quoted."""
    warnings = [_text(note) for note in results["notes"]]
    if results["interrupted"]:
        warnings.insert(0, "The run was interrupted: what follows is what it had measured.")
    if results["settings"]["rounds"] < 3:
        warnings.append("Fewer than three rounds: a quick look, and no comparison to quote.")
    turns = [turn for turn in results["turns"] if "limit" in turn]
    disturbed = sum(turn["limit"] == "other processes" for turn in turns)
    if disturbed > len(turns) / 10:
        warnings.append(
            f"Other processes took part of the cores in {disturbed} of {len(turns)} turns: compare CPU time, "
            "not rates."
        )
    return warnings


def _text(text: str) -> str:
    """Text of others, so that it is no markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column has the names and whose others have figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figure(results: dict[str, Any], workload: str, server: str) -> Figure | None:
    turns = [turn for turn in store.good_turns(results, workload, server) if "rate" in turn]
    return figure_of(turns) if turns else None


def _ratios(results: dict[str, Any]) -> str:
    """fastasgi's figures divided by the references'."""
    references = [name for name in REFERENCES if name in results["servers"]]
    if OURS not in results["servers"]:
        return ""
    rows = []
    for name, work in results["workloads"].items():
        if work["kind"] not in VALUES:
            cells = [_ratio(results, name, one, what) for one in references for what in ("rate", "per_cpu")]
            if any(cells):
                rows.append([_text(work["title"]), *cells])
    if not rows:
        return ""
    titles = [REFERENCES[name] for name in references]
    head = [""]
    for title in titles:
        head += [f"rate ÷ {title}'s", f"per CPU second ÷ {title}'s"]
    table = _table(head, rows)
    return f"## fastasgi against {' and '.join(titles)}\n\n{_legend(table)}\n\n{table}"


def _legend(table: str) -> str:
    """What the figures of a table of ratios mean, and of the marks those that stand there."""
    marks = {
        " to ": "In parentheses is the interval that holds the true ratio with 95 % confidence, from the "
        "rounds.",
        "**": "Bold: the true ratio isn't 1.",
        "≥": "≥: fastasgi was held back by something else than itself.",
        "≤": "≤: the other was held back by something else than itself.",
        "?": "?: both were held back by something else than themselves.",
        FIXED: f"{FIXED}: the load fixed the rate.",
    }
    lines = ["Above 1, fastasgi does more.", *(text for mark, text in marks.items() if mark in table)]
    return " ".join([*lines, "Requests per CPU second hold whatever limited the rate."])


def _ratio(results: dict[str, Any], name: str, reference: str, measure: str) -> str:
    pairs = paired(results, name, OURS, reference, measure)
    if not pairs:
        return ""
    ratio, mark = ratio_of_pairs(pairs), ""
    if measure == "rate":
        figures = [_figure(results, name, server) for server in (OURS, reference)]
        if any(figure is not None and figure.has_fixed_rate for figure in figures):
            return FIXED
        ours, theirs = (figure is not None and figure.is_lower_bound for figure in figures)
        mark = {(True, False): "≥ ", (False, True): "≤ ", (True, True): "? "}.get((ours, theirs), "")
    # If one was held back, the true ratio may lie on the other side of 1.
    known = ratio.certain and mark in ("", "≥ " if ratio.value > 1 else "≤ ")
    shown = f"{mark}{ratio.value:.2f}"
    return (f"**{shown}**" if known else shown) + _interval(ratio)


def _interval(ratio: Ratio) -> str:
    # From two rounds it is so wide that it says nothing.
    return "" if ratio.low is None or ratio.pairs < 3 else f" ({ratio.low:.2f} to {ratio.high:.2f})"


def _workload(results: dict[str, Any], name: str, work: dict[str, Any]) -> str:
    if work["kind"] in VALUES:
        table = _value_table(results, name, work["kind"])
    else:
        table = _rate_table(results, name, work["unit"])
    parts = [f"## {_text(work['title'])}", _cores(work), table, _left_out(results, name)]
    return "\n\n".join(part for part in parts if part)


def _cores(work: dict[str, Any]) -> str:
    """Which cores ran what, and which of them were shared."""
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
    return f"{'; '.join(parts).capitalize()}."


def _core_list(numbers: set[int]) -> str:
    return f"core{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}"


def _rate_table(results: dict[str, Any], name: str, unit: str) -> str:
    rows = []
    for server, described in results["servers"].items():
        if figure := _figure(results, name, server):
            rate = ("≥ " if figure.is_lower_bound else "") + _spread(figure.rate)
            cells = [described["title"], rate, _spread(figure.cpu_us), format_number(figure.system_us)]
            cells += [_latency(figure, share) for share in SHARES]
            rows.append([*cells, figure.limit, str(figure.failures or "")])
    if not rows:
        return ""
    within = [f"{100 * share:g} % within" for share in SHARES]
    head = ["", f"{unit}/s", "CPU each, µs", "of it kernel", *within, "limit", "failures"]
    columns = len(head) if any(row[-1] for row in rows) else len(head) - 1
    return _table(head[:columns], [row[:columns] for row in rows])


def _latency(figure: Figure, share: float) -> str:
    """The quantile, empty if too few answers lie beyond it."""
    told = is_told(share, figure.latencies.total)
    return format_time(figure.latencies.quantile(share)) if told else ""


def _spread(spread: Spread) -> str:
    """The median, and the least and greatest value of the rounds."""
    median, low, high = map(format_number, (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} ({low} to {high})"


def _value_table(results: dict[str, Any], name: str, kind: str) -> str:
    """The medians of a workload without a rate."""
    rows = []
    for server, described in results["servers"].items():
        if turns := store.good_turns(results, name, server):
            cells = [
                f"{statistics.median(turn[key] for turn in turns) * scale:.{decimals}f}"
                for _, key, scale, decimals in VALUES[kind]
            ]
            limits = [turn["limit"] for turn in turns if "limit" in turn]
            cells += [max(limits, key=limits.count)] if limits else []
            rows.append([described["title"], *cells])
    if not rows:
        return ""
    head = ["", *(heading for heading, *_ in VALUES[kind]), "limit"]
    return _table(head[: max(map(len, rows))], rows)


def _left_out(results: dict[str, Any], name: str) -> str:
    """Which servers have no figure here, or fewer turns than the others, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for server, described in results["servers"].items():
        for turn in store.turns_of(results, name, server):
            if turn["status"] != "ok":
                servers = reasons.setdefault((turn["status"], turn["reason"]), [])
                if described["title"] not in servers:
                    servers.append(described["title"])
    return "\n".join(
        f"- {', '.join(servers)}: {'failed: ' if status == 'failed' else ''}{_text(reason)}"
        for (status, reason), servers in reasons.items()
    )


def _limits(results: dict[str, Any]) -> str:
    """What the names of limits mean, of those that occur."""
    found = {turn["limit"] for turn in results["turns"] if "limit" in turn}
    lines = [f"- {name}: {meaning}" for name, meaning in LIMITS.items() if name in found]
    return "\n".join(["## What limited a figure", "", *lines]) if lines else ""


def _settings(results: dict[str, Any]) -> str:
    versions = results["versions"]
    rows = "\n".join(
        f"| {described['title']} | {_text(described['settings'])} | {described.get('versions', '')} |"
        for described in results["servers"].values()
    )
    others = ", ".join(
        f"{name} {versions[name]}"
        for name in ("locust", "gevent", "starlette", "fastapi", "asyncpg", "postgresql")
        if name in versions
    )
    return (
        f"## Servers\n\n| server | settings | versions |\n| --- | --- | --- |\n{rows}\n\nBesides: {others}."
    )


def build_chart(results: dict[str, Any]) -> str:
    """The README's chart, or an empty text if there is nothing to show."""
    rates, costs, bounds = [], [], False
    for server, described in results["servers"].items():
        if figure := _figure(results, CHART_WORKLOAD, server):
            bounds = bounds or figure.is_lower_bound
            mark = "≥ " if figure.is_lower_bound else ""
            rate, cost = format_number(figure.rate.median), format_number(figure.cpu_us.median)
            style = "ours" if OURS in server else "floor" if server == "floor" else ""
            rates.append(Bar(described["title"], figure.rate, f"{mark}{rate}", style))
            costs.append(Bar(described["title"], figure.cpu_us, f"{cost} µs", style))
    if not rates:
        return ""
    machine = results["machine"]
    return picture(
        [("requests a second: more is better", rates), ("CPU time of each: less is better", costs)],
        results["workloads"][CHART_WORKLOAD]["title"],
        f"{machine['processor']}, {machine['cores']} cores, one worker each; {machine['date'][:10]}",
        "≥: something else than the server was used up; its CPU time holds all the same." if bounds else "",
    )


def format_number(value: float) -> str:
    """At least three digits that count, thousands apart by a thin space."""
    if value >= 99.95:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def format_time(seconds: float) -> str:
    """A time with its unit: 250 µs, 1.2 ms, 3 s."""
    for limit, scale, unit in ((1, 1, "s"), (1e-3, 1e3, "ms"), (0, 1e6, "µs")):
        if seconds >= limit * (1 - 1e-9):
            return f"{seconds * scale:.3g} {unit}"
    raise ValueError(f"{seconds} seconds")
