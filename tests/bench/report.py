"""The results as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import ssl
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import Case, Cell, Results

RATIOS = (("ours", "nginx"), ("ours", "uwsgi"))


def median_us(cell: Cell | None) -> float | None:
    """The median CPU time of an operation in microseconds, or None where the peer was not measured or failed."""
    if cell is None or cell.failed or not cell.samples:
        return None
    return statistics.median(sample.cpu_us for sample in cell.samples)


def ratio(cells: dict[str, Cell], one: str, other: str) -> float | None:
    """Median CPU time of `one` over that of `other`."""
    first, second = median_us(cells.get(one)), median_us(cells.get(other))
    return first / second if first is not None and second is not None else None


def table(cases: Sequence[Case], names: Sequence[str], results: Results) -> str:
    """Two lines a case: CPU microseconds an operation (median, half the spread of the rounds), operations a second."""
    rows = [["server CPU, us an operation", *names, *(f"{one}/{other}" for one, other in RATIOS)]]
    for case in cases:
        cells = results[case.name]
        ratios = [ratio(cells, *pair) for pair in RATIOS]
        rows.append([case.title, *(_cpu(cells.get(name)) for name in names), *(_two(value) for value in ratios)])
        rows.append(["  a second", *(_rate(cells.get(name)) for name in names), *("" for _ in RATIOS)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(_pad(text, widths[index], index) for index, text in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_notes(cases, results)])


def as_json(cases: Sequence[Case], results: Results, rounds: int, seconds: float) -> dict[str, Any]:
    """The same figures with every round, and what they were measured on."""
    return {
        "machine": {"cpu": _cpu_model(), "cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
        "python": platform.python_version(),
        "client": ssl.OPENSSL_VERSION,
        "rounds": rounds,
        "seconds": seconds,
        "cases": [
            {
                "name": case.name,
                "title": case.title,
                "peers": {name: _cell_json(cell) for name, cell in results[case.name].items()},
                "ratios": {f"{one}/{other}": ratio(results[case.name], one, other) for one, other in RATIOS},
            }
            for case in cases
        ],
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "failed": cell.failed or None,
        "cpu_us": median_us(cell),
        "cpu_us_rounds": [round(sample.cpu_us, 2) for sample in cell.samples],
        "per_second": _median_rate(cell),
        "resumed": round(min((sample.resumed for sample in cell.samples), default=0.0), 4),
        "ciphers": sorted(cell.ciphers),
    }


def _median_rate(cell: Cell) -> float | None:
    return statistics.median(sample.per_second for sample in cell.samples) if cell.samples else None


def _cpu(cell: Cell | None) -> str:
    value = median_us(cell)
    if cell is None or value is None:
        return "-" if cell is None else "failed"
    costs = [sample.cpu_us for sample in cell.samples]
    spread = (max(costs) - min(costs)) / 2 / value
    return f"{value:.{1 if value < 100 else 0}f} ±{spread:.0%}"


def _rate(cell: Cell | None) -> str:
    value = _median_rate(cell) if cell is not None and not cell.failed else None
    return "" if value is None else f"{value:,.0f}"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _pad(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _notes(cases: Sequence[Case], results: Results) -> list[str]:
    """What a reader must know before comparing: peers that did not resume, or chose another cipher, or failed."""
    notes = []
    ciphers = set().union(*(cell.ciphers for cells in results.values() for cell in cells.values()))
    if len(ciphers) == 1:
        notes.append(f"all: {ciphers.pop()}")
    for case in cases:
        for name, cell in results[case.name].items():
            label = f"{case.title}: {name}"
            if cell.failed:
                notes.append(f"{label} failed: {cell.failed}")
            elif case.name == "resumed" and (part := min(sample.resumed for sample in cell.samples)) < 1:
                notes.append(f"{label} resumed {part:.0%} of its connections")
            if len(ciphers) > 1:
                notes.append(f"{label}: {', '.join(sorted(cell.ciphers))}")
    return ["", *notes]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
