"""Where to listen or connect, as text: "host:port", "[v6]:port", "/path.sock", "@name", "fd://3", "=0" and "=web".

The forms are those of uWSGI (core/socket.c), read strictly: what uWSGI truncates, turns into 255.255.255.255 or takes
for a file name is an error here. Nothing is resolved and no socket is touched; see unix(7) and ip(7) for the limits.
"""

import ipaddress
import os
import re
from dataclasses import dataclass

PORT_MAX = 65535
UNIX_PATH_BYTES = 107  # sun_path holds 108 bytes, the last of a path being NUL: unix(7)

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_IPV4_LIKE = re.compile(r"[0-9.]+")
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,15}")  # an interface: IFNAMSIZ is 16
_SMALL_NUMBER = re.compile(r"[0-9]{1,9}")
# Begins unlike a number; has no comma, which ends it in https. Names of units are such: systemd.unit(5).
SHARED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,254}")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (a name, or an IP address without brackets) and a port; port 0 lets the kernel choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A UNIX stream socket; the path of an abstract one begins with a NUL."""

    path: str

    def __str__(self) -> str:
        return "@" + self.path[1:] if self.path.startswith("\0") else self.path


@dataclass(frozen=True, slots=True)
class FdAddress:
    """A descriptor that the process inherited, already bound."""

    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


@dataclass(frozen=True, slots=True)
class SharedAddress:
    """A shared socket: the N-th, counted from 0 in order of appearance, or the one of that name."""

    which: int | str

    def __str__(self) -> str:
        return f"={self.which}"


Address = TcpAddress | UnixAddress | FdAddress | SharedAddress


def parse(text: str, *, shared_allowed: bool) -> Address:
    """Read one address; "=N" and "=NAME" count as one only with shared_allowed. Raises ValueError with the cause."""
    if not text:
        raise ValueError("the address is empty")
    if text.startswith("="):
        return _shared(text, shared_allowed)
    if text.startswith("fd://"):
        return FdAddress(_number(text[5:], f"{text!r} is not fd://N with a descriptor number N"))
    if text.startswith("@"):
        return _unix("\0" + text[1:])
    if text.startswith("\\0"):
        return _unix("\0" + text[2:])
    if text.startswith(("/", "./", "../")):
        return _unix(text)
    if "://" in text:
        raise ValueError(f"an address has no scheme but fd://, {text!r} has another")
    if ":" in text:
        return _tcp(text)
    if _SMALL_NUMBER.fullmatch(text):
        raise ValueError(f"a port alone is written :{text}")
    if _IPV4_LIKE.fullmatch(text) or text == "localhost":
        raise ValueError(f"the port is missing, as in {text}:443")
    return _unix(text)  # "uwsgi.sock": what has no colon is a file, as in uWSGI


def _shared(text: str, allowed: bool) -> SharedAddress:
    if not allowed:
        raise ValueError(f"{text!r} names a shared socket, which only an https option can use")
    which = text[1:]
    if SHARED_NAME.fullmatch(which):
        return SharedAddress(which)
    return SharedAddress(_number(which, f"{text!r} is not =N with the number N of a shared socket, nor =NAME"))


def _unix(path: str) -> UnixAddress:
    if path == "\0":
        raise ValueError("the abstract socket has no name")
    if "\0" in path[1:]:
        raise ValueError("a socket path cannot contain a NUL byte")
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise ValueError(f"the socket path is longer than {UNIX_PATH_BYTES} bytes")
    return UnixAddress(path)


def _tcp(text: str) -> TcpAddress:
    host, _, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = _ipv6(host[1:-1])
    elif ":" in host or "[" in host or "]" in host:
        raise ValueError(f"{text!r} is not an address; IPv6 is written [::1]:443")
    elif host:
        _check_name_or_ipv4(host)
    else:
        host = "0.0.0.0"
    port = _number(port_text, f"port {port_text!r} is not a number")
    if port > PORT_MAX:
        raise ValueError(f"port {port} is not between 0 and {PORT_MAX}")
    return TcpAddress(host, port)


def _ipv6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError(f"[{host}] is not an IPv6 address") from None
    if address.scope_id is not None and not _SCOPE.fullmatch(address.scope_id):
        raise ValueError(f"[{host}] names no network interface after the %")
    return str(address)


def _check_name_or_ipv4(host: str) -> None:
    if _IPV4_LIKE.fullmatch(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv4 address") from None
    elif host == "*":
        raise ValueError("'*' is not a host; leave it out to listen on every IPv4 address")
    elif len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name or IP address")


def _number(digits: str, cause: str) -> int:
    if not _SMALL_NUMBER.fullmatch(digits):
        raise ValueError(cause)
    return int(digits)
