"""A proxy backend on a stage: one node whose connections the test accepts, a real lounge, clients that are not real.

A `Wire` (wire.py) stands in for a client's connection, `Stage` is the backend with its service thread. For the tests of
what is below blackbox/test_http_to.py: answers cut into pieces that no real backend would send, and races that nobody
wins. The service thread drains a wire, so a test has it done there.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from test_uwsgi_packet import decode
from wire import ALL, LIMITS, Wire

from uwsgi_tls.backends.nodes import Node, Nodes
from uwsgi_tls.backends.proxy import NodeProtocol, Policy, ProxyBackend
from uwsgi_tls.backends.uwsgi import UwsgiProtocol
from uwsgi_tls.lounge import Lounge
from uwsgi_tls.service import Room, Service
from uwsgi_tls.spool import Spool

SECONDS = 5.0
POLICY = Policy(connect=1, answer=1, grace=30, websockets=True)
UWSGI = UwsgiProtocol(modifier1=5, modifier2=7, extra=(("EXTRA", "1"),))


class Stage:
    """A backend with one node, whose connections the test accepts, and the lounge's thread."""

    def __init__(self, directory: Path, protocol: NodeProtocol = UWSGI, policy: Policy = POLICY) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / "n"))
        self.listener.listen()
        self.listener.settimeout(SECONDS)
        self.lounge = Lounge(1)
        self.node = Node("n", socket.AF_UNIX, str(directory / "n"))
        self.backend = ProxyBackend(protocol, Nodes([self.node]), policy, self.lounge)
        self.service = Service(LIMITS, self.lounge, self.backend, Room(1), export_cert=False, worker=1, pid=1)
        self.thread = threading.Thread(target=self.lounge.serve, daemon=True)
        self.thread.start()

    def ask(self, method: str = "GET", body: bytes | None = None, capacity: int = ALL, fields: str = "") -> Wire:
        """Begins with a request; the node's end of it is `accept`'s."""
        wire = Wire(self.service, capacity)
        exchange = wire.begin(f"{method} /x HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
        if body is not None:
            exchange.body = Spool(LIMITS.memory_bytes)
            exchange.body.append(body)
        self.do(lambda: self.backend.handle(exchange))
        return wire

    def do(self, call: Callable[[], object]) -> None:
        """Has the service thread do it."""

        def do() -> None:
            call()

        self.lounge.later(0.0, do)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)

    def accept(self) -> socket.socket:
        sock = self.listener.accept()[0]
        sock.settimeout(SECONDS)
        return sock

    def end(self) -> None:
        self.lounge.closed = True
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        self.listener.close()


def receive(sock: socket.socket, count: int) -> bytes:
    """So many bytes. MSG_WAITALL does not wait where a socket has a timeout: Python does not block in recv(2) then."""
    data = bytearray()
    while len(data) < count:
        block = sock.recv(count - len(data))
        assert block, f"the connection ended after {len(data)} of {count} bytes"
        data += block
    return bytes(data)


def read_packet(sock: socket.socket) -> dict[bytes, bytes]:
    head = receive(sock, 4)
    packet = head + receive(sock, int.from_bytes(head[1:3], "little"))
    modifier1, modifier2, pairs = decode(packet)
    assert (modifier1, modifier2) == (5, 7)
    assert pairs[-1] == (b"EXTRA", b"1")
    return dict(pairs)
