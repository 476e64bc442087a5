"""crowd.py: who gives way to whom, how many one client may be, and that nobody is told who is busy."""

from __future__ import annotations

import itertools
import random
import threading
import time
from types import SimpleNamespace

import pytest

from uwsgi_tls import crowd as module
from uwsgi_tls.crowd import LOOK_SECONDS, NOT_COUNTED, NOTICE_SECONDS, Crowd, Notice
from uwsgi_tls.lounge import NEVER, READ, Lounge

fds = itertools.count(1000)


class Room:
    """The lounge: who is parked can be claimed."""

    def __init__(self) -> None:
        self.parked: dict[int, object] = {}
        self.forgotten: list[int] = []

    def claim(self, fd: int, guest: object) -> bool:
        return self.parked.pop(fd, None) is guest

    def park(self, fd: int, guest: object, events: int) -> None:
        assert events == READ
        self.parked[fd] = guest

    def forget(self, fd: int, guest: object) -> None:
        self.forgotten.append(fd)


class Guest:
    deadline = NEVER
    armed = READ

    def __init__(self, scene: Scene, idle_from: float = NEVER, parked: bool = True) -> None:
        self.scene = scene
        self.fd = next(fds)
        self.idle_from = idle_from
        self.owes = NEVER
        self.too_many = False
        self.left = False
        self.crashes = 0
        if parked:
            scene.room.parked[self.fd] = self

    def ready(self, events: int) -> None: ...

    def expired(self) -> None: ...

    def crashed(self) -> None:
        self.crashes += 1

    def owes_from(self) -> float:
        return self.owes

    def unwanted(self) -> bool:
        return self.too_many

    def waits_for(self) -> str:
        return "idle"

    def leave_if_idle(self, when: float) -> None: ...

    def give_way(self) -> None:
        assert self.fd not in self.scene.room.parked
        assert not self.left
        self.left = True
        self.scene.crowd.handshake_over(self.fd)
        self.scene.crowd.left(self)


class Scene:
    """A crowd with a lounge and a clock of the test's."""

    def __init__(self, connections: int = 100, handshakes: int = 1000, per_client: int = 0) -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.room = Room()
        self.crowd = Crowd(
            self.room,  # type: ignore[arg-type]  # what it uses of the lounge
            connections=connections,
            handshakes=handshakes,
            per_client=per_client,
        )

    def guests(self, count: int, idle_from: float = NEVER, parked: bool = True) -> list[Guest]:
        new = [Guest(self, idle_from, parked) for _ in range(count)]
        for guest in new:
            self.crowd.guests.add(guest)
        return new


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0, said=list[str]())
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(module, "line", clock.said.append)
    return clock


# --- worker-connections -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "present", "gone"),
    [(100, 87, 0), (100, 88, 6), (100, 100, 6), (8, 6, 0), (8, 7, 1), (4, 3, 0), (4, 4, 1), (1, 1, 1)],
)
def test_idle_ones_give_way_before_the_limit(clock: SimpleNamespace, limit: int, present: int, gone: int) -> None:
    scene = Scene(limit)
    guests = scene.guests(present, idle_from=900.0)
    assert scene.crowd.has_room()
    assert sum(guest.left for guest in guests) == gone
    assert len(scene.crowd.guests) == present - gone
    assert len(clock.said) == bool(gone)


def test_who_has_been_idle_longest_gives_way_first(clock: SimpleNamespace) -> None:
    scene = Scene()
    guests = [scene.guests(1, idle_from=900.0 + number)[0] for number in random.Random(1).sample(range(90), 90)]
    assert scene.crowd.has_room()
    assert sorted(guest.idle_from for guest in guests if guest.left) == [900.0 + number for number in range(6)]


@pytest.mark.parametrize(
    ("idle_from", "parked"),
    [
        pytest.param(NEVER, True, id="a request is under way"),
        pytest.param(1000.1, True, id="has hardly come"),
        pytest.param(900.0, False, id="a thread has it"),
    ],
)
def test_nobody_else_gives_way(clock: SimpleNamespace, idle_from: float, parked: bool) -> None:
    """At the limit there is no room then, and no search each time that one is asked for."""
    scene = Scene()
    guests = scene.guests(99, idle_from, parked)
    assert scene.crowd.has_room()
    guests += scene.guests(1, idle_from, parked)
    looks = 0
    for _ in range(900):
        assert not scene.crowd.has_room()
        looks += scene.crowd._next_look == clock.now + LOOK_SECONDS
        clock.now += LOOK_SECONDS / 100
    assert looks <= 10
    assert not any(guest.left for guest in guests)
    assert clock.said == []
    assert scene.room.forgotten == []


def test_who_has_become_busy_meanwhile_stays(clock: SimpleNamespace) -> None:
    """Something came between the search and the claim, and was answered or waits again."""
    scene = Scene()
    guests = scene.guests(100, idle_from=900.0)
    claim = scene.room.claim

    def busy(fd: int, guest: object) -> bool:
        assert isinstance(guest, Guest)
        guest.idle_from = NEVER
        return claim(fd, guest)

    scene.room.claim = busy  # type: ignore[method-assign]
    assert not scene.crowd.has_room()
    assert not any(guest.left for guest in guests)
    assert len(scene.room.parked) == 100


def test_who_is_slow_to_ask_gives_way_when_all_is_taken(clock: SimpleNamespace) -> None:
    """In a handshake or a head: not before, for its link may be slow; and not to somebody who is idle."""
    scene = Scene()
    slow = scene.guests(99)
    for number, guest in enumerate(slow):
        guest.owes = 900.0 + number + (0.9 if number == 98 else 0)
    assert scene.crowd.has_room()
    assert not any(guest.left for guest in slow)
    (idle,) = scene.guests(1, idle_from=995.0)
    clock.now += LOOK_SECONDS
    assert scene.crowd.has_room()
    assert idle.left
    assert not any(guest.left for guest in slow)
    scene.guests(1)
    clock.now += LOOK_SECONDS
    assert scene.crowd.has_room()
    assert [guest.left for guest in slow] == [True] * 6 + [False] * 93
    assert scene.crowd.idle_told == 7
    assert "slow to ask" in clock.said[1]


def test_who_was_slow_and_has_asked_meanwhile_stays(clock: SimpleNamespace) -> None:
    scene = Scene(8)
    guests = scene.guests(8)
    for guest in guests:
        guest.owes = 999.5
    assert not scene.crowd.has_room(), "its words may be on their way"
    clock.now += 1
    guests[0].owes = NEVER
    assert scene.crowd.has_room()
    assert (guests[0].left, sum(guest.left for guest in guests)) == (False, 1)


def test_one_too_many_of_its_client_gives_way_first(clock: SimpleNamespace) -> None:
    """However short it has been here."""
    scene = Scene(per_client=2)
    idle, unwanted = scene.guests(50, idle_from=900.0), scene.guests(40)
    for guest in unwanted:
        guest.too_many = True
    assert scene.crowd.has_room()
    assert (sum(guest.left for guest in idle), sum(guest.left for guest in unwanted)) == (0, 6)


def test_a_defect_costs_one_guest(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Guest) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Guest, "give_way", fail)
    scene = Scene(8)
    guests = scene.guests(8, idle_from=900.0)
    scene.crowd.has_room()
    assert [guest.crashes for guest in guests].count(1) == 1


def test_who_waits_for_room_hears_of_each_who_leaves() -> None:
    scene, heard = Scene(), list[int]()
    old, other = scene.guests(2)
    scene.crowd.on_left = lambda: heard.append(len(scene.crowd.guests))
    new = Guest(scene)
    scene.crowd.follows(old, new)
    assert heard == [], "the socket has only changed hands"
    for guest in (new, other):
        scene.crowd.left(guest)
    assert heard == [1, 0]


# --- https-max-handshakes ---------------------------------------------------------------------


def test_the_oldest_handshakes_give_way(clock: SimpleNamespace) -> None:
    scene = Scene(handshakes=32)
    guests = [Guest(scene, parked=number != 1) for number in range(40)]
    for guest in guests[:32]:
        scene.crowd.arrived(guest)
    assert not any(guest.left for guest in guests)
    scene.crowd.arrived(guests[32])
    assert [number for number, guest in enumerate(guests) if guest.left] == [0]
    assert scene.room.forgotten == [guests[0].fd], "after its descriptor is closed, too"
    scene.crowd.arrived(guests[33])
    assert [number for number, guest in enumerate(guests) if guest.left] == [0, 2], "a thread has the second"
    assert len(clock.said) == 1
    assert "https-max-handshakes" in clock.said[0]


def test_handshakes_never_take_more_than_half_of_the_places(clock: SimpleNamespace) -> None:
    scene = Scene(connections=8, handshakes=1000)
    guests = [Guest(scene) for _ in range(5)]
    for guest in guests:
        scene.crowd.arrived(guest)
    assert [guest.left for guest in guests] == [True] + [False] * 4


def test_a_handshake_keeps_its_place_when_it_becomes_a_connection(clock: SimpleNamespace) -> None:
    scene = Scene(handshakes=3)
    guests = [Guest(scene) for _ in range(4)]
    for guest in guests[:3]:
        scene.crowd.arrived(guest)
    connection = Guest(scene)
    connection.fd = guests[0].fd
    scene.room.parked[connection.fd] = connection
    scene.crowd.follows(guests[0], connection)
    scene.crowd.arrived(guests[3])
    assert connection.left
    assert not any(guest.left for guest in guests)


def test_a_handshake_that_is_over_gives_way_to_nobody(clock: SimpleNamespace) -> None:
    scene = Scene(handshakes=3)
    guests = [Guest(scene) for _ in range(50)]
    for guest in guests:
        scene.crowd.arrived(guest)
        scene.crowd.handshake_over(guest.fd)
        scene.crowd.handshake_over(guest.fd)
    assert not any(guest.left for guest in guests)
    assert len(scene.crowd.guests) == 50


# --- connections-per-client -------------------------------------------------------------------


def test_a_client_has_so_many() -> None:
    crowd = Scene(per_client=2).crowd
    assert [crowd.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert crowd.not_admitted == 1
    assert crowd.admit("192.0.2.2")
    crowd.dismiss("192.0.2.1")
    assert [crowd.admit("192.0.2.1") for _ in range(2)] == [True, False]
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        crowd.dismiss(address)
    assert crowd._clients == {}


@pytest.mark.parametrize(("per_client", "address"), [(0, "192.0.2.1"), (1, NOT_COUNTED)])
def test_who_is_not_counted(per_client: int, address: str) -> None:
    crowd = Scene(per_client=per_client).crowd
    assert all(crowd.admit(address) for _ in range(10))
    assert crowd._clients == {}
    crowd.dismiss(address)


def test_counts_of_many_threads() -> None:
    crowd = Scene(per_client=1000).crowd

    def come_and_go() -> None:
        for number in range(2000):
            assert crowd.admit(f"192.0.2.{number % 3}")
            crowd.dismiss(f"192.0.2.{number % 3}")

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowd._clients == {}


# --- notices ----------------------------------------------------------------------------------


def test_a_notice_is_said_again_only_after_a_while(clock: SimpleNamespace) -> None:
    notice = Notice()
    for _ in range(100):
        notice("full")
        clock.now += NOTICE_SECONDS / 50
    assert clock.said == ["full"] * 2


def test_with_a_real_lounge() -> None:
    """Who is parked there is found and gives way; the lounge knows it no more."""
    scene = Scene(1)
    lounge = Lounge(1)
    scene.crowd._lounge = lounge
    guest = Guest(scene, idle_from=time.monotonic() - 1, parked=False)
    lounge._parked[guest.fd] = guest
    scene.crowd.guests.add(guest)
    assert scene.crowd.has_room()
    assert guest.left
    assert lounge.parked() == []
