"""Connections to nodes that have answered and wait for the next request (RFC 9112, 9.3).

Each is parked in the lounge: a node that closes one, or says something unasked, is heard, and the connection is gone.
What a node says only after the next request was sent, nobody can tell from its answer. So a connection comes here only
where an honest node can have nothing left over: its request had no body, and its answer had one, which was read to the
end that the node itself had announced (`answer.py`, `upstream.py`).
"""

from _socket import socket as RawSocket
from collections import defaultdict

from uwsgi_tls.backends.nodes import Node
from uwsgi_tls.lounge import READ, Lounge

IDLE_PER_NODE = 32


class Idle:
    """One connection, while nobody uses it."""

    __slots__ = ("_connections", "armed", "deadline", "fd", "node", "sock")

    def __init__(
        self, connections: "IdleConnections", node: Node, sock: RawSocket, armed: int, deadline: float
    ) -> None:
        self._connections = connections
        self.node = node
        self.sock = sock
        self.fd = sock.fileno()
        self.armed = armed
        self.deadline = deadline

    def ready(self, events: int) -> None:
        self._connections.drop(self)

    def expired(self) -> None:
        self._connections.drop(self)

    def crashed(self) -> None:
        self._connections.drop(self)


class IdleConnections:
    """Those of one worker, of which one thread alone is the owner."""

    def __init__(self, lounge: Lounge, seconds: float) -> None:
        """`seconds`: how long one may be idle."""
        self._lounge = lounge
        self._seconds = seconds
        self._of: defaultdict[Node, list[Idle]] = defaultdict(list)  # the longest unused first

    def put(self, node: Node, sock: RawSocket, armed: int) -> None:
        """Takes over a connection that epoll watches for `armed`; too many are not kept."""
        kept = self._of[node]
        if len(kept) >= IDLE_PER_NODE:
            self.drop(kept[0])
        idle = Idle(self, node, sock, armed, self._lounge.now + self._seconds)
        kept.append(idle)
        self._lounge.park(idle.fd, idle, READ)

    def take(self, node: Node) -> Idle | None:
        """The one that was used last, and that is silent; the caller owns it."""
        kept = self._of[node]
        while kept:
            idle = kept[-1]
            if _is_silent(idle.sock):
                kept.pop()
                self._lounge.forget(idle.fd, idle)
                return idle
            self.drop(idle)
        return None

    def drop(self, idle: Idle) -> None:
        self._of[idle.node].remove(idle)
        self._lounge.forget(idle.fd, idle)
        idle.sock.close()


def _is_silent(sock: RawSocket) -> bool:
    """Whether nothing has come on it, not even its end: epoll tells of that only at its next turn."""
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
