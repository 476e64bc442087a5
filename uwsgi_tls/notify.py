"""sd_notify(3) by hand: tells the service manager that started us how we are, and feeds its watchdog.

Nothing here can fail or block: who started us by hand may have left a NOTIFY_SOCKET that nobody reads, and a manager
that is slow gets its news a second later. The socket is connected while we are root, since whom we become may not be
allowed to reach it, and the variables are taken out of the environment, so that no worker, application or command
speaks for us.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Literal

from uwsgi_tls.logs import line

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
RETRY_SECONDS = 1.0
UNSENT_MAX = 16  # messages; of what a manager that does not read has missed, the oldest matter least
STATUS_BYTES = 1024  # a whole message may have 4096: NOTIFY_BUFFER_MAX of systemd
NEVER = float("inf")

State = Literal["starting", "serving", "reloading", "stopping"]


class Notifier:
    """The way to the service manager; without one every call does nothing."""

    def __init__(self, sock: socket.socket | None = None, watchdog: float = 0.0) -> None:
        """`watchdog` is the time in seconds within which the manager wants a sign of life; 0: it wants none."""
        self.main_pid = 0  # to be told: that of a daemon, which is not the process that was started; 0: it is
        self.watchdog = watchdog
        self._socket = sock
        self._next_feed = 0.0 if sock is not None and watchdog else NEVER
        self._unsent: list[bytes] = []
        self._retry_at = NEVER

    @property
    def moment(self) -> float:
        """When keep_time() has something to do next, in seconds of time.monotonic()."""
        return min(self._next_feed, self._retry_at)

    def enter(self, state: State, status: str) -> None:
        """Tells what goes on from now on; `status` is for people. READY is said again after a reload, however it went.

        The time goes with RELOADING, so that a manager knows it as the answer to its signal (Type=notify-reload).
        """
        words = {
            "starting": [],
            "serving": ["READY=1", *([f"MAINPID={self.main_pid}"] if self.main_pid else [])],
            "reloading": ["RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"],
            "stopping": ["STOPPING=1"],
        }[state]
        text = " ".join(status.split()).encode("utf-8", "replace")[:STATUS_BYTES].decode("utf-8", "ignore")
        self._send("\n".join([*words, f"STATUS={text}"]).encode())

    def keep_time(self, now: float, is_alive: Callable[[], bool]) -> None:
        """Does what is due: sends what did not go through, and feeds the watchdog if all is well."""
        if now >= self._retry_at:
            self._retry_at = NEVER
            unsent, self._unsent = self._unsent, []
            for message in unsent:
                self._send(message)
        if now >= self._next_feed:
            self._next_feed = now + self.watchdog / 2  # as sd_watchdog_enabled(3) advises
            if is_alive() and not self._unsent:
                self._send(b"WATCHDOG=1")

    def fileno(self) -> int:
        """The descriptor of the way; -1 where there is none."""
        return self._socket.fileno() if self._socket is not None else -1

    def close(self) -> None:
        """In a worker, which has nothing to tell, and at the end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes) -> None:
        if self._socket is None:
            return
        try:
            if not self._unsent:  # else it waits for its turn
                self._socket.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM):
                line(f"the service manager is told nothing more: {error.strerror}")
                self._next_feed = NEVER
                self.close()
                return
            self._retry_at = time.monotonic() + RETRY_SECONDS
        self._unsent = [*self._unsent, message][-UNSENT_MAX:]


def connect(environ: MutableMapping[str, str], log: Callable[[str], None]) -> Notifier:
    """The way to the manager that `environ` names, whose variables are removed there; what hinders it is logged."""
    address, interval, pid = (environ.pop(name, "") for name in VARIABLES)
    if not address:
        return Notifier()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        if not address.startswith(("/", "@")):
            raise OSError(errno.EAFNOSUPPORT, "neither a path nor an abstract name")
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        sock.close()
        log(f"NOTIFY_SOCKET = {address}: no service manager is told: {error.strerror or error}")
        return Notifier()
    return Notifier(sock, _watchdog(interval, pid))


def _watchdog(interval: str, pid: str) -> float:
    """Seconds; 0 where it is meant for another process, or nonsense: sd_watchdog_enabled(3)."""
    meant = not pid or pid == str(os.getpid())
    return int(interval) / 1e6 if meant and interval.isascii() and interval.isdigit() and len(interval) < 16 else 0.0
