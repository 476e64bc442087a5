"""The command line of bin/soak: the timetable, the judgement and the table."""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from . import gauge
from .patrons import KINDS, TUNNELS, Contexts, Ledger, Patron, Place, Victims
from .servers import Server, running

RELOAD_SECONDS = 20.0
KILL_SECONDS = 7.0
MEASURE_SECONDS = 5.0
LOOK_SECONDS = 1.0
ZOMBIE_SECONDS = 2.5
WORD_SECONDS = 60.0
WARM_UP_SECONDS = 60.0  # or a third of the time
QUIET_SECONDS = 20.0  # until the last connection has been forgotten
# Memory is flat unless it certainly grows by more than this, so that noise is no failure and a leak is one.
FLAT_BYTES = 2_000_000
FLAT_BYTES_AN_HOUR = 10_000_000


class Soak:
    """One run: what is seen goes to the servers, the ledger and `faults`."""

    def __init__(self, servers: list[Server], seed: int) -> None:
        self.servers = servers
        self.ledger = Ledger()
        self.faults: list[str] = []
        self._victims = Victims()
        self._chance = random.Random(seed)
        self._seed = seed
        self._dead: dict[int, float] = {}  # pids of those that were not buried when last looked at, and since when

    def run(self, seconds: float) -> None:
        for server in self.servers:
            server.settle()
            server.before = server.descriptors()
        with self._patrons():
            self._disturb(seconds)
        for server in self.servers:
            self._guarded(lambda server=server: self._last_look(server))  # type: ignore[misc]  # a lambda's default
        self._judge()

    def _patrons(self) -> ExitStack:
        """Lets them in; they leave at the end of the block."""
        end, stack, seeds = threading.Event(), ExitStack(), itertools.count(self._seed)
        contexts = Contexts()
        for server in self.servers:
            place = Place(server.address, self.ledger, self._victims, contexts, end)
            for kind, act, pause in KINDS + (TUNNELS if server.tunnels else ()):
                patron = Patron(place, kind, act, pause, next(seeds))
                patron.start()
                stack.callback(patron.join)
        stack.callback(end.set)
        return stack

    def _disturb(self, seconds: float) -> None:
        now, turns = time.monotonic(), itertools.count()
        timetable: list[tuple[float, int, float, Callable[[], None]]] = []

        def each(period: float, act: Callable[[], None], after: float = 0.0) -> None:
            timetable.append((now + period + after, next(turns), period, act))

        disturbed = [server for server in self.servers if server.disturbed]
        for number, server in enumerate(disturbed):
            share = number / len(disturbed)
            each(RELOAD_SECONDS, lambda server=server: self._reload(server), share * RELOAD_SECONDS)  # type: ignore[misc]
            each(KILL_SECONDS, lambda server=server: self._kill(server), share * KILL_SECONDS)  # type: ignore[misc]
        for server in self.servers:
            if not server.disturbed:
                each(MEASURE_SECONDS, server.measure)
        each(LOOK_SECONDS, self._look_for_zombies)
        each(WORD_SECONDS, lambda: self._say(time.monotonic() - now))
        heapq.heapify(timetable)
        while timetable[0][0] < now + seconds:
            when, turn, period, act = heapq.heappop(timetable)
            time.sleep(max(0.0, when - time.monotonic()))
            self._guarded(act)
            # What comes too late is not made up for: two looks at once would see what is passing for what stays.
            heapq.heappush(timetable, (max(when + period, time.monotonic()), turn, period, act))

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except AssertionError as error:
            self.faults.append(str(error))

    def _reload(self, server: Server) -> None:
        server.measure()  # as long after the last change as can be
        server.hang_up()

    def _kill(self, server: Server) -> None:
        server.kill(self._chance, self._victims)

    def _look_for_zombies(self) -> None:
        """One that has just ended may be seen; its parent may be busy for a moment."""
        now = time.monotonic()
        dead = gauge.zombies({process.pid for server in self.servers for process in server.daemon.tree()})
        self._dead = {pid: self._dead.get(pid, now) for pid in dead}
        for pid in [pid for pid, since in self._dead.items() if now - since > ZOMBIE_SECONDS]:
            self.faults.append(f"process {pid} ended {now - self._dead[pid]:.1f} seconds ago and is not buried")

    def _say(self, elapsed: float) -> None:
        done, failed = sum(self.ledger.done.values()), sum(self.ledger.failed.values())
        print(f"{elapsed / 60:5.1f} min: {done} requests, {failed} failed", file=sys.stderr, flush=True)

    def _last_look(self, server: Server) -> None:
        """Once more all of it is there and nothing else, it reloads, and it holds no more than it did."""
        if server.disturbed:
            server.settle()
            server.hang_up()
            server.daemon.wait_for_line(rf"generation {1 + server.daemon.log.count(' is serving')} is serving")
            server.check_reloads()
        server.settle()
        deadline = time.monotonic() + QUIET_SECONDS
        server.after = server.descriptors()
        while server.after != server.before and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            server.after = server.descriptors()

    def _judge(self) -> None:
        self.faults += self.ledger.texts
        for kind, *_ in KINDS + TUNNELS:
            if not self.ledger.done[kind]:
                self.faults.append(f"nothing of kind {kind!r} was ever done")
        if not self.ledger.resumed["resumed"]:
            self.faults.append("no session was ever resumed")
        for server in self.servers:
            for name, count in server.after.items():
                if count > server.before.get(name, 0):
                    self.faults.append(f"{server.name}: {name} has {count} descriptors, had {server.before}")
            for what, points in (("the tree", server.memory), ("the master", server.master)):
                line = fitted(points)
                if line is not None and line.grows(FLAT_BYTES, FLAT_BYTES_AN_HOUR):
                    self.faults.append(f"{server.name}: memory of {what} grows: {words(line)} MB an hour")


def fitted(points: list[tuple[float, float]]) -> gauge.Line | None:
    """The line after the warm-up; None: too few points for one."""
    if not points:
        return None
    begin = points[0][0] + min(WARM_UP_SECONDS, (points[-1][0] - points[0][0]) / 3)
    late = [point for point in points if point[0] >= begin]
    return gauge.fit(late) if len(late) > 3 else None


def words(line: gauge.Line | None) -> str:
    if line is None:
        return "too short"
    return f"{line.slope * gauge.HOUR_SECONDS / gauge.MB:+.1f} ± {line.error * gauge.HOUR_SECONDS / gauge.MB:.1f}"


def table(soak: Soak, seconds: float) -> str:
    ledger = soak.ledger
    columns = {
        "connections": ledger.connections,
        "resumed": ledger.resumed,
        "done": ledger.done,
        "retried": ledger.retried,
        "cut": ledger.cut,
        "failed": ledger.failed,
    }
    lines = [f"{'patrons':<20}" + "".join(f"{name:>13}" for name in columns) + f"{'done/s':>9}"]
    for kind in [each[0] for each in KINDS + TUNNELS] + ["all"]:
        counts = {name: sum(count.values()) if kind == "all" else count[kind] for name, count in columns.items()}
        numbers = "".join(f"{count:>13}" for count in counts.values())
        lines.append(f"{kind:<20}{numbers}{counts['done'] / seconds:>9.1f}")
    lines.append("retried: the worker was killed before any byte of the answer; cut: within the answer")
    lines.append("")
    lines.append(f"{'server':<28}{'reloads':>8}{'kills':>7}{'MB':>8}{'MB/hour':>15}{'master':>15}   descriptors")
    for server in soak.servers:
        line = fitted(server.memory)
        size = f"{line.first / gauge.MB:.1f}" if line else "-"
        held = ", ".join(f"{name} {server.before.get(name, 0)}>{count}" for name, count in sorted(server.after.items()))
        lines.append(
            f"{server.name:<28}{server.reloads:>8}{server.kills:>7}{size:>8}{words(line):>15}"
            f"{words(fitted(server.master)):>15}   {held}"
        )
    lines.append(
        "MB: proportional set size of the tree, files apart, after the warm-up; ±: standard error of the slope"
    )
    return "\n".join(lines)


def main() -> int:
    """Returns 0, 1 where something was not as it must be, 69 without root, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="soak",
        description="Four servers under mixed load for some minutes; two of them are reloaded every 20 seconds and "
        "lose a worker every 7. No request may fail, memory and descriptors stay flat, no process is left.",
    )
    parser.add_argument("minutes", type=float, nargs="?", default=3.0, help="default: 3")
    parser.add_argument("--seed", type=int, default=0, help="for what is left to chance; default: another each time")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error("minutes: more than 0")
    if os.geteuid() != 0:
        print("soak: only root can give root up, and look into the servers: run it as root", file=sys.stderr)
        return 69
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    seed = options.seed or random.randrange(1, 1_000_000)
    print(f"soak: {options.minutes:g} minutes, seed {seed}", file=sys.stderr, flush=True)
    seconds = options.minutes * 60
    faults: list[str] = []
    try:
        with running() as servers:
            soak = Soak(servers, seed)
            soak.run(seconds)
            faults = soak.faults
            print(table(soak, seconds))
    except KeyboardInterrupt:
        print("soak: interrupted", file=sys.stderr)
        return 130
    except AssertionError as error:  # of the start, or what was left at the end
        faults = [*faults, str(error)]
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{len(faults)} faults" if faults else "no request failed, memory and descriptors are flat, nothing is left")
    return 1 if faults else 0


def _interrupted(number: int, frame: object) -> None:
    """Unwinds, so that the servers are stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
