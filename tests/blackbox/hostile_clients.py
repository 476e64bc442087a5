"""What hostile clients do, one function for each behaviour, to be driven by a crowd."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Generator
from functools import cache

from . import tls12, tls13
from .crowds import FOREVER, HERE, READ, SECONDS, WRITE, Client, Life, Wait, reset_at_end

READ_BYTES = 65536
REQUEST = b"GET / HTTP/1.1\r\nHost: server.lab\r\n\r\n"
ENDED = "the server has ended the connection"
DRIBBLE_SECONDS = 0.5  # between two bytes
READER_BYTES = 65536  # of an answer, before its reader stops
KEY_UPDATES = 5_000  # of each client
RENEGOTIATIONS = 8_000


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
        if not sock.recv(READ_BYTES):
            raise ConnectionError(ENDED)
    if how == "reset":
        reset_at_end(sock)
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
