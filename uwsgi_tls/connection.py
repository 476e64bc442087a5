"""One connection from its ClientHello on: the TLS handshake, requests in turn, and its end.

A connection is a small state machine whose state is `step`, the method that the next event calls. Every step goes as
far as it can without waiting and then parks the connection in the lounge with a deadline. What is written here never
blocks. TLS itself is the channel's.
"""

import time
import traceback
from _socket import socket as RawSocket  # without the wrapper's work: a connection needs none of it
from collections.abc import Callable
from typing import TYPE_CHECKING

from uwsgi_tls import http, peer
from uwsgi_tls.channel import Channel
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.failures import Failure
from uwsgi_tls.farewell import LINGER_SECONDS, Farewell
from uwsgi_tls.gone import Gone
from uwsgi_tls.intake import Intake
from uwsgi_tls.lounge import GONE, HANGUP_ONLY, NEVER, READ
from uwsgi_tls.service import Endpoint, Service

if TYPE_CHECKING:
    from uwsgi_tls.tunnel import Tunnel

READS_PER_TURN = 16  # then other connections have their turn
REQUESTS_PER_TURN = 32  # likewise, where a client sends many at once
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_LIMIT = float("inf")


def _over(events: int) -> None:
    """The step of a closed connection."""


class Connection:
    __slots__ = (
        "_admitted",
        "_channel",
        "_intake",
        "_proof_ends",
        "_requests_left",
        "_seen",
        "accepted",
        "armed",
        "buffer",
        "closed",
        "deadline",
        "endpoint",
        "exchange",
        "fd",
        "idle_from",
        "packed",
        "peer",
        "service",
        "sni",
        "sock",
        "step",
        "tunnel",
        "variables",
        "variables_size",
        "versions",
    )

    def __init__(
        self, service: Service, endpoint: Endpoint, sock: RawSocket, peer: tuple[str, str], admitted: bool = True
    ) -> None:
        """`admitted`: it counts among those of its client, and may bring requests; Crowd.admit."""
        self.service = service
        self.endpoint = endpoint
        self.sock = sock
        self.fd = sock.fileno()
        self.sni: str | None = None  # as `Hello` has it; None also where the hello could not be seen as a whole
        self.versions = b""  # likewise
        self.peer = peer  # address and port, as REMOTE_ADDR and REMOTE_PORT have them
        self.deadline = service.lounge.now + service.limits.handshake
        self.accepted = service.lounge.now
        self.armed = 0
        self.closed = False
        self.step: Callable[[int], None] = self._more_handshake
        self.buffer = b""  # what has come and belongs to no request yet
        self.exchange: Exchange | None = None  # the request under way
        self.tunnel: Tunnel | None = None  # what that has become
        self.variables: dict[str, str] = {}  # those of every request of this connection
        self.packed = ""  # the same in the form of a uwsgi packet, once one has been sent
        self.variables_size = 0  # their bytes in such a packet, once somebody wanted to know
        self._channel: Channel | None = Channel(endpoint.context, sock, endpoint.resumes())
        self._intake: Intake | None = None
        self.idle_from = NEVER
        self._admitted = admitted
        self._requests_left: float = (service.limits.requests or NO_LIMIT) if admitted else 0
        self._proof_ends = NEVER  # when the client's certificate, or a thing that it was verified by, ends
        self._seen = 0  # bytes of the buffer that are known to hold no whole head

    # What the lounge calls: the caller owns the connection.

    def ready(self, events: int) -> None:
        try:
            self.step(events)
        except Gone:
            self.close()

    def expired(self) -> None:
        try:
            self._time_out()
        except Gone:
            self.close()

    def _time_out(self) -> None:
        """The deadline has passed: a client that owes the rest of a request is told so, any other is just left."""
        exchange = self.exchange
        if self.deadline and not self.service.draining:  # 0 is that of a response that was given up
            self.service.tally.count(f"deadlines.{self.waits_for()}")
        if self.tunnel is not None:
            return self.tunnel.time_out()
        if self.step == self._more_body or (self.step == self._more_head and self.buffer):
            self._refuse(http.BadRequest(408, "the request did not come in time"))
        elif exchange is not None and self.step == self._while_answered:
            try:
                self._refuse(http.BadRequest(503, "no application thread was free in time"))
            finally:
                self.service.room.forget(exchange)  # after it has a status: Service.run_queued looks at that
        elif exchange is not None:
            exchange.client_gone()
        else:
            if self.step == self._more_head:
                return self.finish(linger=False)  # RFC 9112, 9.8: with a closure alert
            if self.step == self._more_handshake:
                self.service.tally.count("failures.timeout")
                self._failed("it did not finish in time", "timeout")
            self.close()

    def crashed(self) -> None:
        """An exception that nothing foresaw: it costs this connection and one line, not the worker."""
        if not self.closed:
            self._complain(f"ended by a defect: {traceback.format_exc()}")
            self.close()

    # The steps.

    def _more_handshake(self, events: int) -> None:
        channel = self.channel
        try:
            if not channel.handshake():
                return self._park(channel.want)
            if self.endpoint.by_name and not channel.has_asked_for(self.sni):
                raise Gone("the client has asked for another name than it seemed to")
            shaken = channel.outcome()
            identity = channel.client_variables(
                shaken, self.sni or "", self.service.export_cert, self.endpoint.client_allow
            )
        except Gone as gone:
            counted = self.service.tally.not_shaken_hands(str(gone))
            self._failed(str(gone), counted, gone.alert)
            # The alert that tells the client why is on its way; closing with unread bytes would overtake it by a reset.
            return self._linger()
        self.variables = {
            "SERVER_PORT": self.endpoint.port,
            "UWSGI_ROUTER": "http",
            **dict(identity),
            "REMOTE_ADDR": self.peer[0],
            "REMOTE_PORT": self.peer[1],
        }
        self._proof_ends = self.service.lounge.now + peer.seconds_left(shaken, self.endpoint.trusted_until)
        # The lounge's clock has stood still during this step, which may be all of the handshake.
        self.service.tally.shaken_hands(
            shaken.protocol,
            shaken.cipher,
            time.monotonic() - self.accepted,
            resumed=shaken.resumed,
            verified=shaken.certificate is not None,
        )
        self.service.crowd.handshake_over(self.fd)
        self.step = self._more_head
        self.idle_from = self.service.lounge.now
        hurry = self.service.draining or not self._admitted
        self.deadline = self.service.lounge.now + (LINGER_SECONDS if hurry else self.service.limits.headers)
        # The request often comes with the client's last handshake message.
        return self._more_head(0)

    def _more_head(self, events: int) -> None:
        data = self._read()
        if data is None:
            return
        if self.idle_from != NEVER:
            self.idle_from = NEVER
            if self._admitted:  # else there is only a 429 for it
                self.deadline = self.service.lounge.now + self.service.limits.headers
        self.buffer = self.buffer + data if self.buffer else data
        self._serve()

    def _more_body(self, events: int) -> None:
        intake = self._intake
        assert intake is not None
        for _ in range(READS_PER_TURN if not intake.chunked else 1):  # a record may hold thousands of chunks
            data = self._read()
            if data is None:
                return
            try:
                whole = intake.feed(data, self.service.lounge.now)
            except http.BadRequest as bad:
                return self._refuse(bad)
            if whole:
                return self._body_is_whole(intake)
            self.deadline = intake.deadline
        self._park(READ)

    def _body_is_whole(self, intake: Intake) -> None:
        self.buffer, self._intake = intake.rest, None
        exchange = self.exchange
        assert exchange is not None
        self.deadline = NEVER
        self.step = self._while_answered
        if self.service.dispatch(exchange):
            self.resume()

    def _while_answered(self, events: int) -> None:
        """Something comes while a backend works on the answer: the next request, or the client's farewell."""
        exchange = self.exchange
        assert exchange is not None
        if events & (GONE | HANGUP_ONLY):
            return exchange.client_gone()
        try:
            data = self.channel.receive()
        except Gone:
            return exchange.client_gone()
        count = len(data)
        self.service.tally.bytes_in += count
        self.buffer += data
        self._park(READ if len(self.buffer) < self.service.limits.head_bytes else HANGUP_ONLY)

    # Requests.

    def _serve(self) -> None:
        """Answers the requests in the buffer, one after the other, until one must wait or none is whole."""
        for _ in range(REQUESTS_PER_TURN):
            try:
                exchange = self._next_exchange()
            except http.BadRequest as bad:
                return self._refuse(bad)
            if exchange is None:
                return
            if not self.service.dispatch(exchange):
                return
            self.exchange = None
            if not exchange.keep_alive:
                return self.finish()
        # What is in our buffer makes no event: the lounge comes back to it when others have had their turn.
        self.service.lounge.defer(self.fd, self, self._serve_on)

    def _serve_on(self) -> None:
        """As a step of its own, which nobody calls who could close it, as the lounge does for a waiter."""
        try:
            self._serve()
        except Gone:
            self.close()
        except BaseException:  # as in Lounge.serve
            self.crashed()

    def _next_exchange(self) -> Exchange | None:
        """The next whole request; None when the connection was parked until more of it comes."""
        limits = self.service.limits
        if not self.buffer:
            # Between two requests; a server that is leaving waits a moment for one that may be on its way.
            self.step = self._more_head
            self.idle_from = now = self.service.lounge.now
            self.deadline = now + (LINGER_SECONDS if self.service.draining else limits.keepalive)
            self._park(READ)
            return None
        end = http.head_end(self.buffer, limits.head_bytes, self._seen)
        if end < 0:
            self._seen = len(self.buffer)
            if self.step != self._more_head:
                self.step = self._more_head
                self.deadline = self.service.lounge.now + limits.headers
            self._park(READ)
            return None
        self._seen = 0
        if self.service.lounge.now >= self._proof_ends:
            self.finish()  # unanswered: the client may ask again where it has to show a certificate that is good
            return None
        head = http.parse_head(self.buffer[:end], limits.max_headers)
        self.buffer = self.buffer[end:]
        self.exchange = exchange = Exchange(self, head)
        if self.endpoint.hosts is not None and self.endpoint.is_misdirected(head.host):
            raise http.BadRequest(421, "the host asks for a client certificate that was not asked for here")
        self._requests_left -= 1
        if self._requests_left <= 0:
            if self._requests_left < 0:  # it had none from the beginning: after its last a connection ends
                raise http.BadRequest(429, "its client has connections-per-client connections already")
            exchange.keep_alive = False
        if head.content_length and not self._begin_body(exchange, head):
            return None
        self.deadline = NEVER
        self.step = self._while_answered
        return exchange

    def _begin_body(self, exchange: Exchange, head: http.RequestHead) -> bool:
        """Whether the whole body is there already; if not, the connection is parked until it is."""
        service = self.service
        intake = Intake(head.content_length, service.limits, service.disk, service.lounge.now)
        exchange.body = intake.body
        first, self.buffer = self.buffer, b""
        if first and intake.feed(first, service.lounge.now):
            self.buffer = intake.rest
            return True
        if head.expect_continue and not first and self.write(CONTINUE) < len(CONTINUE):
            raise Gone("the client does not read")
        self._intake = intake
        self.step = self._more_body
        self.deadline = intake.deadline
        self._park(READ)
        return False

    def resume(self) -> None:
        """Goes on after an answered request; the caller owns the connection."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None and not exchange.keep_alive:
            self.finish()
        else:
            self._serve()

    def _refuse(self, bad: http.BadRequest) -> None:
        """Answers a request that cannot be served, and ends the connection: what follows cannot be told apart."""
        self.buffer = b""
        self.deadline = self.service.lounge.now + self.service.limits.write
        exchange = self.exchange or Exchange(self, None)
        exchange.keep_alive = False
        self.exchange = exchange
        if exchange.fail(bad.status, bad.reason):
            self.exchange = None
            self.finish()

    # Input and output.

    @property
    def channel(self) -> Channel:
        """The TLS of this connection, once there is some. Raises Gone where it is over."""
        channel = self._channel
        if channel is None:
            raise Gone("the connection is closed")
        return channel

    def write(self, data: bytes | memoryview) -> int:
        """Sends what the client takes now and returns how many bytes that was. Raises Gone."""
        sent = self.channel.send(data)
        self.service.tally.bytes_out += sent
        return sent

    def _read(self) -> bytes | None:
        """Data, or None when the connection was parked for more. Raises Gone."""
        channel = self.channel
        data = channel.receive()
        if not data:
            self._park(channel.want)
            return None
        count = len(data)
        self.service.tally.bytes_in += count
        return data

    def wait_for_answer(self) -> None:
        """Parks the connection while a backend works: only the client's farewell or next request wakes it."""
        self.step = self._while_answered
        self.deadline = NEVER
        self._park(READ if len(self.buffer) < self.service.limits.head_bytes else HANGUP_ONLY)

    def wait_to_write(self, step: Callable[[int], None], progress: bool, latest: float = NEVER) -> None:
        """Parks the connection until the client has read some; `step` goes on.

        Only `progress` buys more time, and none beyond `latest` (time.monotonic() seconds).
        """
        self.step = step
        if progress or self.deadline == NEVER:
            self.deadline = min(self.service.lounge.now + self.service.limits.write, latest)
        self._park(self.channel.want)

    def wait_for_room(self) -> None:
        """Parks the connection while its request waits for an application thread."""
        self.step = self._while_answered
        self.deadline = self.service.lounge.now + self.service.limits.room
        self._park(HANGUP_ONLY)

    def claim(self) -> bool:
        """Takes it back from where `wait_for_room` has left it; False where it has ended meanwhile."""
        if not self.service.lounge.claim(self.fd, self):
            return False
        if self.step != self._while_answered:  # it is being told that there was no room, and does not read
            self._park(self.channel.want)
            return False
        self.deadline = NEVER
        return True

    def is_parked(self) -> bool:
        """Whether it is in the lounge at this moment. Any thread may ask."""
        return self.service.lounge.holds(self.fd, self)

    def owes_from(self) -> float:
        """Since when a handshake or a head has been under way, or NEVER. Any thread may ask, as above."""
        step, limits = self.step, self.service.limits
        if step == self._more_handshake:
            return self.deadline - limits.handshake
        if step == self._more_head and self.idle_from == NEVER:
            return self.deadline - limits.headers
        return NEVER

    def unwanted(self) -> bool:
        return not (self._admitted or self.closed)

    def waits_for(self) -> str:
        """What it waits for, a word of tally.WAITS. Any thread may ask, and hears what was so a moment ago."""
        step = self.step
        if self.tunnel is not None:
            return "tunnel"
        if step == self._more_head:
            return "head" if self.idle_from == NEVER else "idle"
        if step == self._more_handshake:
            return "handshake"
        if step == self._more_body:
            return "body"
        if step != self._while_answered:
            return "writing"
        if not self.service.backend.blocking:
            return "backend"
        return "application" if self.deadline == NEVER else "room"

    # The end.

    def leave_if_idle(self, when: float) -> None:
        """The worker drains: a client that has nothing under way is kept until `when` at most."""
        if self.idle_from != NEVER:
            self.deadline = min(self.deadline, when)
        elif (tunnel := self.tunnel) is not None:
            tunnel.leave()

    def give_way(self) -> None:
        """To newer ones: there is no request under way, perhaps not even a handshake that is complete."""
        try:
            if self.step == self._more_handshake:
                self.close()
            else:
                self.finish(linger=False)
        except Gone:
            self.close()

    def finish(self, linger: bool = True) -> None:
        """Ends the connection politely: close_notify, then the TCP end, lingering after a response (RFC 9112, 9.6)."""
        said = self.channel.shutdown()
        if not linger:
            return self.close()
        if said:
            return self._linger()
        # The socket is full of the response, and without a close_notify the client could not tell that it is whole.
        return self.wait_to_write(self._finish_later, progress=self.step != self._finish_later)

    def _finish_later(self, events: int) -> None:
        self.finish()

    def _linger(self) -> None:
        armed, self.armed = self.armed, 0  # the farewell goes on with what epoll knows of this socket
        self._release()
        farewell = Farewell(self.service, self.sock, self.fd, armed)
        self.service.crowd.follows(self, farewell)
        farewell.begin()

    def close(self) -> None:
        if self.closed:
            return
        self._release()
        self.sock.close()
        self.service.crowd.left(self)

    def _release(self) -> None:
        """Lets go of all but the socket."""
        self.closed = True
        self.step = _over  # a bound method would hold the connection until the garbage collector comes
        exchange, self.exchange = self.exchange, None
        if self._intake is not None:
            self._intake.body.close()  # no backend has it yet
        if exchange is not None:
            exchange.client_gone()
            self.service.room.forget(exchange)
        self._channel = self.tunnel = None
        crowd = self.service.crowd
        crowd.handshake_over(self.fd)
        admitted, self._admitted = self._admitted, False
        if admitted:
            crowd.dismiss(self.peer[0])
        self.service.lounge.forget(self.fd, self)

    def _park(self, events: int) -> None:
        self.service.lounge.park(self.fd, self, events)

    def _failed(self, reason: str, counted: str, alert: str = "") -> None:
        """Says why there is no handshake; `counted` is a word of tally.FAILURES."""
        failure = Failure(reason, counted, self.peer, self.endpoint.name, alert, self.sni, self.versions)
        self.service.failures(failure)

    def _complain(self, text: str) -> None:
        self.service.complain(f"{text} (client {self.peer[0]}, {self.endpoint.name})")
