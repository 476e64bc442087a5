"""What processes hold, what is left when they end, and what hardens or loosens them: cap, chroot, umask, limits."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from uwsgi_tls.heritage import UPGRADE

from .seed_pki import SERVER_NAME, SeedPki
from .seed_pki import self_signed as self_signed_pki
from .server import (
    STOP_SECONDS,
    Daemon,
    Process,
    command,
    curl,
    is_root,
    loopback,
    uwsgi_tls,
    wait_for_end,
    wait_until,
)

pytestmark = pytest.mark.skipif(not is_root, reason="there is nothing to drop without root")

USER = "www-data"
ONLY_PROCESSES = "hidepid=invisible,subset=pid"  # mount options of proc(5)


# What is held


def held(process: Process) -> list[str]:
    """What its descriptors are: sockets that listen with their inode, all else of the kernel's without a number."""
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"}
    found = []
    for fd in os.listdir(f"/proc/{process.pid}/fd"):
        target = os.readlink(f"/proc/{process.pid}/fd/{fd}")
        kind, _, inode = target.partition(":[")
        named = not inode or kind == "anon_inode" or inode.rstrip("]") in listening
        found.append(target if named else kind)
    return sorted(found)


def listeners(process: Process) -> set[str]:
    return {each for each in held(process) if each.startswith("socket:")}


def test_a_worker_holds_its_own_and_nothing_else(self_signed: SeedPki, public_directory: Path) -> None:
    """Its listeners, its log, its way to the master and what it has opened: two pipes' ends and three epolls. So it is
    for one that came first, one that replaces another, and one of a new generation: nothing leaks from fork to fork.

    Not the sockets of statistics, the pid file, the monitor's channel, the service manager's, nor a sibling's.
    """
    host = loopback()
    log = public_directory / "log"
    notify = public_directory / "notify"
    options = [
        "--shared-socket",
        f"{host}:443",
        "--https",
        "=0,foobar.crt,foobar.key",
        "--https",
        f"{host}:8443,foobar.crt,foobar.key",
    ]
    options += ["--processes", "3", "--uid", USER, "--logto", str(log), "--pidfile", str(public_directory / "pid")]
    options += ["--stats", f"{host}:9191", "--touch-reload-certs"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notify))
        with uwsgi_tls(*options, cwd=self_signed.directory, env={"NOTIFY_SOCKET": str(notify)}) as server:
            first = server.wait_for_workers(3)
            (stats,) = server.wait_for_titles("uwsgi-tls stats", 1)
            sockets = listeners(first[0])
            assert len(sockets) == 2
            own = [*sockets, "/dev/null", str(log), str(log), "socket", "pipe", "pipe", *["anon_inode:[eventpoll]"] * 3]
            expected = Counter(own)
            for worker in first:
                assert Counter(held(worker)) == expected, worker.title()
            assert not sockets & listeners(stats)
            os.kill(first[0].pid, signal.SIGKILL)
            assert wait_for_end(first[0].pid)
            again = server.wait_for_workers(3)
            os.kill(server.pid, signal.SIGHUP)
            last = server.wait_for_titles(r"worker \d+ \(generation 2\): serving", 3)
            for old in again:
                assert wait_for_end(old.pid)
            for worker in last:
                assert Counter(held(worker)) == expected, worker.title()


def zombies(parent: int) -> list[str]:
    """The children that have ended and that nobody has buried."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, ppid = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state == "Z" and int(ppid) == parent:
            found.append(entry)
    return found


def everybody(host: str, pki: SeedPki) -> Daemon:
    """A server with one process of each kind, and two workers."""
    options = ["--https", f"{host}:443,foobar.crt,foobar.key", "--uid", USER, "--processes", "2"]
    return uwsgi_tls(*options, "--stats", f"{host}:9191", cwd=pki.directory)


def test_the_dead_are_buried(self_signed: SeedPki) -> None:
    """kill -9 of each kind of child: no zombie stays, and workers and stats process are replaced."""
    host = loopback()
    with everybody(host, self_signed) as server:
        server.wait_for_workers(2)
        victims = [server.wait_for_titles(title, 1)[0] for title in ("monitor", "stats", "worker 1 ")]
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
            assert wait_for_end(victim.pid)
        server.wait_for_workers(2)
        server.wait_for_titles("uwsgi-tls stats", 1)
        wait_until(lambda: not zombies(server.pid), STOP_SECONDS, lambda: f"{zombies(server.pid)}\n{server.log}")
        assert not {victim.pid for victim in victims} & {process.pid for process in server.tree()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_outlives_the_master(self_signed: SeedPki, number: signal.Signals) -> None:
    """Workers, stats process and the monitor, which is root's, end with it, however it ends, and the ports are free."""
    host = loopback()
    with everybody(host, self_signed) as server:
        server.wait_for_workers(2)
        server.wait_for_titles("uwsgi-tls stats", 1)
        assert len(server.tree()) == 5
        status = server.stop(number)  # waits for the end of each of them, and fails without
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert server.tree() == []
        for port in (443, 9191):
            with socket.socket() as again:
                again.bind((host, port))


# What is not theirs to do

# Answers with what came of starting a process and a thread, with the umask, and with the capabilities of a program.
TRIES = """
import json, os, socket, subprocess, threading, time

def attempt(way):
    try:
        return str(way())
    except (OSError, RuntimeError) as error:
        return type(error).__name__

def program():
    return subprocess.run(["grep", "^Cap", "/proc/self/status"], capture_output=True, text=True).stdout

def thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

def bind(host):
    with socket.socket() as sock:
        sock.bind((host, 444))

def application(environ, start_response):
    mask = os.umask(0)
    os.umask(mask)
    start_response("200 OK", [])
    return [json.dumps({
        "program": attempt(program),
        "thread": attempt(thread),
        "bind": attempt(lambda: bind(environ["QUERY_STRING"])),
        "umask": f"{mask:03o}",
        "root": sorted(os.listdir("/")),
    }).encode()]
"""


def tried(server: Daemon, pki: SeedPki, host: str) -> dict[str, Any]:
    server.wait_for_workers(1)
    answer = curl(f"https://{SERVER_NAME}/?{host}", *pki.curl_server, host=host)
    assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize(
    ("options", "umask", "bind", "capabilities"),
    [
        pytest.param((), "077", "PermissionError", 0, id="as it is"),
        pytest.param(
            ("--cap", "CAP_NET_BIND_SERVICE,kill", "--umask", "027"), "027", "None", 1 << 10 | 1 << 5, id="cap"
        ),
    ],
)
def test_what_an_application_may_do(
    self_signed: SeedPki, public_directory: Path, options: tuple[str, ...], umask: str, bind: str, capabilities: int
) -> None:
    """It starts programs and threads, and its files are its own, unless umask says more; a capability that was kept
    serves it, and no program that it starts, and no stats process.
    """
    (public_directory / "app.py").write_text(TRIES)
    host = loopback()
    everything = ["--https", f"{host}:443,foobar.crt,foobar.key", "--uid", USER, "--stats", f"{host}:9191"]
    everything += ["--wsgi-file", str(public_directory / "app.py"), *options]
    with uwsgi_tls(*everything, cwd=self_signed.directory) as server:
        found = tried(server, self_signed, host)
        assert (found["umask"], found["bind"], found["thread"]) == (umask, bind, "None")
        assert re.findall(r"Cap\w+:\t(\w+)", found["program"]) == ["0" * 16] * 5
        (stats,) = server.wait_for_titles("uwsgi-tls stats", 1)
        (monitor,) = server.wait_for_titles("uwsgi-tls monitor", 1)
        for process in server.tree():
            sets = {
                name: int(process.status()[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")
            }
            if process.pid != monitor.pid:
                kept = 0 if process.pid == stats.pid else capabilities
                assert sets == {"CapPrm": kept, "CapEff": kept, "CapInh": 0, "CapBnd": 0, "CapAmb": 0}


def limit(process: Process, name: str) -> list[str]:
    """Soft and hard."""
    found = re.search(rf"^{name} +(\S+) +(\S+) ", Path(f"/proc/{process.pid}/limits").read_text(), re.MULTILINE)
    assert found is not None
    return list(found.groups())


def test_a_worker_without_an_application_starts_nothing(self_signed: SeedPki) -> None:
    """Neither processes nor threads, from the moment it serves; all of its own threads are there by then."""
    host = loopback()
    with everybody(host, self_signed) as server:
        for worker in server.wait_for_workers(2):
            assert limit(worker, "Max processes") == ["0", "0"]
            answer = curl(f"https://{SERVER_NAME}/", *self_signed.curl_server, host=host)
            assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"
            assert worker.status()["Threads"] == "2"


@pytest.mark.parametrize(
    ("wanted", "given"), [("300", "300"), ("9000", "600")], ids=["as many as wanted", "no more than allowed"]
)
def test_the_limit_of_descriptors(self_signed: SeedPki, wanted: str, given: str) -> None:
    """uWSGI's name max-fd is good for it too. What cannot be had is said, and no reason not to serve."""
    words = command("--https", f"{loopback()}:443,foobar.crt,foobar.key", "--uid", USER, "--max-fd", wanted)
    # Without CAP_SYS_RESOURCE root itself may not raise the hard limit.
    script = 'ulimit -n 600; exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$@"'
    with Daemon(["sh", "-c", script, "sh", *words], cwd=self_signed.directory) as server:
        (worker,) = server.wait_for_workers(1)
        assert limit(worker, "Max open files") == [given, given]
        said = f"rlimit-nofile = {wanted}: this process may have no more than 600 descriptors"
        assert (said in server.log) == (wanted != given)


@pytest.mark.parametrize(
    ("options", "modes"),
    [
        pytest.param((), {"sock": 0o755, "log": 0o640, "pid": 0o644}, id="that of the start"),
        pytest.param(("--umask", "027"), {"sock": 0o750, "log": 0o640, "pid": 0o640}, id="umask"),
        pytest.param(("--umask", "077"), {"sock": 0o700, "log": 0o600, "pid": 0o600}, id="strict"),
    ],
)
def test_modes_of_files(
    self_signed: SeedPki, public_directory: Path, options: tuple[str, ...], modes: dict[str, int]
) -> None:
    """Sockets, log and pid file are made with their own modes under the umask of the start, if the option does not
    say another; what comes later is the user's alone."""
    place = public_directory
    everything = ["--https", f"{place}/sock,foobar.crt,foobar.key", "--logto", f"{place}/log", "--uid", USER]
    with uwsgi_tls(*everything, "--pidfile", f"{place}/pid", *options, cwd=self_signed.directory) as server:
        server.wait_for_workers(1)
        assert {name: (place / name).stat().st_mode & 0o777 for name in modes} == modes


def test_with_nothing_but_processes_in_proc(self_signed: SeedPki) -> None:
    """As under ProtectProc=invisible and ProcSubset=pid in a unit, systemd.exec(5): there is no /proc/sys."""
    words = command("--https", f"{loopback()}:443,foobar.crt,foobar.key", "--uid", USER)
    script = f'mount -t proc -o {ONLY_PROCESSES} proc /proc; [ ! -e /proc/sys ]; exec "$@"'
    with Daemon(["unshare", "--mount", "sh", "-ec", script, "sh", *words], cwd=self_signed.directory) as server:
        (worker,) = server.wait_for_workers(1)
        assert worker.status()["CapBnd"] == "0" * 16


# chroot


def in_a_chroot(root: Path, *options: str, cwd: Path, proc: bool = True) -> Daemon:
    """Starts the server where `root` has /dev/null and, as far as only this server can see, /proc."""
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    (root / "dev" / "null").touch()
    (root / "tmp").chmod(0o1777)
    script = (
        'mount --bind /dev/null "$0/dev/null"; '
        + (f'mount -t proc -o {ONLY_PROCESSES} proc "$0/proc"; ' if proc else "")
        + 'exec "$@"'
    )
    words = command("--chroot", root, "--uid", USER, *options)
    return Daemon(["unshare", "--mount", "sh", "-ec", script, str(root), *words], cwd=cwd)


@pytest.fixture
def roots_own(self_signed: SeedPki) -> Iterator[Path]:
    """A directory of certificate and key where nobody but root can have put them."""
    with tempfile.TemporaryDirectory(dir="/root") as name:
        for file in (self_signed.certificate, self_signed.key):
            shutil.copy2(file, name)
        yield Path(name)


def test_a_new_root_directory(self_signed: SeedPki, public_directory: Path, roots_own: Path, tmp_path: Path) -> None:
    """The application's file and what it sees are inside; certificates, log and pid file are outside. The monitor stays
    outside, and so root's new key and certificate are read at a reload.
    """
    host = loopback()
    root = public_directory / "root"
    root.mkdir(mode=0o755)
    (root / "app.py").write_text(TRIES)
    options = ["--https", f"{host}:443,foobar.crt,foobar.key", "--wsgi-file", "/app.py", "--logto", "log"]
    options += ["--stats", f"{host}:9191"]
    with in_a_chroot(root, *options, "--pidfile", f"{public_directory}/pid", cwd=roots_own) as server:
        (worker,) = server.wait_for_workers(1)
        (monitor,) = server.wait_for_titles("uwsgi-tls monitor", 1)
        (stats,) = server.wait_for_titles("uwsgi-tls stats", 1)
        assert os.readlink(f"/proc/{stats.pid}/root") == str(root)
        assert os.readlink(f"/proc/{worker.pid}/root") == os.readlink(f"/proc/{server.pid}/root") == str(root)
        assert os.readlink(f"/proc/{monitor.pid}/root") == "/"
        assert os.readlink(f"/proc/{worker.pid}/cwd") == os.readlink(f"/proc/{server.pid}/cwd") == str(root)
        found = tried(server, self_signed, host)
        assert found["root"] == ["app.py", "dev", "proc", "tmp"]
        assert found["program"] == "FileNotFoundError"  # there is no grep in it
        new = self_signed_pki(tmp_path)
        for file in (new.certificate, new.key):
            shutil.copy2(file, roots_own)
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_titles(r"worker 1 \(generation 2\): serving", 1)
        assert wait_for_end(worker.pid)
        answer = curl(f"https://{SERVER_NAME}/?{host}", *new.curl_server, host=host)
        assert answer.returncode == 0, answer.stderr
        os.kill(server.pid, UPGRADE)  # what lies under our program's name in there may be the user's
        log = roots_own / "log"
        wait_until(lambda: "this program goes on: chroot = " in log.read_text(), STOP_SECONDS, log.read_text)
        assert server.stop() == 0
    assert "goodbye" in log.read_text()
    pidfile = public_directory / "pid"
    assert pidfile.read_text() == f"{server.pid}\n"  # the user may not remove it


def test_without_a_monitor_a_reload_reads_nothing_outside(self_signed: SeedPki, public_directory: Path) -> None:
    """What the user may read outside is out of reach as well, and what has its name inside is not taken for it."""
    host = loopback()
    root = public_directory / "root"
    root.mkdir(mode=0o755)
    pki = public_directory / "pki"
    shutil.copytree(self_signed.directory, pki)
    for file in (pki, *pki.iterdir()):
        os.chown(file, pwd.getpwnam(USER).pw_uid, -1)
    (root / "foobar.crt").write_text("not what is meant")
    with in_a_chroot(root, "--https", f"{host}:443,foobar.crt,foobar.key", "--no-monitor", cwd=pki) as server:
        server.wait_for_workers(1)
        assert "outside of chroot" in server.wait_for_line("a reload will not read foobar.key again")
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_titles(r"worker 1 \(generation 2\): serving", 1)
        assert curl(f"https://{SERVER_NAME}/", *self_signed.curl_server, host=host).returncode == 0


@pytest.mark.parametrize(
    ("lacks", "options", "cause"),
    [
        ("proc", (), "there is no /proc/self/fd in it"),
        ("tmp", (), "www-data cannot make temporary files in it: it needs /tmp, or spool-dir"),
        ("", ("--wsgi-file", "/app.py"), "wsgi-file = /app.py: no such file in "),
        ("", ("--spool-dir", "/var"), "spool-dir = /var: no such directory in "),
    ],
)
def test_a_root_directory_that_lacks_something(
    self_signed: SeedPki, public_directory: Path, lacks: str, options: tuple[str, ...], cause: str
) -> None:
    everything = ["--https", f"{loopback()}:443,foobar.crt,foobar.key", *options]
    server = in_a_chroot(public_directory, *everything, cwd=self_signed.directory, proc=lacks != "proc")
    if lacks == "tmp":
        (public_directory / "tmp").chmod(0o755)
    with server:
        assert server.wait() == 1
        assert cause in server.log
        assert len(server.lines) == 1, server.log


@pytest.mark.parametrize(
    ("options", "user", "said"),
    [
        (("--cap", "net_bind_servis"), None, "cap = net_bind_servis: there is no capability 'net_bind_servis', see"),
        (
            ("--cap", "setuid", "--uid", USER),
            None,
            "cap = setuid: setuid leads back to root, which is given up for good",
        ),
        (("--cap", "kill"), None, "cap = kill: needs a uid too"),
        (("--cap", "kill"), USER, "cap = kill: this process has no kill to keep"),
        (("--chroot", "/nowhere", "--uid", USER), None, "chroot = /nowhere: no such directory"),
        (("--chroot", "/"), None, "chroot = /: needs a uid too: whoever stays root can leave it"),
        (("--chroot", "/"), USER, "chroot = /: only root can change the root directory, and this is uid 33"),
        (("--umask", "088"), None, "umask = 088: is not an octal mask such as 027"),
        (("--umask", "1777"), None, "umask = 1777: is not an octal mask such as 027"),
        (("--rlimit-nofile", "3"), None, "rlimit-nofile = 3: not between 64 and 1048576"),
    ],
)
def test_what_cannot_be(public_directory: Path, options: tuple[str, ...], user: str | None, said: str) -> None:
    """One line that names option, value and cause; nothing is bound."""
    with uwsgi_tls("--https", ":8443,a.crt,a.key", *options, cwd=public_directory, user=user) as server:
        assert server.wait() == 1
        assert len(server.lines) == 1, server.log
        assert said in server.log


def test_check_goes_into_the_root_directory_too(self_signed: SeedPki, public_directory: Path) -> None:
    root = public_directory / "root"
    root.mkdir(mode=0o755)
    (root / "app.py").write_text(TRIES)
    options = ["--https", f"{loopback()}:443,foobar.crt,foobar.key", "--wsgi-file", "/app.py", "--check"]
    options += ["--cap", "kill,net_bind_service"]
    with in_a_chroot(root, *options, cwd=self_signed.directory) as server:
        assert server.wait() == 0, server.log
        assert server.lines[-1] == "configuration ok"
        assert f"groups [33], keeps kill,net_bind_service, in {root}" in server.log
