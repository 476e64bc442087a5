"""The start, in the one order that is safe: bind as root, read keys as root, give root up, fork.

Everything that a configuration can have wrong is found here before the drop and ends in one ConfigError. What
follows, the life of the workers, is the supervisor's. How a program begins that takes a running master over is in
succession.py.
"""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace

from uwsgi_tls import (
    activation,
    daemon,
    ignored,
    log_opening,
    logs,
    notify,
    privileges,
    reconfigure,
    scoreboard,
    signals,
    surroundings,
    titles,
    users,
)
from uwsgi_tls import config as configuration
from uwsgi_tls.fifo import Fifo
from uwsgi_tls.life import Life
from uwsgi_tls.log_targets import Target
from uwsgi_tls.logs import line
from uwsgi_tls.masters_own import MastersOwn
from uwsgi_tls.options import Config
from uwsgi_tls.pidfile import Pidfile
from uwsgi_tls.placeholders import Source
from uwsgi_tls.reconfigure import Setup
from uwsgi_tls.status_file import StatusFile
from uwsgi_tls.users import Identity
from uwsgi_tls.watch import unseen

EXIT_UNSAFE = 1


def run(config: Config, words: Sequence[str]) -> int:
    """Serves until told to stop; returns the exit status. `words` is what a reload reads `config` from.

    Raises ConfigError with nothing left behind.
    """
    titles.claim()
    notes = list(config.warnings)  # for the log, once it is sure that the start is not refused in one line
    passed = activation.passed(os.environ, notes.append)
    own = MastersOwn(load=loader(words), uid=os.getuid(), gid=os.getgid(), passed=passed)
    config = activation.with_passed(config, passed)
    privileges.close_inherited({address.fd for address in activation.descriptors(config)})
    daemon.fill_standard()
    own.pulses = scoreboard.pulses()
    prepare(config, notes.append)
    if "umask" in config.origins:
        os.umask(config.umask)
    own.identity = users.identity(config, notes.append)
    surroundings.check_paths(config, own.identity)
    own.notifier = notify.connect(os.environ, notes.append)
    setup: Setup | None = None
    try:
        setup = reconfigure.make(config, notes.append, own, identity=own.identity)
        open_files(config, own, notes.append)
        open_log(config, own, setup)
        setup = replace(setup, task=replace(setup.task, master=os.getpid()))  # a daemon is another process
        for note in notes:
            line(note)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.BLOCKED)
        if own.identity is not None:
            give_root_up(config, own, setup, own.identity)
        privileges.keep_granted(config.cap)
        privileges.harden(no_new_privs=own.identity is not None, umask=config.umask)
        for path in unseen(config.touch_reload):
            line(f"touch-reload = {path}: cannot be looked at; it counts from when it can be")
        line(f"spawned uwsgi-tls master process (pid: {os.getpid()})")
        life = Life(own, setup)
        setup = None  # which it releases
        return life.run()
    except privileges.PrivilegeError as error:
        line(f"privileges were not given up: {error}")
        return EXIT_UNSAFE
    finally:
        # Forked children end by os._exit and never come here: what is removed is this process's own.
        if setup is not None:
            setup.bound.release()
        own.release(EXIT_UNSAFE)


def loader(words: Sequence[str]) -> Callable[[Source], Config]:
    """What reads the configuration again, from the same words and, since the environment is ours alone, the same
    variables."""
    return lambda source: configuration.load(words, os.environ, source)


def prepare(config: Config, warn: Callable[[str], None]) -> None:
    """What a process needs before it does anything else; `warn` is told what is doubtful."""
    privileges.limit_descriptors(config.rlimit_nofile, warn)
    privileges.preload()
    logs.configure(json=config.log_json)
    if config.ignored:
        warn(ignored.describe(config.ignored))


def open_files(config: Config, own: MastersOwn, warn: Callable[[str], None]) -> None:
    """The pid file and what else the master has beside the logs. Raises ConfigError."""
    if config.pidfile:
        own.pidfile = Pidfile.open(config.pidfile, config.origins.get("pidfile", ""))
        own.status_file = StatusFile.open(config.pidfile, own.identity, warn)
    for path in dict.fromkeys(config.master_fifo):
        own.fifos.append(Fifo.open(path, own.identity, config.origins.get("master-fifo", "")))


def open_log(config: Config, own: MastersOwn, setup: Setup) -> None:
    """Opens the logs, goes into the background where that is asked for, and says in the pid file who we are then.

    Raises ConfigError.
    """
    loggers, req_loggers = log_opening.open_loggers(config, own.identity)
    terminal = os.dup(2)
    log = config.daemonize or config.logto
    if log:
        log_opening.redirect(config, log, own.identity)
    if config.daemonize:
        own.starter = daemon.detach(log, terminal)
        own.notifier.main_pid = os.getpid()
    os.close(terminal)
    daemon.only_write_to_terminal()
    begin_log(own, setup, loggers, req_loggers)
    if own.pidfile is not None:
        own.pidfile.write()


def begin_log(own: MastersOwn, setup: Setup, loggers: Sequence[Target], req_loggers: Sequence[Target]) -> None:
    """From here on lines go to the logs that are open."""
    server_log = logs.begin(loggers)
    own.access_targets = tuple(req_loggers or server_log)
    if setup.task.access_log is not None:
        setup.task.access_log.targets = own.access_targets


def give_root_up(config: Config, own: MastersOwn, setup: Setup, identity: Identity) -> None:
    """Leaves the monitor root, and nobody else. Raises PrivilegeError."""
    if not config.no_monitor:
        own.monitor = setup.endpoints.start_monitor(own.load)
    privileges.drop(identity)
    line(f"dropped root for good: uid {identity.uid}, gid {identity.gid}, groups {list(identity.groups)}")
    setup.endpoints.foretell()
