"""The file beside the pid file in which the master says how all is, for `uwsgi-tls status`.

The master answers no connection, and no other process need be there. So who wants to know sends SIGUSR2, which the
kernel allows to root and to the user alone (kill(2)), and reads what is in this file a moment later. It is made as
the pid file is, and like that it lies where whoever has the pid file's name finds it; the user's group may read it.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from uwsgi_tls.errors import ConfigError
from uwsgi_tls.pidfile import Pidfile
from uwsgi_tls.users import Identity

SUFFIX = ".status"
MODE = 0o640
GOODBYE = b"stopped\n"  # as the pid file may have to stay, and names a process that has ended


class StatusFile:
    """That of a master; without a file every call does nothing."""

    def __init__(self, file: Pidfile | None = None) -> None:
        self._file = file

    @classmethod
    def open(cls, pidfile: str, owner: Identity | None, log: Callable[[str], None]) -> Self:
        """Makes it for the pid file of that path; where that cannot be, `log` is told, and the server does without."""
        try:
            file = Pidfile.open(pidfile + SUFFIX, mode=MODE)
        except ConfigError as error:
            log(f"uwsgi-tls status will not be told all: {error}")
            return cls()
        if owner is not None:
            with suppress(OSError):  # a container's root without CAP_CHOWN; then root alone may read it
                os.fchown(file.fd, -1, owner.gid)
        return cls(file)

    def write(self, text: str) -> None:
        """Replaces what is in it. Whoever reads meanwhile sees by the moment in it that it is not what he waits for."""
        if self._file is not None:
            data = text.encode()
            with suppress(OSError):  # a full disk: who asks is told nothing, which he notices
                os.pwrite(self._file.fd, data, 0)
                os.ftruncate(self._file.fd, len(data))

    def remove(self) -> None:
        """Removes it, or says in it that the server has ended as it should."""
        if self._file is not None:
            self._file.remove(GOODBYE)

    def close(self) -> None:
        """Lets go of it and leaves it as it is."""
        if self._file is not None:
            self._file.close()
