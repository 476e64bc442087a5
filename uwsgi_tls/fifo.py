"""A named pipe through which the master is told what to do, in letters (`master-fifo`; core/fifo.c).

Each letter stands for a signal, and means what that means. The pipe is made as root, where the pid file may be too, and
then given to the user, as uWSGI has it: who may write to it could send the signal himself. What is there tells of its
coming by SIGIO; after each look the pipe keeps quiet for a moment, so that a flood of letters wakes nobody.
"""

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

from uwsgi_tls.own_file import open_own
from uwsgi_tls.users import Identity

BATCH_BYTES = 64  # that one look takes up
PAUSE_SECONDS = 0.25
MODE = 0o600
NEVER = float("inf")

TELL = "s"  # how all is, in the log; no signal does that
COMMANDS: Mapping[str, signal.Signals] = {
    **dict.fromkeys("rRwWc", signal.SIGHUP),  # uWSGI has five ways to reload; there is one here, and it cuts nobody
    "q": signal.SIGTERM,
    "Q": signal.SIGQUIT,
    "+": signal.SIGTTIN,
    "-": signal.SIGTTOU,
    "l": signal.SIGUSR1,
}
_COUNT = "+-"  # each of them means one worker; of the others two are no more than one
_WITHOUT_MEANING = " \t\r\n\0"  # echo(1) ends with a line


class Fifo:
    """A pipe of our own; nothing is read before `listen`."""

    def __init__(self, path: str, directory: int, fd: int) -> None:
        """`directory` and `fd` are descriptors, which are closed with it."""
        self.path = path
        self.moment = NEVER  # when there may be more to read, without a signal (time.monotonic() seconds)
        self._directory = directory
        self._fd = fd

    @classmethod
    def open(cls, path: str, owner: Identity | None, where: str = "") -> Self:
        """Makes the pipe; one that is there is replaced if it is ours or the owner's. Raises ConfigError."""
        directory, fd = open_own(
            path, "pipe", "master-fifo", where, lambda directory, name, trusted: _make(directory, name, trusted, owner)
        )
        return cls(path, directory, fd)

    def listen(self) -> None:
        """In the process that is to be told: from now on SIGIO comes with what is written (fcntl(2), O_ASYNC)."""
        fcntl.fcntl(self._fd, fcntl.F_SETOWN, os.getpid())
        self.moment = 0.0  # for what has been written before

    def letters(self, now: float) -> tuple[list[str], str]:
        """What has been asked for: the letters that have a meaning, TELL among them, and all others."""
        if self.moment != NEVER:
            if now < self.moment:
                return [], ""
            self._wake(True)  # before it is read, or what comes in between would wait for the next
            self.moment = NEVER
        data = b""
        with suppress(BlockingIOError):
            data = os.read(self._fd, BATCH_BYTES)
        if not data:
            return [], ""
        self._wake(False)
        self.moment = now + PAUSE_SECONDS
        text = [each for each in data.decode("latin-1") if each not in _WITHOUT_MEANING]
        asked = [each for number, each in enumerate(text) if each in _COUNT or text.index(each) == number]
        known = [each for each in asked if each in COMMANDS or each == TELL]
        return known, "".join(each for each in asked if each not in known)

    def remove(self) -> None:
        """Removes the pipe, where the user that we have become may do that."""
        name = os.path.basename(self.path)
        with suppress(OSError):
            status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            if os.path.samestat(status, os.fstat(self._fd)):
                os.unlink(name, dir_fd=self._directory)
        self.close()

    def close(self) -> None:
        """In a child, which is told nothing."""
        os.close(self._fd)
        os.close(self._directory)

    def _wake(self, on: bool) -> None:
        fcntl.fcntl(self._fd, fcntl.F_SETFL, os.O_NONBLOCK | (os.O_ASYNC if on else 0))


def _make(directory: int, name: str, trusted: bool, owner: Identity | None) -> int:
    """A pipe of our own, given to `owner`. Raises OSError."""
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISFIFO(status.st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name, which is no named pipe")
        if not trusted and status.st_uid not in {os.geteuid(), owner.uid if owner else os.geteuid()}:
            cause = "it is another's, in a directory that others than root may change"
            raise OSError(errno.EPERM, f"{cause}, so it is left alone")
        os.unlink(name, dir_fd=directory)
    os.mkfifo(name, MODE, dir_fd=directory)
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        # Of what was really opened: the directory may be another's.
        status = os.fstat(fd)
        if not (stat.S_ISFIFO(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1):
            raise OSError(errno.EINVAL, "it is not a named pipe of our own")
        if owner is not None:
            os.fchown(fd, owner.uid, owner.gid)
        os.fchmod(fd, MODE)
    except OSError:
        os.close(fd)
        raise
    return fd
