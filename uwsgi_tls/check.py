"""`--check`: everything that a start would load is loaded, nothing is bound, and what would happen is printed.

The application, if there is one, is imported in a child that has dropped root first, as a worker would have.
"""

import os
import sys
import traceback
from contextlib import suppress

from uwsgi_tls import certificates, daemon, ignored, listeners, master, privileges, tls
from uwsgi_tls.backends import application
from uwsgi_tls.backends.nodes import node
from uwsgi_tls.logs import AccessLog
from uwsgi_tls.options import Config
from uwsgi_tls.privileges import Identity
from uwsgi_tls.worker import EXIT_NO_APPLICATION


def run(config: Config) -> int:
    """Prints what a start would do; returns 0, or 22 where the application cannot be loaded. Raises ConfigError."""
    privileges.close_inherited(master.inherited(config))
    privileges.preload()
    report: list[str] = []
    identity = privileges.resolve(config.uid, config.gid, config.add_gid, config.strict, report.append)
    master.check_paths(config, identity)
    nodes = [node(address) for address in config.http_to]
    fallback = [node(address, "http-fallback") for address in config.http_fallback]
    AccessLog(config.log_format, config.log_json)
    report += listeners.check_all(config)
    for option in config.listeners:
        material = certificates.load(option)
        tls.build_context(option, material, str(option.address))
        for info in (each.info for each in material.credentials):
            report.append(f"certificate {info.file}: {info.subject}, {info.key_kind}, until {info.not_after:%Y-%m-%d}")
        report += [f"warning: {warning}" for warning in material.warnings]
        if option.client_ca:
            report.append(
                f"client certificates: {'required' if option.client_required else 'asked for'}, CA {option.client_ca}"
            )
    report.append(_whom(identity))
    report.append(f"{config.processes} worker processes of {config.threads} threads")
    report.append(_where(config, [each.name for each in nodes], [each.name for each in fallback]))
    report += [f"warning: {warning}" for warning in config.warnings]
    if config.ignored:
        report.append(ignored.describe(config.ignored))
    print("\n".join(report))
    if config.wsgi_file or config.module:
        status = _try_application(config, identity)
        if status:
            return status
    print("configuration ok")
    return 0


def _whom(identity: Identity | None) -> str:
    if identity is None:
        return f"no user to become: runs with uid {os.getuid()}, gid {os.getgid()}"
    return f"becomes {identity.user}: uid {identity.uid}, gid {identity.gid}, groups {list(identity.groups)}"


def _where(config: Config, nodes: list[str], fallback: list[str]) -> str:
    if nodes:
        protocol = "HTTP/1.1" if config.http_backend_http else "uwsgi protocol"
        else_to = f", else to {', '.join(fallback)}" if fallback else ""
        return f"requests go to {', '.join(nodes)}{else_to} ({protocol})"
    if config.wsgi_file or config.module:
        return f"requests go to the WSGI application {config.wsgi_file or config.module}"
    return "requests go to the built-in page"


def _try_application(config: Config, identity: Identity | None) -> int:
    """Imports the application where it can do what a worker could do, and no more."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = EXIT_NO_APPLICATION
    try:
        daemon.leave_terminal()
        daemon.only_write_to_terminal()
        if config.chdir:
            os.chdir(config.chdir)
        if identity is not None:
            privileges.drop(identity)
        privileges.harden(no_new_privs=identity is not None)
        application.load(config)
        status = 0
    except BaseException as error:  # an application's import may raise anything
        if not isinstance(error, application.ApplicationError):
            traceback.print_exc()
        print(f"unable to load the application: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
