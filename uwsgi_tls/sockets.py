"""One listening socket: bound to an address, or inherited, and what it is called.

It is non-blocking and close-on-exec; TCP_NODELAY is set here because accepted sockets inherit it: tcp(7), unix(7). What
cannot be is an OSError, or a ValueError with the cause.
"""

import contextlib
import errno
import os
import socket
import stat
from typing import Any

from uwsgi_tls.addresses import TcpAddress
from uwsgi_tls.users import Identity

TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def bind_tcp(address: TcpAddress, backlog: int) -> socket.socket:
    """One that listens there. Raises OSError, ValueError."""
    family, where = socket_address(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] takes IPv4 too, as uWSGI's does
        sock.bind(where)
        sock.listen(backlog)
    except BaseException:  # whatever it is, the socket is not left open
        sock.close()
        raise
    return sock


def socket_address(address: TcpAddress) -> tuple[int, tuple[Any, ...]]:
    """Family and sockaddr of an address; a name with both gives IPv4, as in uWSGI. Raises ValueError."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # gaierror; a label over 63 characters is a UnicodeError
        cause = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ValueError(f"cannot resolve {address.host!r}: {cause}") from None
    families = [family for family, *_ in found]
    family, *_, where = found[families.index(socket.AF_INET) if socket.AF_INET in families else 0]
    return family, where


def bind_unix(path: str, backlog: int, mode: int | None) -> socket.socket:
    """One that listens at the path, where a stale one is replaced; its file has `mode` if one is given. Raises OSError,
    ValueError.
    """
    if not path.startswith("\0") and _is_stale(path):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if mode is not None:
            os.fchmod(sock.fileno(), mode)  # which the file begins with, less the umask: unix_bind() of the kernel
        sock.bind(path)
        sock.listen(backlog)
    except BaseException:  # whatever it is, the socket is not left open
        sock.close()
        raise
    return sock


def _is_stale(path: str) -> bool:
    """True for a socket file that nobody listens on, False for no file. Raises ValueError for anything else."""
    if not is_socket_file(path):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog would block here, and is no proof of death
        code = probe.connect_ex(path)
    if code != errno.ECONNREFUSED:
        if code in (0, errno.EAGAIN, errno.EPROTOTYPE):  # EPROTOTYPE: a socket of another type
            raise ValueError("another process listens there")
        raise ValueError(f"cannot tell whether another process listens there: {os.strerror(code).lower()}")
    return True


def is_socket_file(path: str) -> bool:
    """Whether there is one; False for no file. Raises ValueError for another kind of file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ValueError("a file that is not a socket has that name")
    return True


def give(path: str, identity: Identity | None, mode: int | None) -> None:
    """Chown and chmod a socket file that was just made, and nothing else that was put in its place meanwhile.

    The descriptor pins the inode, and a second link to it would be the mark of a substitute.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISSOCK(status.st_mode) or status.st_nlink != 1:
            raise ValueError("the socket file was replaced while it was being made")
        if identity is not None:
            os.chown(f"/proc/self/fd/{fd}", identity.uid, identity.gid)
        if mode is not None:
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def adopt(fd: int, backlog: int) -> socket.socket:
    """An inherited descriptor as a socket that listens. Raises OSError, ValueError."""
    sock = inherited(fd)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.listen(backlog)
    return sock


def inherited(fd: int) -> socket.socket:
    """A descriptor from whoever started us, as a socket that listens or could. Raises ValueError with the cause."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        cause = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise ValueError(f"descriptor {fd} {cause}") from None
    cause = _unfit(sock)
    if cause:
        sock.detach()  # it is not ours to close
        raise ValueError(f"descriptor {fd} {cause}")
    return sock


def _unfit(sock: socket.socket) -> str:
    if sock.type != socket.SOCK_STREAM or sock.family not in (*TCP_FAMILIES, socket.AF_UNIX):
        return "is not a TCP or UNIX stream socket"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return ""
    with contextlib.suppress(OSError):
        sock.getpeername()
        return "is a connection, not a listening socket"
    # listen(2) would bind a TCP socket to some port of its own choice.
    bound = sock.getsockname() if sock.family == socket.AF_UNIX else sock.getsockname()[1]
    return "" if bound else "is not bound to an address"


def prepare(sock: socket.socket) -> socket.socket:
    """The same socket, as ours are."""
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in TCP_FAMILIES:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def kind(sock: socket.socket) -> str:
    """As the log calls it."""
    return "TCP" if sock.family in TCP_FAMILIES else "UNIX"


def name_of(sock: socket.socket) -> str:
    """Where it really listens."""
    name = sock.getsockname()
    if sock.family == socket.AF_INET6:
        return f"[{name[0]}]:{name[1]}"
    if sock.family == socket.AF_INET:
        return f"{name[0]}:{name[1]}"
    if isinstance(name, bytes):  # an abstract name, its first byte NUL
        return "@" + os.fsdecode(name[1:])
    return str(name)


def port_of(sock: socket.socket) -> str:
    """SERVER_PORT; "" for a UNIX socket."""
    return str(sock.getsockname()[1]) if sock.family in TCP_FAMILIES else ""
