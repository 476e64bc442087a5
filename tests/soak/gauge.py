"""What a process tree uses, from /proc, and whether it grows."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blackbox.server import Daemon, Process

MB = 1_000_000
HOUR_SECONDS = 3600.0
CERTAIN = 3.0  # standard errors
LISTEN = "0A"  # TCP_LISTEN of linux/tcp_states.h


@dataclass(frozen=True, slots=True)
class Line:
    """The straight line that lies best in some points, by least squares."""

    first: float  # value at the first point
    slope: float  # a second
    error: float  # standard error of the slope
    seconds: float  # from the first point to the last

    @property
    def growth(self) -> float:
        return self.slope * self.seconds

    def grows(self, least: float, an_hour: float) -> bool:
        """Whether it certainly does by more than `an_hour`, and by as much as `least` in the time that there was."""
        return self.growth > least and (self.slope - CERTAIN * self.error) * HOUR_SECONDS > an_hour


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """The line in (seconds, value) points, of which there are three or more at different times."""
    count = len(points)
    middle = sum(x for x, _ in points) / count
    mean = sum(y for _, y in points) / count
    spread = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - mean) for x, y in points) / spread
    rest = sum((y - mean - slope * (x - middle)) ** 2 for x, y in points)
    begin, end = points[0][0], points[-1][0]
    return Line(mean + slope * (begin - middle), slope, math.sqrt(rest / (count - 2) / spread), end - begin)


def memory(process: Process) -> int:
    """Bytes that it has for itself and its part of what it shares with its kin (proc(5), smaps_rollup); 0: it has gone.

    Without files such as libraries: its part of them grows when programs end that have nothing to do with it.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        return sum(int(size) * 1024 for size in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB$", text, re.MULTILINE))
    return 0


def descriptors(process: Process) -> int:
    """How many it has open; 0: it has gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return len(os.listdir(f"/proc/{process.pid}/fd"))
    return 0


def age(process: Process) -> float:
    """Seconds since it was forked (proc(5), starttime); 0.0: it has gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return 0.0


def role(process: Process) -> str:
    """What it says that it is: master, monitor, stats, worker; "" when it has gone or does not say it yet."""
    words = process.title().split()
    return words[1] if len(words) > 1 and words[0] == "uwsgi-tls" else ""


def zombies(parents: set[int]) -> set[int]:
    """Children of these processes that have ended and are not buried."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z" and int(parent) in parents:
                    found.add(int(entry))
    return found


def client_ports(pid: int, address: tuple[str, int]) -> set[int]:
    """Of the connections to `address` that process holds, the ports of the clients: proc(5), /proc/net/tcp."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").removesuffix("]"))
    host = "".join(f"{int(part):02X}" for part in reversed(address[0].split(".")))
    local, ports = f"{host}:{address[1]:04X}", set()
    with open("/proc/net/tcp") as file:
        for words in map(str.split, file):
            if words[1] == local and words[3] != LISTEN and words[9] in inodes:
                ports.add(int(words[2].rpartition(":")[2], 16))
    return ports


def tree_memory(daemon: Daemon) -> int:
    """Bytes of the whole tree."""
    return sum(memory(process) for process in daemon.tree())
