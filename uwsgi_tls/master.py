"""The start, in the one order that is safe: bind as root, read keys as root, give root up, fork.

Everything that a configuration can have wrong is found here before the drop and ends in one ConfigError. What
follows, the life of the workers, is the supervisor's.
"""

import errno
import os
import signal
import tempfile

from uwsgi_tls import activation, daemon, ignored, listeners, logs, notify, privileges, supervisor, titles
from uwsgi_tls.backends.nodes import node
from uwsgi_tls.endpoints import Endpoints
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.logs import AccessLog, line
from uwsgi_tls.monitor import Monitor
from uwsgi_tls.notify import Notifier
from uwsgi_tls.options import Config
from uwsgi_tls.pidfile import Pidfile
from uwsgi_tls.privileges import Identity
from uwsgi_tls.stats import facts
from uwsgi_tls.stats.process import StatsProcess
from uwsgi_tls.watch import Watch
from uwsgi_tls.worker import Task

EXIT_UNSAFE = 1


def run(config: Config) -> int:
    """Serves until told to stop; returns the exit status. Raises ConfigError with nothing left behind."""
    titles.claim()
    notes = list(config.warnings)  # for the log, once it is sure that the start is not refused in one line
    config = activation.with_passed(config, os.environ, notes.append)
    privileges.close_inherited({address.fd for address in activation.descriptors(config)})
    privileges.raise_descriptor_limit()
    privileges.preload()
    logs.configure(json=config.log_json)
    if config.ignored:
        notes.append(ignored.describe(config.ignored))
    identity = privileges.resolve(config.uid, config.gid, config.add_gid, config.strict, notes.append)
    check_paths(config, identity)
    nodes = [node(address) for address in config.http_to]
    fallback = [node(address, "http-fallback") for address in config.http_fallback]
    access_log = None if config.disable_logging else AccessLog(config.log_format, config.log_json)
    bound = listeners.bind_all(config, notes.append, identity)
    pidfile: Pidfile | None = None
    starter = daemon.Starter()
    notifier = notify.connect(os.environ, notes.append)
    endpoints = Endpoints(config, bound.https, identity)
    stats = StatsProcess(
        bound.stats, lambda: facts.of(config, bound.https, endpoints.certificates), config.procname_prefix
    )
    # Before the files are read: what changes while they are must not go unnoticed.
    watch = Watch(endpoints.paths, endpoints.open_file) if config.touch_reload_certs else None
    try:
        served = endpoints.make(notes.append)
        if config.pidfile:
            pidfile = Pidfile.open(config.pidfile, config.origins.get("pidfile", ""))
        terminal = os.dup(2)
        log = config.daemonize or config.logto
        if log:
            redirect_log(config, log, identity)
        if config.daemonize:
            starter = daemon.detach(log, terminal)
            notifier.main_pid = os.getpid()
        os.close(terminal)
        daemon.only_write_to_terminal()
        logs.never_wait()
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
        privileges.harden(no_new_privs=identity is not None)
        line(f"spawned uwsgi-tls master process (pid: {os.getpid()})")
        return supervisor.Supervisor(
            Task(config, served, nodes, access_log, os.getpid(), fallback),
            reopen=endpoints.remake,
            started=starter.report,
            masters_own=lambda: close_masters_own(starter, pidfile, endpoints.monitor, notifier, stats),
            daily=endpoints.remind,
            monitor=endpoints.monitor,
            watch=watch,
            notifier=notifier,
            stats=stats,
        ).run()
    except privileges.PrivilegeError as error:
        line(f"privileges were not given up: {error}")
        return EXIT_UNSAFE
    finally:
        # Forked children end by os._exit and never come here: what is removed is this process's own.
        if pidfile is not None:
            pidfile.remove()
        bound.release()
        if endpoints.monitor is not None:
            endpoints.monitor.close()
        notifier.close()
        starter.report(EXIT_UNSAFE)


def redirect_log(config: Config, path: str, identity: Identity | None) -> None:
    """From here on the log goes to `path`, opened as root. Raises ConfigError."""
    option = "daemonize" if config.daemonize else "logto"
    try:
        logs.redirect(path, owners={os.geteuid(), identity.uid if identity else os.geteuid()})
    except OSError as error:
        raise ConfigError(option, path, error.strerror or str(error), config.origins.get(option, "")) from None


def check_paths(config: Config, identity: Identity | None) -> None:
    """That what names a directory or a file of the application is there, and that temporary files can be made in
    `spool-dir`. Raises ConfigError.
    """
    for option, path, there in (
        ("spool-dir", config.spool_dir, os.path.isdir),
        ("chdir", config.chdir, os.path.isdir),
        ("virtualenv", config.virtualenv and os.path.join(config.chdir, config.virtualenv), os.path.isdir),
        ("wsgi-file", config.wsgi_file and os.path.join(config.chdir, config.wsgi_file), os.path.isfile),
    ):
        if path and not there(path):
            kind = "file" if there is os.path.isfile else "directory"
            raise ConfigError(option, path, f"no such {kind}", config.origins.get(option, ""))
    if config.spool_dir and (code := _try_to_write(config.spool_dir, identity)):
        whom = identity.user if identity is not None else "this user"
        cause = f"{whom} cannot make files there: {os.strerror(code)}"
        raise ConfigError("spool-dir", config.spool_dir, cause, config.origins.get("spool-dir", ""))


def _try_to_write(directory: str, identity: Identity | None) -> int:
    """The errno with which a temporary file cannot be made, or 0. Only who has become the user can tell: a child."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = errno.EPERM
    try:
        if identity is not None:
            privileges.drop(identity)
        with tempfile.TemporaryFile(dir=directory):
            code = 0
    except OSError as error:
        code = error.errno or code
    finally:
        os._exit(code)


def close_masters_own(
    starter: daemon.Starter, pidfile: Pidfile | None, monitor: Monitor | None, notifier: Notifier, stats: StatsProcess
) -> None:
    """In a worker: the descriptors that only the master may hold, such as a pid file that root opened."""
    notifier.close()
    stats.close()
    if monitor is not None:
        monitor.channel.close()
    if starter.fd >= 0:
        os.close(starter.fd)
    if pidfile is not None:
        pidfile.close()
