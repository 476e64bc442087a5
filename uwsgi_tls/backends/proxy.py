"""Hands requests to the servers of `http-to`, in the protocol that they speak.

The request is whole before a node is asked, so a slow client costs the node nothing; and no node holds a thread
(`upstream.py`).
"""

from dataclasses import dataclass
from typing import Protocol

from uwsgi_tls import websocket
from uwsgi_tls.backends.idle import IdleConnections
from uwsgi_tls.backends.nodes import Nodes
from uwsgi_tls.backends.upstream import Upstream
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.lounge import Lounge


class TooBig(Exception):
    """A request that the protocol cannot carry. The reason in words."""


class NodeProtocol(Protocol):
    """How a request is said to a node."""

    idle_seconds: float  # that a connection is kept for another request; 0: it carries one

    def encode(self, exchange: Exchange, upgrade: bool) -> bytes:
        """All but the body; with `upgrade` the node may answer with 101. Raises TooBig."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are sent on: uWSGI's http-* options, times in seconds."""

    connect: float
    answer: float
    grace: float
    tunnel: float = 3600.0  # that a WebSocket may be silent
    websockets: bool = False


class ProxyBackend:
    """Hands each request to the node whose turn it is."""

    blocking = False

    def __init__(self, protocol: NodeProtocol, nodes: Nodes, policy: Policy, lounge: Lounge) -> None:
        self.protocol = protocol
        self.policy = policy
        self.lounge = lounge
        self.nodes = nodes
        self.idle = IdleConnections(lounge, protocol.idle_seconds) if protocol.idle_seconds else None

    def handle(self, exchange: Exchange) -> bool:
        head = exchange.head
        assert head is not None
        upgrade = bool(head.upgrade) and self.policy.websockets and websocket.is_opening(head)
        if upgrade:
            # If the node refuses: what the client may have sent already, in hope, must not be read as a request.
            exchange.keep_alive = False
        try:
            request = self.protocol.encode(exchange, upgrade)
        except TooBig as error:
            return exchange.fail(431, str(error))
        exchange.connection.wait_for_answer()
        return Upstream(self, exchange, request, head.method, upgrade).begin()
