"""Starts the real programs for the black-box tests and ends them: ours, and uWSGI as its backend.

A `Daemon` runs in a session of its own, and so does each worker of our server. Whoever is in one of these sessions, or
descends from one who is, can be found in /proc and, if a test fails, be ended by its number. Nothing here waits for a
length of time: it waits for a line of the log, for a connection, or for a process to end, each with a limit.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

START_SECONDS = 30.0  # until a program answers; CI machines are slow, a failure shows sooner as an exit
STOP_SECONDS = 15.0
POLL_SECONDS = 0.01

ROOT = Path(__file__).resolve().parents[2]
is_root = os.geteuid() == 0
USER = ("--uid", "www-data") if is_root else ()  # root's server has to become another user

_hosts = itertools.count(1)


def loopback() -> str:
    """An address of 127.0.0.0/8 for one test alone: port 443 is free there whoever else tests on this machine.

    A process has a network of 254 addresses for itself, as long as no other has the same pid modulo 16,384.
    """
    network = os.getpid() % 16384
    return f"127.{64 + network // 256}.{network % 256}.{31 * next(_hosts) % 254 + 1}"


def open_to_all(path: Path) -> bool:
    """Whether any user may read the directory `path` and pass through those it lies in."""
    return path.stat().st_mode & 0o005 == 0o005 and all(parent.stat().st_mode & 0o001 for parent in path.parents)


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A new directory that every user may read and enter, as the user that the server becomes must; removed at the end.

    pytest's own are closed to others, and their paths are longer than a UNIX socket's may be.
    """
    with tempfile.TemporaryDirectory(prefix="uwsgi-tls-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


# --- processes as /proc shows them ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its number, its parent's, its session's and its state letter (proc(5), /proc/PID/stat)."""

    pid: int
    parent: int
    session: int
    state: str

    def status(self) -> dict[str, str]:
        """/proc/PID/status as a mapping; raises FileNotFoundError when the process is gone."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def title(self) -> str:
        """The command line, which setproctitle writes over; "" when the process is gone."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""


def processes() -> Iterator[Process]:
    """All processes that are not yet dead. A zombie is dead: what is left of it is its parent's business."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                state, parent, _, session = stat.rpartition(")")[2].split()[:4]  # the name before ")" may hold anything
                if state not in "ZX":
                    yield Process(int(entry), int(parent), int(session), state)


def wait_for_end(pid: int, seconds: float = STOP_SECONDS) -> bool:
    """Wait until process `pid` has ended; says whether it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def wait_until(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Poll `condition`; after `seconds` fail with the text that `otherwise` gives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        threading.Event().wait(POLL_SECONDS)


# --- a program under test -------------------------------------------------------------------------------


class Daemon:
    """A program that runs until it is stopped. Use it in a `with` statement; leaving it stops the program with TERM.

    Leaving also asserts that it exited with 0 and left no process. If the test has failed already, it shows the log.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.command = list(command)
        self._pass_fds = pass_fds
        self._cwd = cwd
        self._env = {**os.environ, **(env or {})}
        self._user = user
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reads = True  # until all of its processes have closed the output
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._sessions: set[int] = set()  # seen so far: who was left alone by its parent is still in one of them

    def __enter__(self) -> Daemon:
        self._process = subprocess.Popen(
            self.command,
            cwd=self._cwd,
            env=self._env,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self._pass_fds,
        )
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.running:
                status = self.stop()
                assert status == 0, f"exit status {status} after TERM\n{self.log}"
        finally:
            left = self.end_all()
            if kind is not None:
                print(f"--- {' '.join(self.command)}\n{self.log}\n---", file=sys.stderr)
        assert kind is not None or not left, f"processes left over: {left}\n{self.log}"

    def _read(self) -> None:
        """Thread: collect the output until every process of the program has closed it."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._reads = False
            self._news.notify_all()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def lines(self) -> list[str]:
        """What it has written to stdout and stderr so far."""
        with self._news:
            return list(self._lines)

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, seconds: float = START_SECONDS) -> str:
        """Wait for a line of the output that `pattern` is found in, and return it."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._news:
            while True:
                for line in self._lines[seen:]:
                    if re.search(pattern, line):
                        return line
                seen = len(self._lines)
                left = deadline - time.monotonic()
                assert left > 0, f"no line {pattern!r} within {seconds:.0f} s:\n" + "\n".join(self._lines)
                assert self._reads or seen < len(self._lines), f"ended without a line {pattern!r}:\n" + "\n".join(
                    self._lines
                )
                if self._reads:
                    self._news.wait(left)

    def wait_until_it_listens(self, *addresses: tuple[str, int] | str) -> None:
        """Wait until each address (host and port, or UNIX path) takes a connection."""

        def all_listen() -> bool:
            assert self.running, f"ended before it listened:\n{self.log}"
            return all(_listens(address) for address in addresses)

        wait_until(all_listen, START_SECONDS, lambda: f"does not listen on {addresses}:\n{self.log}")

    def tree(self) -> list[Process]:
        """The program's processes: who is in a session of theirs or has one of them as parent, the first included."""
        self._sessions.add(self.pid)
        found: dict[int, Process] = {}
        everybody = list(processes())
        more = True
        while more:
            new = [
                process
                for process in everybody
                if process.pid not in found and (process.session in self._sessions or process.parent in found)
            ]
            found |= {process.pid: process for process in new}
            self._sessions |= {process.session for process in new}
            more = bool(new)
        # A session that has nobody left is over, and its number may be another server's by the next look.
        self._sessions = {process.session for process in found.values()}
        return sorted(found.values(), key=lambda process: process.pid)

    def wait_for_titles(self, pattern: str, count: int) -> list[Process]:
        """Wait until exactly `count` of its processes have a title in which `pattern` is found, and return them."""

        def found() -> list[Process]:
            return [process for process in self.tree() if re.search(pattern, process.title())]

        def settled() -> bool:
            assert self.running, f"ended:\n{self.log}"
            return len(found()) == count

        wait_until(settled, START_SECONDS, lambda: f"{found()} are not {count} of {pattern!r}:\n{self.log}")
        return found()

    def wait_for_workers(self, count: int = 1) -> list[Process]:
        """Wait until our server has exactly `count` workers that serve, and return them."""
        return self.wait_for_titles(r"worker \d+ .*serving", count)

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Wait for the first process to end of its own accord and for all of its output; returns its exit status."""
        assert self._process is not None
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds:.0f} s:\n{self.log}") from None
        self._reader.join(STOP_SECONDS)
        assert not self._reader.is_alive(), f"somebody still holds its output: {self.tree()}\n{self.log}"
        return status

    def stop(self, signal_number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Send a signal to the first process, wait for its end and the end of all others, return its exit status."""
        assert self._process is not None
        members = self.tree()
        self._process.send_signal(signal_number)
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there {seconds:.0f} s after signal {signal_number}:\n{self.log}") from None
        stuck = [member for member in members if not wait_for_end(member.pid)]
        assert not stuck, f"outlived their parent: {stuck}\n{self.log}"
        return status

    def end_all(self) -> list[Process]:
        """Kill what is left of it, process by process, and return what that was."""
        left = self.tree()
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
            self._reader.join(STOP_SECONDS)
            assert self._process.stdout is not None
            self._process.stdout.close()
        return left


def _listens(address: tuple[str, int] | str) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(1.0)
        return client.connect_ex(address) == 0


# --- the programs ---------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> list[str]:
    """What bin/uwsgi-tls runs, with the interpreter that runs the tests."""
    return [sys.executable, "-P", "-m", "uwsgi_tls", *map(str, arguments)]


def uwsgi_tls(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, user: str | None = None
) -> Daemon:
    """Our server with these arguments; `user` starts it without root."""
    return Daemon(command(*arguments), cwd=cwd, env=env, user=user)


@contextlib.contextmanager
def real_uwsgi(application: Path, address: str, *options: str) -> Iterator[Daemon]:
    """The uWSGI of PyPI with a WSGI file, listening with its own protocol on a UNIX path or HOST:PORT, until the end.

    The socket is open to all users: the server under test is not root when it connects.
    """
    binary = Path(sys.executable).with_name("uwsgi")
    arguments = ["--master", "--die-on-term", "--need-app", "--buffer-size", "65535", "--socket", address]
    if address.startswith("/"):
        arguments += ["--chmod-socket=666", "--vacuum"]
    with Daemon([str(binary), *arguments, "--wsgi-file", str(application), *options]) as daemon:
        daemon.wait_for_line(r"spawned uWSGI worker")
        yield daemon


def curl(url: str, *options: str, host: str, seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run curl against `url`, whose name stands for the address `host` here; never raises for what curl says."""
    name, port = re.findall(r"^https?://([^:/]+)(?::(\d+))?", url)[0]
    return subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(seconds)),
            *("--resolve", f"{name}:{port or 443}:{host}"),
            *options,
            url,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
