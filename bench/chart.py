"""The README's chart: bars as an SVG file of its own, light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.figures import Spread

ROW, TOP, NAMES = 30, 92, 172
WIDTH = 760
# Where the two columns of bars begin, and how long the longest bar of each is.
COLUMNS = ((NAMES, 205), (NAMES + 325, 160))


@dataclass(frozen=True)
class Bar:
    """One bar: a value with its spread, in the column's unit."""

    label: str
    value: Spread
    text: str
    style: str = ""
    """Another class of the style sheet: ours or floor."""


def picture(columns: Sequence[tuple[str, Sequence[Bar]]], title: str, subtitle: str, note: str) -> str:
    """Two columns of bars of the same servers side by side, each with its heading."""
    height = TOP + ROW * len(columns[0][1]) + (34 if note else 10)
    parts = []
    for number, bar in enumerate(columns[0][1]):
        style = "ours" if bar.style == "ours" else ""
        parts.append(
            f'<text class="{style}" x="{NAMES - 10}" y="{TOP + ROW * number + 14}" text-anchor="end">'
            f"{escape(bar.label)}</text>"
        )
    for (heading, bars), (left, length) in zip(columns, COLUMNS, strict=True):
        scale = length / max(*(bar.value.high for bar in bars), 1e-9)
        parts.append(f'<text class="soft" x="{left}" y="{TOP - 14}">{escape(heading)}</text>')
        parts.append(f'<path class="axis" d="M{left - 0.5} {TOP - 4}v{ROW * len(bars)}"/>')
        parts += [_bar(bar, left, TOP + ROW * number, scale) for number, bar in enumerate(bars)]
    if note:
        parts.append(f'<text class="soft" x="12" y="{height - 10}">{escape(note)}</text>')
    return f"""<svg xmlns="http://www.w3.org/2000/svg" \
viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" \
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


def _bar(bar: Bar, left: float, y: float, scale: float) -> str:
    """A bar from zero, with a whisker from the least to the greatest value if that can be seen."""
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
