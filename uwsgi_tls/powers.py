"""What a process may do and what it holds: ids, capabilities, limits, descriptors, as proc(5) shows them from outside.

Descriptors, limits and the root directory of a process that gave up being dumpable are shown to root alone; what
cannot be seen is None here.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

SETS = {
    "permitted": "CapPrm",
    "effective": "CapEff",
    "inheritable": "CapInh",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}
LIMITS = {"core": "Max core file size", "nproc": "Max processes", "nofile": "Max open files", "fsize": "Max file size"}
UNLIMITED = "unlimited"

_TCP_LISTEN = "0A"  # include/net/tcp_states.h
_UNIX_ACCEPTS = 0x10000  # __SO_ACCEPTCON, linux/net.h


@dataclass(frozen=True, slots=True)
class Powers:
    """Those of one process."""

    uids: tuple[int, ...]  # real, effective, saved, of the file system; gids likewise
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    capabilities: Mapping[str, int]  # a bit for each, by the names of SETS
    no_new_privs: bool
    dumpable: bool | None  # whether others of its user may look into it; of a process of root it cannot be told
    seccomp: int  # 0: no filter of system calls, 1: strict, 2: filters
    umask: int
    limits: Mapping[str, str] | None  # the hard ones, by the names of LIMITS
    root: str | None  # its root directory
    descriptors: tuple[str, ...] | None  # of what kind each is


def of(pid: int) -> Powers:
    """Those of a process that runs. Raises OSError if there is none."""
    place = Path(f"/proc/{pid}")
    lines = (place / "status").read_text(errors="replace").splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    uids = _numbers(status["Uid"])
    return Powers(
        uids=uids,
        gids=_numbers(status["Gid"]),
        groups=_numbers(status["Groups"]),
        capabilities={name: int(status[field], 16) for name, field in SETS.items()},
        no_new_privs=status["NoNewPrivs"] == "1",
        # Its files in /proc belong to root exactly when it is not dumpable: proc(5).
        dumpable=os.stat(place / "mem").st_uid != 0 if uids[1] else None,
        seccomp=int(status.get("Seccomp", "0")),
        umask=int(status["Umask"], 8),
        limits=_limits(place),
        root=_link(place / "root"),
        descriptors=_descriptors(place),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


def _limits(place: Path) -> Mapping[str, str] | None:
    with suppress(PermissionError):
        rows = (place / "limits").read_text().splitlines()[1:]
        hard = {row[:25].strip(): row[25:].split()[1] for row in rows}
        return {name: hard[title] for name, title in LIMITS.items()}
    return None


def _descriptors(place: Path) -> tuple[str, ...] | None:
    try:
        numbers = sorted(map(int, os.listdir(place / "fd")))
    except PermissionError:
        return None
    sockets = dict(_sockets(place))
    targets = (_link(place / "fd" / str(number)) for number in numbers)
    return tuple(_kind(target, sockets) for target in targets if target is not None)


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:  # not ours to see, or closed meanwhile
        return None


def _kind(target: str, sockets: Mapping[str, str]) -> str:
    """Of one descriptor, in words without numbers of the kernel's, so that equal ones can be counted."""
    kind, _, rest = target.partition(":")
    match kind:
        case "socket":
            return sockets.get(rest.strip("[]"), "socket")
        case "pipe":
            return "pipe"
        case "anon_inode":
            return rest.strip("[]").removeprefix("event").replace("poll", "epoll")
        case _:
            return target.removesuffix(" (deleted)") if not target.endswith(" (deleted)") else "file without a name"


def _sockets(place: Path) -> Iterator[tuple[str, str]]:
    """The inode of each socket of its network, and what it is: /proc/net/tcp, tcp6 and unix in proc(5)."""
    for table in ("tcp", "tcp6"):
        for fields in _rows(place / "net" / table):
            listens = fields[3] == _TCP_LISTEN
            yield fields[9], f"listening socket {_address(fields[1])}" if listens else "connection"
    for fields in _rows(place / "net" / "unix"):
        name = fields[7] if len(fields) > 7 else ""
        listens = bool(int(fields[3], 16) & _UNIX_ACCEPTS)
        yield fields[6], f"listening socket {name}" if listens else "UNIX socket"


def _rows(path: Path) -> Iterator[list[str]]:
    with suppress(OSError):  # no IPv6, or not ours to see
        yield from (line.split() for line in path.read_text(errors="replace").splitlines()[1:])


def _address(text: str) -> str:
    """HOST:PORT; the kernel shows an address as words of the machine's own byte order."""
    host, _, port = text.partition(":")
    data = b"".join(bytes.fromhex(word)[::-1] for word in re.findall("." * 8, host))
    shown = f"[{IPv6Address(data)}]" if len(data) > 4 else str(IPv4Address(data))
    return f"{shown}:{int(port, 16)}"
