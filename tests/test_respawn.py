"""respawn.py: when successors come, with moments of the test's own."""

from __future__ import annotations

import pytest

from uwsgi_tls.respawn import BACK_OFF_MOST_SECONDS, YOUNG_SECONDS, Respawn


def test_at_once_and_then_later_and_later() -> None:
    respawn = Respawn()
    delays = [respawn.died(1, 1.0, 0.0) for _ in range(10)]
    assert delays == pytest.approx([0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30])
    assert respawn.died(2, 1.0, 0.0) == 0, "another one is not concerned"


def test_one_that_has_lived_is_replaced_at_once() -> None:
    respawn = Respawn()
    for _ in range(4):
        respawn.died(1, 1.0, 0.0)
    assert respawn.died(1, YOUNG_SECONDS, 0.0) == 0
    assert respawn.died(1, 1.0, 0.0) == 0.5


def test_it_never_ends() -> None:
    """A worker that dies young for days: 2.0 ** 1024 would be too large for a float."""
    respawn = Respawn()
    for _ in range(1100):
        delay = respawn.failed(1, 0.0)
    assert delay == BACK_OFF_MOST_SECONDS


def test_moments() -> None:
    respawn = Respawn()
    assert respawn.moment == float("inf")
    respawn.at(1, 5.0)
    respawn.at(2, 3.0)
    assert respawn.moment == 3.0
    assert respawn.due(2.9) == []
    assert respawn.due(3.0) == [2]
    assert respawn.due(3.0) == [], "told once"
    respawn.forget()
    assert respawn.due(10.0) == []
    assert respawn.moment == float("inf")


def test_the_longest_pause_can_be_told() -> None:
    respawn = Respawn(1.0)
    assert [respawn.died(1, 1.0, 0.0) for _ in range(4)] == [0, 0.5, 1, 1]
    respawn = Respawn(0)
    assert [respawn.died(1, 1.0, 0.0) for _ in range(4)] == [0, 0, 0, 0]
    assert respawn.is_pending
    respawn.due(0.0)
    assert not respawn.is_pending
