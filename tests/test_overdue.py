"""overdue.py: whose time is over, at moments of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from socket import socketpair

import pytest

from uwsgi_tls.overdue import LOOK_SECONDS, Overdue
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.workers import Worker

BORN = 1000.0
CALL = 10


@pytest.fixture
def child() -> Iterator[Worker]:
    ours, theirs = socketpair()
    with ours, theirs:
        yield Worker(1, 1, 4711, ours, BORN, Scoreboard(1).take(), CALL, ready=True)


@pytest.mark.parametrize(
    ("beat", "calling", "now", "stuck"),
    [
        pytest.param(50.0, 0.0, 50.3, False, id="idle"),
        pytest.param(50.0, 40.5, 50.4, False, id="in time at its last beat, whatever came of it since"),
        pytest.param(50.0, 39.9, 50.3, True, id="for too long"),
        pytest.param(50.0, 39.9, 52.0, False, id="silent since, so what was told is no news"),
        pytest.param(50.0, 0.0, 60.4, False, id="silent, as one is that holds the GIL"),
        pytest.param(50.0, 0.0, 60.6, True, id="silent for too long"),
    ],
)
def test_calls(child: Worker, beat: float, calling: float, now: float, stuck: bool) -> None:
    overdue = Overdue(0)
    assert list(overdue.look(BORN, [])) == []
    child.slot.beat(BORN + beat, BORN + calling if calling else 0.0)
    overdue._next_look = BORN + now
    found = list(overdue.look(BORN + now, [child]))
    assert found == ([(child, "has a request that lasts longer than 10 seconds: HARAKIRI")] if stuck else [])


def test_it_looks_twice_a_second_and_never_without_harakiri(child: Worker) -> None:
    overdue = Overdue(0)
    child.slot.beat(BORN)
    assert overdue.moment([child]) <= BORN
    assert list(overdue.look(BORN, [child])) == []
    assert overdue.moment([child]) == BORN + LOOK_SECONDS
    child.slot.beat(BORN + 0.1, BORN - 60)
    assert list(overdue.look(BORN + 0.2, [child])) == [], "not yet"
    child.harakiri = 0
    assert Overdue(0).moment([child]) == float("inf")
    assert list(Overdue(0).look(BORN + 1e6, [child])) == []


@pytest.mark.parametrize("beats", [True, False])
def test_who_was_frozen_with_us_has_its_time_anew(child: Worker, beats: bool) -> None:
    """All of a container is stopped for an hour, and the master is the first to wake, or the last."""
    overdue, hour = Overdue(0), 3600.0
    child.slot.beat(BORN, BORN - 5)
    assert list(overdue.look(BORN, [child])) == []
    assert list(overdue.look(BORN + 0.5, [child])) == []
    for after in (0.0, 2.0, 4.0, 6.0, 8.0, 9.5):
        if beats:
            child.slot.beat(BORN + hour + after, BORN - 5)
        assert list(overdue.look(BORN + hour + after, [child])) == [], after
    if beats:
        child.slot.beat(BORN + hour + 10.6, BORN - 5)
    assert [each for each, _ in overdue.look(BORN + hour + 10.6, [child])] == [child]


def test_a_start_that_was_frozen_begins_anew(child: Worker) -> None:
    overdue, child.ready = Overdue(60), False
    assert list(overdue.look(BORN + 3600, [child])) == []
    assert overdue.moment([child]) == BORN + 3660
    assert [each for each, _ in overdue.look(BORN + 3660, [child])] == [child]


def test_starts(child: Worker) -> None:
    overdue, child.harakiri = Overdue(60), 0
    assert overdue.moment([child]) == float("inf"), "it is ready"
    child.ready = False
    assert overdue.moment([child]) == BORN + 60
    assert list(overdue.look(BORN + 59, [child])) == []
    assert list(overdue.look(BORN + 60, [child])) == [
        (child, "is not ready 60 seconds after its fork (worker-start-timeout)")
    ]
    child.condemned = BORN + 63
    assert list(overdue.look(BORN + 61, [child])) == [], "once"
    assert overdue.moment([child]) == float("inf")
    child.condemned = 0.0
    assert list(Overdue(0).look(BORN + 1e6, [child])) == [], "a start is no call, and has no limit here"
