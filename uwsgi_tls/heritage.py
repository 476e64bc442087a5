"""What one program leaves to the one that takes its place in the same process: descriptors by name, and a few facts.

An upgrade is an execve(2) of the master: the process stays, with its pid, its children and its descriptors, and loses
its memory. So what cannot be had again after the drop is kept under a name here, and whoever would open it asks for
what was left first. The table is a sealed memfd (memfd_create(2)), whose descriptor a variable names that is removed
from the environment at once; it is meant for the process that it names, and for a child on trial.
"""

import fcntl
import json
import os
import signal
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from uwsgi_tls.errors import ConfigError

VARIABLE = "UWSGI_TLS_HERITAGE"
UPGRADE = signal.SIGRTMIN  # to a master; to one that cannot do it, a signal without meaning
FORMAT = 2  # of the table; another one is refused, and the old program goes on
TABLE_BYTES_MAX = 1 << 20
_STANDARD = (0, 1, 2)  # every program has these
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Heritage:
    """All that is left."""

    fds: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # whatever JSON can hold
    trial: bool = False  # the program is only to find out whether it could take over


_left = Heritage()
_kept: dict[str, int] = {}


def left(name: str) -> int | None:
    """A descriptor of what the program before us has left under that name; None where there is none."""
    fd = _left.fds.get(name)
    return os.dup(fd) if fd is not None else None


def keep(name: str, fd: int) -> int:
    """Has the program after us find `fd` under that name; returns it."""
    _kept[name] = fd
    return fd


def kept() -> dict[str, int]:
    """What has been kept and is still open."""
    return {name: fd for name, fd in _kept.items() if _is_open(fd)}


def inherit(environ: MutableMapping[str, str]) -> Heritage | None:
    """What was left to this process, from now on also through `left`; the variable is removed from `environ`.

    None at a first start. Raises ConfigError for what was left by a program that is too different.
    """
    global _left
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        table = _read(int(text))
        if table["format"] != FORMAT:
            raise ValueError(f"its form is {table['format']}, not {FORMAT}: restart the server instead")
        master = os.getppid() if table["trial"] else os.getpid()
        if table["master"] != master:
            raise ValueError(f"it is meant for process {table['master']}")
        _left = Heritage(table["fds"], table["facts"], table["trial"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(VARIABLE, text, f"what the program before has left cannot be used: {error}") from None
    inheritable(_left.fds.values(), False)
    return _left


def forget() -> None:
    """Closes what was left and nobody has asked for: everybody has what he needs by now."""
    global _left
    for fd in _left.fds.values():
        if fd not in _STANDARD:
            with suppress(OSError):
                os.close(fd)
    _left = Heritage()


def leave(heritage: Heritage, master: int) -> int:
    """A descriptor whose number is to be in VARIABLE for the program that is executed next, in process `master` or, on
    trial, in its child. What it names is inherited from now on. Raises OSError.
    """
    table = {
        "format": FORMAT,
        "master": master,
        "trial": heritage.trial,
        "fds": dict(heritage.fds),
        "facts": dict(heritage.facts),
    }
    memory = os.memfd_create("uwsgi-tls heritage", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memory, json.dumps(table).encode())
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    inheritable((memory, *heritage.fds.values()), True)
    return memory


def inheritable(fds: Iterable[int], yes: bool) -> None:
    """Whether the next program has these descriptors."""
    for fd in fds:
        if fd not in _STANDARD:
            os.set_inheritable(fd, yes)


def _read(fd: int) -> Any:
    try:
        # Nobody can change it, and nobody but memfd_create(2) makes such a file.
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ValueError("it is not sealed")
        return json.loads(os.pread(fd, TABLE_BYTES_MAX, 0))
    finally:
        os.close(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
