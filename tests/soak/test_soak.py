"""What the soak takes for growth, for a victim of a kill and for a failure. No server is soaked here."""

from __future__ import annotations

import mmap
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from blackbox.server import Process, processes

from . import gauge
from .connection import Connection, CutError, Request, WrongError
from .patrons import Contexts, Ledger, Patron, Place, Victims


def noisy(mb_an_hour: float, seconds: int, noise_mb: float, every: int = 5) -> list[tuple[float, float]]:
    chance = random.Random(1)
    return [
        (float(at), 50 * gauge.MB + gauge.MB * (mb_an_hour * at / gauge.HOUR_SECONDS + chance.gauss(0, noise_mb)))
        for at in range(0, seconds, every)
    ]


def test_a_line_through_points() -> None:
    line = gauge.fit([(10.0, 5.0), (11.0, 7.0), (12.0, 9.0), (14.0, 13.0)])
    assert (line.first, line.slope, line.seconds) == pytest.approx((5.0, 2.0, 4.0))
    assert line.growth == pytest.approx(8.0)
    assert line.error == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("mb_an_hour", "seconds", "grows"),
    [(0, 600, False), (-50, 600, False), (3, 3600, False), (20, 3600, True), (40, 600, True), (120, 120, True)],
)
def test_what_is_growth(mb_an_hour: float, seconds: int, grows: bool) -> None:
    """Noise of a megabyte is none, at any length of time."""
    assert gauge.fit(noisy(mb_an_hour, seconds, 1.0)).grows(2_000_000, 10_000_000) == grows


def test_zombies_until_they_are_buried() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert child in gauge.zombies({os.getpid()})
    assert child not in gauge.zombies({1})
    os.waitpid(child, 0)
    assert child not in gauge.zombies({os.getpid()})


def myself() -> Process:
    return next(process for process in processes() if process.pid == os.getpid())


def test_memory_is_that_which_is_used() -> None:
    before = gauge.memory(myself())
    with mmap.mmap(-1, 20 * gauge.MB, flags=mmap.MAP_PRIVATE) as block:  # malloc may have had it already
        block.write(bytes(len(block)))
        assert gauge.memory(myself()) - before == pytest.approx(len(block), rel=0.2)


def test_the_age_of_a_process() -> None:
    me = myself()
    age = gauge.age(me)
    time.sleep(0.05)
    assert 0 < age < gauge.age(me)


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_whose_connections_a_process_holds() -> None:
    with listening() as listener, listening() as other, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted, socket.create_connection(other.getsockname()):
            found = gauge.client_ports(os.getpid(), listener.getsockname())
            assert found == {client.getsockname()[1]}
        assert gauge.client_ports(os.getpid(), listener.getsockname()) == set()


def test_a_port_is_a_victim_only_of_the_time_it_was_that_connection() -> None:
    victims = Victims()
    with listening() as listener:
        old, bystander = Connection(listener.getsockname()), Connection(listener.getsockname())
        victims.add(old.address, {old.port}, time.monotonic())
        young = Connection(listener.getsockname())
        young.port = old.port
        assert [victims.had(each) for each in (old, bystander, young)] == [True, False, False]
        for each in (old, bystander, young):
            each.close()


@pytest.mark.parametrize("killed", [False, True])
def test_only_the_victims_of_a_killed_worker_ask_again(killed: bool) -> None:
    """The server hangs up without a word, again and again."""
    with listening() as listener:
        address = listener.getsockname()
        victims, ledger = Victims(), Ledger()
        asked = [0]

        def serve() -> None:
            for _ in range(5 if killed else 1):
                sock, peer = listener.accept()
                asked[0] += 1
                if killed:
                    victims.add(address, {peer[1]}, time.monotonic())
                sock.close()

        server = threading.Thread(target=serve)
        server.start()
        place = Place(address, ledger, victims, Contexts(), threading.Event())
        patron = Patron(place, "new connections", lambda patron: None, 0.0, 1)
        with pytest.raises(WrongError, match="killed in a row" if killed else "cut before an answer"):
            patron.ask(Request("/"))
        server.join()
        assert ledger.retried.total() == (5 if killed else 0)
        assert ledger.done.total() == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", CutError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", CutError),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", WrongError),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", WrongError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", WrongError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", CutError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", WrongError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", None),
    ],
)
def test_nothing_but_a_whole_answer_is_one(answer: bytes, error: type[Exception] | None) -> None:
    """As for TLS, but without it: an end is an end."""
    with listening() as listener:
        connection = Connection(listener.getsockname())
        sock, _ = listener.accept()
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        if error is None:
            assert connection.exchange(Request("/")) == b"hello"
        else:
            with pytest.raises(error) as caught:
                connection.exchange(Request("/"))
            if isinstance(caught.value, CutError):
                assert caught.value.begun == bool(answer)
        connection.close()
        sock.close()
