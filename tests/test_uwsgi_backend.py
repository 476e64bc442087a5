"""backends/uwsgi.py from within: whose turn it is, and answers cut into pieces that no real backend would send.

The node is a socket of the test, the lounge is real, the client's connection is not. Over real TLS, with real and with
hostile nodes: blackbox/test_http_to.py.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from test_uwsgi_packet import decode

from uwsgi_tls import lounge, response
from uwsgi_tls.addresses import FdAddress, SharedAddress, TcpAddress, UnixAddress
from uwsgi_tls.backends import nodes as nodes_module
from uwsgi_tls.backends import uwsgi
from uwsgi_tls.backends.nodes import Node, Nodes
from uwsgi_tls.backends.uwsgi import Policy, UwsgiBackend
from uwsgi_tls.connection import Connection
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.http import head_end, parse_head
from uwsgi_tls.lounge import Lounge
from uwsgi_tls.service import Limits, Room, Service
from uwsgi_tls.spool import Spool

SECONDS = 5.0
LIMITS = Limits(1, 1, 1, 1, 1, 4096, 100, 0, memory_bytes=1000)
POLICY = Policy(connect=1, answer=1, grace=30, modifier1=5, modifier2=7, extra=(("EXTRA", "1"),))


# --- nodes ------------------------------------------------------------------------------------


def test_node() -> None:
    for address, name, family, where in (
        (UnixAddress("/run/a.sock"), "/run/a.sock", socket.AF_UNIX, "/run/a.sock"),
        (UnixAddress("\0name"), "@name", socket.AF_UNIX, "\0name"),
        (TcpAddress("127.0.0.1", 3031), "127.0.0.1:3031", socket.AF_INET, ("127.0.0.1", 3031)),
        (TcpAddress("::1", 3031), "[::1]:3031", socket.AF_INET6, ("::1", 3031, 0, 0)),
    ):
        node = nodes_module.node(address)
        assert (node.name, node.family, node.address, node.dead_until) == (name, family, where, 0.0)


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        (TcpAddress("no.such.host.invalid", 1), "cannot resolve the name"),
        (TcpAddress("x" * 64 + ".invalid", 1), "cannot resolve the name"),
        (SharedAddress(0), "not the address of a server"),
        (FdAddress(3), "not the address of a server"),
    ],
)
def test_bad_node(address: TcpAddress | SharedAddress | FdAddress, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause) as caught:
        nodes_module.node(address)
    assert caught.value.option == "http-to"


def choices(dead: str, tried: str, rounds: int) -> str:
    """Whose turn it is, of the nodes a, b and c, so many times."""
    room = Lounge(1)
    nodes = [Node(name, socket.AF_UNIX, name, dead_until=room.now + 30 if name in dead else 0.0) for name in "abc"]
    backend = UwsgiBackend(nodes, POLICY, room)
    chosen = [
        backend.nodes.choose([node for node in nodes if node.name in tried], backend.lounge.now) for _ in range(rounds)
    ]
    return "".join("-" if node is None else node.name for node in chosen)


@pytest.mark.parametrize(
    ("dead", "tried", "expected"),
    [
        pytest.param("", "", "abcabc", id="in turn"),
        pytest.param("b", "", "accacc", id="a dead one is passed over"),
        pytest.param("ab", "", "cccccc", id="one lives"),
        pytest.param("abc", "", "abcabc", id="none lives: any"),
        pytest.param("", "a", "bbcbbc", id="tried already"),
        pytest.param("b", "ac", "bbbbbb", id="only a dead one is left"),
        pytest.param("", "abc", "------", id="all tried"),
    ],
)
def test_choose(dead: str, tried: str, expected: str) -> None:
    assert choices(dead, tried, 6) == expected


def test_the_dead_live_again() -> None:
    room = Lounge(1)
    node = Node("a", socket.AF_UNIX, "a", dead_until=room.now + 30)
    other = Node("b", socket.AF_UNIX, "b")
    backend = UwsgiBackend([node, other], POLICY, room)
    assert [backend.nodes.choose([], backend.lounge.now) for _ in range(2)] == [other, other]
    room.now += 30
    assert [backend.nodes.choose([], backend.lounge.now) for _ in range(2)] == [node, other]


# --- answers in pieces ------------------------------------------------------------------------


@dataclass
class Wire:
    """The client's connection: takes as much as `capacity`, and is drained by the test in the service thread."""

    service: Service
    capacity: int
    taken: bytearray = field(default_factory=bytearray)
    step: Callable[[int], None] | None = None
    closed: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    exchange: Exchange | None = None
    deadline: float = 0.0
    peer: tuple[str, str] = ("192.0.2.1", "4711")
    variables: tuple[tuple[str, str], ...] = (("SERVER_PORT", "443"),)

    def write(self, data: bytes) -> int:
        sent = min(len(data), self.capacity)
        self.taken += data[:sent]
        self.capacity -= sent
        return sent

    def wait_to_write(self, step: Callable[[int], None], progress: bool) -> None:
        self.step = step

    def wait_for_answer(self) -> None:
        pass

    def resume(self) -> None:
        self.done.set()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.exchange is not None
            self.exchange.client_gone()
            self.done.set()

    @property
    def body(self) -> bytes:
        return bytes(self.taken.partition(b"\r\n\r\n")[2])

    @property
    def status(self) -> int:
        return int(self.taken[9:12] or 0)


class Stage:
    """A backend with one node, whose connections the test accepts, and the lounge's thread."""

    def __init__(self, directory: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / "n"))
        self.listener.listen()
        self.listener.settimeout(SECONDS)
        self.lounge = Lounge(1)
        node = Node("n", socket.AF_UNIX, str(directory / "n"))
        self.backend = UwsgiBackend([node], POLICY, self.lounge)
        self.service = Service(LIMITS, self.lounge, self.backend, Room(1), export_cert=False, worker=1, pid=1)
        self.thread = threading.Thread(target=self.lounge.serve, daemon=True)
        self.thread.start()

    def ask(self, method: str = "GET", body: bytes | None = None, capacity: int = 1 << 40) -> Wire:
        """Begins with a request; the node's end of it is `accept`'s."""
        raw = f"{method} /x HTTP/1.1\r\nHost: h\r\n\r\n".encode()
        wire = Wire(self.service, capacity)
        wire.exchange = exchange = Exchange(cast(Connection, wire), parse_head(raw[: head_end(raw, 4096)], 100))
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

    def accept(self) -> socket.socket:
        sock = self.listener.accept()[0]
        sock.settimeout(SECONDS)
        return sock

    def end(self) -> None:
        self.lounge.closed = True
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        self.listener.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(lounge, "SWEEP_SECONDS", 0.01)  # and so often it looks for what a test has it do
    stage = Stage(tmp_path)
    yield stage
    stage.end()


def read_packet(sock: socket.socket) -> dict[bytes, bytes]:
    head = sock.recv(4, socket.MSG_WAITALL)
    packet = head + sock.recv(int.from_bytes(head[1:3], "little"), socket.MSG_WAITALL)
    modifier1, modifier2, pairs = decode(packet)
    assert (modifier1, modifier2) == (5, 7)
    assert pairs[-1] == (b"EXTRA", b"1")
    return dict(pairs)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize(
    ("method", "answer", "status", "body"),
    [
        pytest.param("GET", "200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", id="length"),
        pytest.param("GET", "200 OK\r\nContent-Length: 5\r\n\r\nhello and more", 200, b"hello", id="more than said"),
        pytest.param("GET", "200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", id="nothing"),
        pytest.param(
            "GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: t\r\n\r\n",
            200, b"hello", id="chunks",
        ),
        pytest.param("GET", "200 OK\r\n\r\nhello", 200, b"hello", id="until the end"),
        pytest.param("GET", "204 No Content\r\n\r\n", 204, b"", id="204"),
        pytest.param("GET", "304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, b"", id="304"),
        pytest.param("HEAD", "200 OK\r\nContent-Length: 7\r\n\r\n", 200, b"", id="HEAD"),
        pytest.param(
            "GET", "100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx", 200, b"x", id="1xx"
        ),
        pytest.param("GET", "404 Not Found\r\nConnection: close\r\n\r\nno", 404, b"no", id="connection"),
    ],
)  # fmt: skip
def test_answers_in_pieces(stage: Stage, method: str, answer: str, status: int, body: bytes, size: int) -> None:
    """However the answer is cut: the same status, the same body, and a connection that goes on."""
    wire = stage.ask(method)
    with stage.accept() as sock:
        assert read_packet(sock)[b"PATH_INFO"] == b"/x"
        raw = b"HTTP/1.1 " + answer.encode()
        try:
            for at in range(0, len(raw), size):
                sock.sendall(raw[at : at + size])
        except BrokenPipeError:
            assert body == b"hello"  # it had heard enough
    assert wire.done.wait(SECONDS)
    assert (wire.status, wire.closed) == (status, False)
    payload = wire.body
    if b"chunked" in wire.taken:
        payload = b"".join(line for line in payload.split(b"\r\n")[1::2])
    assert payload == body
    assert b"Connection: close" not in wire.taken


@pytest.mark.parametrize("cut", [1, 9, 20, 34, 45, 50])
def test_an_answer_that_ends_too_soon(stage: Stage, cut: int) -> None:
    """Within the head: 502. Within the body: the client's connection ends."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhello, hello, hello!"
    head = answer.index(b"\r\n\r\n") + 4
    wire = stage.ask()
    with stage.accept() as sock:
        read_packet(sock)
        sock.sendall(answer[:cut])
    assert wire.done.wait(SECONDS)
    assert (wire.status, wire.closed) == ((502, False) if cut < head else (200 if cut > head else 0, True))


def test_an_answer_while_the_body_is_sent(stage: Stage) -> None:
    """The node says no and reads no further: its answer is passed on, and the rest of the body is not waited for."""
    wire = stage.ask("POST", bytes(8 << 20))
    with stage.accept() as sock:
        read_packet(sock)
        sock.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        assert wire.done.wait(SECONDS)
    assert (wire.status, wire.body) == (413, b"no")


def test_a_body_of_any_size_is_sent_whole(stage: Stage) -> None:
    body = bytes(range(256)) * 20_000
    wire = stage.ask("POST", body)
    with stage.accept() as sock:
        read_packet(sock)
        got = bytearray()
        while len(got) < len(body):
            got += sock.recv(10_000)
        assert got == body
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert wire.done.wait(SECONDS)
    assert wire.status == 200


def test_a_client_that_is_far_behind(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is read no further, for longer than it may be silent; when the client has caught up, it goes on."""
    monkeypatch.setattr(uwsgi, "HIGH_WATER_BYTES", 100_000)
    size = 4 << 20
    wire = stage.ask(capacity=1000)
    with stage.accept() as sock:
        read_packet(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sock.settimeout(1.5)  # beyond what a node may be silent
        sent = 0
        with suppress(TimeoutError):
            while sent < size:
                sent += sock.send(bytes(min(65536, size - sent)))
        assert sent < 2 << 20
        assert wire.exchange is not None
        assert wire.exchange.waiting() < 2 << 20

        def catch_up() -> None:
            wire.capacity = 1 << 40
            step, wire.step = wire.step, None
            assert step is not None
            step(0)

        stage.do(catch_up)
        sock.settimeout(SECONDS)
        threading.Event().wait(0.1)  # sweeps come before the node's next byte
        while sent < size:
            sent += sock.send(bytes(min(65536, size - sent)))
            if wire.step is not None:
                stage.do(catch_up)
        assert wire.done.wait(SECONDS)
    assert not wire.closed
    assert len(wire.body) == size


def test_time_to_connect(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that does not even refuse: after http-connect-timeout it counts as dead."""
    backend = stage.backend
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        held = []
        for _ in range(4):  # a queue of which connections that would come later are just dropped (tcp(7))
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
            held.append(client)
        node = Node("deaf", socket.AF_INET, deaf.getsockname())
        monkeypatch.setattr(backend, "nodes", Nodes([node]))
        began = time.monotonic()
        wire = stage.ask()
        assert wire.done.wait(SECONDS)
        assert 0.9 < time.monotonic() - began < 3
        assert wire.status == 502
        assert node.dead_until > time.monotonic() + 20
        for client in held:
            client.close()


def fail(*arguments: object) -> None:
    raise RuntimeError("a defect")


def test_a_defect_costs_its_request_only(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an event and in a timer alike: the service thread goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(response, "parse_response_head", fail)
        wire = stage.ask()
        with stage.accept() as sock:
            read_packet(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            assert wire.done.wait(SECONDS)
        assert wire.closed
    stage.listener.listen(0)
    waiting = []
    for _ in range(2):  # of which one fills the queue
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect_ex(stage.listener.getsockname())
        waiting.append(client)
    with monkeypatch.context() as patch:
        wire = stage.ask()
        assert not wire.done.wait(0.2)
        patch.setattr(uwsgi.Upstream, "_connect_to", fail)
        assert wire.done.wait(SECONDS)
        assert wire.closed
    for client in waiting:
        client.close()
    stage.accept().close()
    wire = stage.ask()
    with stage.accept() as sock:
        read_packet(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    assert wire.done.wait(SECONDS)
    assert wire.status == 200
