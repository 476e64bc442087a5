"""The servers behind `http-to`, in turn, and those of `http-fallback`; one that could not be reached is passed over."""

import socket
from _socket import socket as RawSocket  # its wrapper's work would be done for each request
from collections.abc import Sequence
from dataclasses import dataclass

from uwsgi_tls.addresses import Address, TcpAddress, UnixAddress
from uwsgi_tls.errors import ConfigError


@dataclass(slots=True, eq=False)
class Node:
    """One backend server, until when it is passed over, and how many wait for a place in its listen queue."""

    name: str
    family: socket.AddressFamily
    address: object
    dead_until: float = 0.0
    waiting: int = 0


def node(address: Address, option: str = "http-to") -> Node:
    """The node of one `http-to` or `http-fallback`. Raises ConfigError where a name cannot be resolved."""
    if isinstance(address, UnixAddress):
        return Node(str(address), socket.AF_UNIX, address.path)
    if not isinstance(address, TcpAddress):
        raise ConfigError(option, str(address), "not the address of a server")
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(option, str(address), f"cannot resolve the name: {error}") from None
    family, _, _, _, where = found[0]
    return Node(str(address), socket.AddressFamily(family), where)


def new_socket(node: Node, kept: bool) -> RawSocket:
    """A socket for connecting to `node` without blocking; `kept`: for more than one request. Raises OSError."""
    sock = RawSocket(node.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if kept and node.family != socket.AF_UNIX:
        # A body would wait for the acknowledgement of its head.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Nodes:
    """Round robin; when none of `nodes` can be reached, those of `fallback` in their order."""

    def __init__(self, nodes: Sequence[Node], fallback: Sequence[Node] = ()) -> None:
        self._nodes = list(nodes)
        self._fallback = list(fallback)
        self._turn = 0

    def choose(self, tried: Sequence[Node], now: float) -> Node | None:
        """The next that was not tried for this request: one that lives at `now` (monotonic), else any."""
        nodes, count = self._nodes, len(self._nodes)
        first, self._turn = self._turn, (self._turn + 1) % count
        spare = None
        for step in range(count):
            node = nodes[(first + step) % count]
            if node not in tried:
                if node.dead_until <= now:
                    return node
                # With none alive a refusal is learnt as quickly as it is foretold, and the first that is back is found.
                spare = spare or node
        return self._fall_back(tried, now, spare) if self._fallback else spare

    def _fall_back(self, tried: Sequence[Node], now: float, spare: Node | None) -> Node | None:
        left = [node for node in self._fallback if node not in tried]
        for node in left:
            if node.dead_until <= now:
                return node
        return spare or (left[0] if left else None)
