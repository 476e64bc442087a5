"""`uwsgi-tls upgrade`: a running master goes on as another program, which is a copy of ours with another version."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from pki import SERVER, common_name, issue, pki

import uwsgi_tls
from uwsgi_tls.heritage import FORMAT, UPGRADE

from .server import USER, Daemon, Process, command, is_root, loopback, open_directory, wait_for_end, wait_until
from .test_control import told
from .test_http_to import PORT, SECONDS, Client, Truncated
from .test_life import APPLICATION, Load
from .test_privileges import assert_dropped, assert_keeps_its_memory
from .test_service_manager import STARTER, Manager

needs_root = pytest.mark.skipif(not is_root, reason="only root has a privilege to do without")
WWW_DATA = 33


@dataclass(frozen=True, slots=True)
class Programs:
    """Those that are installed one after the other, each in a directory; `current` is a link to one of them."""

    directory: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.directory / "current")}

    def install(self, version: str, **files: str) -> None:
        """Makes ours of that version the current one, with what `files` has instead of modules of these names."""
        package = self.directory / version / "uwsgi_tls"
        shutil.copytree(Path(uwsgi_tls.__file__).parent, package)
        text = (package / "__init__.py").read_text()
        (package / "__init__.py").write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', text))
        for name, content in files.items():
            (package / f"{name}.py").write_text(content)
        (self.directory / "next").symlink_to(version)
        (self.directory / "next").rename(self.directory / "current")


@pytest.fixture
def programs() -> Iterator[Programs]:
    with open_directory() as directory:
        installed = Programs(directory)
        installed.install("1.0")
        (directory / "app.py").write_text(APPLICATION)
        yield installed


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory of the starter's alone, with a certificate and its key."""
    with tempfile.TemporaryDirectory(dir="/root" if is_root else None) as name:
        certify(Path(name))
        yield Path(name)


def certify(directory: Path) -> None:
    issue(directory, "s", common_name("server.lab"), pki().ca, usage=[SERVER], sans=[x509.DNSName("server.lab")])


@contextlib.contextmanager
def serving(programs: Programs, *options: str | Path) -> Iterator[tuple[Daemon, Path]]:
    """The first program, ready, and its pid file."""
    pidfile = programs.directory / "a.pid"
    arguments = ["--wsgi-file", programs.directory / "app.py", "--pidfile", pidfile, *USER, *options]
    with Daemon(command(*arguments), env=programs.environ) as daemon:
        daemon.wait_for_line(r"generation 1 is serving")
        yield daemon, pidfile


def listening(own: Path, host: str) -> tuple[str, str]:
    return "--https", f"{host}:{PORT},{own}/s.crt,{own}/s.key"


def upgrade(pidfile: Path, refused: str = "") -> None:
    """By the command, which waits, and says whether the server goes on as it was."""
    done = told("upgrade", "--pidfile", pidfile)
    complaint = f"uwsgi-tls: pidfile = {pidfile}: its server {refused}\n" if refused else ""
    assert (done.returncode, done.stdout, done.stderr) == (1 if refused else 0, "", complaint)


STAYS = "goes on as it was; its log says why"


def ask(daemon: Daemon) -> None:
    """As the command does, without waiting."""
    os.kill(daemon.pid, UPGRADE)


def serves(host: str, port: int = PORT) -> bool:
    with Client(host, port) as client:
        return client.get().status == 200


@needs_root
def test_nothing_is_lost_and_nothing_is_given_back(programs: Programs, own: Path) -> None:
    """Twice, under load, on a port and with a key, a log and a pid file that only root may have."""
    host = loopback()
    https = ("--shared-socket", f"{host}:443", "--https", f"=0,{own}/s.crt,{own}/s.key", *listening(own, host))
    files = ("--logto", own / "log", "--master-fifo", own / "fifo", "--stats", f"{host}:9191")
    arguments = ["--wsgi-file", programs.directory / "app.py", "--pidfile", own / "pid", *USER, *https, *files]
    log = own / "log"

    def wait_for_line(pattern: str) -> None:
        wait_until(lambda: bool(re.search(pattern, log.read_text())), SECONDS, log.read_text)

    with Daemon(command(*arguments, "--processes", "2"), env=programs.environ) as daemon:
        old = daemon.wait_for_workers(2)
        (monitor,) = daemon.wait_for_titles("uwsgi-tls monitor", 1)
        with Load(host) as load:
            for number in (2, 3):
                programs.install(f"{number}.0")
                upgrade(own / "pid")
                wait_for_line(rf"uwsgi-tls {number}\.0 has taken over from {number - 1}\.0")
                wait_for_line(f"generation {number} is serving with 2 workers")
                assert all(wait_for_end(worker.pid) for worker in old)
                old = daemon.wait_for_workers(2)
                load.wait_for_more(50)
        assert load.failures == []
        assert (own / "pid").read_text() == f"{daemon.pid}\n"
        assert serves(host, 443)
        (stats,) = daemon.wait_for_titles("uwsgi-tls stats", 1)
        assert {each.pid for each in daemon.tree()} == {
            *(daemon.pid, monitor.pid, stats.pid),
            *(worker.pid for worker in old),
        }
        for process in daemon.tree():
            if process.pid != monitor.pid:
                assert_dropped(process, WWW_DATA, WWW_DATA, set(os.getgrouplist("www-data", WWW_DATA)))
        assert_keeps_its_memory(monitor)
        assert_held(daemon.pid, old[0])
        (own / "fifo").write_text("s")
        wait_for_line("master-fifo .*: s")
        certify(own)  # what is new is read by the old monitor
        assert told("reload", "--pidfile", own / "pid").returncode == 0
        wait_for_line("generation 4 is serving")
        daemon.wait_for_workers(2)
        assert told("stop", "--pidfile", own / "pid").returncode == 0
        assert daemon.wait() == 0


def assert_held(master: int, worker: Process) -> None:
    """Neither has descriptors that pile up, nor a worker those of the master."""
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{worker.pid}/fd")]
    assert not [link for link in links if "/pid" in link or "memfd" in link or "fifo" in link], links
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{master}/fd")]
    assert not [link for link in links if "heritage" in link], links
    assert len(links) < 30


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("lounge", "def broken(:\n", "SyntaxError: "),
        ("heritage", "def inherit(environ): raise OSError('no library')\n", "OSError: no library"),
        ("succession", "import sys\ndef run(*_): sys.exit(3)\n", "it ended with wait status 768"),
    ],
)
def test_a_program_that_cannot_start_is_refused(
    programs: Programs, own: Path, name: str, content: str, complaint: str
) -> None:
    host = loopback()
    with serving(programs, *listening(own, host)) as (daemon, pidfile):
        (before,) = daemon.wait_for_workers(1)
        programs.install("2.0", **{name: content})
        upgrade(pidfile, STAYS)
        said = daemon.wait_for_line("upgrade failed")
        assert f"upgrade failed, this program goes on: {complaint}" in said
        assert serves(host)
        assert [worker.pid for worker in daemon.wait_for_workers(1)] == [before.pid]
        assert "Traceback" not in daemon.log


def test_what_only_a_start_can_change_is_refused(programs: Programs, own: Path) -> None:
    host = loopback()
    ini = programs.directory / "a.ini"
    ini.write_text("[uwsgi]\nthreads = 1\n")
    with serving(programs, *listening(own, host), "--ini", ini) as (daemon, pidfile):
        programs.install("2.0")
        ini.write_text("[uwsgi]\nrlimit-nofile = 333\n")
        upgrade(pidfile, STAYS)
        assert "rlimit-nofile = 333: was 0 at the start, and only a restart changes that" in daemon.wait_for_line(
            "upgrade failed"
        )
        ini.write_text("[uwsgi]\nprocesses = 3\n")
        upgrade(pidfile)
        daemon.wait_for_line("uwsgi-tls 2.0 has taken over from 1.0")
        daemon.wait_for_workers(3)
        assert serves(host)


def test_a_key_that_nobody_may_read_is_refused(programs: Programs, own: Path) -> None:
    """Without a monitor it is in the memory of the old program alone."""
    if not is_root:
        pytest.skip("only root can have such a key")
    host = loopback()
    with serving(programs, *listening(own, host), "--no-monitor") as (daemon, pidfile):
        programs.install("2.0")
        upgrade(pidfile, STAYS)
        assert "ermission denied" in daemon.wait_for_line("upgrade failed, this program goes on: https = ")
        assert serves(host)


@needs_root
def test_a_log_daemon_that_is_away_or_roots_alone(programs: Programs, own: Path) -> None:
    """Neither could be connected to anew."""
    host = loopback()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as roots,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as restarted,
    ):
        roots.bind(str(own / "roots"))
        restarted.bind(str(programs.directory / "log"))
        loggers = [f"--logger=syslog:x,user,{path}" for path in (own / "roots", programs.directory / "log")]
        pidfile = own / "pid"
        with Daemon(command(*listening(own, host), *USER, "--pidfile", pidfile, *loggers), env=programs.environ):
            roots.settimeout(SECONDS)
            heard(roots, "generation 1 is serving")
            restarted.close()
            programs.install("2.0")
            upgrade(pidfile)
            heard(roots, "2.0 has taken over from 1.0")
            assert serves(host)


def heard(daemon: socket.socket, text: str) -> None:
    while text not in daemon.recv(9000).decode():
        pass


@needs_root
def test_the_user_may_not_ask_for_it(programs: Programs, own: Path) -> None:
    host = loopback()
    with serving(programs, *listening(own, host)) as (daemon, _):
        programs.install("2.0")
        subprocess.run(["kill", "-RTMIN", str(daemon.pid)], user=WWW_DATA, group=WWW_DATA, check=True)
        said = daemon.wait_for_line("upgrade")
        assert said.endswith("upgrade: only root may ask for it, with kill(2): ignored")
        assert "tried" not in daemon.log


@needs_root
def test_with_capabilities_it_is_refused_at_once(programs: Programs, own: Path) -> None:
    """As with chroot: it is not even tried."""
    host = loopback()
    with serving(programs, *listening(own, host), "--cap", "net_bind_service") as (daemon, _):
        programs.install("2.0", succession=SLOW)
        ask(daemon)
        said = daemon.wait_for_line("upgrade failed")
        assert "upgrade failed, this program goes on: cap = " in said
        assert serves(host)


@needs_root
def test_who_is_root_still_has_taken_nothing_over(programs: Programs, own: Path) -> None:
    """What claims so is somebody's environment, which would keep a start from giving root up."""
    table = (
        f"FORMAT = {FORMAT}"
        + """
import fcntl, json, os, sys
memory = os.memfd_create("forged", os.MFD_ALLOW_SEALING)
facts = dict(version="x", identity=None, started_by=[0, 0], passed=[], main_pid=0, watchdog=0, fixed={}, umask=0)
facts |= dict(sockets=[], workers=[], generation=1, strangers=[])
os.write(memory, json.dumps(dict(format=FORMAT, master=os.getpid(), trial=False, fds={}, facts=facts)).encode())
fcntl.fcntl(memory, fcntl.F_ADD_SEALS, 15)
os.set_inheritable(memory, True)
os.execve(sys.argv[1], sys.argv[1:], {**os.environ, "UWSGI_TLS_HERITAGE": str(memory)})
"""
    )
    words = [sys.executable, "-c", table, *command(*listening(own, loopback()), *USER)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    said = "uwsgi-tls: uid = www-data: root has not been given up before: start without UWSGI_TLS_HERITAGE\n"
    assert done.stderr == said


def test_during_a_reload_it_waits(programs: Programs, own: Path) -> None:
    host = loopback()
    with serving(programs, *listening(own, host)) as (daemon, _):
        (programs.directory / "app.py").write_text("import time\ntime.sleep(0.5)\n" + APPLICATION)
        programs.install("2.0")
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("SIGHUP: reloading")
        ask(daemon)
        daemon.wait_for_line("upgrade: taken up when this start or reload is done")
        daemon.wait_for_line("generation 2 is serving")
        daemon.wait_for_line("2.0 has taken over from 1.0")
        os.kill(daemon.pid, signal.SIGHUP)  # of which it learns when it begins
        daemon.wait_for_line("generation 3 is serving")
        daemon.wait_for_line("generation 4 is serving")
        assert serves(host)


def test_an_application_that_does_not_load_leaves_the_old_workers(programs: Programs, own: Path) -> None:
    """With a socket that the new configuration has not."""
    host = loopback()
    ini = programs.directory / "a.ini"
    ini.write_text(f"[uwsgi]\nhttps = {host}:{PORT + 1},{own}/s.crt,{own}/s.key\n")
    with serving(programs, *listening(own, host), "--ini", ini) as (daemon, pidfile):
        (old,) = daemon.wait_for_workers(1)
        programs.install("2.0")
        (programs.directory / "app.py").write_text("import nothing_of_that_name\n")
        ini.write_text("[uwsgi]\n")
        upgrade(pidfile, STAYS)
        daemon.wait_for_line("reload failed, generation 1 stays")
        assert [worker.pid for worker in daemon.wait_for_workers(1)] == [old.pid]
        assert serves(host)
        assert serves(host, PORT + 1)
        (programs.directory / "app.py").write_text(APPLICATION)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("generation 2 is serving")
        assert wait_for_end(old.pid)
        with pytest.raises(ConnectionRefusedError):  # the socket that nobody has any more
            socket.create_connection((host, PORT + 1), SECONDS)


def test_who_is_stuck_is_killed_whichever_program_has_forked_him(programs: Programs, own: Path) -> None:
    """The old workers stay under the harakiri that they had, also where the new configuration has none, and over a
    second upgrade that comes to nothing.
    """
    host = loopback()
    ini = programs.directory / "a.ini"
    ini.write_text("[uwsgi]\nharakiri = 1\n")
    with serving(programs, *listening(own, host), "--ini", ini) as (daemon, pidfile):
        (old,) = daemon.wait_for_workers(1)
        (programs.directory / "app.py").write_text("import nothing_of_that_name\n")
        ini.write_text("[uwsgi]\n")
        for version in ("2.0", "3.0"):
            programs.install(version)
            upgrade(pidfile, STAYS)
            daemon.wait_for_line(f"uwsgi-tls {version} has taken over")
        assert [worker.pid for worker in daemon.wait_for_workers(1)] == [old.pid]
        (programs.directory / "app.py").write_text(APPLICATION)
        with Client(host) as client, pytest.raises((Truncated, ConnectionError)):
            client.get("/wait?60")
        daemon.wait_for_line(rf"\(pid: {old.pid}\) has a request that lasts longer than 1 seconds: HARAKIRI")
        daemon.wait_for_line(r"worker 1 \|   File .*app.py")
        assert serves(host)


SLOW = "import time\ntime.sleep(60)\n"


def test_a_stop_ends_the_trial(programs: Programs, own: Path) -> None:
    host = loopback()
    with serving(programs, *listening(own, host)) as (daemon, pidfile):
        programs.install("2.0", succession=SLOW)
        ask(daemon)
        daemon.wait_for_titles("-m uwsgi_tls", 1)
        assert told("stop", "--pidfile", pidfile).returncode == 0
        assert daemon.wait() == 0


# What the second program does before it takes over: it waits to be killed in the very moments between the two.
ONLY_ON_TRIAL = """
import time
from uwsgi_tls import master
def run(heir, words):
    if not heir.trial:
        print("between the programs", flush=True)
        time.sleep(60)
    return 0
"""


@pytest.mark.parametrize("moment", ["upgrade: the program", "between the programs"])
def test_kill_of_the_master_leaves_nothing(programs: Programs, own: Path, moment: str) -> None:
    """On the way a worker has no other parent than the process that changes its program, and dies with it."""
    host = loopback()
    with serving(programs, *listening(own, host), "--processes", "2") as (daemon, _):
        workers = daemon.wait_for_workers(2)
        programs.install("2.0", succession=ONLY_ON_TRIAL if moment.startswith("between") else SLOW)
        os.kill(workers[0].pid, signal.SIGSTOP)  # it cannot notice anything itself
        ask(daemon)
        daemon.wait_for_line(moment)
        assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL  # which waits for the end of all others
        assert daemon.tree() == []


def test_a_master_without_a_file_of_its_own(programs: Programs, own: Path) -> None:
    """A UNIX socket keeps its file until the end; a request that is under way is answered by the old program."""
    host, path = loopback(), programs.directory / "https.sock"
    unix = f"{path},{own}/s.crt,{own}/s.key"
    directory = programs.directory
    if is_root:
        shutil.chown(directory, "www-data")
    with serving(programs, *listening(own, host), "--https", unix) as (daemon, pidfile):
        before = path.stat().st_ino
        programs.install("2.0")
        with Client(host) as client:
            (old,) = daemon.wait_for_workers(1)
            client.send("GET", "/wait?4")
            upgrade(pidfile)
            assert client.read_answer().body == str(old.pid).encode()
        assert path.stat().st_ino == before
        assert daemon.stop() == 0
        assert not path.exists()


def test_a_service_manager_sees_a_reload(programs: Programs, own: Path) -> None:
    """Of the process that it knows, with the socket that it has passed, and a watchdog that is fed on."""
    host = loopback()
    with socket.create_server((host, PORT)) as passed, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told_on:
        told_on.bind(str(own / "notify"))
        manager = Manager(told_on, str(own / "notify"))
        words = [sys.executable, "-c", STARTER, str(passed.fileno())]
        words += command("--https", f"=0,{own}/s.crt,{own}/s.key", *USER)
        environ = {**programs.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
        with Daemon(words, env=environ, pass_fds=[passed.fileno()]) as daemon:
            manager.until("READY=1")
            programs.install("2.0")
            ask(daemon)
            manager.until("RELOADING=1")
            ready = manager.until("READY=1")
            assert not [line for line in ready if line.startswith("MAINPID")]
            assert "STATUS=serving: generation 2, workers 1" in ready
            manager.until("WATCHDOG=1")
            assert "2.0 has taken over from 1.0" in daemon.log
            assert serves(host)
            daemon.stop()
            manager.until("STOPPING=1")
