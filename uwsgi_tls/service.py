"""What the connections of one worker share: limits, lounge, crowd, disk, backend and the room for applications.

It holds no behaviour of a connection; `worker` builds one, `connection`, `exchange` and the backends use it.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL

from uwsgi_tls.access_log import AccessLog
from uwsgi_tls.client_allow import Rule
from uwsgi_tls.converters import Network
from uwsgi_tls.crowd import Crowd
from uwsgi_tls.failures import Failures
from uwsgi_tls.gone import Gone
from uwsgi_tls.logs import line
from uwsgi_tls.lounge import NEVER, Lounge
from uwsgi_tls.names import Names, is_address, of_host
from uwsgi_tls.response import http_date
from uwsgi_tls.spool import Disk
from uwsgi_tls.tally import Tally

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
    body_time: float = 0  # of a whole body; 0 is any number, here and below
    body_rate: int = 0  # bytes a second
    write_rate: int = 0  # bytes a second
    requests: int = 0  # of one connection
    connections: int = 16384
    handshakes: int = 4096
    per_client: int = 0  # connections of one address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What connections to one https listener get: those that ask for no name, or those that ask for that of a site."""

    context: SSL.Context
    port: str  # SERVER_PORT; "" for a UNIX socket
    name: str  # for the log
    client_allow: tuple[Rule, ...] = ()  # one of which a client's certificate must match; none: any that is verified
    trusted_until: float = NEVER  # UTC seconds; from then on a client must show its certificate again, to newer eyes
    client_policy: bytes = b""  # what is asked of clients: equal where the same is asked, b"" where nothing is
    hosts: Names[bytes] | None = None  # the client policy of each Host of the listener; None: they have all the same
    names: "Names[Endpoint | None] | None" = None  # who answers instead to whom asks for a name; None: nobody ever does
    by_name: bool = False  # the name has decided that it is this one
    own_names: Names[bool] | None = None  # with sni-strict: who asks for another name than these is refused

    def resumes(self) -> bool:
        """Whether sessions are still as good as the CAs and CRLs with which they began."""
        return time.time() < self.trusted_until

    def is_misdirected(self, host: str) -> bool:
        """Whether a request for `host`, as its Host field has it, asks for what its client has not shown here."""
        if self.hosts is None:
            return False
        name = of_host(host)
        if not name and not is_address(host):
            return True  # no client can have asked for it in TLS, but an application may take it for one of a wildcard
        policy = self.hosts.find(name)
        return bool(policy) and policy != self.client_policy


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
    """Room for `threads` application calls at once; a request that finds none waits here, not in a thread.

    How many wait needs no limit of its own. Each is a connection, of which there are `worker-connections`, its body
    is in memory up to `post-buffering` as while it came, and after `http-timeout` it is told 503; to say so earlier
    would save nobody a thing. Who does not wait any longer is forgotten at once.
    """

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._lock = threading.Lock()
        self._queue: OrderedDict[Exchange, None] = OrderedDict()

    def enter(self) -> bool:
        """Whether the caller may run the application now: not before those who wait already, however busy it is."""
        with self._lock:
            if self._free and not self._queue:
                self._free -= 1
                return True
            return False

    def wait(self, exchange: "Exchange") -> None:
        """Queues a request whose connection is parked; whoever has room next takes it up."""
        with self._lock:
            self._queue[exchange] = None

    def put_back(self, exchange: "Exchange") -> None:
        """One that `next` has given stands first again, and its room is free."""
        with self._lock:
            self._free += 1
            self._queue[exchange] = None
            self._queue.move_to_end(exchange, last=False)

    def forget(self, exchange: "Exchange") -> None:
        """Its client has not waited, or must not wait longer."""
        with self._lock:
            self._queue.pop(exchange, None)

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
                return self._queue.popitem(last=False)[0]
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
    disk: Disk = field(default_factory=Disk)
    server: str = ""  # the Server field of a response that has none
    hsts: str = ""  # its Strict-Transport-Security, likewise
    crowd: Crowd = field(init=False)
    draining: bool = False
    ends: float = NEVER  # when tunnels end because the worker leaves (time.monotonic() seconds)
    requests: int = 0
    running: "set[Exchange]" = field(default_factory=set)  # whose application is at work
    held: "set[Exchange]" = field(default_factory=set)  # of these, whose application waits for its client
    tally: Tally = field(default_factory=Tally)
    complain: Complaints = field(default_factory=Complaints)
    failures: Failures = field(default_factory=Failures)  # of handshakes
    _date: tuple[int, str] = (0, "")

    def __post_init__(self) -> None:
        limits = self.limits
        self.crowd = Crowd(
            self.lounge,
            connections=limits.connections,
            handshakes=limits.handshakes,
            per_client=limits.per_client,
        )

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
        if exchange.over:  # its client left before it stood in the queue
            self.room.forget(exchange)
        return False

    def run_queued(self) -> None:
        """Between two turns of a service thread: the requests that waited for room.

        Nobody is stranded: whoever has queued one comes here after it, and so does whoever has left the room.
        """
        while (exchange := self.room.next()) is not None:
            if not exchange.connection.claim():
                self.room.put_back(exchange)
                if not (exchange.over or exchange.status):
                    if exchange.connection.is_parked():
                        continue  # whoever had it for a moment has looked at the queue since, perhaps without it
                    return  # whoever has it for a moment will
                self.room.forget(exchange)  # its client has not waited: the application is not troubled
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
        self.running.add(exchange)
        try:
            return self.backend.handle(exchange)
        finally:
            self.running.discard(exchange)
            self.room.leave()
