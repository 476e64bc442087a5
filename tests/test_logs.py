"""logs.py: lines of the server's own, tracebacks, and files that get another name while they are written."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import uwsgi_tls
from uwsgi_tls import logs

START = 1795427319.884  # Mon Nov 23 09:48:39 2026 in UTC


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(logs, "_targets", logs._targets)
    monkeypatch.setattr(logs, "_stderr", logs._stderr)
    monkeypatch.setattr(logs, "_files", [])
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_line_of_the_server_log(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: START)
    logs.line("spawned worker 1 in /srv/é")
    logs.line("two\nlines\r\x1b[31m\0\x85\u2028\udcff")
    assert capfd.readouterr().err.splitlines(keepends=True) == [
        f"Mon Nov 23 09:48:39 2026 - [{os.getpid()}] spawned worker 1 in /srv/é\n",
        rf"Mon Nov 23 09:48:39 2026 - [{os.getpid()}] two\nlines\r\x1b[31m\x00\x85\u2028\udcff" + "\n",
    ]


def test_the_server_log_in_json(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: START)
    logs.configure(json=True)
    try:
        logs.line("two\nlines é\udcff")
    finally:
        logs.configure(json=False)
    logs.line("plain again")
    first, second = capfd.readouterr().err.splitlines()
    assert json.loads(first) == {
        "time": "2026-11-23T09:48:39.884Z",
        "pid": os.getpid(),
        "message": "two\nlines é\udcff",
    }
    assert second.endswith("] plain again")


def test_a_traceback_forges_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Its text may be a client's: it begins no line of its own and reaches no terminal."""
    try:
        raise ValueError("of a client\nMon Nov 23 09:48:39 2026 - [1] dropped root\r\x1b[2J\x85\u2028end\n")
    except ValueError:
        logs.trace()
    lines = capfd.readouterr().err.split("\n")
    assert lines.pop() == ""
    begin = rf"\w{{3}} \w{{3}} [ \d]\d \d\d:\d\d:\d\d \d{{4}} - \[{os.getpid()}\] \| "
    assert all(re.match(begin, line) and line.isprintable() for line in lines), lines
    texts = [re.sub(begin, "", line) for line in lines]
    assert texts[0] == "Traceback (most recent call last):"
    assert texts[-3:] == [
        "ValueError: of a client",
        r"Mon Nov 23 09:48:39 2026 - [1] dropped root\r\x1b[2J\x85\u2028end",
        "",
    ]


def run(directory: Path, program: str) -> None:
    root = str(Path(uwsgi_tls.__file__).parent.parent)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "TZ": "UTC"}
    subprocess.run([sys.executable, "-c", program], cwd=directory, env=environ, check=True, timeout=60)


def test_redirect(tmp_path: Path) -> None:
    program = (
        "import os; from uwsgi_tls import logs; os.umask(0);"
        "before = sorted(os.listdir('/proc/self/fd'));"
        "logs.redirect('server.log'); logs.line('first');"
        "os.rename('server.log', 'server.log.1'); logs.line('second');"
        "logs.redirect('server.log'); logs.line('third'); os.write(1, b'from stdout\\n');"
        "assert sorted(os.listdir('/proc/self/fd')) == before"
    )
    run(tmp_path, program)
    run(tmp_path, "from uwsgi_tls import logs; logs.redirect('server.log'); logs.line('appended')")
    old, new = tmp_path / "server.log.1", tmp_path / "server.log"
    assert [text.split("] ")[1] for text in old.read_text().splitlines()] == ["first", "second"]
    lines = new.read_text().splitlines()
    assert lines[0].endswith("] third")
    assert lines[1] == "from stdout"
    assert lines[2].endswith("] appended")
    assert new.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_redirect_where_a_descriptor_was_closed(tmp_path: Path, closed: int) -> None:
    program = (
        f"import os; from uwsgi_tls import logs; os.close({closed}); logs.redirect('server.log');"
        "os.write(1, b'out\\n'); os.write(2, b'err\\n');"
        "assert not os.path.exists('/proc/self/fd/0') or 'server.log' not in os.readlink('/proc/self/fd/0')"
    )
    run(tmp_path, program)
    assert (tmp_path / "server.log").read_text() == "out\nerr\n"


def test_redirect_to_what_cannot_be_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        logs.redirect(str(tmp_path / "missing" / "server.log"))
    logs.line("still here")
    assert "still here" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root may write no more than he may write anyway")
def test_a_log_behind_a_link_of_a_users(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "run").symlink_to(tmp_path)
    os.chown(tmp_path / "users", os.getuid() + 1, -1)
    with pytest.raises(PermissionError, match="users/run is a symbolic link"):
        logs.redirect(str(tmp_path / "users" / "run" / "log"))
    assert os.listdir(tmp_path) == ["users"]


def test_null_and_the_standard_ones_are_logs(tmp_path: Path) -> None:
    run(tmp_path, "from uwsgi_tls import logs; logs.redirect('/dev/null', owners={1}); logs.line('x')")
    run(
        tmp_path,
        "import os; from uwsgi_tls import logs; logs.redirect('out'); os.dup2(os.open('err', 65), 2);"
        "logs.redirect('/dev/stdout'); logs.line('x')",
    )
    assert (tmp_path / "out").read_text().endswith("] x\n")
