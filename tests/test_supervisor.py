"""supervisor.py: every decision about workers, on workers that do not exist, with a clock of the test's own.

Real processes and real signals: blackbox/test_life.py.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from uwsgi_tls import fleet, looks, respawn, signals, supervisor, titles, watch, worker, workers
from uwsgi_tls.change import Change, Left, Succession
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.heritage import UPGRADE, Heritage
from uwsgi_tls.options import Config
from uwsgi_tls.scoreboard import Scoreboard, Slot
from uwsgi_tls.supervisor import Supervisor
from uwsgi_tls.worker import Task
from uwsgi_tls.workers import Worker, Workers

EXITED = 0x100  # wait(2) statuses
DIED_OF_22 = 22 << 8
KILLED = 9


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Pipe:
    """A master-fifo that a test writes to."""

    path = "/fifo"
    moment = float("inf")

    def __init__(self) -> None:
        self.written: tuple[list[str], str] = [], ""

    def letters(self, now: float) -> tuple[list[str], str]:
        written, self.written = self.written, ([], "")
        return written


class Entries(Workers):
    """Workers that are entries only: pids are made up, and what would be sent to them is noted."""

    master: Master

    def spawn(self, task: Task, number: int, generation: int) -> None:
        self.master.spawned.append((number, generation))
        pid = len(self.master.theirs) + 1
        ours, self.master.theirs[pid] = socket.socketpair()
        slot = self._scoreboard.take()
        self._by_pid[pid] = Entry(
            *(number, generation, pid, ours, self.master.clock.monotonic(), slot, task.harakiri), master=self.master
        )


@dataclass(slots=True)
class Entry(Worker):
    master: Master = None  # type: ignore[assignment]  # it is always given

    def signal(self, number: int) -> None:
        name = "STACKS" if number == worker.STACKS_SIGNAL else signal.Signals(number).name
        self.master.signals.append((self.number, name))


class Master(Supervisor):
    """A supervisor whose workers are entries only; what it would do to them is noted."""

    def __init__(self, processes: int, clock: Clock, board: Scoreboard | None = None, **options: Any) -> None:
        self.clock = clock
        self.reports: list[int] = []
        self.spawned: list[tuple[int, int]] = []  # number, generation
        self.signals: list[tuple[int, str]] = []  # number, signal
        self.said: list[str] = []
        self.reopened = 0
        self.processes = processes  # as the configuration has it by now
        self.changes: list[str] = []
        self.reopen_fails = ""
        self.theirs: dict[int, socket.socket] = {}
        self.hours: list[float] = []
        self.changed = self.monitor_ended = False
        self.watch = SimpleNamespace(has_changed=lambda: self.changed)
        self.told: list[tuple[str, str, list[str]]] = []  # how, what failed last, what is wrong
        self.pipe = Pipe()
        self.monitor = SimpleNamespace(has_ended=lambda: self.monitor_ended, pid=4321)
        config = Config(processes=processes, reload_mercy=60, **options)
        super().__init__(
            Task(config, ["certificates of 1"], [], None, os.getpid()),  # type: ignore[list-item]
            reopen=self.reopen,
            started=self.reports.append,
            masters_own=lambda _: None,
            hourly=lambda: self.hours.append(clock.now),
            monitor=self.monitor,  # type: ignore[arg-type]
            watch=self.watch,  # type: ignore[arg-type]
            scoreboard=board,
            teller=SimpleNamespace(  # type: ignore[arg-type]
                write=lambda _, failure, wrong: self.told.append(("write", failure, wrong)),
                log=lambda _, failure, wrong: self.told.append(("log", failure, wrong)),
            ),
            fifos=[self.pipe],  # type: ignore[list-item]
        )
        self._workers = self._fleet.workers = Entries(self._scoreboard, lambda _: None)
        self._workers.master = self

    def reopen(self) -> Change:
        self.reopened += 1
        if self.reopen_fails:
            raise ConfigError("https", "=0,a,b", self.reopen_fails)
        made = [f"certificates of {self.reopened + 1}"]
        config = replace(self._fleet.task.config, processes=self.processes)
        task = replace(self._fleet.task, config=config, listeners=made)  # type: ignore[arg-type]
        return Change(
            task,
            self.watch,  # type: ignore[arg-type]
            lambda: self.changes.append("commit"),
            lambda: self.changes.append("abandon"),
        )

    # What happens to it.

    def begin(self) -> None:
        self._fleet.begin()

    def of(self, number: int, generation: int | None = None) -> Worker:
        """The worker of this number that is not retiring."""
        (found,) = (
            child
            for child in self._workers
            if child.number == number and not child.retiring and generation in (None, child.generation)
        )
        return found

    def gets_ready(self, *children: Worker) -> None:
        for child in children:
            self.theirs[child.pid].send(worker.READY)
        self._hear()

    def dies(self, child: Worker, status: int = KILLED) -> None:
        self._buried(*self._workers._buried(child.pid, status))

    def numbers(self) -> list[tuple[int, int]]:
        """Number and generation of all that are there and not on their way out."""
        return sorted((child.number, child.generation) for child in self._workers if not child.retiring)

    @property
    def state(self) -> str:
        return self._scoreboard.read().state

    @property
    def generation(self) -> int:
        return self._fleet.generation

    @property
    def listeners(self) -> object:
        return self._fleet.task.listeners[0]

    @property
    def over(self) -> bool:
        return self._stop_at is not None and not self._workers

    def close(self) -> None:
        for sock in self.theirs.values():
            sock.close()
        for child in self._workers:
            child.channel.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(titles, "set_title", lambda prefix, text: None)
    monkeypatch.setattr(supervisor, "time", clock)
    for module in (workers, fleet, looks):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def starting(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    """Three workers of which none is ready yet."""
    master = Master(3, clock)
    monkeypatch.setattr(supervisor, "line", master.said.append)
    for module in (workers, fleet):
        monkeypatch.setattr(module, "line", master.said.append)
    master.begin()
    yield master
    master.close()


@pytest.fixture
def master(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    """Two workers that serve."""
    master = Master(2, clock)
    monkeypatch.setattr(supervisor, "line", master.said.append)
    for module in (workers, fleet):
        monkeypatch.setattr(module, "line", master.said.append)
    master.begin()
    master.gets_ready(*master._workers)
    master.spawned.clear()
    yield master
    master.close()


# --- the start --------------------------------------------------------------------------------


def test_it_has_started_when_all_are_ready(starting: Master) -> None:
    for number in (1, 3):
        starting.gets_ready(starting.of(number))
        assert starting.reports == []
    starting.gets_ready(starting.of(2))
    assert starting.reports == [0]
    assert starting.state == "serving"


@pytest.mark.parametrize(("status", "expected"), [(KILLED, 1), (0, 1), (EXITED, 1), (DIED_OF_22, 22)])
def test_a_start_that_fails(starting: Master, status: int, expected: int) -> None:
    """The first worker that cannot start ends it all, with its own status."""
    starting.gets_ready(starting.of(1))
    starting.dies(starting.of(2), status)
    assert starting.reports == [expected]
    assert starting.signals == [(1, "SIGKILL"), (3, "SIGKILL")]
    starting.dies(starting.of(1))
    starting.dies(starting.of(3), DIED_OF_22)
    assert starting.over
    assert starting._status == expected


# --- deaths -----------------------------------------------------------------------------------


def test_back_off(master: Master, clock: Clock) -> None:
    """At once, then after 0.5, 1, 2 ... 30 seconds as long as it dies young; the other one is not concerned."""
    delays = []
    for _ in range(10):
        master.dies(master.of(1))
        began = clock.now
        master._keep_time()
        while not master.spawned:
            step = master._patience()
            assert step > 0
            clock.now += step
            master._keep_time()
        delays.append(clock.now - began)
        assert master.spawned == [(1, 1)]
        master.spawned.clear()
        master.gets_ready(master.of(1))
    assert delays == pytest.approx([0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30])
    master.dies(master.of(2))
    master._keep_time()
    assert master.spawned == [(2, 1)]


def test_a_worker_that_has_lived_is_replaced_at_once(master: Master, clock: Clock) -> None:
    for _ in range(4):
        master.dies(master.of(1))
        clock.now += 5
        master._keep_time()
    clock.now += respawn.YOUNG_SECONDS
    master.spawned.clear()
    master.dies(master.of(1))
    master._keep_time()
    assert master.spawned == [(1, 1)]


def test_a_successor_that_cannot_start_is_no_failed_start(master: Master, clock: Clock) -> None:
    master.dies(master.of(1))
    master._keep_time()
    master.dies(master.of(1), DIED_OF_22)
    assert not master.signals
    clock.now += 1
    master._keep_time()
    assert master.numbers() == [(1, 1), (2, 1)]
    assert master.reports == [0]


# --- reloads ----------------------------------------------------------------------------------


def test_reload(master: Master) -> None:
    """The old ones serve until all new ones are ready; then they retire."""
    master._take(signal.SIGHUP)
    assert master.spawned == [(1, 2), (2, 2)]
    master.gets_ready(master.of(1, 2))
    assert (master.generation, master.signals) == (1, [])
    master.gets_ready(master.of(2, 2))
    assert master.generation == 2
    assert master.signals == [(1, "SIGTERM"), (2, "SIGTERM")]
    assert master.listeners == "certificates of 2"
    for child in [child for child in master._workers if child.generation == 1]:
        master.dies(child, 0)
    master._keep_time()
    assert master.numbers() == [(1, 2), (2, 2)]
    assert master.spawned == [(1, 2), (2, 2)]


def test_a_file_that_cannot_be_used_rejects_the_reload(master: Master) -> None:
    master.reopen_fails = "key: does not match"
    master._take(signal.SIGHUP)
    assert (master.spawned, master.generation, master.listeners) == ([], 1, "certificates of 1")
    assert any("generation 1 stays" in text and "key: does not match" in text for text in master.said)
    master.reopen_fails = ""
    master._take(signal.SIGHUP)
    assert master.spawned == [(1, 2), (2, 2)]


def test_so_does_a_defect(master: Master) -> None:
    master._reopen = lambda: [][0]
    master._take(signal.SIGHUP)
    assert master.spawned == []
    assert any("a defect" in text and "IndexError" in text for text in master.said)


def test_a_hang_up_while_one_is_under_way_is_taken_up_after_it(master: Master) -> None:
    """The files may have been read before what it is about was written."""
    for _ in range(3):
        master._take(signal.SIGHUP)
    assert master.spawned == [(1, 2), (2, 2)]
    master.gets_ready(*master._workers)
    assert master.spawned[2:] == [(1, 3), (2, 3)]
    master.gets_ready(*master._workers)
    assert (master.generation, master.spawned[4:]) == (3, [])


def test_and_after_one_that_has_failed(master: Master) -> None:
    master._take(signal.SIGHUP)
    master._take(signal.SIGHUP)
    master.dies(master.of(2, 2), DIED_OF_22)
    assert master.spawned[2:] == [(1, 2), (2, 2)]


def test_changed_files_bring_a_reload_about(master: Master, clock: Clock) -> None:
    master.changed = True
    master._keep_time()
    assert master.spawned == []  # it is not time to look yet
    clock.now += watch.LOOK_SECONDS
    master._keep_time()
    assert master.spawned == [(1, 2), (2, 2)]


def test_whoever_is_missing_comes_before_the_files_are_looked_at(master: Master, clock: Clock) -> None:
    """A monitor that is stuck lets that last."""
    master.dies(master.of(1))
    clock.now += watch.LOOK_SECONDS
    alive: list[int] = []
    master._notifier.keep_time = lambda now, is_alive: alive.append(1)  # type: ignore[method-assign]

    def look() -> bool:
        assert (master.spawned, alive) == ([(1, 1)], [1])
        return False

    master.watch.has_changed = look
    master._keep_time()


def test_a_change_while_a_reload_is_under_way_is_not_lost(master: Master, clock: Clock) -> None:
    """The watch is not asked then, since it tells of a change but once."""
    master._take(signal.SIGHUP)
    master.watch.has_changed = lambda: pytest.fail("asked")
    clock.now += watch.LOOK_SECONDS
    master._keep_time()
    master.watch.has_changed = lambda: True
    master.gets_ready(*master._workers)
    clock.now += watch.LOOK_SECONDS
    master._keep_time()
    assert master.spawned[2:] == [(1, 3), (2, 3)]


def test_the_end_of_the_monitor_is_told(master: Master) -> None:
    master.monitor_ended = True
    master._reap()
    assert any("the monitor has ended" in text for text in master.said)


def test_once_an_hour(master: Master, clock: Clock) -> None:
    for _ in range(4):
        clock.now += 3500.0
        master._keep_time()
    assert len(master.hours) == 2
    assert master._patience() <= 3600.0


def test_reload_that_fails(master: Master, clock: Clock) -> None:
    """One new worker cannot start: the new generation is ended, the old one never noticed."""
    master._take(signal.SIGHUP)
    ready, broken = master.of(1, 2), master.of(2, 2)
    master.gets_ready(ready)
    master.dies(broken, DIED_OF_22)
    assert master.signals == [(1, "SIGKILL")]
    master.dies(ready)
    master._keep_time()
    assert master.numbers() == [(1, 1), (2, 1)]
    assert (master.generation, master.state) == (1, "serving")
    master._take(signal.SIGHUP)
    master.gets_ready(*master._workers)
    assert master.numbers() == [(1, 2), (2, 2)]


def test_an_old_worker_that_dies_while_a_reload_is_under_way(master: Master, clock: Clock) -> None:
    """Who is to come may be long in coming."""
    before, tasks = master._fleet.task, []
    master._take(signal.SIGHUP)
    spawn = master._workers.spawn
    master._workers.spawn = lambda task, *rest: (tasks.append(task), spawn(task, *rest))[1]  # type: ignore[method-assign, func-returns-value]
    master.dies(master.of(1, 1))
    master._keep_time()
    assert (master.spawned[2:], tasks) == ([(1, 1)], [before])
    master.dies(master.of(1, 1), DIED_OF_22)
    master._keep_time()
    assert master.spawned[3:] == [], "one that dies young is waited for"
    clock.now += respawn.BACK_OFF_SECONDS
    master._keep_time()
    assert (master.spawned[3:], tasks) == ([(1, 1)], [before, before])
    master.gets_ready(master.of(1, 1))
    master.gets_ready(master.of(1, 2), master.of(2, 2))
    assert (master.generation, master.numbers()) == (2, [(1, 2), (2, 2)])


def test_nor_does_one_come_whose_number_serves_already(master: Master, clock: Clock) -> None:
    master._take(signal.SIGHUP)
    master.gets_ready(master.of(1, 2))
    master.dies(master.of(1, 1))
    master._keep_time()
    assert master.spawned[2:] == []
    master.dies(master.of(2, 2), DIED_OF_22)  # but if the reload fails
    master._keep_time()
    assert master.spawned[2:] == [(1, 1)]


def test_one_that_was_to_come_until_the_reload_does_not_come_after_it(master: Master, clock: Clock) -> None:
    master._take(signal.SIGHUP)
    for _ in range(2):
        master.dies(master.of(1, 1))
        clock.now += 0.1
        master._keep_time()
    master.gets_ready(master.of(1, 2), master.of(2, 2))
    clock.now += 60
    master._keep_time()
    assert master.numbers() == [(1, 2), (2, 2)]


def test_a_new_worker_that_was_ready_and_dies_before_the_others_are(master: Master, clock: Clock) -> None:
    master._take(signal.SIGHUP)
    master.gets_ready(master.of(1, 2))
    master.dies(master.of(1, 2))
    master._keep_time()
    assert master.spawned[-1] == (1, 2)
    master.gets_ready(master.of(1, 2), master.of(2, 2))
    assert master.generation == 2


def test_a_pending_replacement_is_overtaken_by_a_reload(master: Master, clock: Clock) -> None:
    for _ in range(2):
        master.dies(master.of(1))
        clock.now += 0.1
        master._keep_time()
    assert master.numbers() == [(2, 1)]
    master._take(signal.SIGHUP)
    master.gets_ready(*master._workers)
    clock.now += 60
    master._keep_time()
    assert master.numbers() == [(1, 2), (2, 2)]


# --- workers that are worn --------------------------------------------------------------------


def asks(master: Master, child: Worker) -> None:
    """It asks for its successor, and the master has its turn."""
    master.theirs[child.pid].send(worker.WORN)
    master._hear()
    master._keep_time()


def test_a_worn_worker_serves_until_its_successor_is_ready(master: Master) -> None:
    old = master.of(1)
    asks(master, old)
    assert (master.spawned, master.signals) == ([(1, 1)], [])
    (new,) = (child for child in master._workers if child.number == 1 and child is not old)
    master.gets_ready(new)
    assert master.signals == [(1, "SIGTERM")]
    assert (old.retiring, new.retiring) == (True, False)
    master.dies(old, 0)
    master._keep_time()
    assert master.spawned == [(1, 1)]
    assert master.numbers() == [(1, 1), (2, 1)]


def test_a_successor_comes_only_when_the_one_before_is_gone(master: Master) -> None:
    """Clients that dribble keep those alive that retire: a number has no more than one of these for that."""
    first = master.of(1)
    asks(master, first)
    second = next(child for child in master._workers if not child.ready)
    master.gets_ready(second)
    assert first.retiring
    asks(master, second)
    assert master.spawned == [(1, 1)]
    other = master.of(2)
    asks(master, other)
    assert master.spawned == [(1, 1), (2, 1)], "it holds up no other number"
    master.gets_ready(next(child for child in master._workers if not child.ready))
    master.dies(first, 0)
    master._keep_time()
    assert master.spawned == [(1, 1), (2, 1), (1, 1)]


def test_one_after_the_other(master: Master) -> None:
    first, second = master.of(1), master.of(2)
    asks(master, first)
    asks(master, second)
    assert master.spawned == [(1, 1)]
    master.gets_ready(*(child for child in master._workers if not child.ready))
    master._keep_time()
    assert master.spawned == [(1, 1), (2, 1)]


def test_a_successor_that_dies_is_tried_again_later(master: Master, clock: Clock) -> None:
    old = master.of(1)
    asks(master, old)
    for _ in range(2):
        (new,) = (child for child in master._workers if not child.ready)
        master.dies(new, DIED_OF_22)
        master._keep_time()
    assert len(master.spawned) == 2
    assert not master.signals
    clock.now += 0.5
    master._keep_time()
    assert len(master.spawned) == 3
    assert not old.retiring


def test_an_old_one_that_dies_meanwhile(master: Master, clock: Clock) -> None:
    """Its successor is on its way already, and one is enough."""
    old = master.of(1)
    asks(master, old)
    master.dies(old)
    clock.now += 60
    master._keep_time()
    assert master.spawned == [(1, 1)]
    master.gets_ready(master.of(1))
    assert master.numbers() == [(1, 1), (2, 1)]


def test_worn_while_a_reload_is_under_way(master: Master) -> None:
    """The reload brings its successor; where that fails, it comes after all."""
    old = master.of(1)
    master._take(signal.SIGHUP)
    asks(master, old)
    assert master.spawned == [(1, 2), (2, 2)]
    new = [child for child in master._workers if child.generation == 2]
    master.dies(new[0], DIED_OF_22)
    master.dies(new[1])
    master._keep_time()
    assert master.spawned[2:] == [(1, 1)]


def test_nobody_is_replaced_in_a_stop(master: Master) -> None:
    old = master.of(1)
    master._take(signal.SIGTERM)
    asks(master, old)
    assert master.spawned == []


# --- time that is over ------------------------------------------------------------------------


def test_a_start_that_does_not_end(starting: Master, clock: Clock) -> None:
    """It is told to say where it is, then killed, and the start has failed."""
    starting.gets_ready(starting.of(1), starting.of(2))
    clock.now += 120
    starting._keep_time()
    assert starting.signals == [(3, "STACKS")]
    clock.now += workers.FIRST_WORD_SECONDS
    starting._keep_time()
    assert starting.signals == [(3, "STACKS"), (3, "SIGKILL")]
    starting.dies(starting.of(3))
    assert starting.reports == [1]


def test_harakiri(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, counted, and replaced at once however young it was and however often that happens."""
    master = Master(1, clock, wsgi_file="app.py", harakiri=5)
    monkeypatch.setattr(supervisor, "line", master.said.append)
    for module in (workers, fleet):
        monkeypatch.setattr(module, "line", master.said.append)
    master.begin()
    master._keep_time()
    for count in (1, 2, 3):
        child = master.of(1)
        master.gets_ready(child)
        began = clock.now
        for _ in range(6):
            assert (1, "STACKS") not in master.signals[2 * (count - 1) :]
            clock.now += 1
            child.slot.beat(clock.now, began)
            master._keep_time()
        assert master.signals[-1] == (1, "STACKS")
        assert master._scoreboard.read().harakiris == count
        clock.now += workers.FIRST_WORD_SECONDS
        master._keep_time()
        assert master.signals[-1] == (1, "SIGKILL")
        master.dies(child)
        master._keep_time()
        assert len(master.spawned) == 1 + count
    master.close()


def test_no_harakiri_without_an_application(clock: Clock) -> None:
    master = Master(1, clock, harakiri=5)
    master.begin()
    master.gets_ready(master.of(1))
    clock.now += 60
    master._keep_time()
    assert master.signals == []
    master.close()


# --- giving up --------------------------------------------------------------------------------


def fails_to_start(master: Master, clock: Clock) -> None:
    """Whoever comes next dies before it is ready."""
    while all(child.ready for child in master._workers):
        clock.now += 1
        master._keep_time()
    master.dies(next(child for child in master._workers if not child.ready), DIED_OF_22)


def test_it_gives_up_when_nobody_serves_and_nobody_can(master: Master, clock: Clock) -> None:
    master.dies(master.of(1))
    for _ in range(30):
        fails_to_start(master, clock)
    assert master._status == supervisor.EXIT_STOPPED, "the other one serves"
    master.dies(master.of(2))
    while not master.over:
        fails_to_start(master, clock)
    assert master._status == supervisor.EXIT_GAVE_UP
    assert any("respawning too fast" in text for text in master.said)


def test_one_that_becomes_ready_ends_the_count(master: Master, clock: Clock) -> None:
    for child in list(master._workers):
        master.dies(child)
    for _ in range(19):
        fails_to_start(master, clock)
    while all(child.ready for child in master._workers):
        clock.now += 1
        master._keep_time()
    master.gets_ready(next(child for child in master._workers if not child.ready))
    master.dies(master.of(next(iter(master.numbers()))[0]))
    fails_to_start(master, clock)
    assert not master.over


def test_a_first_start_without_forks_fails_in_the_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    master = Master(2, clock)
    monkeypatch.setattr(supervisor, "line", master.said.append)
    monkeypatch.setattr(master._workers, "spawn", refuse)
    master.begin()
    began = clock.now
    while not master.over:
        clock.now += master._patience()
        master._keep_time()
    assert master.reports == [supervisor.EXIT_GAVE_UP]
    assert 60 < clock.now - began < 200


# --- the service manager ----------------------------------------------------------------------


class Manager:
    """What the service manager is told."""

    watchdog, moment = 20.0, float("inf")

    def __init__(self) -> None:
        self.told: list[str] = []
        self.alive: bool | None = None

    def enter(self, state: str, status: str) -> None:
        assert status.startswith(f"{state}: generation ")
        self.told.append(status)

    def keep_time(self, now: float, is_alive: Callable[[], bool]) -> None:
        self.alive = is_alive()


def managed(master: Master) -> Manager:
    master._notifier = master._standing._notifier = manager = Manager()  # type: ignore[assignment]
    return manager


@pytest.fixture
def manager(master: Master) -> Manager:
    manager = managed(master)
    for child in master._workers:
        child.slot.beat(master.clock.now)
    return manager


def test_the_manager_is_told_of_the_start_once_it_serves(starting: Master) -> None:
    manager = managed(starting)
    starting.gets_ready(starting.of(1), starting.of(2))
    starting.dies(starting.of(1))  # which was ready, so it is replaced: no failed start
    assert [status.partition(";")[0] for status in manager.told] == ["starting: generation 1, workers 3"]
    starting._keep_time()
    starting.gets_ready(starting.of(1), starting.of(3))
    assert manager.told[1:] == ["serving: generation 1, workers 3"]
    assert starting.reports == [0]


def test_a_failed_start_is_told(starting: Master) -> None:
    manager = managed(starting)
    starting.dies(starting.of(2), DIED_OF_22)
    assert manager.told == [
        "stopping: generation 1, workers 3; last failure: worker 2 (pid: 2) could not start (exit 22)"
    ]


def test_a_reload_is_told_before_and_after(master: Master, manager: Manager) -> None:
    reopen = master._reopen
    master._reopen = lambda: manager.told.append("files are read") or reopen()  # type: ignore[func-returns-value]
    master._take(signal.SIGHUP)
    assert manager.told == ["reloading: generation 1, workers 2", "files are read"]
    master.gets_ready(master.of(1, 2))
    assert len(manager.told) == 2
    master.gets_ready(master.of(2, 2))
    assert manager.told[2:] == ["serving: generation 2, workers 2"]


def test_one_that_had_to_wait_is_told_when_it_begins(master: Master, manager: Manager) -> None:
    """With Type=notify-reload the manager waits for a RELOADING that is younger than its signal."""
    master._take(signal.SIGHUP)
    master._take(signal.SIGHUP)
    master.gets_ready(*master._workers)
    master.gets_ready(*master._workers)
    states = [status.partition(":")[0] for status in manager.told]
    assert states == ["reloading", "serving", "reloading", "serving"]


def test_a_reload_that_cannot_be_is_told_too(master: Master, manager: Manager) -> None:
    master.reopen_fails = "key: does not match"
    master._take(signal.SIGHUP)
    assert manager.told[0] == "reloading: generation 1, workers 2"
    assert manager.told[1].startswith(
        "serving: generation 1, workers 2; last failure: reload failed, generation 1 stays"
    )
    master.reopen_fails = ""
    master._take(signal.SIGHUP)
    master.dies(master.of(1, 2), DIED_OF_22)
    assert manager.told[3].startswith(
        "serving: generation 1, workers 2; last failure: reload failed, generation 1 stays"
    )
    assert len(manager.told) == 4
    for child in [child for child in master._workers if child.retiring]:
        master.dies(child)
    master._take(signal.SIGHUP)
    master.gets_ready(*master._workers)
    assert "last failure" not in manager.told[-1]


def test_a_death_in_a_reload_does_not_end_it(master: Master, manager: Manager) -> None:
    """Who waits for the reload would take "serving" for its success."""
    master._take(signal.SIGHUP)
    master.gets_ready(master.of(1, 2))
    master.dies(master.of(1, 2))
    assert [status.partition(":")[0] for status in manager.told] == ["reloading"] * 2
    assert master.state == "reloading"


def test_deaths_numbers_and_the_end_are_told(master: Master, manager: Manager) -> None:
    pid = master.of(1).pid
    master.dies(master.of(1))
    failure = f"last failure: worker 1 (pid: {pid}) died (killed by signal 9); a new one comes in 0 seconds"
    master._keep_time()
    master.gets_ready(master.of(1))
    master._take(signal.SIGTTIN)
    master._take(signal.SIGTERM)
    assert manager.told == [
        f"serving: generation 1, workers 2; {failure}",
        f"serving: generation 1, workers 3; {failure}",
        f"stopping: generation 1, workers 3; {failure}",
    ]


def alive(master: Master, manager: Manager) -> bool | None:
    master._keep_time()
    return manager.alive


def test_the_watchdog_is_fed_while_all_give_signs_of_life(master: Master, manager: Manager, clock: Clock) -> None:
    one, two = master.of(1), master.of(2)
    for _ in range(20):
        clock.now += 1
        one.slot.beat(clock.now)
        two.slot.beat(clock.now)
        assert alive(master, manager)
    for second in range(1, 15):
        clock.now += 1
        one.slot.beat(clock.now)
        assert alive(master, manager) == (second <= manager.watchdog / 2)
    assert [text for text in master.said if "sign of life" in text] == [
        f"worker 2 (pid: {two.pid}) gives no sign of life: the watchdog is not fed"
    ]
    two.slot.beat(clock.now)  # it was the machine that slept
    assert alive(master, manager)


def test_nor_with_a_short_interval_for_a_beat_that_is_a_little_late(
    master: Master, manager: Manager, clock: Clock
) -> None:
    manager.watchdog = 0.5
    clock.now += fleet.STUCK_SECONDS
    assert alive(master, manager)
    clock.now += 0.1
    assert not alive(master, manager)


def test_not_while_one_is_missing_but_while_it_starts(master: Master, manager: Manager, clock: Clock) -> None:
    for _ in range(2):
        assert alive(master, manager)
        master.dies(master.of(1))
        master._keep_time()
    assert not alive(master, manager)  # the second one has died young, and its successor waits half a second
    clock.now += respawn.BACK_OFF_SECONDS
    master._keep_time()
    assert alive(master, manager)
    clock.now += 5  # it loads its application
    master.of(2).slot.beat(clock.now)
    assert alive(master, manager)


def test_in_a_reload_both_generations_count_and_afterwards_the_new_one(
    master: Master, manager: Manager, clock: Clock
) -> None:
    master._take(signal.SIGHUP)
    assert alive(master, manager)
    clock.now += manager.watchdog
    for child in master._workers:
        if child.number == 1 or child.generation == 2:
            child.slot.beat(clock.now)
    assert not alive(master, manager)
    master.gets_ready(master.of(1, 2), master.of(2, 2))
    assert alive(master, manager)  # those who retire have a deadline of their own


def test_a_stop_is_no_reason_to_starve_it(master: Master, manager: Manager, clock: Clock) -> None:
    master._take(signal.SIGTERM)
    clock.now += 50
    assert alive(master, manager)


# --- more and fewer ---------------------------------------------------------------------------


def test_resize(master: Master) -> None:
    master._take(signal.SIGTTIN)
    master._keep_time()
    assert master.spawned == [(3, 1)]
    master._take(signal.SIGTTOU)
    master._take(signal.SIGTTOU)
    assert master.signals == [(3, "SIGTERM"), (2, "SIGTERM")]
    master._take(signal.SIGTTOU)
    assert master.numbers() == [(1, 1)]
    assert master.said[-1].endswith("one is the least")
    master._take(signal.SIGHUP)
    assert master.spawned[1:] == [(1, 2)]


def test_resize_waits_for_quieter_times(master: Master) -> None:
    master._take(signal.SIGHUP)
    master._take(signal.SIGTTIN)
    master._keep_time()
    assert master.spawned == [(1, 2), (2, 2)]
    assert master.said[-1].endswith("not while changing")


def test_one_more_does_not_shorten_the_wait_of_another(master: Master) -> None:
    for _ in range(2):
        master.dies(master.of(1))
        master._keep_time()
    master.spawned.clear()
    master._take(signal.SIGTTIN)
    master._keep_time()
    assert master.spawned == [(3, 1)]


def test_one_that_is_no_longer_wanted_does_not_come_back(master: Master, clock: Clock) -> None:
    master.dies(master.of(2))
    master._take(signal.SIGTTOU)
    clock.now += 60
    master._keep_time()
    assert master.spawned == []


# --- stops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(master: Master, clock: Clock, number: signal.Signals) -> None:
    master._take(number)
    assert master.signals == [(1, "SIGTERM"), (2, "SIGTERM")]
    master.dies(next(iter(master._workers)), 0)
    master._keep_time()
    assert master.spawned == []
    clock.now += 60
    master._keep_time()
    assert len(master.signals) == 2, "the worker itself sees to its mercy"
    clock.now += 1.5
    master._keep_time()
    assert master.signals[2:] == [(2, "SIGKILL")]
    clock.now += 60
    master._keep_time()
    assert len(master.signals) == 3
    master.dies(next(iter(master._workers)))
    assert master.over
    assert master._status == 0


@pytest.mark.parametrize(
    "numbers", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]]
)
def test_stop_now(master: Master, numbers: list[signal.Signals]) -> None:
    for number in numbers:
        master._take(number)
    assert master.signals[-2:] == [(1, "SIGKILL"), (2, "SIGKILL")]


def test_nothing_new_begins_in_a_stop(master: Master, clock: Clock) -> None:
    master.dies(master.of(1))
    master._take(signal.SIGTERM)
    for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        master._take(number)
    clock.now += 60
    master._keep_time()
    assert master.spawned == []


def test_a_stop_in_a_reload(master: Master) -> None:
    master._take(signal.SIGHUP)
    master._take(signal.SIGTERM)
    assert sorted(master.signals) == [(1, "SIGTERM"), (1, "SIGTERM"), (2, "SIGTERM"), (2, "SIGTERM")]
    master.gets_ready(*master._workers)
    assert master.generation == 1
    assert len(master.signals) == 4


# --- signals ----------------------------------------------------------------------------------


def test_all_but_the_faults_are_blocked() -> None:
    for number in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "ALRM", "TTIN", "TTOU", "CHLD", "IO", "PWR"):
        assert signal.Signals[f"SIG{number}"] in signals.BLOCKED
    assert signal.SIGRTMIN in signals.BLOCKED
    assert signal.SIGRTMAX in signals.BLOCKED
    for number in ("KILL", "STOP", "SEGV", "BUS", "FPE", "ILL", "ABRT", "CONT", "TSTP"):
        assert signal.Signals[f"SIG{number}"] not in signals.BLOCKED


def test_others_are_said_to_mean_nothing(master: Master) -> None:
    for number in signals.BLOCKED:
        if number not in {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU}:
            master._take(int(number))
    assert (master.signals, master.spawned) == ([], [])
    assert f"signal {int(signal.SIGPWR)} has no meaning here: ignored" in master.said
    assert [how for how, *_ in master.told] == ["write"]  # SIGUSR2


def test_it_waits_no_longer_than_it_must(master: Master, clock: Clock) -> None:
    master._looks.moment = float("inf")
    assert master._patience() == supervisor.IDLE_SECONDS
    master.dies(master.of(1))
    assert master._patience() == 0.0
    clock.now += 5
    assert master._patience() == 0.0
    master._keep_time()
    assert master._patience() == 120.0, "worker-start-timeout"
    master.gets_ready(master.of(1))
    master._take(signal.SIGTERM)
    assert master._patience() == 61.0


def test_no_fork(master: Master, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory or room for a process it is tried again, and ever later."""

    def refuse(*_: object) -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(master._workers, "spawn", refuse)
    for _ in range(3):
        master._fleet.spawn(3)
    cause = "unable to fork worker 3: [Errno 11] Resource temporarily unavailable"
    assert master.said[-1] == f"{cause}; another attempt follows in 1 seconds"
    assert master._fleet.respawn.moment == clock.now + 1.0


# --- whoever asks, and whoever tells us -------------------------------------------------------


def test_letters_are_signals(master: Master) -> None:
    master.pipe.written = ["r"], "?"
    master._obey()
    assert master.reopened == 1
    assert master.said[1:4] == [
        "master-fifo /fifo: '?' has no meaning here: ignored",
        "master-fifo /fifo: r",
        "SIGHUP: reloading",
    ]
    master.gets_ready(*master._workers)
    master.signals.clear()
    master.pipe.written = ["+", "+", "q", "Q"], ""
    master._obey()
    assert master._fleet.wanted == 4
    assert {name for _, name in master.signals} == {"SIGTERM", "SIGKILL"}


def test_how_it_is_goes_to_the_log_only_if_a_pipe_asks(master: Master) -> None:
    master._take(signal.SIGUSR2)
    master.pipe.written = ["s"], ""
    master._obey()
    assert master.told == [("write", "", []), ("log", "", [])]


def test_what_is_wrong_until_it_is_mended(master: Master) -> None:
    """A reload that failed, until one succeeds, whatever happens in between; and the end of the monitor."""
    master.reopen_fails = "no such file"
    master._take(signal.SIGHUP)
    rejected = "reload failed, generation 1 stays: https = =0,a,b: no such file"
    master.dies(master.of(1))
    master._take(signal.SIGUSR2)
    (_, failure, wrong) = master.told[-1]
    assert failure.startswith("worker 1 ")
    assert wrong == [rejected]
    master.reopen_fails = ""
    master._take(signal.SIGHUP)
    master.gets_ready(*(child for child in master._workers if child.generation == 2))
    master._take(signal.SIGUSR2)
    assert master.told[-1] == ("write", "", [])
    master.monitor.pid = 0
    master._take(signal.SIGUSR2)
    _, _, wrong = master.told.pop()
    assert [each.partition(":")[0] for each in wrong] == ["the monitor has ended"]


def test_a_touch_brings_a_reload_about_when_there_is_time_for_it(master: Master, clock: Clock) -> None:
    touched = [True]
    master._looks._reloads = SimpleNamespace(has_changed=lambda: touched.pop())  # type: ignore[assignment]
    master._take(signal.SIGHUP)
    master._look()
    assert (master.reopened, touched) == (1, [True])
    master.gets_ready(*(child for child in master._workers if child.generation == 2))
    master._look()
    assert (master.reopened, touched) == (2, [])
    assert "touch-reload: reloading" in master.said


# --- what a reload has made -------------------------------------------------------------------------------


def test_a_change_counts_once_its_generation_serves(master: Master) -> None:
    master.processes = 3
    master._take(signal.SIGHUP)
    assert master.changes == []
    assert len(master.numbers()) == 5
    master.gets_ready(*(child for child in master._workers if child.generation == 2))
    assert master.changes == ["commit"]
    assert (master._fleet.wanted, master._config.processes) == (3, 3)


def test_one_that_fails_is_abandoned(master: Master) -> None:
    """Who has to be replaced afterwards gets what serves, and as many serve as did."""
    master.processes = 3
    before = master._fleet.task
    master._take(signal.SIGHUP)
    master.dies(master.of(3, 2), DIED_OF_22)
    assert master.changes == ["abandon"]
    assert (master._fleet.wanted, master._fleet.task) == (2, before)


def test_one_that_fails_leaves_the_number_that_signals_have_made(master: Master) -> None:
    master._take(signal.SIGTTIN)
    master._keep_time()
    master.gets_ready(master.of(3))
    master.processes = 5
    master._take(signal.SIGHUP)
    master.dies(master.of(1, 2), DIED_OF_22)
    assert master._fleet.wanted == 3


def test_the_number_that_signals_have_made_stays(master: Master) -> None:
    master._take(signal.SIGTTIN)
    master._keep_time()
    master.gets_ready(master.of(3))
    master._take(signal.SIGHUP)
    assert sorted(number for number, generation in master.numbers() if generation == 2) == [1, 2, 3]


# --- another program --------------------------------------------------------------------------------------


class Trial:
    """An upgrade that is begun, and has the outcome that a test gives it."""

    moment = float("inf")

    def __init__(self) -> None:
        self.did: list[str] = []
        self.complaint: str | None = None
        self.is_on_trial = False
        self.left: Heritage | None = None

    def begin(self) -> None:
        self.did.append("begin")
        self.is_on_trial = True

    def outcome(self, now: float) -> str | None:
        if self.complaint is not None:
            self.is_on_trial = False
        complaint, self.complaint = self.complaint, None
        return complaint

    def replace(self, left: Heritage) -> NoReturn:
        self.did.append("replace")
        self.left = left
        raise OSError(errno.ENOENT, "No such file")

    def cancel(self) -> None:
        self.did.append("cancel")


@pytest.fixture
def trial(master: Master) -> Trial:
    master._upgrade = Trial()  # type: ignore[assignment]
    return master._upgrade  # type: ignore[return-value]


def test_a_program_that_may_take_over_gets_all_workers(master: Master, trial: Trial) -> None:
    workers = [child.pid for child in master._workers]
    master._take(UPGRADE)
    assert (trial.did, master.state) == (["begin"], "reloading")
    trial.complaint = ""
    master._reap()
    assert trial.did == ["begin", "replace"]
    assert trial.left is not None
    assert [left[2] for left in trial.left.facts["workers"]] == workers
    assert set(trial.left.fds) == {f"worker {pid}" for pid in workers}
    assert master.state == "serving", "it goes on, since execve(2) has failed"


def test_one_that_may_not_changes_nothing(master: Master, trial: Trial) -> None:
    master._take(UPGRADE)
    master._reap()
    assert master.state == "reloading"
    trial.complaint = "SyntaxError: what"
    master._reap()
    assert (trial.did, master.state) == (["begin"], "serving")
    assert master._scoreboard.read().failure == "upgrade failed, this program goes on: SyntaxError: what"


def test_one_thing_at_a_time(master: Master, trial: Trial) -> None:
    master._take(signal.SIGHUP)
    master._take(UPGRADE)
    assert trial.did == []
    master.gets_ready(*(child for child in master._workers if child.generation == 2))
    assert trial.did == ["begin"]
    master._take(signal.SIGHUP)
    assert master.reopened == 1
    trial.complaint = "no"
    master._reap()
    assert master.reopened == 2


def test_none_while_stopping(master: Master, trial: Trial) -> None:
    master._take(UPGRADE)
    master._take(signal.SIGTERM)
    trial.complaint = ""
    master._reap()
    master._take(UPGRADE)
    assert trial.did == ["begin"]


NOBODY = 4194305  # above pid_max, proc(5)


@pytest.fixture
def before(clock: Clock) -> tuple[Scoreboard, list[Slot]]:
    """The scoreboard of the program before, and the slots there of two workers, as these write in them."""
    board = Scoreboard()
    board.take()  # of one that is no more
    slots = [board.take(1, 5), board.take(2, 4)]
    for slot in slots:
        slot.beat(clock.now)
    return board, slots


@pytest.fixture
def heir(clock: Clock, monkeypatch: pytest.MonkeyPatch, before: tuple[Scoreboard, list[Slot]]) -> Iterator[Master]:
    """One that has taken over from another program: a worker serves in generation 5, another is on its way out."""
    left_board, slots = before
    board = Scoreboard()
    board._pulses = left_board._pulses
    master = Master(2, clock, board)
    monkeypatch.setattr(supervisor, "line", master.said.append)
    for module in (workers, fleet):
        monkeypatch.setattr(module, "line", master.said.append)
    channels = [socket.socketpair() for _ in range(2)]
    left = [
        Left(1, 5, NOBODY, channels[0][0].detach(), 10.0, True, False, False, None, slots[0].index, 5),
        Left(2, 4, NOBODY + 1, channels[1][0].detach(), 10.0, True, False, True, clock.now + 1, slots[1].index, 5),
    ]
    master._succeed(Succession(5, left, [], master.reopen()))
    master.begin()
    yield master
    master.close()
    for _, theirs in channels:
        theirs.close()


def test_the_workers_of_another_program_serve_until_ours_do(
    heir: Master, before: tuple[Scoreboard, list[Slot]]
) -> None:
    assert heir.spawned == [(1, 6), (2, 6)]
    assert (heir.generation, heir.state, heir.changes) == (5, "reloading", [])
    assert not heir.of(1, 5).retiring
    heir.gets_ready(heir.of(1, 6), heir.of(2, 6))
    assert (heir.generation, heir.state, heir.changes) == (6, "serving", ["commit"])
    assert [child.pid for child in heir._workers if child.retiring] == [NOBODY, NOBODY + 1]
    assert before[1][0].ends == heir.clock.now + 60, "it is told how long it may take"
    assert heir.reports == [], "nobody waits for the start any more"


def test_they_stay_when_ours_cannot_start(heir: Master) -> None:
    heir.dies(heir.of(1, 6), DIED_OF_22)
    assert (heir.generation, heir.state, heir.changes) == (5, "serving", ["abandon"])
    heir._keep_time()
    assert heir.spawned[2:] == [(2, 5)], "of those that should serve one was on its way out"


def test_one_that_was_to_be_killed_is(heir: Master, clock: Clock) -> None:
    clock.now += 2
    heir._keep_time()
    assert any("taking too much time to end" in text for text in heir.said)


@pytest.mark.parametrize("stays", [False, True])
def test_one_of_them_that_is_stuck_in_a_request(
    heir: Master, clock: Clock, before: tuple[Scoreboard, list[Slot]], stays: bool
) -> None:
    """Whether ours are still to come or could not: under the harakiri of the program before, since we have none."""
    if stays:
        heir.dies(heir.of(1, 6), DIED_OF_22)
    heir._keep_time()
    began = clock.now
    for _ in range(6):
        assert not any("HARAKIRI" in text for text in heir.said)
        clock.now += 1
        before[1][0].beat(clock.now, began)
        before[1][1].beat(clock.now)
        heir._keep_time()
    assert f"worker 1 (pid: {NOBODY}) has a request that lasts longer than 5 seconds: HARAKIRI" in "".join(heir.said)
    assert heir._scoreboard.read().harakiris == 1
    assert [each[-1] for each in heir._fleet.bequeath().facts["workers"][:2]] == [5, 5], "a program after ours is told"


def test_each_is_under_the_harakiri_that_it_was_forked_with(
    heir: Master, clock: Clock, before: tuple[Scoreboard, list[Slot]]
) -> None:
    """Ours have none, though the one of the program before is still busy."""
    heir.gets_ready(heir.of(1, 6), heir.of(2, 6))
    began = clock.now
    for _ in range(7):
        clock.now += 1
        for child in heir._workers:
            child.slot.beat(clock.now, began)
        heir._keep_time()
    assert [text for text in heir.said if "HARAKIRI" in text] == [
        f"worker {number} (pid: {pid}) has a request that lasts longer than 5 seconds: HARAKIRI: it is killed, and this"
        " is where its threads are"
        for number, pid in ((1, NOBODY), (2, NOBODY + 1))
    ]


def test_one_of_them_that_gives_no_sign_of_life(
    heir: Master, clock: Clock, before: tuple[Scoreboard, list[Slot]]
) -> None:
    manager = managed(heir)
    for _ in range(20):
        clock.now += 1
        before[1][0].beat(clock.now)
        assert alive(heir, manager)
    assert heir._scoreboard.read().workers[0].last_beat == clock.now
    clock.now += manager.watchdog
    assert not alive(heir, manager)
    assert f"worker 1 (pid: {NOBODY}) gives no sign of life: the watchdog is not fed" in heir.said


def test_of_one_without_a_pulse_nobody_knows_how_it_is(clock: Clock) -> None:
    """As where the kernel gave no memory that could be left."""
    ours, theirs = socket.socketpair()
    with theirs:
        master = Master(1, clock)
        left = Left(1, 5, NOBODY, ours.detach(), 10.0, True, False, False, None, 1, 5)
        master._succeed(Succession(5, [left], [], master.reopen()))
        manager = managed(master)
        clock.now += 1000
        assert alive(master, manager)
        master.close()


def test_one_that_was_still_to_become_ready(clock: Clock) -> None:
    """It loads its application, of which it need give no sign, and says when it has."""
    ours, theirs = socket.socketpair()
    with theirs:
        master = Master(1, clock)
        left = Left(1, 5, NOBODY, ours.detach(), clock.now, False, False, False, None, 1, 5)
        master._succeed(Succession(5, [left], [], master.reopen()))
        manager = managed(master)
        clock.now += 10
        assert alive(master, manager)
        assert not master.of(1).ready
        theirs.send(worker.READY)
        master._hear()
        assert master.of(1).ready
        master.close()


def test_what_is_left_is_what_is_taken_over(heir: Master) -> None:
    fds, left = heir._workers.bequeath()
    assert [each[:3] for each in left[:2]] == [[1, 5, NOBODY], [2, 4, NOBODY + 1]]
    assert [each[4:] for each in left[:2]] == [
        [10.0, True, False, False, None, 2, 5],
        [10.0, True, False, True, heir.clock.now + 1, 3, 5],
    ]
    assert [each[5] for each in left[2:]] == [False, False], "ours are not ready"
    assert set(fds) == {each[3] for each in left}


def test_one_that_is_ready_too_late_takes_nothing_over(master: Master) -> None:
    """TTIN, TTOU, TTIN within one import: the word of the one that was to end comes before its end."""
    master._take(signal.SIGTTIN)
    master._keep_time()
    first = master.of(3)
    master._take(signal.SIGTTOU)
    assert first.retiring
    master._take(signal.SIGTTIN)
    master._keep_time()
    second = master.of(3)
    master.gets_ready(first)
    assert not second.retiring
    master.dies(first)
    master.gets_ready(second)
    assert master.numbers() == [(1, 1), (2, 1), (3, 1)]


def test_a_reload_that_was_given_up_forks_nobody_any_more(master: Master) -> None:
    """One of the new ones has died and waits for its next attempt; then another one cannot load its application."""
    master._take(signal.SIGHUP)
    master.gets_ready(master.of(1, 2))
    master.dies(master.of(1, 2))
    master.dies(master.of(2, 2), DIED_OF_22)
    assert master.generation == 1
    spawned = list(master.spawned)
    for _ in range(10):
        master.clock.now += 10
        master._keep_time()
    assert master.spawned == spawned
    assert master.numbers() == [(1, 1), (2, 1)]


def test_how_workers_of_another_program_are_shown(heir: Master) -> None:
    """They tell it to a scoreboard that is no more, so the master does."""
    shown = {each.pid: each.state for each in heir._scoreboard.read().workers}
    assert (shown[NOBODY], shown[NOBODY + 1]) == ("serving", "draining")
    heir.gets_ready(heir.of(1, 6), heir.of(2, 6))
    shown = {each.pid: each.state for each in heir._scoreboard.read().workers}
    assert (shown[NOBODY], shown[NOBODY + 1]) == ("draining", "draining")


def test_one_that_becomes_ready_without_a_pulse(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown as serving, and its silence is not taken for a call."""
    ours, theirs = socket.socketpair()
    with theirs:
        master = Master(1, clock)
        monkeypatch.setattr(fleet, "line", master.said.append)
        left = Left(1, 5, NOBODY, ours.detach(), clock.now, False, True, False, None, 1, 5)
        master._succeed(Succession(5, [left], [], master.reopen()))
        theirs.send(worker.READY)
        master._hear()
        assert [each.state for each in master._scoreboard.read().workers if each.pid == NOBODY] == ["serving"]
        for _ in range(20):
            clock.now += 1
            master._keep_time()
        assert not any("HARAKIRI" in text for text in master.said)
        assert master.of(1).worn, "what it has asked for is not forgotten"
        assert master._workers.bequeath()[1][0][6] is True
        master.close()
