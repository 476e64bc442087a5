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
from .probes import Figures

RATIOS = (("ours", "nginx"), ("ours", "uwsgi"))
MB = 1_000_000


def median_us(cell: Cell | None) -> float | None:
    """The median CPU time of an operation in microseconds, or None where the peer was not measured or failed."""
    if cell is None or cell.failed or not cell.samples:
        return None
    return statistics.median(sample.cpu_us for sample in cell.samples)


def ratio(cells: dict[str, Cell], one: str, other: str) -> float | None:
    """Median CPU time of `one` over that of `other`."""
    first, second = median_us(cells.get(one)), median_us(cells.get(other))
    return first / second if first is not None and second is not None else None


def rows(cases: Sequence[Case], names: Sequence[str], results: Results) -> list[list[str]]:
    """A head, and some rows a case: CPU microseconds an operation (median, half the spread of the rounds), and beside
    it operations a second, what the client waited, and the memory of all processes.
    """
    found = [["server CPU, us an operation", *names, *(f"{one}/{other}" for one, other in RATIOS)]]
    for case in cases:
        cells = [results[case.name].get(name) for name in names]
        ratios = [ratio(results[case.name], *pair) for pair in RATIOS]
        found.append([case.title, *map(_cpu, cells), *map(_two, ratios)])
        for title, text in (("a second", _rate), ("p50 / p99 ms", _waits), ("MB", _memory)):
            texts = [text(cell) for cell in cells]
            if any(texts):
                found.append([f"  {title}", *texts, *("" for _ in RATIOS)])
    return found


def table(cases: Sequence[Case], names: Sequence[str], results: Results) -> str:
    """The rows in columns, and below them what a reader must know before comparing."""
    texts = rows(cases, names, results)
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    lines = ["  ".join(_pad(text, widths[index], index) for index, text in enumerate(row)).rstrip() for row in texts]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *notes(cases, results)])


def as_json(
    cases: Sequence[Case], results: Results, figures: Figures, verdicts: Sequence[str], rounds: int, seconds: float
) -> dict[str, Any]:
    """The same figures with every round, and what they were measured on."""
    return {
        "machine": {"cpu": cpu_model(), "cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
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
        "figures": figures,
        "targets": list(verdicts),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "failed": cell.failed or None,
        "cpu_us": median_us(cell),
        "cpu_us_rounds": [round(sample.cpu_us, 2) for sample in cell.samples],
        "per_second": _median(cell, "per_second"),
        "resumed": round(min((sample.resumed for sample in cell.samples), default=0.0), 4),
        "p50_us": _median(cell, "p50_us"),
        "p99_us": _median(cell, "p99_us"),
        "resident_bytes": cell.resident_bytes,
        "ciphers": sorted(cell.ciphers),
    }


def _median(cell: Cell, what: str) -> float | None:
    return statistics.median(getattr(sample, what) for sample in cell.samples) if cell.samples else None


def _cpu(cell: Cell | None) -> str:
    value = median_us(cell)
    if cell is None or value is None:
        return "-" if cell is None else "failed"
    costs = [sample.cpu_us for sample in cell.samples]
    spread = (max(costs) - min(costs)) / 2 / value
    return f"{value:.{1 if value < 100 else 0}f} ±{spread:.0%}"


def _rate(cell: Cell | None) -> str:
    value = _median(cell, "per_second") if cell is not None and not cell.failed else None
    return "" if value is None else f"{value:,.0f}"


def _waits(cell: Cell | None) -> str:
    if cell is None or cell.failed or not (half := _median(cell, "p50_us")):
        return ""
    return f"{half / 1000:.1f} / {(_median(cell, 'p99_us') or 0) / 1000:.1f}"


def _memory(cell: Cell | None) -> str:
    return "" if cell is None or cell.failed or not cell.resident_bytes else f"{cell.resident_bytes / MB:.0f}"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _pad(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def notes(cases: Sequence[Case], results: Results) -> list[str]:
    """What a reader must know before comparing: peers that did not resume, or chose another cipher, or failed."""
    found = []
    ciphers = set().union(*(cell.ciphers for cells in results.values() for cell in cells.values()))
    if len(ciphers) == 1:
        found.append(f"all: {ciphers.pop()}")
    for case in cases:
        for name, cell in results[case.name].items():
            label = f"{case.title}: {name}"
            if cell.failed:
                found.append(f"{label} failed: {cell.failed}")
            elif case.name == "resumed" and (part := min(sample.resumed for sample in cell.samples)) < 1:
                found.append(f"{label} resumed {part:.0%} of its connections")
            if len(ciphers) > 1:
                found.append(f"{label}: {', '.join(sorted(cell.ciphers))}")
    return found


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
