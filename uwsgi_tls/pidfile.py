"""The pid file: written as root, before the drop, since it usually lies where only root may write."""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from uwsgi_tls.errors import ConfigError


@dataclass(slots=True)
class Pidfile:
    """A pid file that this process owns; its descriptor stays open, so that it can be emptied after the drop."""

    path: str
    fd: int

    @classmethod
    def open(cls, path: str, where: str = "") -> Self:
        """Makes the file, or empties it; one that belongs to another user is replaced. Raises ConfigError."""
        try:
            fd = _open(path)
        except OSError as error:
            raise ConfigError("pidfile", path, error.strerror or str(error), where) from None
        return cls(os.path.abspath(path), fd)

    def write(self) -> None:
        """Writes the pid of this process."""
        os.write(self.fd, f"{os.getpid()}\n".encode())

    def remove(self) -> None:
        """Removes the file; where the user may not remove it, leaves it empty, which names no process either."""
        try:
            if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                os.unlink(self.path)
        except OSError:
            os.ftruncate(self.fd, 0)
        os.close(self.fd)


def _open(path: str) -> int:
    """An empty file of our own. Whoever could write to it would choose the process that a stop script ends."""
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and not _is_ours(status):
            os.unlink(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, 0o644)
    try:
        # Again, of what was really opened: the directory may be another's.
        if not _is_ours(os.fstat(fd)):
            raise OSError(errno.EINVAL, "it is not a regular file of our own")
        os.ftruncate(fd, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def _is_ours(status: os.stat_result) -> bool:
    """With a second name it might be any file of ours, such as one that an attacker has linked there."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
