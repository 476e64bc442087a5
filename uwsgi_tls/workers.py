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
from typing import Any

from uwsgi_tls import worker
from uwsgi_tls.change import Left
from uwsgi_tls.logs import line
from uwsgi_tls.scoreboard import Scoreboard, Slot
from uwsgi_tls.worker import Seat, Task

NEVER = float("inf")
FOR_EVER = 1e9  # seconds of time.monotonic(): decades
KILL_GRACE_SECONDS = 1.0  # beyond the mercy, which a worker keeps by itself
STACKS_SECONDS = 3.0  # that a condemned worker has at most to say where it is
FIRST_WORD_SECONDS = 1.0  # of these, until it begins: one that is stopped never does
SILENCE_SECONDS = 0.3  # after it has begun: it has said all
EXIT_FAILED = 1
_READ_BYTES = 65536  # at once, of what a worker says
_READS = 16
_LINE_BYTES = 4096  # one that is longer is cut there


@dataclass(slots=True)
class Worker:
    """A child: which number it bears, of which generation, and how far it is."""

    number: int
    generation: int
    pid: int
    channel: socket.socket
    born: float
    slot: Slot
    harakiri: int = 0  # seconds that a call of its application may last; 0: as long as it likes
    ready: bool = False
    stuck: bool = False  # and that has been said
    worn: bool = False  # it has asked for a successor
    retiring: bool = False
    condemned: float = 0.0  # it is to be killed at that moment at the latest; 0.0: it is not
    kill_at: float = NEVER
    said: bytes = b""  # the beginning of a line

    @property
    def name(self) -> str:
        """As the log calls it."""
        return f"worker {self.number} (pid: {self.pid})"

    def signal(self, number: int) -> None:
        """Sends it a signal; nothing where it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def retire(self, mercy: float) -> None:
        """Has it finish what it has under way and end, within `mercy` seconds, or less if it has less already.

        One that is not ready has nothing under way.
        """
        end = time.monotonic() + (mercy if self.ready else 0.0)
        if self.retiring and end + KILL_GRACE_SECONDS >= self.kill_at:
            return
        self.retiring = True
        self.slot.must_end(end)
        if self.ready:
            self.slot.enter("draining", self.pid)  # one of the program before ours tells it to another scoreboard
        self.kill_at = min(self.kill_at, end + KILL_GRACE_SECONDS)
        self.signal(signal.SIGTERM)

    def condemn(self) -> None:
        """Kills it once it has said where each of its threads is (faulthandler, in worker.py)."""
        now = time.monotonic()
        self.condemned = now + STACKS_SECONDS
        self.kill_at = min(self.kill_at, now + FIRST_WORD_SECONDS)
        self.signal(worker.STACKS_SIGNAL)

    def hear(self) -> None:
        """Takes in what it has said on its channel: two bytes mean something, all others are lines for the log."""
        with suppress(BlockingIOError, ConnectionError):
            for _ in range(_READS):  # of an application that never stops to talk the rest is heard later
                said = self.channel.recv(_READ_BYTES, socket.MSG_DONTWAIT)
                if not said:
                    break
                self.ready |= worker.READY in said
                self.worn |= worker.WORN in said
                self._take_down(said.replace(worker.READY, b"").replace(worker.WORN, b""))

    def _take_down(self, text: bytes) -> None:
        *lines, self.said = (self.said + text).split(b"\n")
        if len(self.said) > _LINE_BYTES:
            lines, self.said = [*lines, self.said], b""
        for each in filter(None, lines):
            line(f"worker {self.number} | {each[:_LINE_BYTES].decode(errors='replace')}")
        if text and self.condemned:
            self.kill_at = min(time.monotonic() + SILENCE_SECONDS, self.condemned)


class Workers:
    """All that live, of every generation."""

    def __init__(self, scoreboard: Scoreboard, masters_own: Callable[[Task], None]) -> None:
        """`masters_own` closes, in a worker with that task, what only the master may hold."""
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
        self._by_pid[pid] = Worker(number, generation, pid, ours, time.monotonic(), slot, task.harakiri)
        line(f"spawned uwsgi-tls worker {number} (pid: {pid}, generation: {generation})")

    def adopt(self, left: Left) -> None:
        """Has a worker of the program before ours among them, our child as it was that one's."""
        # What it counts goes to the slot that it has had in that program: here is no more than what we know.
        slot = self._scoreboard.take_over(left.slot, left.number, left.generation)
        slot.enter("draining" if left.retiring else "serving" if left.ready else "starting", left.pid)
        if not slot.last_beat:  # it is about to tell, or there was no memory to leave: it is alive, whatever it does
            slot.beat(FOR_EVER)
        channel = socket.socket(fileno=left.channel)
        kill_at = NEVER if left.kill_at is None else left.kill_at
        self._by_pid[left.pid] = Worker(
            *(left.number, left.generation, left.pid, channel, left.born, slot, left.harakiri),
            ready=left.ready,
            worn=left.worn,
            retiring=left.retiring,
            kill_at=kill_at,
        )

    def bequeath(self) -> tuple[dict[str, int], list[list[Any]]]:
        """For the program after ours: their channels by name, and of each what Left has, the name for the channel."""
        fds, workers = {}, []
        for child in self._by_pid.values():
            name = f"worker {child.pid}"
            fds[name] = child.channel.fileno()
            kill_at = None if child.kill_at == NEVER else child.kill_at  # JSON has no infinity
            how = (child.born, child.ready, child.worn, child.retiring, kill_at, child.slot.index, child.harakiri)
            workers.append([child.number, child.generation, child.pid, name, *how])
        return fds, workers

    def _become_worker(self, task: Task, seat: Seat, masters_end: socket.socket) -> None:
        """The child's side of the fork; does not return. It keeps nothing of its siblings'."""
        status = EXIT_FAILED
        try:
            masters_end.close()
            for sibling in self._by_pid.values():
                sibling.channel.close()
            self._masters_own(task)
            status = worker.run(task, seat)
        except Exception as error:  # the last place that can say it; the master sees only the status
            line(f"worker {seat.number} failed: {type(error).__name__}: {error}")
        finally:
            worker.leave(status)

    def hear(self) -> list[Worker]:
        """Takes in what they have said; returns those that have become ready."""
        waiting = [child for child in self._by_pid.values() if not child.ready]
        for child in self._by_pid.values():
            child.hear()
        return [child for child in waiting if child.ready]

    def kill_overdue(self, now: float) -> None:
        """Ends those who have had time enough to end by themselves."""
        for child in self._by_pid.values():
            if child.kill_at <= now:
                if not child.condemned:
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
        child.hear()
        child.channel.close()
        self._scoreboard.give_back(child.slot)
        if os.WIFSIGNALED(status):
            return child, f"killed by signal {os.WTERMSIG(status)}", 0
        return child, f"exit {os.WEXITSTATUS(status)}", os.WEXITSTATUS(status)
