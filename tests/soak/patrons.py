"""Who uses the servers meanwhile: each patron is a thread that does one kind of thing to one server, again and again.

What a patron asks is idempotent. If its connection is cut because the worker that held it was killed, it asks again, as
browsers and proxies do (RFC 9110, 9.2.2), and that is counted; a connection that is cut for any other reason, and any
other answer than the right one, is a failure.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pki import CLIENT_DN, Issued, pki

from .application import BLOCK
from .connection import Connection, CutError, Request, Result, WrongError

ATTEMPTS = 5  # for one request: workers are killed seconds apart
KEPT_REQUESTS = 200  # on one connection, then another
TEXTS_MAX = 100  # failures whose text is kept


class Victims:
    """Which connections the workers held that were killed, and when they were."""

    def __init__(self) -> None:
        self._when: dict[tuple[tuple[str, int], int], float] = {}

    def add(self, address: tuple[str, int], ports: set[int], now: float) -> None:
        self._when |= {(address, port): now for port in ports}

    def had(self, connection: Connection) -> bool:
        """Whether its worker was killed; a port may have been another connection's before."""
        return self._when.get((connection.address, connection.port), 0.0) > connection.opened


@dataclass(slots=True)
class Ledger:
    """What came of it all, by kind of patron."""

    done: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)  # the worker was killed, and no byte of an answer had come
    cut: Counter[str] = field(default_factory=Counter)  # the worker was killed in the middle of an answer
    failed: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, column: Counter[str], kind: str) -> None:
        with self.lock:
            column[kind] += 1

    def fail(self, kind: str, text: str) -> None:
        with self.lock:
            self.failed[kind] += 1
            if len(self.texts) < TEXTS_MAX:
                self.texts.append(f"{kind}: {text}")
                # At once, with the time, for whoever looks into a log for what was then.
                print(f"{time.strftime('%T')} {self.texts[-1]}", file=sys.stderr, flush=True)


class Contexts:
    """Those of all patrons, by what they show; made once, as they are no small things."""

    def __init__(self) -> None:
        self.nobody = self._make()
        self.client = self._make(pki().client)
        self.foreign = self._make(pki().client_other_ca)  # a certificate that the servers do not know
        self.untrusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # knows no CA

    def _make(self, certificate: Issued | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki().ca.crt)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Python sets it; it takes any end for a good one
        if certificate is not None:
            context.load_cert_chain(certificate.crt, certificate.key_file)
        return context


class Patron(threading.Thread):
    """Does `act` until `end` is set, with `pause` seconds between."""

    def __init__(self, place: Place, kind: str, act: Callable[[Patron], None], pause: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.place = place
        self.kind = kind
        self.random = random.Random(seed)
        self.session: ssl.SSLSession | None = None
        self.context = place.contexts.nobody
        self._act = act
        self._pause = pause
        self._kept: Connection | None = None

    def run(self) -> None:
        place = self.place
        while not place.end.is_set():
            try:
                self._act(self)
            except WrongError as error:
                self._drop()
                place.ledger.fail(self.kind, f"{place.address[0]}: {error}")
            except Exception as error:  # a defect of the patron's own, who would be missed by nobody
                place.ledger.fail(self.kind, f"gone: {type(error).__name__}: {error}")
                raise
            place.end.wait(self._pause)
        self._drop()

    def ask(self, request: Request, *, keep: bool = False, receive_buffer: int = 0) -> bytes:
        """The body of the right answer, however often its worker is killed. Raises WrongError."""

        def exchange(connection: Connection) -> bytes:
            body = connection.exchange(request)
            if self.kind == "resumed" and not connection.resumed:
                self.session = connection.session  # seldom, as each look at it costs 7 KB for good (CPython 3.11)
            if keep and connection.stays and connection.asked < KEPT_REQUESTS:
                self._kept = connection
            return body

        for _ in range(ATTEMPTS):
            if (body := self.attempt(exchange, receive_buffer)) is not None:
                return body
        raise WrongError(f"{ATTEMPTS} workers killed in a row")

    def attempt(self, act: Callable[[Connection], Result], receive_buffer: int = 0) -> Result | None:
        """What `act` makes of a connection, kept or new; None: its worker was killed. Raises WrongError."""
        ledger, connection = self.place.ledger, self._kept
        self._kept = None
        fresh = connection is None
        if connection is None:
            connection = Connection(self.place.address, receive_buffer)
        try:
            if fresh:
                ledger.count(ledger.connections, self.kind)
                connection.shake_hands(self.context, self.session)
                if connection.resumed:
                    ledger.count(ledger.resumed, self.kind)
            result = act(connection)
            ledger.count(ledger.done, self.kind)
            return result
        except CutError as error:
            if not self.place.victims.had(connection):
                what = "in its answer" if error.begun else "before an answer"
                raise WrongError(f"request {connection.asked} of a connection cut {what}: {error}") from None
            ledger.count(ledger.cut if error.begun else ledger.retried, self.kind)
            return None
        finally:
            if self._kept is not connection:
                connection.close()

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


@dataclass(frozen=True, slots=True)
class Place:
    """One server, as its patrons know it."""

    address: tuple[str, int]
    ledger: Ledger
    victims: Victims
    contexts: Contexts
    end: threading.Event


# --- what they do -----------------------------------------------------------------------------


def _expect(body: bytes, expected: bytes) -> None:
    if body != expected:
        raise WrongError(f"not the right body: {len(body)} bytes, {body[:60]!r}")


def small(patron: Patron) -> None:
    _expect(patron.ask(Request("/")), b"hello")


def kept(patron: Patron) -> None:
    if patron.random.random() < 0.02:
        count = patron.random.randrange(1, 40)
        _expect(patron.ask(Request(f"/blocks?{count}"), keep=True), BLOCK * count)
    else:
        _expect(patron.ask(Request("/"), keep=True), b"hello")


def upload(patron: Patron) -> None:
    body = patron.random.randbytes(patron.random.choice((1, 20_000, 300_000, 2_000_000)))
    _expect(patron.ask(Request("/sum", "PUT", body), keep=True), hashlib.sha256(body).hexdigest().encode())


def slow_upload(patron: Patron) -> None:
    body = patron.random.randbytes(40_000)
    answer = patron.ask(Request("/sum", "PUT", body, sent_bytes=2000, pause=0.15))
    _expect(answer, hashlib.sha256(body).hexdigest().encode())


def slow_download(patron: Patron) -> None:
    answer = patron.ask(Request("/blocks?160", read_bytes=16384, pause=0.02), receive_buffer=16384)
    _expect(answer, BLOCK * 160)


def long_poll(patron: Patron) -> None:
    _expect(patron.ask(Request("/wait?1.5"), keep=True), b"waited")


def certified(patron: Patron) -> None:
    with_one = patron.random.random() < 0.5
    patron.context = patron.place.contexts.client if with_one else patron.place.contexts.nobody
    _expect(patron.ask(Request("/who")), CLIENT_DN.encode() if with_one else b"")


def websocket(patron: Patron) -> None:
    """An opening handshake, and then an echo for some seconds (RFC 6455)."""

    def converse(connection: Connection) -> None:
        connection.send(
            b"GET /ws HTTP/1.1\r\nHost: server.lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        connection.read_head(101)
        for _ in range(30):
            text = patron.random.randbytes(100)
            mask = os.urandom(4)
            coded = bytes(byte ^ key for byte, key in zip(text, itertools.cycle(mask), strict=False))
            connection.send(struct.pack("!BB", 0x82, 0x80 | len(text)) + mask + coded)
            _expect(connection.take(2 + len(text)), struct.pack("!BB", 0x82, len(text)) + text)
            patron.place.end.wait(0.1)

    patron.attempt(converse)


def broken(patron: Patron) -> None:
    """Handshakes that fail, and clients that leave; what else they may get than a good answer is not looked at."""
    random, place = patron.random, patron.place
    way = random.choice(("garbage", "http", "hello", "reset", "shy", "untrusting", "foreign"))
    connection = Connection(place.address)
    try:
        with suppress(CutError):
            if way == "garbage":
                connection.send(random.randbytes(200))
            elif way == "http":
                _plain_http(patron, connection)
            elif way in ("hello", "reset"):
                connection.send(_client_hello(place.contexts.nobody)[: random.randrange(20, 300)])
            elif way == "shy":
                place.end.wait(1.0)
            elif way == "untrusting":
                connection.shake_hands(place.contexts.untrusting)
                raise WrongError("a certificate that nobody has signed was believed")
            else:
                connection.shake_hands(place.contexts.foreign)
                connection.exchange(Request("/who"))
                raise WrongError("a client certificate of a foreign CA was taken")
        place.ledger.count(place.ledger.done, patron.kind)
        if way in ("reset", "garbage"):
            connection.reset()
    finally:
        connection.close()


def _plain_http(patron: Patron, connection: Connection) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: server.lab\r\n\r\n")
    try:
        connection.read_head(400)
    except CutError as error:
        if not patron.place.victims.had(connection):
            raise WrongError(f"no 400 for plain HTTP: {error}") from None


def _client_hello(context: ssl.SSLContext) -> bytes:
    hello = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="server.lab")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return hello.read()


# Kind, what it does, and seconds of pause: so much that two processors keep up.
KINDS: tuple[tuple[str, Callable[[Patron], None], float], ...] = (
    ("new connections", small, 0.10),
    ("resumed", small, 0.06),
    ("kept alive", kept, 0.01),
    ("uploads", upload, 0.15),
    ("slow uploads", slow_upload, 0.1),
    ("slow downloads", slow_download, 0.1),
    ("long polls", long_poll, 0.1),
    ("certificates", certified, 0.15),
    ("broken handshakes", broken, 0.1),
)
TUNNELS: tuple[tuple[str, Callable[[Patron], None], float], ...] = (("websockets", websocket, 0.1),)
