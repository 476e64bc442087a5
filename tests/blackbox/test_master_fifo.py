"""`master-fifo` and `touch-reload` on real servers: what is done, who may, and what a flood does not do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .seed_pki import SeedPki
from .server import Daemon, curl, is_root, loopback, open_directory, uwsgi_tls, wait_until
from .test_control import NOBODY, WWW_DATA

PORT = 8443
needs_root = pytest.mark.skipif(not is_root, reason="only root can become another user")


class Site:
    def __init__(self, daemon: Daemon, directory: Path, host: str) -> None:
        self.daemon, self.host = daemon, host
        self.fifo, self.touched = directory / "fifo", directory / "touched"

    def write(self, text: str) -> None:
        """As a shell does, in which a command would hang if nobody read."""
        subprocess.run(["sh", "-c", f"printf '%s\\n' '{text}' > {self.fifo}"], check=True, timeout=20)

    def wait_for_lines(self, pattern: str, count: int) -> None:
        wait_until(lambda: sum(pattern in line for line in self.daemon.lines) >= count, 30, lambda: self.daemon.log)


@contextlib.contextmanager
def site(pki: SeedPki, *options: str, user: str | None = None) -> Iterator[Site]:
    """Root's server, which drops it; with `user` it never was root's."""
    host = loopback()
    with open_directory() as directory:
        certificate, key = shutil.copy(pki.certificate, directory), shutil.copy(pki.key, directory)
        if is_root:
            for path in (directory, certificate, key):
                os.chown(path, WWW_DATA, WWW_DATA)
        words = ("--https", f"{host}:{PORT},{certificate},{key}", "--master-fifo", directory / "fifo")
        drop = ("--uid", "www-data") if is_root and user is None else ()
        with uwsgi_tls(*words, "--touch-reload", directory / "touched", *drop, *options, user=user) as daemon:
            daemon.wait_for_line("generation 1 is serving")
            yield Site(daemon, directory, host)


@pytest.fixture(scope="module")
def shared(self_signed: SeedPki) -> Iterator[Site]:
    with site(self_signed) as found:
        yield found


def test_letters(shared: Site) -> None:
    """In one test, since each finds what the one before has left."""
    shared.write("+")
    shared.daemon.wait_for_workers(2)
    shared.write("-")
    shared.daemon.wait_for_workers(1)
    shared.write("r")
    shared.daemon.wait_for_line("generation 2 is serving")
    shared.daemon.wait_for_workers(1)
    shared.write("s")
    shared.daemon.wait_for_line(r"status: serving, generation 2, 1 workers wanted")
    shared.daemon.wait_for_line(r"status: worker 1 \(pid: \d+\): generation 2, serving")
    shared.daemon.wait_for_line("status: certificate ")
    shared.daemon.wait_for_line("status: wrong: nothing")
    shared.write("l")
    shared.daemon.wait_for_line("SIGUSR1: ")
    shared.write("xp0")
    shared.daemon.wait_for_line("'xp0' has no meaning here: ignored")
    assert curl(f"https://localhost:{PORT}/", "-k", host=shared.host).returncode == 0


def test_a_touch_and_a_file_that_comes_later(shared: Site) -> None:
    shared.daemon.wait_for_line(f"touch-reload = {shared.touched}: cannot be looked at")
    shared.touched.touch()
    shared.wait_for_lines("touch-reload: reloading", 1)
    shared.daemon.wait_for_workers(1)
    os.utime(shared.touched, (1, 1))
    shared.wait_for_lines("touch-reload: reloading", 2)
    shared.daemon.wait_for_workers(1)


@needs_root
def test_who_may_write(shared: Site) -> None:
    status = shared.fifo.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, WWW_DATA, WWW_DATA)
    done = subprocess.run(
        ["sh", "-c", f"echo Q > {shared.fifo}"],
        user=NOBODY,
        extra_groups=[],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert b"denied" in done.stderr
    assert shared.daemon.running


def test_a_flood_holds_nobody(shared: Site) -> None:
    """Nor does it fill the log; what the master is told otherwise it still hears."""
    before = len(shared.daemon.lines)
    end = threading.Event()
    fd = os.open(shared.fifo, os.O_WRONLY | os.O_NONBLOCK)

    def flood() -> None:
        while not end.is_set():
            with contextlib.suppress(BlockingIOError):
                os.write(fd, b"?x\n")

    thread = threading.Thread(target=flood)
    began = time.monotonic()
    thread.start()
    try:
        shared.daemon.wait_for_line("'[?x]+' has no meaning")
        ticks = cpu_seconds(shared.daemon.pid)
        for _ in range(5):
            assert curl(f"https://localhost:{PORT}/", "-k", host=shared.host).returncode == 0
        os.kill(shared.daemon.pid, signal.SIGTTIN)
        shared.daemon.wait_for_workers(2)
        os.kill(shared.daemon.pid, signal.SIGTTOU)
        shared.daemon.wait_for_workers(1)
        seconds = time.monotonic() - began
        assert cpu_seconds(shared.daemon.pid) - ticks < max(0.5, seconds / 2)
    finally:
        end.set()
        thread.join()
        os.close(fd)
    said = [line for line in shared.daemon.lines[before:] if "has no meaning" in line]
    assert len(said) <= 4 * seconds + 2


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("letter", ["q", "Q"])
def test_the_end_takes_the_pipe_with_it(self_signed: SeedPki, letter: str) -> None:
    with site(self_signed) as found:
        found.write(letter)
        assert found.daemon.wait() == 0
        assert not found.fifo.exists()


@needs_root
def test_without_root_from_the_start(self_signed: SeedPki) -> None:
    with site(self_signed, user="www-data") as found:
        assert stat.S_IMODE(found.fifo.stat().st_mode) == 0o600
        found.write("q")
        assert found.daemon.wait() == 0
        assert not found.fifo.exists()


def test_no_child_has_the_pipe(self_signed: SeedPki) -> None:
    """Or a worker that was taken over would read what is meant for the master. After a kill -9 it is made anew."""
    with site(self_signed, "--stats", f"{loopback()}:9191") as found:
        found.daemon.wait_for_titles("stats", 1)
        node = found.fifo.stat()
        for process in found.daemon.tree():
            holds = [entry for entry in os.scandir(f"/proc/{process.pid}/fd") if os.path.samestat(entry.stat(), node)]
            assert bool(holds) == (process.pid == found.daemon.pid), process.title()
        os.kill(found.daemon.pid, signal.SIGKILL)
        found.daemon.wait()
        options = [*found.daemon.command[found.daemon.command.index("--https") :]]
        with uwsgi_tls(*options) as again:
            again.wait_for_line("generation 1 is serving")
            found.write("q")
            assert again.wait() == 0


def test_what_is_no_pipe_is_refused_in_one_line(self_signed: SeedPki, tmp_path: Path) -> None:
    (tmp_path / "fifo").write_text("keep me")
    words = ("--https", f"{loopback()}:{PORT},{self_signed.certificate},{self_signed.key}")
    with uwsgi_tls(*words, "--master-fifo", tmp_path / "fifo") as daemon:
        assert daemon.wait() == 1
        cause = "there is a file of that name, which is no named pipe (command line)"
        assert daemon.lines[-1:] == [f"uwsgi-tls: master-fifo = {tmp_path}/fifo: {cause}"]
    assert (tmp_path / "fifo").read_text() == "keep me"
