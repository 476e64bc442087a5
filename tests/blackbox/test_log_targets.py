"""Logs of the real process tree: each where it belongs, through rotation under load, and past whoever does not read."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journal import entry
from log_daemon import log_daemon
from pki import pki

from .raw_client import Site, get, serving
from .server import USER, Daemon, is_root, loopback, open_directory, uwsgi_tls, wait_until
from .test_http_to import PORT

SECONDS = 10.0
ROTATIONS = 6
NAME = "www-data"
FORMAT = "%(method) %(uri) %(status)"
needs_root = pytest.mark.skipif(not is_root, reason="only root can drop to another user, who owns the log then")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the user that the server becomes, whom nobody keeps from making files there."""
    with open_directory() as directory:
        if is_root:
            os.chown(directory, pwd.getpwnam(NAME).pw_uid, -1)
        yield directory


@contextmanager
def serving_by_two(place: Path, *options: str | Path) -> Iterator[Site]:
    """A server of two workers."""
    host, identity = loopback(), pki().server_ec
    listener = f"{host}:{PORT},{identity.crt},{identity.key_file}"
    with uwsgi_tls("--https", listener, "--processes", "2", *options, cwd=place) as daemon:
        daemon.wait_for_workers(2)
        yield Site(daemon, (host, PORT))


def wait_for_text(path: Path, pattern: str) -> None:
    wait_until(lambda: bool(re.search(pattern, path.read_text(), re.MULTILINE)), SECONDS, path.read_text)


def open_files(daemon: Daemon) -> set[str]:
    """The regular files that its processes hold; only root may see them all."""
    found = set()
    for process in daemon.tree():
        for fd in Path(f"/proc/{process.pid}/fd").iterdir():
            name = os.readlink(fd)
            if name.startswith("/") and Path(name).is_file():
                found.add(name)
    return found


# --- files and their rotation -------------------------------------------------------------------------


def test_requests_have_a_log_of_their_own(place: Path) -> None:
    log = place / "access.log"
    with serving(place, "", *USER, "--req-logger", f"file:{log}", "--log-format", FORMAT) as site:
        site.ask(get("/own"))
        wait_for_text(log, "^GET /own 200$")
        assert "/own" not in site.daemon.log
    assert log.read_text() == "GET /own 200\n"


def test_a_log_instead_of_stderr(place: Path) -> None:
    """All that the server says; what an application prints stays where its standard error leads."""
    application = "def application(e, s):\n e['wsgi.errors'].write('printed\\n')\n s('200 OK', [])\n return [b'']\n"
    with serving(place, application, *USER, "--logger", f"file:{place / 'log'}", "--log-format", FORMAT) as site:
        site.ask(get("/there"))
        wait_for_text(place / "log", "^GET /there 200$")
        wait_for_text(place / "log", "generation 1 is serving")
        site.daemon.wait_for_line("^printed$")
        assert not [line for line in site.daemon.lines if "serving" in line]


class Load:
    """Two clients that ask without a pause, until the end of the block."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._over = threading.Event()
        self.asked = [0, 0]
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(2)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def _ask(self, number: int) -> None:
        with self._site.connect() as client:
            while not self._over.is_set():
                assert client.ask(get(f"/{number}/{self.asked[number]}")).status == 200
                self.asked[number] += 1

    def wait_for_more(self, more: int = 30) -> None:
        before = sum(self.asked)
        wait_until(lambda: sum(self.asked) >= before + more, SECONDS, lambda: f"{self.asked}")


def test_rotation_under_load_loses_nothing(place: Path) -> None:
    """No line, no request, and nobody goes on writing to a file that was moved away; as a user who may make files."""
    log, access = place / "server.log", place / "access.log"
    options = (*USER, "--logger", f"file:{log}", "--req-logger", f"file:{access}")
    with serving_by_two(place, *options, "--log-format", FORMAT) as site, Load(site) as load:
        for number in range(1, ROTATIONS + 1):
            load.wait_for_more()
            for path in (log, access):
                path.rename(path.with_suffix(f".{number}"))
            os.kill(site.daemon.pid, signal.SIGUSR1)
            wait_until(access.exists, SECONDS, lambda: site.daemon.log)
            wait_for_text(log, "SIGUSR1: the log files are open again")
        load.wait_for_more()
        if is_root:
            wait_until(
                lambda: open_files(site.daemon) == {str(log), str(access)},
                SECONDS,
                lambda: f"{open_files(site.daemon)}",
            )
    assert access.stat().st_uid == (pwd.getpwnam(NAME).pw_uid if is_root else os.geteuid())
    assert access.stat().st_mode & 0o777 == 0o640
    files = sorted(place.glob("access.*"))
    assert len(files) == ROTATIONS + 1
    lines = "".join(path.read_text() for path in files).splitlines()
    asked = [f"GET /{number}/{each} 200" for number in range(2) for each in range(load.asked[number])]
    assert sorted(lines) == sorted(asked)
    assert "missing" not in "".join(path.read_text() for path in place.glob("server.*"))


@pytest.mark.parametrize("how", ["touch-logreopen", "log-reopen"])
def test_other_ways_to_reopen(place: Path, how: str) -> None:
    log, touched = place / "server.log", place / "touched"
    option = ("--touch-logreopen", touched) if how == "touch-logreopen" else ("--log-reopen",)
    with serving(place, "", *USER, "--logto", log, *option) as site:
        log.rename(place / "server.log.1")
        if how == "touch-logreopen":
            touched.touch()
        else:
            os.kill(site.daemon.pid, signal.SIGHUP)
        wait_until(log.exists, SECONDS, (place / "server.log.1").read_text)
        wait_for_text(log, f"{how}: the log files are open again")
        if how == "log-reopen":
            wait_for_text(log, "generation 2 is serving")
        site.ask(get("/after"))
        wait_for_text(log, "GET /after ")


@needs_root
def test_a_log_that_the_user_may_not_make_anew(place: Path) -> None:
    """In a directory of root's the old file stays until somebody makes the new one for the user, as logrotate does."""
    os.chown(place, 0, -1)
    log = place / "server.log"
    user = pwd.getpwnam(NAME)
    with serving_by_two(place, *USER, "--logto", log) as site:
        assert log.stat().st_uid == user.pw_uid
        old = log.rename(place / "server.log.1")
        os.kill(site.daemon.pid, signal.SIGUSR1)
        wait_for_text(old, "SIGUSR1: there is no log file to open again")
        assert old.read_text().count(f"{log} cannot be opened again, so the old one stays: Permission denied") == 1
        site.ask(get("/between"))
        wait_for_text(old, "GET /between ")
        log.touch(0o640)
        os.chown(log, user.pw_uid, grp.getgrnam("adm").gr_gid)
        os.kill(site.daemon.pid, signal.SIGUSR1)
        wait_for_text(log, "SIGUSR1: the log files are open again")
        for number in range(8):
            site.ask(get(f"/after/{number}"))
        wait_for_text(log, "GET /after/7 ")
        assert "/after/" not in old.read_text()


@needs_root
def test_a_worker_that_comes_later_writes_to_the_new_file(place: Path) -> None:
    log = place / "server.log"
    with serving(place, "", *USER, "--logto", log) as site:
        old = log.rename(place / "server.log.1")
        os.kill(site.daemon.pid, signal.SIGUSR1)
        wait_until(log.exists, SECONDS, old.read_text)
        os.kill(site.worker.pid, signal.SIGKILL)
        wait_for_text(log, "spawned uwsgi-tls worker 1 ")
        site.daemon.wait_for_workers(1)
        site.ask(get("/later"))
        wait_for_text(log, "GET /later ")


# --- who does not read, and disks that are full -------------------------------------------------------


@pytest.mark.parametrize("option", ["logto", "logger", "req-logger"])
def test_a_full_disk(place: Path, option: str) -> None:
    """The server goes on, and says so where it still can."""
    value = "/dev/full" if option == "logto" else "file:/dev/full"
    with serving(place, "", *USER, f"--{option}", value) as site:
        for number in range(20):
            assert site.ask(get(f"/{number}")).status == 200
        os.kill(site.daemon.pid, signal.SIGHUP)
        site.daemon.wait_for_titles(r"worker 1 \(generation 2\): serving", 1)
        assert site.ask(get("/")).status == 200
        if option != "logto":
            said = [line for line in site.daemon.lines if "No space left on device" in line]
            assert said
            assert all(
                ": file:/dev/full: lines are dropped and counted" in line or "] file:/dev" in line for line in said
            )
            assert len(said) <= 3, "each process says so once"


@pytest.mark.parametrize("kind", ["syslog", "journald"])
def test_a_log_daemon_that_does_not_read(place: Path, kind: str) -> None:
    address = f"syslog:shop,local6,{place / 'socket'}" if kind == "syslog" else f"journald:shop,{place / 'socket'}"
    with log_daemon(place / "socket") as daemon, serving(place, "", *USER, "--req-logger", address) as site:
        with site.connect() as client:
            for number in range(600):  # more than any queue holds
                assert client.ask(get(f"/{number}")).status == 200
        site.daemon.wait_for_line("lines are dropped and counted until they can be written: the log had no room")
        lines = []
        daemon.setblocking(False)
        with pytest.raises(BlockingIOError):  # noqa: PT012 how many there was room for is the kernel's
            while True:
                lines.append(daemon.recv(1 << 16))
        daemon.settimeout(SECONDS)
        site.ask(get("/again"))
        while b"GET /again" not in lines[-1]:
            lines.append(daemon.recv(1 << 16))
    missing = [int(number) for line in lines for number in re.findall(rb"(\d+) lines are missing here", line)]
    assert missing
    assert len(lines) - 1 - len(missing) + sum(missing) == 600


def test_syslog(place: Path) -> None:
    with (
        log_daemon(place / "socket") as daemon,
        serving(place, "", *USER, "--logger", f"syslog:shop,local6,{place / 'socket'}", "--log-format", FORMAT) as site,
    ):
        lines: list[str] = []
        while not lines or "generation 1 is serving" not in lines[-1]:
            lines.append(daemon.recv(1 << 16).decode())
        assert all(re.match(rf"<{22 * 8 + 6}>\w{{3}} [ \d]\d \d\d:\d\d:\d\d shop\[\d+\]: ", line) for line in lines)
        site.ask(get("/x"))
        worker = f"shop[{site.worker.pid}]: GET /x 200"
        assert daemon.recv(1 << 16).decode().endswith(worker)


def test_the_journal(place: Path) -> None:
    """What a request and a failed handshake were is there to be asked for, as fields."""
    with (
        log_daemon(place / "socket") as daemon,
        serving(place, "", *USER, "--logger", f"journald:shop,{place / 'socket'}", "--log-format", FORMAT) as site,
    ):
        entries: list[dict[str, bytes]] = []
        while not entries or b"generation 1 is serving" not in entries[-1]["MESSAGE"]:
            entries.append(entry(daemon.recv(1 << 16)))
        assert {each["SYSLOG_IDENTIFIER"] for each in entries} == {b"shop"}
        with site.connect() as client:
            client.ask(get("/x?y"))
        fields = entry(daemon.recv(1 << 16))
        assert fields["MESSAGE"] == b"GET /x?y 200"
        assert (fields["PRIORITY"], fields["UWSGI_TLS_URI"], fields["UWSGI_TLS_STATUS"]) == (b"6", b"/x?y", b"200")
        with socket.create_connection(site.address, SECONDS) as sock:
            sock.sendall(b"SSH-2.0-x\r\n")
            fields = entry(daemon.recv(1 << 16))
        assert fields["MESSAGE"].startswith(b"TLS handshake failed (client 127.0.0.1:")
        assert fields["MESSAGE"].endswith(b"): what was sent is not TLS")
        assert (fields["PRIORITY"], fields["UWSGI_TLS_REASON"]) == (b"5", b"what was sent is not TLS")


def test_the_values_of_tls(place: Path) -> None:
    """What the client proved, in the user's line and in JSON."""
    lab = pki()
    names = "%(tls_version) %(tls_cipher) %(tls_resumed) %(sni) %(client_verify) %(client_serial) %(client_dn)"
    for options in (("--log-format", names), ("--log-json",)):
        with serving(place, "", *USER, *options, client_ca=lab.ca.crt) as site:
            with site.connect(certificate=lab.client) as client:
                client.ask(get("/"))
                cipher = str((client.tls.cipher() or [""])[0])
            serial = f"{lab.client.certificate.serial_number:X}"
            serial = serial.rjust(len(serial) + len(serial) % 2, "0")
            expected = ["TLSv1.3", cipher, "no", "server.lab", "SUCCESS", serial]
            line = site.daemon.wait_for_line(cipher)
            if options[0] == "--log-json":
                values = json.loads(line)
                keys = ("tls_version", "tls_cipher", "tls_resumed", "sni", "client_verify", "client_serial")
                assert [values[key] for key in keys] == expected
                assert "CN=Client 01" in values["client_dn"]
            else:
                *found, dn = line.split(" ", 6)
                assert found == expected
                assert "CN=Client 01" in dn
