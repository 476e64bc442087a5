"""Starts that do not end, workers that cannot start, forks that fail, and a master that is killed while it starts."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import in_child
from pki import pki

from .server import USER, Daemon, command, is_root, loopback, open_directory, uwsgi_tls, wait_for_end, wait_until
from .test_daemon import start
from .test_http_to import PORT, SECONDS, Client
from .test_life import APPLICATION, Load, serving, workers

HANGS = "import threading\n\ndef never():\n    threading.Event().wait()\n\nnever()\n"
HOLDS_THE_GIL = "import re\n\ndef never():\n    re.match('(a+)+$', 'a' * 60 + 'b')\n\nnever()\n"
KILLS = 12
DEATH_SECONDS = 2.0  # for those that lose their master


def application_of(daemon: Daemon) -> Path:
    return Path(daemon.command[daemon.command.index("--wsgi-file") + 1])


# --- starts that do not end -------------------------------------------------------------------


@pytest.mark.parametrize("application", [HANGS, HOLDS_THE_GIL], ids=["waits", "holds the GIL"])
def test_a_first_start_that_hangs(application: str) -> None:
    """It fails, and the log says where it hung."""
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(application)
        https = f"{host}:{PORT},{server.crt},{server.key_file}"
        options = ("--wsgi-file", directory / "app.py", "--worker-start-timeout", "1", *USER)
        with uwsgi_tls("--https", https, *options) as daemon:
            assert daemon.wait(10) == 1
            assert "is not ready 1 seconds after its fork (worker-start-timeout)" in daemon.log
            assert re.search(r"worker 1 \|   File .*app.py.* in never", daemon.log), daemon.log


def test_a_daemon_that_hangs() -> None:
    """The command that has started it returns, with the status of a failed start."""
    with open_directory() as directory:
        (directory / "app.py").write_text(HANGS)
        log, app = directory / "log", directory / "app.py"
        started = start(loopback(), "--daemonize", log, "--wsgi-file", app, "--worker-start-timeout", "1")
        assert started.status == 1
        assert "the server did not start" in started.output
        wait_until(lambda: "goodbye" in log.read_text(), SECONDS, log.read_text)


def test_a_reload_that_hangs() -> None:
    """It is given up, the old workers stay, and the next one works."""
    with serving("--processes", "2", "--worker-start-timeout", "1") as (daemon, host), Load(host) as load:
        before = [worker.pid for worker in workers(daemon)]
        application_of(daemon).write_text(HANGS)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("reload failed, generation 1 stays: worker . of the new generation could not start")
        daemon.wait_for_titles(r"master \(generation 1, .*serving", 1)
        load.wait_for_more()
        assert [worker.pid for worker in workers(daemon)] == before
        application_of(daemon).write_text(APPLICATION)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line(r"generation \d is serving with 2")
        load.wait_for_more()
    assert not load.failures, load.failures[:5]


def test_a_stop_does_not_wait_for_a_start() -> None:
    """A worker that is not ready has nothing under way, so it is not given the time for it."""
    with serving() as (daemon, _):
        application_of(daemon).write_text(HANGS)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("spawned uwsgi-tls worker 1 .*generation: 2")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 4


# --- nobody serves ----------------------------------------------------------------------------


def test_giving_up() -> None:
    """Where no worker has come back for so long, the master ends, with a status that says: try again."""
    with serving("--processes", "2", "--respawn-limit", "3", "--forkbomb-delay", "0") as (daemon, host):
        application_of(daemon).write_text("raise RuntimeError('broken release')\n")
        first, second = workers(daemon)
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: daemon.log.count("(exit 22)") > 10, SECONDS, lambda: daemon.log)
        with Client(host) as client:
            assert client.get().status == 200, "the other one serves, so it goes on trying"
        os.kill(second.pid, signal.SIGKILL)
        assert daemon.wait(10) == 75
        assert re.search(r"nobody serves, and \d+ attempts in a row .* have failed, the last one .* 22", daemon.log)
        assert "worker respawning too fast" not in daemon.log, "without a pause nobody sleeps"


def test_respawning_too_fast() -> None:
    with serving("--forkbomb-delay", "1") as (daemon, host):
        for _ in range(2):
            (worker,) = daemon.wait_for_workers(1)
            os.kill(worker.pid, signal.SIGKILL)
            daemon.wait_for_line(rf"\(pid: {worker.pid}\) died")
        daemon.wait_for_line(r"worker respawning too fast !!! i have to sleep a bit \(0.5 seconds\)")
        daemon.wait_for_workers(1)
        with Client(host) as client:
            assert client.get().status == 200


def limit_processes(pid: int, uid: int, soft: int) -> int:
    """Sets the soft limit of another process as its own user, who needs no capability; returns what it was."""

    def limit() -> int:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        before, hard = resource.prlimit(pid, resource.RLIMIT_NPROC)
        resource.prlimit(pid, resource.RLIMIT_NPROC, (soft, hard))
        return before

    return int(in_child(limit))


@pytest.mark.skipif(not is_root, reason="only root can run as a user of whom there is no other process")
def test_forks_that_fail() -> None:
    """A limit of processes (EAGAIN): it says so and tries again, and the other worker serves."""
    uid = 60000 + os.getpid() % 5000  # whose processes nobody else adds to
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(APPLICATION)
        https = f"{host}:{PORT},{server.crt},{server.key_file}"
        options = ("--wsgi-file", directory / "app.py", "--processes", "2", "--uid", str(uid), "--gid", str(uid))
        with uwsgi_tls("--https", https, *options) as daemon:
            daemon.wait_for_workers(2)
            before = limit_processes(daemon.pid, uid, 1)
            victim, _ = workers(daemon)
            os.kill(victim.pid, signal.SIGKILL)
            daemon.wait_for_line(r"unable to fork worker 1: \[Errno 11\] .*another attempt follows in 0.5 seconds")
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.wait_for_line(r"reload failed, generation 1 stays: .*Errno 11")
            with Client(host) as client:
                assert client.get().status == 200
            limit_processes(daemon.pid, uid, before)
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.wait_for_line("generation 2 is serving with 2 workers")


# --- the master is killed while it starts -----------------------------------------------------

MOMENTS = (
    "https listener 0 bound",  # root, before the monitor and the drop
    "dropped root for good" if is_root else "bound",
    "spawned uwsgi-tls master",  # before the first fork of a worker
    "spawned uwsgi-tls worker 1",
    "importing",  # the application is being loaded
    "generation 1 is serving",
)
SAYS_SO = "print('importing', flush=True)\nimport time\ntime.sleep(0.1)\n" + APPLICATION


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, list[str | Path]]]:
    """A host and the options of a server with a pid file, an application that is slow to load, and statistics."""
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(SAYS_SO)
        yield (
            host,
            [
                *("--https", f"{host}:{PORT},{server.crt},{server.key_file}", "--stats", directory / "stats"),
                *("--pidfile", directory / "pid", "--processes", "2", "--wsgi-file", directory / "app.py", *USER),
            ],
        )


def assert_nothing_is_left(daemon: Daemon, host: str) -> None:
    """Nobody of it lives, and the address is free."""
    deadline = time.monotonic() + DEATH_SECONDS
    for process in daemon.tree():
        assert wait_for_end(process.pid, max(0.0, deadline - time.monotonic())), f"{process} is left\n{daemon.log}"
    with socket.create_server((host, PORT)):
        pass


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at(moment: str, site: tuple[str, list[str | Path]]) -> None:
    """Nothing is left but the pid file, and the next start copes with that."""
    host, options = site
    with uwsgi_tls(*options) as daemon:
        daemon.wait_for_line(moment)
        daemon.tree()  # so that it knows whom to look for
        os.kill(daemon.pid, signal.SIGKILL)
        assert daemon.wait(5) == -signal.SIGKILL
        assert_nothing_is_left(daemon, host)


def test_killed_at_any_moment(site: tuple[str, list[str | Path]]) -> None:
    """At moments of chance, from the first line of Python on; in the end a whole start serves."""
    host, options = site
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(KILLS):
        with uwsgi_tls(*options) as daemon:
            # No event to wait for: chance is the point.
            select.select([], [], [], chance.uniform(0.05, 0.7))
            daemon.tree()
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, signal.SIGKILL)
            assert daemon.wait(5) == -signal.SIGKILL, daemon.log
            assert_nothing_is_left(daemon, host)
    with uwsgi_tls(*options) as daemon:
        daemon.wait_for_line("generation 1 is serving")
        with Client(host) as client:
            assert client.get().status == 200


def test_a_killed_daemon_tells_its_command() -> None:
    """Whoever waits for the start hears that there is none."""
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(HANGS)
        pidfile = directory / "pid"
        https = ("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *USER)
        words = command(
            *https, "--wsgi-file", directory / "app.py", "--daemonize", directory / "log", "--pidfile", pidfile
        )
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as starter:
            log = directory / "log"
            wait_until(
                lambda: log.exists() and "spawned uwsgi-tls worker" in log.read_text(), SECONDS, lambda: "no log"
            )
            os.kill(int(pidfile.read_text()), signal.SIGKILL)
            _, said = starter.communicate(timeout=SECONDS)
        assert starter.returncode == 1
        assert "the server did not start" in said
