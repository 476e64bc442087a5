"""The start, in the one order that is safe: bind as root, read keys as root, give root up, fork.

Everything that a configuration can have wrong is found here before the drop and ends in one ConfigError. What
follows, the life of the workers, is the supervisor's.
"""

import os
import signal
from collections.abc import Iterable

from uwsgi_tls import (
    activation,
    daemon,
    ignored,
    listeners,
    log_opening,
    logs,
    notify,
    privileges,
    supervisor,
    surroundings,
    titles,
    users,
)
from uwsgi_tls.access_log import AccessLog
from uwsgi_tls.backends.nodes import node
from uwsgi_tls.endpoints import Endpoints
from uwsgi_tls.fifo import Fifo
from uwsgi_tls.logs import line
from uwsgi_tls.monitor import Monitor
from uwsgi_tls.notify import Notifier
from uwsgi_tls.options import Config
from uwsgi_tls.pidfile import Pidfile
from uwsgi_tls.stats import facts
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.stats.process import StatsProcess
from uwsgi_tls.status_file import StatusFile
from uwsgi_tls.teller import Teller
from uwsgi_tls.watch import of_contents, unseen
from uwsgi_tls.worker import Task

EXIT_UNSAFE = 1


def run(config: Config) -> int:
    """Serves until told to stop; returns the exit status. Raises ConfigError with nothing left behind."""
    titles.claim()
    notes = list(config.warnings)  # for the log, once it is sure that the start is not refused in one line
    config = activation.with_passed(config, activation.passed(os.environ, notes.append))
    privileges.close_inherited({address.fd for address in activation.descriptors(config)})
    privileges.limit_descriptors(config.rlimit_nofile, notes.append)
    privileges.preload()
    logs.configure(json=config.log_json)
    if config.ignored:
        notes.append(ignored.describe(config.ignored))
    if "umask" in config.origins:
        os.umask(config.umask)
    identity = users.identity(config, notes.append)
    surroundings.check_paths(config, identity)
    nodes = [node(address) for address in config.http_to]
    fallback = [node(address, "http-fallback") for address in config.http_fallback]
    access_log = None if config.disable_logging else AccessLog(config.log_format, config.log_json)
    bound = listeners.bind_all(config, notes.append, identity)
    pidfile: Pidfile | None = None
    status_file = StatusFile()
    fifos: list[Fifo] = []
    starter = daemon.Starter()
    notifier = notify.connect(os.environ, notes.append)
    endpoints = Endpoints(config, bound.https, identity)

    def describe() -> Facts:
        return facts.of(config, bound.https, endpoints.certificates)

    stats = StatsProcess(bound.stats, describe, config.procname_prefix)
    # Before the files are read: what changes while they are must not go unnoticed.
    watch = of_contents(endpoints.paths, endpoints.open_file) if config.touch_reload_certs else None
    try:
        served = endpoints.make(notes.append)
        if config.pidfile:
            pidfile = Pidfile.open(config.pidfile, config.origins.get("pidfile", ""))
            status_file = StatusFile.open(config.pidfile, identity, notes.append)
        for path in dict.fromkeys(config.master_fifo):
            fifos.append(Fifo.open(path, identity, config.origins.get("master-fifo", "")))
        loggers, req_loggers = log_opening.open_loggers(config, identity)
        terminal = os.dup(2)
        log = config.daemonize or config.logto
        if log:
            log_opening.redirect(config, log, identity)
        if config.daemonize:
            starter = daemon.detach(log, terminal)
            notifier.main_pid = os.getpid()
        os.close(terminal)
        daemon.only_write_to_terminal()
        server_log = logs.begin(loggers)
        if access_log is not None:
            access_log.targets = tuple(req_loggers or server_log)
        if pidfile is not None:
            pidfile.write()
        for note in notes:
            line(note)
        signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.BLOCKED)
        if identity is not None:
            if not config.no_monitor:
                endpoints.start_monitor()
            privileges.drop(identity)
            line(f"dropped root for good: uid {identity.uid}, gid {identity.gid}, groups {list(identity.groups)}")
            endpoints.foretell()
        privileges.keep_granted(config.cap)
        privileges.harden(no_new_privs=identity is not None, umask=config.umask)
        for path in unseen(config.touch_reload):
            line(f"touch-reload = {path}: cannot be looked at; it counts from when it can be")
        line(f"spawned uwsgi-tls master process (pid: {os.getpid()})")
        return supervisor.Supervisor(
            Task(config, served, nodes, access_log, os.getpid(), fallback),
            reopen=endpoints.remake,
            started=starter.report,
            masters_own=lambda: close_masters_own(
                starter, pidfile, endpoints.monitor, notifier, stats, [status_file, *fifos]
            ),
            daily=endpoints.remind,
            monitor=endpoints.monitor,
            watch=watch,
            notifier=notifier,
            stats=stats,
            teller=Teller(describe, lambda: endpoints.kept, status_file),
            fifos=fifos,
        ).run()
    except privileges.PrivilegeError as error:
        line(f"privileges were not given up: {error}")
        return EXIT_UNSAFE
    finally:
        # Forked children end by os._exit and never come here: what is removed is this process's own.
        if pidfile is not None:
            pidfile.remove()
        status_file.remove()
        for fifo in fifos:
            fifo.remove()
        bound.release()
        if endpoints.monitor is not None:
            endpoints.monitor.close()
        notifier.close()
        starter.report(EXIT_UNSAFE)


def close_masters_own(
    starter: daemon.Starter,
    pidfile: Pidfile | None,
    monitor: Monitor | None,
    notifier: Notifier,
    stats: StatsProcess,
    files: Iterable[StatusFile | Fifo],
) -> None:
    """In a worker: the descriptors that only the master may hold, such as a pid file that root opened."""
    for each in files:
        each.close()
    notifier.close()
    stats.close()
    if monitor is not None:
        monitor.channel.close()
    if starter.fd >= 0:
        os.close(starter.fd)
    if pidfile is not None:
        pidfile.close()
