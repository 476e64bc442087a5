"""One request's conversation with a node: reach one, send, hear the answer and pass it on.

The node's socket does not block; while the node thinks it is parked in the lounge beside the clients. What is said to
the node is ready when this begins, and what is heard is an HTTP response in every protocol (`answer.py`).
"""

import errno
import os
import select
import socket
import traceback
from _socket import socket as RawSocket
from collections.abc import Callable
from typing import TYPE_CHECKING

from uwsgi_tls import response, websocket
from uwsgi_tls.backends.answer import AnswerBody, AnswerHead, take_head
from uwsgi_tls.backends.nodes import Node, new_socket
from uwsgi_tls.backends.outgoing import Outgoing
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.gone import Gone
from uwsgi_tls.http import BadRequest
from uwsgi_tls.lounge import READ, WRITE
from uwsgi_tls.tunnel import Tunnel

if TYPE_CHECKING:
    from uwsgi_tls.backends.proxy import ProxyBackend

BLOCK_BYTES = 65536  # of one read
READS_PER_TURN = 16
FULL_QUEUE_SECONDS = 0.05
PROBE_SECONDS = 0.001  # between two questions to a full queue, whoever asks
# RFC 9110, 9.2.2. Only these go to a connection that was used before: the node may be about to close it, and then it
# cannot be known whether it has done what was asked. The same may be asked again, anything else may not.
IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "PROPFIND", "REPORT", "SEARCH"))


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
        "_bodiless",
        "_body",
        "_buffer",
        "_exchange",
        "_hear",
        "_method",
        "_node",
        "_outgoing",
        "_paused",
        "_reset",
        "_sending",
        "_sock",
        "_stays",
        "_tried",
        "_upgrade",
        "_used",
        "armed",
        "deadline",
        "fd",
        "step",
    )

    def __init__(self, backend: "ProxyBackend", exchange: Exchange, request: bytes, method: str, upgrade: bool) -> None:
        self.deadline = 0.0
        self.armed = 0
        self.fd = -1
        self.step: Callable[[int], None] = self._connected
        self._backend = backend
        self._exchange = exchange
        self._method = method
        self._upgrade = upgrade  # the node may turn the connection into a WebSocket
        self._node: Node | None = None
        self._tried: list[Node] = []
        self._sock: RawSocket | None = None
        self._used = False  # it is a kept connection, of which it is not known whether the node still has it
        self._outgoing = Outgoing(request, exchange.body)
        self._bodiless = exchange.body is None or not exchange.body.size
        self._buffer = b""
        self._body: AnswerBody | None = None
        self._stays = False  # the connection may serve again
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
        self._exchange.connection.service.tally.count("deadlines.backend")
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

    # To a node.

    def begin(self) -> bool:
        """Goes as far as it can; True: the exchange is answered already, with an error, and its connection goes on."""
        self._beginning = True
        self._drive(self._choose)
        self._beginning = False
        return self._answered

    def _choose(self) -> None:
        """Asks the node whose turn it is."""
        self._node = node = self._backend.nodes.choose(self._tried, self._backend.lounge.now)
        if node is None:
            return self._fail(502, "no backend could be reached")
        self._tried.append(node)
        connections = self._backend.idle
        if connections is not None and self._method in IDEMPOTENT and (idle := connections.take(node)) is not None:
            self._sock, self.fd, self.armed, self._used = idle.sock, idle.fd, idle.armed, True
            return self._begin_to_send()
        self._connect(node)

    def _connect(self, node: Node) -> None:
        self.deadline = self._backend.lounge.now + self._backend.policy.connect
        self._connect_to(node)

    def _connect_to(self, node: Node) -> None:
        try:
            self._sock = sock = new_socket(node, kept=self._backend.idle is not None)
        except OSError as error:  # no descriptor is left
            return self._fail(503, f"no socket for {node.name}: {error.strerror}")
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
        node.waiting += 1
        pause = max(FULL_QUEUE_SECONDS, node.waiting * PROBE_SECONDS)
        lounge.later(min(lounge.now + pause, self.deadline), lambda: self._try_again(node))

    def _try_again(self, node: Node) -> None:
        node.waiting -= 1
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
        self._choose()

    # The request.

    def _begin_to_send(self) -> None:
        self.step = self._converse
        self._renew()
        self._send_on()
        self._wait()

    def _converse(self, events: int) -> None:
        """Sends what is left of the request, and hears the node meanwhile: it may answer before it has read all."""
        if self._sending:
            left = self._outgoing.left
            self._send_on()
            if self._outgoing.left < left:  # a node that takes nothing gets no more time by what it says
                self._renew()
        if events & ~select.EPOLLOUT:
            return self._hear()
        return self._wait()

    def _send_on(self) -> None:
        assert self._sock is not None
        try:
            self._sending = not self._outgoing.send(self._sock)
        except BlockingIOError:
            pass
        except OSError as error:
            # It may have answered and closed without reading on; what it said can still be read.
            self._sending, self._reset = False, isinstance(error, ConnectionResetError)
            self._stays = False

    def _send_again(self, node: Node) -> None:
        """The node had closed the kept connection before it heard the request (RFC 9112, 9.3.1): on a new one."""
        self.close_socket()
        self._used, self._sending, self._reset = False, True, False
        self._outgoing.rewind()
        self._connect(node)

    # The answer.

    def _read_head(self) -> None:
        try:
            data = self._receive()
        except ConnectionError:
            if not self._used:
                raise
            data = b""
        if data is None:
            return self._wait()
        if not data:
            if self._used and self._node is not None:
                return self._send_again(self._node)
            return self._fail(502, f"{self._name()} closed the connection without an answer")
        self._used = False
        try:
            head, self._buffer = take_head(self._buffer + data, self._method)
            if head is None:
                return self._wait()
            if head.status.startswith("101"):
                return self._become_tunnel(head)
            self._exchange.start(head.status, head.headers)
        except response.BadResponse as bad:
            return self._fail(502, f"{self._name()} sent an answer that is not valid: {bad}")
        self._body = body = AnswerBody(head.length)
        # A node that leaves a request's body unread would take it for the next request, in another client's name.
        self._stays = head.persistent and self._bodiless and not self._sending and not self._reset
        self._hear = self._read_body
        first, self._buffer = self._buffer, b""
        if (first and self._pass_on(body, first)) or body.whole:
            return self._finish()
        return self._read_body()

    def _become_tunnel(self, head: AnswerHead) -> None:
        """Hands the socket over. Raises BadResponse."""
        if not self._upgrade or head.upgrade != websocket.PROTOCOL or self._sending:
            raise response.BadResponse("a change of protocol that nobody asked for")
        sock, self._sock = self._sock, None
        assert sock is not None
        exchange, policy, first = self._exchange, self._backend.policy, self._buffer
        self.close()
        switching = websocket.switching_head(head.status, head.headers)
        Tunnel(exchange, sock, self.armed, self._name(), policy.tunnel).begin(switching, first)

    def _read_body(self) -> None:
        body = self._body
        assert body is not None
        for _ in range(READS_PER_TURN if not body.chunked else 1):  # a block may hold thousands of chunks
            if self._exchange.full:
                return self._pause()
            data = self._receive()
            if data is None:
                self._exchange.flush()
                return self._wait()
            if not data:
                if not body.until_close:
                    return self._fail(502, f"{self._name()} closed the connection in the middle of its answer")
                return self._finish()
            if self._pass_on(body, data):
                return self._finish()
        self._exchange.flush()
        return self._wait()

    def _pass_on(self, body: AnswerBody, data: bytes) -> bool:
        """Gives bytes of the answer's body to the client; True when it is whole."""
        self._renew()
        try:
            payload = body.feed(data)
        except BadRequest as bad:
            self._exchange.abort(f"{self._name()} sent chunks that are not valid: {bad.reason}")
            raise Gone(bad.reason) from None
        self._exchange.write(payload)
        return body.whole

    def _pause(self) -> None:
        """The client is far behind: the node waits until it has caught up."""
        self._paused = True
        self._backend.lounge.unwatch(self.fd, self)

    def _unpause(self) -> None:
        if self._paused:
            self._paused = False
            self._renew()
            self._wait()

    # The end.

    def _finish(self) -> None:
        """The answer is whole; its connection may be kept where the node said no more than that."""
        body, connections = self._body, self._backend.idle
        if self._stays and connections is not None and body is not None and not body.more:
            sock, node, self._sock = self._sock, self._node, None
            assert sock is not None
            assert node is not None
            connections.put(node, sock, self.armed)
        self.close()
        self._carry_on(self._exchange.finish())

    def _fail(self, status: int, reason: str) -> None:
        self._exchange.connection.service.tally.count("backend_errors")
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
        self._outgoing.close()

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

    def _renew(self) -> None:
        """The request or its answer has moved."""
        self.deadline = self._backend.lounge.now + self._backend.policy.answer

    def _wait(self) -> None:
        self._park(READ | WRITE if self._sending else READ)

    def _park(self, events: int) -> None:
        self._backend.lounge.park(self.fd, self, events)
