"""From the text of an option's value to the value: each converter is strict, and raises ValueError with the cause.

uWSGI uses atoi() and takes what it does not understand for something else (core/uwsgi.c); here it is refused.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from uwsgi_tls import addresses
from uwsgi_tls.addresses import Address, FdAddress, TcpAddress
from uwsgi_tls.https_option import DEPTH_MAX, HttpsListener, parse_https

INT_MAX = 2**31 - 1
DESCRIPTORS_MAX = 1 << 20  # beyond what one worker could serve; "unlimited" is no number to plan with
WAIT_SECONDS_MAX = 2_000_000  # epoll_wait(2) counts milliseconds in an int
KEEPALIVE_SECONDS = 60

TRUE_WORDS = frozenset(("", "true", "on", "yes", "1"))
FALSE_WORDS = frozenset(("false", "off", "no", "0"))
# By number: linux/capability.h.
CAPABILITY_NAMES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner"),
    *("sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice"),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap"),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)
_ROOTS_OWN = ("setgid", "setuid", "setpcap", "setfcap")  # with each of them the next call brings all the others back
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

Convert = Callable[[str], Any]
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class SharedSocket:
    """A shared-socket option: bound first, as root; =N in an https option is the N-th of them, =NAME that of the name.

    Sockets that a service manager has bound for us are such, too.
    """

    address: Address
    text: str
    where: str = ""
    name: str = ""
    option: str = "shared-socket"


def flag(text: str) -> bool:
    """True or False from a word; uWSGI takes any word but these four for true, a mistyped one included."""
    word = text.lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError("a flag is true or false (on/off, yes/no, 1/0)")
    return word in TRUE_WORDS


def integer(low: int, high: int) -> Callable[[str], int]:
    """A converter to int that refuses what is not a whole number between low and high."""

    def convert(text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise ValueError("not a whole number")
        number = int(text)
        if not low <= number <= high:
            raise ValueError(f"not between {low} and {high}")
        return number

    return convert


def process_count(text: str) -> int:
    """A number of workers; "auto" is one for each CPU that this process may run on: sched_getaffinity(2)."""
    return len(os.sched_getaffinity(0)) if text == "auto" else integer(1, 1024)(text)


def keepalive_seconds(text: str) -> int:
    """Idle seconds of a client connection; a true word or 1 is the default, as in uWSGI, and a false one is off."""
    word = text.lower()
    if word in TRUE_WORDS:
        return KEEPALIVE_SECONDS
    return 0 if word in FALSE_WORDS else integer(0, WAIT_SECONDS_MAX)(text)


def verify_depth(text: str) -> int:
    """A number of intermediate CAs; without one it is 1, as in uWSGI."""
    return integer(0, DEPTH_MAX)(text) if text else 1


def capabilities(text: str) -> tuple[int, ...]:
    """Numbers of capabilities, from their names (with or without CAP_) or numbers, joined by commas."""
    numbers = []
    for word in text.split(","):
        name = word.strip().lower().removeprefix("cap_")
        if name.isascii() and name.isdecimal() and int(name) < len(CAPABILITY_NAMES):
            name = CAPABILITY_NAMES[int(name)]
        if name not in CAPABILITY_NAMES:
            raise ValueError(f"there is no capability {word.strip()!r}, see capabilities(7)")
        if name in _ROOTS_OWN:
            raise ValueError(f"{name} leads back to root, which is given up for good")
        numbers.append(CAPABILITY_NAMES.index(name))
    return tuple(dict.fromkeys(numbers))


def file_mode(text: str) -> int:
    """Octal permissions, such as 660."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError("is not an octal mode such as 660")
    return int(text, 8)


def file_mode_mask(text: str) -> int:
    """An octal umask(2), such as 027."""
    if not re.fullmatch(r"0?[0-7]{1,3}", text):
        raise ValueError("is not an octal mask such as 027")
    return int(text, 8)


def crl_check(text: str) -> str:
    """ "chain" or "leaf"."""
    if text not in ("chain", "leaf"):
        raise ValueError("it is chain or leaf")
    return text


def shared_socket(text: str) -> SharedSocket:
    """[NAME=]ADDRESS; a file whose name would read so is written ./NAME=FILE."""
    name, equals, address = text.partition("=")
    if not (equals and addresses.SHARED_NAME.fullmatch(name)):
        name, address = "", text
    return SharedSocket(addresses.parse(address, shared_allowed=False), text, name=name)


def https_socket(text: str) -> HttpsListener:
    return dataclasses.replace(parse_https(text), option="https-socket")


def stats_address(text: str) -> Address:
    """An address to listen on."""
    return addresses.parse(text, shared_allowed=False)


def stats_http(text: str) -> Address | bool:
    """An address to listen on, or a word that says whether `stats` itself speaks HTTP, which is all it is in uWSGI."""
    return flag(text) if text.lower() in TRUE_WORDS | FALSE_WORDS else stats_address(text)


def backend_address(text: str) -> Address:
    """An address to connect to."""
    address = addresses.parse(text, shared_allowed=False)
    if isinstance(address, FdAddress):
        raise ValueError("a backend is HOST:PORT or a UNIX socket, not a descriptor")
    if isinstance(address, TcpAddress) and address.port == 0:
        raise ValueError("a backend has no port 0")
    return address


def network(text: str) -> Network:
    """An IP network, or the one address that is written without a prefix."""
    return ip_network(text)


def variable(text: str) -> tuple[str, str]:
    """NAME=VALUE; the value becomes the str of its bytes (latin-1), as PEP 3333 wants every variable."""
    name, equals, value = text.partition("=")
    if not equals or not _VARIABLE.fullmatch(name):
        raise ValueError("the syntax is NAME=VALUE")
    return name, os.fsencode(value).decode("latin-1")


def field_text(text: str) -> str:
    """The value of a header field: printable ASCII (RFC 9110, 5.5)."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("not printable ASCII")
    return text.strip()


def wsgi_module(text: str) -> str:
    """PACKAGE.MODULE or PACKAGE.MODULE:CALLABLE."""
    module, colon, name = text.partition(":")
    words = [*module.split("."), *(name.split(".") if colon else ())]
    if not all(word.isidentifier() for word in words):
        hint = "; a file is given as wsgi-file" if "/" in text or text.endswith(".py") else ""
        raise ValueError(f"the syntax is PACKAGE.MODULE or PACKAGE.MODULE:CALLABLE{hint}")
    return text
