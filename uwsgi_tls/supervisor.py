"""The master's life after the drop: forks workers, replaces the dead, reloads in generations, stops.

It has one thread, no signal handlers and no connection. Signals are blocked and taken one by one with
sigtimedwait(2), a worker's word on its channel comes as SIGIO (fcntl(2), F_SETSIG), and everything else is a moment
in time to wait for; so nothing can interrupt it half-way, get lost in a fork, or make it reap a stranger's child.
"""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from uwsgi_tls import fifo, logs
from uwsgi_tls.change import Change, Succession
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.fifo import Fifo
from uwsgi_tls.fleet import Fleet
from uwsgi_tls.heritage import UPGRADE
from uwsgi_tls.logs import line
from uwsgi_tls.looks import Looks
from uwsgi_tls.monitor import Monitor
from uwsgi_tls.notify import Notifier, State
from uwsgi_tls.options import Config
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.signals import BLOCKED
from uwsgi_tls.standing import Standing
from uwsgi_tls.stats.process import StatsProcess
from uwsgi_tls.teller import Teller
from uwsgi_tls.upgrade import Upgrade
from uwsgi_tls.watch import Watch
from uwsgi_tls.worker import Task
from uwsgi_tls.workers import EXIT_FAILED, Worker, Workers

IDLE_SECONDS = 3600.0
HOUR_SECONDS = 3600.0
EXIT_STOPPED = 0
EXIT_GAVE_UP = 75  # EX_TEMPFAIL of sysexits.h: another start may succeed, where EXIT_FAILED is in vain


class Supervisor:
    """Keeps `config.processes` workers of the newest generation serving."""

    def __init__(
        self,
        task: Task,
        *,
        reopen: Callable[[], Change],
        started: Callable[[int], None],
        masters_own: Callable[[Task], None],
        hourly: Callable[[], None],
        refuse: Callable[[], None] = lambda: None,
        monitor: Monitor | None = None,
        watch: Watch | None = None,
        notifier: Notifier | None = None,
        scoreboard: Scoreboard | None = None,
        stats: StatsProcess | None = None,
        teller: Teller | None = None,
        fifos: Sequence[Fifo] = (),
        upgrade: Upgrade | None = None,
        succession: Succession | None = None,
    ) -> None:
        """`task` is what each worker gets; `reopen` makes what a new generation gets (raises
        ConfigError); `started` is told how the first start went, as an exit status; `masters_own` closes, in a
        worker, what only the master may hold; `hourly` is called once an hour; `refuse` closes
        the listening sockets, once no worker is to come any more; what `watch` sees change brings a reload
        about; `notifier` leads to the service manager; on `scoreboard` workers tell how they are; `stats` tells whoever
        asks how all this is, and `teller` whoever may signal us; `fifos` are pipes in which we are told what to do;
        `upgrade` replaces our program by another one, and `succession` is what is left of the one that we have
        replaced."""
        self._reopen = reopen
        self._started = started
        self._hourly = hourly
        self._refuse = refuse
        self._next_hour = time.monotonic() + HOUR_SECONDS
        self._monitor = monitor
        self._notifier = Notifier() if notifier is None else notifier
        self._scoreboard = Scoreboard() if scoreboard is None else scoreboard
        self._standing = Standing(self._scoreboard, self._notifier, teller)
        self._stats = StatsProcess() if stats is None else stats
        self._fifos = fifos
        self._reload_again = self._upgrade_again = False  # asked for while something was under way
        self._upgrade = upgrade
        self._succession = succession
        self._change: Change | None = None  # that is not sure yet
        self._workers = Workers(self._scoreboard, masters_own)
        self._fleet = Fleet(task, self._workers, self._scoreboard)
        self._looks = Looks()
        self._configure(task.config, watch)
        self._serving = False  # the first generation has become ready
        self._stop_at: float | None = None
        self._status = EXIT_STOPPED

    def _configure(self, config: Config, watch: Watch | None) -> None:
        """What follows from the configuration of those that serve."""
        self._config = config
        self._standing.configure(config)
        self._fleet.configure(config)
        self._looks.configure(config, watch)

    def run(self) -> int:
        """Supervises until the server is told to stop; returns the exit status."""
        if self._succession is None:
            self._enter("starting")
        else:
            self._succeed(self._succession)
        for each in self._fifos:
            each.listen()
        self._fleet.begin()
        while self._workers or self._stop_at is None:
            info = signal.sigtimedwait(BLOCKED, self._patience())
            if info is not None and self._may_ask(info):
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
        self._fleet.adopt(left)
        self._stats.adopt(left.strangers)
        self._serving = True
        self._change = left.change
        self._enter("reloading")

    # What wakes it.

    def _may_ask(self, info: signal.struct_siginfo) -> bool:
        if info.si_signo != UPGRADE or self._upgrade is None or self._upgrade.is_welcome(info):
            return True
        line("upgrade: only root may ask for it, with kill(2): ignored")
        return False

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
                self._standing.write(self._wrong)
            case signal.SIGTTIN:
                self._resize(self._fleet.wanted + 1)
            case signal.SIGTTOU:
                self._resize(self._fleet.wanted - 1)
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
                else:
                    self._standing.log(self._wrong)

    @property
    def _wrong(self) -> list[str]:
        """What only a restart mends."""
        if self._monitor is None or self._monitor.pid:
            return []
        return ["the monitor has ended: a reload can read no more than the user may; restart the server"]

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
        self._fleet.hear()
        if not self._serving or self._fleet.is_changing:
            self._promote()

    def _keep_time(self) -> None:
        now = time.monotonic()
        self._fleet.keep_time(now, may_fork=self._stop_at is None)
        if now >= self._next_hour:
            self._next_hour = now + HOUR_SECONDS
            self._hourly()
        self._notifier.keep_time(now, self._is_alive)
        self._stats.keep_time(now, self._scoreboard)
        if self._is_steady:
            self._fleet.replace_worn()
        self._give_up_if_in_vain()
        if self._looks.is_due(now):  # at last: a file may be long in coming
            self._look()

    def _patience(self) -> float:
        moments = (
            self._fleet.moment,
            self._next_hour,
            self._looks.moment,
            self._notifier.moment,
            self._stats.moment,
            self._upgrade.moment if self._upgrade is not None else float("inf"),
            *(each.moment for each in self._fifos),
        )
        return max(0.0, min(min(moments) - time.monotonic(), IDLE_SECONDS))

    # Workers.

    def _buried(self, child: Worker, how: str, status: int) -> None:
        """What the end of a worker means; `status` is 0 where a signal ended it."""
        if child.retiring or self._stop_at is not None:
            line(f"{child.name} ended ({how})")
            return
        self._scoreboard.died()
        if not child.ready and not self._serving:
            self._status = status or EXIT_FAILED
            self._standing.failed(f"{child.name} could not start ({how})")
            line(f"{child.name} could not start ({how}): stopping")
            self._started(self._status)
            self._stop_now("a failed start")
            return
        if not child.ready and child.generation != self._fleet.generation:
            self._give_reload_up(f"worker {child.number} of the new generation could not start ({how})")
            return
        self._fail(self._fleet.died(child, how, status))

    def _is_alive(self) -> bool:
        """Whether the watchdog is to be fed: a stop ends in time by itself."""
        return self._stop_at is not None or self._fleet.is_alive(self._notifier.watchdog)

    def _give_up_if_in_vain(self) -> None:
        """Where nobody has served for long and nobody ever will, whoever has started us should know."""
        if self._stop_at is None and (why := self._fleet.in_vain):
            line(why)
            self._status = EXIT_GAVE_UP
            self._started(self._status)
            self._stop_now("respawn-limit")

    # Changes.

    def _promote(self) -> None:
        """Lets the coming generation serve once all of it is ready, and only then retires the one before."""
        if not self._fleet.is_complete or self._stop_at is not None:
            return
        first, self._serving = not self._serving, True
        self._fleet.promote()
        if self._change is not None:
            self._change.commit()
            self._configure(self._change.task.config, self._change.watch)
            self._change = None
        self._standing.forget()
        self._enter("serving")
        wanted = self._fleet.wanted
        line(f"generation {self._fleet.generation} is serving with {wanted} worker{'s' if wanted > 1 else ''}")
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
        return self._serving and not self._fleet.is_changing and self._stop_at is None and not on_trial

    def _look(self) -> None:
        """A change is taken up when the time for it has come: until then the watch does not forget it."""
        if self._looks.wants_logs():
            self._reopen_logs("touch-logreopen")
        if self._is_steady and (why := self._looks.wants_reload()):
            self._reload(why)

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
            return self._fail_reload(str(error))
        except Exception as error:  # whatever a file may hold now, what is in memory goes on serving
            return self._fail_reload(f"{type(error).__name__}: {error}", " by a defect")
        if self._config.log_reopen:
            self._reopen_logs("log-reopen")
        self._change = change
        self._fleet.change(change.task)

    def _reopen_logs(self, why: str) -> None:
        """For this process and for those that serve, each of which has its own idea of what is open."""
        if not logs.reopen():
            line(f"{why}: there is no log file to open again")
            return
        line(f"{why}: the log files are open again")
        for child in self._workers:
            child.signal(signal.SIGUSR1)

    def _give_reload_up(self, cause: str) -> None:
        self._fleet.go_back()
        if self._change is not None:
            self._change.abandon()
            self._change = None
        self._fail_reload(cause)
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
        except (ConfigError, OSError) as error:
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
        left = self._fleet.bequeath()
        try:
            upgrade.replace(replace(left, facts={**left.facts, "strangers": self._stats.outdated}))
        except OSError as error:
            self._stats.renew()
            return str(error)

    def _resize(self, wanted: int) -> None:
        if wanted < 1 or self._stop_at is not None or self._fleet.is_changing or not self._serving:
            line("the number of workers stays: " + ("one is the least" if wanted < 1 else "not while changing"))
            return
        line(f"from {self._fleet.wanted} to {wanted} workers")
        self._fleet.resize(wanted)
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
        self._standing.failed(text)
        self._go_on()

    def _fail_reload(self, cause: str, by: str = "") -> None:
        text = f"reload failed{by}, generation {self._fleet.generation} stays: {cause}"
        line(text)
        self._standing.reload_failed(text)
        self._go_on()

    def _go_on(self) -> None:
        if not self._serving:
            self._enter("starting")
        else:
            self._enter("serving" if self._is_steady else "reloading")

    def _enter(self, state: State) -> None:
        self._standing.enter(state, self._fleet.generation, self._fleet.coming, self._fleet.wanted)
