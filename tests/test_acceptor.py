"""acceptor.py: who the peer is, accepting when there is no room left, and workers that take turns."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any, cast

import pytest

from uwsgi_tls import acceptor, crowd
from uwsgi_tls.acceptor import Acceptor, Listener
from uwsgi_tls.backends.report import ReportBackend
from uwsgi_tls.lounge import Lounge
from uwsgi_tls.service import Endpoint, Limits, Room, Service

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
    assert acceptor._peer(family, address) == peer


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
        loop = Acceptor([listener], service, ours.fileno(), (read, write))
        loop._accept(listener)
        assert (loop._rests, full.accepts) == (bool(rests), accepts)
        assert len(said) == rests
        full.codes = codes * 5
        for _ in codes * 5 if rests else ():
            began = time.monotonic()
            loop._wait()
            assert time.monotonic() - began >= acceptor.REST_SECONDS / 2
            assert not loop._rests
            loop._accept(listener)
            assert loop._rests
        assert len(said) == rests  # not ten times a second
    os.close(read)
    os.close(write)
