"""log_targets.py: a line is one write, none is waited for, what is missed is counted; and what may be a log file."""

import errno
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from uwsgi_tls import log_targets, log_text
from uwsgi_tls.log_targets import ERROR, INFO, NO_FIELDS, PIPE_LINE_BYTES, LogFile, Stream, Target, open_file
from uwsgi_tls.log_text import Fields

WAYS = ("at once", "settled")  # before and after Stream.never_wait()


def a_stream(fd: int, way: str = "settled") -> Stream:
    stream = Stream(fd)
    if way == "settled":
        stream.never_wait()
    return stream


def put(target: Target, text: str) -> None:
    target.write(text, INFO, NO_FIELDS)


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


# --- one line, one write ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_line_is_one_write(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[tuple[int, bytes]] = []

    def write(fd: int, data: bytes) -> int:
        written.append((fd, data))
        return len(data)

    with open(tmp_path / "log", "w") as file:
        target = Target(a_stream(file.fileno(), way))
        monkeypatch.setattr(os, "write", write)
        put(target, "x" * 100_000)
        put(target, "short")
        assert written == [(file.fileno(), b"x" * 100_000 + b"\n"), (file.fileno(), b"short\n")]


def test_a_write_that_is_cut_short_is_finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        taken.append(data if taken else data[:5])
        return len(taken[-1])

    with open(tmp_path / "log", "w") as file:
        target = Target(a_stream(file.fileno()))
        monkeypatch.setattr(os, "write", write)
        put(target, "GET /a")
    assert taken == [b"GET /", b"a\n"]


def test_a_line_that_stayed_half_does_not_swallow_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that fills up takes the first half of a line."""
    room = [5, 0, 1000, 1000, 1000]
    taken: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        size = room.pop(0)
        if not size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken.append(data[:size])
        return len(taken[-1])

    with open(tmp_path / "log", "w") as file:
        target = Target(a_stream(file.fileno()))
        monkeypatch.setattr(os, "write", write)
        put(target, "0123456789")
        put(target, "next")
    lines = b"".join(taken).decode().split("\n")
    assert [lines[0], lines[2], lines[3]] == ["01234", "next", ""]
    assert lines[1].endswith("] 1 lines are missing here: No space left on device")


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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["ENOSPC", "EPIPE", "EAGAIN", "partial"])
def test_a_log_that_cannot_be_written_disturbs_nobody(kind: str, way: str) -> None:
    with broken_log(kind) as fd, not_for_ever():
        target = Target(a_stream(fd, way))
        for _ in range(3):
            put(target, "x" * 10_000)
        assert target.dropped == (2 if kind == "partial" else 3)
        with pytest.raises(OSError, match="Errno"):  # it is broken indeed
            os.write(fd, b"x" * 10_000)


def test_a_closed_descriptor_disturbs_nobody() -> None:
    with broken_log("EBADF") as fd:
        target = Target(Stream(fd))
        put(target, "x")
        assert target.dropped == 1


# --- a log that nobody reads --------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("as_json", [False, True])
def test_lines_without_room_are_dropped_and_counted(as_json: bool, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_text, "is_json", as_json)
    with pipe_of_lines() as (reader, writer), not_for_ever():
        target = Target(a_stream(writer, way))
        for number in range(22):
            put(target, f"/{number}".ljust(PIPE_LINE_BYTES - 1, "x"))
        assert os.read(reader, 8192).count(b"\n") == 2
        put(target, "/later")
        missing, later = os.read(reader, 8192).decode().splitlines()
        assert (json.loads(missing)["message"] if as_json else missing).endswith(
            "20 lines are missing here: the log had no room for them"
        )
        assert later == "/later"
        put(target, "/again")
        assert os.read(reader, 4096) == b"/again\n"


@pytest.mark.parametrize("way", WAYS)
def test_sockets_too(way: str) -> None:
    """What systemd connects a service's stderr to is a stream socket."""
    ours, theirs = socket.socketpair()
    stream = a_stream(theirs.fileno(), way)
    with ours, theirs, stream._socket or nullcontext(), not_for_ever():
        target = Target(stream)
        for _ in range(10_000):
            put(target, "x" * 1000)
        assert 0 < target.dropped < 10_000
        ours.setblocking(False)
        lines = bytearray()
        try:
            while data := ours.recv(1 << 20):
                lines += data
        except BlockingIOError:
            pass
        assert set(bytes(lines).split(b"\n")) == {b"x" * 1000, b""}


@pytest.mark.parametrize(("kind", "way"), [("pipe", "at once"), ("pipe", "settled"), ("terminal", "settled")])
def test_a_terminal_that_takes_half_a_line(kind: str, way: str) -> None:
    """poll(2) says that there is room as long as there is any, and a write waits for the rest of it."""
    reader, writer = os.pipe() if kind == "pipe" else os.openpty()
    stream = a_stream(writer, way)
    target = Target(stream)
    try:
        with not_for_ever():
            for _ in range(3000):
                put(target, "x" * 100)
        assert os.get_blocking(writer)  # the application's prints are not concerned
        assert way == "at once" or not os.get_inheritable(stream.fd)
        assert target.dropped > 1
        assert b"xxx" in os.read(reader, 4096)
    finally:
        for fd in {reader, writer, stream.fd}:
            os.close(fd)


@pytest.mark.parametrize("text", ["x" * 9000, "é" * 4500, "x" + "é" * 4500, "\udcff" * 4500])
def test_a_long_line_fits_into_a_pipe(text: str) -> None:
    """More than PIPE_BUF would be written in parts, and the last of them would wait."""
    with pipe_of_lines() as (reader, writer), not_for_ever():
        put(Target(Stream(writer)), text)
        line = os.read(reader, 9000)
    assert len(line) in (4095, 4096)
    assert line.endswith("…\n".encode())
    assert line[:100] in text.encode(errors="backslashreplace")


class Sink:
    """A log that has no room for as many lines as it is told."""

    stamps = True
    takes_fields = False

    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []
        self.misses = 0

    def put(self, text: str, priority: int, fields: Fields) -> None:
        if self.misses:
            self.misses -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.lines.append((text, priority))


def test_another_log_is_told_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told, sink = [1000.0], list[str](), Sink()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    target = Target(sink, "file:/log", told.append)
    for misses in (3, 1):
        sink.misses = misses
        for number in range(misses + 1):
            put(target, str(number))
    assert told == ["file:/log: lines are dropped and counted until they can be written: No space left on device"]
    assert sink.lines == [
        ("3 lines are missing here: No space left on device", ERROR),
        ("3", INFO),
        ("1 lines are missing here: No space left on device", ERROR),
        ("1", INFO),
    ]
    now[0] += log_targets.REPORT_SECONDS
    sink.misses = 1
    put(target, "x")
    assert len(told) == 2


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
        open_file(str(tmp_path / "log"), None)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_log_file_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(PermissionError, match=f"belongs to uid {os.getuid()}"):
        open_file(str(tmp_path / "log"), {os.getuid() + 1})


def test_a_new_file_is_given_away_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    for name in ("old", "new"):
        os.close(open_file(str(tmp_path / name), None, (12345, 12346)))
    assert ((tmp_path / "new").stat().st_uid, (tmp_path / "new").stat().st_gid) == (12345, 12346)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "old").stat().st_uid == os.getuid()


def test_a_file_that_is_moved_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes open a new log at once, and a rotation takes it away again."""
    real, made = os.open, list[str]()

    def open_(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT and not made:
            made.append(path)
            raise FileExistsError(errno.EEXIST, "another has just made it")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)
    os.close(open_file(str(tmp_path / "log"), None))
    assert made == ["log"]
    assert (tmp_path / "log").exists()


# --- reopening ----------------------------------------------------------------------------------------


def a_log_file(path: Path) -> LogFile:
    return LogFile(str(path), None, (open_file(str(path), None),))


def test_a_file_that_was_moved(tmp_path: Path) -> None:
    log = a_log_file(tmp_path / "log")
    (fd,) = log.fds
    os.write(fd, b"before\n")
    (tmp_path / "log").rename(tmp_path / "log.1")
    os.write(fd, b"between\n")
    log.reopen()
    os.write(fd, b"after\n")
    assert (tmp_path / "log.1").read_text() == "before\nbetween\n"
    assert (tmp_path / "log").read_text() == "after\n"
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_new_file_has_the_permissions_of_the_old_one(tmp_path: Path) -> None:
    """It was made under the umask of the start; after the drop that is 077."""
    log = a_log_file(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "log.1")
    before = os.umask(0o077)
    try:
        log.reopen()
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640
    os.close(log.fds[0])


def test_a_file_that_is_still_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it could be opened again or not: root's own could not."""
    log = a_log_file(tmp_path / "log")
    monkeypatch.setattr(log_targets, "open_file", lambda *_, **__: pytest.fail("it is the same"))
    log.reopen()
    os.close(log.fds[0])


def test_a_file_that_cannot_be_had_again(tmp_path: Path) -> None:
    log = a_log_file(tmp_path / "log")
    (fd,) = log.fds
    (tmp_path / "log").rename(tmp_path / "log.1")
    (tmp_path / "log").mkdir()
    with pytest.raises(OSError, match="directory"):
        log.reopen()
    os.write(fd, b"still\n")
    assert (tmp_path / "log.1").read_text() == "still\n"
    os.close(fd)


def test_no_line_is_lost_between_two_files(tmp_path: Path) -> None:
    """One thread goes on writing while another lets the descriptor become another file."""
    log = a_log_file(tmp_path / "log")
    target = Target(a_stream(log.fds[0]))
    done = threading.Event()

    def rotate() -> None:
        for number in range(50):
            (tmp_path / "log").rename(tmp_path / f"log.{number}")
            log.reopen()
        done.set()

    rotator = threading.Thread(target=rotate)
    rotator.start()
    count = 0
    while not done.is_set():
        put(target, str(count))
        count += 1
    rotator.join()
    assert target.dropped == 0
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().split()]
    assert sorted(map(int, lines)) == list(range(count))
    os.close(log.fds[0])
