"""The PROXY protocol header that a load balancer sends before TLS, versions 1 and 2.

After HAProxy's doc/proxy-protocol.txt. It is read from the first bytes of a connection, never from what TLS carries:
there it would be the client's own word. Whose connections may begin with one is not decided here.
"""

import re
import socket
import struct
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # version 2
V1_BYTES = 107  # the longest line of version 1, its end included
V2_BYTES = 16 + 4096  # addresses and TLVs of a version 2 header that we would wait for

_V1 = re.compile(rb"PROXY (TCP4|TCP6|UNKNOWN)(?: ([^ \r\n]+) ([^ \r\n]+) ([0-9]{1,5}) ([0-9]{1,5}))?[^\r\n]*\r\n")
_V2 = struct.Struct("!12sBBH")


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header: its length in bytes, and whom it names; None where the balancer speaks for itself."""

    length: int
    source: tuple[str, str] | None  # address and port


@dataclass(frozen=True, slots=True)
class Wanted:
    """More must be there before another look is worth while."""

    bytes_total: int


def look(data: bytes) -> ProxyHeader | Wanted | None:
    """What the first bytes of a connection are; None when they are no PROXY header."""
    if data and data.startswith(SIGNATURE[: len(data)]):
        return _version_2(data)
    if b"PROXY ".startswith(data[:6]):
        return _version_1(data)
    return None


def _version_1(data: bytes) -> ProxyHeader | Wanted | None:
    end = data.find(b"\n", 0, V1_BYTES) + 1
    if not end:
        return Wanted(len(data) + 1) if len(data) < V1_BYTES else None
    match = _V1.fullmatch(data, 0, end)
    if match is None:
        return None
    family, source, destination, port, other_port = match.groups()
    if family == b"UNKNOWN":
        return ProxyHeader(end, None)
    kind = IPv4Address if family == b"TCP4" else IPv6Address
    try:
        kind(destination.decode("ascii"))
        address = str(kind(source.decode("ascii")))
    except (AttributeError, UnicodeDecodeError, AddressValueError):
        return None
    if int(port) > 65535 or int(other_port) > 65535 or (len(port) > 1 and port.startswith(b"0")):
        return None
    return ProxyHeader(end, (address, port.decode("ascii")))


def _version_2(data: bytes) -> ProxyHeader | Wanted | None:
    if len(data) < _V2.size:
        return Wanted(_V2.size)
    _, version_command, family, size = _V2.unpack_from(data)
    end = _V2.size + size
    if version_command not in (0x20, 0x21) or end > V2_BYTES:
        return None
    if len(data) < end:
        return Wanted(end)
    if version_command == 0x20:  # LOCAL: a health check of the balancer's own
        return ProxyHeader(end, None)
    if family == 0x11 and size >= 12:
        return ProxyHeader(end, (socket.inet_ntop(socket.AF_INET, data[16:20]), _port(data, 24)))
    if family == 0x21 and size >= 36:
        return ProxyHeader(end, (socket.inet_ntop(socket.AF_INET6, data[16:32]), _port(data, 48)))
    # UNSPEC, UNIX and datagrams name nobody that REMOTE_ADDR could hold; "the receiver ... must accept" them.
    return ProxyHeader(end, None) if family >> 4 in (0, 3) else None


def _port(data: bytes, offset: int) -> str:
    return str(int.from_bytes(data[offset : offset + 2], "big"))
