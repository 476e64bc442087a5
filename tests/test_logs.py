"""logs.py: lines of the server's own, tracebacks, and files that get another name while they are written."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import uwsgi_tls
from uwsgi_tls import logs
from uwsgi_tls.log_targets import ERROR, NOTICE
from uwsgi_tls.logger_option import parse_logger

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


# --- where lines go, and files that get another name --------------------------------------------------


@contextmanager
def as_stderr(path: Path) -> Iterator[Path]:
    """A file in the place of descriptor 2; in the test, as pytest has its own there between a fixture and it."""
    before = os.dup(2)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fd, 2)
    os.close(fd)
    try:
        yield path
    finally:
        os.dup2(before, 2)
        os.close(before)


@pytest.fixture
def stderr(tmp_path: Path) -> Path:
    return tmp_path / "stderr"


def messages(path: Path) -> list[str]:
    return [line.partition("] ")[2] for line in path.read_text().splitlines()]


def test_loggers_take_the_place_of_stderr(tmp_path: Path, stderr: Path) -> None:
    targets = [logs.opened(parse_logger(f"file:{tmp_path / name}")) for name in "ab"]
    with as_stderr(stderr):
        logs.line("not yet")
        assert logs.begin(targets) == tuple(targets)
        logs.line("now")
        logs.forget()
        logs.line("no more")
        assert not logs.reopen(), "they are another process's"
    assert messages(stderr) == ["not yet", "no more"]
    assert messages(tmp_path / "a") == messages(tmp_path / "b") == ["now"]


def test_without_loggers_it_stays_stderr(stderr: Path) -> None:
    with as_stderr(stderr):
        (target,) = logs.begin(())
        logs.line("one")
        target.write("two", NOTICE, {})
    assert messages(stderr) == ["one", ""]
    assert stderr.read_text().endswith("\ntwo\n")


def test_what_one_log_misses_another_says(tmp_path: Path, stderr: Path) -> None:
    with as_stderr(stderr):
        logs.begin(())
        target = logs.opened(parse_logger("file:/dev/full"))
        for _ in range(3):
            target.write("x", ERROR, {})
    assert messages(stderr) == [
        "file:/dev/full: lines are dropped and counted until they can be written: No space left on device"
    ]


def test_reopen(tmp_path: Path, stderr: Path) -> None:
    """Each file under its own name, and one that cannot be had does not keep the others from it."""
    targets = [logs.opened(parse_logger(f"file:{tmp_path / name}")) for name in "abc"]
    for name in "ab":
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    (tmp_path / "a").mkdir()
    with as_stderr(stderr):
        assert logs.reopen()
    for number, target in enumerate(targets):
        target.write(str(number), NOTICE, {})
    assert (tmp_path / "a.1").read_text() == "0\n"
    assert (tmp_path / "b").read_text() == "1\n"
    assert (tmp_path / "c").read_text() == "2\n"
    assert messages(stderr) == [
        f"the log file {tmp_path / 'a'} cannot be opened again, so the old one stays: Is a directory"
    ]


def test_nothing_could_be_reopened(tmp_path: Path) -> None:
    assert not logs.reopen()
    logs.opened(parse_logger(f"file:{tmp_path / 'a'}"))
    assert logs.reopen()
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    assert not logs.reopen()


def test_the_name_is_that_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker goes elsewhere (chdir), and its log does not."""
    monkeypatch.chdir(tmp_path)
    target = logs.opened(parse_logger("file:a"))
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert logs.reopen()
    target.write("here", NOTICE, {})
    assert (tmp_path / "a").read_text() == "here\n"


def test_standard_output_is_a_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As in a container; it has no name under which it could be opened again."""
    logs.opened(parse_logger("file:/dev/stdout")).write("x", NOTICE, {})
    assert capfd.readouterr().out == "x\n"
    assert not logs.reopen()


def test_reopening_stderr(tmp_path: Path) -> None:
    program = (
        "import os; from uwsgi_tls import logs;"
        "logs.redirect('log'); logs.begin(()); logs.line('one'); os.rename('log', 'log.1');"
        "os.chdir('/'); assert logs.reopen(); logs.line('two'); os.system('echo three')"
    )
    run(tmp_path, program)
    assert messages(tmp_path / "log.1") == ["one"]
    assert (tmp_path / "log").read_text().endswith("] two\nthree\n")
