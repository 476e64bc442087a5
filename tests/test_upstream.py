"""backends/upstream.py from within: answers cut into pieces that no real backend would send, and kept connections.

The node is a socket of the test, the lounge is real, the client's connection is not (stage.py). Over real TLS, with
real and with hostile nodes: blackbox/test_http_to.py.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from stage import SECONDS, Stage, read_packet, receive
from wire import Wire

from uwsgi_tls import exchange, lounge, response
from uwsgi_tls.backends import idle, upstream
from uwsgi_tls.backends.answer import AnswerBody
from uwsgi_tls.backends.http1 import HttpProtocol
from uwsgi_tls.backends.nodes import Node, Nodes, new_socket


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


def test_a_node_that_takes_a_body_slowly(stage: Stage) -> None:
    """For longer than it may be silent: each piece that it takes is a sign of life."""
    body = bytes(2 << 20)
    wire = stage.ask("POST", body)
    with stage.accept() as sock:
        read_packet(sock)
        left = len(body)
        while left:
            block = sock.recv(min(left, 300_000), socket.MSG_WAITALL)
            assert block, "given up"
            left -= len(block)
            threading.Event().wait(0.2)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert wire.done.wait(SECONDS)
    assert wire.status == 200


def test_a_node_that_dribbles_and_takes_nothing(stage: Stage) -> None:
    """What it says meanwhile, a byte now and then, gives it no more time."""
    began = time.monotonic()
    wire = stage.ask("POST", bytes(8 << 20))
    with stage.accept() as sock:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            with suppress(BrokenPipeError):
                sock.sendall(bytes((byte,)))
            if wire.done.wait(0.1) or time.monotonic() - began > SECONDS:
                break
    assert wire.status == 504
    assert time.monotonic() - began < 3


def test_chunks_are_read_once_a_turn(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block may hold thousands of them, and others have their turn after each."""
    order: list[str] = []
    feed, park = AnswerBody.feed, stage.lounge.park

    def noted_feed(body: AnswerBody, data: bytes) -> bytes:
        order.append("feed")
        return feed(body, data)

    def noted_park(fd: int, waiter: lounge.Waiter, events: int) -> None:
        order.append("park")
        park(fd, waiter, events)

    monkeypatch.setattr(upstream, "BLOCK_BYTES", 50)
    monkeypatch.setattr(AnswerBody, "feed", noted_feed)
    monkeypatch.setattr(stage.lounge, "park", noted_park)
    wire = stage.ask()
    with stage.accept() as sock:
        read_packet(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100 + b"0\r\n\r\n")
        assert wire.done.wait(SECONDS)
    assert wire.body.count(b"x") == 100
    assert order.count("feed") > 10
    assert ["feed"] * 3 not in [order[at : at + 3] for at in range(len(order))]


def test_the_head_goes_before_a_chunk_that_is_long_in_coming(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    monkeypatch.setattr(upstream, "BLOCK_BYTES", len(head))
    wire = stage.ask()
    with stage.accept() as sock:
        read_packet(sock)
        sock.sendall(head + b"2\r\n")
        stage.wait_until(lambda: wire.status == 200)
        sock.sendall(b"ok\r\n0\r\n\r\n")
        assert wire.done.wait(SECONDS)
    assert wire.body == b"2\r\nok\r\n0\r\n\r\n"


def test_many_that_wait_for_a_full_queue(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more there are, the more rarely each asks; none longer than http-connect-timeout."""
    asked = 0

    def counted(node: Node, kept: bool) -> object:
        nonlocal asked
        asked += 1
        return new_socket(node, kept)

    monkeypatch.setattr(upstream, "PROBE_SECONDS", 0.05)
    stage.listener.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(stage.listener.getsockname())
        monkeypatch.setattr(upstream, "new_socket", counted)
        began = time.monotonic()
        wires = [stage.ask() for _ in range(50)]
        for wire in wires:
            stage.wait_until(lambda wire=wire: wire.status == 503)  # type: ignore[misc]  # a default binds it now
        assert 0.9 < time.monotonic() - began < 2
    assert 50 < asked < 200  # each twenty times a second would be 1000
    assert stage.node.waiting == 0


def test_a_client_that_is_far_behind(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is read no further, for longer than it may be silent; when the client has caught up, it goes on."""
    monkeypatch.setattr(exchange, "HIGH_WATER_BYTES", 100_000)
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


def assert_serves(stage: Stage) -> None:
    """The next request is answered."""
    wire = stage.ask()
    with stage.accept() as sock:
        read_packet(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    assert wire.done.wait(SECONDS)
    assert wire.status == 200


def test_no_descriptor_left_for_a_node(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, with the node not held for dead, and the next request finds it."""

    def none_left(node: Node, kept: bool) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(upstream, "new_socket", none_left)
        wire = stage.ask("POST", b"body")
        stage.wait_until(lambda: wire.status == 503)
    assert stage.node.dead_until == 0.0
    assert_serves(stage)


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
    assert_serves(stage)


# --- kept connections -------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A node that speaks HTTP/1.1, and of which connections are kept."""
    monkeypatch.setattr(lounge, "SWEEP_SECONDS", 0.01)
    stage = Stage(tmp_path, HttpProtocol(idle_seconds=30))
    yield stage
    stage.end()


def read_request(sock: socket.socket) -> bytes:
    """One request with its body, as Content-Length says; the node's side."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = sock.recv(1)
        assert block, f"the connection ended: {data!r}"
        data += block
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", data)
    left = int(length[1]) if length else 0
    return data + receive(sock, left)


def answered(stage: Stage, sock: socket.socket, answer: bytes, method: str = "GET", body: bytes | None = None) -> Wire:
    """A request that is answered so on `sock`."""
    wire = stage.ask(method, body)
    assert read_request(sock).startswith(f"{method} /x HTTP/1.1\r\n".encode())
    sock.sendall(answer)
    assert wire.done.wait(SECONDS)
    return wire


def first_answer(stage: Stage, answer: bytes = OK, method: str = "GET", body: bytes | None = None) -> socket.socket:
    """A first request that is answered so, and the node's end of its connection."""
    wire = stage.ask(method, body)
    sock = stage.accept()
    read_request(sock)
    sock.sendall(answer)
    assert wire.done.wait(SECONDS)
    assert not wire.closed
    return sock


def idle_connections(stage: Stage) -> int:
    connections = stage.backend.idle
    assert connections is not None
    return len(connections._of[stage.node])


def assert_not_used_again(stage: Stage, old: socket.socket) -> None:
    """The next request comes on another connection, and gets its own answer."""
    wire = stage.ask()
    with stage.accept() as sock:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")
        assert wire.done.wait(SECONDS)
    assert (wire.status, wire.body) == (200, b"new")
    with suppress(ConnectionResetError):
        assert old.recv(100) == b""
    old.close()


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        pytest.param("GET", OK, b"ok", id="length"),
        pytest.param("GET", OK.replace(b"Content", b"Connection: keep-alive\r\nContent"), b"ok", id="keep-alive"),
        pytest.param(
            "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
            b"2\r\nok\r\n0\r\n\r\n", id="chunks",
        ),
        pytest.param("POST", OK, b"ok", id="POST without a body"),
        pytest.param("GET", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok", id="1xx"),
    ],
)  # fmt: skip
def test_a_connection_is_used_again(kept: Stage, method: str, answer: bytes, body: bytes) -> None:
    with first_answer(kept, answer, method) as sock:
        for _ in range(3):
            assert answered(kept, sock, answer).body == body
        assert idle_connections(kept) == 1


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        pytest.param("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", id="nothing"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", id="304"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", id="HEAD"),
        pytest.param("GET", OK.replace(b"Content", b"Connection: close\r\nContent"), id="close"),
        pytest.param("GET", OK.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param("GET", OK + b"!", id="more than its length"),
        pytest.param("GET", OK + OK, id="two answers"),
        pytest.param("GET", OK + b"HTTP/1.1 100 Continue\r\n\r\n", id="an interim answer after it"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", id="204 with a body"),
        pytest.param("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok", id="304 with a body"),
        pytest.param("HEAD", OK, id="HEAD with a body"),
        pytest.param("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + OK, id="after nothing"),
        pytest.param(
            "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + OK, id="after chunks"
        ),
    ],
)
def test_a_connection_that_is_not_used_again(kept: Stage, method: str, answer: bytes) -> None:
    """What a node has said beyond its answer is nobody's answer; nor is what it may say where no body is due."""
    old = first_answer(kept, answer, method)
    assert idle_connections(kept) == 0
    assert_not_used_again(kept, old)


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_after_a_request_with_a_body(kept: Stage, method: str) -> None:
    """A node that does not read it would take it for the next request, whose answer is then another client's."""
    old = first_answer(kept, OK, method, b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n")
    assert idle_connections(kept) == 0
    assert_not_used_again(kept, old)


def test_after_a_body_of_no_bytes(kept: Stage) -> None:
    with first_answer(kept, OK, "PUT", b"") as sock:
        answered(kept, sock, OK)


@pytest.mark.parametrize("left_over", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\0", b""])
@pytest.mark.parametrize("when", ["at rest", "at the last moment"])
def test_what_comes_on_an_idle_connection_reaches_nobody(kept: Stage, left_over: bytes, when: str) -> None:
    """A second answer or the end of the connection, be it in the very turn in which the next request is sent."""
    old = first_answer(kept)

    def speak() -> None:
        if left_over:
            old.sendall(left_over)
        else:
            old.shutdown(socket.SHUT_RDWR)

    if when == "at rest":
        speak()
        kept.wait_until(lambda: idle_connections(kept) == 0)
        assert_not_used_again(kept, old)
    else:
        assert idle_connections(kept) == 1
        kept.do(speak)  # in the turn of the lounge in which it is asked: no event has told of it
        assert_not_used_again(kept, old)


def test_an_early_answer(kept: Stage) -> None:
    """The node has answered before it had all of the body: what it will read next cannot be known."""
    old = first_answer_to_a_large_body(kept)
    assert idle_connections(kept) == 0
    assert_not_used_again(kept, old)


def first_answer_to_a_large_body(stage: Stage) -> socket.socket:
    wire = stage.ask("PUT", bytes(8 << 20))
    sock = stage.accept()
    sock.sendall(OK)
    assert wire.done.wait(SECONDS)
    assert wire.body == b"ok"
    drain(sock)
    return sock


def drain(sock: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while sock.recv(1 << 20):
            pass


def test_others_than_idempotent_requests_have_a_connection_of_their_own(kept: Stage) -> None:
    """A node may close a kept connection at any moment, and a POST could not be sent again (RFC 9110, 9.2.2)."""
    with first_answer(kept) as old:
        wire = kept.ask("POST")
        with kept.accept() as new:
            read_request(new)
            new.sendall(OK)
            assert wire.done.wait(SECONDS)
            assert idle_connections(kept) == 2
            answered(kept, new, OK)  # the one that was used last
            old.setblocking(False)
            with pytest.raises(BlockingIOError):
                old.recv(1)


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", b"b" * 200_000), ("DELETE", None)])
def test_a_kept_connection_that_turns_out_dead(kept: Stage, method: str, body: bytes | None, how: str) -> None:
    """The node had closed it as the request came: once more on a new one, whole."""
    old = first_answer(kept)
    wire = kept.ask(method, body)
    if how == "end":
        read_request(old)
    else:
        assert old.recv(1)  # what is left unread makes its end a reset (unix(7))
    old.close()
    with kept.accept() as new:
        request = read_request(new)
        assert request.startswith(f"{method} /x".encode())
        assert request.partition(b"\r\n\r\n")[2] == (body or b"")
        new.sendall(OK)
        assert wire.done.wait(SECONDS)
        assert (wire.status, wire.body) == (200, b"ok")
        if body is None:
            answered(kept, new, OK)


def test_once_more_is_once(kept: Stage) -> None:
    old = first_answer(kept)
    wire = kept.ask()
    read_request(old)
    old.close()
    with kept.accept() as new:
        read_request(new)
    assert wire.done.wait(SECONDS)
    assert (wire.status, wire.closed) == (502, False)


@pytest.mark.parametrize(
    "said", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"]
)
def test_not_once_more_after_the_first_byte_of_an_answer(kept: Stage, said: bytes) -> None:
    old = first_answer(kept)
    wire = kept.ask()
    read_request(old)
    old.sendall(said)
    old.close()
    assert wire.done.wait(SECONDS)
    assert wire.closed or wire.status == 502
    kept.listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        kept.accept()


def test_a_node_that_can_be_reached_no_more(kept: Stage) -> None:
    """The kept connection was dead, and there is nobody on a new one either."""
    old = first_answer(kept)
    wire = kept.ask()
    read_request(old)
    kept.listener.close()
    old.close()
    assert wire.done.wait(SECONDS)
    assert wire.status == 502
    assert kept.node.dead_until > time.monotonic()
    assert wire.service.tally.counters()["backend_errors"] == 1


def test_a_client_that_leaves_in_mid_answer(kept: Stage) -> None:
    """The rest of its answer is nobody's."""
    wire = kept.ask()
    old = kept.accept()
    read_request(old)
    old.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhello")
    kept.wait_until(lambda: wire.body == b"hello")
    kept.do(wire.close)
    assert wire.done.wait(SECONDS)
    assert idle_connections(kept) == 0
    assert_not_used_again(kept, old)


def test_idle_connections_are_few_and_do_not_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lounge, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(idle, "IDLE_PER_NODE", 3)
    stage = Stage(tmp_path, HttpProtocol(idle_seconds=0.3))
    wires = [stage.ask() for _ in range(5)]
    socks = [stage.accept() for _ in wires]
    for sock in socks:
        read_request(sock)
    for sock in socks:
        sock.sendall(OK)
    for wire in wires:
        assert wire.done.wait(SECONDS)
    assert idle_connections(stage) <= 3
    for sock in socks:
        assert sock.recv(1) == b""
        sock.close()
    assert idle_connections(stage) == 0
    stage.end()


def test_no_connection_is_kept_where_none_shall_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lounge, "SWEEP_SECONDS", 0.01)
    stage = Stage(tmp_path, HttpProtocol(idle_seconds=0))
    for _ in range(2):
        wire = stage.ask()
        with stage.accept() as sock:
            assert b"\r\nConnection: close\r\n" in read_request(sock)
            sock.sendall(OK)
            assert wire.done.wait(SECONDS)
            assert sock.recv(1) == b""
    stage.end()
