"""Runs the cases against the peers and reads what each cost: CPU time of the server's whole process tree.

The clock is each process's CPU clock (clock_getcpuclockid(3)): the sum, in nanoseconds, that schedstat has for each
of its threads, threads that ended included. What an exited and reaped child used is in its parent's stat (10 ms
ticks). Peers take turns within a round, so that a noisy minute falls on all of them alike.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import load, memory, peers

WARM_UP_SECONDS = 0.3
SETTLE_SECONDS = 0.5
QUIET_SECONDS = 0.01
MB = 1_000_000
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

Run = Callable[[float], load.Outcome]

USUAL = peers.Job()
WITH_APPLICATION = ("ours", "nginx", "uwsgi", "gunicorn", "granian")
PROXIES = ("ours", "nginx", "uwsgi")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of work. `open_load(stack, target)` gives the function that does it for some seconds."""

    name: str
    title: str
    open_load: Callable[[ExitStack, load.Target], Run]
    names: tuple[str, ...] = WITH_APPLICATION  # the peers that can do it
    operation: int = 1  # how much of Outcome.done is one operation
    job: peers.Job = USUAL


def _handshakes(resume: bool) -> Callable[[ExitStack, load.Target], Run]:
    return lambda stack, target: lambda seconds: load.handshakes(target, seconds, resume=resume)


def _kept(stack: ExitStack, target: load.Target) -> Run:
    kept = load.Kept(target)
    stack.callback(kept.close)
    return kept.gets


def _bulk(stack: ExitStack, target: load.Target) -> Run:
    return lambda seconds: load.bulk(target, "/bulk", seconds)


def _upload(stack: ExitStack, target: load.Target) -> Run:
    return lambda seconds: load.upload(target, seconds)


CASES = (
    Case("handshake", "full handshake + GET", _handshakes(resume=False)),
    Case("p256", "the same, P-256 certificate", _handshakes(resume=False), job=peers.Job(p256=True)),
    Case("resumed", "resumed handshake + GET", _handshakes(resume=True)),
    Case(
        "client",
        "full handshake, client certificate",
        _handshakes(resume=False),
        names=("ours", "nginx"),
        job=peers.Job(asks_clients=True),
    ),
    Case("keepalive", "GET kept alive, WSGI (nginx: file)", _kept),
    Case("logging", "the same, and a line in the log", _kept, names=("ours", "ours-log")),
    Case("proxy", "GET through http-to", _kept, PROXIES, job=peers.Job(proxy=True)),
    Case("bulk", "1 MB of a 100 MB body", _bulk, operation=MB),
    Case("upload", "1 MB of a 20 MB upload, http-to", _upload, PROXIES, operation=MB, job=peers.Job(proxy=True)),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: microseconds of CPU an operation, operations a second of wall time, and the part that resumed."""

    cpu_us: float
    per_second: float
    resumed: float = 0.0
    p50_us: float = 0.0  # of the time that an operation took its client, 0 where that is not asked
    p99_us: float = 0.0


@dataclass(slots=True)
class Cell:
    """What one peer did in one case: its rounds, the cipher it chose, its memory, or why it failed."""

    samples: list[Sample] = field(default_factory=list)
    ciphers: set[str] = field(default_factory=set)
    failed: str = ""
    resident_bytes: int = 0


Results = dict[str, dict[str, Cell]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is measured: the files, and the CPUs of server and client."""

    site: peers.Site
    server_cpu: int
    client_cpu: int


def place(directory: Path) -> Place:
    """Makes the files, and keeps this process to its CPU. Raises peers.PeerError where there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise peers.PeerError("two CPUs are needed: one for the server, one for the client")
    os.sched_setaffinity(0, {cpus[-1]})
    return Place(peers.make_site(directory), cpus[0], cpus[-1])


def run(cases: Sequence[Case], names: Sequence[str], rounds: int, seconds: float, where: Place) -> Results:
    """Measures every case for every peer that can do it; starts what it needs and leaves nothing running."""
    return {case.name: _run_case(case, names, rounds, seconds, where) for case in cases}


def _run_case(case: Case, names: Sequence[str], rounds: int, seconds: float, where: Place) -> dict[str, Cell]:
    cells = {name: Cell() for name in case.names if name in names}
    with ExitStack() as stack:
        if case.job.proxy:
            stack.callback(peers.start_backend(where.site, {where.client_cpu}).stop)
        servers: dict[str, peers.Server] = {}
        loads: dict[str, Run] = {}
        for name, cell in cells.items():
            with _failure_in(cell, f"{case.title}: {name}"):
                servers[name] = server = peers.start(name, where.site, case.job, {where.server_cpu})
                stack.callback(server.stop)
                credential = where.site.client if case.job.asks_clients else None
                loads[name] = case.open_load(stack, load.Target(server.port, credential))
                loads[name](WARM_UP_SECONDS)
        for number in range(1, rounds + 1):
            print(f"bench: {case.title}: round {number} of {rounds}", file=sys.stderr)
            for name, cell in cells.items():
                if not cell.failed:
                    with _failure_in(cell, f"{case.title}: {name}"):
                        _sample(case, servers[name], loads[name], seconds, cell)
        for name, server in servers.items():
            cells[name].resident_bytes = memory.resident_bytes(tree(server.pid))
            if cells[name].failed:
                print(f"bench: what {name} said:\n{server.said()}", file=sys.stderr)
    return cells


@contextmanager
def _failure_in(cell: Cell, label: str) -> Iterator[None]:
    """Records a peer's failure in its cell, so that the other peers are measured all the same."""
    try:
        yield
    except (load.LoadError, peers.PeerError, OSError) as error:  # those of ssl are OSErrors
        cell.failed = str(error) or type(error).__name__
        print(f"bench: {label}: {cell.failed}", file=sys.stderr)


def _sample(case: Case, server: peers.Server, work: Run, seconds: float, cell: Cell) -> None:
    before = settled_cpu_ns(server.pid)
    started = time.monotonic()
    outcome = work(seconds)
    elapsed = time.monotonic() - started
    spent = settled_cpu_ns(server.pid) - before
    operations = outcome.done / case.operation
    took = sorted(outcome.seconds) or [0.0]
    cell.samples.append(
        Sample(
            spent / 1000 / operations,
            operations / elapsed,
            outcome.resumed / outcome.done,
            took[len(took) // 2] * 1e6,
            took[len(took) * 99 // 100] * 1e6,
        )
    )
    cell.ciphers |= outcome.ciphers


def settled_cpu_ns(root: int) -> int:
    """The tree's CPU time once it has come to rest: the last close may still be on its way."""
    used = tree_cpu_ns(root)
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        previous, used = used, tree_cpu_ns(root)
        if used == previous:
            break
    return used


def tree_cpu_ns(root: int) -> int:
    """CPU nanoseconds that process `root` and its descendants have used, exited descendants included."""
    stats = _process_stats()
    return sum(cpu_ns(pid) + stats[pid][1] * _NS_PER_TICK for pid in _tree(root, stats))


def cpu_ns(pid: int) -> int:
    """CPU nanoseconds that one process has used."""
    # Its CPU clock as clock_getcpuclockid(3) makes it: ~pid shifted over CPUCLOCK_SCHED.
    return time.clock_gettime_ns(((~pid) << 3) | 2)


def tree(root: int) -> list[int]:
    """`root` and its descendants."""
    return _tree(root, _process_stats())


def _tree(root: int, stats: dict[int, tuple[int, int]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _process_stats() -> dict[int, tuple[int, int]]:
    """pid -> (parent, ticks that its reaped children used), from /proc/PID/stat (proc(5): ppid, cutime, cstime)."""
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            stats[int(entry.name)] = int(fields[1]), int(fields[13]) + int(fields[14])
    return stats
