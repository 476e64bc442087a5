"""A service manager's view: what it is told through NOTIFY_SOCKET, and the sockets that it passes in LISTEN_FDS.

The manager is played by the tests, in the way of sd_notify(3) and sd_listen_fds(3): a datagram socket that root alone
can reach, and descriptors from 3 on for the very process that its variables name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pki import pki

from .server import USER, Daemon, Process, command, is_root, loopback, open_directory, wait_until
from .test_daemon import daemon, read_pid, start
from .test_http_to import PORT, SECONDS, Client

COMMAND_SECONDS = 20.0
needs_root = pytest.mark.skipif(not is_root, reason="only root can start the server as another user")

# What a manager does between fork and exec: the descriptors of its first argument become 3, 4 ..., for this process.
STARTER = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",") if fd]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
me = str(os.getpid())
if fds:
    os.environ["LISTEN_FDS"] = str(len(fds))
    os.environ.setdefault("LISTEN_PID", me)
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = me
os.execv(sys.argv[2], sys.argv[2:])
"""

APPLICATION = """
import json, os, subprocess

def application(environ, start_response):
    inherited = subprocess.run(["env"], capture_output=True, text=True, close_fds=False).stdout.splitlines()
    names = [*os.environ, *(line.partition("=")[0] for line in inherited)]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"names": names, "port": environ["SERVER_PORT"]}).encode()]
"""


def started(*options: str | Path, fds: Sequence[int] = (), user: str | None = None, **env: str) -> Daemon:
    """Our server as a manager starts it: with `fds` from 3 on, and `env`."""
    words = [sys.executable, "-c", STARTER, ",".join(map(str, fds)), *command(*options)]
    return Daemon(words, env=env, user=user, pass_fds=fds)


def https(host: str, *more: str) -> tuple[str, ...]:
    server = pki().server_ec
    return ("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *USER, *more)


class Manager:
    """The end that listens: messages as they come, each a list of its lines."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._sock = sock
        self.address = address

    def next(self, seconds: float = COMMAND_SECONDS) -> list[str]:
        self._sock.settimeout(seconds)
        return self._sock.recv(8192).decode().split("\n")

    def until(self, line: str) -> list[str]:
        """The first message with that line; those before it are passed over."""
        while line not in (message := self.next()):
            pass
        return message

    def forget(self) -> None:
        """What has come so far."""
        with contextlib.suppress(BlockingIOError):
            while self.next(0):
                pass

    def hears_nothing(self, seconds: float) -> bool:
        try:
            self.next(seconds)
        except (TimeoutError, BlockingIOError):  # the latter where there is no time to wait
            return True
        return False


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


@pytest.fixture
def manager(place: Path) -> Iterator[Manager]:
    """One whose socket lies where only root may go: it must have been reached before the drop."""
    private = place / "private"
    private.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(private / "notify"))
        yield Manager(sock, str(private / "notify"))


def serves(host: str) -> bool:
    with Client(host) as client:
        return client.get().status == 200


# --- what it is told --------------------------------------------------------------------------


def test_start_reload_and_stop(place: Path, manager: Manager) -> None:
    """READY comes when a client is served, RELOADING before anything of a reload, STOPPING before the end."""
    host = loopback()
    (place / "app.py").write_text(APPLICATION)
    words = https(host, "--wsgi-file", str(place / "app.py"), "--processes", "2")
    with started(*words, NOTIFY_SOCKET=manager.address) as server:
        assert manager.next() == ["STATUS=starting: generation 1, workers 2"]
        assert manager.next() == ["READY=1", "STATUS=serving: generation 1, workers 2"]
        assert serves(host)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        os.kill(server.pid, signal.SIGHUP)
        reloading, when, status = manager.next()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert (reloading, status) == ("RELOADING=1", "STATUS=reloading: generation 1, workers 2")
        assert before <= int(when.removeprefix("MONOTONIC_USEC=")) <= after
        assert manager.next() == ["READY=1", "STATUS=serving: generation 2, workers 2"]
        assert serves(host)
        os.kill(server.pid, signal.SIGTERM)
        assert manager.next() == ["STOPPING=1", "STATUS=stopping: generation 2, workers 2"]
        assert server.wait() == 0
    assert manager.hears_nothing(0)


def test_nobody_else_can_tell_it_anything(place: Path, manager: Manager) -> None:
    """Neither variables nor the socket reach a worker, its application or what that starts."""
    host = loopback()
    (place / "app.py").write_text(APPLICATION)
    words = https(host, "--wsgi-file", str(place / "app.py"))
    with started(
        *words, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="60000000", LISTEN_FDS="0", LISTEN_FDNAMES=""
    ) as server:
        manager.until("READY=1")
        with Client(host) as client:
            names = json.loads(client.get().body)["names"]
        assert "PATH" in names
        assert not [name for name in names if name.startswith(("NOTIFY", "WATCHDOG", "LISTEN"))]
        if is_root:
            holders = [process for process in server.tree() if datagram_sockets(process.pid)]
            assert [process.pid for process in holders] == [server.pid]


def datagram_sockets(pid: int) -> list[str]:
    """The UNIX datagram sockets that process `pid` holds."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    datagrams = {f"socket:[{line.split()[6]}]" for line in lines if line.split()[4] == "0002"}
    links = (os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd"))
    return [link for link in links if link in datagrams]


def test_a_failed_reload_is_told(place: Path, manager: Manager) -> None:
    host = loopback()
    crt, key = (shutil.copy(path, place) for path in (pki().server_ec.crt, pki().server_ec.key_file))
    os.chmod(key, 0o600)
    with started("--https", f"{host}:{PORT},{crt},{key}", *USER, NOTIFY_SOCKET=manager.address) as server:
        manager.until("READY=1")
        Path(crt).write_text("no certificate")
        os.kill(server.pid, signal.SIGHUP)
        manager.until("RELOADING=1")
        ready, status = manager.next()
        assert ready == "READY=1"
        assert status.startswith(
            "STATUS=serving: generation 1, workers 1; last failure: reload failed, generation 1 stays: https = "
        )
        assert serves(host)


def test_a_start_that_fails_is_never_ready(place: Path, manager: Manager) -> None:
    (place / "app.py").write_text("import no_such_module\n")
    words = https(loopback(), "--wsgi-file", str(place / "app.py"))
    with started(*words, NOTIFY_SOCKET=manager.address) as server:
        assert server.wait() == 22
    assert manager.next() == ["STATUS=starting: generation 1, workers 1"]
    stopping, status = manager.next()
    assert stopping == "STOPPING=1"
    assert re.fullmatch(r"STATUS=stopping: .*; last failure: worker 1 .* could not start \(exit 22\)", status)
    assert manager.hears_nothing(0)


@pytest.mark.parametrize("address", ["/nonexistent", "@nobody-listens-here", "nonsense"])
def test_a_manager_that_is_not_there(address: str) -> None:
    host = loopback()
    with started(*https(host), NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000") as server:
        server.wait_for_line("generation 1 is serving")
        assert serves(host)
        assert len([line for line in server.lines if f"NOTIFY_SOCKET = {address}: no service manager" in line]) == 1


def test_a_daemon_says_which_process_it_is(place: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the command that started it has ended, whose process a manager takes for it until then."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    done = start(loopback(), "--daemonize", place / "log", "--pidfile", place / "pid")
    assert done.status == 0, done
    with daemon(read_pid(place / "pid")):
        messages = [manager.next(0), manager.next(0)]
        assert messages[1][:2] == ["READY=1", f"MAINPID={read_pid(place / 'pid')}"]


# --- the watchdog -----------------------------------------------------------------------------


def test_the_watchdog(manager: Manager) -> None:
    """Fed at half of its interval, not while a worker is frozen, though its sibling is well, and again after."""
    host = loopback()
    words = https(host, "--processes", "2")
    with started(*words, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="1000000") as server:
        manager.until("READY=1")
        began = time.monotonic()
        for _ in range(4):
            assert manager.next(COMMAND_SECONDS) == ["WATCHDOG=1"]
        assert 1.3 < time.monotonic() - began < 5
        frozen = server.wait_for_workers(2)[1]
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            server.wait_for_line(rf"worker \d \(pid: {frozen.pid}\) gives no sign of life: the watchdog is not fed")
            manager.forget()
            assert manager.hears_nothing(1.6)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert manager.next() == ["WATCHDOG=1"]


def test_that_of_another_process_is_not_fed(manager: Manager) -> None:
    """WATCHDOG_PID tells whose it is; a child of whom it is meant for inherits the variables."""
    words = [sys.executable, "-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", *command(*https(loopback()))]
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}
    with Daemon(words, env=env):
        manager.until("READY=1")
        assert manager.hears_nothing(0.6)


# --- sockets that it passes -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passed:
    """A TCP socket that listens, as systemd's do, and a UNIX one that is only bound."""

    tcp: socket.socket
    unix: socket.socket
    host: str
    path: Path

    @property
    def fds(self) -> tuple[int, int]:
        return self.tcp.fileno(), self.unix.fileno()


@pytest.fixture
def passed(place: Path) -> Iterator[Passed]:
    host, path = loopback(), place / "web.sock"
    with socket.create_server((host, PORT)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        path.chmod(0o666)
        yield Passed(tcp, unix, host, path)


def pair() -> str:
    return f"{pki().server_ec.crt},{pki().server_ec.key_file}"


def answered_at(path: Path) -> bool:
    done = subprocess.run(
        ["curl", "-sS", "--insecure", "--max-time", "10", "--unix-socket", str(path), "https://server.lab/"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_they_are_the_first_shared_sockets(passed: Passed, place: Path) -> None:
    """By number and by name, before those of the configuration; the file of the UNIX one is left where it is."""
    own = loopback()
    words = ["--https", f"=0,{pair()}", "--https", f"=my.socket,{pair()}", "--https", f"=own,{pair()}"]
    words += ["--shared-socket", f"own={own}:{PORT}", *USER]
    with started(*words, fds=passed.fds, LISTEN_FDNAMES="web:my.socket") as server:
        server.wait_for_line("generation 1 is serving")
        assert serves(passed.host)
        assert answered_at(passed.path)
        assert serves(own)
        log = server.log
        assert f"uwsgi shared socket 0 (web) inherited TCP address {passed.host}:{PORT} fd 3" in log
        assert f"uwsgi shared socket 1 (my.socket) inherited UNIX address {passed.path} fd 4" in log
        assert re.search(rf"uwsgi shared socket 2 \(own\) bound to TCP address {own}:{PORT} fd", log)
        assert f"https listener 1 -> shared socket 1 ({passed.path}, fd 4)" in log
    assert passed.path.is_socket()


def test_who_comes_during_a_restart_waits(passed: Passed) -> None:
    words = ["--https", f"=0,{pair()}", "--https", f"=1,{pair()}", *USER]
    with started(*words, fds=passed.fds) as server:
        server.wait_for_line("generation 1 is serving")
        assert serves(passed.host)
    with socket.create_connection((passed.host, PORT), SECONDS) as early, started(*words, fds=passed.fds):
        early.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 400 " in early.recv(100), "plain HTTP gets an answer, so it was accepted"


@needs_root
def test_no_root_is_needed(place: Path) -> None:
    """A port below 1024 that somebody else has bound, for a server that never was root."""
    host = loopback()
    crt, key = (shutil.copy(path, place) for path in (pki().server_ec.crt, pki().server_ec.key_file))
    shutil.chown(key, "www-data")
    os.chmod(key, 0o400)
    with (
        socket.create_server((host, 443)) as sock,
        started("--https", f"=0,{crt},{key}", fds=[sock.fileno()], user="www-data") as server,
    ):
        server.wait_for_line("generation 1 is serving")
        with Client(host, 443) as client:
            assert client.get().status == 200
        assert not root_processes(server.tree())


def root_processes(tree: Sequence[Process]) -> list[Process]:
    return [process for process in tree if process.status()["Uid"].split()[0] == "0"]


def test_those_of_another_process_are_ignored(passed: Passed) -> None:
    words = ["--https", f"=0,{pair()}", "--shared-socket", f"{loopback()}:{PORT}", *USER]
    with started(*words, fds=passed.fds, LISTEN_PID="1") as server:
        server.wait_for_line("generation 1 is serving")
        assert "LISTEN_FDS = 2 is ignored: LISTEN_PID is 1, this process " in server.log
        if is_root:
            links = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{server.pid}/fd")}
            assert not links & {f"socket:[{os.fstat(fd).st_ino}]" for fd in passed.fds}, "they are closed"


def no_socket() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def datagram() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        return os.dup(sock.fileno())


def connection() -> int:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return os.dup(ours.fileno())


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (no_socket, "is not a socket"),
        (datagram, "is not a TCP or UNIX stream socket"),
        (connection, "is a connection, not a listening socket"),
    ],
)
@pytest.mark.parametrize("check", [(), ("--check",)])
def test_what_is_no_listener_is_refused(make: Callable[[], int], cause: str, check: tuple[str, ...]) -> None:
    fd = make()
    with started("--https", f"=0,{pair()}", *USER, *check, fds=[fd]) as server:
        assert server.wait() == 1
        lines = [line for line in server.lines if "WARNING" not in line]
        assert lines == [f"uwsgi-tls: LISTEN_FDS = 1: fd://3: descriptor 3 {cause} (environment)"]
    os.close(fd)


def test_a_check_knows_them(passed: Passed) -> None:
    words = ["--https", f"=web,{pair()}", "--shared-socket", "own=127.0.0.1:1", "--check", *USER]
    with started(*words, fds=passed.fds, LISTEN_FDNAMES="log:web") as server:
        assert server.wait() == 0
        for said in (
            "shared socket 0 (log): fd://3",
            "shared socket 1 (web): fd://4",
            "shared socket 2 (own): 127.0.0.1:1",
            "https listener 0 -> shared socket 1 (fd://4)",
        ):
            assert said in server.lines
    with started(*words) as server:  # as in ExecStartPre=, to which systemd passes none
        assert server.wait() == 1
        assert "there is no shared socket web; the names are own" in server.log


def test_a_configuration_that_names_the_descriptor_goes_on(passed: Passed) -> None:
    with started("--https", f"fd://3,{pair()}", "--https", f"=0,{pair()}", *USER, fds=passed.fds) as server:
        server.wait_for_line("generation 1 is serving")
        assert serves(passed.host)
        assert answered_at(passed.path)
        wait_until(lambda: "https listener 0 inherited TCP" in server.log, SECONDS, lambda: server.log)
