"""The files that `uwsgi-tls pki` makes: whole or not at all, with their mode from the beginning, none overwritten.

O_EXCL (open(2)) makes a file only where nothing is, not even a symbolic link, so whoever else may write to the
directory cannot direct a key elsewhere. Only the revocation list is ever replaced, by rename(2), under a lock.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uwsgi_tls.certificate_authority import Refused

PRIVATE = 0o600
PUBLIC = 0o644  # less what the umask takes
LOCK_SECONDS = 10.0  # whoever holds the lock needs a fraction of one
LOCK_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that is to be: where, what is in it, and who may read it."""

    path: Path
    data: bytes
    mode: int


def file_name(name: str) -> str:
    """`name` without what a shell, a path, an https option or curl's FILE:PASSWORD would take for something else."""
    safe = "".join(c if c.isalnum() or c in "._-@+" else "_" for c in name.replace("*", "_wildcard"))
    return f"_{safe}" if safe.startswith((".", "-")) else safe  # neither hidden nor an option


def refuse_to_overwrite(*paths: Path) -> None:
    """Raises Refused if one of the paths is taken."""
    for path in paths:
        if os.path.lexists(path):
            raise Refused(f"{path}: exists, and is not overwritten; move it away first")


def write_new(*files: NewFile) -> None:
    """Make all of the files, or none. Raises Refused if a path is taken, OSError for what the system says."""
    made: list[Path] = []
    try:
        for file in files:
            descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
            made.append(file.path)
            with open(descriptor, "wb") as stream:
                stream.write(file.data)
                stream.flush()
                os.fsync(descriptor)
    except BaseException as error:  # an interrupt too must leave nothing behind
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            refuse_to_overwrite(file.path)
        raise


def replace(path: Path, data: bytes) -> None:
    """Put a public file in the place of the one that may be there, links followed. The caller holds the lock."""
    path = Path(os.path.realpath(path))
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # of a run that was killed
    write_new(NewFile(new, data, PUBLIC))
    try:
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(key: Path) -> Iterator[None]:
    """Hold the lock of an authority: of two revocations at the same time, none may be lost.

    It is one of its private key. Whoever may read a file may lock it, and no other user should be able to put a
    revocation off. Raises Refused if it is not to be had.
    """
    descriptor = os.open(key, os.O_RDONLY)
    try:
        _lock(descriptor, key)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Refused(f"{path}: another process has held its lock for {LOCK_SECONDS:g} seconds") from None
            time.sleep(LOCK_RETRY_SECONDS)
