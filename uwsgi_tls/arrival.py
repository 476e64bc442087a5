"""A connection before TLS: what the client, or the load balancer before it, says first.

It is looked at without taking it from the socket, until a whole ClientHello is there; then the connection begins. So
nothing is spent on whoever never gets that far, what is not TLS gets a readable answer, and what the hello says can
choose the context. A PROXY header is taken first where it is expected.
"""

import socket
import time
import traceback
from _socket import socket as RawSocket  # without the wrapper's work: a connection needs none of it
from collections.abc import Callable
from ipaddress import ip_address

from uwsgi_tls import hello, proxy_protocol
from uwsgi_tls.connection import Connection
from uwsgi_tls.failures import Failure
from uwsgi_tls.farewell import LINGER_SECONDS, Farewell
from uwsgi_tls.lounge import GONE, HANGUP_ONLY, READ
from uwsgi_tls.service import Endpoint, Service

PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 58\r\n\r\n"
    b"The plain HTTP request was sent to an HTTPS port; use TLS."
)
# RFC 8446, 5.1 and 6: an alert record; fatal, unrecognized_name (RFC 6066, 3), as OpenSSL would send it.
UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"


class Arrival:
    """An accepted socket that waits in the lounge for its client's first words."""

    __slots__ = (
        "_admitted",
        "_endpoint",
        "_low_water",
        "_peer",
        "_service",
        "_sock",
        "_step",
        "armed",
        "deadline",
        "fd",
        "idle_from",
    )

    def __init__(self, service: Service, endpoint: Endpoint, sock: RawSocket, peer: tuple[str, str]) -> None:
        """`peer` is the address and port, as REMOTE_ADDR and REMOTE_PORT have them."""
        self.deadline = service.lounge.now + service.limits.handshake
        self.idle_from = time.monotonic()  # the lounge has not been asked for a while, perhaps
        self.armed = 0
        self.fd = sock.fileno()
        self._service = service
        self._endpoint = endpoint
        self._sock = sock
        self._peer = peer
        self._admitted: bool | None = None  # as Crowd.admit says; None: it was not asked, or another has its word
        self._low_water = 0  # bytes, where it was raised
        self._step: Callable[[int], None] = self._proxy_header
        if service.trusted is None:
            self._is_from(peer)
        service.tally.accepted += 1
        service.crowd.arrived(self)
        try:
            self._park()
        except OSError as error:  # epoll has no room for it
            self._complain(f"unable to wait for what it says: {error}")
            self._close()

    def ready(self, events: int) -> None:
        self._step(events)

    def expired(self) -> None:
        if not self._service.draining:
            self._service.tally.count("deadlines.arrival")
            if self._low_water:  # who has said nothing at all may be a check of whether somebody is there
                self._failed("the client's first words did not come in time", "timeout")
        self._close()

    def crashed(self) -> None:
        self._complain(f"ended by a defect: {traceback.format_exc()}")
        self._close()

    def owes_from(self) -> float:
        return self.idle_from

    def unwanted(self) -> bool:
        return self._admitted is False

    def waits_for(self) -> str:
        return "arrival"

    def leave_if_idle(self, when: float) -> None:
        """The worker drains: a client that has said nothing yet is kept until `when` at most."""
        self.deadline = min(self.deadline, when)

    def give_way(self) -> None:
        """To newer ones: it has not said enough in its time."""
        self._close()

    # The steps.

    def _proxy_header(self, events: int) -> None:
        trusted = self._service.trusted
        assert trusted is not None
        if self._sock.family != socket.AF_UNIX and not any(ip_address(self._peer[0]) in network for network in trusted):
            return self._turn_away("PROXY headers of this address are not to be believed", "proxy")
        data = self._peek(proxy_protocol.V2_BYTES)
        if data is None:
            return None
        seen = proxy_protocol.look(data)
        if isinstance(seen, proxy_protocol.Wanted):
            if self._low_water == seen.bytes_total:
                return self._turn_away("its PROXY header came in pieces that cannot be waited for", "proxy")
            return self._want(seen.bytes_total, events)
        if seen is None:
            return self._turn_away("its first bytes are no valid PROXY header", "proxy")
        self._sock.recv(seen.length)
        self._restore_low_water()
        self._is_from(seen.source or self._peer)
        return self._hello(events)

    def _is_from(self, peer: tuple[str, str]) -> None:
        """Whose connection it is, is known now."""
        self._peer = peer
        self._admitted = self._service.crowd.admit(peer[0])
        if not self._admitted:
            self.deadline = min(self.deadline, self._service.lounge.now + LINGER_SECONDS)  # to be told so
        self._step = self._hello

    def _hello(self, events: int) -> None:
        data = self._peek(hello.HELLO_BYTES)
        if data is None:
            return None
        seen = hello.look(data)
        if isinstance(seen, hello.Wanted):
            if self._low_water == seen.bytes_total and not events & (GONE | HANGUP_ONLY):
                # Woken for nothing: urgent data (tcp(7)), or a UNIX socket, which knows no low water. OpenSSL reads on;
                # if it finds a name that would have been another site's, the connection ends.
                return self._begin()
            return self._want(seen.bytes_total, events)
        if isinstance(seen, hello.Hello):
            if events & (GONE | HANGUP_ONLY):  # it cannot answer ours, which costs the most of a handshake
                return self._turn_away("the client closed the connection after its ClientHello", "closed", seen)
            return self._choose(seen)
        if seen.kind == "http":
            self._failed("plain HTTP was sent to the HTTPS port", "not_tls")
            return self._answer(PLAIN_HTTP_ANSWER)
        return self._turn_away("what was sent is not TLS", "not_tls")

    def _choose(self, seen: hello.Hello) -> None:
        """The name decides who answers; whoever asks for none gets the listener's own site."""
        sni = seen.sni
        names, own_names = self._endpoint.names, self._endpoint.own_names
        endpoint = names.find(sni) if names is not None and sni else None
        if endpoint is not None:
            self._endpoint = endpoint
        elif own_names is not None and sni is not None and not own_names.find(sni):
            why = "nobody here has that name" if sni else "it asked for what is no host name"
            self._failed(why, "name", "sent: unrecognized_name", seen)
            return self._answer(UNRECOGNIZED_NAME)
        lounge = self._service.lounge
        if lounge.busy:
            return lounge.defer(self.fd, self, lambda: self._begin_late(seen))
        return self._begin(seen)

    def _begin_late(self, seen: hello.Hello) -> None:
        """As a step of its own, which nobody calls who could close it, as the lounge does for a waiter."""
        try:
            if self.deadline <= self._service.lounge.now:
                return self._close()
            return self._begin(seen)
        except BaseException:  # as in Lounge.serve
            return self.crashed()

    def _begin(self, seen: hello.Hello | None = None) -> None:
        """The ClientHello is whole: TLS begins, with a connection that has this place in the lounge."""
        self._restore_low_water()
        service = self._service
        connection = Connection(service, self._endpoint, self._sock, self._peer, admitted=self._admitted is not False)
        if seen is not None:
            connection.sni, connection.versions = seen.sni, seen.versions
        connection.armed = self.armed
        connection.deadline, connection.accepted = self.deadline, self.idle_from
        self._step, self._admitted = _over, None
        service.crowd.follows(self, connection)
        try:
            connection.ready(0)
        except BaseException:  # as in Lounge.serve, which still has us for the owner
            connection.crashed()

    def _answer(self, last_words: bytes) -> None:
        """Says something that is not TLS and ends the connection, lingering for who may still be sending."""
        self._restore_low_water()
        try:
            self._sock.send(last_words)
        except OSError:
            return self._close()
        self._leave()
        farewell = Farewell(self._service, self._sock, self.fd, self.armed)
        self._service.crowd.follows(self, farewell)
        return farewell.begin()

    def _turn_away(self, why: str, reason: str, seen: hello.Hello | None = None) -> None:
        self._failed(why, reason, seen=seen)
        self._close()

    def _failed(self, why: str, reason: str, alert: str = "", seen: hello.Hello | None = None) -> None:
        """Counts and says why there is no handshake; `reason` is a word of tally.FAILURES."""
        self._service.tally.count(f"failures.{reason}")
        sni, versions = (None, b"") if seen is None else (seen.sni, seen.versions)
        self._service.failures(Failure(why, reason, self._peer, self._endpoint.name, alert, sni, versions))

    # What the steps share.

    def _peek(self, limit: int) -> bytes | None:
        """What has come, left in the socket; None when that is nothing, and the arrival was parked or is closed."""
        try:
            data = self._sock.recv(limit, socket.MSG_PEEK)
            if data:
                return data
            self._close()
        except BlockingIOError:
            self._park()
        except OSError:
            self._close()
        return None

    def _want(self, bytes_total: int, events: int) -> None:
        """Parks until so many bytes are there: those peeked at stay and would wake us again at once, socket(7)."""
        if events & (GONE | HANGUP_ONLY):
            return self._turn_away("the client closed the connection in the middle of its first words", "closed")
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, bytes_total)
        self._low_water = bytes_total
        return self._park()

    def _restore_low_water(self) -> None:
        if self._low_water:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._low_water = 0

    def _park(self) -> None:
        self._service.lounge.park(self.fd, self, READ)

    def _leave(self) -> None:
        """Its handshake will not come. The socket is still open, so that its number is nobody else's."""
        self._step = _over
        self._service.crowd.handshake_over(self.fd)
        admitted, self._admitted = self._admitted, None
        if admitted:
            self._service.crowd.dismiss(self._peer[0])

    def _close(self) -> None:
        self._leave()
        self._service.lounge.forget(self.fd, self)
        self._sock.close()
        self._service.crowd.left(self)

    def _complain(self, text: str) -> None:
        self._service.complain(f"{text} (client {self._peer[0]}, {self._endpoint.name})")


def _over(events: int) -> None:
    """The step of an arrival that is over; its own bound method would hold it until the garbage collector comes."""
