"""What the connections of one worker share: its limits, its lounge, its backend and the room for applications.

It holds no behaviour of a connection; `worker` builds one, `connection`, `exchange` and the backends use it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from uwsgi_tls.converters import Network
from uwsgi_tls.gone import Gone
from uwsgi_tls.logs import AccessLog, line
from uwsgi_tls.lounge import Lounge
from uwsgi_tls.response import http_date

if TYPE_CHECKING:
    from uwsgi_tls.exchange import Exchange

COMPLAINTS_PER_SECOND = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines in seconds and sizes in bytes, each an option of its own name."""

    handshake: float
    headers: float
    body: float
    keepalive: float  # 0: one request a connection
    write: float
    head_bytes: int
    max_headers: int
    body_bytes: int  # 0: no limit
    memory_bytes: int  # of one body or response before it goes to a temporary file
    room: float = 60.0  # seconds that a request waits for a thread of the application


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One https listener as a worker sees it."""

    context: SSL.Context
    port: str  # SERVER_PORT; "" for a UNIX socket
    name: str


class Guest(Protocol):
    """Whoever holds an accepted socket."""

    def leave_if_idle(self, when: float) -> None: ...


class Backend(Protocol):
    """What answers requests."""

    blocking: bool  # it occupies its thread while it works, as an application does

    def handle(self, exchange: "Exchange") -> bool:
        """Answers now and returns what `exchange.finish()` said, or returns False and finishes later."""


class Complaints:
    """Log lines that clients can bring about, at most so many a second; the rest are counted and the count is told."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0

    def __call__(self, text: str) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._lines > COMPLAINTS_PER_SECOND:
                line(f"{self._lines - COMPLAINTS_PER_SECOND} more lines like the last were left out")
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= COMPLAINTS_PER_SECOND:
            line(text)


class Room:
    """Room for `threads` application calls at once; a request that finds none waits here, not in a thread."""

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._lock = threading.Lock()
        self._queue: deque[Exchange] = deque()

    def enter(self) -> bool:
        """Whether the caller may run the application now."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            return False

    def wait(self, exchange: "Exchange") -> None:
        """Queues a request whose connection is parked; whoever has room next takes it up."""
        self._queue.append(exchange)

    def leave(self) -> None:
        with self._lock:
            self._free += 1

    def next(self) -> "Exchange | None":
        """A queued exchange with room for it, now entered."""
        if not self._queue:
            return None
        with self._lock:
            if self._queue and self._free:
                self._free -= 1
                return self._queue.popleft()
            return None


@dataclass(slots=True)
class Service:
    limits: Limits
    lounge: Lounge
    backend: Backend
    room: Room
    export_cert: bool
    worker: int  # its number
    pid: int
    access_log: AccessLog | None = None
    trusted: tuple[Network, ...] | None = None  # balancers that begin with a PROXY header; None: there is none
    guests: set[Guest] = field(default_factory=set)  # every accepted socket that is still open
    draining: bool = False
    requests: int = 0
    complain: Complaints = field(default_factory=Complaints)
    on_last_close: Callable[[], object] | None = None
    _date: tuple[int, str] = (0, "")

    def left(self, guest: Guest) -> None:
        """A guest has closed its socket, or has handed it to another."""
        self.guests.discard(guest)
        if self.draining and not self.guests and self.on_last_close is not None:
            self.on_last_close()

    def date(self) -> str:
        """The Date field of this second (RFC 9110, 5.6.7)."""
        second, text = self._date
        now = int(time.time())
        if now != second:
            text = http_date(now)
            self._date = (now, text)
        return text

    def dispatch(self, exchange: "Exchange") -> bool:
        """Hands a whole request to the backend; True: it is answered and the caller carries its connection on."""
        if not self.backend.blocking:
            exchange.taken = True
            return self.backend.handle(exchange)
        if self.room.enter():
            return self._run(exchange)
        # Parked first: whoever takes it from the queue must find it there, and who ends it meanwhile must be able to.
        exchange.connection.wait_for_room()
        self.room.wait(exchange)
        return False

    def run_queued(self) -> None:
        """Between two turns of a service thread: the requests that waited for room."""
        while (exchange := self.room.next()) is not None:
            if not exchange.connection.claim():  # its client has not waited: the application is not troubled
                self.room.leave()
                continue
            try:
                if self._run(exchange):
                    exchange.connection.resume()
            except Gone:
                exchange.connection.close()
            except BaseException:  # as in Lounge.serve: the thread goes on for the others
                exchange.connection.crashed()

    def _run(self, exchange: "Exchange") -> bool:
        exchange.taken = True
        try:
            return self.backend.handle(exchange)
        finally:
            self.room.leave()
