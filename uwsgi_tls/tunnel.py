"""What a connection becomes when a node has answered 101: bytes in both directions, whatever they mean.

Both sockets wait in the lounge, and each direction has one block at most: what one side sends is read only when the
other has taken what came before. So a WebSocket costs no thread, and a reader that is slow slows its writer, not us.

Each side may end its direction and go on reading: close_notify of the client (RFC 8446, 6.1) becomes the end of what
the node reads, and the end of the node's stream a close_notify. A side that breaks its connection ends both at once,
and then the client gets no close_notify, so that it can tell.
"""

import select
import socket
import traceback
from _socket import socket as RawSocket
from collections.abc import Callable

from uwsgi_tls.exchange import Exchange
from uwsgi_tls.gone import Ended, Gone
from uwsgi_tls.lounge import GONE, NEVER, READ, WRITE

BLOCK_BYTES = 65536  # that one direction may have in hand
MOVES_PER_TURN = 16  # then other connections have theirs
HALF_CLOSED_SECONDS = 30.0  # of silence, once one side has ended its direction


class Tunnel:
    __slots__ = (
        "_client_ended",
        "_connection",
        "_down",
        "_down_over",
        "_exchange",
        "_name",
        "_node_ended",
        "_seconds",
        "_sock",
        "_up",
        "_up_over",
        "_wants_to_read",
        "_wants_to_write",
        "armed",
        "deadline",
        "fd",
    )

    def __init__(self, exchange: Exchange, sock: RawSocket, armed: int, name: str, seconds: float) -> None:
        """Takes over a node's socket that epoll watches for `armed`; `seconds` is how long all may be silent."""
        self.deadline = NEVER
        self.armed = armed
        self.fd = sock.fileno()
        self._exchange = exchange
        self._connection = exchange.connection
        self._sock = sock
        self._name = name
        self._seconds = seconds
        # Up is to the node, down is to the client.
        self._up = self._down = b""
        self._client_ended = self._node_ended = False  # it sends no more; what it has sent may be on its way
        self._up_over = self._down_over = False  # nor is anything on its way
        self._wants_to_read, self._wants_to_write = READ, WRITE  # what TLS waits for when it would do so

    def begin(self, head: bytes, first: bytes) -> None:
        """Tells the client the `head` of the 101 and the `first` bytes of the node."""
        connection, exchange = self._connection, self._exchange
        if self._sock.family != socket.AF_UNIX:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # frames are small and urgent
        exchange.status, exchange.headers, exchange.head_bytes = 101, head.count(b"\n") - 2, len(head)
        exchange.sent = -len(head)  # the access log counts what comes after it
        exchange.on_gone = self.close
        connection.tunnel = self
        connection.step = self.client_ready
        self._down = head + first
        # What the client sent too early was meant for nobody before this.
        self._up, connection.buffer = connection.buffer, b""
        self._renew()
        self._drive(self._client_ready)

    # What the lounge calls, for the node's socket; `client_ready` is the step of the connection.

    def ready(self, events: int) -> None:
        self._drive(self._node_ready, events)

    def client_ready(self, events: int) -> None:
        if events & GONE and not events & select.EPOLLIN:  # else reading tells, after what it has said last
            return self._connection.close()
        self._drive(self._client_ready)

    def expired(self) -> None:
        self.time_out()

    def crashed(self) -> None:
        self._exchange.connection.service.complain(f"a tunnel ended by a defect: {traceback.format_exc()}")
        self._connection.close()

    def time_out(self) -> None:
        """Both sides have been silent for too long, or the worker leaves."""
        self._drive(self._end if not self._down else self._connection.close)

    def leave(self) -> None:
        """The worker drains (another thread says so): the tunnel has until its end."""
        end = self._connection.service.ends
        self.deadline = min(self.deadline, end)
        self._connection.deadline = min(self._connection.deadline, end)

    def close(self) -> None:
        """The connection is over: so is the node's."""
        self._exchange.on_gone = None
        self._connection.service.lounge.forget(self.fd, self)
        self._sock.close()

    def _drive(self, step: Callable[..., None], *arguments: object) -> None:
        try:
            step(*arguments)
        except Gone:
            self._connection.close()
        except OSError as error:
            self._exchange.abort(f"{self._name} broke the connection: {error.strerror}")

    # Steps.

    def _node_ready(self, events: int) -> None:
        if self._up:  # there is room, or an error that only sending tells of
            self._move_up()
        if events & ~select.EPOLLOUT:
            self._move_down()
        self._settle()

    def _client_ready(self) -> None:
        # TLS may have to read in order to write, and the other way round: whatever came, both are tried.
        if self._down:
            self._move_down()
        self._move_up()
        self._settle()

    def _move_up(self) -> None:
        """From the client to the node, until one of them must be waited for. Raises Gone."""
        channel = self._connection.channel
        for _ in range(MOVES_PER_TURN):
            if self._up_over:
                return
            if not self._up and not self._client_ended:
                try:
                    self._up = channel.receive()
                except Ended:
                    self._client_ended = True
                self._wants_to_read = channel.want
                if not self._up and not self._client_ended:
                    return
                count = len(self._up)
                self._connection.service.tally.bytes_in += count
                self._renew()
            try:
                if self._up:
                    self._up = self._up[self._sock.send(self._up) :]
                    self._renew()
                if self._up:
                    return
                if self._client_ended:
                    self._up_over = True
                    self._sock.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                return
            except OSError:  # the node takes no more; what it has said can still be read
                self._up, self._up_over = b"", True

    def _move_down(self) -> None:
        """From the node to the client. Raises Gone, and OSError where the node has broken the connection."""
        connection = self._connection
        for _ in range(MOVES_PER_TURN):
            if self._down_over:
                return
            if not self._down and not self._node_ended:
                try:
                    self._down = self._sock.recv(BLOCK_BYTES)
                except BlockingIOError:
                    return
                self._node_ended = not self._down
                self._renew()
            if self._down:
                sent = connection.write(self._down)
                if sent:
                    self._exchange.sent += sent
                    self._down = self._down[sent:]
                    self._renew()
                if self._down:
                    self._wants_to_write = connection.channel.want
                    return
            if self._node_ended:
                self._down_over = True
                connection.channel.shutdown()

    def _settle(self) -> None:
        """Waits on both sides for what can come now, or ends."""
        if self._up_over and self._down_over:
            return self._end()
        connection, lounge = self._connection, self._connection.service.lounge
        reads_client = not (self._up or self._up_over or self._client_ended)
        client = (self._wants_to_read if reads_client else 0) | (self._wants_to_write if self._down else 0)
        node = (WRITE if self._up else 0) | (READ if not (self._down or self._node_ended) else 0)
        if client or not self._client_ended:
            lounge.park(connection.fd, connection, client or GONE)  # also one of whom nothing is wanted now may leave
        elif connection.armed:
            # It has taken its leave politely, and what it has said last still goes to the node.
            lounge.unwatch(connection.fd, connection)
        if node:
            lounge.park(self.fd, self, node)
        elif self.armed:
            lounge.unwatch(self.fd, self)

    def _end(self) -> None:
        """Politely. The connection tells the exchange, and that tells us. Raises Gone."""
        self._connection.finish()

    def _renew(self) -> None:
        """Something has moved. Whichever of the two waiters is parked has the deadline, and often both are."""
        service, seconds = self._connection.service, self._seconds
        if self._client_ended or self._node_ended:
            seconds = min(seconds, HALF_CLOSED_SECONDS)
        self.deadline = self._connection.deadline = min(service.lounge.now + seconds, service.ends)
