"""journald.py: entries that the journal can read, whatever a client has put into them."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from journal import entry
from log_daemon import log_daemon

from uwsgi_tls.journald import VALUE_BYTES, Journal
from uwsgi_tls.log_targets import NOTICE, Target


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    with log_daemon(tmp_path / "journal") as daemon:
        yield daemon


@pytest.fixture
def journal(tmp_path: Path, daemon: socket.socket) -> Iterator[Journal]:
    journal = Journal(str(tmp_path / "journal"), "shop")
    with journal._datagrams._socket:
        yield journal


def test_an_entry(journal: Journal, daemon: socket.socket) -> None:
    journal.put("GET / 200", 6, {"status": 200, "sni": "shop.lab", "user": "", "var.HTTP_X": "y"})
    assert entry(daemon.recv(1 << 17)) == {
        "MESSAGE": b"GET / 200",
        "PRIORITY": b"6",
        "SYSLOG_IDENTIFIER": b"shop",
        "UWSGI_TLS_STATUS": b"200",
        "UWSGI_TLS_SNI": b"shop.lab",
        "UWSGI_TLS_VAR_HTTP_X": b"y",
    }


@pytest.mark.parametrize("value", ["a\nPRIORITY=0\n", "\n", "=\n=", "é\udcff", "a=b"])
def test_no_value_is_another_field(value: str, journal: Journal, daemon: socket.socket) -> None:
    journal.put("text", 6, {"uri": value})
    fields = entry(daemon.recv(1 << 17))
    assert fields.keys() == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "UWSGI_TLS_URI"}
    assert fields["UWSGI_TLS_URI"] == value.encode(errors="backslashreplace")
    assert fields["PRIORITY"] == b"6"


def test_long_values_are_cut(journal: Journal, daemon: socket.socket) -> None:
    journal.put("x" * 70_000, 6, {"uri": "y" * 70_000, "referer": "\n" * 70_000})
    fields = entry(daemon.recv(1 << 17))
    assert [len(fields[name]) for name in ("MESSAGE", "UWSGI_TLS_URI", "UWSGI_TLS_REFERER")] == [VALUE_BYTES] * 3


def test_a_line_of_the_servers_own(journal: Journal, daemon: socket.socket) -> None:
    """Without time and process, which the journal knows better; escaped, or journalctl would not show it."""
    Target(journal).say("two\nlines", NOTICE, {"alert": "sent: unknown_ca"})
    fields = entry(daemon.recv(1 << 17))
    assert (fields["MESSAGE"], fields["PRIORITY"]) == (b"two\\nlines", b"5")
    assert fields["UWSGI_TLS_ALERT"] == b"sent: unknown_ca"
