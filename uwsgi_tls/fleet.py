"""The workers that there should be, one of each number: forked, replaced when they die, wear out or get stuck.

While another generation comes, the one that serves is kept up as well. When another one comes, whether it serves or is
given up, and when all is over, the supervisor says.
"""

import signal
import time

from uwsgi_tls.change import Succession
from uwsgi_tls.heritage import Heritage
from uwsgi_tls.logs import line
from uwsgi_tls.options import Config
from uwsgi_tls.overdue import Overdue
from uwsgi_tls.respawn import Respawn
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.worker import Task
from uwsgi_tls.workers import Worker, Workers

STUCK_SECONDS = 2.0  # without a sign of life, where a worker gives two a second; half of WATCHDOG_USEC if that is more


class Fleet:
    """`wanted` workers, numbered from 1. Those of an earlier generation are among `workers` until they have ended."""

    def __init__(self, task: Task, workers: Workers, scoreboard: Scoreboard) -> None:
        """`task` is what each worker gets that is forked until there is another one."""
        self.task = task  # of the generation that comes
        self.workers = workers
        self.wanted = task.config.processes
        self.generation = 1  # that serves
        self.coming = 1  # that is to serve next; the same when nothing is under way
        self._before = (task, self.wanted)  # of the one that serves while another comes
        self.respawn = Respawn()
        self._stopgap = Respawn()  # of those that serve while others come
        self._scoreboard = scoreboard
        self._last_status = 0  # of one that could not start
        self.configure(task.config)

    def configure(self, config: Config) -> None:
        """What follows from the configuration of those that serve."""
        self._config = config
        self.respawn = Respawn(config.forkbomb_delay)
        self._stopgap = Respawn(config.forkbomb_delay)
        self._overdue = Overdue(config.worker_start_timeout)

    def adopt(self, left: Succession) -> None:
        """Has the workers of the program before ours serve until ours do, each under the harakiri that it had.

        Who comes in the place of one of them gets our task, since theirs is not known.
        """
        for each in left.workers:
            self.workers.adopt(each)
        self.generation, self.coming = left.generation, left.generation + 1

    def bequeath(self) -> Heritage:
        """For the program after ours, while nothing is under way."""
        fds, workers = self.workers.bequeath()
        return Heritage(fds, {"generation": self.generation, "workers": workers})

    @property
    def moment(self) -> float:
        """When keep_time() has something to do next, in seconds of time.monotonic()."""
        return min(self.workers.moment, self._overdue.moment(self.workers), self.respawn.moment, self._stopgap.moment)

    @property
    def is_changing(self) -> bool:
        """Whether another generation is to come than the one that serves."""
        return self.coming != self.generation

    def begin(self) -> None:
        """Forks a worker of each number for the generation that comes."""
        self.respawn.forget()
        for number in range(1, self.wanted + 1):
            self.spawn(number)

    def change(self, task: Task) -> None:
        """Has another generation come, which gets `task`."""
        self._before = (self.task, self.wanted)
        if task.config.processes != self.task.config.processes:
            self.wanted = task.config.processes
        self.task = task
        self.coming += 1
        self.begin()

    def promote(self) -> None:
        """The generation that has come serves, and whoever is of another one has done its work."""
        self.generation = self.coming
        self._stopgap.forget()
        for child in self.workers:
            if child.generation != self.generation:
                child.retire(self._config.worker_reload_mercy)

    def go_back(self) -> None:
        """The generation that was to come does not: all is as it was, and those come that are missing."""
        for child in self.workers:
            if child.generation == self.coming:
                child.retiring = True
                child.signal(signal.SIGKILL)
        self.coming = self.generation
        self.task, self.wanted = self._before
        self._stopgap.forget()
        self.respawn.forget()  # of those that were to come, some may have died and wait for their next attempt
        alive = {child.number for child in self.workers if not child.retiring}
        for number in set(range(1, self.wanted + 1)) - alive:
            self.respawn.at(number, time.monotonic())

    def spawn(self, number: int) -> None:
        """Forks one; where that cannot be, another attempt follows."""
        self._spawn(number, self.task, self.coming, self.respawn)

    def _spawn(self, number: int, task: Task, generation: int, respawn: Respawn) -> None:
        try:
            self.workers.spawn(task, number, generation)
        except OSError as error:
            respawn.in_vain += 1
            delay = respawn.failed(number, time.monotonic())
            line(f"unable to fork worker {number}: {error}; another attempt follows in {delay:g} seconds")

    def hear(self) -> None:
        """Takes in what the workers say; who is ready takes over from who had its number before."""
        for child in self.workers.hear():
            self.respawn.in_vain = 0
            if child.retiring or child.condemned:  # its word was under way when it was told to end
                continue
            child.slot.enter("serving", child.pid)  # one of the program before ours tells it to another scoreboard
            for other in self.workers:
                is_older = (other.number, other.generation) == (child.number, child.generation) and other is not child
                if is_older and not other.retiring:
                    line(f"{child.name} takes over from {other.name}")
                    other.retire(self._config.worker_reload_mercy)

    def keep_time(self, now: float, *, may_fork: bool) -> None:
        """Kills whose time is over, and forks whose moment has come."""
        for child, why in self._overdue.look(now, self.workers):
            line(f"{child.name} {why}: it is killed, and this is where its threads are")
            child.condemn()
            if child.ready:
                self._scoreboard.harakiri(child.number)
        self.workers.kill_overdue(now)
        for number in self.respawn.due(now):
            if may_fork and number <= self.wanted:
                self.spawn(number)
        for number in self._stopgap.due(now):
            if may_fork:
                self._spawn(number, self._before[0], self.generation, self._stopgap)

    def replace_worn(self) -> None:
        """Forks a successor of one that has asked for it: of one at a time, which serves until the successor does.

        Not while another of its number retires: clients that make workers worn and hold on to them would pile them up.
        """
        if not self.respawn.is_pending and all(child.ready for child in self.workers):
            retiring = {child.number for child in self.workers if child.retiring}
            worn = next((child for child in self.workers if child.worn and child.number not in retiring), None)
            if worn is not None:
                self.spawn(worn.number)

    def died(self, child: Worker, how: str, status: int) -> str:
        """One of those that serve, or that should, is no more; returns what to say of it and of who comes instead."""
        others = [other for other in self.workers if other.number == child.number and not other.retiring]
        if any(not other.ready and other.generation == child.generation for other in others):
            return f"{child.name} died ({how}); its successor is about to serve"
        respawn = self.respawn
        if child.generation != self.coming:
            if any(other.ready for other in others):
                return f"{child.name} died ({how}); generation {self.coming} is about to follow"
            respawn = self._stopgap
        now, delay = time.monotonic(), 0.0
        if child.ready and child.condemned:
            respawn.at(child.number, now)
        else:
            delay = respawn.died(child.number, now - child.born, now)
        if delay > 0:
            line(f"worker respawning too fast !!! i have to sleep a bit ({delay:g} seconds)...")  # uWSGI's words
        if not child.ready:
            respawn.in_vain += 1
            self._last_status = status
        return f"{child.name} died ({how}); a new one comes in {delay:g} seconds"

    @property
    def in_vain(self) -> str:
        """Where nobody has served for long and nobody ever will: that, in words; else nothing."""
        limit, attempts = self._config.respawn_limit * self.wanted, self.respawn.in_vain
        if not 0 < limit <= attempts or any(child.ready and not child.retiring for child in self.workers):
            return ""
        cause = f", the last one with exit status {self._last_status}" if self._last_status else ""
        return f"nobody serves, and {attempts} attempts in a row to start a worker have failed{cause}"

    @property
    def is_complete(self) -> bool:
        """Whether all of the generation that comes are ready."""
        fresh = [child for child in self.workers if child.generation == self.coming and not child.retiring]
        return len(fresh) >= self.wanted and all(child.ready for child in fresh)

    def is_alive(self, watchdog: float) -> bool:
        """Whether each worker is there and shows signs of life; one that still loads its application need not yet.

        `watchdog`: the time in seconds within which somebody wants to know.
        """
        now, limit = time.monotonic(), max(watchdog / 2, STUCK_SECONDS)
        serving = [child for child in self.workers if not child.retiring]
        for child in serving:
            was, child.stuck = child.stuck, child.ready and now - child.slot.last_beat > limit
            if child.stuck and not was:
                line(f"{child.name} gives no sign of life: the watchdog is not fed")
        there = {child.number for child in serving if not child.stuck}
        return there.issuperset(range(1, self.wanted + 1)) and not any(child.stuck for child in serving)

    def resize(self, wanted: int) -> None:
        """From now on so many. Who waits for his moment goes on waiting."""
        for number in range(self.wanted + 1, wanted + 1):
            self.respawn.at(number, time.monotonic())
        self.wanted = wanted
        for child in self.workers:
            if child.number > wanted:
                child.retire(self._config.worker_reload_mercy)
