"""The load client: some kinds of work over TLS to a server on 127.0.0.1, each bounded in time.

One process, one thread (`handshakes_of_many` has several). Each function keeps several requests in flight, so that a
server finds its next one waiting, and returns when every request that it began has been answered. Certificates are not
verified: the peers all show the same throw-away one, and the client's cost is not measured.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import selectors
import socket
import ssl
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HANDSHAKES_AT_ONCE = 16
KEPT_GROUPS = 2
KEPT_PER_GROUP = 16
TURNS_PER_CLOCK_READ = 10
IO_TIMEOUT_SECONDS = 10.0
READ_BYTES = 65536
BULK_READ_BYTES = 262144
UPLOAD_BYTES = 20_000_000
UPLOAD_WRITE_BYTES = 1 << 20

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class LoadError(Exception):
    """A server that did not answer as it should; the text says how."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens, and the certificate and key that a client shows there, if any."""

    port: int
    credential: tuple[Path, Path] | None = None


@dataclass(slots=True)
class Outcome:
    """What a stretch of load did: `done` operations (bytes for bulk), how many handshakes resumed, the ciphers seen."""

    done: int = 0
    resumed: int = 0
    ciphers: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)  # that each operation took, where it is one


def handshakes(target: Target, seconds: float, *, resume: bool, at_once: int = HANDSHAKES_AT_ONCE) -> Outcome:
    """New connections, each with a handshake and one GET that ends it; with `resume`, by the last one's ticket."""
    context, port = client_context(target), target.port
    session = _first_session(context, port) if resume else None
    outcome = Outcome()
    deadline = time.monotonic() + seconds
    # An event loop, so that no connection waits for another: a thread of gunicorn's waits for its client's close.
    with selectors.DefaultSelector() as selector:
        for _ in range(at_once):
            _begin(selector, context, port, session)
        while selector.get_map():
            ready = selector.select(IO_TIMEOUT_SECONDS)
            if not ready:
                raise LoadError(f"no answer within {IO_TIMEOUT_SECONDS:.0f} s")
            for key, _ in ready:
                conn, exchange, begun = key.data
                if next(exchange, "ended") is None:
                    continue
                selector.unregister(conn)
                outcome.done += 1
                outcome.seconds.append(time.perf_counter() - begun)
                outcome.resumed += bool(conn.session_reused)
                outcome.ciphers.add(_cipher(conn))
                session = conn.session if resume else None
                conn.close()
                if time.monotonic() < deadline:
                    _begin(selector, context, port, session)
    return outcome


class Kept:
    """Connections that stay open between calls, so that a measured stretch has no handshake in it.

    They form two groups: while the server answers one, the client reads or writes the other. With no event loop in
    it the client is quick enough to keep a server busy, although Python is the slower side.
    """

    def __init__(self, target: Target) -> None:
        context = client_context(target)
        self._get = _request("/", close=False)
        self._groups: list[list[ssl.SSLSocket]] = []
        for _ in range(KEPT_GROUPS):
            self._groups.append([])
            for _ in range(KEPT_PER_GROUP):
                conn = _connect(context, target.port, None)
                self._groups[-1].append(conn)
                _greet(conn, self._get)

    def gets(self, seconds: float) -> Outcome:
        """One GET on each connection, again and again."""
        outcome = Outcome(ciphers={_cipher(conn) for conn in self._connections()})
        sent = [self._send(group) for group in self._groups]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _ in range(TURNS_PER_CLOCK_READ):
                for number, group in enumerate(self._groups):
                    self._receive(group, sent[number], outcome)
                    sent[number] = self._send(group)
        for group, begun in zip(self._groups, sent, strict=True):
            self._receive(group, begun, outcome)
        return outcome

    def close(self) -> None:
        """Closes the connections."""
        for conn in self._connections():
            conn.close()

    def _connections(self) -> Iterator[ssl.SSLSocket]:
        for group in self._groups:
            yield from group

    def _send(self, group: list[ssl.SSLSocket]) -> float:
        begun = time.perf_counter()
        for conn in group:
            conn.sendall(self._get)
        return begun

    def _receive(self, group: list[ssl.SSLSocket], begun: float, outcome: Outcome) -> None:
        for conn in group:
            _read_response(conn)
            outcome.seconds.append(time.perf_counter() - begun)
        outcome.done += len(group)


def bulk(target: Target, path: str, seconds: float) -> Outcome:
    """Whole downloads of `path`, one after the other over one connection; counts body bytes."""
    with _connect(client_context(target), target.port, None) as conn:
        conn.do_handshake()
        outcome = Outcome(ciphers={_cipher(conn)})
        get = _request(path, close=False)
        buffer = bytearray(BULK_READ_BYTES)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            conn.sendall(get)
            size, left = _read_head(conn)
            while left > 0:
                count = conn.recv_into(buffer)
                if not count:
                    raise LoadError(f"the body ended {left} bytes early")
                left -= count
            outcome.done += size
    return outcome


def upload(target: Target, seconds: float) -> Outcome:
    """Whole uploads of UPLOAD_BYTES, one after the other over one connection; counts body bytes."""
    with _connect(client_context(target), target.port, None) as conn:
        conn.do_handshake()
        outcome = Outcome(ciphers={_cipher(conn)})
        block = bytes(UPLOAD_WRITE_BYTES)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            conn.sendall(_request("/", close=False, fields={"Content-Length": str(UPLOAD_BYTES)}, method="POST"))
            for sent in range(0, UPLOAD_BYTES, len(block)):
                conn.sendall(block[: UPLOAD_BYTES - sent])
            _read_response(conn)
            outcome.done += UPLOAD_BYTES
    return outcome


def idle(target: Target, count: int) -> list[ssl.SSLSocket]:
    """So many connections that have had one answer and are silent since. The caller closes them."""
    context = client_context(target)
    kept = []
    for _ in range(count):
        conn = _connect(context, target.port, None)
        kept.append(conn)
        _greet(conn, _request("/", close=False))
    return kept


def handshakes_of_many(target: Target, seconds: float, cpus: Collection[int]) -> int:
    """`handshakes` from one process on each of these CPUs; returns how many there were."""
    with ProcessPoolExecutor(len(cpus), multiprocessing.get_context("fork")) as pool:
        return sum(pool.map(_handshakes_on, [target] * len(cpus), [seconds] * len(cpus), cpus))


def _handshakes_on(target: Target, seconds: float, cpu: int) -> int:
    os.sched_setaffinity(0, {cpu})
    return handshakes(target, seconds, resume=False).done


def _greet(conn: ssl.SSLSocket, get: bytes) -> None:
    conn.do_handshake()
    conn.sendall(get)  # at once: a server with few threads may spend one on a silent connection
    _read_response(conn)


def client_context(target: Target) -> ssl.SSLContext:
    """TLS 1.3 only, the suite of openssl.cnf, and the ALPN name that curl sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if target.credential is not None:
        context.load_cert_chain(*target.credential)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _request(path: str, *, close: bool, fields: Mapping[str, str] | None = None, method: str = "GET") -> bytes:
    """The bytes of a request with the fields that curl sends, and some more."""
    end = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
    end += "Connection: close\r\n\r\n" if close else "\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n{end}".encode()


def _connect(context: ssl.SSLContext, port: int, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    """A TCP connection with its ClientHello sent and no answer awaited."""
    raw = socket.create_connection(("127.0.0.1", port), IO_TIMEOUT_SECONDS)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    conn = context.wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False, session=session)
    conn.setblocking(False)
    with suppress(ssl.SSLWantReadError):
        conn.do_handshake()
    conn.settimeout(IO_TIMEOUT_SECONDS)
    return conn


def _first_session(context: ssl.SSLContext, port: int) -> ssl.SSLSession | None:
    with _connect(context, port, None) as conn:
        conn.do_handshake()
        conn.sendall(_request("/", close=True))
        _read_response(conn)
        return conn.session  # TLS 1.3 tickets come after the handshake, with the response


def _begin(
    selector: selectors.BaseSelector, context: ssl.SSLContext, port: int, session: ssl.SSLSession | None
) -> None:
    begun = time.perf_counter()
    conn = _connect(context, port, session)
    conn.setblocking(False)
    selector.register(conn, selectors.EVENT_READ, (conn, _exchange(conn), begun))


def _exchange(conn: ssl.SSLSocket) -> Iterator[None]:
    """A handshake and one GET; yields where it is the server's turn, and ends when the server has closed."""
    while True:
        try:
            conn.do_handshake()
            break
        except ssl.SSLWantReadError:
            yield
    conn.sendall(_request("/", close=True))
    data = b""
    while True:
        try:
            more = conn.recv(READ_BYTES)
        except ssl.SSLWantReadError:
            yield
            continue
        except (ssl.SSLEOFError, ConnectionResetError):
            break  # an end without close_notify is the server's way, not a failure
        if not more:
            break
        data += more
    size, left = parse_head(data) or (0, -1)
    if left:
        raise LoadError(f"not a whole response of {size} bytes: {data[:80]!r}")


def parse_head(data: bytes) -> tuple[int, int] | None:
    """A response's Content-Length and how many of its bytes `data` still lacks; None while the head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(data, 0, end + 2)
    if length is None or not data.startswith(b"HTTP/1.1 200 "):
        raise LoadError(f"not a 200 with a Content-Length: {data[:80]!r}")
    size = int(length[1])
    return size, size - (len(data) - end - 4)


def _read_head(conn: ssl.SSLSocket) -> tuple[int, int]:
    data = b""
    while (parsed := parse_head(data)) is None:
        more = conn.recv(READ_BYTES)
        if not more:
            raise LoadError(f"closed within a response's head: {data[:80]!r}")
        data += more
    return parsed


def _read_response(conn: ssl.SSLSocket) -> None:
    left = _read_head(conn)[1]
    while left > 0:
        data = conn.recv(READ_BYTES)
        if not data:
            raise LoadError(f"the body ended {left} bytes early")
        left -= len(data)
    if left:
        raise LoadError(f"{-left} bytes more than the Content-Length said")


def _cipher(conn: ssl.SSLSocket) -> str:
    cipher = conn.cipher()
    return f"{cipher[1]} {cipher[0]}" if cipher else "none"
