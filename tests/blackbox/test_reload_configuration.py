"""A reload reads the configuration again: what takes effect, what is refused, and whom root believes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from pki import SERVER, common_name, issue, pki

from .server import Daemon, Process, command, is_root, loopback, open_directory, wait_for_end, wait_until
from .test_http_to import PORT, SECONDS, Client, client_context
from .test_life import APPLICATION, Load

needs_root = pytest.mark.skipif(not is_root, reason="only root has something to keep")
USER = "www-data"
WWW_DATA = 33


@dataclass(slots=True)
class Site:
    """A server with its ini file, which lies where root alone may go, as its keys do."""

    host: str
    own: Path
    public: Path  # a directory of everybody's
    daemon: Daemon
    generation: int = 1
    workers: int = 1

    def write(self, *lines: str, own: str = "") -> None:
        """The ini file: what is always in it, and `lines`."""
        (self.own / "x.ini").write_text("\n".join([*always(self.host, self.own, self.public), *lines, own]))

    def reload(self) -> None:
        """And wait until it has taken place, and nobody serves any more with what was before."""
        old = self.daemon.wait_for_titles(r"worker \d+ ", self.workers)
        os.kill(self.daemon.pid, signal.SIGHUP)
        self.generation += 1
        words = self.daemon.wait_for_line(f"generation {self.generation} is serving").split()
        self.workers = int(words[-2])
        assert all(wait_for_end(worker.pid) for worker in old)

    def refused(self) -> str:
        """Why a reload does not take place."""
        seen = len(self.daemon.lines)
        os.kill(self.daemon.pid, signal.SIGHUP)

        def found() -> list[str]:
            return [line for line in self.daemon.lines[seen:] if "reload failed" in line]

        wait_until(lambda: bool(found()), SECONDS, lambda: self.daemon.log)
        return found()[0].partition(f"generation {self.generation} stays: ")[2]


def always(host: str, own: Path, public: Path) -> list[str]:
    return [
        "[uwsgi]",
        f"shared-socket = {host}:443" if is_root else f"shared-socket = {host}:1443",
        f"shared-socket = {host}:{PORT}",
        f"https = =1,{own}/s.crt,{own}/s.key",
        f"wsgi-file = {public}/app.py",
        *([f"uid = {USER}"] if is_root else []),
    ]


def certify(directory: Path, stem: str, name: str) -> None:
    issue(directory, stem, common_name(name), pki().ca, usage=[SERVER], sans=[x509.DNSName(name)])


@contextlib.contextmanager
def serving(*options: str | Path, environ: dict[str, str] | None = None, lines: str = "") -> Iterator[Site]:
    host = loopback()
    with (
        tempfile.TemporaryDirectory(dir="/root" if is_root else None) as name,
        open_directory() as public,
    ):
        own = Path(name)
        certify(own, "s", "server.lab")
        certify(own, "more", "more.lab")
        (public / "app.py").write_text(APPLICATION)
        (own / "x.ini").write_text("\n".join([*always(host, own, public), lines]))
        (own / "x.ini").chmod(0o600)
        with Daemon(command(own / "x.ini", *options), env=environ) as daemon:
            daemon.wait_for_line("generation 1 is serving")
            yield Site(host, own, public, daemon)


def shown(host: str, name: str) -> str:
    """The name in the certificate that a client gets which asks for `name`."""
    with (
        socket.create_connection((host, PORT), SECONDS) as raw,
        client_context().wrap_socket(raw, server_hostname=name) as sock,
    ):
        der = sock.getpeercert(binary_form=True)
    assert der is not None
    return str(next(iter(x509.load_der_x509_certificate(der).subject)).value)


def pids(processes: list[Process]) -> list[int]:
    return [process.pid for process in processes]


def listens(host: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(SECONDS)
        return client.connect_ex((host, port)) == 0


def answers(host: str, port: int) -> bool:
    with Client(host, port) as client:
        return client.get().status == 200


def test_what_takes_effect() -> None:
    """Under load; some of it needs the monitor, which has found the new names in the file itself."""
    with serving() as site, Load(site.host) as load:
        first = 443 if is_root else 1443
        assert not listens(site.host, 9443)
        more = f"{site.own}/more.crt,{site.own}/more.key"
        ours = f"{site.own}/s.crt,{site.own}/s.key"
        site.write(
            "processes = 3", f"sni = more.lab {more}", f"https = =0,{ours}", f"https = {site.host}:9443,{ours}",
            "hsts = 77", "log-format = %(method) of another form", f"stats = {site.public}/stats.sock",
        )  # fmt: skip
        if is_root:
            os.chown(site.public, WWW_DATA, -1)
        site.reload()
        site.daemon.wait_for_workers(3)
        assert shown(site.host, "more.lab") == "more.lab"
        assert answers(site.host, first)
        assert answers(site.host, 9443)
        site.daemon.wait_for_titles("uwsgi-tls stats", 1)
        with Client(site.host) as client:
            assert client.get().headers["strict-transport-security"] == "max-age=77"
        site.daemon.wait_for_line("^GET of another form")
        site.write()
        site.reload()
        site.daemon.wait_for_workers(1)
        wait_until(lambda: not listens(site.host, 9443), SECONDS, lambda: "it still listens")
        assert shown(site.host, "server.lab") == "server.lab"
        with pytest.raises(ssl.SSLCertVerificationError):
            shown(site.host, "more.lab")
        site.daemon.wait_for_titles("uwsgi-tls stats", 0)
        assert not (site.public / "stats.sock").exists()
        load.wait_for_more()
    assert load.failures == []


REFUSED = [
    ("uid = nobody", "uid = nobody: was www-data at the start, and only a restart changes that ({ini}:7)"),
    ("shared-socket = {host}:1444", "shared-socket = {host}:443 {host}:8443 {host}:1444: was {host}:443 {host}:8443"),
    ("pidfile = {own}/pid", "pidfile = {own}/pid: was not given at the start, and only a restart changes that"),
    ("logto = {own}/log", "logto = {own}/log: was not given at the start, and only a restart changes that"),
    ("no-monitor = true", "no-monitor = True: was False at the start, and only a restart changes that"),
    (
        "https = {host}:444,{own}/s.crt,{own}/s.key",
        "https = {host}:444,{own}/s.crt,{own}/s.key: {host}:444: permission denied; uid 33 may not bind port 444",
    ),
    ("threads = none", "threads = none: "),
    ("thread = 2", "thread = 2: no such option; did you mean threads? ({ini}:7)"),
    ("no equals sign before [", "no equals sign before [ = : no such option"),
    ("https = =1,{own}/s.crt,{own}/s.key", "https = =1,{own}/s.crt,{own}/s.key: =1 is already used by https = "),
    ("sni = more.lab {own}/none.crt,{own}/none.key", "sni = more.lab {own}/none.crt,{own}/none.key: certificate "),
    ("ini = {own}/none.ini", "ini = {own}/none.ini: No such file or directory"),
    ("ini = {own}/x.ini", "ini = {own}/x.ini: the file includes itself"),
    ("chdir = {own}/nowhere", "chdir = {own}/nowhere: no such directory"),
]


@needs_root
def test_what_is_refused() -> None:
    """In one line, and what serves serves on: the same workers, with what they had."""
    with serving() as site:
        workers = site.daemon.wait_for_workers(1)
        for text, cause in REFUSED:
            names = {"host": site.host, "own": site.own, "ini": site.own / "x.ini"}
            site.write(text.format(**names))
            assert site.refused().startswith(cause.format(**names)), site.daemon.log
        (site.own / "x.ini").write_bytes(b"[uwsgi]\n\0\xff" + os.urandom(100))
        assert "NUL" in site.refused()
        (site.own / "x.ini").unlink()
        assert "No such file" in site.refused()
        assert pids(site.daemon.wait_for_workers(1)) == pids(workers)
        assert answers(site.host, PORT)
        assert site.daemon.wait_for_titles("uwsgi-tls monitor", 1)
        site.write("processes = 2")
        site.reload()
        site.daemon.wait_for_workers(2)


def test_one_that_fails_late_leaves_nothing() -> None:
    """When the new workers cannot start, sockets that were made for them are closed, and the old number is kept."""
    with serving() as site:
        (site.public / "broken.py").write_text("import nothing_of_that_name\n")
        ours = f"{site.own}/s.crt,{site.own}/s.key"
        before = site.daemon.wait_for_workers(1)
        site.write("processes = 2", f"https = {site.host}:9443,{ours}", f"wsgi-file = {site.public}/broken.py")
        assert "could not start" in site.refused()
        wait_until(lambda: not listens(site.host, 9443), SECONDS, lambda: "it still listens")
        assert answers(site.host, PORT)
        assert pids(site.daemon.wait_for_workers(1)) == pids(before)
        os.kill(before[0].pid, signal.SIGKILL)  # who comes instead gets what serves
        site.daemon.wait_for_line("a new one comes")
        assert pids(site.daemon.wait_for_workers(1)) != pids(before)
        assert answers(site.host, PORT)


def test_a_worker_that_dies_while_its_successor_starts() -> None:
    """Who comes instead serves what has been served so far, with all its sockets, until the new generation does."""
    with serving() as site:
        site.write(f"https = {site.host}:9443,{site.own}/s.crt,{site.own}/s.key")
        site.reload()
        (old,) = site.daemon.wait_for_workers(1)
        go = site.public / "go"
        slow = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.02)\n{APPLICATION}"
        (site.public / "slow.py").write_text(slow)
        site.write(f"wsgi-file = {site.public}/slow.py")
        os.kill(site.daemon.pid, signal.SIGHUP)
        site.daemon.wait_for_line("generation: 3")
        os.kill(old.pid, signal.SIGKILL)
        assert wait_for_end(old.pid)
        site.daemon.wait_for_titles(r"worker 1 \(generation 2\): serving", 1)
        assert answers(site.host, PORT)
        assert answers(site.host, 9443)
        go.touch()
        site.daemon.wait_for_line("generation 3 is serving")
        assert answers(site.host, PORT)
        wait_until(lambda: not listens(site.host, 9443), SECONDS, lambda: "it still listens")


def test_the_environment_is_that_of_the_start() -> None:
    with serving(environ={"HOW_MANY": "2"}) as site:
        site.write("processes = $(HOW_MANY)")
        site.reload()
        site.daemon.wait_for_workers(2)


# --- whom root believes ------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("written", ["the file itself", "one that it includes", "one that it quotes"])
def test_who_may_write_the_configuration_has_root_open_nothing(written: str) -> None:
    """The user that the server has become, or whoever has taken it over, names a key of root's and reloads."""
    with serving() as site:
        included = site.public / "included.ini"
        included.write_text(f"[uwsgi]\nsni = more.lab {site.own}/more.crt,{site.own}/more.key\n")
        os.chown(included, WWW_DATA, -1)
        if written == "the file itself":
            site.write(f"sni = more.lab {site.own}/more.crt,{site.own}/more.key")
            os.chown(site.own / "x.ini", WWW_DATA, -1)
        elif written == "one that it includes":
            site.write(f"ini = {included}")
        else:
            included.write_text(f"{site.own}/more.crt,{site.own}/more.key")
            site.write(f"sni = more.lab @({included})")
        complaint = site.refused()
        assert complaint.startswith("sni = more.lab ")
        assert "the configuration does not name it" in complaint
        assert "others than root may" in site.daemon.wait_for_line("the monitor reads only what")
        assert answers(site.host, PORT)
        site.write(f"sni = more.lab {site.own}/more.crt,{site.own}/more.key")
        os.chown(site.own / "x.ini", 0, -1)
        site.reload()
        assert shown(site.host, "more.lab") == "more.lab"


@needs_root
def test_a_configuration_that_nobody_may_read_stays_as_it_was() -> None:
    """Without a monitor; certificates that may be read are taken up all the same."""
    with serving("--no-monitor") as site:
        os.chmod(site.own, 0o711)
        site.write("processes = 2")
        site.reload()
        site.daemon.wait_for_line("the configuration stays as it was: ini = .*: Permission denied")
        site.daemon.wait_for_workers(1)
        assert answers(site.host, PORT)
