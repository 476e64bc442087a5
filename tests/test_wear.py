"""wear.py: when a worker asks for its successor, with numbers of the test's own."""

from __future__ import annotations

import pytest

from uwsgi_tls.options import Config
from uwsgi_tls.wear import MEBIBYTE, Limits, Wear, limits

NOTHING = {"requests": 0, "rss": 0, "vsz": 0}
BORN = 1000.0


def asked(bounds: Limits, age: float, **counts: int) -> list[str]:
    """What the worker asks for, looking twice at that age."""
    said = list[str]()
    wear = Wear(bounds, BORN, said.append)
    for _ in range(2):
        wear.look(BORN + age, {**NOTHING, **counts})
    return said


@pytest.mark.parametrize(
    ("bounds", "age", "counts", "said"),
    [
        pytest.param(Limits(requests=100), 0.5, {"requests": 99}, [], id="few requests"),
        pytest.param(Limits(requests=100), 0.5, {"requests": 103}, ["103 requests (max-requests)"], id="many"),
        pytest.param(Limits(lifetime=60), 59.9, {}, [], id="not so old"),
        pytest.param(Limits(lifetime=60), 60.0, {}, ["60 seconds of life (max-worker-lifetime)"], id="old"),
        pytest.param(Limits(resident=9 * MEBIBYTE), 0, {"rss": 9 * MEBIBYTE - 1}, [], id="small"),
        pytest.param(
            Limits(resident=9 * MEBIBYTE), 0, {"rss": 9 * MEBIBYTE}, ["9 MB resident (reload-on-rss)"], id="large"
        ),
        pytest.param(
            Limits(address_space=9 * MEBIBYTE),
            0,
            {"vsz": 10 * MEBIBYTE},
            ["10 MB of address space (reload-on-as)"],
            id="large address space",
        ),
        pytest.param(Limits(), 1e9, {"requests": 10**9, "rss": 1 << 50, "vsz": 1 << 50}, [], id="without limits"),
        pytest.param(Limits(requests=1, least_lifetime=10), 9.9, {"requests": 5}, [], id="too young"),
        pytest.param(
            Limits(requests=1, least_lifetime=10), 10, {"requests": 5}, ["5 requests (max-requests)"], id="old enough"
        ),
    ],
)
def test_asking(bounds: Limits, age: float, counts: dict[str, int], said: list[str]) -> None:
    assert asked(bounds, age, **counts) == said


def test_each_worker_has_its_own_limits() -> None:
    """So many deltas more as its number is; none where the option itself is off."""
    config = Config(
        max_requests=100,
        max_requests_delta=10,
        max_worker_lifetime=60,
        max_worker_lifetime_delta=5,
        min_worker_lifetime=3,
        reload_on_rss=7,
        reload_on_as=8,
    )
    assert limits(config, 2) == Limits(120, 70, 7 * MEBIBYTE, 8 * MEBIBYTE, 3)
    assert limits(Config(max_requests_delta=10, max_worker_lifetime_delta=5), 2) == Limits(least_lifetime=10)
