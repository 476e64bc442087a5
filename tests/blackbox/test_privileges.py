"""What the kernel says about our processes after the drop, and that nothing leads back to root.

All of it is read from outside, in /proc (proc(5), capabilities(7)), or tried by an application in a worker.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from .seed_pki import SERVER_NAME, SeedPki
from .server import (
    ROOT,
    STOP_SECONDS,
    Daemon,
    Process,
    command,
    curl,
    is_root,
    loopback,
    open_to_all,
    uwsgi_tls,
    wait_for_end,
)
from .terminal import Terminal

pytestmark = pytest.mark.skipif(not is_root, reason="there is nothing to drop without root")

USER = "www-data"
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
WORKERS = 3

# Tries what only root may do and answers with what came of it.
WAYS_BACK = """
import ctypes, json, os, socket, subprocess

def attempt(way):
    try:
        return f"worked: {way()!r}"
    except OSError as error:
        return type(error).__name__

def raise_inheritable():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(47, 2, 10, 0, 0):  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE
        raise OSError(ctypes.get_errno(), "prctl")

def read(path):
    try:
        return open(path, "rb").read()
    except OSError:  # others come and go
        return b""

def other(kind):
    # The pid of another child of our master.
    master = str(os.getppid()).encode()
    return next(
        int(pid)
        for pid in os.listdir("/proc")
        if pid.isdigit()
        and int(pid) != os.getpid()
        and b"uwsgi-tls " + kind in read(f"/proc/{pid}/cmdline")
        and read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1:2] == [master]
    )

def read_of_another_worker(file):
    return lambda: open(f"/proc/{other(b'worker')}/{file}", "rb").read(1)

def trace(pid):
    if ctypes.CDLL(None, use_errno=True).ptrace(16, pid, None, None):  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")

def set_user_program():
    # su is set-user-ID root; with no_new_privs it starts without
    return subprocess.run(["su", "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    key = environ["QUERY_STRING"]
    return [json.dumps({
        "setuid": attempt(lambda: os.setuid(0)),
        "seteuid": attempt(lambda: os.seteuid(0)),
        "setresuid": attempt(lambda: os.setresuid(0, 0, 0)),
        "setreuid": attempt(lambda: os.setreuid(-1, 0)),
        "setgid": attempt(lambda: os.setgid(0)),
        "setgroups": attempt(lambda: os.setgroups([0])),
        "port 443": attempt(lambda: socket.create_server((environ["SERVER_ADDR_TO_TRY"], 444))),
        "key": attempt(lambda: open(key)),
        "shadow": attempt(lambda: open("/etc/shadow")),
        "kill init": attempt(lambda: os.kill(1, 0)),
        "ambient": attempt(raise_inheritable),
        "master's memory": attempt(lambda: open(f"/proc/{os.getppid()}/mem", "rb")),
        "monitor's memory": attempt(lambda: open(f"/proc/{other(b'monitor')}/mem", "rb")),
        "kill monitor": attempt(lambda: os.kill(other(b"monitor"), 0)),
        **{f"another worker's {file}": attempt(read_of_another_worker(file)) for file in ("mem", "environ", "fd/0")},
        "trace another worker": attempt(lambda: trace(other(b"worker"))),
        "stats process's memory": attempt(lambda: open(f"/proc/{other(b'stats')}/mem", "rb")),
    }).encode() + json.dumps({"su": set_user_program(), "uid": os.getuid()}).encode()]
"""


def start(pki: SeedPki, host: str, *more: str | Path) -> Daemon:
    arguments = ["--shared-socket", f"{host}:443", "--https", "=0,foobar.crt,foobar.key", "--processes", str(WORKERS)]
    return uwsgi_tls(*arguments, *more, cwd=pki.directory)


def assert_dropped(process: Process, uid: int, gid: int, groups: set[int]) -> None:
    status = process.status()
    assert status["Uid"].split() == [str(uid)] * 4, process.title()
    assert status["Gid"].split() == [str(gid)] * 4, process.title()
    assert {int(group) for group in status["Groups"].split()} == groups, process.title()
    for name in CAPABILITY_SETS:
        assert int(status[name], 16) == 0, f"{name} of {process.title()}: {status[name]}"
    assert status["NoNewPrivs"] == "1", process.title()
    assert_keeps_its_memory(process)


def assert_keeps_its_memory(process: Process) -> None:
    """Neither another process of the same user nor a core dump shows the private key."""
    # /proc/PID belongs to root, whoever the process is, exactly when it is not dumpable: proc(5)
    assert os.stat(f"/proc/{process.pid}/mem").st_uid == 0, f"{process.title()} is dumpable"
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]


def assert_only_reads(monitor: Process) -> None:
    """The one process that stays root: it may open files for reading, and do nothing else that a user may not."""
    status = monitor.status()
    assert status["Uid"].split() == ["0"] * 4
    read_search = 1 << 2  # CAP_DAC_READ_SEARCH, linux/capability.h
    found = {name: int(status[name], 16) for name in CAPABILITY_SETS}
    assert found == {"CapInh": 0, "CapPrm": read_search, "CapEff": read_search, "CapBnd": 0, "CapAmb": 0}
    assert status["NoNewPrivs"] == "1"
    assert_keeps_its_memory(monitor)
    folder = f"/proc/{monitor.pid}/fd"
    held = {number: os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}
    assert [held.pop(number) for number in "012"] == ["/dev/null"] * 3
    channel, master = sorted(held.values(), key=lambda name: "pidfd" in name)
    assert channel.startswith("socket:")
    assert "pidfd" in master, "its end is to be noticed"
    limits = Path(f"/proc/{monitor.pid}/limits").read_text()
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]


@pytest.mark.parametrize(
    ("options", "gid", "groups"),
    [
        pytest.param((), None, None, id="the user's own groups"),
        pytest.param(("--gid", "daemon"), "daemon", None, id="a group of another"),
        pytest.param(("--add-gid", "adm", "--add-gid", "4242"), None, ("adm", 4242), id="groups added"),
    ],
)
def test_master_and_workers(
    self_signed: SeedPki, options: tuple[str, ...], gid: str | None, groups: tuple[str | int, ...] | None
) -> None:
    host = loopback()
    entry = pwd.getpwnam(USER)
    group = grp.getgrnam(gid).gr_gid if gid else entry.pw_gid
    expected = set(os.getgrouplist(USER, group))
    expected |= {grp.getgrnam(name).gr_gid if isinstance(name, str) else name for name in groups or ()}
    with start(self_signed, host, "--uid", USER, *options) as server:
        workers = server.wait_for_workers(WORKERS)
        (monitor,) = server.wait_for_titles("uwsgi-tls monitor", 1)
        unprivileged = [process for process in server.tree() if process.pid != monitor.pid]
        assert {server.pid, *(worker.pid for worker in workers)} == {process.pid for process in unprivileged}
        for process in unprivileged:
            assert_dropped(process, entry.pw_uid, group, expected)
        assert_only_reads(monitor)
        answer = curl(f"https://{SERVER_NAME}/", *self_signed.curl_server, host=host)
        assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"


def test_without_a_monitor_nobody_stays_root(self_signed: SeedPki) -> None:
    entry = pwd.getpwnam(USER)
    with start(self_signed, loopback(), "--uid", USER, "--no-monitor") as server:
        server.wait_for_workers(WORKERS)
        tree = server.tree()
        assert len(tree) == 1 + WORKERS
        for process in tree:
            assert_dropped(process, entry.pw_uid, entry.pw_gid, set(os.getgrouplist(USER, entry.pw_gid)))


def test_respawned_worker_is_dropped_too(self_signed: SeedPki) -> None:
    entry = pwd.getpwnam(USER)
    with start(self_signed, loopback(), "--uid", USER) as server:
        first = server.wait_for_workers(WORKERS)
        os.kill(first[0].pid, signal.SIGKILL)
        assert wait_for_end(first[0].pid)
        after = server.wait_for_workers(WORKERS)
        new = [worker for worker in after if worker.pid not in {old.pid for old in first}]
        assert len(new) == 1
        assert_dropped(new[0], entry.pw_uid, entry.pw_gid, set(os.getgrouplist(USER, entry.pw_gid)))


def test_kill_of_the_master_leaves_nothing(self_signed: SeedPki) -> None:
    host = loopback()
    with start(self_signed, host, "--uid", USER) as server:
        workers = server.wait_for_workers(WORKERS)
        # A worker that cannot notice anything itself goes too: the kernel ends it, PR_SET_PDEATHSIG in prctl(2).
        os.kill(workers[0].pid, signal.SIGSTOP)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL  # waits for the workers' end too, and fails without
        assert server.tree() == []
        # No SO_REUSEADDR: nobody listens there any more, and no connection was open.
        with socket.socket() as again:
            again.bind((host, 443))


def test_ways_back_to_root(self_signed: SeedPki, public_directory: Path) -> None:
    """From a worker nothing leads to root, to root's key and ports, or into the memory of another process of ours, not
    even of one of the same user."""
    host = loopback()
    application = public_directory / "ways_back.py"
    application.write_text(WAYS_BACK.replace('environ["SERVER_ADDR_TO_TRY"]', repr(host)))
    with start(self_signed, host, "--uid", USER, "--wsgi-file", application, "--stats", f"{host}:9191") as server:
        server.wait_for_workers(WORKERS)
        server.wait_for_titles("uwsgi-tls stats", 1)
        answer = curl(f"https://{SERVER_NAME}/?{self_signed.key}", *self_signed.curl_server, host=host)
        assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"
        attempts, end = json.JSONDecoder().raw_decode(answer.stdout)
        assert {name: outcome for name, outcome in attempts.items() if outcome != "PermissionError"} == {}
        programs = json.loads(answer.stdout[end:])
        assert programs["uid"] == pwd.getpwnam(USER).pw_uid
        assert programs["su"].strip() != "0"
        (monitor,) = server.wait_for_titles("uwsgi-tls monitor", 1)
        for process in server.tree():
            assert process.status()["Uid"].split() == ["33"] * 4 or process.pid == monitor.pid


def test_serving_as_root_is_said_loudly(self_signed: SeedPki) -> None:
    with start(self_signed, loopback()) as server:
        server.wait_for_workers(WORKERS)
        assert "WARNING" in server.wait_for_line("root")


def test_without_root_nothing_is_dropped(pki: SeedPki, public_directory: Path) -> None:
    """Started by an unprivileged user, with files of its own and a port above 1023, it needs nothing of all this."""
    if not open_to_all(ROOT):
        pytest.skip(f"{ROOT} is closed to other users, so they cannot start this checkout")
    host = loopback()
    for file in (pki.certificate, pki.key):
        copy = public_directory / file.name
        copy.write_bytes(file.read_bytes())
        os.chown(copy, pwd.getpwnam(USER).pw_uid, -1)
        copy.chmod(0o400)
    with uwsgi_tls("--https", f"{host}:8443,foobar.crt,foobar.key", cwd=public_directory, user=USER) as server:
        (worker,) = server.wait_for_workers(1)
        answer = curl(f"https://{SERVER_NAME}:8443/", *pki.curl_server, host=host)
        assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"
        assert worker.status()["Uid"].split() == ["33"] * 4
        for process in server.tree():
            assert_keeps_its_memory(process)
        assert "WARNING" not in server.log


# What an application could do to the person at the terminal that it was started from.
AT_THE_TERMINAL = """
import fcntl, json, os, select, termios

def read(fd):
    return os.read(fd, 100) if select.select([fd], [], [], 0.2)[0] else None

def attempt(way):
    try:
        return f"worked: {way()!r}"
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"

tried = {
    "type 0": attempt(lambda: fcntl.ioctl(0, termios.TIOCSTI, b"#")),
    "type 1": attempt(lambda: fcntl.ioctl(1, termios.TIOCSTI, b"#")),
    "type 2": attempt(lambda: fcntl.ioctl(2, termios.TIOCSTI, b"#")),
    "take it": attempt(lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 1)),
    "open it": attempt(lambda: open("/dev/tty")),
    "read 1": attempt(lambda: read(1)),
    "read 2": attempt(lambda: read(2)),
    "read 0": attempt(lambda: read(0)),
}

def application(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps(tried).encode()]

with open(os.environ["TRIED"], "w") as file:
    json.dump(tried, file)
"""


def assert_terminal_out_of_reach(tried: dict[str, str]) -> None:
    assert {name: outcome.split()[0] for name, outcome in tried.items()} == {
        "type 0": "OSError",  # ENOTTY
        "type 1": "PermissionError",
        "type 2": "PermissionError",
        "take it": "PermissionError",
        "open it": "OSError",  # ENXIO
        "read 1": "OSError",  # EBADF
        "read 2": "OSError",
        "read 0": "worked:",
    }, tried
    assert tried["read 0"] == "worked: b''"  # /dev/null


def test_an_application_cannot_use_the_terminal_of_root(self_signed: SeedPki, public_directory: Path) -> None:
    """It would type into root's shell (TIOCSTI, ioctl_tty(2)), or read what root types."""
    app, tried = public_directory / "app.py", public_directory / "tried"
    app.write_text(AT_THE_TERMINAL)
    tried.touch()
    tried.chmod(0o666)
    host = loopback()
    words = command("--https", f"{host}:443,foobar.crt,foobar.key", "--uid", USER, "--wsgi-file", app)
    with Terminal(words, self_signed.directory, {"TRIED": str(tried)}) as terminal:
        terminal.type("secret\n")  # there to be read at once
        terminal.read_until("is serving")
        assert_terminal_out_of_reach(json.loads(tried.read_text()))
        terminal.type("\x03")  # Ctrl-C reaches the master, and the master alone tells the worker
        terminal.read_until("goodbye")
        assert "SIGINT: stopping" in terminal.said
        assert terminal.process.wait(STOP_SECONDS) == 0


def test_nor_while_it_is_checked(self_signed: SeedPki, public_directory: Path) -> None:
    app, tried = public_directory / "app.py", public_directory / "tried"
    app.write_text(AT_THE_TERMINAL)
    tried.touch()
    tried.chmod(0o666)
    words = command("--check", "--https", f"{loopback()}:443,foobar.crt,foobar.key", "--uid", USER, "--wsgi-file", app)
    with Terminal(words, self_signed.directory, {"TRIED": str(tried)}) as terminal:
        terminal.type("secret\n")
        terminal.read_until("configuration ok")
        assert terminal.process.wait(STOP_SECONDS) == 0
        assert_terminal_out_of_reach(json.loads(tried.read_text()))


OPEN_DESCRIPTORS = """
import json, os

def content(fd):
    try:
        return os.pread(int(fd), 100, 0).decode(errors="replace")
    except OSError as error:
        return ""

found = {fd: content(fd) for fd in os.listdir("/proc/self/fd")}

def application(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps(found).encode()]

with open(os.environ["TRIED"], "w") as file:
    json.dump(found, file)
"""


@pytest.mark.parametrize("check", [False, True], ids=["serving", "checking"])
def test_what_root_had_open_is_closed(self_signed: SeedPki, public_directory: Path, check: bool) -> None:
    """A descriptor that root's shell left open would be read, or written, by the application."""
    app, tried = public_directory / "app.py", public_directory / "tried"
    app.write_text(OPEN_DESCRIPTORS)
    tried.touch()
    tried.chmod(0o666)
    secret = public_directory / "secret"
    secret.write_text("root's own")
    secret.chmod(0o600)
    host = loopback()
    with open(secret) as file, socket.create_server((host, 443)) as listener:
        https = f"fd://{listener.fileno()},foobar.crt,foobar.key"
        options = ["--https", https, "--uid", USER, "--wsgi-file", str(app), *(["--check"] if check else [])]
        with subprocess.Popen(
            command(*options),
            cwd=self_signed.directory,
            env={**os.environ, "TRIED": str(tried)},
            pass_fds=(file.fileno(), listener.fileno()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as server:
            try:
                assert server.stdout is not None
                said = b""
                for line in server.stdout:
                    said += line
                    if b"is serving" in line or b"configuration ok" in line:
                        break
                found = json.loads(tried.read_text())
                assert "root's own" not in found.values(), said
                if not check:
                    answer = curl(f"https://{SERVER_NAME}/", *self_signed.curl_server, host=host)
                    assert answer.returncode == 0, answer.stderr  # what the configuration names is kept
            finally:
                if not check:
                    server.terminate()
                assert server.wait(STOP_SECONDS) == 0


def test_as_many_descriptors_as_are_allowed(self_signed: SeedPki) -> None:
    """A login's soft limit is 1024, for the sake of select(2), which we do not use."""
    words = command("--https", f"{loopback()}:443,foobar.crt,foobar.key", "--uid", USER)
    script = 'ulimit -Sn 256; ulimit -Hn 4000; exec "$@"'
    with Daemon(["sh", "-c", script, "sh", *words], cwd=self_signed.directory) as server:
        (worker,) = server.wait_for_workers(1)
        for process in (worker, *(each for each in server.tree() if each.pid == server.pid)):
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open")] == [["4000"] * 2]
