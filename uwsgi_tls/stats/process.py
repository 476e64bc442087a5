"""The process that tells how the server is, and the master's hold on it.

It is forked after the drop, as a worker is, so that the master never waits for a client. It keeps its listening sockets
and the scoreboard and closes everything else; it may start nothing and write no file. A reload makes a new one, which
knows the new certificates; whoever connects meanwhile waits in the listen queue.
"""

import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from uwsgi_tls import daemon, logs, privileges, titles
from uwsgi_tls.listeners import StatsSocket
from uwsgi_tls.logs import line
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.stats import document, page, prometheus
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.stats.server import CLIENTS_MAX, Document, Server, Site

RESPAWN_SECONDS = 1.0
NEVER = float("inf")
EXIT_ENDED = 0
EXIT_FAILED = 1


class StatsProcess:
    """The master's side; without a socket there is no process, and every call does nothing."""

    def __init__(
        self, sockets: Sequence[StatsSocket] = (), describe: Callable[[], Facts] | None = None, title_prefix: str = ""
    ) -> None:
        """`describe` says what the numbers are about, at the moment of each fork."""
        self._sockets = sockets
        self._describe = describe
        self._prefix = title_prefix
        self._pid = 0
        self._outdated: set[int] = set()  # pids of those that were told to end
        self.moment = 0.0 if sockets else NEVER  # when keep_time() has something to do (time.monotonic() seconds)

    def keep_time(self, now: float, scoreboard: Scoreboard) -> None:
        """Forks one where one is due."""
        if now < self.moment or self._describe is None:
            return
        self.moment = NEVER
        facts = self._describe()
        try:
            self._pid = os.fork()
        except OSError as error:
            line(f"unable to fork the stats process: {error}")
            self.moment = now + RESPAWN_SECONDS
            return
        if self._pid == 0:
            self._serve(scoreboard, facts)

    def reap(self) -> None:
        """Buries it; another one comes a second later."""
        for pid in [*self._outdated, *([self._pid] if self._pid else [])]:
            status = _ended(pid)
            if status is None:
                continue
            self._outdated.discard(pid)
            if pid == self._pid:
                self._pid = 0
                line(f"the stats process (pid: {pid}) has ended ({status}); a new one comes in {RESPAWN_SECONDS:g} s")
                self.moment = time.monotonic() + RESPAWN_SECONDS

    def renew(self, sockets: Sequence[StatsSocket] | None = None) -> None:
        """What it was forked with has changed; `sockets` are the new ones, if these have."""
        if sockets is not None:
            self._sockets = sockets
        self.end()
        self.moment = 0.0 if self._sockets else NEVER

    def end(self) -> None:
        """Ends it, for good unless renew() wants another."""
        self.moment = NEVER
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
            self._outdated.add(self._pid)
            self._pid = 0

    @property
    def outdated(self) -> list[int]:
        """The pids of those that were told to end and are not buried yet."""
        return list(self._outdated)

    def adopt(self, pids: Sequence[int]) -> None:
        """Will bury these too."""
        self._outdated |= set(pids)

    def close(self) -> None:
        """In another child of the master: its sockets are not that one's."""
        for each in self._sockets:
            each.socket.close()

    def _serve(self, scoreboard: Scoreboard, facts: Facts) -> None:
        """The child's side; does not return. What goes wrong here the master says."""
        try:
            titles.set_title(self._prefix, "stats")
            end = self._confine(facts.master)
            Server(self._sockets, site(scoreboard, facts), end).run()
            os._exit(EXIT_ENDED)
        finally:
            os._exit(EXIT_FAILED)

    def _confine(self, master: int) -> int:
        """Gives up what it does not need; returns the descriptor that tells of SIGTERM."""
        privileges.keep_granted(())
        privileges.die_with_parent(master)
        daemon.leave_terminal()
        privileges.close_inherited({each.socket.fileno() for each in self._sockets})
        logs.forget()
        for fd in (1, 2):
            os.dup2(0, fd)  # /dev/null
        descriptors = 3 + len(self._sockets) + CLIENTS_MAX + 8
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        privileges.forbid_processes()
        end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(end, 1))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return end


def site(scoreboard: Scoreboard, facts: Facts) -> Site:
    """The documents, each made anew from the scoreboard when it is asked for."""
    json = Document("application/json", lambda: document.as_json(scoreboard.read(), facts))
    return Site(
        {
            "/": Document("text/html; charset=utf-8", lambda: page.HTML, page.POLICY),
            "/stats.json": json,
            "/metrics": Document(prometheus.CONTENT_TYPE, lambda: prometheus.as_text(scoreboard.read(), facts)),
        },
        plain=json,
        public=facts.public,
    )


def _ended(pid: int) -> str | None:
    """How that child has ended; None while it lives."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # as pid 1 the master has buried it among strangers
        return "unseen"
    if not found:
        return None
    return f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
