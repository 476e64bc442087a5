"""The uwsgi packet that carries a request's variables to a backend.

A header of 4 bytes (modifier1, payload size as 16 bits little-endian, modifier2), then for each variable the size and
bytes of its name, the size and bytes of its value, sizes again 16 bits little-endian: uWSGI's docs/Protocol and
`uwsgi_build_vars`. The body and the response are not in it; they follow as plain bytes on the same connection.
"""

import struct
from collections.abc import Collection

PAYLOAD_BYTES = 65535  # what the size field can say

_HEADER = struct.Struct("<BHB")


class PacketTooBig(Exception):
    """Variables that do not fit a packet: the client's head (or its certificate) is too large."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size  # bytes

    def __str__(self) -> str:
        return f"request variables take {self.size} bytes, a uwsgi packet holds {PAYLOAD_BYTES}"


def _prefix(size: int) -> str:
    return chr(size & 255) + chr(size >> 8)


# The two bytes of a size as two latin-1 characters, so that all of a packet is one str, encoded once. The table is long
# enough for most client certificates and cookies.
_PREFIXES = tuple(map(_prefix, range(4096)))


def text(pairs: Collection[tuple[str, str]]) -> str:
    """Return these (name, value) variables as they stand in a packet, where several such texts follow each other."""
    try:
        return "".join([f"{_PREFIXES[len(name)]}{name}{_PREFIXES[len(value)]}{value}" for name, value in pairs])
    except IndexError:  # a longer one
        return "".join([f"{_prefix(len(name))}{name}{_prefix(len(value))}{value}" for name, value in pairs])


def packet(text: str, modifier1: int, modifier2: int) -> bytes:
    """Return the packet of the variables in `text`, whose strings are latin-1.

    Raises PacketTooBig, and ValueError for a string that is not latin-1.
    """
    if len(text) > PAYLOAD_BYTES:
        raise PacketTooBig(len(text))
    return _HEADER.pack(modifier1, len(text), modifier2) + text.encode("latin-1")
