"""Hostile clients, many at once: no thread is held by them, a polite client hardly notices, and all comes back after.

Some of each kind come to the server first, all together: that fills what only ever grows, such as tables, the pools of
the allocator, and what is loaded when it is first used. Then each kind comes by itself, and what it leaves behind is a
leak. The run prints (pytest -s) how long the polite client waits for its answers, with the crowd and in quiet. That is
not asserted, as the machine has other work; what is asserted: it gets every one of them.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import pytest

from . import hostile_clients as hostile
from .crowds import Behaviour, Crowd
from .server import Daemon, Process, wait_until
from .test_hostile import cpu_seconds, descriptors, needs_root, serving
from .test_http_to import PORT, Client, Truncated, client_context
from .tls13 import KEY_UPDATE, KEY_UPDATE_REQUESTED

# --- what the server occupies -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Footprint:
    """What all processes of a server have together."""

    processes: int
    descriptors: int
    threads: int
    kilobytes: int  # resident

    @classmethod
    def of(cls, daemon: Daemon) -> Self:
        tree = daemon.tree()
        status = [process.status() for process in tree]
        return cls(
            len(tree),
            sum(map(descriptors, tree)),
            sum(int(each["Threads"]) for each in status),
            sum(int(each["VmRSS"].split()[0]) for each in status),
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What the worker has in use, as it says itself: not what the allocator keeps for later."""

    kilobytes: int  # of malloc: OpenSSL, buffers, tables
    blocks: int  # small objects of Python


# --- the polite client ------------------------------------------------------------------------


PAUSE_SECONDS = 0.05  # between two of its requests
NEW_EVERY = 5  # each fifth is on a new connection


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it began (time.perf_counter()), how long it took, and whether on a connection of its own."""

    began: float
    milliseconds: float
    new: bool


class Polite:
    """A client in a thread of its own that asks all the while. Leaving it fails if one request was not answered."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._leave = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[Answered] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leave.set()
        self._thread.join()
        if error[0] is None and self._error is not None:
            raise AssertionError(f"after {len(self.answers)} answers") from self._error

    def _ask(self) -> None:
        context = client_context()
        try:
            with Client(self._host, context=context) as kept:
                while not self._leave.wait(PAUSE_SECONDS):
                    new, began = len(self.answers) % NEW_EVERY == NEW_EVERY - 1, time.perf_counter()
                    with Client(self._host, context=context) if new else contextlib.nullcontext(kept) as client:
                        assert client.get().body == b"ok\n"
                        self.answers.append(Answered(began, (time.perf_counter() - began) * 1000, new))
        except (AssertionError, OSError, Truncated) as error:
            self._error = error

    def times(self, since: float, until: float) -> str:
        """How long it waited for what it asked in between."""
        asked = [each for each in self.answers if since <= each.began < until]
        kept = [each.milliseconds for each in asked if not each.new]
        new = [each.milliseconds for each in asked if each.new]
        return f"{_spread(kept)}   with a new connection {_spread(new)}"


def _spread(milliseconds: list[float]) -> str:
    if len(milliseconds) < 2:
        return f"{milliseconds} ms"
    middle, last = statistics.median(milliseconds), statistics.quantiles(milliseconds, n=100, method="inclusive")[98]
    return f"p50 {middle:6.2f}, p99 {last:6.2f} ms of {len(milliseconds):3}"


# --- the crowds -------------------------------------------------------------------------------


Parts = tuple[tuple[Behaviour, int], ...]
# One worker, two threads for the application. The crowd comes faster than a short listen queue takes it, and a silent
# client must not lose the server's patience before the test has seen it.
OPTIONS = ("--threads", "2", "--listen", "1024", "--https-handshake-timeout", "60")
STAY_SECONDS, QUIET_SECONDS = 2.0, 1.2
# A visit may leave tables larger than they were. A connection has 25 KB, and half a dozen objects for its TLS alone.
HELD_KILOBYTES, HELD_BLOCKS = 512, 60
# The allocator has a pool for each thread, and whom a thread serves is chance: now and then one of them must grow.
GROWTH_KILOBYTES = 16384

big, file = (partial(hostile.reader, path) for path in (b"/big", b"/file"))
cuts = [partial(hostile.cut_off, point, how) for point, how in hostile.CUTS]
updates = [partial(hostile.key_updates, message) for message in (KEY_UPDATE, KEY_UPDATE_REQUESTED)]

STAYING: dict[str, Parts] = {
    "1,000 silent sockets": ((hostile.silent, 1000),),
    "1,000 dribbled ClientHellos": ((hostile.dribbled_hello, 1000),),
    "1,000 dribbled heads": ((hostile.dribbled_head, 1000),),
    "200 dribbled bodies": ((hostile.dribbled_body, 100), (hostile.dribbled_chunks, 100)),
    "100 readers that stop at 64 KB of 50 MB": ((big, 25), (file, 75)),
    "2,000 idle kept connections": ((hostile.idle, 2000),),
}
ENDING: dict[str, Parts] = {
    "5,000 handshakes cut off": tuple((cut, 5000 // len(cuts)) for cut in cuts),
    "renegotiation flood": ((hostile.renegotiations, 8),),
    "KeyUpdate flood": tuple((update, 4) for update in updates),
}
EVERYBODY: Parts = (
    (hostile.one_byte, 300),
    (hostile.dribbled_hello, 300),
    (hostile.dribbled_head, 500),
    (hostile.dribbled_body, 100),
    (hostile.dribbled_chunks, 100),
    (big, 10),
    (file, 10),
    (hostile.idle, 1000),
    *((cut, 25) for cut in cuts),
    (hostile.renegotiations, 1),
    *((update, 1) for update in updates),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A server that everybody has visited, whose footprint was `before` when nobody had come."""

    daemon: Daemon
    host: str
    worker: Process
    before: Footprint

    @contextlib.contextmanager
    def measured(self, what: str, polite: Polite) -> Iterator[None]:
        """Prints what the polite client and the worker's CPU felt of it."""
        began, used = time.perf_counter(), cpu_seconds(self.worker)
        yield
        end, used = time.perf_counter(), cpu_seconds(self.worker) - used
        load = f"{end - began:4.1f} s, CPU {used / (end - began):4.0%}, {Footprint.of(self.daemon).kilobytes:6} kB"
        print(f"  {what:5} {load}; {polite.times(began, end)}")

    def visit(self, parts: Parts, polite: Polite, ends: bool = False) -> None:
        """They come, stay for a while, or until they come to an end by themselves, and leave."""
        with Crowd((self.host, PORT), parts) as crowd:
            with self.measured("comes", polite):
                crowd.come()
            with self.measured("there", polite):
                if ends:
                    crowd.wait_until_done()
                else:
                    threading.Event().wait(STAY_SECONDS)
            there = Footprint.of(self.daemon)
            assert (there.processes, there.threads) == (self.before.processes, self.before.threads)
            assert crowd.leave() == []
        self.wait_for_descriptors(self.before.descriptors + 1)  # the polite client's

    def wait_for_descriptors(self, count: int) -> None:
        def found() -> int:
            return Footprint.of(self.daemon).descriptors

        wait_until(lambda: found() == count, 10, lambda: f"{found()} descriptors, were {count}")

    def held(self) -> Held:
        """Once everybody has left."""
        self.wait_for_descriptors(self.before.descriptors)
        with Client(self.host) as client:
            size, blocks = map(int, client.get("/held").body.split())
        self.wait_for_descriptors(self.before.descriptors)
        return Held(size // 1024, blocks)

    def rest(self, polite: Polite) -> None:
        """The worker has nothing to do but for the polite client."""
        used = cpu_seconds(self.worker)
        with self.measured("quiet", polite):
            threading.Event().wait(QUIET_SECONDS)
        assert cpu_seconds(self.worker) - used < 0.1 * QUIET_SECONDS, "it spins"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with serving(*OPTIONS) as (daemon, host, worker):
        scene = Scene(daemon, host, worker, Footprint.of(daemon))
        print("\neverybody at once")
        with Polite(host) as polite:
            scene.visit(EVERYBODY, polite)
            scene.rest(polite)
        scene.held()  # loads what only this needs
        yield scene


@needs_root
@pytest.mark.parametrize("name", [*STAYING, *ENDING])
def test_hostile_crowd(scene: Scene, name: str) -> None:
    print(f"\n{name}")
    held, before = scene.held(), Footprint.of(scene.daemon)
    with Polite(scene.host) as polite:
        scene.visit({**STAYING, **ENDING}[name], polite, ends=name in ENDING)
        scene.rest(polite)
    now, after = scene.held(), Footprint.of(scene.daemon)
    print(f"  holds {now.kilobytes - held.kilobytes:+} kB and {now.blocks - held.blocks:+} objects more")
    assert now.kilobytes < held.kilobytes + HELD_KILOBYTES
    assert now.blocks < held.blocks + HELD_BLOCKS
    assert after.kilobytes < before.kilobytes + GROWTH_KILOBYTES
    assert (after.processes, after.threads) == (scene.before.processes, scene.before.threads)
    assert "defect" not in scene.daemon.log
