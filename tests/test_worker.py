"""worker.py: which deadline is whose, who the peer is, which backend, and accepting when there is no room left."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from uwsgi_tls import crowd, worker
from uwsgi_tls.addresses import TcpAddress
from uwsgi_tls.backends.http1 import HttpProtocol
from uwsgi_tls.backends.nodes import Node
from uwsgi_tls.backends.proxy import Policy, ProxyBackend
from uwsgi_tls.backends.report import ReportBackend
from uwsgi_tls.backends.uwsgi import UwsgiProtocol
from uwsgi_tls.backends.wsgi import WsgiBackend
from uwsgi_tls.lounge import Lounge
from uwsgi_tls.options import Config
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.service import Endpoint, Limits, Room, Service
from uwsgi_tls.worker import Listener, Seat, Task

LIMITS = Limits(1, 1, 1, 1, 1, 4096, 100, 0, 1000, connections=2)


@pytest.mark.parametrize(
    ("family", "address", "peer"),
    [
        (socket.AF_INET, ("192.0.2.1", 4711), ("192.0.2.1", "4711")),
        (socket.AF_INET6, ("2001:db8::1", 4711, 0, 0), ("2001:db8::1", "4711")),
        (socket.AF_INET6, ("::ffff:192.0.2.1", 4711, 0, 0), ("192.0.2.1", "4711")),
        (socket.AF_INET6, ("::ffff:c000:201", 4711, 0, 0), ("::ffff:c000:201", "4711")),
        (socket.AF_INET6, ("fe80::1%eth0.100", 4711, 0, 2), ("fe80::1%eth0.100", "4711")),
        (socket.AF_UNIX, "", ("0.0.0.0", "0")),
        (socket.AF_UNIX, b"\0autobind", ("0.0.0.0", "0")),
        (socket.AF_UNIX, None, ("0.0.0.0", "0")),
    ],
)
def test_peer(family: int, address: object, peer: tuple[str, str]) -> None:
    assert worker._peer(family, address) == peer


def test_each_limit_has_its_option() -> None:
    config = Config(
        https_handshake_timeout=1,
        http_headers_timeout=2,
        http_body_timeout=3,
        http_keepalive=4,
        http_write_timeout=5,
        buffer_size=600,
        http_max_headers=7,
        limit_post=8,
        post_buffering=9,
        http_body_max_time=10,
        http_body_min_rate=11,
        http_write_min_rate=12,
        max_requests_per_connection=13,
        https_max_handshakes=14,
        connections_per_client=15,
    )
    assert worker._limits(config, connections=16) == Limits(
        handshake=1,
        headers=2,
        body=3,
        keepalive=4,
        write=5,
        head_bytes=600,
        max_headers=7,
        body_bytes=8,
        memory_bytes=9,
        room=config.http_timeout,
        body_time=10,
        body_rate=11,
        write_rate=12,
        requests=13,
        handshakes=14,
        per_client=15,
        connections=16,
    )


@pytest.mark.parametrize(("to_a_backend", "each"), [(False, 2), (True, 3)])
def test_descriptors_limit_connections(to_a_backend: bool, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may need one for its file and one for its backend; who set a number hears that it is less."""
    said = list[str]()
    monkeypatch.setattr(worker, "line", said.append)
    monkeypatch.setattr(worker, "resource", SimpleNamespace(getrlimit=lambda which: (300, 300), RLIMIT_NOFILE=0))
    monkeypatch.setattr(os, "listdir", lambda path: ["1"] * 30)
    http_to = (TcpAddress("127.0.0.1", 1),) if to_a_backend else ()
    assert worker._room_for_connections(Config(http_to=http_to)) == 270 // each
    assert worker._room_for_connections(Config(http_to=http_to, worker_connections=50)) == 50
    assert said == []
    origins = {"worker-connections": "the command line"}
    worker._room_for_connections(Config(http_to=http_to, worker_connections=1000, origins=origins))
    assert said == [f"the limit of descriptors (RLIMIT_NOFILE) allows {270 // each} connections, not 1000"]
    monkeypatch.setattr(os, "listdir", lambda path: ["1"] * 300)
    assert worker._room_for_connections(Config(http_to=http_to)) == 1


def task(config: Config, listeners: list[Listener] | None = None) -> Task:
    return Task(config, listeners or [], [], None, os.getpid())


def test_backend_of_nodes() -> None:
    config = Config(
        http_to=(TcpAddress("127.0.0.1", 1),),
        http_connect_timeout=2,
        http_timeout=3,
        http_gracetime=4,
        http_modifier1=5,
        http_modifier2=6,
        http_var=(("A", "b"),),
        http_tunnel_timeout=7,
        http_websockets=True,
        http_backend_keepalive=8,
    )
    first, second = Node("a", socket.AF_UNIX, "a"), Node("b", socket.AF_UNIX, "b")
    work = Task(config, [], [first], None, os.getpid(), [second])
    backend = worker._backend(work, Lounge(1))
    assert isinstance(backend, ProxyBackend)
    assert backend.policy == Policy(connect=2, answer=3, grace=4, tunnel=7, websockets=True)
    assert isinstance(backend.protocol, UwsgiProtocol)
    assert backend.idle is None
    assert (backend.protocol.modifier1, backend.protocol.modifier2) == (5, 6)
    assert backend.protocol.extra == (("A", "b"),)
    assert [backend.nodes.choose(tried, 0.0) for tried in ([], [first])] == [first, second]
    backend = worker._backend(replace(work, config=replace(config, http_backend_http=True)), Lounge(1))
    assert isinstance(backend, ProxyBackend)
    assert isinstance(backend.protocol, HttpProtocol)
    assert backend.protocol.idle_seconds == 8
    assert backend.idle is not None


def test_backend_of_an_application(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def application(environ, start_response): ...\n")
    backend = worker._backend(task(Config(wsgi_file=str(tmp_path / "app.py"))), Lounge(1))
    assert isinstance(backend, WsgiBackend)


def test_backend_of_nothing() -> None:
    assert isinstance(worker._backend(task(Config()), Lounge(1)), ReportBackend)


# --- accepting --------------------------------------------------------------------------------


class Full:
    """A listening socket whose process has no descriptors left."""

    family = socket.AF_INET

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.accepts = 0

    def fileno(self) -> int:
        return self._real.fileno()

    def _accept(self) -> tuple[int, object]:
        self.accepts += 1
        code = self.codes.pop(0) if self.codes else errno.EAGAIN
        raise OSError(code, os.strerror(code))

    def __enter__(self) -> Full:
        self._real = socket.create_server(("127.0.0.1", 0))
        return self

    def __exit__(self, *error: object) -> None:
        self._real.close()


@pytest.mark.parametrize(
    ("codes", "rests", "accepts"),
    [
        pytest.param([], 0, 1, id="nobody there"),
        pytest.param([errno.ECONNABORTED], 0, 1, id="left already"),
        pytest.param([errno.EMFILE], 1, 1, id="no descriptor in the process"),
        pytest.param([errno.ENFILE], 1, 1, id="nor in the system"),
        pytest.param([errno.ENOBUFS], 1, 1, id="no memory"),
    ],
)
def test_accepting_where_it_fails(codes: list[int], rests: int, accepts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It rests instead of asking again at once, says so, and never ends."""
    said = list[str]()
    monkeypatch.setattr(crowd, "line", said.append)
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with Full(*codes) as full, ours, theirs:
        listener = Listener(cast(Any, full), cast(Endpoint, None), socket.AF_INET)
        service = Service(LIMITS, Lounge(1), ReportBackend(), Room(1), export_cert=False, worker=1, pid=1)
        acceptor = worker._Acceptor(
            task(Config(), [listener]), Seat(1, 1, ours, Scoreboard(1).take()), service, (read, write)
        )
        acceptor._accept(listener)
        assert (acceptor._rests, full.accepts) == (bool(rests), accepts)
        assert len(said) == rests
        full.codes = codes * 5
        for _ in codes * 5 if rests else ():
            began = time.monotonic()
            acceptor._wait()
            assert time.monotonic() - began >= worker.REST_SECONDS / 2
            assert not acceptor._rests
            acceptor._accept(listener)
            assert acceptor._rests
        assert len(said) == rests  # not ten times a second
    os.close(read)
    os.close(write)


# --- signals ----------------------------------------------------------------------------------


def test_signals_wake_the_main_thread_and_do_nothing_else() -> None:
    """In a child, since handlers are the process's: each is written to the pipe, none ends it, TERM included."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            read, _ = worker._take_signals()
            numbers = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPROF, signal.SIGRTMAX}
            for number in numbers:
                os.kill(os.getpid(), number)
            seen = set(os.read(read, 512))
            programs = {signal.getsignal(number) for number in numbers}
            status = 0 if seen == {int(number) for number in numbers} and signal.SIG_IGN not in programs else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
