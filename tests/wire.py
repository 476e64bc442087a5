"""A client's connection that is not there, for the tests of exchanges and backends: what is sent, and who waits for it.

A `Wire` takes as many bytes as it is told. The test does the lounge's part: it lets the client read some, or leave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from uwsgi_tls.connection import Connection
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.gone import Gone
from uwsgi_tls.http import head_end, parse_head
from uwsgi_tls.lounge import NEVER
from uwsgi_tls.service import Limits, Service

LIMITS = Limits(1, 1, 1, 1, 1, 4096, 100, 0, memory_bytes=1000)
ALL = 1 << 40


@dataclass
class Wire:
    """A connection's place. It takes as much as `capacity`, and nothing where the client has left."""

    service: Service
    capacity: int = ALL
    left: bool = False  # the client
    taken: bytearray = field(default_factory=bytearray)
    step: Callable[[int], None] | None = None  # parked until the client has read some
    closed: bool = False
    resumed: int = 0
    done: threading.Event = field(default_factory=threading.Event)  # resumed or closed
    waits_for_answer: int = 0
    deadline: float = 1.0
    latest: float = NEVER
    exchange: Exchange | None = None
    peer: tuple[str, str] = ("192.0.2.1", "4711")
    variables: dict[str, str] = field(default_factory=lambda: {"SERVER_PORT": "443"})
    packed: str = ""
    variables_size: int = 0
    endpoint: Any = field(default_factory=lambda: SimpleNamespace(port="443", name="test"))

    def begin(self, request: str) -> Exchange:
        """The exchange of a request that has come; "" could not be read."""
        raw = request.encode()
        head = parse_head(raw[: head_end(raw, 4096)], 100) if raw else None
        self.exchange = Exchange(cast(Connection, self), head)
        return self.exchange

    def write(self, data: bytes) -> int:
        if self.left:
            raise Gone("reset")
        sent = min(len(data), self.capacity)
        self.taken += data[:sent]
        self.capacity -= sent
        return sent

    def wait_to_write(self, step: Callable[[int], None], progress: bool, latest: float = NEVER) -> None:
        self.deadline, self.step, self.latest = 1.0, step, latest

    def wait_for_answer(self) -> None:
        self.waits_for_answer += 1

    def wait_for_room(self) -> None:
        """Parked."""

    def claim(self) -> bool:
        return True

    def resume(self) -> None:
        self.resumed += 1
        self.done.set()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.exchange is not None
            self.exchange.client_gone()
            self.done.set()

    def crashed(self) -> None:
        self.closed = True

    # As the lounge and Connection.ready do it:

    def drain(self, capacity: int = ALL) -> None:
        """The client reads `capacity` bytes."""
        self.capacity = capacity
        self._wake()

    def leave(self) -> None:
        self.left = True
        if self.step is not None:
            self._wake()

    def _wake(self) -> None:
        step, self.step = self.step, None
        assert step is not None, "not parked"
        try:
            step(0)
        except Gone:
            self.close()

    # What the client has got:

    @property
    def head(self) -> str:
        return self.taken.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        return bytes(self.taken.partition(b"\r\n\r\n")[2])

    @property
    def status(self) -> int:
        return int(self.taken[9:12] or 0)
