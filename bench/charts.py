"""The charts of the report: bars in HTML, so that they follow the page's width; curves and the README's
chart in SVG.

Colours come from the page's style sheet by class, except in the README's chart, which brings its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.figures import Spread
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
_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 56, 26, 12, 40, 720, 340


def curves(lines: Sequence[tuple[str, Histogram]], caption: str) -> str:
    """Latency by percentile: each further nine of the percentile takes the same width, each decade the same
    height.

    A curve ends where fewer than ten answers would be above it.
    """
    shown = [(name, _curve_points(histogram)) for name, histogram in lines]
    values = [latency_s for _, points in shown for _, latency_s in points]
    low = 10 ** math.floor(math.log10(min(values)))
    high = 10 ** math.ceil(math.log10(max(values)) + 1e-9)

    def x(share: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * -math.log10(1 - share) / 4

    def y(latency_s: float) -> float:
        return (
            _HEIGHT
            - _BOTTOM
            - (_HEIGHT - _TOP - _BOTTOM) * math.log10(latency_s / low) / math.log10(high / low)
        )

    parts = []
    for share, label in CURVE_TICKS:
        parts.append(f'<path class="grid" d="M{x(share):.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(
            f'<text class="tick" x="{x(share):.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{label}</text>'
        )
    for exponent in range(round(math.log10(low)), round(math.log10(high)) + 1):
        height = y(10.0**exponent)
        parts.append(f'<path class="grid" d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">'
            f"{format_time(10.0**exponent)}</text>"
        )
    parts.append(
        f'<text class="tick" x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">'
        "percentile of requests</text>"
    )
    legend = []
    for number, (name, points) in enumerate(shown):
        path = "L".join(f"{x(share):.1f} {y(latency_s):.1f}" for share, latency_s in points)
        parts.append(f'<path class="line c{number}" d="M{path}"><title>{escape(name)}</title></path>')
        legend.append(f'<li class="c{number}">{escape(name)}</li>')
    return (
        f'<figure class="curves"><figcaption>{escape(caption)}</figcaption>'
        f'<ul class="legend">{"".join(legend)}</ul><div class="scroll">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(caption, quote=True)}">'
        f"{''.join(parts)}</svg></div></figure>"
    )


def _curve_points(histogram: Histogram) -> list[tuple[float, float]]:
    enough = [share for share in CURVE_SHARES if histogram.total * (1 - share) >= 10 or share <= 0.5]
    return [(share, histogram.quantile(share)) for share in enough]


def format_time(seconds: float) -> str:
    """A time with its unit: 250 µs, 1.2 ms, 3 s."""
    for limit, scale, unit in ((1, 1, "s"), (1e-3, 1e3, "ms"), (0, 1e6, "µs")):
        if seconds >= limit * (1 - 1e-9):
            return f"{seconds * scale:.3g} {unit}"
    raise ValueError(f"{seconds} seconds")


def picture(chart: Sequence[Bar], title: str, subtitle: str) -> str:
    """Bars as an SVG file of its own, light and dark, for the README."""
    row, left, right, top = 30, 190, 170, 64
    width, height = 760, top + row * len(chart) + 12
    ceiling = nice_ceiling(max(bar.value.high for bar in chart))
    scale = (width - left - right) / ceiling
    parts = []
    for number, bar in enumerate(chart):
        y = top + row * number
        middle = y + 9
        low, high = left + bar.value.low * scale, left + bar.value.high * scale
        parts.append(f'<text x="{left - 10}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>')
        style = " ".join(["fill", *bar.style.split()])
        length = max(bar.value.median * scale, 1)
        parts.append(f'<rect class="{style}" x="{left}" y="{y}" width="{length:.1f}" height="18" rx="2"/>')
        if high - low > 1:
            parts.append(
                f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}'
                f'M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>'
            )
        parts.append(
            f'<text class="soft" x="{max(high, left + length) + 8:.1f}" y="{y + 14}">'
            f"{escape(bar.text)}</text>"
        )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" \
viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
role="img" aria-label="{escape(title, quote=True)}">
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1c2530 }}
.title {{ font-size: 16px; font-weight: 600 }}
.soft {{ fill: #5a6675; font-variant-numeric: tabular-nums }}
.fill {{ fill: #9aa7b6 }} .fill.ours {{ fill: #d9480f }} .fill.floor {{ fill: #d5dbe2 }}
.whisker {{ stroke: #1c2530; stroke-width: 1.4; fill: none }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6ebf1 }} .soft {{ fill: #9fabba }}
.fill {{ fill: #66758a }} .fill.ours {{ fill: #ff7a3d }} .fill.floor {{ fill: #38424f }}
.whisker {{ stroke: #e6ebf1 }}
}}
</style>
<text class="title" x="12" y="24">{escape(title)}</text>
<text class="soft" x="12" y="44">{escape(subtitle)}</text>
{chr(10).join(parts)}
</svg>
"""
