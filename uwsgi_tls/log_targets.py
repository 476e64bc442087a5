"""Where lines of the logs go: descriptors, files, and whatever else is a Sink. None is ever waited for.

A line is one write(2), so that lines of several processes do not mix in a file that is open for appending. What a pipe,
a socket or a full disk has no room for is dropped and counted, instead of waiting for a reader that may never come.
"""

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from uwsgi_tls import heritage
from uwsgi_tls.log_text import Fields, cut, printable, stamped, unstamped
from uwsgi_tls.trusted_path import open_directory

STDOUT = 1
STDERR = 2
LOG_MODE = 0o640
PIPE_LINE_BYTES = 4096  # PIPE_BUF: what pipe(7) takes whole, or not at all
TRIES = 3  # to open a log file while others take turns in making and moving it
REPORT_SECONDS = 30.0
NO_ROOM = "the log had no room for them"

ERROR, NOTICE, INFO = 3, 5, 6  # priorities of syslog(3)
NO_FIELDS: Fields = {}

STANDARD = {"/dev/stdout": STDOUT, "/dev/stderr": STDERR}  # links, which no other log may be


class Sink(Protocol):
    """One place for lines."""

    stamps: bool  # it notes time and process itself
    takes_fields: bool  # it keeps values apart from the text

    def put(self, text: str, priority: int, fields: Fields) -> None:
        """Writes one line, or raises OSError where that would take waiting or goes wrong."""


class Target:
    """A sink, and how many lines of this process it has missed since one went through."""

    def __init__(self, sink: Sink, name: str = "", report: Callable[[str], None] | None = None) -> None:
        """`report` is told when lines begin to be missed, with the `name` of this one: it is another place."""
        self.takes_fields = sink.takes_fields
        self.dropped = 0
        self._sink = sink
        self._compose = _plain if sink.takes_fields else unstamped if sink.stamps else stamped
        self._why = ""
        self._name = name
        self._report = report
        self._next_report = 0.0  # time.monotonic() seconds

    def say(self, text: str, priority: int, fields: Fields) -> None:
        """A line of the server's own; never raises."""
        self.write(self._compose(text, fields), priority, fields)

    def write(self, text: str, priority: int, fields: Fields) -> None:
        """A line that is complete; never raises."""
        try:
            if self.dropped:
                missing = self._compose(f"{self.dropped} lines are missing here: {self._why}", NO_FIELDS)
                self._sink.put(missing, ERROR, NO_FIELDS)
                self.dropped = 0
            self._sink.put(text, priority, fields)
        except OSError as error:
            self._miss(error)

    def _miss(self, error: OSError) -> None:
        self.dropped += 1
        self._why = NO_ROOM if isinstance(error, BlockingIOError) else error.strerror or str(error)
        now = time.monotonic()
        if self._report is not None and self.dropped == 1 and now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self._report(f"{self._name}: lines are dropped and counted until they can be written: {self._why}")


def _plain(text: str, fields: Fields) -> str:
    return printable(text)


class Stream:
    """A descriptor, whatever it is."""

    stamps = False
    takes_fields = False

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._send = self._send_if_room
        self._is_file = False
        self._socket: socket.socket | None = None
        self._torn = False  # the last line has no end

    def never_wait(self) -> None:
        """Finds out how it is written to without waiting; once it is what it will be, and as root, who may open what is
        root's.

        Whether a write waits is a property of the open description (open(2)), and that of descriptor 2 is the shell's
        and the application's too. Without one of our own poll(2) has to do, whose answer may be out of date when we
        write.
        """
        mode = os.fstat(self.fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = sock = socket.socket(fileno=os.dup(self.fd))
            self._send = lambda data: sock.send(data, socket.MSG_DONTWAIT)
        elif stat.S_ISFIFO(mode) or os.isatty(self.fd):
            with suppress(OSError):  # another user's terminal after su
                flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                name = f"descriptor {self.fd}, not waited for"
                fd = heritage.left(name)
                self.fd = heritage.keep(name, os.open(f"/proc/self/fd/{self.fd}", flags) if fd is None else fd)
                self._send = self._send_now
        else:
            self._is_file = stat.S_ISREG(mode)
            self._send = self._send_now

    def put(self, text: str, priority: int, fields: Fields) -> None:
        data = text.encode(errors="backslashreplace") + b"\n"  # a format may be no proper UTF-8
        if self._torn:
            data = b"\n" + data
        if len(data) > PIPE_LINE_BYTES and not (self._is_file or stat.S_ISREG(os.fstat(self.fd).st_mode)):
            data = cut(text, PIPE_LINE_BYTES - 1) + b"\n"
        written = self._send(data)
        if written < len(data):
            self._torn = True
            self._send(data[written:])  # or the next line would begin in the middle of this one
        self._torn = False

    def _send_now(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def _send_if_room(self, data: bytes) -> int:
        room = select.poll()
        room.register(self.fd, select.POLLOUT)
        if not room.poll(0):  # never so for a regular file
            raise BlockingIOError
        return os.write(self.fd, data)


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log that has a name, under which it can be opened again."""

    path: str  # absolute: a worker may have another working directory
    owners: Collection[int] | None  # uids to which a file that is there may belong; None: any
    fds: tuple[int, ...]  # that are the file; 1 and 2 are also those of programs that are started

    def reopen(self) -> None:
        """What is written from now on goes to the file that has the name by then. Raises OSError and changes nothing.

        dup2(2) does that in one step: no line is lost, whatever other threads write meanwhile.
        """
        then = os.fstat(self.fds[0])
        try:
            now = os.stat(self.path)
            if (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino):
                return
        except FileNotFoundError:
            pass
        become(open_file(self.path, self.owners, mode=stat.S_IMODE(then.st_mode)), self.fds)


def become(fd: int, fds: Collection[int]) -> None:
    """Makes `fds` what `fd` is, which is closed."""
    for each in fds:
        os.dup2(fd, each, inheritable=each in (STDOUT, STDERR))
    if fd not in fds:
        os.close(fd)


def open_file(
    path: str, owners: Collection[int] | None, giving_to: tuple[int, int] | None = None, mode: int | None = None
) -> int:
    """The log file, which is created with mode 0640, or `mode` whatever the umask is by now, and only ever appended to;
    a new one is given to a uid and gid.

    Its directory may be a user's, who would have root write elsewhere, or wait for ever at a FIFO. Raises OSError.
    """
    if path in STANDARD:
        return os.dup(STANDARD[path])
    place, name = os.path.split(path)
    directory, _ = open_directory(place)
    try:
        fd, is_new = _open_or_make(name, directory)
    finally:
        os.close(directory)
    try:
        _check(os.fstat(fd), owners)
        os.set_blocking(fd, True)
        if is_new and mode is not None:
            os.fchmod(fd, mode)
        if is_new and giving_to is not None:
            os.fchown(fd, *giving_to)  # it is written as that user anyway, who must be able to open it again
    except OSError:
        os.close(fd)
        raise
    return fd


def _open_or_make(name: str, directory: int) -> tuple[int, bool]:
    """A descriptor, and whether the file has been made."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(TRIES - 1):
        try:
            return os.open(name, flags, dir_fd=directory), False
        except FileNotFoundError:
            with suppress(FileExistsError):
                return os.open(name, flags | os.O_CREAT | os.O_EXCL, LOG_MODE, dir_fd=directory), True
    return os.open(name, flags, dir_fd=directory), False


def _check(status: os.stat_result, owners: Collection[int] | None) -> None:
    if stat.S_ISREG(status.st_mode):
        if status.st_nlink != 1:
            raise OSError(errno.EMLINK, "the file has another name too")
        if owners is not None and status.st_uid not in owners:
            raise OSError(errno.EPERM, f"the file belongs to uid {status.st_uid}")
    elif not stat.S_ISCHR(status.st_mode):  # such as /dev/null
        raise OSError(errno.EINVAL, "it is not a regular file")
