"""The master's life after the drop: forks workers, replaces the dead, reloads in generations, stops.

It has one thread, no signal handlers and no connection. Signals are blocked and taken one by one with
sigtimedwait(2), a worker's word on its channel comes as SIGIO (fcntl(2), F_SETSIG), and everything else is a moment
in time to wait for; so nothing can interrupt it half-way, get lost in a fork, or make it reap a stranger's child.
"""

import signal
import time
from collections.abc import Callable, Sequence

from uwsgi_tls import fifo, logs, titles
from uwsgi_tls.change import Change, Succession
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.fifo import Fifo
from uwsgi_tls.heritage import UPGRADE, Heritage
from uwsgi_tls.logs import line
from uwsgi_tls.monitor import Monitor
from uwsgi_tls.notify import Notifier, State
from uwsgi_tls.options import Config
from uwsgi_tls.overdue import Overdue
from uwsgi_tls.respawn import Respawn
from uwsgi_tls.scoreboard import Reading, Scoreboard
from uwsgi_tls.stats.process import StatsProcess
from uwsgi_tls.teller import Teller
from uwsgi_tls.upgrade import Upgrade
from uwsgi_tls.watch import LOOK_SECONDS, Watch, of_touches
from uwsgi_tls.worker import Task
from uwsgi_tls.workers import EXIT_FAILED, Worker, Workers

IDLE_SECONDS = 3600.0
DAY_SECONDS = 86400.0
STUCK_SECONDS = 2.0  # without a sign of life, where a worker gives two a second; half of WATCHDOG_USEC if that is more
EXIT_STOPPED = 0
RELOAD_FAILED = "reload failed"  # so begins what is said of it
EXIT_GAVE_UP = 75  # EX_TEMPFAIL of sysexits.h: another start may succeed, where EXIT_FAILED is in vain

# Those that tell of a fault in this very process must not be blocked (pthread_sigmask(3)), and stopping a job from the
# terminal stays what it is. SIGPIPE stays ignored: taken here, each line that says so would bring about the next.
_LEFT_ALONE = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGPIPE,
}
BLOCKED = signal.valid_signals() - _LEFT_ALONE


class Supervisor:
    """Keeps `config.processes` workers of the newest generation serving."""

    def __init__(
        self,
        task: Task,
        *,
        reopen: Callable[[], Change],
        started: Callable[[int], None],
        masters_own: Callable[[], None],
        daily: Callable[[], None],
        refuse: Callable[[], None] = lambda: None,
        monitor: Monitor | None = None,
        watch: Watch | None = None,
        notifier: Notifier | None = None,
        stats: StatsProcess | None = None,
        teller: Teller | None = None,
        fifos: Sequence[Fifo] = (),
        upgrade: Upgrade | None = None,
        succession: Succession | None = None,
    ) -> None:
        """`task` is what each worker gets; `reopen` makes what a new generation gets (raises
        ConfigError); `started` is told how the first start went, as an exit status; `masters_own` closes, in a
        worker, what only the master may hold; `daily` is called once a day; `refuse` closes
        the listening sockets, once no worker is to come any more; what `watch` sees change brings a reload
        about; `notifier` leads to the service manager; `stats` tells whoever asks how all this is, and `teller` whoever
        may signal us; `fifos` are pipes in which we are told what to do; `upgrade`
        replaces our program by another one, and `succession` is what is left of the one that we have replaced."""
        self._task = task
        self._reopen = reopen
        self._started = started
        self._daily = daily
        self._refuse = refuse
        self._next_day = time.monotonic() + DAY_SECONDS
        self._monitor = monitor
        self._notifier = Notifier() if notifier is None else notifier
        self._scoreboard = Scoreboard()
        self._stats = StatsProcess() if stats is None else stats
        self._teller = teller
        self._fifos = fifos
        self._failure = ""  # the last one of this generation
        self._rejected = ""  # the last reload, if it failed: why
        self._reload_again = self._upgrade_again = False  # asked for while something was under way
        self._upgrade = upgrade
        self._succession = succession
        self._change: Change | None = None  # that is not sure yet
        self._before = task  # what workers get where it is abandoned
        self._workers = Workers(self._scoreboard, masters_own)
        self._configure(task.config, watch)
        self._wanted = task.config.processes
        self._generation = 1  # that serves
        self._coming = 1  # that is to serve next; the same when nothing is under way
        self._serving = False  # the first generation has become ready
        self._stop_at: float | None = None
        self._status = EXIT_STOPPED

    def _configure(self, config: Config, watch: Watch | None) -> None:
        """What follows from the configuration of those that serve."""
        before = self._before.config
        is_new = before is config
        self._config = config
        self._watch = watch
        if is_new or before.touch_logreopen != config.touch_logreopen:  # else a touch of just now would be lost
            self._logs_touched = of_touches(config.touch_logreopen)
        if is_new or before.touch_reload != config.touch_reload:
            self._touched = of_touches(config.touch_reload)
        looks = watch is not None or config.touch_logreopen or config.touch_reload
        self._next_look = time.monotonic() + LOOK_SECONDS if looks else float("inf")
        self._respawn = Respawn(config.forkbomb_delay)
        calls_application = bool(config.wsgi_file or config.module)
        self._overdue = Overdue(config.worker_start_timeout, config.harakiri if calls_application else 0)

    def run(self) -> int:
        """Supervises until the server is told to stop; returns the exit status."""
        if self._succession is None:
            self._enter("starting")
        else:
            self._succeed(self._succession)
        for each in self._fifos:
            each.listen()
        for number in range(1, self._wanted + 1):
            self._spawn(number)
        while self._workers or self._stop_at is None:
            info = signal.sigtimedwait(BLOCKED, self._patience())
            if info is not None:
                self._take(info.si_signo)
            self._obey()
            self._reap()
            self._hear()
            self._keep_time()
        if self._upgrade is not None:
            self._upgrade.cancel()
        self._stats.end()
        line("goodbye to uwsgi-tls")
        return self._status

    def _succeed(self, left: Succession) -> None:
        """To whom was there before us our workers are as after a reload."""
        for each in left.workers:
            self._workers.adopt(each)
        self._stats.adopt(left.strangers)
        self._serving = True
        self._generation, self._coming, self._change = left.generation, left.generation + 1, left.change
        self._enter("reloading")

    # What wakes it.

    def _take(self, number: int) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._stop(signal.Signals(number).name)
            case signal.SIGQUIT:
                self._stop_now("SIGQUIT")
            case signal.SIGHUP:
                self._reload("SIGHUP")
            case signal.SIGUSR1:
                self._reopen_logs("SIGUSR1")
            case signal.SIGUSR2:
                if self._teller is not None:
                    self._teller.write(*self._account())
            case signal.SIGTTIN:
                self._resize(self._wanted + 1)
            case signal.SIGTTOU:
                self._resize(self._wanted - 1)
            case signal.SIGCHLD | signal.SIGIO | signal.SIGWINCH | signal.SIGALRM:
                pass
            case _ if number == UPGRADE and self._upgrade is not None:
                self._try_upgrade(self._upgrade)
            case _:
                line(f"signal {number} has no meaning here: ignored")

    def _obey(self) -> None:
        """Does what has been written to a master-fifo."""
        for pipe in self._fifos:
            letters, unknown = pipe.letters(time.monotonic())
            if unknown:
                line(f"master-fifo {pipe.path}: {unknown!r} has no meaning here: ignored")
            for letter in letters:
                line(f"master-fifo {pipe.path}: {letter}")
                if letter != fifo.TELL:
                    self._take(fifo.COMMANDS[letter])
                elif self._teller is not None:
                    self._teller.log(*self._account())

    def _account(self) -> tuple[Reading, str, list[str]]:
        """What the teller has to know: how the workers are, what failed last, and what is still wrong."""
        wrong = [self._rejected] if self._rejected else []
        if self._monitor is not None and not self._monitor.pid:
            wrong.append("the monitor has ended: a reload can read no more than the user may; restart the server")
        return self._scoreboard.read(), self._failure, wrong

    def _reap(self) -> None:
        if self._monitor is not None and self._monitor.has_ended() and self._stop_at is None:
            tell = self._fail if self._is_steady else line
            tell("the monitor has ended: a reload can read no more than this user may; restart the server")
        self._stats.reap()
        if self._upgrade is not None:
            self._hear_of(self._upgrade)
        for child, how, status in self._workers.bury():
            self._buried(child, how, status)

    def _hear(self) -> None:
        for child in self._workers.hear():
            self._respawn.in_vain = 0
            self._take_over(child)
        if not self._serving or self._coming != self._generation:
            self._promote()

    def _keep_time(self) -> None:
        now = time.monotonic()
        self._condemn(now)
        self._workers.kill_overdue(now)
        if now >= self._next_day:
            self._next_day = now + DAY_SECONDS
            self._daily()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look()
        self._notifier.keep_time(now, self._is_alive)
        self._stats.keep_time(now, self._scoreboard)
        for number in self._respawn.due(now):
            if self._stop_at is None and number <= self._wanted:
                self._spawn(number)
        self._replace_worn()

    def _patience(self) -> float:
        moments = (
            self._workers.moment,
            self._overdue.moment(self._workers),
            self._respawn.moment,
            self._next_day,
            self._next_look,
            self._notifier.moment,
            self._stats.moment,
            self._upgrade.moment if self._upgrade is not None else float("inf"),
            *(each.moment for each in self._fifos),
        )
        return max(0.0, min(min(moments) - time.monotonic(), IDLE_SECONDS))

    # Workers.

    def _spawn(self, number: int) -> None:
        try:
            self._workers.spawn(self._task, number, self._coming)
        except OSError as error:
            self._respawn.in_vain += 1
            delay = self._respawn.failed(number, time.monotonic())
            line(f"unable to fork worker {number}: {error}; another attempt follows in {delay:g} seconds")
            self._give_up_if_in_vain()

    def _take_over(self, child: Worker) -> None:
        """It is ready: who had its number before has done its work."""
        for other in self._workers:
            is_older = (other.number, other.generation) == (child.number, child.generation) and other is not child
            if is_older and not other.retiring:
                line(f"{child.name} takes over from {other.name}")
                other.retire(self._config.worker_reload_mercy)

    def _replace_worn(self) -> None:
        """Forks a successor of one that has asked for it: of one at a time, which serves until the successor does."""
        if self._is_steady and not self._respawn.is_pending and all(child.ready for child in self._workers):
            worn = next((child for child in self._workers if child.worn and not child.retiring), None)
            if worn is not None:
                self._spawn(worn.number)

    def _condemn(self, now: float) -> None:
        for child, why in self._overdue.look(now, self._workers):
            line(f"{child.name} {why}: it is killed, and this is where its threads are")
            child.condemn()
            if child.ready:
                self._scoreboard.harakiri(child.number)

    def _buried(self, child: Worker, how: str, status: int) -> None:
        """What the end of a worker means; `status` is 0 where a signal ended it."""
        if child.retiring or self._stop_at is not None:
            line(f"{child.name} ended ({how})")
            return
        self._scoreboard.died()
        if not child.ready and not self._serving:
            self._status = status or EXIT_FAILED
            self._failure = f"{child.name} could not start ({how})"
            line(f"{self._failure}: stopping")
            self._started(self._status)
            self._stop_now("a failed start")
            return
        if not child.ready and child.generation != self._generation:
            self._give_reload_up(f"worker {child.number} of the new generation could not start ({how})")
            return
        if child.generation != self._coming:
            line(f"{child.name} died ({how}); generation {self._coming} is about to follow")
            return
        self._died(child, how, status)

    def _died(self, child: Worker, how: str, status: int) -> None:
        """One of those that serve, or that should, is no more: who comes instead, and when."""
        others = [other for other in self._workers if other.number == child.number and not other.retiring]
        if any(not other.ready for other in others):
            return self._fail(f"{child.name} died ({how}); its successor is about to serve")
        now, delay = time.monotonic(), 0.0
        if child.ready and child.condemned:
            self._respawn.at(child.number, now)
        else:
            delay = self._respawn.died(child.number, now - child.born, now)
        self._fail(f"{child.name} died ({how}); a new one comes in {delay:g} seconds")
        if delay > 0:
            line(f"worker respawning too fast !!! i have to sleep a bit ({delay:g} seconds)...")  # uWSGI's words
        if not child.ready:
            self._respawn.in_vain += 1
            self._give_up_if_in_vain(status)
        return None

    def _give_up_if_in_vain(self, status: int = 0) -> None:
        """Where nobody has served for long and nobody ever will, whoever has started us should know."""
        limit = self._config.respawn_limit * self._wanted
        if not 0 < limit <= self._respawn.in_vain or self._stop_at is not None:
            return
        if any(child.ready and not child.retiring for child in self._workers):
            return
        cause = f", the last one with exit status {status}" if status else ""
        line(f"nobody serves, and {self._respawn.in_vain} attempts in a row to start a worker have failed{cause}")
        self._status = EXIT_GAVE_UP
        self._started(self._status)
        self._stop_now("respawn-limit")

    def _is_alive(self) -> bool:
        """Whether each worker is there and shows signs of life; one that still loads its application need not yet."""
        if self._stop_at is not None:
            return True  # which ends in time by itself
        now, limit = time.monotonic(), max(self._notifier.watchdog / 2, STUCK_SECONDS)
        serving = [child for child in self._workers if not child.retiring]
        for child in serving:
            was, child.stuck = child.stuck, child.ready and now - child.slot.last_beat > limit
            if child.stuck and not was:
                line(f"{child.name} gives no sign of life: the watchdog is not fed")
        there = {child.number for child in serving if not child.stuck}
        return there.issuperset(range(1, self._wanted + 1)) and not any(child.stuck for child in serving)

    # Changes.

    def _promote(self) -> None:
        """Lets the coming generation serve once all of it is ready, and only then retires the one before."""
        fresh = [child for child in self._workers if child.generation == self._coming and not child.retiring]
        if len(fresh) < self._wanted or not all(child.ready for child in fresh) or self._stop_at is not None:
            return
        first, self._serving = not self._serving, True
        self._generation = self._coming
        for child in self._workers:
            if child.generation != self._generation:
                child.retire(self._config.worker_reload_mercy)
        if self._change is not None:
            self._change.commit()
            self._configure(self._change.task.config, self._change.watch)
            self._change = None
        self._failure = self._rejected = ""
        self._enter("serving")
        line(f"generation {self._generation} is serving with {self._wanted} worker{'s' if self._wanted > 1 else ''}")
        if first:
            self._started(EXIT_STOPPED)
        else:
            self._stats.renew()
        self._catch_up()

    def _catch_up(self) -> None:
        """Does what has been asked for while something else was under way."""
        if self._reload_again and self._is_steady:
            self._reload_again = False
            self._reload("SIGHUP")
        if self._upgrade_again and self._is_steady and self._upgrade is not None:
            self._upgrade_again = False
            self._try_upgrade(self._upgrade)

    @property
    def _is_steady(self) -> bool:
        """Whether it serves and neither starts, reloads, tries another program nor stops."""
        on_trial = self._upgrade is not None and self._upgrade.is_on_trial
        return self._serving and self._coming == self._generation and self._stop_at is None and not on_trial

    def _look(self) -> None:
        """A change is taken up when the time for it has come: until then the watch does not forget it."""
        if self._logs_touched.has_changed():
            self._reopen_logs("touch-logreopen")
        if self._watch is not None and self._is_steady and self._watch.has_changed():
            self._reload("certificate files have changed")
        if self._is_steady and self._touched.has_changed():
            self._reload("touch-reload")

    def _reload(self, why: str) -> None:
        if self._stop_at is not None:
            line(f"{why}: ignored while stopping")
            return
        if not self._is_steady:
            line(f"{why}: taken up when this start or reload is done")
            self._reload_again = True
            return
        line(f"{why}: reloading")
        self._enter("reloading")
        try:
            change = self._reopen()
        except (ConfigError, OSError) as error:
            self._fail(f"{RELOAD_FAILED}, generation {self._generation} stays: {error}")
            return
        except Exception as error:  # whatever a file may hold now, what is in memory goes on serving
            name = type(error).__name__
            self._fail(f"{RELOAD_FAILED} by a defect, generation {self._generation} stays: {name}: {error}")
            return
        if self._config.log_reopen:
            self._reopen_logs("log-reopen")
        self._before, self._task, self._change = self._task, change.task, change
        if self._task.config.processes != self._before.config.processes:
            self._wanted = self._task.config.processes
        self._coming += 1
        self._respawn.forget()
        for number in range(1, self._wanted + 1):
            self._spawn(number)

    def _reopen_logs(self, why: str) -> None:
        """For this process and for those that serve, each of which has its own idea of what is open."""
        if not logs.reopen():
            line(f"{why}: there is no log file to open again")
            return
        line(f"{why}: the log files are open again")
        for child in self._workers:
            child.signal(signal.SIGUSR1)

    def _give_reload_up(self, cause: str) -> None:
        for child in self._workers:
            if child.generation == self._coming:
                child.retiring = True
                child.signal(signal.SIGKILL)
        self._coming = self._generation
        if self._change is not None:
            self._change.abandon()
            if self._task.config.processes != self._before.config.processes:
                self._wanted = self._before.config.processes
            self._task, self._change = self._before, None
        self._fail(f"{RELOAD_FAILED}, generation {self._generation} stays: {cause}")
        alive = {child.number for child in self._workers if not child.retiring}
        for number in set(range(1, self._wanted + 1)) - alive:
            self._respawn.at(number, time.monotonic())
        self._catch_up()

    def _try_upgrade(self, upgrade: Upgrade) -> None:
        if self._stop_at is not None:
            return line("upgrade: ignored while stopping")
        if not self._is_steady:
            self._upgrade_again = True
            return line("upgrade: taken up when this start or reload is done")
        line("upgrade: the program that is installed now is tried")
        try:
            upgrade.begin()
        except OSError as error:
            return self._fail(f"upgrade failed, this program goes on: {error}")
        return self._enter("reloading")

    def _hear_of(self, upgrade: Upgrade) -> None:
        """What has become of the trial, if there is one."""
        complaint = upgrade.outcome(time.monotonic())
        if complaint is None or self._stop_at is not None:
            return
        if not complaint:
            line("upgrade: it can start, and takes over")
            complaint = self._give_way(upgrade)
        self._fail(f"upgrade failed, this program goes on: {complaint}")
        self._catch_up()

    def _give_way(self, upgrade: Upgrade) -> str:
        """Lets another program have this process; returns only to say why it cannot."""
        self._stats.end()
        fds, workers = self._workers.bequeath()
        facts = {"generation": self._generation, "workers": workers, "strangers": self._stats.outdated}
        try:
            upgrade.replace(Heritage(fds, facts))
        except OSError as error:
            self._stats.renew()
            return str(error)

    def _resize(self, wanted: int) -> None:
        if wanted < 1 or self._stop_at is not None or self._coming != self._generation or not self._serving:
            line("the number of workers stays: " + ("one is the least" if wanted < 1 else "not while changing"))
            return
        line(f"from {self._wanted} to {wanted} workers")
        if wanted > self._wanted:
            self._respawn.at(wanted, time.monotonic())
        else:
            for child in self._workers:
                if child.number > wanted:
                    child.retire(self._config.worker_reload_mercy)
        self._wanted = wanted
        self._enter("serving")

    def _stop(self, why: str) -> None:
        if self._stop_at is not None:
            return self._stop_now(f"{why} again")
        line(f"{why}: stopping, {self._config.reload_mercy} seconds for what is under way")
        self._stop_at = time.monotonic() + self._config.reload_mercy
        self._refuse()
        self._enter("stopping")
        for child in self._workers:
            child.retire(self._config.reload_mercy)
        return None

    def _stop_now(self, why: str) -> None:
        line(f"{why}: stopping now")
        self._stop_at = time.monotonic()
        self._refuse()
        self._enter("stopping")
        for child in self._workers:
            child.signal(signal.SIGKILL)

    def _fail(self, text: str) -> None:
        """Something went wrong, and all goes on as before."""
        line(text)
        self._failure = text
        if text.startswith(RELOAD_FAILED):
            self._rejected = text
            self._scoreboard.reload_failed()
        self._enter("serving" if self._serving else "starting")

    def _enter(self, state: State) -> None:
        """Says what goes on from now on: in the title, to the service manager and to whoever reads statistics."""
        self._title(state)
        self._scoreboard.enter(state, self._generation, self._wanted, self._failure)
        status = f"{state}: generation {self._coming}, workers {self._wanted}"
        self._notifier.enter(state, f"{status}; last failure: {self._failure}" if self._failure else status)

    def _title(self, state: str) -> None:
        titles.set_title(
            self._config.procname_prefix, f"master (generation {self._coming}, workers {self._wanted}): {state}"
        )
