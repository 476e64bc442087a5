"""The master's children that serve: forked, heard, told to end, killed when they do not, buried.

What their deaths mean, and when the next ones come, is the supervisor's to say.
"""

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from uwsgi_tls import worker
from uwsgi_tls.logs import line
from uwsgi_tls.scoreboard import Scoreboard, Slot
from uwsgi_tls.worker import Seat, Task

NEVER = float("inf")
KILL_GRACE_SECONDS = 1.0  # beyond the mercy, which a worker keeps by itself
EXIT_FAILED = 1


@dataclass(slots=True)
class Worker:
    """A child: which number it bears, of which generation, and how far it is."""

    number: int
    generation: int
    pid: int
    channel: socket.socket
    born: float
    slot: Slot
    ready: bool = False
    stuck: bool = False  # and that has been said
    retiring: bool = False
    kill_at: float = NEVER

    @property
    def name(self) -> str:
        """As the log calls it."""
        return f"worker {self.number} (pid: {self.pid})"

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; nothing where it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def retire(self, mercy: float) -> None:
        """Has it finish what it has under way and end, within `mercy` seconds."""
        if not self.retiring:
            self.retiring = True
            self.kill_at = time.monotonic() + mercy + KILL_GRACE_SECONDS
            self.signal(signal.SIGTERM)


class Workers:
    """All that live, of every generation."""

    def __init__(self, scoreboard: Scoreboard, masters_own: Callable[[], None]) -> None:
        """`masters_own` closes, in a worker, what only the master may hold."""
        self._scoreboard = scoreboard
        self._masters_own = masters_own
        self._by_pid: dict[int, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._by_pid.values()))

    def __bool__(self) -> bool:
        return bool(self._by_pid)

    @property
    def moment(self) -> float:
        """When kill_overdue() has something to do next, in seconds of time.monotonic()."""
        return min((child.kill_at for child in self._by_pid.values()), default=NEVER)

    def spawn(self, task: Task, number: int, generation: int) -> None:
        """Forks a worker. Raises OSError where there is no room for one."""
        ours, theirs = socket.socketpair()
        # Before the fork: a worker may be ready before we run again, and its word must not come without its signal.
        fcntl.fcntl(ours, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        slot: Slot | None = None
        try:
            slot = self._scoreboard.take(number, generation)
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            if slot is not None:
                self._scoreboard.give_back(slot)
            raise
        if pid == 0:
            self._become_worker(task, Seat(number, generation, theirs, slot), ours)
        theirs.close()
        self._by_pid[pid] = Worker(number, generation, pid, ours, time.monotonic(), slot)
        line(f"spawned uwsgi-tls worker {number} (pid: {pid}, generation: {generation})")

    def _become_worker(self, task: Task, seat: Seat, masters_end: socket.socket) -> None:
        """The child's side of the fork; does not return. It keeps nothing of its siblings'."""
        status = EXIT_FAILED
        try:
            masters_end.close()
            for sibling in self._by_pid.values():
                sibling.channel.close()
            self._masters_own()
            status = worker.run(task, seat)
        except Exception as error:  # the last place that can say it; the master sees only the status
            line(f"worker {seat.number} failed: {type(error).__name__}: {error}")
        finally:
            worker.leave(status)

    def hear(self) -> None:
        """Takes their word that they are ready."""
        for child in self._by_pid.values():
            if not child.ready:
                with suppress(BlockingIOError, ConnectionError):
                    if child.channel.recv(1, socket.MSG_DONTWAIT) == worker.READY:
                        child.ready = True

    def kill_overdue(self, now: float) -> None:
        """Ends those who have had time enough to end by themselves."""
        for child in self._by_pid.values():
            if child.kill_at <= now:
                line(f"{child.name} is taking too much time to end: killed")
                child.kill_at = NEVER
                child.signal(signal.SIGKILL)

    def bury(self) -> Iterator[tuple[Worker, str, int]]:
        """Each that has ended, how it did in words, and its exit status, 0 where a signal ended it."""
        for pid in list(self._by_pid):
            with suppress(ChildProcessError):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    yield self._buried(pid, status)
        if os.getpid() == 1:
            yield from self._bury_strangers()

    def _bury_strangers(self) -> Iterator[tuple[Worker, str, int]]:
        """As init of a container the master has the orphans of applications to bury (docker's PID 1)."""
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] in self._by_pid:  # it died since bury() looked
                    yield self._buried(*found)

    def _buried(self, pid: int, status: int) -> tuple[Worker, str, int]:
        child = self._by_pid.pop(pid)
        child.channel.close()
        self._scoreboard.give_back(child.slot)
        if os.WIFSIGNALED(status):
            return child, f"killed by signal {os.WTERMSIG(status)}", 0
        return child, f"exit {os.WEXITSTATUS(status)}", os.WEXITSTATUS(status)
