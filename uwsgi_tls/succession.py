"""How a program begins that takes over from another one in a running master, or finds out whether it could.

It is not root any more, nor was the one before. All that root has opened is there (heritage.py); the configuration is
read again and made into what a reload would make of it, and its logs and files are taken up. On trial that is all.
Else the workers of the program before are supervised on, serve until ours do, and are retired then.
"""

import os
import signal
from collections.abc import Sequence
from functools import partial

from uwsgi_tls import (
    __version__,
    endpoints,
    heritage,
    log_opening,
    master,
    privileges,
    reconfigure,
    signals,
    surroundings,
    titles,
)
from uwsgi_tls.addresses import FdAddress
from uwsgi_tls.change import Left, Succession
from uwsgi_tls.converters import SharedSocket
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.heritage import Heritage
from uwsgi_tls.life import Life
from uwsgi_tls.listeners import Bound, Inheritance
from uwsgi_tls.log_targets import Target
from uwsgi_tls.logs import line
from uwsgi_tls.masters_own import MastersOwn, left_monitor, left_notifier, left_pulses
from uwsgi_tls.reconfigure import Setup
from uwsgi_tls.users import Identity


def run(heir: Heritage, words: Sequence[str]) -> int:
    """Serves until told to stop, or is on trial; returns the exit status. Raises ConfigError."""
    titles.claim()
    titles.set_title("", "trial of an upgrade" if heir.trial else "master (upgrading)")
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.BLOCKED)  # as it was left to us
    own, bound = owned(heir, words), sockets(heir)
    notes: list[str] = []
    try:
        # First of all, since the kernel has made us dumpable again, execve(2).
        privileges.harden(no_new_privs=own.identity is not None, umask=heir.facts["umask"])
        setup = make(own, bound, heir, notes)
        master.open_files(setup.config, own, notes.append)
        loggers = log_opening.open_loggers(setup.config, own.identity)
        if not heir.trial:
            return take_over(own, setup, loggers, bound, heir, notes)
        setup.bound.release(keep=bound)
        return 0
    except privileges.PrivilegeError as error:
        raise ConfigError("upgrade", __version__, str(error)) from None
    finally:
        if not heir.trial:
            bound.release()
            own.release(master.EXIT_UNSAFE)


def owned(heir: Heritage, words: Sequence[str]) -> MastersOwn:
    """What only the master has, as it was left to us; its files are opened later, by their names."""
    facts = heir.facts
    user = facts["identity"]
    return MastersOwn(
        load=master.loader(words),
        uid=facts["started_by"][0],
        gid=facts["started_by"][1],
        identity=Identity(user[0], user[1], user[2], tuple(user[3])) if user else None,
        passed=tuple(
            SharedSocket(FdAddress(fd), text, "environment", name=name, option="LISTEN_FDS")
            for fd, text, name in facts["passed"]
        ),
        notifier=left_notifier(heir),
        monitor=left_monitor(heir),
        pulses=left_pulses(),
    )


def sockets(heir: Heritage) -> Bound:
    """Those that the program before us has bound."""
    return Bound(
        Inheritance(address, fd, tuple(file) if file else None)
        for address, name, file in heir.facts["sockets"]
        if (fd := heritage.left(name)) is not None
    )


def make(own: MastersOwn, bound: Bound, heir: Heritage, notes: list[str]) -> Setup:
    """What has become of the configuration. Raises ConfigError and PrivilegeError."""
    open_file = partial(endpoints.open_as_user, monitor=own.monitor)
    config = reconfigure.read(own, open_file)
    if config.uid and os.geteuid() == 0:  # somebody's environment, which would have a start keep root
        raise ConfigError("uid", config.uid, f"root has not been given up before: start without {heritage.VARIABLE}")
    reconfigure.refuse_changes(heir.facts["fixed"], config)
    if own.identity is not None:
        privileges.prove(own.identity)
    privileges.keep_granted(config.cap)
    master.prepare(config, notes.append)
    surroundings.check_paths(config, None)
    notes += config.warnings
    return reconfigure.make(config, notes.append, own, bound=bound)


def take_over(
    own: MastersOwn,
    setup: Setup,
    loggers: tuple[Sequence[Target], Sequence[Target]],
    bound: Bound,
    heir: Heritage,
    notes: list[str],
) -> int:
    """The rest of the life of the master. Nothing here fails that has not been tried before."""
    config = setup.config
    log = config.daemonize or config.logto
    if log:
        log_opening.redirect(config, log, own.identity)
    master.begin_log(own, setup, *loggers)
    workers = [
        Left(number, generation, pid, fd, *more)
        for number, generation, pid, name, *more in heir.facts["workers"]
        if (fd := heritage.left(name)) is not None
    ]
    heritage.forget()
    for note in notes:
        line(note)
    line(f"uwsgi-tls {__version__} has taken over from {heir.facts['version']}")
    life = Life(own, setup)
    change = life.taking_over(bound)
    return life.run(Succession(heir.facts["generation"], workers, heir.facts["strangers"], change))
