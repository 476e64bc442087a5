"""When a worker has served for long enough: max-requests, max-worker-lifetime, reload-on-rss, reload-on-as.

A worker judges itself at each sweep of its lounge, not at each request, so it may answer a few more than it should. It
asks once, and serves on until its successor is ready and it is told to end. Each worker has its number times the delta
more (uWSGI's core/utils.c, uwsgi_close_request), so that not all ask at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uwsgi_tls.options import Config

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may come to; 0 is anything."""

    requests: int = 0
    lifetime: int = 0  # seconds
    resident: int = 0  # bytes
    address_space: int = 0  # bytes
    least_lifetime: int = 0  # seconds: a younger one is not judged


def limits(config: Config, number: int) -> Limits:
    """Those of the worker of that number, from 1."""
    return Limits(
        requests=config.max_requests and config.max_requests + number * config.max_requests_delta,
        lifetime=config.max_worker_lifetime and config.max_worker_lifetime + number * config.max_worker_lifetime_delta,
        resident=config.reload_on_rss * MEBIBYTE,
        address_space=config.reload_on_as * MEBIBYTE,
        least_lifetime=config.min_worker_lifetime,
    )


class Wear:
    """That of one worker."""

    def __init__(self, limits: Limits, born: float, ask: Callable[[str], None]) -> None:
        """`born` in seconds of time.monotonic(); `ask` is told, once, what has been reached."""
        self._limits = limits
        self._born = born
        self._ask: Callable[[str], None] | None = ask

    def look(self, now: float, counts: Mapping[str, int]) -> None:
        """Judges by what the worker has counted, under the names of tally.NAMES."""
        if self._ask is None or now - self._born < self._limits.least_lifetime:
            return
        reached = self._reached(now - self._born, counts)
        if reached:
            ask, self._ask = self._ask, None
            ask(reached)

    def _reached(self, age: float, counts: Mapping[str, int]) -> str:
        limits = self._limits
        if 0 < limits.requests <= counts["requests"]:
            return f"{counts['requests']} requests (max-requests)"
        if 0 < limits.lifetime <= age:
            return f"{age:.0f} seconds of life (max-worker-lifetime)"
        if 0 < limits.resident <= counts["rss"]:
            return f"{counts['rss'] // MEBIBYTE} MB resident (reload-on-rss)"
        if 0 < limits.address_space <= counts["vsz"]:
            return f"{counts['vsz'] // MEBIBYTE} MB of address space (reload-on-as)"
        return ""
