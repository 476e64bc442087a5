"""What only the master has, from its start to its end and whatever becomes of the configuration.

No worker keeps any of it. A program that takes over from ours gets all of it, by the names that heritage.py has.
"""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from uwsgi_tls import __version__, daemon, heritage
from uwsgi_tls.addresses import FdAddress
from uwsgi_tls.converters import SharedSocket
from uwsgi_tls.fifo import Fifo
from uwsgi_tls.heritage import Heritage
from uwsgi_tls.log_targets import Target
from uwsgi_tls.monitor import Monitor
from uwsgi_tls.notify import Notifier
from uwsgi_tls.options import Config
from uwsgi_tls.pidfile import Pidfile
from uwsgi_tls.placeholders import Source
from uwsgi_tls.status_file import StatusFile
from uwsgi_tls.users import Identity

_NOTIFY, _MONITOR, _PULSES = "notify", "monitor", "pulses"


@dataclass(slots=True, kw_only=True)
class MastersOwn:
    """All of it."""

    load: Callable[[Source], Config]  # the configuration, as command line and environment were at the start
    uid: int  # who started it
    gid: int
    identity: Identity | None = None  # whom it becomes, or has become
    passed: tuple[SharedSocket, ...] = ()  # by a service manager
    notifier: Notifier = field(default_factory=Notifier)
    starter: daemon.Starter = field(default_factory=daemon.Starter)
    pidfile: Pidfile | None = None
    status_file: StatusFile = field(default_factory=StatusFile)
    fifos: list[Fifo] = field(default_factory=list)
    monitor: Monitor | None = None
    access_targets: Sequence[Target] = ()  # where lines for requests go
    pulses: int = -1  # a descriptor: the memory of the workers' signs of life, scoreboard.py

    def close(self) -> None:
        """In a worker: lets go of it and leaves it as it is."""
        self.notifier.close()
        if self.monitor is not None:
            self.monitor.channel.close()
        if self.starter.fd >= 0:
            os.close(self.starter.fd)
        if self.pidfile is not None:
            self.pidfile.close()
        self.status_file.close()
        for fifo in self.fifos:
            fifo.close()
        if self.pulses >= 0:
            os.close(self.pulses)

    def release(self, status: int) -> None:
        """At the end, with the exit status of a start that has not been reported yet."""
        if self.pidfile is not None:
            self.pidfile.remove()
        self.status_file.remove()
        for fifo in self.fifos:
            fifo.remove()
        if self.monitor is not None:
            self.monitor.close()
        self.notifier.close()
        self.starter.report(status)

    def bequeath(self) -> Heritage:
        """All of it for the program that takes over."""
        fds = heritage.kept()
        user = self.identity
        facts: dict[str, Any] = {
            "version": __version__,
            "identity": [user.user, user.uid, user.gid, user.groups] if user is not None else None,
            "started_by": [self.uid, self.gid],
            "passed": [
                [each.address.fd, each.text, each.name] for each in self.passed if isinstance(each.address, FdAddress)
            ],
            "main_pid": self.notifier.main_pid,
            "watchdog": self.notifier.watchdog,
        }
        if (told_on := self.notifier.fileno()) >= 0:
            fds[_NOTIFY] = told_on
        if self.monitor is not None and self.monitor.pid:
            fds[_MONITOR] = self.monitor.channel.fileno()
            facts["monitor"] = self.monitor.pid
        if self.pulses >= 0:
            fds[_PULSES] = self.pulses
        return Heritage(fds, facts)


def left_notifier(heir: Heritage) -> Notifier:
    """The way to the service manager, as it was left to us."""
    fd = heritage.left(_NOTIFY)
    notifier = Notifier(socket.socket(fileno=fd) if fd is not None else None, heir.facts["watchdog"])
    notifier.main_pid = heir.facts["main_pid"]
    return notifier


def left_monitor(heir: Heritage) -> Monitor | None:
    """The monitor that was left to us, which is our child as it was that of the program before."""
    fd = heritage.left(_MONITOR)
    return Monitor.of(heir.facts["monitor"], socket.socket(fileno=fd)) if fd is not None else None


def left_pulses() -> int:
    """The memory of the workers' signs of life that was left to us; -1: there was none to leave."""
    fd = heritage.left(_PULSES)
    return fd if fd is not None else -1
