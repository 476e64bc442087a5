"""What is promised of our speed, as ratios within one run, and whether a run has kept it (bin/bench --check)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .measure import Results
from .probes import Figures
from .report import median_us


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that must be at most (or at least) so much."""

    text: str
    limit: float
    value: Callable[[Results, Figures], float | None]  # None: not measured
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    target: Target
    value: float

    def __str__(self) -> str:
        sign = "≥" if self.target.at_least else "≤"
        return f"{self.target.text}: {self.value:.2f} (to be {sign} {self.target.limit:g})"

    @property
    def is_met(self) -> bool:
        return self.target.is_met(self.value)


def _ratio(case: str, other: str, limit: float) -> Target:
    def value(results: Results, figures: Figures) -> float | None:
        cells = results.get(case, {})
        ours, theirs = median_us(cells.get("ours")), median_us(cells.get(other))
        return ours / theirs if ours is not None and theirs is not None else None

    return Target(f"{case}: ours/{other}", limit, value)


def _figure(name: str, text: str, limit: float, *, at_least: bool = False) -> Target:
    return Target(text, limit, lambda results, figures: figures.get(name), at_least)


def _logging(results: Results, figures: Figures) -> float | None:
    cells = results.get("logging", {})
    plain, logged = median_us(cells.get("ours")), median_us(cells.get("ours-log"))
    return logged / plain if plain is not None and logged is not None else None


def _crowding(results: Results, figures: Figures) -> float | None:
    if "crowd_p99_ms.alone" not in figures:
        return None
    return figures["crowd_p99_ms.crowded"] / figures["crowd_p99_ms.alone"]


def _client_certificate(results: Results, figures: Figures) -> float | None:
    """What it adds to a handshake, beside what it adds to nginx's."""
    costs = [
        median_us(results.get(case, {}).get(name)) for name in ("ours", "nginx") for case in ("client", "handshake")
    ]
    if any(cost is None for cost in costs):
        return None
    ours, ours_without, nginx, nginx_without = [cost or 0.0 for cost in costs]
    return (ours - ours_without) / max(nginx - nginx_without, 1.0)


TARGETS = (
    _ratio("handshake", "nginx", 0.95),
    _ratio("handshake", "uwsgi", 0.75),
    _ratio("p256", "nginx", 1.0),
    _ratio("resumed", "nginx", 1.05),
    _ratio("resumed", "uwsgi", 0.65),
    _ratio("keepalive", "uwsgi", 0.40),
    _ratio("keepalive", "gunicorn", 0.20),
    _ratio("keepalive", "granian", 1.5),
    _ratio("proxy", "nginx", 1.2),
    _ratio("proxy", "uwsgi", 0.95),
    _ratio("bulk", "nginx", 0.80),
    _ratio("upload", "nginx", 1.2),
    _figure("idle_kb.ours", "KB of an idle connection", 16.0),
    _figure("idle_kb.ours-debian", "the same with Debian's own OpenSSL, as nginx", 16.0),
    _figure("worker_mb", "MB of private memory of a worker more", 12.0),
    Target("p99 of a new client beside the crowd, and without it", 1.25, _crowding),
    _figure("scaling.ours", "handshakes of two workers, in those of one", 1.85, at_least=True),
    Target("kept alive with a line in the log, and without one", 1.15, _logging),
    Target("what a client certificate adds, in what it adds to nginx", 1.0, _client_certificate),
)


def verdicts(results: Results, figures: Figures) -> Sequence[Verdict]:
    """On all targets that were measured."""
    found = []
    for target in TARGETS:
        value = target.value(results, figures)
        if value is not None:
            found.append(Verdict(target, value))
    return found
