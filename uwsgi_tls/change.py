"""What the supervisor is handed when something changes under it: the configuration, or the program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from uwsgi_tls.scoreboard import Scoreboard
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
    retiring: bool
    kill_at: float | None
    slot: int = 0  # of the scoreboard that was left to us; 0: it is another one


@dataclass(frozen=True, slots=True)
class Succession:
    """How far the program before ours has come."""

    generation: int  # that serves
    workers: Sequence[Left]
    strangers: Sequence[int]  # pids of other children, which have been told to end
    change: Change  # to our generation
    scoreboard: Scoreboard = field(default_factory=Scoreboard)
