"""Notices that named files have changed, by looking at them now and then (`touch-reload-certs`).

A certificate and its key are replaced one after the other, so a change counts once nothing has changed since the look
before. What is compared is what stat(2) says, of the file that a link leads to at that moment; of a directory, its
names. Looking is left to a callable, since some files can be seen by root alone.
"""

import os
import stat
from collections.abc import Callable, Iterable

LOOK_SECONDS = 1.0

Open = Callable[[str], int]  # a descriptor of the file or directory, or OSError
State = tuple[object, ...]


class Watch:
    """The files of one configuration, as they were when it was read."""

    def __init__(self, paths: Iterable[str], open_file: Open) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._open = open_file
        self._known = self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether the files are others than they were, and have been left alone since the last look; True once."""
        now = self._look()
        settled = now == self._seen
        self._seen = now
        if not settled or now == self._known:
            return False
        self._known = now
        return True

    def _look(self) -> State:
        return tuple(_state(path, self._open) for path in self._paths)


def _state(path: str, open_file: Open) -> State:
    try:
        fd = open_file(path)
    except OSError as error:
        return (error.errno,)
    try:
        status = os.fstat(fd)
        names = sorted(os.listdir(fd)) if stat.S_ISDIR(status.st_mode) else []
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, *names)
    except OSError as error:
        return (error.errno,)
    finally:
        os.close(fd)
