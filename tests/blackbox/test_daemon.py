"""--daemonize, --pidfile and --logto: the command returns when the server serves, and says so when it does not."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from pki import SERVER, common_name, issue, pki

from .server import USER, Process, command, curl, is_root, loopback, open_directory, processes, wait_for_end, wait_until
from .test_http_to import PORT, Client

COMMAND_SECONDS = 20.0
needs_root = pytest.mark.skipif(not is_root, reason="only root can drop to another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that only whoever runs the tests may write to, as /run and /var/log are root's."""
    with open_directory() as directory:
        yield directory


@dataclass(frozen=True, slots=True)
class Started:
    """What the command itself did, before there was a daemon or instead of one."""

    status: int
    output: str
    seconds: float


def start(host: str, *options: str | Path) -> Started:
    """Runs the command to its end. Its output is a file: a daemon that kept it open would not hold a pipe's reader."""
    server = pki().server_ec
    words = command("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *USER, *options)
    began = time.monotonic()
    with open_directory() as directory, open(directory / "output", "w+") as output:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=COMMAND_SECONDS, check=False
        )
        output.seek(0)
        return Started(done.returncode, output.read(), time.monotonic() - began)


MONITORS = 1 if is_root else 0  # the process that stays root where there is one to be dropped


def family(pid: int) -> list[Process]:
    """Process `pid` and its children: the master, its monitor and its workers."""
    return [process for process in processes() if pid in (process.pid, process.parent)]


@contextlib.contextmanager
def daemon(pid: int) -> Iterator[list[Process]]:
    """The daemon with this master, which is stopped at the end, and whose processes must all have gone then."""
    members = family(pid)
    try:
        yield members
    finally:
        for process in members:
            if process.pid == pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        for process in members:
            if not wait_for_end(process.pid):
                os.kill(process.pid, signal.SIGKILL)
                pytest.fail(f"{process} outlived the stop")


def read_pid(path: Path) -> int:
    return int(path.read_text())


def assert_nobody_listens(host: str) -> None:
    """Nothing is left of a start that failed, so the address is free."""
    answer = curl(f"https://server.lab:{PORT}/", "--insecure", host=host)
    assert answer.returncode == 7, answer  # could not connect


def test_it_returns_when_it_serves(place: Path) -> None:
    """Connecting right after must succeed, with an application that takes its time to load."""
    host, pidfile, log = loopback(), place / "pid", place / "log"
    (place / "app.py").write_text(
        "import time\ntime.sleep(1)\n"
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'served']\n"
    )
    started = start(host, "--daemonize", log, "--pidfile", pidfile, "--wsgi-file", place / "app.py", "--processes", "2")
    assert (started.status, started.seconds > 1) == (0, True), started
    with daemon(read_pid(pidfile)) as members:
        with Client(host) as client:
            assert client.get().body == b"served"
        assert len(members) == 3 + MONITORS
        master = next(process for process in members if process.pid == read_pid(pidfile))
        assert master.parent == 1 or "uwsgi-tls" not in Path(f"/proc/{master.parent}/cmdline").read_text()
        assert master.session != os.getsid(0)
        assert master.session != master.pid  # no session leader never gets a terminal (daemon(7))
        if is_root:
            assert os.readlink(f"/proc/{master.pid}/fd/0") == "/dev/null"
            assert {os.readlink(f"/proc/{master.pid}/fd/{number}") for number in (1, 2)} == {str(log)}
        # The line of a request is written when its answer is on its way.
        wait_until(lambda: "GET / " in log.read_text(), COMMAND_SECONDS, log.read_text)
        assert "generation 1 is serving with 2 workers" in log.read_text()
        assert log.stat().st_mode & 0o777 == 0o640
    assert "goodbye to uwsgi-tls" in log.read_text()


def test_an_interrupted_command(place: Path) -> None:
    """Ctrl-C while the workers load: the daemon is in a session of its own and serves all the same."""
    host, pidfile, log, go = loopback(), place / "pid", place / "log", place / "go"
    os.mkfifo(go)
    (place / "app.py").write_text(
        f"import os\nif os.path.exists({str(go)!r}):\n    open({str(go)!r}).read()\n"
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'served']\n"
    )
    go.chmod(0o666)
    server = pki().server_ec
    listener = f"{host}:{PORT},{server.crt},{server.key_file}"
    more = ("--daemonize", log, "--pidfile", pidfile, "--wsgi-file", place / "app.py")
    process = subprocess.Popen(command("--https", listener, *USER, *more), stdin=subprocess.DEVNULL)
    with process, open(go, "w"):  # a FIFO opens when the application has opened it, too
        process.send_signal(signal.SIGINT)
        process.wait(COMMAND_SECONDS)
        go.unlink()
    with daemon(read_pid(pidfile)) as members:
        wait_until(lambda: "is serving" in log.read_text(), COMMAND_SECONDS, log.read_text)
        os.kill(read_pid(pidfile), signal.SIGHUP)
        wait_until(lambda: "generation 2 is serving" in log.read_text(), COMMAND_SECONDS, log.read_text)
        with Client(host) as client:
            assert client.get().body == b"served"
        assert len(members) == 2 + MONITORS


def bad_key(place: Path, host: str) -> list[str | Path]:
    (place / "k").write_text("no key")
    return ["--https", f"{host}:8444,{pki().server.crt},{place / 'k'}"]


def bad_application(place: Path, host: str) -> list[str | Path]:
    (place / "app.py").write_text("import no_such_module\n")
    return ["--wsgi-file", place / "app.py"]


def bad_pidfile(place: Path, host: str) -> list[str | Path]:
    return ["--pidfile", place / "missing" / "pid"]


def bad_option(place: Path, host: str) -> list[str | Path]:
    return ["--procesess", "4"]


def bad_log(place: Path, host: str) -> list[str | Path]:
    return ["--daemonize", place / "missing" / "log"]


def bad_address(place: Path, host: str) -> list[str | Path]:
    return ["--https", f"{host}:{PORT},{pki().server.crt},{pki().server.key_file}"]


@pytest.mark.parametrize(
    ("spoil", "status", "reason"),
    [
        pytest.param(bad_key, 1, "uwsgi-tls: https = .*: .*key", id="key"),
        pytest.param(bad_application, 22, "did not start; .*log says why", id="application"),
        pytest.param(bad_pidfile, 1, "pidfile = .*: No such file or directory", id="pidfile"),
        pytest.param(bad_option, 1, "uwsgi-tls: .*procesess.*processes", id="option"),
        pytest.param(bad_log, 1, "uwsgi-tls: daemonize = .*: No such file or directory", id="log"),
        pytest.param(bad_address, 1, "uwsgi-tls: https = .* is already used by https = ", id="address"),
    ],
)
def test_a_bad_start(place: Path, spoil: object, status: int, reason: str) -> None:
    """The terminal hears it in one line, whenever it is noticed; nothing is left."""
    assert callable(spoil)
    host, log = loopback(), place / "log"
    started = start(host, "--daemonize", log, *spoil(place, host))
    assert started.status == status, started
    said = [line for line in started.output.splitlines() if line.startswith("uwsgi-tls: ") and "WARNING" not in line]
    assert len(said) == 1, started.output
    assert re.search(reason, said[0]), said
    assert "Traceback" not in started.output
    assert_nobody_listens(host)
    assert not (place / "pid").exists()
    if "log says why" in reason:
        assert "No module named 'no_such_module'" in log.read_text()


@needs_root
def test_the_pid_file_of_root(place: Path) -> None:
    """Written before the drop, where only root may; the user that the server became can never change it."""
    host, pidfile = loopback(), place / "pid"
    assert start(host, "--daemonize", place / "log", "--pidfile", pidfile).status == 0
    with daemon(read_pid(pidfile)) as members:
        assert (pidfile.stat().st_uid, pidfile.stat().st_mode & 0o777) == (0, 0o644)
        www_data = [str(pwd.getpwnam("www-data").pw_uid)] * 4
        dropped = [process for process in members if "monitor" not in process.title()]
        assert len(dropped) == 2
        assert all(process.status()["Uid"].split() == www_data for process in dropped)
        said = pidfile.read_text()
        for process in members:
            for fd in Path(f"/proc/{process.pid}/fd").iterdir():
                if os.readlink(fd) == str(pidfile):
                    flags = Path(f"/proc/{process.pid}/fdinfo/{fd.name}").read_text().split()[3]
                    assert int(flags, 8) & os.O_PATH, process.title()
    assert pidfile.read_text() == said


def test_the_pid_file_is_removed_where_it_can_be(place: Path) -> None:
    host, pidfile = loopback(), place / "pid"
    if is_root:
        os.chown(place, pwd.getpwnam("www-data").pw_uid, -1)
    assert start(host, "--daemonize", place / "log", "--pidfile", pidfile).status == 0
    with daemon(read_pid(pidfile)):
        pass
    assert not pidfile.exists()


def test_a_stale_pid_file_is_written_over(place: Path) -> None:
    host, pidfile = loopback(), place / "pid"
    pidfile.write_text("4194304 and something more\n")
    assert start(host, "--daemonize", place / "log", "--pidfile", pidfile).status == 0
    with daemon(read_pid(pidfile)) as members:
        assert pidfile.read_text() == f"{members[0].pid}\n"


def test_a_pid_file_is_no_way_to_another_file(place: Path) -> None:
    """A symbolic link in its place is not followed: whoever put it there would have root write through it."""
    host, pidfile, other = loopback(), place / "pid", place / "precious"
    other.write_text("precious")
    pidfile.symlink_to(other)
    started = start(host, "--pidfile", pidfile)
    assert started.status == 1
    assert f"pidfile = {pidfile}: " in started.output
    assert other.read_text() == "precious"
    assert_nobody_listens(host)


def test_the_pid_file_of_another_server_is_not_removed(place: Path) -> None:
    """Replaced meanwhile, it is not ours any more."""
    host, pidfile = loopback(), place / "pid"
    if is_root:
        os.chown(place, pwd.getpwnam("www-data").pw_uid, -1)
    assert start(host, "--daemonize", place / "log", "--pidfile", pidfile).status == 0
    with daemon(read_pid(pidfile)):
        pidfile.unlink()
        pidfile.write_text("1234\n")
    assert pidfile.read_text() == "1234\n"


def test_logto(place: Path) -> None:
    """In the foreground all goes to the file but what is wrong before it is open; it is appended to."""
    host, log = loopback(), place / "log"
    log.write_text("from before\n")
    server = pki().server_ec
    words = command("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *USER, "--logto", log)
    with open(place / "output", "w") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(lambda: "is serving" in log.read_text(), COMMAND_SECONDS, lambda: (place / "output").read_text())
        with Client(host) as client:
            assert client.get("/logged").status == 200
    finally:
        process.terminate()
        assert process.wait(COMMAND_SECONDS) == 0
    text = log.read_text()
    assert text.startswith("from before\n")
    assert "GET /logged" in text
    assert "goodbye to uwsgi-tls" in text
    assert "logged" not in (place / "output").read_text()


def test_a_killed_daemon_leaves_nothing(place: Path) -> None:
    host, pidfile = loopback(), place / "pid"
    assert start(host, "--daemonize", place / "log", "--pidfile", pidfile, "--processes", "3").status == 0
    with daemon(read_pid(pidfile)) as members:
        assert len(members) == 4 + MONITORS
        os.kill(read_pid(pidfile), signal.SIGKILL)
        deadline = time.monotonic() + 2
        assert all(wait_for_end(process.pid, deadline - time.monotonic()) for process in members)


def test_standard_descriptors_that_are_closed(place: Path, own: Path) -> None:
    """Nothing else is taken for them, at the start and after an upgrade."""
    host, pidfile, log = loopback(), place / "pid", place / "log"
    server = issue(own, "s", common_name("server.lab"), pki().ca, usage=[SERVER], sans=[x509.DNSName("server.lab")])
    words = command("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *USER, "--logto", log)
    shell = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with subprocess.Popen([*shell, *words, "--pidfile", str(pidfile)]) as process, daemon(process.pid):
        wait_until(lambda: "is serving with 1 worker" in log.read_text() if log.exists() else False, 20, log.read_text)
        upgraded = subprocess.run(command("upgrade", "--pidfile", pidfile), timeout=60, capture_output=True, text=True)
        assert upgraded.returncode == 0, upgraded.stderr + log.read_text()
        with Client(host) as client:
            assert client.get().status == 200
        assert os.readlink(f"/proc/{process.pid}/fd/0") == "/dev/null"
        assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (1, 2)} == {str(log)}
        assert "Traceback" not in log.read_text()
