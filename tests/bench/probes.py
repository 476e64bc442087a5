"""What is no cost of an operation: memory of idle connections and of workers, a crowd of them, and two workers at once.

Each probe returns figures by name; `targets` and `report` say what they mean.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import floor, load, memory, peers
from .measure import Place, cpu_ns, settled_cpu_ns, tree

Figures = dict[str, float]

IDLE_CONNECTIONS = 2000
CROWD_CONNECTIONS = 10_000
DESCRIPTORS_BESIDE = 200
NEW_CLIENT_SECONDS = 3.0
SCALING_SECONDS = 3.0
SCALING_ROUNDS = 3
MORE_WORKERS = 4
SETTLE_SECONDS = 0.7  # longer than the lounge's sweep

IDLE = peers.Job(keeps=True)


@dataclass(frozen=True, slots=True)
class Probe:
    name: str
    title: str
    run: Callable[[Place], Figures]


@contextmanager
def _server(name: str, where: Place, job: peers.Job, cpus: set[int]) -> Iterator[tuple[peers.Server, load.Target]]:
    with ExitStack() as stack:
        server = peers.start(name, where.site, job, cpus)
        stack.callback(server.stop)
        yield server, load.Target(server.port)


def _idle(where: Place) -> Figures:
    """KB of the server's own memory for each connection that is kept and silent."""
    figures = {}
    for name in ("ours", "ours-debian", "nginx"):
        with _server(name, where, IDLE, {where.server_cpu}) as (server, target), ExitStack() as stack:
            for conn in load.idle(target, IDLE_CONNECTIONS // 10):  # what the first of them cost is not theirs alone
                stack.callback(conn.close)
            before = memory.private_bytes(tree(server.pid))
            for conn in load.idle(target, IDLE_CONNECTIONS):
                stack.callback(conn.close)
            time.sleep(SETTLE_SECONDS)
            more = memory.private_bytes(tree(server.pid)) - before
            figures[f"idle_kb.{name}"] = more / IDLE_CONNECTIONS / 1024
    return figures


def _workers(where: Place) -> Figures:
    """MB of private memory that each worker more takes, once it has served."""
    private = []
    for count in (1, 1 + MORE_WORKERS):
        with _server("ours", where, peers.Job(workers=count), {where.server_cpu}) as (server, target):
            load.handshakes(target, 1.0, resume=False)
            private.append(memory.private_bytes(tree(server.pid)))
    return {"worker_mb": (private[1] - private[0]) / MORE_WORKERS / 1e6}


def _crowd(where: Place) -> Figures:
    """Milliseconds until a new client has its answer, 99 of 100, without and with a crowd that is silent."""
    count = min(CROWD_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - DESCRIPTORS_BESIDE)
    if count < CROWD_CONNECTIONS:
        print(f"bench: only {count} connections are possible here (ulimit -n)", file=sys.stderr)
    with _server("ours", where, IDLE, {where.server_cpu}) as (_, target), ExitStack() as stack:
        _new_client(target)
        alone = _new_client(target)
        for conn in load.idle(target, count):
            stack.callback(conn.close)
        crowded = _new_client(target)
    return {"crowd": count, "crowd_p99_ms.alone": alone, "crowd_p99_ms.crowded": crowded}


def _new_client(target: load.Target) -> float:
    took = sorted(load.handshakes(target, NEW_CLIENT_SECONDS, resume=False, at_once=1).seconds)
    return took[len(took) * 99 // 100] * 1000


def _scaling(where: Place) -> Figures:
    """How many times the handshakes of one worker two workers do, each on a CPU, if the clients cost nothing.

    The busier of the two sets the pace, so it is the CPU time of one worker's handshake by that of the busier. Each CPU
    has a client as well, or the scheduler would decide which worker gets more of it.
    """
    return {f"scaling.{name}": _scaling_of(name, where) for name in ("ours", "nginx")}


def _scaling_of(name: str, where: Place) -> float:
    with (
        _server(name, where, peers.Job(workers=1), {where.server_cpu}) as (one, target_of_one),
        _server(name, where, peers.Job(workers=2), {where.server_cpu}) as (two, target_of_two),
    ):
        _new_client(target_of_two)  # by now both of them serve
        for pid, cpu in zip(_workers_of(two), (where.server_cpu, where.client_cpu), strict=True):
            _move(pid, cpu)
        ratios = [
            _busiest_us(one, target_of_one, where) / _busiest_us(two, target_of_two, where)
            for _ in range(SCALING_ROUNDS)
        ]
    return statistics.median(ratios)


def _workers_of(server: peers.Server) -> list[int]:
    """The processes of the tree that say so in their titles."""
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in tree(server.pid)}
    return [pid for pid, title in titles.items() if re.search(rb"worker (\d|process)", title)]  # nginx has no numbers


def _move(pid: int, cpu: int) -> None:
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {cpu})


def _busiest_us(server: peers.Server, target: load.Target, where: Place) -> float:
    """Microseconds of CPU that the busiest process of the tree used for each handshake of all."""
    settled_cpu_ns(server.pid)
    before = {pid: cpu_ns(pid) for pid in tree(server.pid)}
    done = load.handshakes_of_many(target, SCALING_SECONDS, (where.server_cpu, where.client_cpu))
    settled_cpu_ns(server.pid)
    return max(cpu_ns(pid) - used for pid, used in before.items()) / done / 1000


def _floor(where: Place) -> Figures:
    """Microseconds of CPU that pyOpenSSL alone takes for a connection."""
    return {
        "floor_us.handshake": floor.connection_us(where.site.rsa, resume=False),
        "floor_us.p256": floor.connection_us(where.site.p256, resume=False),
        "floor_us.resumed": floor.connection_us(where.site.rsa, resume=True),
    }


PROBES = (
    Probe("floor", "us of CPU that pyOpenSSL alone takes for a connection", _floor),
    Probe("idle", "KB of memory for an idle connection", _idle),
    Probe("workers", "MB of private memory for a worker more", _workers),
    Probe("crowd", "p99 of a new client beside 10,000 idle connections", _crowd),
    Probe("scaling", "handshakes of two workers, in those of one", _scaling),
)
