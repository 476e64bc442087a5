"""What a configuration becomes, at the start and at each reload: sockets, TLS endpoints and the task of the workers.

A reload reads the ini files again and makes all of it anew, as the user that the master has become. What cannot change
after the drop makes it fail as a whole. Sockets that stay are the same ones; those that are new or gone are closed only
when it is sure which generation serves.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from uwsgi_tls import activation, listeners, surroundings
from uwsgi_tls.access_log import AccessLog
from uwsgi_tls.backends.nodes import node
from uwsgi_tls.endpoints import Endpoints
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.listeners import Bound
from uwsgi_tls.logs import line
from uwsgi_tls.masters_own import MastersOwn
from uwsgi_tls.named import named_files
from uwsgi_tls.options import ROWS, Config, Row
from uwsgi_tls.placeholders import Source
from uwsgi_tls.stats import facts
from uwsgi_tls.stats.facts import Facts
from uwsgi_tls.users import Identity
from uwsgi_tls.watch import Watch, of_contents
from uwsgi_tls.worker import Task


@dataclass(frozen=True, slots=True)
class Setup:
    """All that was made of one configuration."""

    config: Config
    bound: Bound
    endpoints: Endpoints
    task: Task
    watch: Watch | None

    def describe(self) -> Facts:
        return facts.of(self.config, self.bound.https, self.endpoints.certificates)


def make(
    config: Config,
    warn: Callable[[str], None],
    own: MastersOwn,
    *,
    identity: Identity | None = None,
    bound: Bound | None = None,
    before: Endpoints | None = None,
) -> Setup:
    """Binds what is to be bound, reads keys and certificates and makes the contexts; `warn` is told what is doubtful.

    `identity` is whom root becomes afterwards; `bound` and `before` are what is there already. Raises ConfigError, with
    nothing left behind.
    """
    nodes = [node(address) for address in config.http_to]
    fallback = [node(address, "http-fallback") for address in config.http_fallback]
    access_log = (
        None if config.disable_logging else AccessLog(config.log_format, config.log_json, tuple(own.access_targets))
    )
    after = listeners.bind_all(config, warn, identity, bound)
    try:
        endpoints = Endpoints(config, after.https, identity, before, own.monitor, may_ask=bound is None)
        # Before the files are read: what changes while they are must not go unnoticed.
        watch = of_contents(endpoints.paths, endpoints.open_file) if config.touch_reload_certs else None
        served = endpoints.make(warn)
    except BaseException:  # whatever it is, no socket and no file stays behind
        after.release(keep=bound)
        raise
    task = Task(config, served, nodes, access_log, os.getpid(), fallback)
    return Setup(config, after, endpoints, task, watch)


def make_again(own: MastersOwn, before: Setup) -> Setup:
    """For a reload. Raises ConfigError."""
    config = _read_again(own, before)
    for warning in config.warnings:
        if warning not in before.config.warnings:
            line(warning)
    surroundings.check_paths(config, None)
    return make(config, line, own, bound=before.bound, before=before.endpoints)


def _read_again(own: MastersOwn, before: Setup) -> Config:
    """The configuration as it is now, or as it was where nobody may read it for us. Raises ConfigError."""
    objection = _monitors_objection(own)
    try:
        config = read(own, before.endpoints.open_file)
    except ConfigError as error:
        if not _is_unreadable(error):
            raise
        if objection is not None:
            raise ConfigError(error.option, error.value, objection or error.cause, error.where) from None
        line(f"the configuration stays as it was: {error}")
        return before.config
    refuse_changes(fixed(before.config), config)
    if objection and not _names(config) <= _names(before.config):
        line(f"the monitor reads only what the configuration named before: {objection}")
    return config


def _monitors_objection(own: MastersOwn) -> str | None:
    """Why the monitor has not read the configuration again; "" if it has, None where there is none."""
    if own.monitor is None or not own.monitor.pid:
        return None
    try:
        own.monitor.read_again()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read(own: MastersOwn, open_file: Callable[[str], int]) -> Config:
    """The configuration as it is now, its files opened by `open_file`. Raises ConfigError."""
    return activation.with_passed(own.load(Source(open_file, own.uid, own.gid)), own.passed)


def fixed(config: Config) -> dict[str, str]:
    """The values, as text, of options that take effect at a start alone."""
    return {row.name: _text(_value(config, row)) for row in ROWS if row.only_at_start}


def _value(config: Config, row: Row) -> Any:
    value = getattr(config, row.name.replace("-", "_"))
    return f"{value:03o}" if row.metavar in ("MODE", "MASK") else value


def refuse_changes(before: Mapping[str, str], config: Config) -> None:
    """Raises ConfigError where one of those is not as it was."""
    for name, now in fixed(config).items():
        was = before.get(name, now)  # another program may not have it
        if was != now:
            cause = f"was {was or 'not given'} at the start, and only a restart changes that"
            raise ConfigError(name, now or "(not given)", cause, config.origins.get(name, ""))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return str(getattr(value, "text", value))


def _names(config: Config) -> set[str]:
    return {*named_files(config), *config.files}


def _is_unreadable(error: BaseException | None) -> bool:
    """Whether the configuration could not be read because somebody may not."""
    while error is not None:
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__
    return False
