"""What docs/operations.md and docs/security.md promise of a running server, where no other test holds it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pki import pki

from .raw_client import PORT, Site, get
from .server import USER, is_root, loopback, open_directory, uwsgi_tls, wait_until

SECONDS = 15.0
NAME = "www-data"  # the user that root's server becomes
needs_root = pytest.mark.skipif(not is_root, reason="only root's server has a monitor and becomes another user")

# As the user that the server has become: which files of a process can be read, and whether a signal gets there.
TRIES = """
import os, sys
pid, number = map(int, sys.argv[1:])
for name in ("environ", "mem", "maps", "fd"):
    try:
        path = f"/proc/{pid}/{name}"
        os.listdir(path) if name == "fd" else open(path, "rb").close()
        print(name, end=" ")
    except PermissionError:
        pass
try:
    os.kill(pid, number)
    print("kill")
except PermissionError:
    pass
"""


@pytest.fixture
def site() -> Iterator[tuple[Site, Path]]:
    """A server with a log of its own and all kinds of processes; and its directory."""
    host, server = loopback(), pki().server_ec
    listener = f"{host}:{PORT},{server.crt},{server.key_file}"
    with open_directory() as place:
        words = ("--logto", "log", "--stats", "stats.sock", "--processes", "2", *USER)
        with uwsgi_tls("--https", listener, *words, cwd=place) as daemon:
            daemon.wait_for_workers(2)
            daemon.wait_for_titles(r"uwsgi-tls stats$", 1)
            yield Site(daemon, (host, PORT)), place


def test_copytruncate(site: tuple[Site, Path]) -> None:
    """Each process goes on at the end of the file, wherever that is: no hole, and nothing is written over."""
    server, place = site
    log = place / "log"
    for number in range(4):
        server.ask(get(f"/before/{number}"))
    wait_until(lambda: "GET /before/3 " in log.read_text(), SECONDS, log.read_text)
    os.truncate(log, 0)
    for number in range(4):
        server.ask(get(f"/after/{number}"))
    wait_until(lambda: log.read_text().count("GET /after/") == 4, SECONDS, log.read_text)
    assert b"\0" not in log.read_bytes()
    assert "/before/" not in log.read_text()


@needs_root
def test_what_its_user_may_do_to_its_processes(site: tuple[Site, Path]) -> None:
    """Nothing of them can be read, though they are his own; he can end all but the monitor."""
    server, _ = site

    def tried(pid: int, number: int) -> str:
        done = subprocess.run(
            (sys.executable, "-c", TRIES, str(pid), str(number)),
            user=NAME, group=NAME, extra_groups=[], cwd="/",
            capture_output=True, text=True, timeout=SECONDS, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    found = {process.pid: process.title() for process in server.daemon.tree()}
    assert len(found) == 5
    for pid, title in found.items():
        assert tried(pid, 0) == ("" if "monitor" in title else "kill"), title
    victim = server.daemon.wait_for_workers(2)[0].pid
    assert tried(victim, signal.SIGKILL) == "kill"
    wait_until(
        lambda: victim not in {each.pid for each in server.daemon.wait_for_workers(2)}, SECONDS, lambda: "it is there"
    )


def test_a_session_of_tls_1_3_has_a_key_exchange_of_its_own_and_no_early_data(
    site: tuple[Site, Path], tmp_path: Path
) -> None:
    """Who learns the keys of tickets reads nothing of what was recorded of it."""
    server, _ = site
    where = f"{server.address[0]}:{server.address[1]}"

    def handshake(*options: str) -> str:
        done = subprocess.run(
            ("openssl", "s_client", "-connect", where, "-servername", "server.lab", "-tls1_3", "-ign_eof", *options),
            input="GET / HTTP/1.1\r\nHost: server.lab\r\nConnection: close\r\n\r\n",
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert "HTTP/1.1 200" in done.stdout, done.stdout + done.stderr
        return done.stdout

    session = str(tmp_path / "session")
    first = handshake("-sess_out", session)
    assert re.findall(r"Max Early Data: (\d+)", first)
    again = handshake("-sess_in", session, "-allow_no_dhe_kex")
    assert "Reused, TLSv1.3" in again
    for said in (first, again):
        assert set(re.findall(r"Max Early Data: (\d+)", said)) == {"0"}
        assert re.search(r"^(Server Temp Key|Peer Temp Key|Negotiated TLS1.3 group): \w+", said, re.MULTILINE)
