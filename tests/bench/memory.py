"""How much memory processes have, from /proc/PID/smaps_rollup (proc(5))."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def resident_bytes(pids: Iterable[int]) -> int:
    """Of these, with what is shared divided among those who share it (Pss)."""
    return sum(_field(pid, ("Pss:",)) for pid in pids)


def private_bytes(pids: Iterable[int]) -> int:
    """Of these, what no other process has."""
    return sum(_field(pid, ("Private_Clean:", "Private_Dirty:")) for pid in pids)


def _field(pid: int, names: tuple[str, ...]) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))
