"""Sockets that a service manager has bound for us, sd_listen_fds(3): they become the first shared sockets, in order.

So `https = =0,...` takes the first one, as it takes the first shared-socket elsewhere, and `=NAME` the one of that name
in LISTEN_FDNAMES. They stay the manager's: the file of a UNIX one is not removed at the end, and who connects while we
restart waits in its queue.
"""

import dataclasses
import os
from collections.abc import Callable, MutableMapping, Sequence

from uwsgi_tls.addresses import FdAddress
from uwsgi_tls.converters import SharedSocket
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config

FIRST_FD = 3  # SD_LISTEN_FDS_START
SOCKETS_MAX = 4096
VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def passed(environ: MutableMapping[str, str], log: Callable[[str], None]) -> tuple[SharedSocket, ...]:
    """The passed sockets; the variables are removed from `environ`. Raises ConfigError for nonsense in them."""
    count, pid, names, _ = (environ.pop(name, "") for name in VARIABLES)
    if not count:
        return ()
    if pid != str(os.getpid()):
        log(f"LISTEN_FDS = {count} is ignored: LISTEN_PID is {pid or 'not set'}, this process {os.getpid()}")
        return ()
    return _sockets(count, names)


def with_passed(config: Config, sockets: Sequence[SharedSocket]) -> Config:
    """`config` with the passed sockets before its own shared ones.

    One that the configuration names itself, as fd://N, is used there and not counted. Whether a descriptor is a socket
    is seen when it is used.
    """
    named = descriptors(config)
    unnamed = tuple(each for each in sockets if each.address not in named)
    return dataclasses.replace(config, shared_socket=unnamed + config.shared_socket) if unnamed else config


def descriptors(config: Config) -> set[FdAddress]:
    """The addresses in it that are inherited descriptors."""
    addresses = [shared.address for shared in config.shared_socket] + [https.address for https in config.listeners]
    addresses += [address for _, address, _ in config.stats_listeners]
    return {address for address in addresses if isinstance(address, FdAddress)}


def _sockets(count: str, names: str) -> tuple[SharedSocket, ...]:
    if not (count.isascii() and count.isdigit() and int(count[:9]) <= SOCKETS_MAX):
        raise ConfigError("LISTEN_FDS", count, f"is not a number of sockets up to {SOCKETS_MAX}", "environment")
    number = int(count)
    each = names.split(":") if names else [""] * number
    if len(each) != number:
        raise ConfigError("LISTEN_FDNAMES", names, f"has {len(each)} names for {number} sockets", "environment")
    text = f"{count}, names {names}" if names else count
    return tuple(
        SharedSocket(FdAddress(fd), text, "environment", name=name, option="LISTEN_FDS")
        for fd, name in enumerate(each, FIRST_FD)
    )
