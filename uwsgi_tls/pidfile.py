"""The pid file: written as root, before the drop, since it usually lies where only root may write.

It may as well lie in a directory of the user's, who would have root empty or remove other files. So the directory is
reached without links of others, and held from then on; and there a file that is not our own is left alone. And root
believes the file as his own, so once the pid stands in it the master, root no more, must not be able to write another.
"""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from uwsgi_tls.own_file import open_own

MODE = 0o644


@dataclass(slots=True)
class Pidfile:
    """A pid file that this process owns; its descriptor tells it from another's at the end."""

    directory: int  # a descriptor
    name: str
    fd: int

    @classmethod
    def open(cls, path: str, where: str = "", mode: int = MODE) -> Self:
        """Makes the file, or empties it; one that belongs to another user is replaced, if nobody else may change the
        directory. `mode` is that of a new one. One that the program before us has left stays as it is. Raises
        ConfigError.
        """
        directory, fd = open_own(
            path, "file", "pidfile", where, lambda directory, name, trusted: _open(directory, name, trusted, mode)
        )
        return cls(directory, os.path.basename(path), fd)

    def write(self) -> None:
        """Writes the pid of this process, and gives up the right to write: what is left is O_PATH (open(2))."""
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
        path = os.open(f"/proc/self/fd/{self.fd}", os.O_PATH | os.O_CLOEXEC)
        os.dup2(path, self.fd, inheritable=False)
        os.close(path)

    def remove(self, otherwise: bytes = b"") -> None:
        """Removes the file; where the user may not remove it, leaves `otherwise` in it, unless a pid was written: that
        one stays, and whoever reads it must know the process (control.py).
        """
        try:
            status = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
            if os.path.samestat(status, os.fstat(self.fd)):
                os.unlink(self.name, dir_fd=self.directory)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.fd, 0)
                os.pwrite(self.fd, otherwise, 0)
        self.close()

    def close(self) -> None:
        """Lets go of it and leaves it as it is."""
        os.close(self.fd)
        os.close(self.directory)


def _open(directory: int, name: str, trusted: bool, mode: int) -> int:
    """An empty file of our own. Whoever could write to it would choose the process that a stop script ends."""
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and not _is_ours(status):
            if not trusted:
                cause = "it is another's, or has a second name, in a directory that others than root may change"
                raise OSError(errno.EPERM, f"{cause}, so it is left alone")
            os.unlink(name, dir_fd=directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(name, flags, mode, dir_fd=directory)
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
