"""Notices that named files have changed, by looking at them now and then (`touch-reload-certs`, `touch-reload`).

A certificate and its key are replaced one after the other, so a change counts once its file has been left alone since
the look before, and waits a few looks for others that have not; no longer, for one file may change all the time.
What is compared is what stat(2) says, of the file that a link leads to at that moment. Opening is left to a callable,
since some files can be seen by root alone; what nobody may look at any more counts as it was.

A file that is there only to be touched counts as it was while it is gone, too: to make it is a touch, to remove it is
none (core/utils.c, uwsgi_check_touches(), does as much).
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import partial

LOOK_SECONDS = 1.0
WAIT_LOOKS = 3  # of a change for the files that change still

Open = Callable[[str], int]  # a descriptor of the file or directory, or OSError
State = tuple[int | None, ...]
Look = Callable[[str], State | None]  # what can be compared; None where it may not be looked at


class Watch:
    """The files of one configuration, as they were when it was read."""

    def __init__(self, paths: Callable[[], Iterable[str]], look: Look) -> None:
        """`paths` is asked at each look, since a directory may have more files or fewer by then."""
        self._paths = paths
        self._look_at = look
        self._seen: dict[str, State | None] = {}
        self._known = self._seen = self._look()
        self._waited = 0  # looks

    def has_changed(self) -> bool:
        """Whether files are others than they were, and have been left alone since the last look; True once for each."""
        before, now = self._seen, self._look()
        self._seen = now
        paths = {*self._known, *before, *now}
        busy = {path for path in paths if now.get(path) != before.get(path)}
        if all(now.get(path) == self._known.get(path) for path in paths - busy):
            self._waited = 0
            return False
        if busy and self._waited < WAIT_LOOKS:
            self._waited += 1
            return False
        self._waited = 0
        # What is busy is compared with what it was at the last reload, and counts once it has settled.
        self._known = {**now, **{path: self._known.get(path) for path in busy}}
        return True

    def _look(self) -> dict[str, State | None]:
        return {path: self._look_at(path) or self._seen.get(path) for path in self._paths()}


def of_contents(paths: Callable[[], Iterable[str]], open_file: Open) -> Watch:
    """Of files that the server has read, and of directories whose files are looked at one by one."""
    return Watch(paths, partial(_content, open_file))


def of_touches(paths: Sequence[str]) -> Watch:
    """Of files and directories whose time somebody is going to change."""
    return Watch(lambda: paths, _touch)


def unseen(paths: Sequence[str]) -> list[str]:
    """Those of such files that cannot be looked at now."""
    return [path for path in paths if _touch(path) is None]


def _touch(path: str) -> State | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns)


def _content(open_file: Open, path: str) -> State | None:
    try:
        fd = open_file(path)
    except PermissionError:
        return None
    except OSError as error:
        return (error.errno,)
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):  # whose files are looked at one by one
            return (status.st_dev, status.st_ino)
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        return (error.errno,)
    finally:
        os.close(fd)
