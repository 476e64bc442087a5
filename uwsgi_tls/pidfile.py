"""The pid file: written as root, before the drop, since it usually lies where only root may write."""

import os
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
        """Makes the file, or empties it. Raises ConfigError."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            os.ftruncate(fd, 0)
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
