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

from uwsgi_tls import workers
from uwsgi_tls.options import Config
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.worker import Task
from uwsgi_tls.workers import Workers


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

    children = Workers(Scoreboard(slots=1), lambda: None)
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
    children = Workers(Scoreboard(), lambda: None)
    spawn(children)
    (child,) = children
    assert (child.number, child.pid) == (3, 4711)
    child.channel.close()
