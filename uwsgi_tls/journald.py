"""Lines for systemd's journal, with their values as fields: its native protocol, one datagram an entry.

A field is "NAME=value" and a newline; a value that has a newline of its own follows its name as its length in 64 bits,
little endian, and its bytes (systemd's JOURNAL_NATIVE_PROTOCOL). No library is needed for it: sd_journal_send(3) does
the same. Time, process, user and unit the journal adds itself, and nobody can forge them.
"""

import struct
from collections.abc import Iterator

from uwsgi_tls.datagrams import Datagrams
from uwsgi_tls.log_text import Fields

VALUE_BYTES = 16384  # an entry must fit into one datagram
PREFIX = "UWSGI_TLS_"  # as systemd.journal-fields(7) wishes it for fields that are not well known

_LENGTH = struct.Struct("<Q")


class Journal:
    """The journal of the machine, or of the container's host."""

    stamps = True
    takes_fields = True

    def __init__(self, path: str, name: str) -> None:
        """Raises OSError."""
        self._name = name
        self._datagrams = Datagrams(path)

    def put(self, text: str, priority: int, fields: Fields) -> None:
        self._datagrams.send(b"".join(self._entry(text, priority, fields)))

    def _entry(self, text: str, priority: int, fields: Fields) -> Iterator[bytes]:
        yield _field("MESSAGE", text)
        yield _field("PRIORITY", str(priority))
        yield _field("SYSLOG_IDENTIFIER", self._name)
        for name, value in fields.items():
            if value != "":
                yield _field(PREFIX + name.upper().replace(".", "_"), str(value))


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="backslashreplace")[:VALUE_BYTES]
    if b"\n" in data:
        return name.encode() + b"\n" + _LENGTH.pack(len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
