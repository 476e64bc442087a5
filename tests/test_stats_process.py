"""stats/process.py: when the master forks one, and what it does when that fails. The rest is blackbox/test_stats.py."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from uwsgi_tls.listeners import StatsSocket
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.stats import process as module
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.stats.process import NEVER, RESPAWN_SECONDS, StatsProcess

SOCKETS: list[StatsSocket] = [None]  # type: ignore[list-item]  # nobody looks at it here
FACTS = Facts(master=os.getpid(), threads=1, directory="/", sockets=(), certificates=())


class Sleeper(StatsProcess):
    """Whose child serves nobody."""

    def __init__(self) -> None:
        super().__init__(SOCKETS, lambda: FACTS)
        self.board = Scoreboard(1)

    def _serve(self, scoreboard: Scoreboard, facts: Facts) -> None:
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(60)  # whatever becomes of the test, nobody stays
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        while True:
            signal.pause()

    def start(self) -> int:
        # As in the master: right after a fork Python forgets what signals have come.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        self.keep_time(time.monotonic(), self.board)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self.moment == NEVER
        return self._pid

    def reap_until(self, said: list[str], count: int) -> None:
        deadline = time.monotonic() + 10
        while len(said) < count or self._outdated:
            assert time.monotonic() < deadline
            self.reap()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "line", lines.append)
    return lines


def test_without_sockets_there_is_none(said: list[str]) -> None:
    stats = StatsProcess((), lambda: FACTS)
    assert stats.moment == NEVER
    for call in (stats.reap, stats.renew, stats.end, stats.close):
        call()
    stats.keep_time(time.monotonic(), Scoreboard(1))
    assert stats._pid == 0


def test_one_that_cannot_be_forked_comes_later(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_fork)
    stats = Sleeper()
    stats.keep_time(1000.0, stats.board)
    assert stats.moment == 1000.0 + RESPAWN_SECONDS
    assert "unable to fork the stats process" in said[0]
    stats.keep_time(1000.5, stats.board)
    assert len(said) == 1


def test_one_that_dies_is_followed_by_another(said: list[str]) -> None:
    stats = Sleeper()
    pid = stats.start()
    stats.keep_time(time.monotonic(), stats.board)
    assert stats._pid == pid, "one is enough"
    os.kill(pid, signal.SIGKILL)
    stats.reap_until(said, 1)
    assert said == [f"the stats process (pid: {pid}) has ended (killed by signal 9); a new one comes in 1 s"]
    assert time.monotonic() < stats.moment <= time.monotonic() + RESPAWN_SECONDS
    stats.end()
    assert stats.moment == NEVER, "not any more"


def test_a_reload_makes_a_new_one_and_the_end_none(said: list[str]) -> None:
    stats = Sleeper()
    first = stats.start()
    stats.renew()
    assert stats.moment == 0.0
    second = stats.start()
    assert second != first
    stats.end()
    stats.reap_until(said, 0)
    assert said == [], "they were told to"
    assert stats.moment == NEVER


def test_as_pid_1_the_master_may_have_buried_it_among_strangers(said: list[str]) -> None:
    stats = Sleeper()
    pid = stats.start()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    stats.reap()
    assert said == [f"the stats process (pid: {pid}) has ended (unseen); a new one comes in 1 s"]
