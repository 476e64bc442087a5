"""`uwsgi-tls status` on real servers: whole ones, ailing ones, half-dead ones, and for whom."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pki import common_name, issue

from .seed_pki import SeedPki
from .server import Daemon, is_root, loopback, open_directory, processes, uwsgi_tls, wait_for_end, wait_until
from .test_control import NOBODY, WWW_DATA, told

PORT = 8443
needs_root = pytest.mark.skipif(not is_root, reason="only root can become another user")
RUNS, DEAD, STOPPED, UNKNOWN, AILING = 0, 1, 3, 4, 150


class Site:
    """A server with two workers, its pid file and its certificate."""

    def __init__(self, daemon: Daemon, pidfile: Path, host: str) -> None:
        self.daemon, self.pidfile, self.host = daemon, pidfile, host
        self.certificate = pidfile.with_name("a.crt")

    def status(self, user: int | None = None) -> subprocess.CompletedProcess[str]:
        done = told("status", "--pidfile", self.pidfile, user=user)
        assert done.stderr == ""
        return done

    def status_is(self, code: int, *texts: str, user: int | None = None) -> None:
        done = self.status(user)
        assert done.returncode == code, done.stdout
        assert not [text for text in texts if text not in done.stdout], done.stdout

    def pid_of(self, title: str) -> int:
        (process,) = self.daemon.wait_for_titles(title, 1)
        return process.pid


@contextlib.contextmanager
def site(pki: SeedPki, *options: str, user: str | None = None) -> Iterator[Site]:
    """Root's server, which drops it; with `user` it never was root's. Its files may be changed."""
    host = loopback()
    with open_directory() as directory:
        for file, name in ((pki.certificate, "a.crt"), (pki.key, "a.key")):
            shutil.copy(file, directory / name)
            (directory / name).chmod(0o644)
        if user is not None:
            shutil.chown(directory, user, user)
        words = ("--https", f"{host}:{PORT},{directory}/a.crt,{directory}/a.key", "--pidfile", directory / "pid", "-p2")
        drop = ("--uid", "www-data") if is_root and user is None else ()
        with uwsgi_tls(*words, *drop, *options, user=user) as daemon:
            daemon.wait_for_line("generation 1 is serving")
            yield Site(daemon, directory / "pid", host)


@pytest.fixture(scope="module")
def shared(self_signed: SeedPki) -> Iterator[Site]:
    """For tests that leave it as it is."""
    with site(self_signed, "--stats", f"{loopback()}:9191") as found:
        yield found


def test_all_is_well(shared: Site) -> None:
    done = shared.status()
    assert done.returncode == RUNS, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("serving for ")
    assert lines[0].endswith(": all is well")
    rows = [line.split() for line in lines[lines.index("processes") + 1 : lines.index("listening on")]]
    roles = {int(row[0]): " ".join(row[1:3]) if row[1] == "worker" else row[1] for row in rows}
    assert roles.keys() == {process.pid for process in shared.daemon.tree()}
    assert sorted(roles.values()) == ["master", *(["monitor"] if is_root else []), "stats", "worker 1", "worker 2"]
    assert f"  {shared.host}:{PORT}" in lines
    assert any(line.startswith(f"  {shared.certificate} (") and " until 20" in line for line in lines)


@needs_root
def test_the_user_is_told_all_and_others_what_anybody_sees(shared: Site) -> None:
    shared.status_is(RUNS, "certificates", str(shared.certificate), user=WWW_DATA)
    stranger = shared.status(user=NOBODY)
    assert stranger.returncode == RUNS
    assert "only root and the server's user are told more" in stranger.stdout
    assert "worker 2" in stranger.stdout
    assert str(shared.certificate) not in stranger.stdout


@needs_root
def test_without_root_from_the_start(self_signed: SeedPki) -> None:
    with site(self_signed, user="www-data") as found:
        found.status_is(RUNS, "worker 2", "certificates", user=WWW_DATA)
        found.status_is(RUNS, "worker 2", "certificates")
        assert found.daemon.stop() == 0
        assert not [path.name for path in found.pidfile.parent.iterdir() if path.name.startswith("pid")]


def test_it_says_nothing_in_the_log(shared: Site) -> None:
    before = shared.daemon.lines
    shared.status_is(RUNS)
    assert shared.daemon.lines == before


def test_a_failed_reload_until_one_succeeds(shared: Site) -> None:
    good = shared.certificate.read_bytes()
    shared.certificate.write_bytes(b"no PEM")
    os.kill(shared.daemon.pid, signal.SIGHUP)
    shared.daemon.wait_for_line("reload failed")
    shared.status_is(AILING, "something is wrong", "reload failed, generation 1 stays: ", "is not PEM")
    shared.certificate.write_bytes(good)
    os.kill(shared.daemon.pid, signal.SIGHUP)
    shared.daemon.wait_for_line("generation 2 is serving")
    shared.status_is(RUNS, "generation 2: all is well")


def test_the_end_of_a_certificate_is_near_by_its_own_measure(tmp_path: Path) -> None:
    """One of six days: all is well with it when two are left, and in its last 36 hours it is to be renewed."""
    short = SeedPki(tmp_path)
    issue(tmp_path, "foobar", common_name("server.lab"), days=(-4, 2))
    with site(short) as found:
        found.status_is(RUNS, f"{found.certificate} (")
        issue(tmp_path, "foobar", common_name("server.lab"), days=(-4.75, 1.25))
        found.certificate.write_bytes(short.certificate.read_bytes())
        found.certificate.with_name("a.key").write_bytes(short.key.read_bytes())
        os.kill(found.daemon.pid, signal.SIGHUP)
        found.daemon.wait_for_line("generation 2 is serving")
        found.status_is(AILING, f"  certificate {found.certificate} expires in 30 h")


@needs_root
def test_a_key_that_cannot_be_read_any_more(self_signed: SeedPki) -> None:
    with site(self_signed) as found:
        found.certificate.with_name("a.key").chmod(0o600)  # in /tmp, where the monitor does not read
        os.kill(found.daemon.pid, signal.SIGHUP)
        found.daemon.wait_for_line("generation 2 is serving")
        found.status_is(AILING, f"certificate {found.certificate} and its key could not be read again")


def test_a_worker_that_is_stopped(shared: Site) -> None:
    frozen = shared.pid_of(r"worker 2 .*serving")
    stop(frozen)
    try:
        shared.status_is(AILING, f"process {frozen} (worker 2) is stopped", "worker 1")
        silent = f"worker 2 (pid {frozen}) has given no sign of life for "
        wait_until(lambda: silent in shared.status().stdout, 20, lambda: shared.status().stdout)
    finally:
        os.kill(frozen, signal.SIGCONT)
    wait_until(lambda: shared.status().returncode == RUNS, 20, lambda: shared.status().stdout)


def test_a_master_that_is_stopped(shared: Site) -> None:
    """Nobody answers, and yet all is told that can be seen."""
    stop(shared.daemon.pid)
    try:
        shared.status_is(AILING, "the master is stopped, so it does not answer", "(master) is stopped", ", serving")
    finally:
        os.kill(shared.daemon.pid, signal.SIGCONT)
    shared.status_is(RUNS)


def stop(pid: int) -> None:
    """Stops the process, and waits until it is."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(
        lambda: any(process.pid == pid and process.state == "T" for process in processes()), 10, lambda: f"{pid} runs"
    )


@needs_root
def test_a_monitor_that_has_ended(self_signed: SeedPki) -> None:
    with site(self_signed) as found:
        os.kill(found.pid_of("monitor"), signal.SIGKILL)
        found.daemon.wait_for_line("the monitor has ended")
        found.status_is(AILING, "  the monitor has ended: ")


def test_stopped(self_signed: SeedPki) -> None:
    with site(self_signed) as found:
        assert found.daemon.stop() == 0
        found.status_is(STOPPED, "stopped: ")
        # Where only root may remove them.
        for path in found.pidfile.parent.glob("pid*"):
            assert path.read_bytes() in (b"stopped\n", f"{found.daemon.pid}\n".encode())


def test_dead(self_signed: SeedPki) -> None:
    with site(self_signed) as found:
        os.kill(found.daemon.pid, signal.SIGKILL)
        assert wait_for_end(found.daemon.pid)
        found.daemon.wait()
        found.status_is(DEAD, "dead: ", "no process has its number")
        found.pidfile.write_text(f"{os.getpid()}\n")
        found.status_is(DEAD, "is no uwsgi-tls master")


# --- what a user may have root believe --------------------------------------------------------------


def gone(path: Path) -> None:
    path.unlink()


def a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def anybodys(path: Path) -> None:
    path.chmod(0o666)


def anothers(path: Path) -> None:
    path.unlink()
    path.write_text("{}")
    os.chown(path, NOBODY, -1)


@needs_root
def test_no_answer_but_the_masters_is_shown(self_signed: SeedPki) -> None:
    with site(self_signed) as found:
        for change in (anybodys, a_link, anothers, gone):
            change(found.pidfile.with_name("pid.status"))
            found.status_is(RUNS, "no more is told: ", "worker 2")
