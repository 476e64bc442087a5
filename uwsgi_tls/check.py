"""`--check`: everything that a start would load is loaded, nothing is bound, and what would happen is printed.

The application, if there is one, is imported in a child that has dropped root first, as a worker would have.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from uwsgi_tls import (
    activation,
    certificates,
    daemon,
    ignored,
    listeners,
    notify,
    policy,
    privileges,
    surroundings,
    users,
    vhosts,
)
from uwsgi_tls.access_log import AccessLog
from uwsgi_tls.backends import application
from uwsgi_tls.backends.nodes import node
from uwsgi_tls.endpoints import open_at_start
from uwsgi_tls.https_option import HttpsListener, Site
from uwsgi_tls.log_text import printable
from uwsgi_tls.options import Config
from uwsgi_tls.passphrases import Passphrases
from uwsgi_tls.users import Identity
from uwsgi_tls.worker import EXIT_NO_APPLICATION


def run(config: Config) -> int:
    """Prints what a start would do; returns 0, or 22 where the application cannot be loaded. Raises ConfigError."""
    report: list[str] = []
    for name in notify.VARIABLES:  # an application that is tried is not to tell the service manager anything
        os.environ.pop(name, None)
    config = activation.with_passed(config, activation.passed(os.environ, report.append))
    privileges.close_inherited({address.fd for address in activation.descriptors(config)})
    privileges.preload()
    identity = users.identity(config, report.append)
    surroundings.check_paths(config, identity)
    nodes = [node(address) for address in config.http_to]
    fallback = [node(address, "http-fallback") for address in config.http_fallback]
    AccessLog(config.log_format, config.log_json)
    report += listeners.check_all(config)
    report += _tls(config, identity)
    report.append(_whom(identity))
    report.append(f"{config.processes} worker processes of {config.threads} threads")
    report.append(_where(config, [each.name for each in nodes], [each.name for each in fallback]))
    report += [f"warning: {warning}" for warning in config.warnings]
    if config.ignored:
        report.append(ignored.describe(config.ignored))
    print("\n".join(map(printable, report)))  # a certificate may hold anything, and so may a file's name
    if config.wsgi_file or config.module:
        status = _try_application(config, identity)
        if status:
            return status
    print("configuration ok")
    return 0


def _tls(config: Config, identity: Identity | None) -> Iterator[str]:
    """Each site: for whom it is, its certificates and what it asks of TLS and of clients. Raises ConfigError."""
    source = Passphrases(config.ssl_key_password_file, config.ssl_key_password_command)
    opened = partial(open_at_start, identity=identity)
    read = partial(certificates.read_file, opened=opened)
    names_in = partial(certificates.read_names, opened=opened)
    loaded = vhosts.load(config, vhosts.Reader(read, lambda key: source.for_key(key, read), names_in))
    for number, (listener, _) in enumerate(loaded.listeners):
        vhosts.endpoint(loaded, number, str(listener.address), "")
    for site, material in loaded.sites:
        yield f"{site.option} for {site.address if isinstance(site, HttpsListener) else site}"
        yield from (f"  {credential.info}" for credential in material.credentials)
        yield f"  {_policy(site)}"
        if site.client_ca:
            yield f"  client certificates: {_client_policy(site)}"
    if loaded.strict:
        yield "any other name than these and those of a listener's own certificate is refused (sni-strict)"
    yield from (f"warning: {warning}" for warning in loaded.warnings)


def _policy(site: Site) -> str:
    versions = policy.versions_left(site.min_version, site.max_version, site.options)
    ciphers = f", ciphers {site.ciphers}" if site.ciphers else ""
    suites = f", ciphersuites {site.ciphersuites}" if site.ciphersuites else ""
    return f"TLS {' and '.join(versions)}, profile {site.profile}{ciphers}{suites}"


def _client_policy(site: Site) -> str:
    parts = [f"{'required' if site.client_required else 'asked for'}, CA {site.client_ca}"]
    if site.crl:
        parts.append(f"CRL {site.crl} for {'the client alone' if site.crl_of_leaf_only else 'the whole chain'}")
    parts.append(f"depth {site.verify_depth}")
    if site.client_allow:
        parts.append("only " + " ".join(f"{rule.kind}:{rule.value}" for rule in site.client_allow))
    return ", ".join(parts)


def _whom(identity: Identity | None) -> str:
    if identity is None:
        return f"no user to become: runs with uid {os.getuid()}, gid {os.getgid()}"
    kept = f", keeps {users.capability_names(identity.keeps)}" if identity.keeps else ""
    inside = f", in {identity.root}" if identity.root else ""
    return (
        f"becomes {identity.user}: uid {identity.uid}, gid {identity.gid}, groups {list(identity.groups)}{kept}{inside}"
    )


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
        if identity is not None:
            privileges.drop(identity)
        if config.chdir:
            os.chdir(config.chdir)
        privileges.keep_granted(config.cap)
        privileges.harden(no_new_privs=identity is not None, umask=config.umask)
        application.load(config)
        status = 0
    except BaseException as error:  # an application's import may raise anything
        if not isinstance(error, application.ApplicationError):
            traceback.print_exc()
        print(printable(f"unable to load the application: {type(error).__name__}: {error}"), file=sys.stderr)
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
