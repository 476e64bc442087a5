"""The life of a master: the supervisor, and what becomes of the configuration and of the program meanwhile."""

from uwsgi_tls import logs, reconfigure, users
from uwsgi_tls.change import Change, Succession
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.heritage import Heritage
from uwsgi_tls.listeners import Bound
from uwsgi_tls.masters_own import MastersOwn
from uwsgi_tls.reconfigure import Setup
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.stats.process import StatsProcess
from uwsgi_tls.supervisor import Supervisor
from uwsgi_tls.teller import Teller
from uwsgi_tls.upgrade import Upgrade
from uwsgi_tls.worker import Task


class Life:
    """Of one process."""

    def __init__(self, own: MastersOwn, setup: Setup) -> None:
        self._own = own
        self._setup = setup  # of the generation that serves
        self._coming: Setup | None = None
        self._left = Bound()  # the sockets of the program before ours, until a generation of ours serves
        self._stats = StatsProcess(setup.bound.stats, self._describe, setup.config.procname_prefix)

    def run(self, succession: Succession | None = None) -> int:
        """Until the server is told to stop; returns the exit status. `succession` is what another program has left."""
        own, setup = self._own, self._setup
        try:
            return Supervisor(
                setup.task,
                reopen=self._reload,
                started=own.starter.report,
                masters_own=self._close_masters_own,
                hourly=lambda: self._setup.endpoints.remind(),
                refuse=self._refuse,
                monitor=own.monitor,
                watch=setup.watch,
                notifier=own.notifier,
                scoreboard=Scoreboard(pulses=own.pulses),
                stats=self._stats,
                teller=Teller(self._describe, lambda: self._setup.endpoints.kept, own.status_file),
                fifos=own.fifos,
                upgrade=Upgrade(self._bequeath, only_root=own.identity is not None),
                succession=succession,
            ).run()
        finally:
            for each in (self._setup, self._coming):
                if each is not None:
                    each.bound.release()

    def taking_over(self, left: Bound) -> Change:
        """That from the program before ours, whose sockets are `left`. What it was made of is gone, so there is nothing
        to go back to.
        """
        self._left = left
        return Change(self._setup.task, self._setup.watch, self._release_left, lambda: None)

    def _release_left(self) -> None:
        self._left.release(keep=self._setup.bound)
        self._left = Bound()

    def _describe(self) -> Facts:
        return self._setup.describe()

    # A reload: first all is made, then it counts, or never was.

    def _reload(self) -> Change:
        self._coming = reconfigure.make_again(self._own, self._setup)
        logs.configure(json=self._coming.config.log_json)  # before workers are forked
        return Change(self._coming.task, self._coming.watch, self._commit, self._abandon)

    def _commit(self) -> None:
        if self._coming is not None:
            before, self._setup, self._coming = self._setup, self._coming, None
            before.bound.release(keep=self._setup.bound)
            self._release_left()
            self._stats.renew(self._setup.bound.stats)

    def _abandon(self) -> None:
        if self._coming is not None:
            self._coming.bound.release(keep=self._setup.bound)
            self._coming = None
            logs.configure(json=self._setup.config.log_json)

    def _refuse(self) -> None:
        """Whoever comes while the workers finish is to go elsewhere, and not to wait for nobody. Sockets that a service
        manager has passed stay open there, for the next start.
        """
        for setup in (self._setup, self._coming):
            for each in setup.task.listeners if setup is not None else ():
                each.socket.close()

    def _close_masters_own(self, task: Task) -> None:
        """In a worker: what it has nothing to do with, sockets that it does not accept from included."""
        self._own.close()
        accepting = {each.socket for each in task.listeners}
        for bound in (self._left, *(setup.bound for setup in (self._setup, self._coming) if setup is not None)):
            for sock in bound.sockets:
                if sock not in accepting:
                    sock.close()

    def _bequeath(self) -> Heritage:
        """For another program: what is ours, the sockets, and what must be as it was. Raises ConfigError."""
        config = self._setup.config
        if config.chroot:
            raise ConfigError("chroot", config.chroot, "a program in there may be anybody's: restart instead")
        if config.cap:
            kept = users.capability_names(config.cap)
            raise ConfigError("cap", kept, "what execve(2) takes cannot be had again: restart instead")
        own, setup = self._own.bequeath(), self._setup
        fds, sockets = dict(own.fds), []
        for number, each in enumerate(setup.bound.inheritance):
            name = f"socket {number} {each.address}"
            fds[name] = each.fd
            sockets.append([each.address, name, each.file])
        more = {"fixed": reconfigure.fixed(setup.config), "umask": setup.config.umask, "sockets": sockets}
        return Heritage(fds, {**own.facts, **more})
