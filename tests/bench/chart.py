"""The medians of a run as an SVG picture: for each case a bar a peer, its length the CPU time beside the worst."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from .measure import Case, Results
from .report import median_us

WIDTH = 860
BARS_AT, BAR_WIDTH_MAX = 100, 560
BAR_HEIGHT, BAR_STEP = 15, 19
TITLE_HEIGHT, GAP = 24, 16
COLOURS = {
    "ours": "#1a6fb5",
    "ours-log": "#7fb2dd",
    "nginx": "#4c9a55",
    "uwsgi": "#8a8a8a",
    "gunicorn": "#b98b3e",
    "granian": "#a2559c",
}


def svg(cases: Sequence[Case], results: Results) -> str:
    """The picture's text."""
    y, parts = 8, []
    for case in cases:
        costs = {name: cost for name, cell in results[case.name].items() if (cost := median_us(cell)) is not None}
        if not costs:
            continue
        y += TITLE_HEIGHT
        parts.append(_text(8, y - 8, f"{case.title}: us of CPU", weight="bold"))
        for name, cost in costs.items():
            length = max(1, round(BAR_WIDTH_MAX * cost / max(costs.values())))
            parts.append(_text(BARS_AT - 8, y + 12, name, anchor="end"))
            parts.append(f'<rect x="{BARS_AT}" y="{y}" width="{length}" height="{BAR_HEIGHT}" fill="{COLOURS[name]}"/>')
            parts.append(_text(BARS_AT + length + 6, y + 12, f"{cost:.{1 if cost < 100 else 0}f}"))
            y += BAR_STEP
        y += GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
        ' font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', *parts, "</svg>", ""])


def _text(x: int, y: int, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
