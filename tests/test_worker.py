"""worker.py: which deadline is whose, which backend, how many connections, and signals."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from uwsgi_tls import worker
from uwsgi_tls.addresses import TcpAddress
from uwsgi_tls.backends.http1 import HttpProtocol
from uwsgi_tls.backends.nodes import Node
from uwsgi_tls.backends.proxy import Policy, ProxyBackend
from uwsgi_tls.backends.report import ReportBackend
from uwsgi_tls.backends.uwsgi import UwsgiProtocol
from uwsgi_tls.backends.wsgi import WsgiBackend
from uwsgi_tls.lounge import Lounge
from uwsgi_tls.options import Config
from uwsgi_tls.service import Limits
from uwsgi_tls.worker import Task


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


def task(config: Config) -> Task:
    return Task(config, [], [], None, os.getpid())


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
