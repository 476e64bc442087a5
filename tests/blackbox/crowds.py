"""Hostile clients by the thousand, in a process of their own, where one epoll loop drives them all.

What a client does is a generator. Its socket is connected and does not block, and it yields what it waits for: READ,
WRITE or a pause. With HERE it says that it is where it wants to be; what it does after that it goes on with until all
have to leave. Whoever meets an OSError is lost: the server did not put up with it.
"""

from __future__ import annotations

import heapq
import itertools
import multiprocessing
import resource
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from typing import NamedTuple, Self

from . import tls12, tls13

SECONDS = 20.0  # what takes longer hangs
ARRIVING_AT_ONCE = 100
READ_BYTES = 65536
REQUEST = b"GET / HTTP/1.1\r\nHost: server.lab\r\n\r\n"
ENDED = "the server has ended the connection"
DRIBBLE_SECONDS = 0.5
READER_BYTES = 65536  # of an answer, before its reader stops
KEY_UPDATES = 5_000  # of each client
RENEGOTIATIONS = 8_000


class Wait(NamedTuple):
    """For events of the socket (epoll), or else for a time."""

    events: int = 0
    seconds: float = 0.0


Life = Generator[Wait, None, None]
READ, WRITE, HERE = Wait(select.EPOLLIN), Wait(select.EPOLLOUT), Wait()
FOREVER = Wait(seconds=1e9)


@dataclass(slots=True)
class Client:
    sock: socket.socket
    here: bool = False


Behaviour = Callable[[Client], Life]


# --- what they do -----------------------------------------------------------------------------


def silent(client: Client) -> Life:
    """Says nothing at all."""
    yield HERE
    yield READ
    raise ConnectionError(ENDED)


def one_byte(client: Client) -> Life:
    """Begins to speak TLS, and says no more."""
    client.sock.sendall(_hello()[:1])
    yield from silent(client)


def dribbled_hello(client: Client) -> Life:
    message = _hello()
    client.sock.sendall(message[:100])
    yield HERE
    for at in range(100, len(message)):
        yield Wait(seconds=DRIBBLE_SECONDS)
        client.sock.sendall(message[at : at + 1])


def dribbled_head(client: Client) -> Life:
    yield from _dribble(client, b"GET / HTTP/1.1\r\nHost: server.lab\r\nX-Dribble: ", b"x")


def dribbled_body(client: Client) -> Life:
    yield from _dribble(client, b"POST / HTTP/1.1\r\nHost: server.lab\r\nContent-Length: 1000000\r\n\r\n", b"x")


def dribbled_chunks(client: Client) -> Life:
    head = b"POST / HTTP/1.1\r\nHost: server.lab\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from _dribble(client, head, b"1\r\nx\r\n")


def _dribble(client: Client, beginning: bytes, more: bytes) -> Life:
    tls = yield from _shake_hands(client)
    tls.sendall(beginning)
    yield HERE
    while True:
        yield Wait(seconds=DRIBBLE_SECONDS)
        tls.sendall(more)


def reader(path: bytes, client: Client) -> Life:
    """Stops reading soon after the beginning of its answer."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the system must not read on for it
    tls = yield from _shake_hands(client)
    tls.sendall(b"GET %b HTTP/1.1\r\nHost: server.lab\r\n\r\n" % path)
    left = READER_BYTES
    while left > 0:
        left -= len((yield from _receive(tls)))
    yield HERE
    yield FOREVER


def idle(client: Client) -> Life:
    """Keeps its connection after a request, as browsers do."""
    tls = yield from _shake_hands(client)
    tls.sendall(REQUEST)
    yield from _receive(tls)
    yield HERE
    yield from _receive(tls)


CUTS = tuple(itertools.product(("connected", "half a hello", "hello", "server hello"), ("end", "reset")))


def cut_off(point: str, how: str, client: Client) -> Life:
    """Ends TCP in the middle of its handshake, in form or by a reset."""
    sock, message = client.sock, _hello()
    if point == "half a hello":
        sock.sendall(message[: len(message) // 2])
    elif point != "connected":
        sock.sendall(message)
    if point == "server hello":
        yield READ
        sock.recv(READ_BYTES)
    if how == "reset":
        _reset_at_end(sock)
    sock.close()
    yield HERE


def key_updates(message: bytes, client: Client) -> Life:
    """KeyUpdates as fast as the server takes them, then a request: its answer proves that they have been taken."""
    with tls13.Client(client.sock) as tls:
        tls.handshake()
        flood = tls.key_updates(KEY_UPDATES, message) + tls.sealer.record(REQUEST, tls13.APPLICATION_DATA)
        yield HERE
        client.sock.setblocking(False)
        yield from _send(client.sock, flood)
        while True:
            try:
                answer = tls.receive()
                break
            except BlockingIOError:
                yield READ
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"not answered: {answer!r}")


def renegotiations(client: Client) -> Life:
    """Asks for renegotiation as fast as the server takes it, which refuses each time, with an alert."""
    sock = client.sock
    sock.settimeout(SECONDS)
    sealer = tls12.handshake(sock)
    flood = b"".join(sealer.record(tls12.CLIENT_HELLO, tls12.HANDSHAKE) for _ in range(RENEGOTIATIONS))
    yield HERE
    sock.setblocking(False)
    yield from _send(sock, flood)
    left = RENEGOTIATIONS * tls12.ALERT_BYTES
    while left > 0:
        yield READ
        data = sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError(ENDED)
        left -= len(data)


# --- what they share --------------------------------------------------------------------------


@cache
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # which saves them much time
    return context


@cache
def _hello() -> bytes:
    """A whole ClientHello."""
    outgoing = ssl.MemoryBIO()
    try:
        _context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="server.lab").do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody")


def _shake_hands(client: Client) -> Generator[Wait, None, ssl.SSLSocket]:
    client.sock = tls = _context().wrap_socket(client.sock, server_hostname="server.lab", do_handshake_on_connect=False)
    while True:
        try:
            tls.do_handshake()
            return tls
        except ssl.SSLWantReadError:
            yield READ


def _receive(tls: ssl.SSLSocket) -> Generator[Wait, None, bytes]:
    while True:
        try:
            data = tls.recv(READ_BYTES)
        except ssl.SSLWantReadError:
            yield READ
        else:
            if not data:
                raise ConnectionError(ENDED)
            return data


def _send(sock: socket.socket, data: bytes) -> Life:
    left = memoryview(data)
    while left:
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            yield WRITE


def _reset_at_end(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # socket(7)


# --- the process that they live in ------------------------------------------------------------


class _Visit:
    """All clients from their coming to their leaving."""

    def __init__(self, address: tuple[str, int], behaviours: Sequence[Behaviour]) -> None:
        self._address = address
        self._coming = deque(behaviours)
        self._arriving = 0
        self._lives: dict[int, tuple[Client, Life]] = {}
        self._epoll = select.epoll()
        self._pauses: list[tuple[float, int]] = []
        self.lost: list[str] = []

    @property
    def all_here(self) -> bool:
        return not self._coming and not self._arriving

    @property
    def all_done(self) -> bool:
        """Nobody has anything left to do."""
        return self.all_here and not self._lives

    def turn(self) -> None:
        """Lets some more come, and those go on who wait for it no longer."""
        while self._coming and self._arriving < ARRIVING_AT_ONCE:
            self._arriving += 1
            self._connect(self._coming.popleft())
        for fd, _ in self._epoll.poll(0.01):
            self._go_on(fd)
        while self._pauses and self._pauses[0][0] <= time.monotonic():
            self._go_on(heapq.heappop(self._pauses)[1])

    def _connect(self, behaviour: Behaviour) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self._address)
        client = Client(sock)
        self._lives[sock.fileno()] = client, _live(client, behaviour)
        self._epoll.register(sock.fileno(), WRITE.events | select.EPOLLONESHOT)

    def _go_on(self, fd: int) -> None:
        client, life = self._lives[fd]
        try:
            wait = next(life)
            if wait is HERE:
                self._arrived(client)
                wait = next(life)
        except (StopIteration, OSError) as end:
            if isinstance(end, OSError):
                self.lost.append(str(end))
            self._arrived(client)
            del self._lives[fd]
            client.sock.close()
        else:
            if wait.events:
                self._epoll.modify(fd, wait.events | select.EPOLLONESHOT)
            else:
                heapq.heappush(self._pauses, (time.monotonic() + wait.seconds, fd))

    def _arrived(self, client: Client) -> None:
        if not client.here:
            client.here = True
            self._arriving -= 1

    def end(self) -> None:
        """They leave, half of them with a reset."""
        for number, (client, _) in enumerate(self._lives.values()):
            if number % 2:
                _reset_at_end(client.sock)
            client.sock.close()
        self._epoll.close()


def _live(client: Client, behaviour: Behaviour) -> Life:
    error = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, "unable to connect")
    yield from behaviour(client)


def _serve(address: tuple[str, int], behaviours: Sequence[Behaviour], boss: Connection) -> None:
    """The process: each visit begins and ends with a word of the boss."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    while True:
        boss.recv()
        visit = _Visit(address, behaviours)
        while not visit.all_here:
            visit.turn()
        boss.send("here")
        while not boss.poll() and not visit.all_done:
            visit.turn()
        if visit.all_done:
            boss.send("done")
        boss.recv()
        visit.end()
        boss.send(visit.lost)


class Crowd:
    """The test's end of such a process. All of it raises AssertionError where the crowd takes too long."""

    def __init__(self, address: tuple[str, int], parts: Sequence[tuple[Behaviour, int]]) -> None:
        """`parts`: behaviours, each with the number of clients that behave so."""
        spawn = multiprocessing.get_context("spawn")
        self._crowd, theirs = spawn.Pipe()
        behaviours = [behaviour for behaviour, count in parts for _ in range(count)]
        self._process = spawn.Process(target=_serve, args=(address, behaviours, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()
        self._crowd.close()

    def _news(self, seconds: float = SECONDS) -> object:
        assert self._crowd.poll(seconds), f"nothing comes from the crowd for {seconds} s"
        return self._crowd.recv()

    def come(self) -> None:
        """Waits until all are where they want to be."""
        self._crowd.send("come")
        assert self._news() == "here"

    def wait_until_done(self) -> None:
        """Only for a crowd that comes to an end."""
        assert self._news() == "done"

    def leave(self) -> list[str]:
        """What the server has done to those who are lost."""
        self._crowd.send("leave")
        lost = self._news()
        assert isinstance(lost, list), "it has come to an end"
        return lost
