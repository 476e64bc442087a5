"""Certificates while the server runs: keys that only root may read, a server that is root no more, and reloads.

The files lie in a directory of root's own, since the monitor opens nothing that another may have put there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from pki import SERVER, Issued, common_name, issue, pki, revocation_list

from .server import Daemon, command, is_root, loopback, open_directory, uwsgi_tls, wait_for_end, wait_until
from .test_http_to import PORT, SECONDS
from .test_life import Load, descriptors, hang_up, workers, zombies
from .tls_client import TLS_1_2, TLS_1_3, Tls

pytestmark = pytest.mark.skipif(not is_root, reason="without root there is nothing to drop and no monitor")

SEEN_SECONDS = 2.0  # from HUP until clients see a new certificate
GROWTH_KB = 4096
REQUESTS_BETWEEN = 25  # two reloads
PAUSE_SECONDS = 0.008  # of each client: together they ask more than 200 times a second
WWW_DATA = 33


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory that nobody but root may enter."""
    with tempfile.TemporaryDirectory(prefix="uwsgi-tls-", dir="/root") as name:
        yield Path(name)


def certify(directory: Path, stem: str = "s", host: str = "server.lab") -> Issued:
    """A new certificate and key, for root alone, as STEM.crt and STEM.key."""
    sans = [x509.DNSName(host)]
    return issue(directory, stem, common_name(host), pki().ca, usage=[SERVER], sans=sans)


@contextlib.contextmanager
def serving(own: Path, *options: str, files: str = "s.crt,s.key") -> Iterator[tuple[Daemon, str]]:
    """The built-in page with those files of that directory."""
    host = loopback()
    with uwsgi_tls(
        "--https", f"{host}:{PORT},{files}", "--uid", "www-data", "--disable-logging", *options, cwd=own
    ) as daemon:
        daemon.wait_for_line("generation 1 is serving")
        yield daemon, host


def served(host: str, name: str = "server.lab") -> str:
    """The certificate, PEM, that a client is shown who asks for that name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, PORT), SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(True) or b"")


def wait_until_served(host: str, issued: Issued, name: str = "server.lab") -> None:
    """For a moment after a reload a connection may still be accepted by an old worker."""
    wait_until(lambda: served(host, name) == issued.pem, SEEN_SECONDS, lambda: f"{served(host, name)} is served")


def fail_to_reload(daemon: Daemon) -> str:
    """HUP, and the line that says why nothing comes of it."""

    def failures() -> list[str]:
        return [line for line in daemon.lines if "reload failed" in line]

    before = len(failures())
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: len(failures()) > before, SECONDS, lambda: daemon.log)
    return failures()[-1]


def monitor(daemon: Daemon) -> int:
    (process,) = daemon.wait_for_titles("uwsgi-tls monitor", 1)
    return process.pid


# --- under load ---------------------------------------------------------------------------------


# What is wrong with a file, and what the log says of it.
BROKEN = [
    ("s.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "the private key is damaged"),
    ("s.key", Path(pki().client.key_file).read_bytes(), "key s.key: does not match certificate s.crt"),
    ("ca.crt", b"", "client CA ca.crt: is empty"),
    ("crl.pem", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "CRL crl.pem: "),
    ("s.crt", None, "certificate s.crt: no such file"),
]


def resources(daemon: Daemon) -> dict[str, int]:
    """What each process holds, by its kind."""
    found = {"processes": len(daemon.tree()), "zombies": len(zombies(daemon))}
    for process in daemon.tree():
        kind = re.sub(r"uwsgi-tls (\w+( \d)?) .*", r"\1", process.title())
        found[f"descriptors of {kind}"] = len(descriptors(process.pid))
    return found


def resident(daemon: Daemon) -> dict[int, int]:
    """Kilobytes of the processes that outlive a reload."""
    kept = [process for process in daemon.tree() if "worker" not in process.title()]
    return {process.pid: int(process.status()["VmRSS"].split()[0]) for process in kept}


def test_forty_reloads_under_load(own: Path) -> None:
    """Twenty with new certificates, each of which is served at once, and twenty with broken files, which change
    nothing; no client notices any of them, and nothing piles up."""
    certify(own)
    shutil.copyfile(pki().ca.crt, own / "ca.crt")
    (own / "crl.pem").write_bytes(revocation_list(pki().ca))
    with serving(own, "--processes", "2", "--ssl-crl", "crl.pem", files="s.crt,s.key,,ca.crt") as (daemon, host):
        hang_up(daemon, 2)
        before, memory = resources(daemon), resident(daemon)
        slowest = 0.0
        start = time.monotonic()
        with Load(host, pause=PAUSE_SECONDS) as load:
            for generation in range(3, 23):
                issued = certify(own)
                began = time.monotonic()
                os.kill(daemon.pid, signal.SIGHUP)
                wait_until_served(host, issued)
                slowest = max(slowest, time.monotonic() - began)
                daemon.wait_for_line(f"generation {generation} is serving")
                load.wait_for_more(REQUESTS_BETWEEN)
            serve = {worker.pid for worker in daemon.wait_for_titles(r"worker \d \(generation 22\): serving", 2)}
            for name, content, cause in BROKEN * 4:
                good = (own / name).read_bytes()
                if content is None:
                    (own / name).unlink()
                else:
                    (own / name).write_bytes(content)
                reason = fail_to_reload(daemon)
                assert "reload failed, generation 22 stays: " in reason
                assert cause in reason
                assert "PRIVATE KEY" not in reason
                (own / name).write_bytes(good)
                load.wait_for_more(REQUESTS_BETWEEN)
            assert {worker.pid for worker in workers(daemon)} == serve
            assert served(host) == issued.pem
        assert load.failures == []
        rate = load.requests / (time.monotonic() - start)
        print(
            f"{load.requests} requests, {rate:.0f} a second; a new certificate was seen after {slowest:.2f} s at most"
        )
        wait_until(lambda: resources(daemon) == before, 5, lambda: f"{resources(daemon)}, before {before}")
        for pid, kilobytes in resident(daemon).items():
            assert kilobytes - memory[pid] < GROWTH_KB
        hang_up(daemon, 23)  # the files are whole again
    assert "Traceback" not in daemon.log


def test_hang_ups_with_root_only_keys_in_a_row(own: Path) -> None:
    """The last files count, however many signals come meanwhile."""
    certify(own)
    with serving(own) as (daemon, host), Load(host, pause=PAUSE_SECONDS) as load:
        for _ in range(5):
            issued = certify(own)
            os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: served(host) == issued.pem, SECONDS, lambda: daemon.log)
    assert load.failures == []


# --- touch-reload-certs -------------------------------------------------------------------------


def reloads(daemon: Daemon) -> int:
    return daemon.log.count("certificate files have changed: reloading")


@pytest.mark.parametrize("whose", ["root", "www-data"])
def test_changed_files_bring_a_reload_about(own: Path, whose: str) -> None:
    """A pair that is replaced is one reload; half a pair is one that fails, and the other half mends it."""
    with open_directory() as public:
        directory = own if whose == "root" else public
        certify(directory)
        if whose != "root":
            shutil.chown(directory / "s.key", whose)
        with serving(directory, "--touch-reload-certs") as (daemon, host):
            issued = certify(directory)
            daemon.wait_for_line("generation 2 is serving")
            wait_until_served(host, issued)
            assert reloads(daemon) == 1
            if whose == "root":
                key = (own / "s.key").read_bytes()
                new = certify(own)
                new_key = (own / "s.key").read_bytes()
                (own / "s.key").write_bytes(key)
                line = daemon.wait_for_line("reload failed, generation 2 stays")
                assert "key s.key: does not match certificate s.crt" in line
                assert served(host) == issued.pem
                (own / "s.key").write_bytes(new_key)
                daemon.wait_for_line("generation 3 is serving")
                wait_until_served(host, new)
                assert reloads(daemon) == 3


def test_a_watch_without_a_monitor_reloads_nothing_in_vain(own: Path) -> None:
    """What it can see no more counts as it was."""
    certify(own)
    (own / "sites").mkdir()
    certify(own / "sites", "first.lab", "first.lab")
    with serving(own, "--touch-reload-certs", "--sni-dir", "sites") as (daemon, _):
        os.kill(monitor(daemon), signal.SIGKILL)
        daemon.wait_for_line("the monitor has ended")
        threading.Event().wait(2.5)  # two looks: that nothing happens has no event
        assert reloads(daemon) == 0


def revoked(own: Path) -> None:
    (own / "crl.pem").write_bytes(revocation_list(pki().ca, [pki().client]))


def is_let_in(host: str) -> bool:
    return clients(pki().client)[1].ask((host, PORT), "server.lab").status == 200


ASKING = ("--ssl-crl", "crl.pem")
ASKING_FILES = "s.crt,s.key,,!ca.crt"


@pytest.fixture
def asking(own: Path) -> Path:
    """With what it takes to ask clients for a certificate, nobody's being revoked yet."""
    certify(own)
    shutil.copyfile(pki().ca.crt, own / "ca.crt")
    (own / "crl.pem").write_bytes(revocation_list(pki().ca))
    return own


def test_a_file_that_changes_all_the_time_holds_no_revocation_up(asking: Path) -> None:
    issued = certify(asking, "other", "other.lab")
    more = ("--touch-reload-certs", "--sni", "other.lab other.crt,other.key", *ASKING)
    with serving(asking, *more, files=ASKING_FILES) as (daemon, host):
        ended = threading.Event()

        def touch() -> None:
            while not ended.wait(0.3):
                os.utime(issued.crt)

        thread = threading.Thread(target=touch)
        thread.start()
        try:
            assert is_let_in(host)
            revoked(asking)
            daemon.wait_for_line("generation 2 is serving")
            wait_until(lambda: not is_let_in(host), SEEN_SECONDS, lambda: daemon.log)
        finally:
            ended.set()
            thread.join()


# --- a pair that may not be read ----------------------------------------------------------------


def test_roots_key_in_the_users_directory() -> None:
    """As /home/roberto/foobar.key: the start reads it, a reload does not, and the pid file there does its work."""
    with open_directory() as home:
        issued = certify(home)
        shutil.chown(home, "www-data")
        with serving(home, "--pidfile", "a.pid") as (daemon, host):
            certify(home)
            reload = subprocess.run(command("reload", "--pidfile", home / "a.pid"), timeout=SECONDS, check=False)
            assert reload.returncode == 0
            daemon.wait_for_line("generation 2 is serving")
            daemon.wait_for_line(r"s\.key: others than root may change /tmp, .* s\.crt and its key stay as they were")
            assert served(host) == issued.pem


def test_a_key_that_may_not_be_read_holds_no_revocation_up(asking: Path) -> None:
    """Without a monitor, certificate and key stay as they were; all else is as the files have it."""
    with open_directory() as public:
        for file in ("ca.crt", "crl.pem"):
            shutil.move(asking / file, public / file)
        (public / "crl.pem").chmod(0o644)
        (public / "ca.crt").chmod(0o644)
        old = (asking / "s.crt").read_text()
        files = f"s.crt,s.key,,!{public}/ca.crt"
        with serving(asking, "--no-monitor", "--ssl-crl", f"{public}/crl.pem", files=files) as (daemon, host):
            assert is_let_in(host)
            revoked(public)
            hang_up(daemon, 2)
            daemon.wait_for_line(r"certificate s\.crt and its key stay as they were")
            assert not is_let_in(host)
            assert clients(pki().client_other_ca)[1].ask((host, PORT), "server.lab").error
            assert served_anyway(host) == old
            for file in ("crl.pem", "ca.crt"):
                (public / file).chmod(0o600)
                reason = fail_to_reload(daemon)
                assert f"reload failed, generation 2 stays: https = {host}:{PORT}" in reason
                assert f"{public}/{file}: permission denied (read as uid 33)" in reason
                (public / file).chmod(0o644)
            hang_up(daemon, 3)


def served_anyway(host: str) -> str:
    """The certificate, PEM, of a server that lets nobody in: its own comes before it looks at ours."""
    words = ["openssl", "s_client", "-connect", f"{host}:{PORT}", "-showcerts"]
    said = subprocess.run(words, input="", capture_output=True, text=True, timeout=SECONDS, check=False).stdout
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", said, re.DOTALL)
    assert found
    return found[0]


def test_a_tenant_who_closes_his_key_holds_nobody_up(asking: Path) -> None:
    with open_directory() as public:
        certify(public, "tenant", "tenant.lab")
        for path in (public, *public.iterdir()):
            shutil.chown(path, "nobody")
            path.chmod(0o755 if path == public else 0o644)
        tenant = f"tenant.lab {public}/tenant.crt,{public}/tenant.key"
        with serving(asking, "--sni", tenant, *ASKING, files=ASKING_FILES) as (daemon, host):
            (public / "tenant.key").chmod(0o600)
            revoked(asking)
            new = certify(asking)
            hang_up(daemon, 2)
            daemon.wait_for_line(f"certificate {public}/tenant.crt and its key stay as they were")
            assert not is_let_in(host)
            assert served_anyway(host) == new.pem


# --- without a monitor --------------------------------------------------------------------------


def test_no_monitor(own: Path) -> None:
    """The certificate in memory stays, one line says why, and new workers come."""
    old = certify(own)
    with serving(own, "--no-monitor") as (daemon, host):
        foretold = [line.partition("] ")[2] for line in daemon.lines if "a reload will not read" in line]
        assert foretold == [f"a reload will not read s.{kind} again: Permission denied" for kind in ("crt", "key")]
        certify(own)
        hang_up(daemon, 2)
        (line,) = [line for line in daemon.lines if "stay as they were" in line]
        assert "certificate s.crt: permission denied (read as uid 33)" in line
        assert served(host) == old.pem


def test_a_monitor_that_was_killed(own: Path) -> None:
    """One line says that it is gone, and a later reload what it could not read; workers are replaced all the same."""
    old = certify(own)
    with serving(own) as (daemon, host):
        pid = monitor(daemon)
        os.kill(pid, signal.SIGKILL)
        daemon.wait_for_line("the monitor has ended: a reload can read no more than this user may; restart the server")
        assert not Path(f"/proc/{pid}").exists(), "it has not been buried"
        certify(own)
        hang_up(daemon, 2)
        (line,) = [line for line in daemon.lines if "stay as they were" in line]
        assert "s.crt: the monitor does not answer" in line
        assert served(host) == old.pem
        assert daemon.log.count("the monitor has ended") == 1


def test_a_monitor_that_is_stuck(own: Path) -> None:
    """As on a disk that does not answer: it does not hold the server's stop up, and ends when it goes on."""
    certify(own)
    with serving(own) as (daemon, _):
        pid = monitor(daemon)
        os.kill(pid, signal.SIGSTOP)
        os.kill(daemon.pid, signal.SIGTERM)
        assert wait_for_end(daemon.pid, 5)
        os.kill(pid, signal.SIGCONT)
        assert wait_for_end(pid, 2)
        assert daemon.wait(2) == 0


def test_kill_of_the_master_ends_the_monitor(own: Path) -> None:
    certify(own)
    with serving(own) as (daemon, host):
        pids = [process.pid for process in daemon.tree()]
        assert len(pids) == 3
        stopped = monitor(daemon)
        os.kill(stopped, signal.SIGSTOP)
        for pid in [daemon.pid, *(worker.pid for worker in workers(daemon))]:
            os.kill(pid, signal.SIGKILL)
        assert all(wait_for_end(pid, 2) for pid in pids if pid != stopped)
        with socket.socket() as again:  # no SO_REUSEADDR: nobody listens there, the monitor neither
            again.bind((host, PORT))
        os.kill(stopped, signal.SIGCONT)
        assert wait_for_end(stopped, 2)
        assert daemon.wait(2) == -signal.SIGKILL


def test_with_the_capabilities_of_a_container(own: Path) -> None:
    """Docker's root has no CAP_DAC_READ_SEARCH; it owns its keys, which is enough."""
    certify(own)
    host = loopback()
    words = command("--https", f"{host}:{PORT},s.crt,s.key", "--uid", "www-data", "--disable-logging")
    some = "-all,+setuid,+setgid,+setpcap,+kill,+chown,+dac_override"
    with Daemon(["setpriv", f"--bounding-set={some}", "--inh-caps=-all", *words], cwd=own) as daemon:
        daemon.wait_for_line("generation 1 is serving")
        (process,) = daemon.wait_for_titles("uwsgi-tls monitor", 1)
        assert [int(process.status()[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd", "Inh", "Amb")] == [0] * 5
        issued = certify(own)
        hang_up(daemon, 2)
        assert served(host) == issued.pem


# --- names --------------------------------------------------------------------------------------


def test_names_come_and_go(own: Path) -> None:
    """Keys of names are root's as well; a new one in sni-dir is served after HUP, one that is gone no more."""
    default = certify(own)
    sites = own / "sites"
    sites.mkdir()
    first = certify(sites, "first.lab", "first.lab")
    given = certify(own, "given", "given.lab")
    with serving(own, "--sni-dir", "sites", "--sni", "given.lab given.crt,given.key") as (daemon, host):
        assert [served(host, name) for name in ("first.lab", "second.lab")] == [first.pem, default.pem]
        assert served(host, "given.lab") == given.pem
        second = certify(sites, "second.lab", "second.lab")
        new = certify(own, "given", "given.lab")
        assert served(host, "second.lab") == default.pem
        hang_up(daemon, 2)
        assert [served(host, name) for name in ("first.lab", "second.lab")] == [first.pem, second.pem]
        assert served(host, "given.lab") == new.pem
        for kind in ("crt", "key"):
            (sites / f"first.lab.{kind}").unlink()
        hang_up(daemon, 3)
        assert [served(host, name) for name in ("first.lab", "second.lab")] == [default.pem, second.pem]
        (sites / "second.lab.key").unlink()
        assert "key sites/second.lab.key: no such file" in fail_to_reload(daemon)
        assert served(host, "second.lab") == second.pem
    assert "stay as they were" not in daemon.log


def test_a_new_name_is_noticed(own: Path) -> None:
    certify(own)
    sites = own / "sites"
    sites.mkdir()
    with serving(own, "--sni-dir", "sites", "--touch-reload-certs") as (daemon, host):
        new = certify(sites, "new.lab", "new.lab")
        daemon.wait_for_line("generation 2 is serving")
        wait_until_served(host, new, "new.lab")
        renewed = certify(sites, "new.lab", "new.lab")  # a file that was not there when the watch began
        daemon.wait_for_line("generation 3 is serving")
        wait_until_served(host, renewed, "new.lab")


# --- clients ------------------------------------------------------------------------------------


def s_client(host: str, version: str, *options: str | Path) -> str:
    """What openssl s_client says after a request by pki().client."""
    client = pki().client
    words = ["openssl", "s_client", "-connect", f"{host}:{PORT}", version, "-ign_eof"]
    words += ["-cert", client.crt, "-key", client.key_file, *map(str, options)]
    request = "GET / HTTP/1.1\r\nHost: server.lab\r\nConnection: close\r\n\r\n"
    return subprocess.run(words, input=request, capture_output=True, text=True, timeout=SECONDS, check=False).stdout


@pytest.mark.parametrize("change", ["another CA", "revoked"])
def test_who_is_let_in_no_more(own: Path, change: str, tmp_path: Path) -> None:
    """After the reload a client is refused, also with a session that began before it; others are let in."""
    certify(own)
    shutil.copyfile(pki().ca_bundle, own / "ca.crt")
    lists = [revocation_list(pki().ca), revocation_list(pki().other_ca)]
    (own / "crl.pem").write_bytes(b"".join(lists))
    with serving(own, "--ssl-crl", "crl.pem", files="s.crt,s.key,,!ca.crt") as (daemon, host):
        address = (host, PORT)
        known = [(client, client.ask(address, "server.lab")) for client in clients(pki().client)]
        for client, reply in known:
            again = client.ask(address, "server.lab", session=reply.session)
            assert (reply.status, again.status, again.resumed) == (200, 200, True), again
        for version in ("-tls1_2", "-tls1_3"):
            ticket = tmp_path / version
            s_client(host, version, "-sess_out", ticket)
            resumed = s_client(host, version, "-sess_in", ticket)
            assert "\nReused, " in resumed
            assert "HTTP/1.1 200" in resumed
        if change == "revoked":
            lists[0] = revocation_list(pki().ca, [pki().client])
            (own / "crl.pem").write_bytes(b"".join(lists))
        else:
            shutil.copyfile(pki().other_ca.crt, own / "ca.crt")
        hang_up(daemon, 2)
        for client, reply in known:
            assert client.ask(address, "server.lab", session=reply.session).error
            assert client.ask(address, "server.lab").error
        for version in ("-tls1_2", "-tls1_3"):
            assert "HTTP/1.1 200" not in s_client(host, version, "-sess_in", tmp_path / version)
        for client in clients(pki().client_other_ca):
            assert client.ask(address, "server.lab").status == 200


def clients(identity: Issued) -> list[Tls]:
    return [Tls(identity, least=version, most=version) for version in (TLS_1_2, TLS_1_3)]


# --- what the log says of time ------------------------------------------------------------------


def test_expiry_is_said_at_the_start_and_at_a_reload(own: Path) -> None:
    def expiring(days: int) -> None:
        sans = [x509.DNSName("server.lab")]
        issue(own, "s", common_name("server.lab"), pki().ca, usage=[SERVER], sans=sans, days=(-90, days))

    expiring(10)
    with serving(own) as (daemon, _):
        daemon.wait_for_line(r"certificate s\.crt: expires on ")
        expiring(-1)
        hang_up(daemon, 2)
        daemon.wait_for_line(r"certificate s\.crt: has expired on ")
