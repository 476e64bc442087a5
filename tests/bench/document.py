"""Writes a run into docs/performance.md, between two marks, and its chart beside it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from . import chart, report
from .measure import Case, Results
from .probes import Figures
from .targets import Verdict

DOCS = Path(__file__).parents[2] / "docs"
PAGE, PICTURE = DOCS / "performance.md", DOCS / "performance.svg"
BEGIN, END = "<!-- written by bin/bench: begin -->\n", "<!-- written by bin/bench: end -->\n"


def write(
    command: str,
    cases: Sequence[Case],
    names: Sequence[str],
    results: Results,
    figures: Figures,
    verdicts: Sequence[Verdict],
) -> None:
    """Puts the run where the last one is. Raises ValueError where the page has no marks."""
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} has no marks")
    PICTURE.write_text(chart.svg(cases, results))
    PAGE.write_text(before + begin + _run(command, cases, names, results, figures, verdicts) + end + after)


def _run(
    command: str,
    cases: Sequence[Case],
    names: Sequence[str],
    results: Results,
    figures: Figures,
    verdicts: Sequence[Verdict],
) -> str:
    machine = (
        f"{os.cpu_count()} CPUs ({report.cpu_model()}), Linux {platform.release()}, Python {platform.python_version()}"
    )
    lines = [
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d', time.gmtime())}, {machine}.",
        "",
        "![CPU time of an operation](performance.svg)",
        "",
        *_markdown(report.rows(cases, names, results)),
        "",
        *(f"- {note}" for note in report.notes(cases, results)),
        *(f"- {name}: {value:.2f}" for name, value in figures.items()),
        "",
        "| promise | measured | limit | |",
        "| --- | --- | --- | --- |",
        *(
            f"| {verdict.target.text} | {verdict.value:.2f} | {'≥' if verdict.target.at_least else '≤'}"
            f" {verdict.target.limit:g} | {'kept' if verdict.is_met else '**missed**'} |"
            for verdict in verdicts
        ),
        "",
    ]
    return "\n".join(lines)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " --- |" * (len(rows[0]) - 1))
    return lines
