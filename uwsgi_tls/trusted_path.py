"""Opening, as root, a path in which other users may have had a hand.

A path below a directory that another user may write to is that user's to choose: a link in it leads root to any file.
So each directory on the way, and each directory on the way of every link, must be root's own and writable by root
alone; then nothing on the way can change between the look and the open (openat(2), path_resolution(7)). Where that is
too much to ask, the walk goes on without following any link from the first such directory on.
"""

import errno
import os
import stat

LINKS_MAX = 40  # as the kernel follows, path_resolution(7)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_trusted(path: str) -> int:
    """A descriptor for reading of the regular file or directory `path`. Raises OSError, EPERM where it is not trusted.

    A relative path begins at the working directory, here and below.
    """
    return _open(path, beyond=False)


def open_unalterable(path: str) -> int:
    """The same of a file whose content is root's alone, too. Raises OSError."""
    fd = open_trusted(path)
    status = os.fstat(fd)
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(fd)
        raise OSError(errno.EPERM, f"others than root may write to {path}, so root does not believe it")
    return fd


def open_unlinked(path: str) -> int:
    """The same where others than root may change a directory on the way: then it is opened only if no link leads to
    it, and if it has no second name, which another file of root's would have. Raises OSError.
    """
    return _open(path, beyond=True)


def open_directory(path: str) -> tuple[int, bool]:
    """A descriptor (O_PATH) of the directory `path`, and whether root alone may change what is in it and on the way.

    Raises OSError, EPERM at a link that somebody else may have put there. Who is not root goes wherever he may.
    """
    if os.geteuid() != 0:
        return os.open(path or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), True
    here, name, trusted = _walk(path, beyond=True)
    try:
        there = os.open(name, _DIRECTORY, dir_fd=here)
    finally:
        os.close(here)
    return there, trusted and _is_roots_own(there)


def _open(path: str, *, beyond: bool) -> int:
    here, name, trusted = _walk(path, beyond)
    try:
        mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # to open a device or a FIFO may do something, or wait
            raise OSError(errno.EPERM, "is neither a regular file nor a directory")
        fd = os.open(name, _READ, dir_fd=here)
        status = os.fstat(fd)
        if not (trusted or stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)):
            os.close(fd)
            raise _linked(here, name)
        return fd
    finally:
        os.close(here)


def _walk(path: str, beyond: bool) -> tuple[int, str, bool]:
    """A descriptor of the directory that `path` ends in, its name there, which is no link, and whether nobody but root
    can have put it there. Where that is not so it raises EPERM, unless it is to go `beyond`.
    """
    todo = _names(os.path.join(os.getcwd(), path))
    links = 0
    trusted = True
    here = os.open("/", _DIRECTORY)
    try:
        while True:
            if trusted and not _is_roots_own(here):
                if not beyond:
                    cause = f"others than root may change {_path(here)}, so it is not read as root"
                    raise OSError(errno.EPERM, cause)
                trusted = False
                # As there are no links any more, ".." needs no look; and a directory may be moved meanwhile.
                todo = _names(os.path.normpath("/".join(reversed(todo))))
            if not todo:
                return here, ".", trusted
            name = todo.pop()
            if stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                if not trusted:
                    raise _linked(here, name)
                links += 1
                if links > LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=here)
                todo += _names(target)
                if target.startswith("/"):
                    here = _step(here, "/")
            elif todo:
                here = _step(here, name)
            else:
                return here, name, trusted
    except BaseException:  # whatever it is, the descriptor is to be closed
        os.close(here)
        raise


def _names(path: str) -> list[str]:
    """The names on the way, the first one last; ".." stays, since a link before it decides where it leads."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _step(here: int, name: str) -> int:
    """Goes from one directory to another; `here` is closed once that has worked."""
    there = os.open(name, _DIRECTORY, dir_fd=here)
    os.close(here)
    return there


def _is_roots_own(directory: int) -> bool:
    status = os.fstat(directory)
    return status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _linked(here: int, name: str) -> OSError:
    cause = "is a symbolic link (or has a second name) in a directory that others than root may change"
    return OSError(errno.EPERM, f"{os.path.join(_path(here), name)} {cause}, so it is not read as root")


def _path(directory: int) -> str:
    return os.readlink(f"/proc/self/fd/{directory}")
