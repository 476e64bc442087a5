"""The accept loop of a worker, in its main thread: waits for connections, for signals and for the master's end.

One connection is accepted for each event, so that several workers share a burst of them; epoll_ctl(2), EPOLLEXCLUSIVE.
Where there is no room, whoever waits in the kernel's queue is kept there.
"""

import os
import select
import signal
import socket
import time
from _socket import socket as RawSocket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from uwsgi_tls.arrival import Arrival
from uwsgi_tls.crowd import Notice
from uwsgi_tls.farewell import LINGER_SECONDS
from uwsgi_tls.service import Endpoint, Service

ARRIVALS = select.EPOLLIN | select.EPOLLEXCLUSIVE  # one worker is woken for each; epoll_ctl(2)
REST_SECONDS = 0.1  # of the accept loop when there is no room, unless somebody leaves before


class Orphaned(Exception):
    """The master is gone."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what its connections get."""

    socket: socket.socket
    endpoint: Endpoint
    family: int  # of the socket, which would look it up in an enum at each question


class Acceptor:
    def __init__(self, listeners: Sequence[Listener], service: Service, channel: int, wakeup: tuple[int, int]) -> None:
        """`channel` is a descriptor that ends with the master, `wakeup` the pipe that signals are written to."""
        self._service = service
        self._wakeup, self._wake = wakeup
        self._say_resting = Notice()
        self._rests = False
        self._listeners = {listener.socket.fileno(): listener for listener in listeners}
        self._poll, self._poll_at_rest = select.epoll(), select.epoll()
        for fd in self._listeners:
            self._poll.register(fd, ARRIVALS)
        for poll in (self._poll, self._poll_at_rest):
            poll.register(self._wakeup, select.EPOLLIN)
            poll.register(channel, select.EPOLLIN)

    def run(self) -> None:
        """Accepts until SIGTERM comes. Raises Orphaned."""
        while True:
            for fd, _ in self._wait():
                listener = self._listeners.get(fd)
                if listener is not None:
                    self._accept(listener)
                    self._queue_up(fd)
                elif fd != self._wakeup:
                    raise Orphaned
                elif signal.SIGTERM in os.read(self._wakeup, 512):
                    return

    def drain(self, left: Callable[[], float]) -> int:
        """Accepts nothing more, and returns when the last connection has ended, or when no seconds are `left`: with the
        number of those that have not. Any signal has it ask again how many are left. Raises Orphaned.
        """
        service, guests = self._service, self._service.crowd.guests
        service.crowd.on_left = self._nudge
        service.draining = True
        for fd, listener in self._listeners.items():
            self._poll.unregister(fd)
            listener.socket.close()
        for guest in list(guests):
            guest.leave_if_idle(time.monotonic() + LINGER_SECONDS)
        while (seconds := left()) > 0 and guests:
            for fd, _ in self._poll.poll(seconds):
                if fd != self._wakeup:
                    raise Orphaned
                os.read(self._wakeup, 512)
        return len(guests)

    def _wait(self) -> list[tuple[int, int]]:
        """Until something happens; at rest that is a guest who leaves, or a moment that passes, and nobody new."""
        if not self._rests:
            return self._poll.poll()
        self._rests = False
        crowd = self._service.crowd
        crowd.on_left = self._nudge
        try:
            return self._poll_at_rest.poll(REST_SECONDS)
        finally:
            crowd.on_left = None

    def _nudge(self) -> None:
        """Wakes the main thread; if the pipe is full, it is awake."""
        with suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    def _accept(self, listener: Listener) -> None:
        service, sock, family = self._service, listener.socket, listener.family
        crowd = service.crowd
        if not crowd.has_room():
            return self._rest(f"{len(crowd.guests)} connections")
        try:
            fd, address = sock._accept()  # type: ignore[attr-defined]  # accept4(2) without a wrapper object
        except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or the client
            return None
        except OSError as error:
            return self._rest(str(error))  # no descriptors or memory
        raw = RawSocket(family, socket.SOCK_STREAM, 0, fd)
        raw.setblocking(False)
        Arrival(service, listener.endpoint, raw, _peer(family, address))
        return None

    def _queue_up(self, fd: int) -> None:
        """Behind the other workers: the kernel wakes who has waited for longest, and this thread nearly always waits,
        so that else the first worker would get most of the connections, however busy its service threads are.
        """
        self._poll.unregister(fd)
        self._poll.register(fd, ARRIVALS)

    def _rest(self, why: str) -> None:
        """There is no room: those who are connected go on, and whoever waits in the queue is kept there."""
        self._rests = True
        self._say_resting(f"worker {self._service.worker} is full and accepts nobody until somebody leaves: {why}")


def _peer(family: int, address: object) -> tuple[str, str]:
    """REMOTE_ADDR and REMOTE_PORT; uWSGI's own values for a UNIX socket, and IPv4 as such where IPv6 carries it."""
    if family == socket.AF_UNIX or not isinstance(address, tuple):
        return "0.0.0.0", "0"
    host = address[0]
    return host.removeprefix("::ffff:") if "." in host else host, str(address[1])
