"""backends/upstream.py from within: answers cut into pieces that no real backend would send, and kept connections.

The node is a socket of the test, the lounge is real, the client's connection is not (stage.py). Over real TLS, with
real and with hostile nodes: blackbox/test_http_to.py.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from stage import SECONDS, Stage, read_packet

from uwsgi_tls import lounge, response
from uwsgi_tls.backends import upstream
from uwsgi_tls.backends.nodes import Node, Nodes


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(lounge, "SWEEP_SECONDS", 0.01)  # and so often it looks for what a test has it do
    stage = Stage(tmp_path)
    yield stage
    stage.end()


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
    monkeypatch.setattr(upstream, "HIGH_WATER_BYTES", 100_000)
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
        patch.setattr(upstream.Upstream, "_connect_to", fail)
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
