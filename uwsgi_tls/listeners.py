"""The listening sockets: every shared socket first, in order, then each https option's own, or its `=N`.

All of it happens before the privileges are dropped, as root where ports below 1024 are wanted. `=N` has one resolver,
run when the whole configuration is known (uWSGI has two: plugins/corerouter/cr_common.c and core/socket.c). Before a
reload what is bound already stays as it is, and only the rest is bound, as the user. One socket is sockets.py's.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from uwsgi_tls import sockets
from uwsgi_tls.addresses import Address, FdAddress, SharedAddress, TcpAddress, UnixAddress
from uwsgi_tls.converters import SharedSocket
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener
from uwsgi_tls.options import Config
from uwsgi_tls.users import Identity

STATS_BACKLOG = 16

_CAUSES = {
    errno.EADDRINUSE: "the address is in use; is another instance running?",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
}


@dataclass(frozen=True, slots=True)
class SharedListener:
    """The index-th shared socket, and where it really listens ("127.0.0.1:443", "/run/x.sock", "@name")."""

    index: int
    socket: socket.socket
    name: str


@dataclass(frozen=True, slots=True)
class HttpsSocket:
    """An https option with its socket; `port` is SERVER_PORT ("" for UNIX), `shared` the N of =N or None."""

    option: HttpsListener
    socket: socket.socket
    name: str
    port: str
    shared: int | None


@dataclass(frozen=True, slots=True)
class StatsSocket:
    """Where the server tells how it is; `http`: by HTTP."""

    socket: socket.socket
    name: str
    http: bool


_File = tuple[str, int, int]  # of a UNIX socket: path, device and inode
_Opened = tuple[socket.socket, str]


@dataclass(frozen=True, slots=True)
class Inheritance:
    """A bound socket for another program: its address as the configuration has it, and its descriptor."""

    address: str
    fd: int
    file: _File | None = None


class Bound:
    """Every listening socket of a configuration."""

    __slots__ = ("_files", "_open_at", "https", "shared", "stats")

    def __init__(self, inherited: Iterable[Inheritance] = ()) -> None:
        """`inherited` are sockets of a program that had this process before us."""
        self.shared: list[SharedListener] = []
        self.https: list[HttpsSocket] = []
        self.stats: list[StatsSocket] = []
        self._open_at: list[tuple[str, socket.socket]] = []  # every socket, by the address as the configuration has it
        self._files: dict[socket.socket, _File] = {}  # of the UNIX sockets made here
        for each in inherited:
            sock = socket.socket(fileno=each.fd)
            self._open_at.append((each.address, sock))
            if each.file is not None:
                self._files[sock] = each.file

    @property
    def sockets(self) -> list[socket.socket]:
        return [sock for _, sock in self._open_at]

    @property
    def inheritance(self) -> list[Inheritance]:
        """What a program needs to know that is to take them over."""
        return [Inheritance(address, sock.fileno(), self._files.get(sock)) for address, sock in self._open_at]

    def release(self, keep: "Bound | None" = None) -> None:
        """Close all sockets but those that `keep` has too, and remove the files of UNIX sockets made here. Only for the
        process that ends the service.
        """
        kept = set(keep.sockets) if keep is not None else set()
        for sock in self.sockets:
            if sock in kept:
                continue
            sock.close()
            if sock in self._files:
                _remove(self._files.pop(sock))
        self._open_at = [(address, sock) for address, sock in self._open_at if sock in kept]

    def _open(
        self,
        address: Address,
        backlog: int,
        identity: Identity | None,
        before: "Bound | None",
        mode: int | None = None,
    ) -> _Opened:
        """Bind one address, or take the socket that is bound to it already from `before`. Returns the socket and a verb
        for the log. `mode` has the permissions of a UNIX socket; None: as the umask has it. Raises OSError, or
        ValueError with the cause.
        """
        sock = before._bound_to(str(address), self) if before is not None else None
        verb = ""
        if sock is not None and before is not None:
            if not isinstance(address, FdAddress):
                sock.listen(backlog)
            if sock in before._files:
                self._files[sock] = before._files[sock]
        elif isinstance(address, FdAddress):
            if before is not None:  # whatever has that number now is ours
                raise ValueError("was not there at the start, and only a restart brings it")
            sock, verb = sockets.prepare(sockets.adopt(address.fd, backlog)), "inherited"
        elif isinstance(address, TcpAddress):
            sock, verb = sockets.prepare(sockets.bind_tcp(address, backlog)), "bound to"
        elif isinstance(address, UnixAddress):
            sock, verb = sockets.prepare(self._open_unix(address.path, backlog, identity, mode)), "bound to"
        else:
            raise ValueError(f"a shared socket cannot itself be {address}")
        self._open_at.append((str(address), sock))
        return sock, verb

    def _bound_to(self, address: str, taker: "Bound") -> socket.socket | None:
        """One of that address that `taker` has not taken yet: port 0 may be there twice."""
        taken = set(taker.sockets)
        return next((sock for where, sock in self._open_at if where == address and sock not in taken), None)

    def _open_unix(self, path: str, backlog: int, identity: Identity | None, mode: int | None) -> socket.socket:
        sock = sockets.bind_unix(path, backlog, mode)
        if path.startswith("\0"):
            return sock
        try:
            status = os.lstat(path)
            self._files[sock] = (os.path.abspath(path), status.st_dev, status.st_ino)
            if identity is not None or mode is not None:
                sockets.give(path, identity, mode)
        except BaseException:  # whatever it is, neither the socket nor its file is left
            sock.close()
            if sock in self._files:
                _remove(self._files.pop(sock))
            raise
        return sock


def _remove(file: _File) -> None:
    path, device, inode = file
    # After the drop the directory may not be ours to change; then the next start replaces the stale file.
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) == (device, inode):  # else another server has put its own there
            os.unlink(path)


def bind_all(
    config: Config, log: Callable[[str], None], identity: Identity | None = None, before: Bound | None = None
) -> Bound:
    """Bind everything that the configuration names, and log one line each. UNIX socket files are given to `identity`.

    What `before` has bound already, before a reload, is taken from it and left open there too. Raises ConfigError on
    the first failure, with every new socket closed and its file removed again.
    """
    references = _resolve(config)
    bound = Bound()
    try:
        _bind_shared(bound, config, log, identity, before)
        _bind_https(bound, config, references, log, identity, before)
        _bind_stats(bound, config, log, identity, before)
    except BaseException:  # whatever it is, no socket and no file stays behind
        bound.release(keep=before)
        raise
    for warning in _unused(config, references):
        log(warning)
    return bound


def _bind_shared(
    bound: Bound, config: Config, log: Callable[[str], None], identity: Identity | None, before: Bound | None
) -> None:
    for index, shared in enumerate(config.shared_socket):
        with _as_config_error(shared.option, shared.text, shared.where, shared.address):
            sock, verb = bound._open(shared.address, config.listen, identity, before)
        listener = SharedListener(index, sock, sockets.name_of(sock))
        bound.shared.append(listener)
        label = _label(config, index)
        if verb:
            log(f"uwsgi shared socket {label} {verb} {_described(sock)}")


def _bind_https(
    bound: Bound,
    config: Config,
    references: list[int | None],
    log: Callable[[str], None],
    identity: Identity | None,
    before: Bound | None,
) -> None:
    for index, (option, shared) in enumerate(zip(config.listeners, references, strict=True)):
        if shared is not None:
            sock = bound.shared[shared].socket
            bound.https.append(HttpsSocket(option, sock, sockets.name_of(sock), sockets.port_of(sock), shared))
            if before is None or option not in [each.option for each in before.https]:
                log(f"https listener {index} -> shared socket {shared} ({sockets.name_of(sock)}, fd {sock.fileno()})")
            continue
        with _as_config_error(option.option, option.text, option.where, option.address):
            sock, verb = bound._open(option.address, config.listen, identity, before)
        bound.https.append(HttpsSocket(option, sock, sockets.name_of(sock), sockets.port_of(sock), None))
        if verb:
            log(
                f"https listener {index} {verb} {sockets.kind(sock)} address {sockets.name_of(sock)} fd {sock.fileno()}"
            )


def _bind_stats(
    bound: Bound, config: Config, log: Callable[[str], None], identity: Identity | None, before: Bound | None
) -> None:
    for option, address, http in config.stats_listeners:
        with _as_config_error(option, str(address), config.origins.get(option, ""), address):
            sock, verb = bound._open(address, STATS_BACKLOG, identity, before, config.stats_chmod)
            bound.stats.append(StatsSocket(sock, sockets.name_of(sock), http))
            _check_public(sock.family, sock.getsockname(), config)
        if verb:
            log(f"{option} {verb} {_described(sock)}")


def _described(sock: socket.socket) -> str:
    return f"{sockets.kind(sock)} address {sockets.name_of(sock)} fd {sock.fileno()}"


def check_all(config: Config) -> list[str]:
    """What `bind_all` would do, in lines of text, with nothing bound or changed. Raises ConfigError."""
    references = _resolve(config)
    lines = []
    for index, shared in enumerate(config.shared_socket):
        with _as_config_error(shared.option, shared.text, shared.where, shared.address):
            _check(shared.address)
        lines.append(f"shared socket {_label(config, index)}: {shared.address}")
    for index, (option, reference) in enumerate(zip(config.listeners, references, strict=True)):
        if reference is not None:
            name = config.shared_socket[reference].address
            lines.append(f"https listener {index} -> shared socket {reference} ({name})")
            continue
        with _as_config_error(option.option, option.text, option.where, option.address):
            _check(option.address)
        lines.append(f"https listener {index}: {option.address}")
    return [*lines, *_check_stats(config), *_unused(config, references)]


def _check_stats(config: Config) -> Iterator[str]:
    for option, address, http in config.stats_listeners:
        with _as_config_error(option, str(address), config.origins.get(option, ""), address):
            _check(address)
            if isinstance(address, TcpAddress):
                _check_public(*sockets.socket_address(address), config)
        yield f"{option}: {address}{' (HTTP)' if http else ''}"


def _resolve(config: Config) -> list[int | None]:
    """The shared socket of each https option, or None where it has its own address. Raises ConfigError."""
    _check_backlog(config)
    taken: dict[Address, str] = {}
    for shared in config.shared_socket:
        _claim(taken, shared.address, shared.option, shared.text, shared.where)
    references: list[int | None] = []
    for option in config.listeners:
        address = option.address
        reference = None
        if isinstance(address, SharedAddress):
            try:
                reference = _referred(address.which, config.shared_socket)
            except ValueError as error:
                raise ConfigError(option.option, option.text, str(error), option.where) from None
            address = SharedAddress(reference)  # the same by its number and by its name
        _claim(taken, address, option.option, option.text, option.where)
        references.append(reference)
    for name, address, _ in config.stats_listeners:
        _claim(taken, address, name, str(address), config.origins.get(name, ""))
    return references


def _referred(which: int | str, shared: Sequence[SharedSocket]) -> int:
    """The number of the shared socket that =N or =NAME means. Raises ValueError with the cause."""
    if isinstance(which, int):
        if which >= len(shared):
            raise ValueError(f"there is no shared socket {which}; {_how_many(len(shared))}")
        return which
    found = [index for index, each in enumerate(shared) if each.name == which]
    if not found:
        names = dict.fromkeys(each.name for each in shared if each.name)
        known = f"the names are {', '.join(names)}" if names else "none has a name"
        raise ValueError(f"there is no shared socket {which}; {known}")
    if len(found) > 1:
        raise ValueError(f"{len(found)} shared sockets have that name; use {' or '.join(f'={each}' for each in found)}")
    return found[0]


def _claim(taken: dict[Address, str], address: Address, option: str, text: str, where: str) -> None:
    if address in taken and not (isinstance(address, TcpAddress) and address.port == 0):
        raise ConfigError(option, text, f"{address} is already used by {taken[address]}", where)
    taken[address] = f"{option} = {text}" + (f" ({where})" if where else "")


def _check_public(family: int, where: Any, config: Config) -> None:
    """Raises ValueError for an address of statistics that others than users of this machine can reach."""
    if (
        family in sockets.TCP_FAMILIES
        and not ip_address(where[0].partition("%")[0]).is_loopback
        and not config.stats_public
    ):
        raise ValueError("whoever reaches it could read all of it: use 127.0.0.1 or a UNIX socket, or say stats-public")


def _label(config: Config, index: int) -> str:
    name = config.shared_socket[index].name
    return f"{index} ({name})" if name else str(index)


def _how_many(count: int) -> str:
    if count == 0:
        return "no shared-socket is given"
    return "only 0 is given" if count == 1 else f"0 to {count - 1} are given"


def _check_backlog(config: Config) -> None:
    try:
        limit = int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii"))
    except OSError:  # no /proc: the kernel will cut the backlog itself, listen(2)
        return
    if config.listen > limit:
        cause = f"is more than net.core.somaxconn allows ({limit}); raise that with sysctl"
        raise ConfigError("listen", str(config.listen), cause, config.origins.get("listen", ""))


def _unused(config: Config, references: list[int | None]) -> list[str]:
    return [
        f"WARNING: shared socket {index} ({shared.address}) is used by no https option"
        for index, shared in enumerate(config.shared_socket)
        if index not in references
    ]


@contextlib.contextmanager
def _as_config_error(option: str, text: str, where: str, address: Address) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(option, text, f"{address}: {error}", where) from None
    except OSError as error:
        raise ConfigError(option, text, f"{address}: {_cause(error, address)}", where) from None


def _cause(error: OSError, address: Address) -> str:
    if error.errno == errno.EACCES and isinstance(address, TcpAddress):
        return f"permission denied; uid {os.geteuid()} may not bind port {address.port}, start as root"
    return _CAUSES.get(error.errno or 0, (error.strerror or str(error)).lower())


def _check(address: Address) -> None:
    if isinstance(address, TcpAddress):
        sockets.socket_address(address)
    elif isinstance(address, FdAddress):
        sockets.inherited(address.fd).detach()
    elif isinstance(address, UnixAddress) and not address.path.startswith("\0"):
        sockets.is_socket_file(address.path)  # who listens there may be the very server whose configuration is checked
        if not os.path.isdir(os.path.dirname(address.path) or "."):
            raise ValueError("its directory does not exist")
