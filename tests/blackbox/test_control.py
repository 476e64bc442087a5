"""`uwsgi-tls reload` and `uwsgi-tls stop` on real servers, and what they leave alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .seed_pki import SeedPki
from .server import Daemon, command, curl, is_root, loopback, uwsgi_tls, wait_until

PORT = 8443

NOBODY = 65534
WWW_DATA = 33
needs_root = pytest.mark.skipif(not is_root, reason="only root can tell another user's process")


def told(*words: str | Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    groups: list[int] | None = None if user is None else []
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        user=user,
        group=user,
        extra_groups=groups,
    )


def refusal(pidfile: Path, *words: str | Path, user: int | None = None) -> str:
    """The one line that a command says which could not do its work."""
    done = told(*words, "--pidfile", pidfile, user=user)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"uwsgi-tls: pidfile = {pidfile}: ")
    return line


def serving(host: str, pki: SeedPki, pidfile: Path, *options: str) -> Daemon:
    return uwsgi_tls("--https", f"{host}:{PORT},{pki.certificate},{pki.key}", "--pidfile", pidfile, *options)


def test_reload_and_stop(tmp_path: Path, self_signed: SeedPki) -> None:
    host, pidfile = loopback(), tmp_path / "a.pid"
    with serving(host, self_signed, pidfile) as daemon:
        (old,) = daemon.wait_for_workers(1)
        done = told("reload", "--pidfile", pidfile)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        daemon.wait_for_line("generation 2 is serving")
        (new,) = daemon.wait_for_workers(1)
        assert new.pid != old.pid
        assert curl(f"https://localhost:{PORT}/", "-k", host=host).returncode == 0
        assert told("stop", "--pidfile", pidfile).returncode == 0
        assert daemon.wait() == 0  # it has ended already
        assert not pidfile.exists()


def test_reopen_logs(tmp_path: Path, self_signed: SeedPki) -> None:
    pidfile, log = tmp_path / "a.pid", tmp_path / "log"
    with serving(loopback(), self_signed, pidfile, "--logger", f"file:{log}") as daemon:
        daemon.wait_for_workers(1)
        log.rename(tmp_path / "old")
        done = told("reopen-logs", "--pidfile", pidfile)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        wait_until(log.exists, 5, lambda: "no new log")
        assert daemon.running


def test_stop_waits_no_longer_than_it_is_told(tmp_path: Path, self_signed: SeedPki) -> None:
    """A client that has a request under way keeps the server until reload-mercy is over."""
    host, pidfile, app = loopback(), tmp_path / "a.pid", tmp_path / "app.py"
    app.write_text(
        "import time\ndef application(environ, start):\n    print('at work', flush=True)\n    time.sleep(60)\n"
    )
    with serving(host, self_signed, pidfile, "--wsgi-file", str(app), "--reload-mercy", "5") as daemon:
        daemon.wait_for_workers(1)
        with subprocess.Popen(["curl", "-sk", f"https://{host}:{PORT}/"]) as client:
            daemon.wait_for_line("at work")
            assert "has not ended within 0 seconds" in refusal(pidfile, "stop", "--wait", "0")
            daemon.stop(9)
            client.wait(20)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "its server has ended"),
        ("-1\n", "holds no number"),
        ("one\n", "holds no number"),
        ("1 2\n", "holds no number"),
        ("99999999999\n", "holds no number"),
        ("4194305\n", "no process has its number"),  # above pid_max, proc(5)
        ("1\n", "is no uwsgi-tls master"),
        ("{self}\n", "is no uwsgi-tls master"),
    ],
)
@pytest.mark.parametrize("verb", ["reload", "reopen-logs", "stop"])
def test_what_names_no_server_is_left_alone(tmp_path: Path, content: str, cause: str, verb: str) -> None:
    pidfile = tmp_path / "a.pid"
    pidfile.write_text(content.format(self=os.getpid()))
    assert cause in refusal(pidfile, verb)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none", "stop")


def test_the_pidfile_must_be_given() -> None:
    done = told("reload")
    assert done.returncode == 1
    assert re.fullmatch("uwsgi-tls: command = reload: .* --pidfile .*\n", done.stderr)


@needs_root
def test_another_user_may_not_tell(tmp_path: Path, public_directory: Path, self_signed: SeedPki) -> None:
    pidfile = public_directory / "a.pid"
    with serving(loopback(), self_signed, pidfile, "--uid", "www-data") as daemon:
        daemon.wait_for_workers(1)
        assert "another user's" in refusal(pidfile, "stop", user=NOBODY)
        assert daemon.running


# --- what a user may have root do --------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory that nobody but root may change."""
    with tempfile.TemporaryDirectory(dir="/root") as name:
        yield Path(name)


@pytest.fixture
def victim() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process that a signal of ours would end, with arguments of the test's choice."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, comm: str = "", user: int | None = None) -> subprocess.Popen[bytes]:
        rename = f"open('/proc/self/comm', 'w').write({comm!r})" if comm else "0"
        text = f"{rename}; print(1, flush=True); import time; time.sleep(60)"
        words = [*arguments[:1], "-c", text, *arguments[1:]]
        process = subprocess.Popen(
            words, executable=os.path.realpath(sys.executable), stdout=subprocess.PIPE, user=user
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.read(2) == b"1\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "comm"),
    [
        (["tail", "/var/log/uwsgi-tls master (1).log"], "uwsgi-tls"),
        (["uwsgi-tls master (generation 1, workers 1): serving"], ""),
        (["uwsgi-tls worker 1"], "uwsgi-tls"),
        (["uwsgi-tls master (generation 1, workers 1): serving"], "uwsgi-tl\xe9"),
    ],
    ids=["argument", "argv[0] alone", "worker", "another comm"],
)
def test_what_is_called_a_little_like_a_master(
    tmp_path: Path, victim: Callable[..., subprocess.Popen[bytes]], arguments: list[str], comm: str
) -> None:
    process = victim(*arguments, comm=comm)
    (tmp_path / "a.pid").write_text(f"{process.pid}\n")
    assert "is no uwsgi-tls master" in refusal(tmp_path / "a.pid", "stop")
    assert process.poll() is None


def test_what_is_no_pid_file(tmp_path: Path) -> None:
    """It neither waits for a writer nor reads what has no end."""
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file" in refusal(tmp_path / "fifo", "stop")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert "symbolic links" in refusal(tmp_path / "link", "stop")
    assert "is not a regular file" in refusal(Path("/dev/zero"), "stop")
    with (tmp_path / "long").open("wb") as file:
        file.write(b"1")
        file.truncate(1 << 40)
    assert "holds no number" in refusal(tmp_path / "long", "stop")


LIKE_A_MASTER = "uwsgi-tls master (generation 1, workers 1): serving"


# Whose the directory and the file are, their modes, whose the process is, and whether root tells it.
WRITERS = [
    pytest.param((0, 0o755), (0, 0o644), WWW_DATA, "", id="root's alone"),
    pytest.param((0, 0o755), (WWW_DATA, 0o644), WWW_DATA, "", id="the user's own file"),
    pytest.param((0, 0o755), (WWW_DATA, 0o644), NOBODY, "uid 33 may write it", id="another's file"),
    pytest.param((0, 0o755), (WWW_DATA, 0o644), 0, "uid 33 may write it", id="a user's file, root's process"),
    pytest.param((0, 0o755), (0, 0o666), WWW_DATA, "others than its owner may write to it", id="anybody's file"),
    pytest.param((WWW_DATA, 0o755), (0, 0o644), WWW_DATA, "", id="the user's own directory"),
    pytest.param((WWW_DATA, 0o755), (0, 0o644), NOBODY, "uid 33 may write it", id="another's directory"),
    pytest.param((WWW_DATA, 0o755), (NOBODY, 0o644), NOBODY, "uid 33 may write it", id="another's file there"),
    pytest.param((0, 0o1777), (0, 0o644), WWW_DATA, "", id="root's file in /tmp"),
    pytest.param((0, 0o1777), (WWW_DATA, 0o644), NOBODY, "uid 33 may write it", id="another's file in /tmp"),
    pytest.param(
        (0, 0o777), (0, 0o644), WWW_DATA, "others than root may write to its directory", id="anybody's directory"
    ),
]


@needs_root
@pytest.mark.parametrize(("directory", "file", "user", "cause"), WRITERS)
def test_root_tells_whom_the_writer_of_the_file_could_tell(
    own: Path,
    victim: Callable[..., subprocess.Popen[bytes]],
    directory: tuple[int, int],
    file: tuple[int, int],
    user: int,
    cause: str,
) -> None:
    process = victim(LIKE_A_MASTER, comm="uwsgi-tls", user=user)
    (own / "run").mkdir()
    pidfile = own / "run" / "a.pid"
    pidfile.write_text(f"{process.pid}\n")
    for path, (uid, mode) in ((own / "run", directory), (pidfile, file)):
        os.chown(path, uid, -1)
        path.chmod(mode)
    if cause:
        assert cause in refusal(pidfile, "stop", "--wait", "10")
        assert process.poll() is None
    else:
        done = told("stop", "--wait", "10", "--pidfile", pidfile)
        assert (done.returncode, done.stderr) == (0, "")
        assert process.wait(10) == -signal.SIGTERM


@needs_root
def test_a_link_in_a_users_directory(own: Path, victim: Callable[..., subprocess.Popen[bytes]]) -> None:
    """To the pid file of another server, which root believes where it lies."""
    process = victim(LIKE_A_MASTER, comm="uwsgi-tls", user=NOBODY)
    (own / "a.pid").write_text(f"{process.pid}\n")
    (own / "user").mkdir()
    (own / "user" / "run").symlink_to(own)
    (own / "user" / "a.pid").symlink_to(own / "a.pid")
    os.chmod(own / "user", 0o1777)
    os.link(own / "a.pid", own / "user" / "hard.pid")
    os.chown(own / "user", WWW_DATA, -1)
    assert "is a symbolic link" in refusal(own / "user" / "run" / "a.pid", "stop")
    assert "symbolic links" in refusal(own / "user" / "a.pid", "stop")
    assert "uid 33 may write it" in refusal(own / "user" / "hard.pid", "stop")
    os.chown(own / "user", 0, -1)
    assert "has a second name" in refusal(own / "user" / "hard.pid", "stop")
    assert process.poll() is None
