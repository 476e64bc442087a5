"""A daemon that logs are sent to in datagrams, as syslogd's and journald's sockets take them (unix(7))."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

SECONDS = 10.0


@contextlib.contextmanager
def log_daemon(path: Path) -> Iterator[socket.socket]:
    """Its socket at `path`, which everybody may write to; it reads nothing by itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        path.chmod(0o666)
        daemon.settimeout(SECONDS)
        yield daemon
