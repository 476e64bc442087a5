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

from . import load, peers

WARM_UP_SECONDS = 0.3
SETTLE_SECONDS = 0.5
QUIET_SECONDS = 0.01
BULK_MB = 1_000_000
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

Run = Callable[[float], load.Outcome]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of work. `open_load(stack, port)` gives the function that does it for some seconds."""

    name: str
    title: str
    open_load: Callable[[ExitStack, int], Run]
    operation: int = 1  # how much of Outcome.done is one operation
    proxy: bool = False


def _handshakes(resume: bool) -> Callable[[ExitStack, int], Run]:
    return lambda stack, port: lambda seconds: load.handshakes(port, seconds, resume=resume)


def _kept(stack: ExitStack, port: int) -> Run:
    kept = load.Kept(port)
    stack.callback(kept.close)
    return kept.gets


def _bulk(stack: ExitStack, port: int) -> Run:
    return lambda seconds: load.bulk(port, "/bulk", seconds)


CASES = (
    Case("handshake", "full handshake + GET", _handshakes(resume=False)),
    Case("resumed", "resumed handshake + GET", _handshakes(resume=True)),
    Case("keepalive", "GET kept alive, WSGI (nginx: file)", _kept),
    Case("proxy", "GET through http-to", _kept, proxy=True),
    Case("bulk", "1 MB of a 100 MB body", _bulk, operation=BULK_MB),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: microseconds of CPU an operation, operations a second of wall time, and the part that resumed."""

    cpu_us: float
    per_second: float
    resumed: float


@dataclass(slots=True)
class Cell:
    """What one peer did in one case: its rounds, the cipher it chose, or why it failed."""

    samples: list[Sample] = field(default_factory=list)
    ciphers: set[str] = field(default_factory=set)
    failed: str = ""


Results = dict[str, dict[str, Cell]]


def run(cases: Sequence[Case], names: Sequence[str], rounds: int, seconds: float, directory: Path) -> Results:
    """Measures every case for every peer that can do it; starts what it needs and leaves nothing running."""
    server_cpu, client_cpu = _two_cpus()
    os.sched_setaffinity(0, {client_cpu})
    site = peers.make_site(directory)
    return {case.name: _run_case(case, names, rounds, seconds, site, server_cpu, client_cpu) for case in cases}


def _two_cpus() -> tuple[int, int]:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise peers.PeerError("two CPUs are needed: one for the server, one for the client")
    return cpus[0], cpus[-1]


def _run_case(
    case: Case, names: Sequence[str], rounds: int, seconds: float, site: peers.Site, server_cpu: int, client_cpu: int
) -> dict[str, Cell]:
    cells = {name: Cell() for name in names if not case.proxy or name in peers.PROXIES}
    with ExitStack() as stack:
        if case.proxy:
            stack.callback(peers.start_backend(site, client_cpu).stop)
        servers: dict[str, peers.Server] = {}
        loads: dict[str, Run] = {}
        for name, cell in cells.items():
            with _failure_in(cell, f"{case.title}: {name}"):
                servers[name] = server = peers.start(name, site, proxy=case.proxy, cpu=server_cpu)
                stack.callback(server.stop)
                loads[name] = case.open_load(stack, server.port)
                loads[name](WARM_UP_SECONDS)
        for number in range(1, rounds + 1):
            print(f"bench: {case.title}: round {number} of {rounds}", file=sys.stderr)
            for name, cell in cells.items():
                if not cell.failed:
                    with _failure_in(cell, f"{case.title}: {name}"):
                        _sample(case, servers[name], loads[name], seconds, cell)
        for name, server in servers.items():
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
    before = _settled_cpu_ns(server.pid)
    started = time.monotonic()
    outcome = work(seconds)
    elapsed = time.monotonic() - started
    spent = _settled_cpu_ns(server.pid) - before
    operations = outcome.done / case.operation
    cell.samples.append(Sample(spent / 1000 / operations, operations / elapsed, outcome.resumed / outcome.done))
    cell.ciphers |= outcome.ciphers


def _settled_cpu_ns(root: int) -> int:
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
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    total = 0
    pending = [root]
    while pending:
        pid = pending.pop()
        pending += children.get(pid, [])
        # A process's CPU clock as clock_getcpuclockid(3) makes it: ~pid shifted over CPUCLOCK_SCHED.
        total += time.clock_gettime_ns(((~pid) << 3) | 2) + stats[pid][1] * _NS_PER_TICK
    return total


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
