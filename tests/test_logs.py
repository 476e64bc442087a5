"""logs.py: what a line looks like, that it is one write, and that a log that fails disturbs nobody."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import uwsgi_tls
from uwsgi_tls import logs
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.logs import AccessLog, AccessRecord

START = 1795427319.884  # Mon Nov 23 09:48:39 2026 in UTC
COMBINED = '%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(rsize) "%(referer)" "%(uagent)"'

RECORD = AccessRecord(
    pid=7394,
    worker=3,
    requests=1,
    addr="127.0.0.1",
    user="",
    vars=32,
    vars_size=347,
    start=START,
    method="GET",
    uri="/a%20b/c?x=1&y=2",
    protocol="HTTP/1.1",
    status=200,
    size=627,
    headers=2,
    headers_size=66,
    micros=2_345_678,
    host="server.lab",
    user_agent="curl/7.88.1",
    referer="",
    core=0,
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def _nothing_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_dropped", 0)


def logged(record: AccessRecord, format: str = "", json: bool = False) -> str:
    """The one line that is written, without its end."""
    reader, writer = os.pipe()
    try:
        AccessLog(format, json, writer).write(record)
        text = os.read(reader, 1 << 16).decode()
    finally:
        os.close(reader)
        os.close(writer)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text[:-1]


def test_the_default_line_is_that_of_uwsgi() -> None:
    assert logged(RECORD._replace(micros=999)) == (
        "[pid: 7394|app: 0|req: 1/1] 127.0.0.1 () {32 vars in 347 bytes} [Mon Nov 23 09:48:39 2026] GET"
        " /a%20b/c?x=1&y=2 => generated 627 bytes in 0 msecs (HTTP/1.1 200) 2 headers in 66 bytes"
        " (1 switches on core 0)"
    )


def test_the_combined_format() -> None:
    assert logged(RECORD, COMBINED) == (
        '127.0.0.1 - - [23/Nov/2026:09:48:39 +0000] "GET /a%20b/c?x=1&y=2 HTTP/1.1" 200 627 "-" "curl/7.88.1"'
    )


PLACEHOLDERS = {
    "uri": "/a%20b/c?x=1&y=2",
    "method": "GET",
    "user": "-",
    "addr": "127.0.0.1",
    "host": "server.lab",
    "proto": "HTTP/1.1",
    "uagent": "curl/7.88.1",
    "referer": "-",
    "status": "200",
    "rsize": "627",
    "hsize": "66",
    "size": "693",
    "headers": "2",
    "vars": "32",
    "pktsize": "347",
    "micros": "2345678",
    "msecs": "2345",
    "secs": "2",
    "time": "1795427319",
    "tmsecs": "1795427319884",
    "tmicros": str(int(START * 1_000_000)),
    "ctime": "Mon Nov 23 09:48:39 2026",
    "ltime": "23/Nov/2026:09:48:39 +0000",
    "ftime": "23/Nov/2026:09:48:39 +0000",
    "pid": "7394",
    "wid": "3",
    "core": "0",
    "requests": "1",
    "switches": "1",
}


@pytest.mark.parametrize(("name", "text"), PLACEHOLDERS.items())
def test_a_placeholder(name: str, text: str) -> None:
    assert logged(RECORD, f"<%({name})>") == f"<{text}>"


def test_epoch_is_the_time_of_writing() -> None:
    before = int(time.time())
    assert before <= int(logged(RECORD, "%(epoch)")) <= time.time()


def test_every_placeholder_is_tested() -> None:
    assert {*logs._TEXTS, *logs._OTHERS} == {*PLACEHOLDERS, "epoch"}


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("100% of %(method)", "100% of GET"),
        ("%s %d %% %", "%s %d %% %"),
        ("%(method)%(method)", "GETGET"),
        ("é %(status)", "é 200"),
        ("\udcff", "\\udcff"),
        ("nothing", "nothing"),
        ("(%(core))", "(0)"),
    ],
)
def test_what_is_no_placeholder_stays(format: str, text: str) -> None:
    assert logged(RECORD, format) == text


@pytest.mark.parametrize(
    ("format", "cause"),
    [
        ("%(methd)", "unknown placeholder %(methd)"),
        ("%(method) %()", "unknown placeholder %()"),
        ("%( method)", "unknown placeholder %( method)"),
        ("%(var.HTTP_COOKIE)", "variables of the request are not kept"),
        ("%(metric.worker)", "unknown placeholder"),
        ("%(method", "no closing parenthesis"),
        ("%(method %(uri)", "no closing parenthesis"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_format(format: str, cause: str, as_json: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        AccessLog(format, as_json)
    assert (caught.value.option, caught.value.value) == ("log-format", format)
    assert cause in caught.value.cause


@pytest.mark.parametrize(
    ("value", "in_line", "in_quotes"),
    [
        ("/plain?a=b&c=%22", "/plain?a=b&c=%22", "/plain?a=b&c=%22"),
        ('/"', '/"', r"/\x22"),
        ("/\\x0a", r"/\x5Cx0a", r"/\x5Cx0a"),
        ("/a\nb\r\t\0\x1b[31m\x7f", r"/a\x0Ab\x0D\x09\x00\x1B[31m\x7F", r"/a\x0Ab\x0D\x09\x00\x1B[31m\x7F"),
        ("/\xe9\x85\xa0", r"/\xE9\x85\xA0", r"/\xE9\x85\xA0"),
        ("%s%(uri)", "%s%(uri)", "%s%(uri)"),
    ],
)
@pytest.mark.parametrize("field", ["addr", "user", "method", "uri", "protocol", "host", "user_agent", "referer"])
def test_what_a_client_sends_is_escaped(field: str, value: str, in_line: str, in_quotes: str) -> None:
    change: dict[str, Any] = {field: value}
    record = RECORD._replace(**change)
    name = next(name for name, of in logs._TEXTS.items() if of == field)
    assert logged(record, f"%({name})|") == in_line + "|"
    assert logged(record, f'"%({name})"') == f'"{in_quotes}"'


def test_the_default_line_escapes() -> None:
    text = logged(RECORD._replace(uri="/\n[pid: 1|app: 0", user="\xe9"))
    assert r" (\xE9) {" in text
    assert r" GET /\x0A[pid: 1|app: 0 => " in text


def test_json_has_every_field() -> None:
    assert json.loads(logged(RECORD, json=True)) == {
        "time": "2026-11-23T09:48:39.884Z",
        "pid": 7394,
        "wid": 3,
        "core": 0,
        "requests": 1,
        "addr": "127.0.0.1",
        "user": "",
        "method": "GET",
        "uri": "/a%20b/c?x=1&y=2",
        "proto": "HTTP/1.1",
        "host": "server.lab",
        "uagent": "curl/7.88.1",
        "referer": "",
        "status": 200,
        "rsize": 627,
        "hsize": 66,
        "headers": 2,
        "vars": 32,
        "pktsize": 347,
        "micros": 2345678,
    }


def test_a_format_chooses_the_json_keys() -> None:
    record = RECORD._replace(user_agent='"\n\\\xe9')
    text = logged(record, '%(time) "%(uagent)" %(status) %(msecs) %(status)', json=True)
    assert text.isascii()
    assert list(json.loads(text).items()) == [
        ("time", "2026-11-23T09:48:39.884Z"),
        ("uagent", '"\n\\\xe9'),
        ("status", 200),
        ("msecs", 2345),
    ]


def test_the_time_follows_the_requests_back_and_forth() -> None:
    formats = {False: "%(ctime) %(ltime)", True: ""}
    for second, clock in ((START, "09:48:39"), (START + 1, "09:48:40"), (START, "09:48:39")):
        for as_json, format in formats.items():
            assert logged(RECORD._replace(start=second), format, as_json).count(clock) == (1 if as_json else 2)


def test_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    record = RECORD._replace(start=START + 86400 * 12)
    assert logged(record, "%(ltime)|%(ctime)") == "05/Dec/2026:15:18:39 +0530|Sat Dec  5 15:18:39 2026"
    assert json.loads(logged(record, json=True))["time"] == "2026-12-05T09:48:39.884Z"


def test_a_line_of_the_server_log(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: START)
    logs.line("spawned worker 1 in /srv/é")
    logs.line("two\nlines\r\x1b[31m\0\x85\u2028\udcff")
    assert capfd.readouterr().err.splitlines(keepends=True) == [
        f"Mon Nov 23 09:48:39 2026 - [{os.getpid()}] spawned worker 1 in /srv/é\n",
        rf"Mon Nov 23 09:48:39 2026 - [{os.getpid()}] two\nlines\r\x1b[31m\x00\x85\u2028\udcff" + "\n",
    ]


def test_what_is_printable() -> None:
    assert logs.printable("a b \\ \u20ac \x1b[2J\x07\n\u2028\udcff") == "a b \\ \u20ac \\x1b[2J\\x07\\n\\u2028\\udcff"


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


def test_a_line_is_one_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[tuple[int, bytes]] = []

    def write(fd: int, data: bytes) -> int:
        written.append((fd, data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    AccessLog("", False).write(RECORD)
    with open(tmp_path / "log", "w") as file:
        number = file.fileno()
        AccessLog("", True, number).write(RECORD._replace(uri="/" + "x" * 100_000))
    logs.line("text")
    assert [fd for fd, _ in written] == [2, number, 2]
    assert len(written[1][1]) > 100_000
    assert all(data.count(b"\n") == 1 and data.endswith(b"\n") for _, data in written)


def test_a_write_that_is_cut_short_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        taken.append(data if taken else data[:5])
        return len(taken[-1])

    monkeypatch.setattr(os, "write", write)
    AccessLog("%(method) %(uri)", False).write(RECORD)
    assert taken == [b"GET /", b"a%20b/c?x=1&y=2\n"]


@contextmanager
def broken_log(kind: str) -> Iterator[int]:
    """A descriptor on which a long line cannot be written, or only a part of it."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    full = os.open("/dev/full", os.O_WRONLY)
    if kind in ("EAGAIN", "partial"):
        size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        os.write(writer, b"." * (size if kind == "EAGAIN" else size - 4096))
    if kind in ("EPIPE", "EBADF"):
        os.close(reader)
    if kind == "EBADF":
        os.close(writer)
    try:
        yield full if kind == "ENOSPC" else writer
    finally:
        os.close(full)
        for fd in {"EPIPE": [writer], "EBADF": []}.get(kind, [reader, writer]):
            os.close(fd)


@pytest.mark.parametrize("kind", ["ENOSPC", "EPIPE", "EAGAIN", "partial", "EBADF"])
def test_a_log_that_cannot_be_written_disturbs_nobody(kind: str) -> None:
    text = "x" * 10_000
    with broken_log(kind) as fd:
        AccessLog("", False, fd).write(RECORD._replace(uri=text))
        with pytest.raises(OSError, match="Errno"):  # it is broken indeed
            os.write(fd, text.encode())


@pytest.mark.parametrize("kind", ["ENOSPC", "EPIPE", "EAGAIN", "partial"])
def test_the_server_log_likewise(kind: str) -> None:
    stderr = os.dup(2)
    try:
        with broken_log(kind) as fd:
            os.dup2(fd, 2)
            logs.line("x" * 10_000)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


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


# --- a log that nobody reads --------------------------------------------------------------------------


@contextmanager
def pipe_of_lines() -> Iterator[tuple[int, int]]:
    """A pipe for which a writer waits when it is full, as a shell makes them; it has room for two pages."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def not_for_ever() -> Iterator[None]:
    """Interrupts a write that waits."""

    def waits(number: int, frame: object) -> None:
        raise AssertionError("the log waits for its reader")

    before = signal.signal(signal.SIGALRM, waits)
    signal.setitimer(signal.ITIMER_REAL, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("as_json", [False, True])
def test_lines_without_room_are_dropped_and_counted(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_line_is_json", as_json)
    with pipe_of_lines() as (reader, writer), not_for_ever():
        log = AccessLog("%(uri)", as_json, writer)
        for number in range(22):
            log.write(RECORD._replace(uri=f"/{number}" + "x" * 4000))
        assert os.read(reader, 8192).count(b"\n") == 2
        log.write(RECORD._replace(uri="/later"))
        missing, later = os.read(reader, 8192).decode().splitlines()
        assert "20 lines are missing here: " in missing
        assert (json.loads(missing)["message"] if as_json else missing).endswith("the log had no room for them")
        assert "/later" in later
        log.write(RECORD._replace(uri="/again"))
        assert os.read(reader, 4096).decode().count("\n") == 1


def test_sockets_too() -> None:
    """What systemd connects a service's stderr to is a stream socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs, not_for_ever():
        log = AccessLog("%(uri)", False, theirs.fileno())
        for _ in range(10_000):
            log.write(RECORD._replace(uri="/" + "x" * 1000))
    assert logs._dropped > 0


@pytest.mark.parametrize("text", ["x" * 9000, "é" * 4500, "x" + "é" * 4500, "\udcff" * 4500])
def test_a_long_line_fits_into_a_pipe(text: str) -> None:
    """More than PIPE_BUF would be written in parts, and the last of them would wait."""
    with pipe_of_lines() as (reader, writer), not_for_ever():
        AccessLog(text, False, writer).write(RECORD)
        line = os.read(reader, 9000)
    assert len(line) in (4095, 4096)
    assert line.endswith("…\n".encode())
    assert line[:100] in text.encode(errors="backslashreplace")


def test_a_long_object_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_line_is_json", True)
    with pipe_of_lines() as (reader, writer), not_for_ever():
        record = RECORD._replace(uri="/" + "x" * 30_000, user_agent="é" * 5000, referer="begin" + "y" * 5000 + "end")
        AccessLog("", True, writer).write(record)
        line = os.read(reader, 1 << 16)
    assert len(line) <= 4096
    values = json.loads(line)
    assert (values["status"], values["method"]) == (200, "GET")
    assert values["uri"].startswith("/x")
    assert (values["referer"][:5], values["referer"][-3:]) == ("begin", "end")


def test_a_file_takes_lines_of_any_length(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as file:
        AccessLog("%(uri)", False, file.fileno()).write(RECORD._replace(uri="x" * 100_000))
    assert (tmp_path / "log").stat().st_size == 100_001


# --- tracebacks ---------------------------------------------------------------------------------------


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


# --- what may be a log file ---------------------------------------------------------------------------


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("precious"))


def another_name(path: Path) -> None:
    os.link(path.with_name("precious"), path)


def a_fifo_with_a_reader(path: Path) -> None:
    os.mkfifo(path)
    os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        pytest.param(a_link, "symbolic links", id="link"),
        pytest.param(another_name, "another name", id="hard link"),
        pytest.param(os.mkfifo, "No such device", id="FIFO"),
        pytest.param(a_fifo_with_a_reader, "not a regular file", id="FIFO with a reader"),
        pytest.param(a_socket, "No such device", id="socket"),
        pytest.param(os.mkdir, "directory", id="directory"),
    ],
)
def test_what_is_no_log_file(tmp_path: Path, make: Callable[[Path], object], cause: str) -> None:
    """Whoever may write to the directory would choose where root writes, or have it wait for ever."""
    (tmp_path / "precious").write_text("precious")
    make(tmp_path / "log")
    with not_for_ever(), pytest.raises(OSError, match=cause):
        logs.redirect(str(tmp_path / "log"))
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_log_file_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(PermissionError, match=f"belongs to uid {os.getuid()}"):
        logs.redirect(str(tmp_path / "log"), owners={os.getuid() + 1})


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


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_terminal_that_takes_half_a_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """poll(2) says that there is room as long as there is any, and a write waits for the rest of it."""
    reader, writer = os.pipe() if kind == "pipe" else os.openpty()
    stderr = os.dup(2)
    monkeypatch.setattr(logs, "_own", -1)
    try:
        os.dup2(writer, 2)
        with not_for_ever():
            logs.never_wait()
            for _ in range(3000):
                logs.line("x" * 100)
        assert os.get_blocking(2)  # the application's prints are not concerned
        assert not os.get_inheritable(logs._own)
        assert logs._dropped > 1
        assert b"xxx" in os.read(reader, 4096)
    finally:
        os.dup2(stderr, 2)
        for fd in (stderr, reader, writer, logs._own):
            os.close(fd)
