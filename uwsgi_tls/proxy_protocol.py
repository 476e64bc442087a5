"""The PROXY protocol header that a load balancer sends before TLS, versions 1 and 2.

After HAProxy's doc/proxy-protocol.txt. It is read from the first bytes of a connection, never from what TLS carries:
there it would be the client's own word. Whose connections may begin with one is not decided here.
"""

import re
import socket
import struct
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # version 2
V1_BYTES = 107  # the longest line of version 1, its end included
V2_BYTES = 16 + 4096  # addresses and TLVs of a version 2 header that we would wait for

_PORT = rb"(0|[1-9][0-9]{0,4})"
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP4|TCP6) ([^ \r\n]+) ([^ \r\n]+) " + _PORT + b" " + _PORT + rb")\r\n"
)
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
    if family is None:  # UNKNOWN, after which "the receiver must ignore anything presented before the CRLF"
        return ProxyHeader(end, None)
    kind = socket.AF_INET if family == b"TCP4" else socket.AF_INET6
    try:
        socket.inet_pton(kind, destination.decode("ascii"))
        address = _address(kind, socket.inet_pton(kind, source.decode("ascii")))
    except (ValueError, OSError):
        return None
    if int(port) > 65535 or int(other_port) > 65535:
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
        return ProxyHeader(end, (_address(socket.AF_INET, data[16:20]), _port(data, 24)))
    if family == 0x21 and size >= 36:
        return ProxyHeader(end, (_address(socket.AF_INET6, data[16:32]), _port(data, 48)))
    # UNSPEC, UNIX and datagrams name nobody that REMOTE_ADDR could hold; "the receiver ... must accept" them.
    return ProxyHeader(end, None) if family >> 4 in (0, 3) else None


def _address(family: socket.AddressFamily, packed: bytes) -> str:
    """As text; IPv4 as such where IPv6 carries it, as for a client that comes without a balancer."""
    text = socket.inet_ntop(family, packed)
    return text.removeprefix("::ffff:") if "." in text else text


def _port(data: bytes, offset: int) -> str:
    return str(int.from_bytes(data[offset : offset + 2], "big"))
