"""What the supervisor is handed when something changes under it: the configuration, or the program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from uwsgi_tls.watch import Watch
from uwsgi_tls.worker import Task


@dataclass(frozen=True, slots=True)
class Change:
    """What a reload has made. It counts once its generation serves; until then it may never have been."""

    task: Task
    watch: Watch | None
    commit: Callable[[], None]
    abandon: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Left:
    """A worker of the program before ours, which is our child too; moments are time.monotonic() seconds."""

    number: int
    generation: int
    pid: int
    channel: int  # a descriptor
    born: float
    ready: bool
    worn: bool
    retiring: bool
    kill_at: float | None
    slot: int  # of the scoreboard
    harakiri: int  # seconds that a call of its application may last; 0: as long as it likes


@dataclass(frozen=True, slots=True)
class Succession:
    """How far the program before ours has come."""

    generation: int  # that serves
    workers: Sequence[Left]
    strangers: Sequence[int]  # pids of other children, which have been told to end
    change: Change  # to our generation
