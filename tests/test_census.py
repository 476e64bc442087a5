"""census.py: what a worker tells twice a second is what there is."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import cast

import pytest
from test_service import a_service

from uwsgi_tls import census as module
from uwsgi_tls.calls import Calls
from uwsgi_tls.census import Census, queue_length
from uwsgi_tls.connection import Connection
from uwsgi_tls.crowd import Guest
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.lounge import NEVER
from uwsgi_tls.scoreboard import Scoreboard, Told
from uwsgi_tls.service import Service
from uwsgi_tls.tally import WAITS


class Waiting:
    """A guest, as far as the census looks at it."""

    def __init__(self, what: str) -> None:
        self.waits_for = lambda: what
        self.idle_from = 5.0 if what in ("arrival", "farewell") else NEVER


def idle_connection() -> Connection:
    """One that is not asked: it would fail."""
    connection = Connection.__new__(Connection)
    connection.idle_from = 5.0
    return connection


class Scene:
    """A census of a service that nobody runs."""

    def __init__(self, *listeners: socket.socket) -> None:
        self.board = Scoreboard(1)
        self.census = Census(self.board.take(1, 1), listeners)
        self.service: Service = a_service(lambda exchange: True)

    def told(self) -> Told:
        (told,) = self.board.read().workers
        return told


def test_before_there_is_a_service_it_only_lives() -> None:
    scene = Scene()
    scene.census.beat(5.0)
    assert scene.told().last_beat == 5.0
    assert not any(scene.told().counts.values())


def test_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    service, crowd = scene.service, scene.service.crowd
    service.requests = 7
    service.tally.bytes_in += 5
    service.tally.count("exceptions")
    crowd.idle_told, crowd.handshakes_told, crowd.not_admitted, service.disk.refused = 1, 2, 3, 4
    service.disk.used = 99
    crowd.guests |= {cast(Guest, Waiting(what)) for what in WAITS if what != "idle"}
    crowd.guests |= {idle_connection(), idle_connection()}
    scene.census.service = service
    kept: list[float] = []
    monkeypatch.setattr(service.failures, "keep_time", kept.append)
    scene.census.beat(6.0)
    assert kept == [6.0], "what was left out of the log is said in time"
    counts = dict(scene.told().counts)
    assert counts.pop("rss") > 1 << 20
    assert counts.pop("vsz") > 1 << 20
    assert {name: count for name, count in counts.items() if count} == {
        "requests": 7,
        "bytes_in": 5,
        "exceptions": 1,
        "limits.worker-connections": 1,
        "limits.https-max-handshakes": 2,
        "limits.connections-per-client": 3,
        "limits.spool-limit": 4,
        "spooled": 99,
        **{f"connections.{what}": 2 if what == "idle" else 1 for what in WAITS},
    }


def test_calls_are_those_that_do_not_wait_for_their_client() -> None:
    """One that is held is no call, and begins anew afterwards."""
    scene = Scene()
    service, one = scene.service, cast(Exchange, object())
    slot, since = Scoreboard(1).take(1, 1), []
    census = Census(slot, (), calls=Calls(1, 0))
    census.service = service
    service.running.add(one)
    for moment, held in ((1.0, set[Exchange]()), (2.0, {one}), (3.0, set[Exchange]()), (4.0, set[Exchange]())):
        service.held = held
        census.beat(moment)
        since.append(slot.calling)
    assert since == [1.0, 0.0, 3.0, 3.0]


def test_the_average_is_of_late() -> None:
    scene = Scene()
    averages = []
    for requests, seconds in ((10, 1.0), (10, 0.0), (1, 0.5), (0, 0.0)):
        scene.service.requests += requests
        scene.service.tally.seconds += seconds
        scene.census.tell(scene.service)
        averages.append(scene.told().counts["average"])
    assert averages == [100_000, 50_000, 275_000, 275_000]


def test_the_listen_queue() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        scene = Scene(one, one, two)  # two https options may share a socket
        clients = [socket.create_connection(each.getsockname()) for each in (one, two, two)]
        scene.census.tell(scene.service)
        counts = scene.told().counts
        assert [counts[f"queues.{number}"] for number in range(3)] == [1, 2, 0]
        for client in clients:
            client.close()
    scene.census.tell(scene.service)  # the worker drains: they are closed
    assert scene.told().counts["queues.0"] == 0


def test_a_socket_that_has_no_such_number(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        assert queue_length(sock) == 0


def test_without_proc_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(path: str, mode: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(module, "open", no_proc, raising=False)
    scene = Scene()
    scene.service.requests = 3
    scene.census.tell(scene.service)
    counts = scene.told().counts
    assert (counts["requests"], counts["rss"]) == (3, 0)
