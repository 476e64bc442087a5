"""workers.py: what goes wrong, or must not, around a fork. Real workers: blackbox/test_life.py."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NoReturn

import pytest

from uwsgi_tls import worker, workers
from uwsgi_tls.options import Config
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.worker import Task
from uwsgi_tls.workers import Worker, Workers


@pytest.fixture(autouse=True)
def ignored_sigio() -> Iterator[None]:
    """The signal of a channel would end the tests: only the real master has it blocked."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


def spawn(children: Workers) -> None:
    children.spawn(Task(Config(), [], [], None, os.getpid()), 3, 1)


def test_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory or room for a process neither a descriptor nor a slot is lost."""

    def refuse() -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    children = Workers(Scoreboard(slots=1), lambda _: None)
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    for _ in range(3):
        with pytest.raises(BlockingIOError, match="Resource temporarily unavailable"):
            spawn(children)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not children


def test_the_channel_gives_its_signal_from_before_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be ready before its master runs again: a word without a signal would be heard an hour later."""
    made: list[socket.socket] = []
    pair = socket.socketpair

    def remember() -> tuple[socket.socket, socket.socket]:
        made.extend(pair())
        return made[0], made[1]

    def fork() -> int:
        assert fcntl.fcntl(made[0], fcntl.F_GETFL) & os.O_ASYNC
        assert fcntl.fcntl(made[0], fcntl.F_GETOWN) == os.getpid()
        return 4711

    monkeypatch.setattr(workers, "socket", SimpleNamespace(socketpair=remember))
    monkeypatch.setattr(os, "fork", fork)
    children = Workers(Scoreboard(), lambda _: None)
    spawn(children)
    (child,) = children
    assert (child.number, child.pid) == (3, 4711)
    child.channel.close()


# --- what a worker says, and what it is told --------------------------------------------------


class Child(Worker):
    """One that is no process: what would be sent to it is noted."""

    __slots__ = ("sent", "theirs")

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.sent: list[str] = []
        super().__init__(3, 1, 4711, ours, 0.0, Scoreboard(1).take())

    def signal(self, number: int) -> None:
        self.sent.append("STACKS" if number == worker.STACKS_SIGNAL else signal.Signals(number).name)

    def says(self, text: bytes) -> None:
        self.theirs.sendall(text)
        self.hear()


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(workers, "time", clock)
    return clock


@pytest.fixture
def child(clock: Clock) -> Iterator[Child]:
    child = Child()
    yield child
    child.channel.close()
    child.theirs.close()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said = list[str]()
    monkeypatch.setattr(workers, "line", said.append)
    return said


def test_its_words_and_its_lines(child: Child, said: list[str]) -> None:
    """In whatever pieces they come; what is no word is a line for the log, and none is longer than there is room."""
    child.hear()
    assert (child.ready, child.worn) == (False, False)
    child.says(worker.READY)
    assert (child.ready, child.worn) == (True, False)
    child.says(b"Thread 0x1 (most")
    assert said == []
    child.says(b" recent\n\n  File" + worker.WORN + b' "a.py"\nx')
    assert child.worn
    assert said == ["worker 3 | Thread 0x1 (most recent", 'worker 3 |   File "a.py"']
    child.says(b"y" * 5000)
    assert said[2] == "worker 3 | x" + "y" * 4095
    child.theirs.close()
    child.hear()


def test_a_condemned_one_is_killed_when_it_has_said_all(child: Child, said: list[str], clock: Clock) -> None:
    child.condemn()
    assert child.sent == ["STACKS"]
    assert child.kill_at == clock.now + workers.FIRST_WORD_SECONDS
    for _ in range(20):
        clock.now += 0.2
        child.says(b"more\n")
        assert child.kill_at == min(clock.now + workers.SILENCE_SECONDS, 1000.0 + workers.STACKS_SECONDS)
    assert child.kill_at < clock.now, "it must not talk for ever"


def test_retiring(child: Child, clock: Clock) -> None:
    """What it may take is told once; later only a shorter time counts."""
    child.ready = True
    child.retire(60)
    assert (child.sent, child.slot.ends, child.kill_at) == (["SIGTERM"], 1060.0, 1061.0)
    child.retire(60)
    child.retire(90)
    assert len(child.sent) == 1
    child.retire(5)
    assert (child.sent, child.slot.ends, child.kill_at) == (["SIGTERM"] * 2, 1005.0, 1006.0)


def test_one_that_is_not_ready_has_no_time(child: Child, clock: Clock) -> None:
    child.retire(60)
    assert (child.slot.ends, child.kill_at) == (clock.now, clock.now + workers.KILL_GRACE_SECONDS)
