"""The lead: one thread has it, who is held up loses it to another, and who gets on or waits does not."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from uwsgi_tls import lead
from uwsgi_tls.lead import Lead, Turn

SECONDS = 5.0
NEVER = 60.0  # longer than a test


class Follower:
    """A thread that follows until it leads, or until the test is over."""

    def __init__(self, lead: Lead) -> None:
        self.turn: Turn | None = None
        self.ended = False
        self.leads = threading.Event()
        self.thread = threading.Thread(target=self._follow, args=(lead,), daemon=True)
        self.thread.start()

    def _follow(self, lead: Lead) -> None:
        self.turn = lead.follow(lambda: self.ended)
        if self.turn is not None:
            self.leads.set()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how often a follower looks and how long it sleeps; a test that sets nothing has one that never looks."""

    def set_them(look: float = NEVER, quiet: int = 1_000_000, sleep: float = NEVER) -> None:
        monkeypatch.setattr(lead, "LOOK_SECONDS", look)
        monkeypatch.setattr(lead, "QUIET_LOOKS", quiet)
        monkeypatch.setattr(lead, "SLEEP_SECONDS", sleep)

    set_them()
    return set_them


@pytest.fixture
def it(looks: object) -> Lead:
    return Lead()


@pytest.fixture
def turn(it: Lead) -> Turn:
    """That of this thread, which leads."""
    turn = it.follow(lambda: False)
    assert turn is not None
    return turn


@pytest.fixture
def follower(it: Lead, turn: Turn, looks: Callable[..., None]) -> Iterator[Callable[[], Follower]]:
    made: list[Follower] = []

    def follow() -> Follower:
        made.append(Follower(it))
        return made[-1]

    yield follow
    looks(look=0.001, quiet=0, sleep=0.001)
    for each in made:
        each.ended = True
    it._ring()  # for the one that looks only after a minute
    for each in made:
        each.thread.join(SECONDS)
        assert not each.thread.is_alive()


def test_the_first_leads(turn: Turn) -> None:
    assert turn.thread == threading.get_ident()
    assert not turn.over


def test_who_is_held_up_is_relieved(
    it: Lead, turn: Turn, looks: Callable[..., None], follower: Callable[[], Follower]
) -> None:
    looks(look=0.003)
    other = follower()
    it.serves(turn)
    assert other.leads.wait(SECONDS)
    assert turn.over
    assert not it.goes_on(turn)
    assert turn.over
    assert other.turn is not None
    assert other.turn.thread == other.thread.ident
    assert not other.turn.over


def test_who_gets_on_is_not(it: Lead, turn: Turn, looks: Callable[..., None], follower: Callable[[], Follower]) -> None:
    looks(look=0.2)
    other = follower()
    end = time.monotonic() + 0.7
    it.serves(turn)
    while time.monotonic() < end:
        turn.steps += 1
        time.sleep(0.001)
    assert not other.leads.is_set()
    assert it.goes_on(turn)


def test_nor_who_waits(it: Lead, turn: Turn, looks: Callable[..., None], follower: Callable[[], Follower]) -> None:
    looks(look=0.001)
    it.serves(turn)
    assert it.goes_on(turn)
    assert not follower().leads.wait(0.1)
    assert not turn.over


def test_a_follower_that_sleeps_is_woken(
    it: Lead, turn: Turn, looks: Callable[..., None], follower: Callable[[], Follower]
) -> None:
    looks(look=0.001, quiet=2)
    other = follower()
    while not it._sleeps:
        time.sleep(0.001)
    it.serves(turn)
    assert other.leads.wait(SECONDS)


def test_one_at_a_time(it: Lead, turn: Turn, looks: Callable[..., None], follower: Callable[[], Follower]) -> None:
    """Of three followers each relieves the one before it."""
    looks(look=0.003)
    others = {follower() for _ in range(3)}
    led: list[Turn] = [turn]
    while others:
        it.serves(led[-1])
        while not (new := [each for each in others if each.leads.wait(0.01)]):
            pass
        assert len(new) == 1
        assert led[-1].over
        others.remove(new[0])
        assert new[0].turn is not None
        led.append(new[0].turn)
    assert [each.over for each in led] == [True, True, True, False]


def call(it: Lead, seconds: float) -> None:
    began = it.call_begins()
    time.sleep(seconds)
    it.call_ends(began)


def test_after_a_slow_call_the_next_is_not_waited_for(it: Lead, turn: Turn, follower: Callable[[], Follower]) -> None:
    other = follower()
    it.serves(turn)
    call(it, 2 * lead.SLOW_SECONDS)
    assert not other.leads.wait(0.05)  # it has not looked yet, and nobody has called it
    it.call_begins()
    assert other.leads.wait(SECONDS)


def test_after_a_quick_call_nobody_is_called(
    it: Lead, turn: Turn, monkeypatch: pytest.MonkeyPatch, follower: Callable[[], Follower]
) -> None:
    monkeypatch.setattr(lead, "SLOW_SECONDS", 10.0)
    other = follower()
    it.serves(turn)
    call(it, 0.0)
    it.call_begins()
    assert not other.leads.wait(0.05)


def test_who_does_not_lead_calls_nobody(it: Lead, turn: Turn, follower: Callable[[], Follower]) -> None:
    other = follower()
    it.serves(turn)
    call(it, 2 * lead.SLOW_SECONDS)
    thread = threading.Thread(target=it.call_begins)
    thread.start()
    thread.join()
    assert not other.leads.wait(0.05)


def test_who_follows_ends(it: Lead, turn: Turn) -> None:
    assert it.follow(lambda: True) is None


def test_who_resigns_makes_room(it: Lead, turn: Turn) -> None:
    it.resigns()
    new = it.follow(lambda: False)
    assert new is not None
    assert new is not turn
