"""exchange.py: every byte of a response, in order, whatever the client takes of it and whoever gives up when.

A `Wire` (wire.py) stands in for the connection, and is drained by hand, or by another thread.
"""

from __future__ import annotations

import io
import os
import threading
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import ALL, LIMITS, Wire

from uwsgi_tls import exchange as module
from uwsgi_tls.access import STATUS_CLIENT_LEFT
from uwsgi_tls.access_log import AccessLog, AccessRecord
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.gone import Gone
from uwsgi_tls.lounge import NEVER, Lounge
from uwsgi_tls.response import BadResponse
from uwsgi_tls.service import Backend, Limits, Room, Service
from uwsgi_tls.spool import Disk, Spool

NO_BACKEND = cast(Backend, None)


class Log:
    """An access log that keeps its records."""

    def __init__(self) -> None:
        self.records: list[AccessRecord] = []

    def write(self, record: AccessRecord) -> None:
        self.records.append(record)


GET = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


def an_exchange(request: str = GET, capacity: int = ALL, limits: Limits = LIMITS) -> tuple[Exchange, Wire, Log]:
    log = Log()
    service = Service(limits, Lounge(1), NO_BACKEND, Room(1), export_cert=False, worker=3, pid=77)
    service.access_log = cast(AccessLog, log)
    wire = Wire(service, capacity)
    return wire.begin(request), wire, log


HTTP_1_0 = "GET /x HTTP/1.0\r\nHost: h\r\n\r\n"
HEAD = "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSE = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
LENGTH_5 = [("Content-Length", "5")]


@pytest.mark.parametrize(
    ("request_text", "status", "headers", "blocks", "body", "stays"),
    [
        pytest.param("", "200 OK", LENGTH_5, [b"hello"], b"hello", False, id="a request that could not be read"),
        pytest.param(None, "200 OK", LENGTH_5, [b"he", b"", b"llo"], b"hello", True, id="length"),
        pytest.param(None, "200 OK", [], [b"he", b"", b"llo"], b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", True, id="chunks"),
        pytest.param(None, "200 OK", [], [], b"0\r\n\r\n", True, id="no block"),
        pytest.param(HTTP_1_0, "200 OK", [], [b"he", b"llo"], b"hello", False, id="until the end"),
        pytest.param(HTTP_1_0, "200 OK", LENGTH_5, [b"hello"], b"hello", False, id="1.0 with a length"),
        pytest.param(HEAD, "200 OK", LENGTH_5, [b"hello"], b"", True, id="HEAD"),
        pytest.param(HEAD, "200 OK", [], [b"hello"], b"", True, id="HEAD of chunks"),
        pytest.param(None, "204 No Content", [], [b"hello"], b"", True, id="204"),
        pytest.param(None, "304 Not Modified", LENGTH_5, [b"hello"], b"", True, id="304"),
        pytest.param(CLOSE, "200 OK", LENGTH_5, [b"hello"], b"hello", False, id="close"),
        pytest.param(None, "200 OK", LENGTH_5, [b"hel", b"lo, world", b"!"], b"hello", False, id="too long"),
        pytest.param(None, "200 OK", [*LENGTH_5, ("Connection", "close")], [b"hello"], b"hello", False, id="told to"),
    ],
)
@pytest.mark.parametrize("capacity", [ALL, 0])
def test_framing(
    request_text: str | None,
    status: str,
    headers: list[tuple[str, str]],
    blocks: list[bytes],
    body: bytes,
    stays: bool,
    capacity: int,
) -> None:
    """The same bytes for a client that takes all at once and for one that takes nothing at first."""
    exchange, wire, log = an_exchange(GET if request_text is None else request_text, capacity)
    exchange.start(status, headers)
    assert not exchange.begun
    for block in blocks:
        exchange.write(block)
    assert exchange.finish() is (capacity == ALL)
    if capacity == 0:
        assert log.records == []
        wire.drain()
        assert wire.resumed == 1
    assert wire.body == body
    assert wire.head.startswith(f"HTTP/1.1 {status}\r\n")
    assert exchange.keep_alive is stays
    (record,) = log.records
    sent = b"" if not body or body.startswith(b"0") else b"hello"
    assert (record["status"], record["rsize"], record["wid"], record["pid"]) == (int(status[:3]), len(sent), 3, 77)
    assert record["hsize"] == len(wire.head) + 4


def test_head_and_first_block_go_together() -> None:
    """One TLS record and one segment, not two."""
    exchange, wire, _ = an_exchange()
    writes: list[int] = []
    take = wire.write
    wire.write = lambda data: writes.append(len(data)) or take(data)  # type: ignore[method-assign,func-returns-value]
    exchange.start("200 OK", LENGTH_5)
    exchange.write(b"hello")
    exchange.finish()
    assert len(writes) == 1


def test_flush() -> None:
    exchange, wire, _ = an_exchange()
    exchange.start("200 OK", [])
    exchange.flush()
    assert exchange.begun
    assert b"\r\n\r\n" in wire.taken
    exchange.flush()
    assert wire.taken.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"keepalive": 0}, id="no keep-alive"),
        pytest.param({}, id="draining"),
    ],
)
def test_the_server_may_want_to_close(limits: dict[str, int]) -> None:
    exchange, wire, _ = an_exchange(limits=Limits(1, 1, 1, limits.get("keepalive", 1), 1, 4096, 100, 0, 1000))
    wire.service.draining = not limits
    exchange.start("200 OK", LENGTH_5)
    exchange.write(b"hello")
    exchange.finish()
    assert "Connection: close" in wire.head
    assert exchange.keep_alive is False


def test_too_short() -> None:
    """The connection ends, so that nobody takes the next response for the rest of this one."""
    exchange, wire, log = an_exchange()
    exchange.start("200 OK", LENGTH_5)
    exchange.write(b"hel")
    assert exchange.finish() is False
    assert wire.closed
    assert [record["rsize"] for record in log.records] == [3]


# --- errors of ours ---------------------------------------------------------------------------


def test_fail_before_anything_was_sent() -> None:
    exchange, wire, log = an_exchange()
    exchange.start("200 OK", [("Secret", "x")])
    assert exchange.fail(502, "because") is True
    assert wire.head.startswith("HTTP/1.1 502 Bad Gateway\r\n")
    assert "Secret" not in wire.head
    assert wire.body == b"502 Bad Gateway\n"
    assert exchange.keep_alive
    assert [record["status"] for record in log.records] == [502]


@pytest.mark.parametrize("capacity", [ALL, 0])
def test_fail_after_the_head_was_sent(capacity: int) -> None:
    exchange, wire, log = an_exchange(capacity=capacity)
    exchange.start("200 OK", [])
    exchange.write(b"hello")
    assert exchange.fail(502, "because") is False
    if capacity == 0:
        # The lounge has the connection: only its sweep may end it, and does so next.
        assert not wire.closed
        assert wire.deadline == 0.0
        wire.drain()
    assert wire.closed
    assert b"502" not in wire.taken
    assert not wire.taken.endswith(b"0\r\n\r\n")
    assert [record["status"] for record in log.records] == [200]


def test_fail_when_all_is_over() -> None:
    exchange, wire, log = an_exchange()
    exchange.client_gone()
    assert exchange.fail(502, "because") is False
    assert not wire.taken
    assert len(log.records) == 1


@pytest.mark.parametrize(("status", "later"), [(503, True), (429, True), (502, False), (504, False), (400, False)])
def test_who_may_come_back_later_is_told_when(status: int, later: bool) -> None:
    exchange, wire, _ = an_exchange()
    exchange.fail(status, "because")
    assert ("\r\nRetry-After: 5" in wire.head) is later


@pytest.mark.parametrize(
    ("server", "headers", "field"),
    [
        ("", [], None),
        ("", [("Server", "app")], "app"),
        ("ours", [], "ours"),
        ("ours", [("Server", "app")], "app"),
    ],
)
def test_the_server_field(server: str, headers: list[tuple[str, str]], field: str | None) -> None:
    exchange, wire, _ = an_exchange()
    wire.service.server = server
    exchange.start("200 OK", [*headers, *LENGTH_5])
    exchange.write(b"hello")
    exchange.finish()
    fields = [line.partition(": ")[2] for line in wire.head.split("\r\n") if line.startswith("Server:")]
    assert fields == ([field] if field else [])
    assert "\r\nDate: " in wire.head


# --- clients that leave -----------------------------------------------------------------------


def test_a_client_that_leaves_before_the_answer() -> None:
    exchange, wire, log = an_exchange()
    told: list[bool] = []
    exchange.on_gone = lambda: told.append(True)
    exchange.client_gone()
    exchange.client_gone()
    assert told == [True]
    assert wire.closed
    assert [record["status"] for record in log.records] == [STATUS_CLIENT_LEFT]
    exchange.start("200 OK", [])
    with pytest.raises(Gone):
        exchange.write(b"too late")
    with pytest.raises(Gone):
        exchange.finish()


@pytest.mark.parametrize("finished", [False, True])
def test_a_client_that_leaves_while_its_response_waits(finished: bool) -> None:
    exchange, wire, log = an_exchange(capacity=10)
    exchange.start("200 OK", [])
    exchange.write(b"x" * 5000)
    assert exchange.waiting() > 4000
    if finished:
        assert exchange.finish() is False
    wire.left = True
    wire.drain()
    assert wire.closed
    assert wire.resumed == 0
    assert exchange.waiting() == 0
    assert len(log.records) == 1
    if not finished:
        with pytest.raises(Gone):
            exchange.write(b"more")


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, wire, _ = an_exchange(capacity=0)

    def full(self: object, data: bytes, anyway: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "append", full)
    exchange.start("200 OK", [])
    with pytest.raises(Gone):
        exchange.write(b"hello")
    exchange.abandon()
    assert wire.closed


@pytest.mark.parametrize("leaves", [False, True])
def test_a_producer_that_is_far_ahead_waits(monkeypatch: pytest.MonkeyPatch, leaves: bool) -> None:
    """There is an end to what is kept for a client: its reading lets the producer go on, its end ends it."""
    monkeypatch.setattr(module, "FULL_BYTES", 10_000)
    exchange, wire, log = an_exchange(capacity=0)
    written, gone = list[int](), threading.Event()

    def produce() -> None:
        exchange.start("200 OK", [("Content-Length", "100000")])
        try:
            for number in range(100):
                exchange.write(bytes([number]) * 1000)
                written.append(number)
            exchange.finish()
        except Gone:
            gone.set()

    def waits() -> bool:
        before = len(written)
        thread.join(0.05)
        return before == len(written) and thread.is_alive()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    while not waits():
        assert len(written) < 100, "it does not wait"
    assert 9 <= len(written) <= 12
    if leaves:
        wire.left = True
        wire.drain()
        assert gone.wait(5)
    else:
        wire.drain(3000)
        while not waits():
            assert len(written) < 100, "it does not wait again"
        assert 12 <= len(written) <= 15
        while thread.is_alive() or wire.step is not None:
            if wire.step is not None:
                wire.drain()
        assert wire.body == b"".join(bytes([number]) * 1000 for number in range(100))
    thread.join(5)
    assert not thread.is_alive()
    assert wire.closed is leaves
    assert len(log.records) == 1


class Waits:
    """The condition that a producer waits at; each wait lets `client` have `step` seconds of a clock of the test's."""

    def __init__(self, client: Callable[[], None], step: float) -> None:
        self.client, self.step = client, step
        self.now = self.total = 0.0

    def __call__(self, lock: threading.Lock) -> Waits:
        self.lock = lock
        return self

    def wait(self, timeout: float = NEVER) -> None:
        assert timeout < NEVER, "it may wait for ever"
        passed = min(self.step, timeout)
        self.now += passed
        self.total += passed
        self.lock.release()
        if passed == self.step:
            self.client()
        self.lock.acquire()

    def notify(self) -> None:
        """It does not sleep."""


def far_ahead(monkeypatch: pytest.MonkeyPatch, take: int, earning: int) -> tuple[int, Waits, Wire]:
    """A producer of 200 kB whose client takes so many bytes each second and has 10 s; how many blocks were written."""
    monkeypatch.setattr(module, "HIGH_WATER_BYTES", 9_000)
    monkeypatch.setattr(module, "FULL_BYTES", 10_000)
    monkeypatch.setattr(module, "EARNING_BYTES", earning)
    exchange, wire, _ = an_exchange(capacity=0, limits=Limits(1, 1, 1, 1, 10.0, 4096, 100, 0, memory_bytes=1000))

    def client() -> None:
        assert exchange in wire.service.held, "harakiri does not go by such waits"
        wire.drain(take)

    waits = Waits(client, 1.0)
    monkeypatch.setattr(module, "threading", SimpleNamespace(Lock=threading.Lock, Condition=waits))
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: waits.now))
    exchange.start("200 OK", [("Content-Length", "200000")])
    written = 0
    try:
        for _ in range(200):
            exchange.write(bytes(1000))
            waits.now += 0.5  # to make a block takes time as well, which is not the client's
            written += 1
        exchange.finish()
    except Gone:
        exchange.abandon()
    assert not wire.service.held, "however the wait has ended"
    return written, waits, wire


@pytest.mark.parametrize("take", [0, 1, 100, 900])
def test_a_producer_far_ahead_of_a_client_that_trickles(monkeypatch: pytest.MonkeyPatch, take: int) -> None:
    """All its waits together last as long as there is to write; a byte now and then does not hold the thread longer."""
    written, waits, wire = far_ahead(monkeypatch, take, earning=50_000)
    assert waits.total == 10.0
    assert written < 25
    assert wire.deadline == 0.0  # the sweep ends it next
    wire.drain()
    assert wire.closed


def test_a_producer_far_ahead_of_a_client_that_is_slow_but_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes EARNING_BYTES in that time may be waited for again, as often as it takes."""
    written, waits, wire = far_ahead(monkeypatch, take=1000, earning=8_000)
    assert waits.total > 100.0
    assert written == 200
    wire.drain()
    assert wire.body == bytes(200_000)
    assert not wire.closed


def test_only_progress_buys_time() -> None:
    """A client whose window never opens is woken for, too, and is not waited for any longer for that."""
    exchange, wire, _ = an_exchange(capacity=0)
    bought: list[bool] = []

    def park(step: Callable[[int], None], progress: bool, latest: float = NEVER) -> None:
        wire.step = step
        bought.append(progress)

    wire.wait_to_write = park  # type: ignore[method-assign]
    exchange.start("200 OK", [])
    exchange.write(b"x" * 1000)
    for capacity in (0, 1, 0):
        wire.drain(capacity)
    assert bought == [True, False, True, False]
    exchange.finish()
    wire.drain()


def test_time_of_a_client_that_is_behind() -> None:
    """It has the time of one piece, and what it has taken of what waited adds what that may take; once it has caught
    up, it begins anew."""
    exchange, wire, _ = an_exchange(capacity=0, limits=replace(LIMITS, write=10, write_rate=100))
    lounge = wire.service.lounge
    lounge.now = 5000.0
    exchange.start("200 OK", [("Content-Length", "90000")])
    exchange.write(b"x" * 50_000)
    assert wire.latest == 5010.0
    lounge.now = 5005.0
    wire.drain(500)
    assert wire.latest == 5010.0 + 500 / 100
    wire.drain(0)
    assert wire.latest == 5015.0
    wire.drain(4000)
    assert wire.latest == 5005.0 + 2 * 10, "who was fast may not rest for long"
    wire.drain(ALL)
    assert wire.step is None
    assert len(wire.body) == 50_000
    lounge.now, wire.capacity = 6000.0, 0
    exchange.write(b"x" * 30_000)
    assert wire.latest == 6010.0
    wire.drain(100)
    assert wire.latest == 6011.0
    exchange.abandon()
    wire.drain()


def test_without_a_rate_only_pieces_count() -> None:
    exchange, wire, _ = an_exchange(capacity=0)
    exchange.start("200 OK", [])
    exchange.write(b"x" * 5000)
    assert wire.latest == NEVER
    wire.drain()


# --- the disk ---------------------------------------------------------------------------------


def is_full(exchange: Exchange) -> bool:
    return exchange.full


def test_a_producer_that_can_stop_is_told_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks before each step and writes at most a step; not a byte is refused, whoever fills the disk meanwhile."""
    monkeypatch.setattr(module, "STEP_BYTES", 1100)
    for used in range(0, 6000, 500):
        exchange, wire, _ = an_exchange(capacity=0)
        disk = wire.service.disk = Disk(str(tmp_path), 6000)
        disk.take(used)
        exchange.on_dry = lambda: None
        exchange.start("200 OK", [])
        blocks = 0
        while not is_full(exchange):
            exchange.write(b"%4d" % blocks + b"x" * 996)
            blocks += 1
            assert blocks < 10
        assert disk.used <= 6000
        assert blocks >= 1
        others, free = disk.used, 6000 - disk.used
        disk.take(free)
        wire.drain(500)
        assert is_full(exchange)
        disk.give(free)
        assert disk.used == others
        wire.drain()
        assert disk.used == used
        assert not is_full(exchange), "it has caught up"
        exchange.write(b"end")
        assert exchange.finish() is True
        body = b"".join(b"3e8\r\n%4d%b\r\n" % (number, b"x" * 996) for number in range(blocks))
        assert wire.body == body + b"3\r\nend\r\n0\r\n\r\n"


def test_an_application_that_cannot_stop_is_cut(tmp_path: Path) -> None:
    """No thread waits for the disk. What it had is freed."""
    exchange, wire, log = an_exchange(capacity=0)
    disk = wire.service.disk = Disk(str(tmp_path), 6000)
    exchange.start("200 OK", [])
    for _ in range(5):
        exchange.write(b"x" * 1000)
    with pytest.raises(Gone):
        exchange.write(b"x" * 1000)
    assert 4000 < disk.used <= 6000
    exchange.abandon()
    wire.drain()
    assert wire.closed
    assert disk.used == 0
    assert len(log.records) == 1


def test_how_far_a_producer_may_be_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HIGH_WATER_BYTES", 5000)
    exchange, wire, _ = an_exchange(capacity=0)
    exchange.start("200 OK", [])
    assert not is_full(exchange)
    exchange.write(b"x" * 4000)
    assert not is_full(exchange)
    exchange.write(b"x" * 1000)
    assert is_full(exchange)
    wire.drain()
    assert not is_full(exchange)


def test_a_file_is_not_stored(tmp_path: Path) -> None:
    exchange, wire, _ = an_exchange(capacity=0)
    wire.service.disk = Disk(str(tmp_path), 1)
    exchange.start("200 OK", [("Content-Length", "250000")])
    assert exchange.send_file(Counted(b"hello" * 50_000), 250_000) is False
    assert not is_full(exchange)
    wire.drain()
    assert len(wire.body) == 250_000


# --- blocks -----------------------------------------------------------------------------------


class Lying(bytes):
    """Bytes that say that they are three."""

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("block", "true"),
    [
        pytest.param(Lying(b"x"), b"x", id="says more"),
        pytest.param(Lying(b"x" * 20), b"x" * 20, id="says less"),
        pytest.param(bytearray(b"hello"), b"hello", id="bytearray"),
        pytest.param(memoryview(array("I", [1, 2, 3])), array("I", [1, 2, 3]).tobytes(), id="items of four bytes"),
        pytest.param(memoryview(b"abcdef")[::2], b"ace", id="every second byte"),
    ],
)
@pytest.mark.parametrize("capacity", [ALL, 0])
def test_blocks_that_are_not_plain_bytes(block: bytes, true: bytes, capacity: int) -> None:
    """A chunk's length is that of its bytes, whatever the object says of itself."""
    exchange, wire, log = an_exchange(capacity=capacity)
    exchange.start("200 OK", [])
    exchange.write(block)
    exchange.write(b"end")
    exchange.finish()
    if capacity == 0:
        wire.drain()
    assert wire.body == b"%x\r\n%b\r\n3\r\nend\r\n0\r\n\r\n" % (memoryview(true).nbytes, true)
    assert [record["rsize"] for record in log.records] == [memoryview(true).nbytes + 3]


@pytest.mark.parametrize("block", ["text", "", 7, 0, None, [1, 2]])
@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")]])
def test_what_is_no_block(block: object, headers: list[tuple[str, str]]) -> None:
    exchange, wire, _ = an_exchange()
    exchange.start("200 OK", headers)
    with pytest.raises(TypeError):
        exchange.write(cast(bytes, block))
    assert not wire.taken


@pytest.mark.parametrize("headers", [[], [("Content-Length", "5000")]], ids=["chunks", "length"])
@pytest.mark.parametrize("capacity", [ALL, 10, 0])
def test_a_block_after_the_end(headers: list[tuple[str, str]], capacity: int) -> None:
    """An application may keep write(); what follows the end would be taken for the next response."""
    exchange, wire, log = an_exchange(capacity=capacity)
    exchange.start("200 OK", headers)
    exchange.write(b"x" * 5000)
    done = exchange.finish()
    for _ in range(2):
        for late in (b"HTTP/1.1 200 OK\r\n\r\n", b""):
            with pytest.raises(Gone):
                exchange.write(late)
        if not done:
            wire.drain()
            done = True
    chunks = b"1388\r\n%b\r\n0\r\n\r\n" % (b"x" * 5000)
    assert wire.body == (b"x" * 5000 if headers else chunks)
    assert exchange.keep_alive
    assert [record["rsize"] for record in log.records] == [5000]


# --- slow clients -----------------------------------------------------------------------------


@given(
    blocks=st.lists(st.binary(max_size=3000), max_size=12),
    takes=st.lists(st.integers(0, 4000), min_size=1, max_size=30),
    first=st.integers(0, 3000),
)
def test_every_byte_in_order(blocks: list[bytes], takes: list[int], first: int) -> None:
    """Whatever the client takes when, in memory or on disk, between two blocks or after the last."""
    exchange, wire, log = an_exchange(capacity=first)
    exchange.start("200 OK", [])
    appetite = iter(takes)
    for block in blocks:
        exchange.write(block)
        if wire.step is not None and (count := next(appetite, None)) is not None:
            wire.drain(count)
    done = exchange.finish()
    while not done and not wire.resumed:
        wire.drain(next(appetite, ALL))
    assert wire.body == b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks if block) + b"0\r\n\r\n"
    assert (len(log.records), exchange.waiting(), wire.resumed) == (1, 0, 0 if done else 1)


def test_two_threads() -> None:
    """A producer and the one that drains: the lock they share loses no byte, no end and no wake-up."""
    for turn in range(30):
        exchange, wire, log = an_exchange(capacity=turn * 7)
        parked, over = threading.Semaphore(0), threading.Event()

        def park(
            step: Callable[[int], None],
            progress: bool,
            latest: float = NEVER,
            wire: Wire = wire,
            parked: threading.Semaphore = parked,
        ) -> None:
            wire.step = step
            parked.release()

        wire.wait_to_write = park  # type: ignore[method-assign]

        def drain(wire: Wire = wire, parked: threading.Semaphore = parked, over: threading.Event = over) -> None:
            count = 0
            while not wire.resumed:
                if parked.acquire(timeout=0.05):
                    count += 1
                    wire.drain(1 + count * 97 % 5000)
                elif over.is_set():
                    return

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        exchange.start("200 OK", [("Content-Length", str(200 * 1009))])
        for number in range(200):
            exchange.write(bytes([number]) * 1009)
        done = exchange.finish()
        over.set()
        thread.join(20)
        assert not thread.is_alive()
        assert done or wire.resumed == 1
        assert wire.body == b"".join(bytes([number]) * 1009 for number in range(200))
        assert len(log.records) == 1


def test_a_producer_in_our_thread_is_told_when_the_client_has_caught_up() -> None:
    exchange, wire, _ = an_exchange(capacity=0)
    dry: list[int] = []
    exchange.on_dry = lambda: dry.append(exchange.waiting())
    exchange.start("200 OK", [])
    exchange.write(b"x" * 3000)
    wire.drain(1000)
    assert dry == []
    wire.drain()
    assert dry == [0]
    assert wire.waits_for_answer == 1
    exchange.write(b"y")
    assert exchange.finish() is True
    assert wire.body.endswith(b"1\r\ny\r\n0\r\n\r\n")


def test_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast a client reads: after so many bytes the thread looks at the rest of the lounge."""
    monkeypatch.setattr(module, "DRAIN_BYTES_PER_TURN", 70_000)
    exchange, wire, _ = an_exchange(capacity=0)
    exchange.start("200 OK", [])
    exchange.write(b"x" * 300_000)
    exchange.finish()
    turns = 0
    while not wire.resumed:
        wire.drain()
        turns += 1
    assert turns == 3  # of two fronts of 64 KiB each


# --- files ------------------------------------------------------------------------------------


class Counted(io.FileIO):
    closes = 0

    def __init__(self, content: bytes) -> None:
        descriptor = os.memfd_create("counted")
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        super().__init__(descriptor, "rb")

    def close(self) -> None:
        self.closes += not self.closed
        super().close()


@pytest.mark.parametrize("capacity", [ALL, 0, 3, 100])
def test_a_file(capacity: int) -> None:
    file = Counted(b"hello" * 50_000)
    exchange, wire, log = an_exchange(capacity=capacity)
    exchange.start("200 OK", [("Content-Length", "250000")])
    if not exchange.send_file(file, 250_000):
        while not wire.resumed:
            wire.drain(7000)
    assert wire.body == b"hello" * 50_000
    assert file.closes == 1
    assert [record["rsize"] for record in log.records] == [250_000]


def test_a_file_of_which_a_part_is_wanted() -> None:
    exchange, wire, _ = an_exchange()
    exchange.start("206 Partial Content", LENGTH_5)
    assert exchange.send_file(Counted(b"hello, world"), 12) is True
    assert wire.body == b"hello"


def test_a_file_for_head() -> None:
    file = Counted(b"hello")
    exchange, wire, _ = an_exchange(HEAD)
    exchange.start("200 OK", LENGTH_5)
    assert exchange.send_file(file, 5) is True
    assert (wire.body, file.closes) == (b"", 1)


def test_a_file_that_is_shorter_than_was_said() -> None:
    file = Counted(b"hel")
    exchange, wire, _ = an_exchange()
    exchange.start("200 OK", LENGTH_5)
    with pytest.raises(BadResponse):
        exchange.send_file(file, 3)
    assert (file.closes, bytes(wire.taken)) == (1, b"")
    assert exchange.fail(500, "because") is True


def test_a_file_that_shrinks_under_way(tmp_path: Path) -> None:
    """It is found out at its end: the connection is cut, since the length was promised."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200_000)
    exchange, wire, _ = an_exchange(capacity=1000)
    file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 the exchange closes it
    exchange.start("200 OK", [("Content-Length", "200000")])
    assert exchange.send_file(file, 200_000) is False
    with open(path, "r+b") as other:
        other.truncate(100_000)
    wire.drain()
    assert wire.closed
    assert file.closed
    assert len(wire.body) < 200_000


def test_a_client_that_leaves_in_a_file() -> None:
    file = Counted(b"x" * 200_000)
    exchange, wire, log = an_exchange(capacity=1000)
    exchange.start("200 OK", [("Content-Length", "200000")])
    assert exchange.send_file(file, 200_000) is False
    wire.left = True
    wire.drain()
    assert (wire.closed, file.closes, len(log.records)) == (True, 1, 1)


def test_a_client_that_has_left_before_its_file() -> None:
    file = Counted(b"x" * 200_000)
    exchange, wire, log = an_exchange()
    exchange.start("200 OK", [("Content-Length", "200000")])
    wire.left = True
    assert exchange.send_file(file, 200_000) is False
    assert (wire.closed, file.closes, len(log.records)) == (True, 1, 1)


def test_a_file_whose_close_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """It is application code: it costs a traceback in the log, and the connection ends all the same."""

    class Bad(Counted):
        def close(self) -> None:
            super().close()
            raise SystemExit("close failed")

    for left in (False, True):
        file = Bad(b"x" * 200_000)
        exchange, wire, log = an_exchange(capacity=1000)
        exchange.start("200 OK", [("Content-Length", "200000")])
        assert exchange.send_file(file, 200_000) is False
        wire.left = left
        wire.drain()
        assert (wire.closed, wire.resumed, file.closes, len(log.records)) == (left, not left, 1, 1)
        assert "SystemExit: close failed" in capfd.readouterr().err


def test_a_body_that_no_backend_took_is_closed() -> None:
    """Who has taken it closes it, and may still be reading it."""
    for taken in (False, True):
        exchange, _, _ = an_exchange()
        exchange.body = body = Spool(10)
        body.append(b"x" * 1000)
        exchange.taken = taken
        exchange.client_gone()
        assert body.size == (1000 if taken else 0)
        body.close()
