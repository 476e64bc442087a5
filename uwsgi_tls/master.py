"""The start, in the one order that is safe: bind as root, read keys as root, give root up, fork.

Everything that a configuration can have wrong is found here before the drop and ends in one ConfigError. What
follows, the life of the workers, is the supervisor's.
"""

import os
import signal
from collections.abc import Callable, Sequence

from uwsgi_tls import certificates, daemon, ignored, listeners, logs, privileges, supervisor, titles, tls
from uwsgi_tls.addresses import FdAddress
from uwsgi_tls.backends.nodes import node
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.listeners import HttpsSocket
from uwsgi_tls.logs import AccessLog, line
from uwsgi_tls.options import Config
from uwsgi_tls.pidfile import Pidfile
from uwsgi_tls.privileges import Identity
from uwsgi_tls.service import Endpoint
from uwsgi_tls.worker import Listener, Task

EXIT_UNSAFE = 1


def run(config: Config) -> int:
    """Serves until told to stop; returns the exit status. Raises ConfigError with nothing left behind."""
    privileges.close_inherited(inherited(config))
    privileges.raise_descriptor_limit()
    titles.claim()
    privileges.preload()
    logs.configure(json=config.log_json)
    notes = list(config.warnings)  # for the log, once it is sure that the start is not refused in one line
    if config.ignored:
        notes.append(ignored.describe(config.ignored))
    identity = privileges.resolve(config.uid, config.gid, config.add_gid, config.strict, notes.append)
    check_paths(config)
    nodes = [node(address) for address in config.http_to]
    access_log = None if config.disable_logging else AccessLog(config.log_format, config.log_json)
    bound = listeners.bind_all(config, notes.append, identity)
    pidfile: Pidfile | None = None
    starter = daemon.Starter()
    try:
        served = open_endpoints(bound.https, notes.append)
        if config.pidfile:
            pidfile = Pidfile.open(config.pidfile, config.origins.get("pidfile", ""))
        terminal = os.dup(2)
        log = config.daemonize or config.logto
        if log:
            redirect_log(config, log, identity)
        if config.daemonize:
            starter = daemon.detach(log, terminal)
        os.close(terminal)
        daemon.only_write_to_terminal()
        logs.never_wait()
        if pidfile is not None:
            pidfile.write()
        for note in notes:
            line(note)
        signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.BLOCKED)
        if identity is not None:
            privileges.drop(identity)
            line(f"dropped root for good: uid {identity.uid}, gid {identity.gid}, groups {list(identity.groups)}")
        privileges.harden(no_new_privs=identity is not None)
        line(f"spawned uwsgi-tls master process (pid: {os.getpid()})")
        return supervisor.Supervisor(
            Task(config, served, nodes, access_log, os.getpid()),
            reopen=lambda: open_endpoints(bound.https, line),
            started=starter.report,
            masters_own=lambda: close_masters_own(starter, pidfile),
        ).run()
    except privileges.PrivilegeError as error:
        line(f"privileges were not given up: {error}")
        return EXIT_UNSAFE
    finally:
        # Forked children end by os._exit and never come here: what is removed is this process's own.
        if pidfile is not None:
            pidfile.remove()
        bound.release()
        starter.report(EXIT_UNSAFE)


def open_endpoints(sockets: Sequence[HttpsSocket], warn: Callable[[str], None]) -> list[Listener]:
    """Reads certificates and keys and builds the TLS context of each https listener. Raises ConfigError."""
    served = []
    for https in sockets:
        for warning in certificates.verify_files(https.option).warnings:
            warn(warning)
        endpoint = Endpoint(context=tls.build_context(https.option), port=https.port, name=https.name)
        served.append(Listener(https.socket, endpoint, int(https.socket.family)))
    return served


def inherited(config: Config) -> set[int]:
    """The descriptors that the configuration names (fd://N), which are open when the program starts."""
    addresses = [shared.address for shared in config.shared_socket] + [https.address for https in config.listeners]
    return {address.fd for address in addresses if isinstance(address, FdAddress)}


def redirect_log(config: Config, path: str, identity: Identity | None) -> None:
    """From here on the log goes to `path`, opened as root. Raises ConfigError."""
    option = "daemonize" if config.daemonize else "logto"
    try:
        logs.redirect(path, owners={os.geteuid(), identity.uid if identity else os.geteuid()})
    except OSError as error:
        raise ConfigError(option, path, error.strerror or str(error), config.origins.get(option, "")) from None


def check_paths(config: Config) -> None:
    """That what names a directory or a file of the application is there. Raises ConfigError."""
    for option, path, there in (
        ("chdir", config.chdir, os.path.isdir),
        ("virtualenv", config.virtualenv and os.path.join(config.chdir, config.virtualenv), os.path.isdir),
        ("wsgi-file", config.wsgi_file and os.path.join(config.chdir, config.wsgi_file), os.path.isfile),
    ):
        if path and not there(path):
            kind = "file" if there is os.path.isfile else "directory"
            raise ConfigError(option, path, f"no such {kind}", config.origins.get(option, ""))


def close_masters_own(starter: daemon.Starter, pidfile: Pidfile | None) -> None:
    """In a worker: the descriptors that only the master may hold, such as a pid file that root opened."""
    if starter.fd >= 0:
        os.close(starter.fd)
    if pidfile is not None:
        os.close(pidfile.fd)
