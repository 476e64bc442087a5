"""Hands requests to uwsgi-protocol servers (`http-to`): one connection a request, none of which holds a thread.

The request is whole before a node is asked, so a slow client costs the node nothing. The node's socket does not
block; while the node thinks it is parked in the lounge beside the clients. The packet is that of uWSGI's
docs/Protocol, the answer an HTTP response; gunicorn and others may delimit it (Content-Length, chunked), uWSGI ends
it by closing.
"""

import errno
import os
import select
import socket
import traceback
from _socket import socket as RawSocket  # its wrapper's work would be done for each request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from uwsgi_tls import response, uwsgi_packet
from uwsgi_tls.backends.nodes import Node, Nodes
from uwsgi_tls.backends.variables import variables
from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.exchange import HIGH_WATER_BYTES, Exchange
from uwsgi_tls.gone import Gone
from uwsgi_tls.http import BadRequest
from uwsgi_tls.lounge import READ, WRITE, Lounge

BLOCK_BYTES = 65536  # of one read or write
READS_PER_TURN = 16
ANSWER_HEAD_BYTES = 65536
BODY_BYTES = 1 << 20  # sent in one turn; then other connections have theirs
FULL_QUEUE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are sent on: uWSGI's http-* options, times in seconds."""

    connect: float
    answer: float
    grace: float
    modifier1: int = 0
    modifier2: int = 0
    extra: tuple[tuple[str, str], ...] = field(default=())


class UwsgiBackend:
    """Hands each request to the node whose turn it is."""

    blocking = False

    def __init__(self, nodes: Sequence[Node], policy: Policy, lounge: Lounge) -> None:
        self.policy = policy
        self.lounge = lounge
        self.nodes = Nodes(nodes)

    def handle(self, exchange: Exchange) -> bool:
        policy = self.policy
        # `close` is for servers that would keep the connection open and hold their answer's end back (gunicorn).
        pairs = [*variables(exchange), ("HTTP_CONNECTION", "close"), *policy.extra]
        try:
            packet = uwsgi_packet.encode(pairs, policy.modifier1, policy.modifier2)
        except uwsgi_packet.PacketTooBig:
            return exchange.fail(431, "its variables do not fit into a uwsgi packet of 64 KiB")
        exchange.connection.wait_for_answer()
        return Upstream(self, exchange, packet).begin()


def _over(events: int) -> None:
    """The step of a connection to a node that is closed."""


def _silence() -> None:
    """What it hears."""


class Upstream:
    """The connection to a node for one exchange: connect, send, read the head, pass the body on."""

    __slots__ = (
        "_answered",
        "_backend",
        "_beginning",
        "_buffer",
        "_decoder",
        "_exchange",
        "_hear",
        "_left",
        "_node",
        "_packet",
        "_paused",
        "_reset",
        "_sending",
        "_sock",
        "_tried",
        "armed",
        "deadline",
        "fd",
        "step",
    )

    def __init__(self, backend: UwsgiBackend, exchange: Exchange, packet: bytes) -> None:
        self.deadline = 0.0
        self.armed = 0
        self.fd = -1
        self.step: Callable[[int], None] = self._connected
        self._backend = backend
        self._exchange = exchange
        self._node: Node | None = None
        self._tried: list[Node] = []
        self._sock: RawSocket | None = None
        self._packet = packet
        self._buffer = b""
        self._left = -1  # bytes of the answer's body still to come; -1: until the node closes
        self._decoder: ChunkedDecoder | None = None
        self._paused = False
        self._sending = True
        self._reset = False
        self._beginning = self._answered = False
        self._hear: Callable[[], None] = self._read_head
        exchange.on_gone = self.close
        exchange.on_dry = self._unpause

    # What the lounge calls.

    def ready(self, events: int) -> None:
        self._drive(self.step, events)

    def expired(self) -> None:
        if self.step == self._connected:
            self._drive(self._next_node, "timed out")
        else:
            self._drive(self._fail, 504, f"{self._name()} did not answer in time")

    def crashed(self) -> None:
        self._complain(f"the request to {self._name()} ended by a defect: {traceback.format_exc()}")
        self.close()
        self._exchange.connection.close()

    def _drive(self, step: Callable[..., None], *arguments: object) -> None:
        try:
            step(*arguments)
        except Gone:
            self.close()
            self._exchange.connection.close()
        except OSError as error:
            self._drive(self._fail, 502, f"{self._name()} broke the connection: {error.strerror}")

    # Steps.

    def begin(self) -> bool:
        """Goes as far as it can; True: the exchange is answered already, with an error, and its connection goes on."""
        self._beginning = True
        self._drive(self._connect)
        self._beginning = False
        return self._answered

    def _connect(self) -> None:
        """Asks the node whose turn it is."""
        self._node = node = self._backend.nodes.choose(self._tried, self._backend.lounge.now)
        if node is None:
            return self._fail(502, "no backend could be reached")
        self._tried.append(node)
        self.deadline = self._backend.lounge.now + self._backend.policy.connect
        self._connect_to(node)

    def _connect_to(self, node: Node) -> None:
        try:
            self._sock = sock = RawSocket(node.family, socket.SOCK_STREAM)
        except OSError as error:  # no descriptor is left
            return self._fail(503, f"no socket for {node.name}: {error.strerror}")
        sock.setblocking(False)
        self.fd = sock.fileno()
        self.armed = 0
        self.step = self._connected
        code = sock.connect_ex(node.address)  # type: ignore[arg-type]  # str or tuple, as the family wants
        if code == 0:
            return self._begin_to_send()
        if code == errno.EINPROGRESS:
            return self._park(WRITE)
        if code == errno.EAGAIN:
            return self._wait_for_queue(node)
        return self._next_node(os.strerror(code))

    def _wait_for_queue(self, node: Node) -> None:
        """The listen queue of a UNIX socket is full; no event says when it is not (connect(2)): asks again."""
        self.close_socket()
        lounge = self._backend.lounge
        if lounge.now >= self.deadline:
            return self._fail(503, f"{node.name} is busy: its listen queue stayed full")
        lounge.later(lounge.now + FULL_QUEUE_SECONDS, lambda: self._try_again(node))

    def _try_again(self, node: Node) -> None:
        if not self._exchange.over:
            try:
                self._drive(self._connect_to, node)
            except Exception:  # a timer is called by nobody who could close it, as the lounge does for a waiter
                self.crashed()

    def _connected(self, events: int) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return self._next_node(os.strerror(code))
        self._begin_to_send()

    def _next_node(self, cause: str) -> None:
        """This node could not be reached, and has got no byte of the request: another may have it."""
        policy, node = self._backend.policy, self._node
        assert node is not None
        self._complain(f"unable to connect to {node.name}: {cause}; passed over for {policy.grace:g} seconds")
        node.dead_until = self._backend.lounge.now + policy.grace
        self.close_socket()
        self._connect()

    def _begin_to_send(self) -> None:
        self.step = self._converse
        self._send_on()
        self._wait()

    def _converse(self, events: int) -> None:
        """Sends what is left of the request, and hears the node meanwhile: it may answer before it has read all."""
        if self._sending:
            self._send_on()
        if events & ~select.EPOLLOUT:
            return self._hear()
        return self._wait()

    def _send_on(self) -> None:
        assert self._sock is not None
        self.deadline = self._backend.lounge.now + self._backend.policy.answer
        try:
            self._sending = not self._send_some(self._sock)
        except BlockingIOError:
            pass
        except OSError as error:
            # It may have answered and closed without reading on; what it said can still be read.
            self._sending = False
            self._reset = isinstance(error, ConnectionResetError)

    def _send_some(self, sock: RawSocket) -> bool:
        """Whether all has been sent. Raises BlockingIOError when the node does not take more now."""
        while self._packet:
            self._packet = self._packet[sock.send(self._packet) :]
        body, budget = self._exchange.body, BODY_BYTES
        while body is not None and body.size:
            if budget <= 0:
                return False
            sent = sock.send(body.front(BLOCK_BYTES))
            body.consume(sent)
            budget -= sent
        return True

    def _read_head(self) -> None:
        data = self._receive()
        if data is None:
            return self._wait()
        if not data:
            return self._fail(502, f"{self._name()} closed the connection without an answer")
        self._buffer += data
        try:
            while True:
                end = response.response_head_end(self._buffer, ANSWER_HEAD_BYTES)
                if end < 0:
                    return self._wait()
                status, headers = response.parse_response_head(self._buffer[:end])
                self._buffer = self._buffer[end:]
                if not status.startswith("1"):  # an interim answer (RFC 9110, 15.2) was meant for us
                    break
            # Connection speaks of the way between the node and us (RFC 9110, 7.6.1).
            headers = [field for field in headers if field[0].lower() != "connection"]
            self._exchange.start(status, headers)
            self._measure(status, headers)
        except response.BadResponse as bad:
            return self._fail(502, f"{self._name()} sent an answer that is not valid: {bad}")
        self._hear = self._read_body
        first, self._buffer = self._buffer, b""
        if self._left == 0 or (first and self._pass_on(first)):
            return self._finish()
        return self._read_body()

    def _measure(self, status: str, headers: Sequence[tuple[str, str]]) -> None:
        """How the end of the answer's body will be known (RFC 9112, 6.3)."""
        head = self._exchange.head
        if (head is not None and head.method == "HEAD") or status.startswith(("204", "304")):
            self._left = 0
            return
        for name, value in headers:
            if name.lower() == "content-length":
                self._left = int(value)  # start() has checked it
            elif name.lower() == "transfer-encoding":
                if value.lower() != "chunked":
                    raise response.BadResponse("a transfer coding other than chunked")
                self._decoder = ChunkedDecoder()
        if self._decoder is not None and self._left >= 0:
            raise response.BadResponse("both Content-Length and Transfer-Encoding")

    def _read_body(self) -> None:
        for _ in range(READS_PER_TURN):
            data = self._receive()
            if data is None:
                self._exchange.flush()
                return self._wait()
            if not data:
                if self._left > 0 or self._decoder is not None:
                    return self._fail(502, f"{self._name()} closed the connection in the middle of its answer")
                return self._finish()
            if self._pass_on(data):
                return self._finish()
            if self._exchange.waiting() > HIGH_WATER_BYTES:
                return self._pause()
        return self._wait()

    def _pass_on(self, data: bytes) -> bool:
        """Gives bytes of the answer's body to the client; True when it is whole."""
        self.deadline = self._backend.lounge.now + self._backend.policy.answer
        decoder = self._decoder
        if decoder is not None:
            try:
                payload = decoder.feed(data)
            except BadRequest as bad:
                self._exchange.abort(f"{self._name()} sent chunks that are not valid: {bad.reason}")
                raise Gone(bad.reason) from None
            self._exchange.write(payload)
            return decoder.done
        if self._left < 0:
            self._exchange.write(data)
            return False
        data = data[: self._left]
        self._left -= len(data)
        self._exchange.write(data)
        return self._left == 0

    def _pause(self) -> None:
        """The client is far behind: the node waits until it has caught up."""
        self._paused = True
        self._backend.lounge.unwatch(self.fd, self)

    def _unpause(self) -> None:
        if self._paused:
            self._paused = False
            self.deadline = self._backend.lounge.now + self._backend.policy.answer
            self._wait()

    # The end.

    def _finish(self) -> None:
        self.close()
        self._carry_on(self._exchange.finish())

    def _fail(self, status: int, reason: str) -> None:
        self.close()
        self._carry_on(self._exchange.fail(status, reason))

    def _carry_on(self, answered: bool) -> None:
        """To the connection's next request; the caller of `begin` goes there itself, or the stack would grow."""
        if self._beginning:
            self._answered = answered
        elif answered:
            self._exchange.connection.resume()

    def close(self) -> None:
        """Ends the connection to the node; nothing more will come of this exchange from here."""
        self.close_socket()
        # Bound methods in a circle would keep all of it until the garbage collector comes.
        self._exchange.on_gone = self._exchange.on_dry = None
        self.step, self._hear = _over, _silence
        if self._exchange.body is not None:
            self._exchange.body.close()

    def close_socket(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._backend.lounge.forget(self.fd, self)
            sock.close()

    def _receive(self) -> bytes | None:
        """Bytes; none at the end; None when there is nothing now. Raises OSError, as after a reset, which is no end."""
        assert self._sock is not None
        try:
            data = self._sock.recv(BLOCK_BYTES)
        except BlockingIOError:
            return None
        if not data and self._reset:  # the kernel tells of a reset once, and has told the sender
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return data

    def _complain(self, text: str) -> None:
        self._exchange.connection.service.complain(text)

    def _name(self) -> str:
        return self._node.name if self._node is not None else "no backend"

    def _wait(self) -> None:
        self._park(READ | WRITE if self._sending else READ)

    def _park(self, events: int) -> None:
        self._backend.lounge.park(self.fd, self, events)
