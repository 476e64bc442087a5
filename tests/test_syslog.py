"""syslog.py: what syslogd gets, byte for byte."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from log_daemon import log_daemon

from uwsgi_tls import log_text
from uwsgi_tls.log_targets import ERROR, INFO, NO_FIELDS, Target
from uwsgi_tls.syslog import LINE_BYTES, Syslog

START = 1795427319.884  # Mon Nov 23 09:48:39 2026 in UTC


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    with log_daemon(tmp_path / "log") as daemon:
        yield daemon


@pytest.fixture
def target(tmp_path: Path, daemon: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: START)
    syslog = Syslog(str(tmp_path / "log"), "shop", 22)
    with syslog._datagrams._socket:
        yield Target(syslog)
    monkeypatch.undo()
    time.tzset()


def test_a_line(target: Target, daemon: socket.socket) -> None:
    target.write("GET / 200", INFO, NO_FIELDS)
    target.say("two\nlines", ERROR, NO_FIELDS)
    head = f"Nov 23 09:48:39 shop[{os.getpid()}]: "
    assert daemon.recv(9000).decode() == f"<{22 * 8 + 6}>{head}GET / 200"
    assert daemon.recv(9000).decode() == f"<{22 * 8 + 3}>{head}two\\nlines"


def test_an_object(target: Target, daemon: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_text, "is_json", True)
    target.say("two\nlines", ERROR, {"alert": "x"})
    assert json.loads(daemon.recv(9000).decode().partition(": ")[2]) == {"message": "two\nlines", "alert": "x"}


def test_a_long_line_is_cut(target: Target, daemon: socket.socket) -> None:
    target.write("x" * 60_000, INFO, NO_FIELDS)
    assert len(daemon.recv(70_000)) == LINE_BYTES


def test_what_nobody_reads_is_counted(target: Target, daemon: socket.socket) -> None:
    sent = 0
    while not target.dropped:
        target.write(str(sent), INFO, NO_FIELDS)
        sent += 1
    for _ in range(4):
        target.write("missed", INFO, NO_FIELDS)
    for _ in range(sent - 1):
        daemon.recv(9000)
    target.write("later", INFO, NO_FIELDS)
    lines = [daemon.recv(9000).decode().partition(": ")[2] for _ in range(2)]
    assert lines == ["5 lines are missing here: the log had no room for them", "later"]
