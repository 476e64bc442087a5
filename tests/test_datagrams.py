"""datagrams.py: a daemon that does not read holds nobody, and one that is started anew gets the lines again."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked import in_child
from log_daemon import log_daemon

from uwsgi_tls import datagrams, heritage
from uwsgi_tls.datagrams import Datagrams
from uwsgi_tls.heritage import Heritage


@contextmanager
def connected(path: Path) -> Iterator[Datagrams]:
    found = Datagrams(str(path))
    with found._socket:
        yield found


def test_each_is_one(tmp_path: Path) -> None:
    with log_daemon(tmp_path / "log") as daemon, connected(tmp_path / "log") as log:
        log.send(b"one")
        log.send(b"x" * 60_000)
        assert [len(daemon.recv(1 << 17)) for _ in range(2)] == [3, 60_000]


def test_one_that_does_not_read(tmp_path: Path) -> None:
    with log_daemon(tmp_path / "log") as daemon, connected(tmp_path / "log") as log:
        sent = 0
        with pytest.raises(BlockingIOError):  # noqa: PT012 how many there is room for is the kernel's
            while True:
                log.send(b"line")
                sent += 1
        assert [daemon.recv(10) for _ in range(sent)] == [b"line"] * sent
        log.send(b"again")
        assert daemon.recv(10) == b"again"


def test_one_that_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = tmp_path / "log"
    with log_daemon(path):
        log = Datagrams(str(path))
    with log._socket:
        with pytest.raises(ConnectionRefusedError):  # it tries to connect again, in vain
            log.send(b"lost")
        path.unlink()
        with log_daemon(path) as daemon:
            with pytest.raises(OSError, match=r"refused|not connected"):  # but not at each line
                log.send(b"lost")
            now[0] += datagrams.RETRY_SECONDS
            log.send(b"again")
            assert daemon.recv(10) == b"again"


def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Datagrams(str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(tmp_path / "stream"))
        with pytest.raises(OSError, match="type"):
            Datagrams(str(tmp_path / "stream"))


@pytest.mark.parametrize("away", [False, True])
def test_the_next_program_has_it_as_it_was(tmp_path: Path, away: bool) -> None:
    """Whether or not the daemon could be reached anew."""
    path = tmp_path / "log"
    with log_daemon(path) as daemon, connected(path):
        table = Heritage(heritage.kept())

        def child() -> object:
            path.unlink()  # nobody could connect to it any more
            if away:
                daemon.shutdown(socket.SHUT_RDWR)
            heritage.inherit({heritage.VARIABLE: str(heritage.leave(table, os.getpid()))})
            log = Datagrams(str(path))
            try:
                log.send(b"line")
            except OSError:
                return "missed"
            return daemon.recv(10).decode()

        assert in_child(child) == ("missed" if away else "line")
