"""The charts of the report: bars in HTML, so that they follow the page's width; curves and the README's
chart in SVG.

Colours come from the page's style sheet by class, except in the README's chart, which brings its own.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.figures import Spread, is_told
from bench.histogram import Histogram


@dataclass(frozen=True)
class Bar:
    """One bar: a value with its spread, in the chart's unit."""

    label: str
    value: Spread
    text: str
    style: str = ""
    """Further classes: ours, floor, bound (the value is a lower bound)."""
    first_part: float | None = None
    """Where the bar has two parts, the value of the first."""
    hint: str = ""


def format_number(value: float) -> str:
    """At least three digits that count, thousands apart by a thin space."""
    if value >= 99.95:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def nice_ceiling(value: float) -> float:
    """The least of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten that `value` doesn't exceed."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def bars(chart: Sequence[Bar], caption: str) -> str:
    """Horizontal bars from zero, one below the other, with whiskers from the least to the greatest value."""
    top = nice_ceiling(max(bar.value.high for bar in chart))
    rows = []
    for bar in chart:
        width, low, high = (100 * value / top for value in (bar.value.median, bar.value.low, bar.value.high))
        parts = f'<i class="fill" style="width:{width:.2f}%"></i>'
        if bar.first_part is not None:
            first = 100 * bar.first_part / top
            parts = (
                f'<i class="fill" style="width:{first:.2f}%"></i>'
                f'<i class="fill second" style="left:{first:.2f}%;width:{max(width - first, 0):.2f}%"></i>'
            )
        whisker = ""
        if high - low > 0.2:
            whisker = f'<i class="whisker" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        rows.append(
            f'<div class="bar {bar.style}" title="{escape(bar.hint, quote=True)}">'
            f'<span class="name">{escape(bar.label)}</span>'
            f'<span class="track">{parts}{whisker}</span><span class="value">{bar.text}</span></div>'
        )
    ticks = "".join(
        f'<span style="left:{100 * step / 4:.0f}%">{format_tick(top * step / 4)}</span>'
        for step in range(0, 5, 2)
    )
    return (
        f'<figure class="bars"><figcaption>{escape(caption)}</figcaption>{"".join(rows)}'
        f'<div class="bar axis"><span class="name"></span><span class="track">{ticks}</span>'
        '<span class="value"></span></div></figure>'
    )


def format_tick(value: float) -> str:
    """A number at an axis, as short as can be: 250k, 1.5M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


CURVE_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999)
CURVE_TICKS = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"))
_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 56, 166, 12, 40, 800, 340
_LABEL_HEIGHT = 16


def curves(lines: Sequence[tuple[str, Histogram]], caption: str) -> str:
    """Latency by percentile: each further nine of the percentile takes the same width, each factor of ten
    the same height.

    A curve ends where too few answers would be above it, the axis with the last curve. The curves' names
    stand at their ends.
    """
    shown = [(name, _curve_points(histogram)) for name, histogram in lines]
    values = [latency_s for _, points in shown for _, latency_s in points]
    last = max(share for _, points in shown for share, _ in points)
    ticks = _time_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    right = _WIDTH - _RIGHT

    def x(share: float) -> float:
        return _LEFT + (right - _LEFT) * math.log10(1 - share) / math.log10(1 - last)

    def y(latency_s: float) -> float:
        return (
            _HEIGHT
            - _BOTTOM
            - (_HEIGHT - _TOP - _BOTTOM) * math.log10(latency_s / low) / math.log10(high / low)
        )

    parts = []
    for share, label in CURVE_TICKS:
        if share <= last:
            at = f"{x(share):.1f}"
            parts.append(f'<path class="grid" d="M{at} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
            parts.append(
                f'<text class="tick" x="{at}" y="{_HEIGHT - 22}" text-anchor="middle">{label}</text>'
            )
    for tick in ticks:
        height = y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {height:.1f}H{right}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">'
            f"{format_time(tick)}</text>"
        )
    parts.append(
        f'<text class="tick" x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">'
        "percentile of requests</text>"
    )
    heights = _spread_labels([y(points[-1][1]) for _, points in shown])
    legend = []
    for number, ((name, points), height) in enumerate(zip(shown, heights, strict=True)):
        path = "L".join(f"{x(share):.1f} {y(latency_s):.1f}" for share, latency_s in points)
        end_x, end_y = x(points[-1][0]), y(points[-1][1])
        parts.append(f'<path class="line c{number}" d="M{path}"><title>{escape(name)}</title></path>')
        parts.append(
            f'<path class="leader c{number}" d="M{end_x:.1f} {end_y:.1f}L{right + 16} {height:.1f}h8"/>'
            f'<text class="label c{number}" x="{right + 29}" y="{height + 4:.1f}">{escape(name)}</text>'
        )
        legend.append(f'<li class="c{number}">{escape(name)}</li>')
    return (
        f'<figure class="curves"><figcaption>{escape(caption)}</figcaption>'
        f'<ul class="legend">{"".join(legend)}</ul><div class="scroll">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(caption, quote=True)}">'
        f"{''.join(parts)}</svg></div></figure>"
    )


def _time_ticks(low: float, high: float) -> list[float]:
    """Seconds of 1, 2 and 5 times powers of ten, from below `low` to above `high`."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    first = max(number for number, step in enumerate(steps) if step < low)
    last = min(number for number, step in enumerate(steps) if step > high)
    return steps[first : last + 1]


def _spread_labels(wanted: Sequence[float]) -> list[float]:
    """Heights for labels, in the same order, near the wanted ones, without touching each other."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    heights = list(wanted)
    for above, below in itertools.pairwise(order):
        heights[below] = max(heights[below], heights[above] + _LABEL_HEIGHT)
    floor = float(_HEIGHT - _BOTTOM)
    for number in reversed(order):
        heights[number] = min(heights[number], floor)
        floor = heights[number] - _LABEL_HEIGHT
    return heights


def _curve_points(histogram: Histogram) -> list[tuple[float, float]]:
    shares = [share for share in CURVE_SHARES if share <= 0.5 or is_told(share, histogram.total)]
    return [(share, histogram.quantile(share)) for share in shares]


def format_time(seconds: float) -> str:
    """A time with its unit: 250 µs, 1.2 ms, 3 s."""
    for limit, scale, unit in ((1, 1, "s"), (1e-3, 1e3, "ms"), (0, 1e6, "µs")):
        if seconds >= limit * (1 - 1e-9):
            return f"{seconds * scale:.3g} {unit}"
    raise ValueError(f"{seconds} seconds")


def picture(columns: Sequence[tuple[str, Sequence[Bar]]], title: str, subtitle: str, note: str) -> str:
    """Bars as an SVG file of its own, light and dark, for the README: two charts of the same servers side by
    side, each with its heading.
    """
    row, top, names = 30, 92, 172
    places = ((names, 205), (names + 325, 160))
    width, height = 760, top + row * len(columns[0][1]) + (34 if note else 10)
    parts = []
    for number, bar in enumerate(columns[0][1]):
        style = "ours" if "ours" in bar.style.split() else ""
        parts.append(
            f'<text class="{style}" x="{names - 10}" y="{top + row * number + 14}" text-anchor="end">'
            f"{escape(bar.label)}</text>"
        )
    for (heading, chart), (left, length) in zip(columns, places, strict=True):
        scale = length / max(*(bar.value.high for bar in chart), 1e-9)
        parts.append(f'<text class="soft" x="{left}" y="{top - 14}">{escape(heading)}</text>')
        parts.append(f'<path class="axis" d="M{left - 0.5} {top - 4}v{row * len(chart)}"/>')
        for number, bar in enumerate(chart):
            y = top + row * number
            parts.append(_picture_bar(bar, left, y, scale))
    if note:
        parts.append(f'<text class="soft" x="12" y="{height - 10}">{escape(note)}</text>')
    return f"""<svg xmlns="http://www.w3.org/2000/svg" \
viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
role="img" aria-label="{escape(title, quote=True)}">
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1c2530 }}
.title {{ font-size: 16px; font-weight: 600 }} text.ours {{ font-weight: 650 }}
.soft {{ fill: #5a6675; font-variant-numeric: tabular-nums }}
.fill {{ fill: #9aa7b6 }} .fill.ours {{ fill: #d9480f }} .fill.floor {{ fill: #d5dbe2 }}
.whisker {{ stroke: #1c2530; stroke-width: 1.4; fill: none }} .axis {{ stroke: #c3cad3 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6ebf1 }} .soft {{ fill: #9fabba }}
.fill {{ fill: #66758a }} .fill.ours {{ fill: #ff7a3d }} .fill.floor {{ fill: #38424f }}
.whisker {{ stroke: #e6ebf1 }} .axis {{ stroke: #46505c }}
}}
</style>
<text class="title" x="12" y="24">{escape(title)}</text>
<text class="soft" x="12" y="45">{escape(subtitle)}</text>
{chr(10).join(parts)}
</svg>
"""


def _picture_bar(bar: Bar, left: float, y: float, scale: float) -> str:
    low, high = left + bar.value.low * scale, left + bar.value.high * scale
    style = " ".join(["fill", *bar.style.split()])
    length = max(bar.value.median * scale, 1)
    whisker = ""
    if high - low > 1:
        whisker = (
            f'<path class="whisker" d="M{low:.1f} {y + 9}H{high:.1f}'
            f'M{low:.1f} {y + 5}v8M{high:.1f} {y + 5}v8"/>'
        )
    return (
        f'<rect class="{style}" x="{left}" y="{y}" width="{length:.1f}" height="18" rx="2"/>{whisker}'
        f'<text class="soft" x="{max(high, left + length) + 8:.1f}" y="{y + 14}">{escape(bar.text)}</text>'
    )
