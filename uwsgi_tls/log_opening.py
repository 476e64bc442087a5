"""Opens the logs that a configuration names, as root and before root is given up."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from uwsgi_tls import logs
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.log_targets import Target
from uwsgi_tls.logger_option import Logger
from uwsgi_tls.options import Config
from uwsgi_tls.users import Identity


def open_loggers(config: Config, identity: Identity | None) -> tuple[Sequence[Target], Sequence[Target]]:
    """Those of `logger` and of `req-logger`. Raises ConfigError."""

    def opened(option: str, loggers: Iterable[Logger]) -> Iterator[Target]:
        for logger in loggers:
            with _blamed_on(config, option, logger.text):
                yield logs.opened(logger, *_owners(identity))

    return tuple(opened("logger", config.logger)), tuple(opened("req-logger", config.req_logger))


def redirect(config: Config, path: str, identity: Identity | None) -> None:
    """From here on descriptors 1 and 2 are the file `path` of `daemonize` or `logto`. Raises ConfigError."""
    with _blamed_on(config, "daemonize" if config.daemonize else "logto", path):
        logs.redirect(path, *_owners(identity))


@contextmanager
def _blamed_on(config: Config, option: str, value: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(option, value, error.strerror or str(error), config.origins.get(option, "")) from None


def _owners(identity: Identity | None) -> tuple[Collection[int], logs.Owner | None]:
    """To whom a log file that is there may belong, and who gets a new one: he must open it again after rotation."""
    if identity is None:
        return {os.geteuid()}, None
    return {os.geteuid(), identity.uid}, (identity.uid, identity.gid)
