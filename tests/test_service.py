"""service.py: room for applications, complaints in measure, the date, and requests that had to wait for room."""

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from OpenSSL import SSL

from uwsgi_tls import service as module
from uwsgi_tls.channel import Channel
from uwsgi_tls.connection import Connection
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.gone import Gone
from uwsgi_tls.http import parse_head
from uwsgi_tls.lounge import WRITE, Lounge
from uwsgi_tls.service import COMPLAINTS_PER_SECOND, Complaints, Endpoint, Limits, Room, Service

LIMITS = Limits(1, 1, 1, 1, 1, 4096, 100, 0, 1000)


class Waiting:
    """What an exchange and its connection are to the room: what was done to them."""

    def __init__(self, name: str, over: bool = False) -> None:
        self.name = name
        self.status = 0
        self.taken = self.over = False
        self.done: list[str] = []
        self.connection = SimpleNamespace(
            wait_for_room=lambda: None,
            claim=lambda: not over,
            is_parked=lambda: False,
            resume=lambda: self.done.append("resumed"),
            close=lambda: self.done.append("closed"),
            crashed=lambda: self.done.append("crashed"),
        )


def exchange(name: str, over: bool = False) -> Exchange:
    return cast(Exchange, Waiting(name, over))


class Backend:
    blocking = True

    def __init__(self, handle: Callable[[Exchange], bool]) -> None:
        self.handle = handle


def a_service(handle: Callable[[Exchange], bool], *, threads: int = 1, blocking: bool = True) -> Service:
    backend = Backend(handle)
    backend.blocking = blocking
    return Service(LIMITS, Lounge(1), backend, Room(threads), export_cert=False, worker=1, pid=1)


def busy_service() -> tuple[Service, list[str]]:
    """One whose only thread is taken, and the names of those whom it has served since, at once."""
    served: list[str] = []

    def handle(exchange: Exchange) -> bool:
        served.append(cast(Waiting, exchange).name)
        return True

    service = a_service(handle)
    assert service.room.enter()
    return service, served


# --- room -------------------------------------------------------------------------------------


def test_room_is_for_so_many_and_the_rest_queues_in_order() -> None:
    room, c, d = Room(2), exchange("c"), exchange("d")
    assert [room.enter() for _ in range(3)] == [True, True, False]
    for each in (c, d):
        room.wait(each)
    assert room.next() is None
    room.leave()
    assert room.next() is c
    assert room.next() is None
    room.leave()
    room.leave()
    assert room.next() is d
    assert room.next() is None
    assert room.enter() is True
    assert room.enter() is False


def test_nobody_enters_before_those_who_wait() -> None:
    """A client that sends one request after the other would keep the place that it has just left."""
    room, waits = Room(1), exchange("waits")
    assert room.enter()
    room.wait(waits)
    room.leave()
    assert room.enter() is False
    assert room.next() is waits
    room.leave()
    assert room.enter() is True


def test_clients_that_pipeline_have_their_turns() -> None:
    """Who leaves the room and asks again stands behind those who have come meanwhile, and is not forgotten."""
    service, served = busy_service()
    requests = {"a": 3, "b": 2, "c": 1}

    def ask(name: str) -> None:
        while requests[name]:
            requests[name] -= 1
            each = exchange(name)
            cast(Waiting, each).connection.resume = lambda: ask(name)
            if not service.dispatch(each):
                return

    for name in requests:
        ask(name)
    service.room.leave()
    service.run_queued()
    assert served == ["a", "b", "c", "a", "b", "a"]
    assert service.room.enter()


def test_who_is_held_for_a_moment_keeps_its_turn() -> None:
    """The sweep, or who looks for idle guests, takes a connection from the lounge to look at it again."""
    service, served = busy_service()
    held, behind = exchange("held", over=True), exchange("behind")
    for each in (held, behind):
        service.dispatch(each)
    service.room.leave()
    service.run_queued()
    assert served == []
    cast(Waiting, held).connection.claim = lambda: True
    service.run_queued()
    assert served == ["held", "behind"]


def test_who_was_held_while_nobody_else_saw_it_in_the_queue_is_not_left_there() -> None:
    """Another thread parked it and looked at the queue between our claim, which failed, and its return to the queue."""
    service, served = busy_service()
    held = exchange("held")
    claims = iter((False, True))
    cast(Waiting, held).connection.claim = lambda: next(claims)
    cast(Waiting, held).connection.is_parked = lambda: True
    service.dispatch(held)
    service.room.leave()
    service.run_queued()
    assert served == ["held"]


def test_a_connection_that_waits_for_room_is_parked_until_it_is_claimed() -> None:
    service = a_service(lambda exchange: True)
    ours, peer = socket.socketpair()
    with ours, peer:
        endpoint = Endpoint(SSL.Context(SSL.TLS_METHOD), "443", "test")
        connection = Connection(service, endpoint, ours, ("192.0.2.1", "4711"))
        assert not connection.is_parked()
        connection.wait_for_room()
        assert connection.is_parked()
        assert connection.claim()
        assert not connection.is_parked()
        connection.close()


def test_a_backend_that_does_not_block_needs_no_room() -> None:
    service = a_service(lambda exchange: True, threads=0, blocking=False)
    assert service.dispatch(exchange("a")) is True


def test_room_is_left_whatever_the_application_did() -> None:
    def fail(exchange: Exchange) -> bool:
        raise Gone("the client has left")

    service = a_service(fail)
    for _ in range(3):
        with pytest.raises(Gone):
            service.dispatch(exchange("a"))


def test_those_who_waited_are_served_between_turns() -> None:
    """However the application ends: one thread serves them all, and goes on."""
    outcomes: dict[str, object] = {"done": True, "later": False, "left": Gone("left"), "defect": ValueError("no")}
    served: list[str] = []

    def handle(exchange: Exchange) -> bool:
        name = cast(Waiting, exchange).name
        served.append(name)
        outcome = outcomes[name]
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    service = a_service(handle)
    assert service.room.enter()
    waiting = [exchange(name) for name in outcomes]
    assert [service.dispatch(each) for each in waiting] == [False] * 4
    service.run_queued()
    assert served == []
    service.room.leave()
    service.run_queued()
    assert served == list(outcomes)
    assert [cast(Waiting, each).done for each in waiting] == [["resumed"], [], ["closed"], ["crashed"]]


def test_who_has_left_meanwhile_costs_no_call() -> None:
    """Nor the place: who waits behind is served."""
    service, served = busy_service()
    left, stays = exchange("left", over=True), exchange("stays")
    for each in (left, stays):
        service.dispatch(each)
    left.over = True  # after it was queued, and nobody has taken it out yet
    service.room.leave()
    service.run_queued()
    assert served == ["stays"]
    assert (cast(Waiting, left).done, left.taken) == ([], False)


def test_who_does_not_wait_any_longer_is_forgotten() -> None:
    """However long the threads stay busy: the queue holds nobody who has left, neither before he stood in it."""
    service = a_service(lambda exchange: True)
    assert service.room.enter()
    stays, leaves, has_left = exchange("stays"), exchange("leaves"), exchange("has left")
    has_left.over = True
    for each in (leaves, stays, has_left):
        service.dispatch(each)
    service.room.forget(leaves)
    service.room.forget(leaves)
    assert list(service.room._queue) == [stays]
    service.room.leave()
    assert service.room.next() is stays


def test_who_waits_can_be_found_before_it_is_queued() -> None:
    """Who takes it from the queue must be able to claim it, and its client's end must reach it meanwhile."""
    service = a_service(lambda exchange: True)
    assert service.room.enter()
    steps: list[str] = []
    waiting = exchange("waiting")

    def park() -> None:
        assert not service.room._queue
        steps.append("parked")

    cast(Waiting, waiting).connection.wait_for_room = park
    assert service.dispatch(waiting) is False
    assert steps == ["parked"]
    service.room.leave()
    assert service.room.next() is waiting


@pytest.mark.parametrize("blocking", [False, True])
def test_who_closes_the_body_is_known_before_the_backend_begins(blocking: bool) -> None:
    """Its client may leave at any moment of that."""
    seen: list[bool] = []

    def handle(exchange: Exchange) -> bool:
        seen.append(exchange.taken)
        return True

    a_service(handle, blocking=blocking).dispatch(exchange("a"))
    assert seen == [True]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RuntimeError])
def test_not_even_an_exit_keeps_those_behind_it_waiting(error: type[BaseException]) -> None:
    def handle(exchange: Exchange) -> bool:
        if cast(Waiting, exchange).name == "exits":
            raise error
        return True

    service = a_service(handle)
    assert service.room.enter()
    waiting = [exchange("exits"), exchange("behind")]
    for each in waiting:
        service.dispatch(each)
    service.room.leave()
    service.run_queued()
    assert [cast(Waiting, each).done for each in waiting] == [["crashed"], ["resumed"]]
    assert service.room.enter()


class FullChannel:
    """TLS over a socket that takes nothing."""

    want = WRITE

    def send(self, data: bytes) -> int:
        return 0


def test_who_is_being_told_that_there_was_no_room_is_not_served_any_more() -> None:
    """Its client does not read, so that the 503 waits in the lounge, as the request did."""
    calls: list[Exchange] = []

    def handle(exchange: Exchange) -> bool:
        calls.append(exchange)
        return False

    service = a_service(handle)
    ours, peer = socket.socketpair()
    with ours, peer:
        endpoint = Endpoint(SSL.Context(SSL.TLS_METHOD), "443", "test")
        connection = Connection(service, endpoint, ours, ("192.0.2.1", "4711"))
        connection._channel = cast(Channel, FullChannel())
        waiting = connection.exchange = Exchange(connection, parse_head(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 100))
        assert service.room.enter()
        assert service.dispatch(waiting) is False
        assert service.lounge.claim(connection.fd, connection)
        connection.expired()
        assert waiting.status == 503
        assert waiting.waiting()
        assert not service.room._queue
        service.room.wait(waiting)  # as if somebody had taken it from the queue just before
        service.room.leave()
        service.run_queued()
        assert calls == []
        assert service.room.enter()
        assert service.lounge.parked() == [connection]
        connection.close()


# --- complaints and the date ------------------------------------------------------------------


def test_complaints_are_few_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """What clients can bring about must not fill the disk; how much was left out is told."""
    now, said = 100.0, list[str]()
    monkeypatch.setattr(module, "line", said.append)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    complain = Complaints()
    for number in range(1000):
        complain(f"number {number}")
    assert said == [f"number {number}" for number in range(COMPLAINTS_PER_SECOND)]
    now = 101.5
    complain("the next second")
    assert said[COMPLAINTS_PER_SECOND:] == [
        f"{1000 - COMPLAINTS_PER_SECOND} more lines like the last were left out",
        "the next second",
    ]
    now = 102.5
    complain("nothing was left out")
    assert said[-1] == "nothing was left out"
    assert len(said) == COMPLAINTS_PER_SECOND + 3


def test_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 784111777.9
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))
    service = a_service(lambda exchange: True)
    assert service.date() == "Sun, 06 Nov 1994 08:49:37 GMT"  # RFC 9110, 5.6.7
    assert service.date() is service.date()
    now += 0.2
    assert service.date() == "Sun, 06 Nov 1994 08:49:38 GMT"
