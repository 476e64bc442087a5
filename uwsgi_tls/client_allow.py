"""`client-allow`: which of the clients whose certificate was verified may come in.

A rule is KIND:VALUE. Values are compared whole and exactly, but for the case of what has none: host names, and the
domain of an address. Names are the certificate's subjectAltName (RFC 5280, 4.2.1.6), where wildcards do not count on
either side; `cn` is the most specific common name of its subject, and no other. `spki` and `fingerprint`
are SHA-256, of the public key (RFC 7469, 2.4) and of the whole certificate.
"""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

SYNTAX = "cn:NAME, dns:HOST, email:ADDRESS, uri:URI, spki:SHA256 or fingerprint:SHA256"

_DIGEST_BYTES = 32
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of name and the value that admits, in the form in which `Identity` has it."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified certificate says of its owner, as rules compare it: host names and digests in lower case."""

    cn: str = ""
    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    spki: str = ""  # SHA-256, hexadecimal
    fingerprint: str = ""


def parse(text: str) -> Rule:
    """The rule in a text such as "dns:client.lab". Raises ValueError with the cause."""
    kind, colon, value = text.partition(":")
    kind, value = kind.strip().lower(), value.strip()
    check = _CHECKS.get(kind)
    if check is None or not colon:
        raise ValueError(f"{text!r} is not one of {SYNTAX}")
    if not value:
        raise ValueError(f"{kind}: without a value would admit nobody, or everybody")
    return Rule(kind, check(value))


def matches(identity: Identity, rules: Iterable[Rule]) -> bool:
    """Whether one of the rules admits who is known by `identity`."""
    return any(_matches(identity, rule) for rule in rules)


def _matches(identity: Identity, rule: Rule) -> bool:
    own: str | tuple[str, ...] = getattr(identity, rule.kind)
    return rule.value in own if isinstance(own, tuple) else rule.value == own


def mailbox(address: str) -> str:
    """An address whose domain is in lower case; the part before it may be a matter of case (RFC 5321, 2.4)."""
    name, at, domain = address.rpartition("@")
    return f"{name}{at}{domain.lower()}"


def _name(value: str) -> str:
    return value


def _dns(value: str) -> str:
    host = value.lower().removesuffix(".")
    if "*" in host:
        raise ValueError(f"{value!r}: no wildcard admits clients; give each of them a rule")
    if not host.isascii():
        raise ValueError(f"{value!r}: write it as it stands in certificates, xn--...")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{value!r} is no host name")
    return host


def _email(value: str) -> str:
    name, _, domain = value.rpartition("@")
    if not name or not domain or not _VISIBLE.fullmatch(value):
        raise ValueError(f"{value!r} is no address of the form NAME@DOMAIN")
    return mailbox(value)


def _uri(value: str) -> str:
    if ":" not in value or not _VISIBLE.fullmatch(value):
        raise ValueError(f"{value!r} is no URI")
    return value


def _digest(value: str) -> str:
    """SHA-256 as openssl, curl and others write it: hex with or without colons, or base64; as plain hex."""
    bare = re.sub(r"\Asha-?256[:/]+", "", value, flags=re.IGNORECASE)
    plain = bare.replace(":", "").lower()
    if re.fullmatch(rf"[0-9a-f]{{{2 * _DIGEST_BYTES}}}", plain):
        return plain
    try:
        digest = base64.b64decode(bare, validate=True)
    except ValueError:  # not of its letters, or binascii.Error
        digest = b""
    if len(digest) != _DIGEST_BYTES:
        raise ValueError(f"{value!r} is no SHA-256 of {2 * _DIGEST_BYTES} hexadecimal digits, nor one in base64")
    return digest.hex()


_CHECKS = {"cn": _name, "dns": _dns, "email": _email, "uri": _uri, "spki": _digest, "fingerprint": _digest}
