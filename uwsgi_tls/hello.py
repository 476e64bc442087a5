"""The first bytes of a connection: a TLS ClientHello, or something else.

`look` is given what has been peeked from a new connection and says which name and which protocols the client asks
for, how many bytes it must see before it can tell, or that this is not TLS. It decides nothing and answers nothing:
OpenSSL reads the same bytes afterwards and refuses what is malformed with the proper alert. What OpenSSL would accept
is read as OpenSSL reads it, or a client could show one name here and another one there.

Follows RFC 8446 4.1.2 (ClientHello) and 5.1 (records), RFC 6066 3 (server_name), RFC 7301 3.1 (ALPN).
"""

import re
from dataclasses import dataclass, field
from itertools import islice
from struct import Struct, unpack_from
from typing import Literal

RECORD_HEADER_BYTES = 5
RECORD_BYTES = 16384  # RFC 8446 5.1: a plaintext fragment must not be longer
HELLO_BYTES = 65536  # all records of the hello with their headers; a post-quantum one has 2,000
HELLO_RECORDS = 64  # browsers send one; programs that evade filters cut it into some dozens

_HANDSHAKE_RECORD = 22
_TLS_MAJOR = 3
_CLIENT_HELLO = 1
_MESSAGE_HEADER_BYTES = 4
_EXTENSION = Struct(">HH").unpack_from  # type, length
_SERVER_NAME = 0
_ALPN = 16
_SUPPORTED_VERSIONS = 43
_VERSION_NAMES = {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_VERSIONS_MAX = 8  # that are named

# RFC 9110 9.1: a method is a token; RFC 9112 3: one space follows it.
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?: |\Z)")
# RFC 1123 2.1, with the underscore that real names have. A name whose last label is a number would be an address.
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
_HOST_NAME_BYTES = 253


@dataclass(frozen=True, slots=True)
class Hello:
    """A whole ClientHello is there: the server name as `host_name` gives it, the protocols of ALPN in order."""

    sni: str | None  # None: it asks for none; "": for what is no host name
    alpn: tuple[str, ...]
    versions: bytes = field(default=b"", compare=False)  # of TLS that the client offers, as `version_names` takes them


@dataclass(frozen=True, slots=True)
class Wanted:
    """Look again when so many bytes are there, counted from the first of the connection."""

    bytes_total: int


@dataclass(frozen=True, slots=True)
class NotTls:
    """No TLS client sends this: "http" when it begins as a plain HTTP request does, otherwise "junk"."""

    kind: Literal["http", "junk"]


_JUNK = NotTls("junk")
_HTTP = NotTls("http")
_NAMELESS = Hello(None, ())  # also for what is malformed: OpenSSL refuses it with the alert that fits


def look(data: bytes) -> Hello | Wanted | NotTls:
    """Says what the first bytes of a connection are; never raises.

    A hello of one record, the usual case, is read in place. The wait grows with what the client announced, so that one
    who cuts its hello into many records is not looked at once a record.
    """
    if data and data[0] != _HANDSHAKE_RECORD:
        return _HTTP if _METHOD.match(data) else _JUNK
    message, begin = data, RECORD_HEADER_BYTES
    there = missing = at = 0
    for _ in range(HELLO_RECORDS):
        start = at + RECORD_HEADER_BYTES
        if len(data) < start:
            return _wait(start + missing)
        if data[at] != _HANDSHAKE_RECORD or data[at + 1] != _TLS_MAJOR:
            return _JUNK  # RFC 8446 5.1: no other record may come between
        size = data[at + 3] << 8 | data[at + 4]
        if size > RECORD_BYTES:
            return _NAMELESS
        end = start + size
        if end > HELLO_BYTES:
            return _JUNK
        if len(data) < end:
            return _wait(end if size >= missing else end + RECORD_HEADER_BYTES + missing - size)
        if at:
            message, begin = message[begin : begin + there] + data[start:end], 0
        there += size
        at = end
        if there and message[begin] != _CLIENT_HELLO:
            return _NAMELESS
        if there < _MESSAGE_HEADER_BYTES:
            missing = _MESSAGE_HEADER_BYTES - there
            continue
        missing = _MESSAGE_HEADER_BYTES + int.from_bytes(message[begin + 1 : begin + 4]) - there
        if missing <= 0:
            return _names(message, begin + _MESSAGE_HEADER_BYTES, begin + there + missing)
    return _JUNK


def host_name(raw: bytes) -> str:
    """The host name in a server_name extension: lower case, without the trailing dot; "" if it is no valid host name.

    RFC 6066 3 excludes addresses and what is not ASCII. Names and labels must also have the length and the characters
    that host names have, so the result may be looked up, logged and compared as it is.
    """
    if not raw.isascii():
        return ""
    name = raw.decode("ascii").lower().removesuffix(".")
    return name if len(name) <= _HOST_NAME_BYTES and _HOST_NAME.fullmatch(name) else ""


def _wait(bytes_total: int) -> Wanted | NotTls:
    return Wanted(bytes_total) if bytes_total <= HELLO_BYTES else _JUNK


def _names(message: bytes, at: int, end: int) -> Hello:
    """Reads the ClientHello in message[at:end].

    A length that lies takes `at` past `end`, never back, so one comparison after the skipping finds all of them.
    """
    versions = message[at : at + 2]
    try:
        at += 2 + 32  # legacy_version, random
        at += 1 + message[at]  # legacy_session_id
        at += 2 + (message[at] << 8 | message[at + 1])  # cipher_suites
        at += 1 + message[at]  # legacy_compression_methods
        if at + 2 + (message[at] << 8 | message[at + 1]) != end:
            return _NAMELESS  # in TLS 1.2 there may be no extensions
    except IndexError:
        return _NAMELESS
    at += 2
    sni: str | None = None
    alpn: tuple[str, ...] = ()
    while at + 4 <= end:
        kind, size = _EXTENSION(message, at)
        at += 4
        if at + size > end:
            return _NAMELESS
        if kind == _SERVER_NAME:
            sni = _server_name(message[at : at + size])
        elif kind == _ALPN:
            alpn = _protocols(message[at : at + size])
        elif kind == _SUPPORTED_VERSIONS:
            versions = message[at + 1 : at + size]
        at += size
    return Hello(sni, alpn, versions)


def version_names(versions: bytes) -> list[str]:
    """The versions of `Hello.versions`, each once, without those of GREASE (RFC 8701); for people.

    They are those of supported_versions (RFC 8446, 4.2.1), or the newest one where a client knows no such extension.
    """
    numbers = (versions[at] << 8 | versions[at + 1] for at in range(0, len(versions) - 1, 2))
    named = (_VERSION_NAMES.get(number, f"0x{number:04x}") for number in numbers if number & 0x0F0F != 0x0A0A)
    return list(islice(dict.fromkeys(named), _VERSIONS_MAX))


def _server_name(extension: bytes) -> str:
    """A ServerNameList of exactly one host_name: RFC 6066 3 allows one name a type and knows one type."""
    size = len(extension)
    if size < 5 or unpack_from(">HBH", extension) != (size - 2, 0, size - 5):
        return ""
    return host_name(extension[5:])


def _protocols(extension: bytes) -> tuple[str, ...]:
    """A ProtocolNameList; RFC 7301 3.1: no name is empty. Names are bytes; latin-1 keeps those of GREASE (RFC 8701)."""
    size = len(extension)
    if size < 2 or extension[0] << 8 | extension[1] != size - 2:
        return ()
    names = []
    at = 2
    while at < size:
        start = at + 1
        at = start + extension[at]
        if at == start or at > size:
            return ()
        names.append(extension[start:at].decode("latin-1"))
    return tuple(names)
