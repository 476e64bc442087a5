"""Opening, as root, a path that nobody but root can have put there.

A path below a directory that another user may write to is that user's to choose: a link in it leads root to any file.
So each directory on the way, and each directory on the way of every link, must be root's own and writable by root
alone; then nothing on the way can change between the look and the open (openat(2), path_resolution(7)).
"""

import errno
import os
import stat

LINKS_MAX = 40  # as the kernel follows, path_resolution(7)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_trusted(path: str) -> int:
    """A descriptor for reading of the regular file or directory `path`. Raises OSError, EPERM where it is not trusted.

    A relative path begins at the working directory.
    """
    todo = _names(os.path.join(os.getcwd(), path))
    links = 0
    here = os.open("/", _DIRECTORY)
    try:
        while True:
            _expect_roots_own(here)
            name = todo.pop() if todo else "."
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=here)
                todo += _names(target)
                if target.startswith("/"):
                    here = _step(here, "/")
            elif todo:
                here = _step(here, name)
            elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                return os.open(name, _READ, dir_fd=here)
            else:  # to open a device or a FIFO may do something, or wait
                raise OSError(errno.EPERM, "is neither a regular file nor a directory")
    finally:
        os.close(here)


def _names(path: str) -> list[str]:
    """The names on the way, the first one last; ".." stays, since a link before it decides where it leads."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _step(here: int, name: str) -> int:
    """Goes from one directory to another; `here` is closed once that has worked."""
    there = os.open(name, _DIRECTORY, dir_fd=here)
    os.close(here)
    return there


def _expect_roots_own(directory: int) -> None:
    status = os.fstat(directory)
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        where = os.readlink(f"/proc/self/fd/{directory}")
        raise OSError(errno.EPERM, f"others than root may change {where}, so it is not read as root")
