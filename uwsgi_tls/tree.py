"""A process and its children as proc(5) shows them to everybody: what each is called, how old and how big it is."""

import os
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the name in brackets, which may hold anything.
_STATE, _PARENT, _STARTED, _RESIDENT = 0, 1, 19, 21

UNUSUAL = {"T": "stopped", "t": "traced", "D": "waits for a device", "Z": "ended, not yet buried"}  # of the states


@dataclass(frozen=True, slots=True)
class Process:
    """One process."""

    pid: int
    parent: int
    state: str  # a letter
    age: float  # seconds
    resident: int  # bytes
    title: str


def process(pid: int) -> Process | None:
    """That of the number; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        uptime = float(Path("/proc/uptime").read_bytes().split()[0])
        title = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return None
    return Process(
        pid=pid,
        parent=int(fields[_PARENT]),
        state=fields[_STATE].decode(),
        age=max(0.0, uptime - int(fields[_STARTED]) / _TICKS),
        resident=int(fields[_RESIDENT]) * _PAGE_BYTES,
        title=title.decode(errors="replace"),
    )


def children(parent: int) -> list[Process]:
    """Its children, as far as they can be seen (hidepid, proc(5)), by number."""
    return [each for each in _all() if each.parent == parent]


def family(ancestor: int) -> list[Process]:
    """It, its children and theirs, each after its parent, from a single look at /proc; empty if it has ended."""
    by_parent: dict[int, list[Process]] = {}
    found = []
    for each in _all():
        by_parent.setdefault(each.parent, []).append(each)
        if each.pid == ancestor:
            found.append(each)
    for each in found:
        found += by_parent.pop(each.pid, [])  # taken once: a number that was reused meanwhile makes no circle
    return found


def _all() -> list[Process]:
    found = (process(pid) for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()))
    return [each for each in found if each is not None]
