"""`uwsgi-tls reload` and `uwsgi-tls stop` on real servers, and what they leave alone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from .seed_pki import SeedPki
from .server import Daemon, command, curl, is_root, loopback, uwsgi_tls

PORT = 8443


NOBODY = 65534


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
@pytest.mark.parametrize("verb", ["reload", "stop"])
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


@pytest.mark.skipif(not is_root, reason="two users are needed")
def test_another_user_may_not_tell(tmp_path: Path, public_directory: Path, self_signed: SeedPki) -> None:
    pidfile = public_directory / "a.pid"
    with serving(loopback(), self_signed, pidfile, "--uid", "www-data") as daemon:
        daemon.wait_for_workers(1)
        assert "another user's" in refusal(pidfile, "stop", user=NOBODY)
        assert daemon.running
