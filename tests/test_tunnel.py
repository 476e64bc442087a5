"""tunnel.py from within: what it holds, whom it waits for, and when it ends. The node is a socket, TLS is not there.

Over real TLS, with real WebSockets: blackbox/test_websockets.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from uwsgi_tls import tunnel as tunnel_module
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.gone import Ended, Gone
from uwsgi_tls.lounge import GONE, NEVER, READ, WRITE, Lounge
from uwsgi_tls.tally import Tally
from uwsgi_tls.tunnel import BLOCK_BYTES, HALF_CLOSED_SECONDS, Tunnel

HEAD = b"HTTP/1.1 101 Over\r\n\r\n"
SECONDS = 100.0


class Client:
    """The client's connection and its TLS: what it will say, how much it takes, and what became of it."""

    def __init__(self, lounge: Lounge) -> None:
        self.mine, self.other = socket.socketpair()
        self.fd = self.mine.fileno()
        self.armed = 0
        self.deadline = NEVER
        self.buffer = b""
        self.tunnel: Tunnel | None = None
        self.step: Any = None
        self.service = SimpleNamespace(lounge=lounge, ends=NEVER, complain=self.said_to_log, tally=Tally())
        self.channel = self
        self.want = READ
        self.says: list[bytes | Exception] = []
        self.capacity = 1 << 40
        self.got = b""
        self.log: list[str] = []
        self.told = self.finished = self.closed = False

    def said_to_log(self, text: str) -> None:
        self.log.append(text)

    def receive(self) -> bytes:
        self.want = READ
        if not self.says:
            return b""
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    def write(self, data: bytes) -> int:
        sent = min(len(data), self.capacity)
        self.got += data[:sent]
        self.capacity -= sent
        if sent < len(data):
            self.want = WRITE
        return sent

    def shutdown(self) -> None:
        self.told = True

    def finish(self) -> None:
        self.finished = True
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.tunnel is not None
            self.tunnel.close()

    # As the lounge's waiter.

    def ready(self, events: int) -> None:
        self.step(events)

    expired = crashed = ready


class Play:
    """A tunnel between a `Client` and the test's end of a node's socket."""

    def __init__(self, first: bytes = b"", early: bytes = b"", capacity: int = 1 << 40) -> None:
        self.lounge = Lounge(1)
        self.client = Client(self.lounge)
        self.client.buffer, self.client.capacity = early, capacity
        self.node, theirs = socket.socketpair()
        self.node.setblocking(False)
        theirs.setblocking(False)
        self.exchange: Any = SimpleNamespace(
            connection=self.client, sent=0, status=0, headers=0, head_bytes=0, on_gone=None, abort=self.abort
        )
        self.tunnel = Tunnel(cast(Exchange, self.exchange), theirs, 0, "n", SECONDS)
        self.tunnel.begin(HEAD, first)

    def abort(self, reason: str) -> None:
        self.client.log.append(reason)
        self.client.close()

    def node_says(self, data: bytes) -> None:
        self.node.sendall(data)
        self.tunnel.ready(READ)

    def client_says(self, *said: bytes | Exception) -> None:
        self.client.says += said
        self.client.step(READ)

    def end(self) -> None:
        self.client.close()
        for sock in (self.node, self.client.mine, self.client.other):
            sock.close()

    def heard(self) -> bytes:
        """What has come to the node."""
        try:
            return self.node.recv(1 << 20)
        except BlockingIOError:
            return b""

    def waits(self) -> tuple[int, int]:
        """What it waits for, of the client and of the node; 0: for nothing."""
        parked: list[object] = [*self.lounge.parked()]
        return (
            self.client.armed if self.client in parked else 0,
            self.tunnel.armed if self.tunnel in parked else 0,
        )


@pytest.fixture
def play() -> Iterator[Play]:
    play = Play()
    yield play
    play.end()


def test_both_ways(play: Play) -> None:
    assert (play.exchange.status, play.exchange.head_bytes, play.client.got) == (101, len(HEAD), HEAD)
    play.client_says(b"one", b"two")
    assert play.heard() == b"onetwo"
    assert play.client.service.tally.bytes_in == len(b"onetwo")
    play.node_says(b"three")
    assert play.client.got == HEAD + b"three"
    assert play.exchange.sent == len(b"three")
    assert play.waits() == (READ, READ)


def test_what_came_before_it() -> None:
    play = Play(first=b"first", early=b"early")
    assert play.client.got == HEAD + b"first"
    assert (play.heard(), play.client.buffer) == (b"early", b"")
    play.end()


def test_a_client_that_does_not_read(play: Play) -> None:
    """The node is read no further than one block, and no event of its own is waited for; the other way is open."""
    play.client.capacity = 10
    play.node_says(b"x" * 100)
    assert play.client.got == HEAD + b"x" * 10
    assert play.waits() == (READ | WRITE, 0)
    play.node.setblocking(True)
    play.node.sendall(bytes(50_000))
    play.client_says(b"still heard")
    assert play.heard() == b"still heard"
    assert len(play.tunnel._down) == 90
    play.client.capacity = 1 << 40
    play.client.step(WRITE)
    assert play.client.got == HEAD + b"x" * 100 + bytes(50_000)
    assert play.waits() == (READ, READ)


def test_a_client_that_must_be_read_before_it_is_written_to(play: Play) -> None:
    """In the middle of a KeyUpdate TLS writes nothing: then it is the client's next bytes that are waited for."""
    play.client.capacity = 0
    write = play.client.write

    def wants_to_read(data: bytes) -> int:
        sent = write(data)
        play.client.want = READ
        return sent

    play.client.write = wants_to_read  # type: ignore[method-assign]
    play.node_says(b"x")
    assert play.waits() == (READ, 0)


def test_a_node_that_does_not_read(play: Play) -> None:
    """Its client is read no further than one record."""
    said = 0
    while not play.tunnel._up:
        play.client_says(bytes(16384))
        said += 16384
        assert said < 64 << 20
    assert len(play.tunnel._up) <= BLOCK_BYTES
    assert play.waits() == (GONE, READ | WRITE)
    play.client.says = [b"unread"]
    play.tunnel.ready(READ)
    assert play.client.says == [b"unread"]
    got = 0
    while got < said:
        got += len(play.heard())
        play.tunnel.ready(WRITE)
    assert play.waits() == (READ, READ)


def test_a_client_that_leaves_while_its_node_does_not_read(play: Play) -> None:
    """Nobody reads what it has said last, and nobody is kept by it."""
    while not play.tunnel._up:
        play.client_says(bytes(16384))
    play.client.other.close()
    events = dict(play.lounge._epoll.poll(1))
    assert events[play.client.fd] & GONE
    play.client.step(events[play.client.fd])
    assert (play.client.closed, play.client.finished) == (True, False)


def test_last_words_come_with_the_end(play: Play) -> None:
    """Of a client on a UNIX socket one event tells of both (unix(7))."""
    play.client.says = [b"last", Ended("it has said so")]
    play.client.step(READ | GONE)
    assert play.heard() == b"last"
    assert not play.client.closed


def test_the_client_ends_its_direction(play: Play) -> None:
    play.client_says(b"last", Ended("it has said so"))
    assert play.heard() == b"last"
    assert play.heard() == b""
    assert play.waits() == (0, READ)
    play.node_says(b"answer")
    assert play.client.got == HEAD + b"answer"
    assert not play.client.told
    play.node.close()
    play.tunnel.ready(READ)
    assert (play.client.told, play.client.finished) == (True, True)


def test_the_node_ends_its_direction(play: Play) -> None:
    play.node.sendall(b"last")
    play.node.shutdown(socket.SHUT_WR)
    play.tunnel.ready(READ)
    assert play.client.got == HEAD + b"last"
    assert (play.client.told, play.client.closed) == (True, False)
    assert play.waits() == (READ, 0)
    play.client_says(b"more")
    assert play.heard() == b"more"
    play.client_says(Ended("it has said so"))
    assert play.client.finished


def test_close_notify_waits_for_what_comes_before_it(play: Play) -> None:
    play.client.capacity = 1
    play.node.sendall(b"last")
    play.node.shutdown(socket.SHUT_WR)
    play.tunnel.ready(READ)
    assert not play.client.told
    play.client.capacity = 100
    play.client.step(WRITE)
    assert play.client.got == HEAD + b"last"
    assert play.client.told


def test_a_client_that_breaks_its_connection(play: Play) -> None:
    play.client_says(Gone("a reset"))
    assert (play.client.closed, play.client.finished) == (True, False)
    assert play.node.recv(1) == b""


def test_a_node_that_breaks_its_connection(play: Play) -> None:
    """The client gets no close_notify."""
    play.client_says(b"unread")
    play.node.close()  # with bytes unread: a reset (unix(7))
    play.tunnel.ready(READ)
    assert (play.client.closed, play.client.finished, play.client.told) == (True, False, False)
    assert play.client.log == ["n broke the connection: Connection reset by peer"]


def test_silence(play: Play) -> None:
    lounge, tunnel, client = play.lounge, play.tunnel, play.client
    assert tunnel.deadline == client.deadline == lounge.now + SECONDS
    lounge.now += 50
    play.client_says(b"x")
    assert tunnel.deadline == client.deadline == lounge.now + SECONDS
    lounge.now += 50
    play.node_says(b"x")
    assert tunnel.deadline == client.deadline == lounge.now + SECONDS
    play.client_says(Ended("it has said so"))
    assert tunnel.deadline == client.deadline == lounge.now + HALF_CLOSED_SECONDS
    tunnel.expired()
    assert client.finished


def test_silence_of_a_client_that_does_not_read(play: Play) -> None:
    """There can be no polite end: what comes before it could not be sent."""
    play.client.capacity = 0
    play.node_says(b"x")
    play.tunnel.time_out()
    assert (play.client.closed, play.client.finished) == (True, False)


def test_a_worker_that_leaves(play: Play) -> None:
    service = play.client.service
    service.ends = play.lounge.now + 20
    play.tunnel.leave()
    assert play.tunnel.deadline == play.client.deadline == service.ends
    play.client_says(b"x")
    assert play.tunnel.deadline == play.client.deadline == service.ends


def test_a_flood_of_one_leaves_a_turn_to_the_others(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_module, "MOVES_PER_TURN", 3)
    play.client_says(*[b"x"] * 10)
    assert play.heard() == b"xxx"
    assert play.waits() == (READ, READ)
