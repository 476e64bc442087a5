"""The lounge: who is ready or late is taken out once, by one thread, and nobody else's event reaches it."""

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

import pytest

from uwsgi_tls import lounge
from uwsgi_tls.lounge import GONE, HANGUP_ONLY, NEVER, READ, WRITE, Lounge

SECONDS = 5.0


class Guest:
    """A waiter on one end of a socket pair; notes what it was called for, and does then what the test says."""

    def __init__(self, room: Lounge, deadline: float = NEVER, then: Callable[["Guest"], object] | None = None) -> None:
        self.sock, self.peer = socket.socketpair()
        self.sock.setblocking(False)
        self.fd = self.sock.fileno()
        self.room = room
        self.deadline = deadline
        self.armed = 0
        self.calls: list[object] = []
        self.called = threading.Event()
        self.then = then
        guests.append(self)

    def ready(self, events: int) -> None:
        self._call(events)

    def expired(self) -> None:
        self._call("expired")

    def crashed(self) -> None:
        self.calls.append("crashed")
        self.called.set()

    def _call(self, what: object) -> None:
        self.calls.append(what)
        try:
            if self.then is not None:
                self.then(self)
        finally:
            self.called.set()

    def park(self, events: int = READ) -> None:
        self.room.park(self.fd, self, events)

    def close(self) -> None:
        self.room.forget(self.fd, self)
        self.sock.close()


guests: list[Guest] = []  # of one test


@pytest.fixture(autouse=True)
def close_sockets() -> Iterator[None]:
    yield
    for guest in guests:
        guest.sock.close()
        guest.peer.close()
    guests.clear()


@pytest.fixture(params=[1, 3], ids=["alone", "three threads"])
def threads(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def room(threads: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lounge]:
    """A lounge with its threads, which sweeps often."""
    monkeypatch.setattr(lounge, "SWEEP_SECONDS", 0.02)
    room = Lounge(threads)
    service = [threading.Thread(target=room.serve, daemon=True) for _ in range(threads)]
    for thread in service:
        thread.start()
    yield room
    room.closed = True
    for thread in service:
        thread.join(SECONDS)
        assert not thread.is_alive(), "a service thread hangs"


def test_ready(room: Lounge) -> None:
    guest = Guest(room)
    guest.park()
    assert not guest.called.wait(0.05)
    guest.peer.send(b"x")
    assert guest.called.wait(SECONDS)
    assert guest.calls == [select.EPOLLIN]
    assert room.parked() == []


@pytest.mark.parametrize(
    ("events", "act", "expected"),
    [
        pytest.param(WRITE, lambda guest: None, select.EPOLLOUT, id="room to write"),
        pytest.param(READ, lambda guest: guest.peer.shutdown(socket.SHUT_WR), select.EPOLLRDHUP, id="half closed"),
        pytest.param(HANGUP_ONLY, lambda guest: guest.peer.close(), select.EPOLLRDHUP, id="closed"),
        pytest.param(HANGUP_ONLY, lambda guest: guest.peer.close(), select.EPOLLHUP, id="hung up"),
    ],
)
def test_events(room: Lounge, events: int, act: Callable[[Guest], object], expected: int) -> None:
    guest = Guest(room)
    guest.park(events)
    act(guest)
    assert guest.called.wait(SECONDS)
    assert isinstance(guest.calls[0], int)
    assert guest.calls[0] & expected


def test_data_does_not_wake_who_waits_for_the_end(room: Lounge) -> None:
    guest = Guest(room)
    guest.park(HANGUP_ONLY)
    guest.peer.send(b"more")
    assert not guest.called.wait(0.1)
    guest.peer.close()
    assert guest.called.wait(SECONDS)
    assert isinstance(guest.calls[0], int)
    assert guest.calls[0] & (GONE | HANGUP_ONLY)


def test_it_is_called_again_each_time_it_is_parked(room: Lounge) -> None:
    done = threading.Event()

    def answer(guest: Guest) -> None:
        data = guest.sock.recv(10)
        guest.sock.send(data.upper())
        done.set() if data == b"z" else guest.park()

    guest = Guest(room, then=answer)
    guest.park()
    for letter in b"abcdefz":
        guest.peer.send(bytes([letter]))
        guest.peer.settimeout(SECONDS)
        assert guest.peer.recv(1) == bytes([letter]).upper()
    assert done.wait(SECONDS)
    assert len(guest.calls) == 7


def test_other_events_than_before(room: Lounge) -> None:
    guest = Guest(room, then=lambda guest: guest.park(READ) if len(guest.calls) == 1 else None)
    guest.park(WRITE)
    assert guest.called.wait(SECONDS)
    guest.called.clear()
    assert not guest.called.wait(0.05)  # it can still write, and is not told
    guest.peer.send(b"x")
    assert guest.called.wait(SECONDS)
    assert guest.calls == [select.EPOLLOUT, select.EPOLLIN]


def test_deadline(room: Lounge) -> None:
    early, late = Guest(room, time.monotonic() + 0.1), Guest(room, time.monotonic() + 3600)
    early.park()
    late.park()
    began = time.monotonic()
    assert early.called.wait(SECONDS)
    assert 0.05 < time.monotonic() - began < 2
    assert early.calls == ["expired"]
    assert late.calls == []
    assert room.parked() == [late]


def test_a_deadline_that_was_moved(room: Lounge) -> None:
    guest = Guest(room, time.monotonic() + 0.1)
    guest.park()
    guest.deadline = time.monotonic() + 0.4
    assert not guest.called.wait(0.25)
    assert guest.called.wait(SECONDS)


def test_an_exception_costs_its_waiter_only(room: Lounge, threads: int) -> None:
    def fail(guest: Guest) -> None:
        raise RuntimeError("a defect")

    for _ in range(threads + 1):
        for guest in (Guest(room, then=fail), Guest(room, time.monotonic(), then=fail)):
            guest.park()
            if guest.deadline == NEVER:
                guest.peer.send(b"x")
            assert guest.called.wait(SECONDS)
            wait_for(lambda guest=guest: guest.calls[-1] == "crashed")  # type: ignore[misc]  # bound at once
    guest = Guest(room)
    guest.park()
    guest.peer.send(b"x")
    assert guest.called.wait(SECONDS)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_who_left_is_not_called(room: Lounge) -> None:
    guest = Guest(room, time.monotonic() + 0.1)
    guest.park()
    guest.close()
    guest.peer.close()
    assert not guest.called.wait(0.2)


def test_unwatch(room: Lounge) -> None:
    """Not even the other side's end wakes it, until it is parked again."""
    guest = Guest(room, time.monotonic() + 0.05)
    guest.park()
    room.unwatch(guest.fd, guest)
    guest.peer.close()
    assert not guest.called.wait(0.15)
    guest.deadline = NEVER
    guest.park()
    assert guest.called.wait(SECONDS)


def test_timers() -> None:
    """In the order of their times, and not before."""
    room, done, said = Lounge(1), threading.Event(), list[tuple[str, float]]()
    began = time.monotonic()
    for delay, name in ((0.15, "b"), (0.05, "a"), (0.2, "c")):
        room.later(began + delay, lambda name=name: said.append((name, time.monotonic() - began)))  # type: ignore[misc]
    room.later(began + 0.25, done.set)
    thread = threading.Thread(target=room.serve, daemon=True)
    thread.start()
    assert done.wait(SECONDS)
    room.closed = True
    thread.join(SECONDS)
    assert [name for name, _ in said] == ["a", "b", "c"]
    assert all(moment >= delay for (_, moment), delay in zip(said, (0.05, 0.15, 0.2), strict=True))
    assert said[0][1] < 0.15, "the thread slept on, though a timer was due"


def test_between_turns() -> None:
    room, count = Lounge(2), list[int]()
    guest = Guest(room)

    def between() -> None:
        count.append(len(guest.calls))
        room.closed = bool(guest.calls)

    guest.park()
    guest.peer.send(b"x")
    room.serve(between)
    assert count[-1] == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_it_gives_signs_of_life(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each sweep, also when nobody is there; and none when no thread serves."""
    monkeypatch.setattr(lounge, "SWEEP_SECONDS", 0.02)
    beats, many = list[float](), threading.Event()

    def beat(now: float) -> None:
        beats.append(now)
        if len(beats) == 5:
            many.set()

    room = Lounge(threads, beat)
    assert not many.wait(0.2)
    service = [threading.Thread(target=room.serve, daemon=True) for _ in range(threads)]
    began = time.monotonic()
    for thread in service:
        thread.start()
    assert many.wait(SECONDS)
    room.closed = True
    for thread in service:
        thread.join(SECONDS)
    assert began <= min(beats) <= max(beats) <= time.monotonic()


# --- one batch, one descriptor number, two waiters --------------------------------------------


def test_an_old_event_does_not_reach_who_has_the_number_now() -> None:
    """Two are ready in one batch; the first closes the second, and the number is another's before its turn comes."""
    room = Lounge(1)
    replaced: list[Guest] = []

    def take_over(guest: Guest) -> None:
        victim = next(other for other in pair if other is not guest)
        if replaced or victim.calls:
            return
        fresh, number = Guest(room), victim.fd
        victim.room.forget(number, victim)
        os.dup2(fresh.fd, number)  # closes what had the number
        fresh.sock.close()
        fresh.sock = socket.socket(fileno=victim.sock.detach())
        fresh.sock.setblocking(False)
        fresh.fd = number
        fresh.park()
        replaced.append(fresh)

    pair = [Guest(room, then=take_over), Guest(room, then=take_over)]
    for guest in pair:
        guest.park()
        guest.peer.send(b"x")
    thread = threading.Thread(target=room.serve, daemon=True)
    thread.start()
    wait_for(lambda: bool(replaced))
    (fresh,) = replaced
    assert not fresh.called.wait(0.1), "it was told what had come for another"
    fresh.peer.send(b"y")  # its own event does come
    assert fresh.called.wait(SECONDS)
    assert fresh.sock.recv(2) == b"y"
    room.closed = True
    thread.join(SECONDS)
    assert sum(bool(guest.calls) for guest in pair) == 1


def test_what_comes_for_a_copy_of_a_closed_socket_reaches_nobody() -> None:
    """An application may have forked a program that has one: epoll goes on with it, under the old number; epoll(7)."""
    room = Lounge(2)
    old = Guest(room)
    old.park()
    assert room.claim(old.fd, old)  # its deadline has passed, say
    copy = os.dup(old.fd)
    try:
        number = old.fd
        old.close()
        fresh = Guest(room)
        if fresh.fd != number:
            os.dup2(fresh.fd, number)
            fresh.sock.close()
            fresh.sock, fresh.fd = socket.socket(fileno=number), number
        fresh.park()
        old.peer.close()
        one_turn(room)
        assert fresh.calls == []
        fresh.peer.send(b"x")
        one_turn(room)
        assert fresh.calls == [select.EPOLLIN]
    finally:
        os.close(copy)


def test_each_event_has_one_owner() -> None:
    """Eight threads, a hundred waiters, some of whom are late as well: never two at once with one of them."""
    room = Lounge(8)
    owners, mistakes = dict[Guest, int](), list[object]()
    stop = threading.Event()

    def own(guest: Guest) -> None:
        if owners.setdefault(guest, threading.get_ident()) != threading.get_ident():
            mistakes.append(guest)
        with suppress(BlockingIOError):
            guest.sock.recv(10)
        time.sleep(0)  # lets another thread in, if the lounge would
        if owners.pop(guest, None) != threading.get_ident():
            mistakes.append(guest)
        guest.deadline = time.monotonic() + 0.001 * (len(guest.calls) % 5)
        if not stop.is_set():
            guest.park()

    for _ in range(100):
        Guest(room, time.monotonic() + 0.01, then=own)
    service = [threading.Thread(target=room.serve, daemon=True) for _ in range(8)]
    for thread in service:
        thread.start()
    for guest in guests:
        guest.park()
    for _ in range(100):
        for guest in guests:
            guest.peer.send(b"x")
    stop.set()
    room.closed = True
    for thread in service:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert not mistakes
    assert "crashed" not in [call for guest in guests for call in guest.calls]
    assert sum(len(guest.calls) for guest in guests) > 100


# --- claims and other races, each driven to the moment that it is about ------------------------


class Epoll:
    """The lounge's epoll; before it registers or modifies a descriptor, something else happens."""

    def __init__(self, room: Lounge, before: Callable[[], object]) -> None:
        self._real = room._epoll
        self._before: Callable[[], object] | None = before
        room._epoll = cast(select.epoll, self)

    def _interrupt(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            before()

    def register(self, fd: int, events: int) -> None:
        self._interrupt()
        self._real.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        self._interrupt()
        self._real.modify(fd, events)

    def unregister(self, fd: int) -> None:
        self._real.unregister(fd)

    def poll(self, seconds: float, batch: int) -> list[tuple[int, int]]:
        return self._real.poll(seconds, batch)


def one_turn(room: Lounge) -> None:
    """What is ready now, or soon, is served."""

    def stop() -> None:
        room.closed = True

    room.closed = False
    room.serve(stop)


@pytest.mark.parametrize("count", [1, 3])
def test_claim(count: int) -> None:
    """Who claims a parked waiter owns it: neither its event nor its deadline comes to it any more."""
    room = Lounge(count)
    guest, stranger = Guest(room), Guest(room)
    assert not room.claim(guest.fd, guest)
    guest.park()
    assert room.parked() == [guest]
    assert room.claim(guest.fd, guest)
    assert room.parked() == []
    assert not room.claim(guest.fd, guest)
    guest.deadline = 0.0
    guest.peer.send(b"x")
    room._expire(guest.fd, guest, time.monotonic())
    stranger.park()  # so that there is something to wait for
    stranger.peer.send(b"x")
    for _ in range(3):
        one_turn(room)
    assert (guest.calls, stranger.calls) == ([], [select.EPOLLIN])


@pytest.mark.parametrize("count", [1, 3])
def test_a_claim_on_a_number_that_is_anothers(count: int) -> None:
    """The other stays parked, and hears what came while the claim held it."""
    room = Lounge(count)
    left, other = Guest(room), Guest(room)
    other.park()

    def event_finds_nobody() -> None:
        other.peer.send(b"x")
        one_turn(room)
        assert other.calls == []

    put_back = room._put_back

    def slowly(fd: int, waiter: lounge.Waiter) -> None:
        event_finds_nobody()
        put_back(fd, waiter)

    room._put_back = slowly  # type: ignore[method-assign]
    assert room.claim(other.fd, left) is False
    assert room.parked() == [other]
    one_turn(room)
    assert other.calls == [select.EPOLLIN]


def test_the_sweep_holds_one_whose_deadline_was_moved_while_its_event_comes() -> None:
    """It is served by the event, after all."""
    room = Lounge(3)
    guest = Guest(room, time.monotonic() + 60)
    guest.park()

    def event_finds_nobody() -> None:
        room._parked.clear()
        guest.peer.send(b"x")
        one_turn(room)
        assert guest.calls == []
        room._parked[guest.fd] = guest

    Epoll(room, event_finds_nobody)
    room._expire(guest.fd, guest, time.monotonic())
    one_turn(room)
    assert guest.calls == [select.EPOLLIN]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("held_by", ["sweep", "claim"])
def test_one_who_is_parked_for_the_first_time_and_held_before_it_is_registered(count: int, held_by: str) -> None:
    """Neither of the two threads that meet there fails, and what comes then is heard."""
    room = Lounge(count)
    guest, stranger = Guest(room, time.monotonic() + 60), Guest(room)

    def hold() -> None:
        if held_by == "sweep":
            room._expire(guest.fd, guest, time.monotonic())
        else:
            assert not room.claim(guest.fd, stranger)

    Epoll(room, hold)
    guest.park()
    assert room.parked() == [guest]
    guest.peer.send(b"x")
    one_turn(room)
    assert guest.calls == [select.EPOLLIN]


@pytest.mark.parametrize("again", [False, True], ids=["first time", "again"])
def test_one_whose_deadline_passes_while_it_is_parked(again: bool) -> None:
    """Another thread has closed it before epoll is told: who parked it has nothing more to do with it."""
    room = Lounge(3)
    guest = Guest(room, time.monotonic() + 60, then=Guest.close)
    if again:
        guest.park()
        assert room.claim(guest.fd, guest)
    guest.deadline = 0.0
    Epoll(room, lambda: room._expire(guest.fd, guest, time.monotonic()))
    guest.park()
    assert guest.calls == ["expired"]
    assert room.parked() == []


@pytest.mark.parametrize("again", [False, True], ids=["first time", "again"])
def test_epoll_refuses(again: bool) -> None:
    """As it does with ENOSPC: who parked it still owns it, and hears of the error; nobody else has it."""
    room = Lounge(3)
    guest = Guest(room)
    if again:
        guest.park()
        assert room.claim(guest.fd, guest)

    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Epoll(room, refuse)
    with pytest.raises(OSError, match="No space"):
        guest.park()
    assert room.parked() == []
    assert guest.calls == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("late", [False, True], ids=["ready", "expired"])
def test_not_even_an_exit_ends_the_thread(room: Lounge, threads: int, error: type[BaseException], late: bool) -> None:
    """An application's file may raise anything where the lounge reads it."""

    def leave(guest: Guest) -> None:
        raise error

    for _ in range(threads + 1):
        guest = Guest(room, 0.0 if late else NEVER, then=leave)
        guest.park()
        if not late:
            guest.peer.send(b"x")
        wait_for(lambda guest=guest: guest.calls[-1:] == ["crashed"])  # type: ignore[misc]  # bound at once
    after = Guest(room)
    after.park()
    after.peer.send(b"x")
    assert after.called.wait(SECONDS)


# --- what is deferred ----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_deferred_is_done_after_those_who_are_ready(threads: int) -> None:
    """Three come at once: the first defers its work until the two others have been served."""
    room = Lounge(threads)
    order: list[str] = []

    def defer(guest: Guest) -> None:
        room.defer(guest.fd, guest, finish)

    def finish() -> None:
        order.append("deferred")
        room.closed = True

    first = Guest(room, then=defer)
    others = [Guest(room, then=lambda guest: order.append("served")) for _ in range(2)]
    for guest in (first, *others):
        guest.peer.send(b"x")
        guest.park()
    room.serve()
    assert order == ["served", "served", "deferred"]


def test_a_lounge_of_one_thread_is_busy_when_several_are_ready() -> None:
    room = Lounge(1)
    seen: list[bool] = []

    def note(guest: Guest) -> None:
        guest.sock.recv(1)
        seen.append(room.busy)
        room.closed = len(seen) == 3

    one, two, three = (Guest(room, then=note) for _ in range(3))
    one.peer.send(b"x")
    one.park()

    def then_two_more() -> None:
        if len(seen) == 1:
            for guest in (two, three):
                guest.peer.send(b"x")
                guest.park()

    room.serve(then_two_more)
    assert seen == [False, True, True]
    assert Lounge(2).busy, "with several threads nobody can know"


def test_who_has_deferred_is_not_woken_meanwhile() -> None:
    """Its first bytes stay in the socket; they must not make the thread spin."""
    room = Lounge(1)
    done: list[str] = []

    def defer(guest: Guest) -> None:
        room.defer(guest.fd, guest, lambda: done.append("deferred"))

    guest = Guest(room, then=defer)
    guest.peer.send(b"x")
    guest.park()

    def stop() -> None:
        room.closed = bool(done) and room._epoll.poll(0) == []

    room.serve(stop)
    assert (len(guest.calls), done) == (1, ["deferred"])


def test_what_is_deferred_twice_between_two_waits() -> None:
    """It was not parked in between, and epoll knows it no more."""
    room = Lounge(1)
    done: list[str] = []

    def again() -> None:
        done.append("first")
        room.defer(guest.fd, guest, finish)

    def finish() -> None:
        done.append("second")
        room.closed = True

    guest = Guest(room, then=lambda guest: room.defer(guest.fd, guest, again))
    guest.peer.send(b"x")
    guest.park()
    room.serve()
    assert done == ["first", "second"]


def test_a_defect_of_what_is_deferred_is_not_taken_for_an_empty_queue() -> None:
    room = Lounge(1)
    late = Guest(room)

    def fail() -> None:
        raise IndexError("of its own")

    room.defer(late.fd, late, fail)
    with pytest.raises(IndexError, match="of its own"):
        room.serve()


def test_deferred_work_is_done_though_others_are_always_ready() -> None:
    room = Lounge(2)
    done: list[str] = []

    def again(guest: Guest) -> None:
        if not done:
            guest.park()

    busy = Guest(room, then=again)
    busy.peer.send(b"x")
    busy.park()
    late = Guest(room)

    def finish() -> None:
        done.append("deferred")
        room.closed = True

    room.defer(late.fd, late, finish)
    room.serve()
    assert done
    assert len(busy.calls) < 2 * lounge.TURNS_PER_DEFERRED
