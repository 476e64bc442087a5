"""The servers: the application in our workers and in the real uWSGI behind them, once disturbed and once left alone.

The one that is left alone has the same patrons. Its workers are never replaced, so what a request leaves behind shows.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blackbox.server import Daemon, Process, loopback, open_directory, real_uwsgi, uwsgi_tls, wait_until
from pki import pki

from uwsgi_tls.respawn import YOUNG_SECONDS

from . import gauge
from .patrons import Victims

PORT = 8443
WORKERS = 2
THREADS = 6
USER = "www-data"
SETTLE_SECONDS = 20.0
FREEZE_SECONDS = 5.0
APPLICATION = Path(__file__).with_name("application.py")


@dataclass(slots=True)
class Server:
    """One of them, and what was seen of it."""

    name: str
    daemon: Daemon
    address: tuple[str, int]
    disturbed: bool
    tunnels: bool
    reloads: int = 0
    kills: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)  # (seconds, bytes) of the tree
    master: list[tuple[float, float]] = field(default_factory=list)  # of the master alone
    before: dict[str, int] = field(default_factory=dict)  # descriptors by role, without a client
    after: dict[str, int] = field(default_factory=dict)

    def measure(self) -> None:
        now = time.monotonic()
        self.memory.append((now, gauge.tree_memory(self.daemon)))
        master = next(each for each in self.daemon.tree() if each.pid == self.daemon.pid)
        self.master.append((now, gauge.memory(master)))

    def descriptors(self) -> dict[str, int]:
        """The most that a process of each role has."""
        found: dict[str, int] = {}
        for process in self.daemon.tree():
            name = gauge.role(process)
            found[name] = max(found.get(name, 0), gauge.descriptors(process))
        return found

    def hang_up(self) -> None:
        """The next reload, which must follow before the one after it is asked for."""
        self.check_reloads()
        os.kill(self.daemon.pid, signal.SIGHUP)
        self.reloads += 1

    def check_reloads(self) -> None:
        """Raises AssertionError unless each reload has ended, by a new generation or by the kill of a worker of it."""
        done = len(re.findall(r"generation \d+ is serving|reload failed", self.daemon.log))
        assert done == 1 + self.reloads, f"{self.name}: {done - 1} of {self.reloads} reloads ended\n{self.tail()}"

    def kill(self, chance: random.Random, victims: Victims) -> None:
        """Kills a worker in whatever state it is, and notes whose connections die with it.

        One that is not young, if there is one: whose successors die young again and again is given ever longer pauses.
        """
        found = [each for each in self.daemon.tree() if gauge.role(each) == "worker"]
        old = [each for each in found if gauge.age(each) > YOUNG_SECONDS]
        if not found:
            return
        victim = chance.choice(old or found)
        try:
            os.kill(victim.pid, signal.SIGSTOP)
            wait_until(lambda: _is_frozen(victim), FREEZE_SECONDS, lambda: f"{victim} does not stop")
            victims.add(self.address, gauge.client_ports(victim.pid, self.address), time.monotonic())
            os.kill(victim.pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            return  # it was at its end anyway
        self.kills += 1

    def settle(self) -> None:
        """Waits until all of it is there and nothing else. Raises AssertionError."""
        expected = sorted(["master", "monitor", "stats", *["worker"] * WORKERS])
        wait_until(
            lambda: sorted(map(gauge.role, self.daemon.tree())) == expected,
            SETTLE_SECONDS,
            lambda: f"{self.name}: {[each.title() for each in self.daemon.tree()]}\n{self.tail()}",
        )

    def tail(self) -> str:
        return "\n".join(self.daemon.lines[-40:])


def _is_frozen(process: Process) -> bool:
    """Whether none of its threads runs any more."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] in "TtZX" for task in tasks)


@contextlib.contextmanager
def running() -> Iterator[list[Server]]:
    """All four, serving; stopped at the end, when nothing of them may be left."""
    with open_directory() as directory, contextlib.ExitStack() as stack:
        shutil.copy(APPLICATION, directory / "application.py")
        backend = str(directory / "uwsgi.sock")
        options = ("--processes", "2", "--threads", "16", "--listen", "100", "--disable-logging")
        stack.enter_context(real_uwsgi(directory / "application.py", backend, *options))
        behind = ("--http-to", backend, "--http-websockets")
        inside = ("--wsgi-file", "application.py", "--threads", str(THREADS))
        yield [
            _start(stack, directory, "in the worker, disturbed", inside, disturbed=True),
            _start(stack, directory, "before uWSGI, disturbed", behind, disturbed=True),
            _start(stack, directory, "in the worker, left alone", inside, disturbed=False),
            _start(stack, directory, "before uWSGI, left alone", behind, disturbed=False),
        ]


def _start(
    stack: contextlib.ExitStack, parent: Path, name: str, backend: tuple[str, ...], *, disturbed: bool
) -> Server:
    host = loopback()
    files = _identity(parent / host)
    options = ["--https", f"{host}:{PORT},{files}", "--processes", str(WORKERS), "--uid", USER, *backend]
    options += ["--stats", f"{host}:9191"]
    # Lines for requests where they are all the same, and none where they would hide what the supervisor says.
    options += ["--disable-logging"] if disturbed else ["--logto", "/dev/null"]
    daemon = stack.enter_context(uwsgi_tls(*options, cwd=parent))
    daemon.wait_for_workers(WORKERS)
    return Server(name, daemon, (host, PORT), disturbed, "--http-websockets" in backend)


def _identity(directory: Path) -> str:
    """Certificate, key and client CA where the monitor can open them, as the value of https has them."""
    directory.mkdir()
    copies = []
    for source in (pki().server_ec.crt, pki().server_ec.key_file, pki().ca.crt):
        copy = Path(shutil.copyfile(source, directory / Path(source).name))
        copy.chmod(0o640)
        shutil.chown(copy, group=USER)
        copies.append(copy)
    return "{},{},,{}".format(*copies)
