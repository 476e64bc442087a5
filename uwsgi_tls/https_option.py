"""The values of `https`, `https2`, `https-socket` and of the `sni` options: what a TLS name shows and asks.

Syntax of uWSGI's plugins/http/https.c and core/ssl.c. No file is opened here. Where uWSGI passes nonsense on (an
unknown https2 key, an empty field, a comma inside the cipher list) this module names it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from uwsgi_tls import addresses, client_allow, hello, names, policy
from uwsgi_tls.addresses import Address
from uwsgi_tls.client_allow import Rule

HTTPS_SYNTAX = "ADDRESS,CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]"
SNI_SYNTAX = "NAME CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]"
SNI_REGEXP_SYNTAX = "EXPRESSION CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]"
DEPTH_MAX = 100  # as in OpenSSL, ssl-verify-depth

PKCS12_SUFFIXES = (".p12", ".pfx")
_CERTIFICATE_SUFFIXES = (".crt", ".pem", ".cer", ".ca")
# Words of openssl-ciphers(1) that people put after a comma; no CA file is called so.
_CIPHER_TEXT = """
    3DES ADH ADSS AECDH AECDSA AES AES128 AES256 AESCCM AESGCM AGOST ALL ANULL ARIA ARSA CAMELLIA CAMELLIA128
    CAMELLIA256 CBC CHACHA20 COMPLEMENTOFALL COMPLEMENTOFDEFAULT DEFAULT DES DH DHE DSS ECDH ECDHE ECDSA EDH EECDH ENULL
    EXP EXPORT EXPORT40 EXPORT56 GOST94 HIGH IDEA KDH KDHD KDHE KDHR KECDH KECDHE KEDH KGOST KPSK KRSA LOW MD5 MEDIUM
    NULL PSK RC2 RC4 RSA SEED SHA SHA1 SHA256 SHA384 SRP SSLV2 SSLV3 STRENGTH TLSV1 TLSV1.0 TLSV1.2
"""
_CIPHER_WORDS = frozenset(_CIPHER_TEXT.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a TLS name shows its clients and asks of them, as written: nothing is opened, and "" is the default."""

    certificates: tuple[tuple[str, str], ...]  # files: the certificate with its chain, and its key; one pair a key type
    ciphers: str = ""  # TLS 1.2, in OpenSSL's words
    ciphersuites: str = ""  # TLS 1.3
    client_ca: str = ""  # file; "": no certificate is asked for
    client_required: bool = False
    crl: str = ""  # file
    verify_depth: int | None = None  # intermediate CAs between a client's certificate and a trusted one
    profile: str = ""
    min_version: str = ""
    max_version: str = ""
    client_allow: tuple[Rule, ...] = ()  # which of the verified clients may come in; none: all
    crl_of_leaf_only: bool = False  # no CRL is needed for the CAs in between
    options: int = 0  # SSL_OP_*
    session_seconds: int = 0
    session_context: str = ""
    text: str = ""  # the option's value, its name and where it stands: for the lines that complain
    option: str = ""
    where: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all its files."""
        pairs = (file for pair in self.certificates for file in pair)
        return tuple(file for file in (*pairs, self.client_ca, self.crl) if file)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsListener(Site):
    """One https option: an address to listen on, and the site of the clients that ask for no name of their own."""

    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SniSite(Site):
    """The site of clients that ask for one of `names` (exact, or *.PARENT), or for one in which `expression` is found.

    Names are in lower case, without the dot at the end.
    """

    names: tuple[str, ...] = ()
    expression: str = ""

    def __str__(self) -> str:
        return ", ".join(self.names) or f"~ {self.expression}"


def parse_https(text: str) -> HttpsListener:
    """Read ADDRESS,CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]; a fifth field keeps its commas. Raises ValueError."""
    address, comma, rest = text.partition(",")
    if not comma:
        raise ValueError(f"the syntax is {HTTPS_SYNTAX}")
    site = _fields(rest, HTTPS_SYNTAX)
    return HttpsListener(address=_address(address), text=text, option="https", **site)


def parse_https2(text: str) -> HttpsListener:
    """Read comma-separated KEY=VALUE pairs; cert and key, and allow, may be given several times. Raises ValueError."""
    items = _items(text, ("addr",))
    _check_missing(items, "addr", "addr=ADDRESS,cert=FILE,key=FILE")
    site = _site(items)
    return HttpsListener(address=_address(_one(items, "addr")), text=text, option="https2", **site)


def parse_sni(text: str) -> SniSite:
    """Read NAME CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]. Raises ValueError."""
    name, rest = _split_name(text, SNI_SYNTAX)
    return SniSite(names=(server_name(name),), text=text, option="sni", **_fields(rest, SNI_SYNTAX))


def parse_sni_regexp(text: str) -> SniSite:
    """Read EXPRESSION CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]. Raises ValueError."""
    expression, rest = _split_name(text, SNI_REGEXP_SYNTAX)
    try:
        re.compile(expression, names.EXPRESSION_FLAGS)
    except (re.error, RecursionError) as error:
        raise ValueError(f"{expression!r} is no regular expression: {error}") from None
    return SniSite(expression=expression, text=text, option="sni-regexp", **_fields(rest, SNI_REGEXP_SYNTAX))


def parse_sni2(text: str) -> SniSite:
    """Read comma-separated KEY=VALUE pairs; name, cert and key, and allow, may be given several times.

    Raises ValueError.
    """
    items = _items(text, ("name",))
    _check_missing(items, "name", "name=NAME,cert=FILE,key=FILE")
    own = tuple(dict.fromkeys(server_name(name) for name in items["name"]))
    return SniSite(names=own, text=text, option="sni2", **_site(items))


def server_name(text: str) -> str:
    """A host name, or a wildcard for one label of it, as it is looked up. Raises ValueError."""
    if not text.isascii():
        raise ValueError(f"{text!r}: write the name as it stands in certificates, xn--...")
    wildcard = text.startswith("*.")
    name = hello.host_name(text.removeprefix("*.").encode("ascii"))
    if not name:
        cause = "a wildcard is *.NAME and stands for one label" if "*" in text else "addresses are none (RFC 6066, 3)"
        raise ValueError(f"{text!r} is no server name; {cause}")
    return f"*.{name}" if wildcard else name


def _split_name(text: str, syntax: str) -> tuple[str, str]:
    words = text.split(None, 1)
    if len(words) < 2:
        raise ValueError(f"the syntax is {syntax}")
    return words[0], words[1]


def _address(text: str) -> Address:
    return addresses.parse(text, shared_allowed=True)


# What stands behind the address or the name


def _fields(text: str, syntax: str) -> dict[str, Any]:
    fields = text.split(",", 3)
    if len(fields) < 2:
        raise ValueError(f"the syntax is {syntax}")
    if not fields[1] and _has_key_in_it(fields[0]):
        fields[1] = fields[0]  # it has the key in it
    for name, value in (("certificate", fields[0]), ("key", fields[1])):
        if not value:
            raise ValueError(f"the {name} file is empty; the syntax is {syntax}")
    ciphers = fields[2] if len(fields) > 2 else ""
    _check_ciphers(ciphers)
    site: dict[str, Any] = {"certificates": ((fields[0], fields[1]),), "ciphers": ciphers}
    return site | _client_ca(fields[3]) if len(fields) > 3 else site


Items = Mapping[str, list[str]]


def _items(text: str, first: tuple[str, ...]) -> Items:
    known = (*first, *_KEYS)
    items: dict[str, list[str]] = {key: [] for key in known}
    for item in text.split(","):
        written, equals, value = item.partition("=")
        key = _ALIASES.get(written, written).replace("_", "-")
        if key == "spdy":
            raise ValueError("spdy is gone from OpenSSL and every browser; leave it out")
        if key not in known or not equals:
            if items["ciphers"] and _is_cipher_word(item):
                raise ValueError(f"{item!r} reads as part of the cipher list: separate ciphers with ':'")
            raise ValueError(f"{item!r} is not KEY=VALUE with a key of {', '.join(known)}")
        if items[key] and key not in _REPEATED:
            raise ValueError(f"{key} is given twice")
        if not value and key != "ciphers":
            raise ValueError(f"{key} is empty")
        items[key].append(value)
    return items


def _check_missing(items: Items, first: str, syntax: str) -> None:
    has_keys = bool(items["cert"]) and all(map(_has_key_in_it, items["cert"]))
    missing = " and ".join(
        name for name in (first, "cert", "key") if not items[name] and not (name == "key" and has_keys)
    )
    if missing:
        raise ValueError(f"{missing} must be given: {syntax}")


def _has_key_in_it(certificate: str) -> bool:
    return certificate.endswith(PKCS12_SUFFIXES)


def _pairs(certificates: list[str], keys: list[str]) -> tuple[tuple[str, str], ...]:
    """Each certificate with its key, in order; those that have it in them need none."""
    rest = iter(keys)
    if len(keys) == len([each for each in certificates if not _has_key_in_it(each)]):
        return tuple((each, each if _has_key_in_it(each) else next(rest)) for each in certificates)
    raise ValueError(f"there are {len(certificates)} cert and {len(keys)} key; each certificate has a key")


def _site(items: Items) -> dict[str, Any]:
    site: dict[str, Any] = {"certificates": _pairs(items["cert"], items["key"])}
    for key, (field, convert) in _KEYS.items():
        if convert is not None and items[key]:
            site[field] = convert(_one(items, key))
    _check_ciphers(site.get("ciphers", ""))
    if items["allow"]:
        site["client_allow"] = tuple(client_allow.parse(text) for text in items["allow"])
    if items["clientca"]:
        return site | _client_ca(_one(items, "clientca"))
    for key in ("crl", "depth", "allow"):
        if items[key]:
            raise ValueError(f"{key} has no effect without clientca: no client is asked for a certificate")
    return site


def _one(items: Items, key: str) -> str:
    return items[key][0]


def _depth(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) > DEPTH_MAX:
        raise ValueError(f"depth {text!r} is not between 0 and {DEPTH_MAX}")
    return int(text)


# Key -> the field of Site that it fills and how; without that it is of several values.
_KEYS: Mapping[str, tuple[str, Callable[[str], Any] | None]] = {
    "cert": ("certificates", None),
    "key": ("certificates", None),
    "ciphers": ("ciphers", str),
    "ciphersuites": ("ciphersuites", policy.ciphersuites),
    "clientca": ("client_ca", None),
    "crl": ("crl", str),
    "depth": ("verify_depth", _depth),
    "allow": ("client_allow", None),
    "profile": ("profile", policy.profile),
    "min-version": ("min_version", policy.version),
    "max-version": ("max_version", policy.version),
}
_ALIASES = {"crt": "cert", "client_ca": "clientca", "client-ca": "clientca"}
_REPEATED = ("cert", "key", "allow", "name")


def _client_ca(text: str) -> dict[str, Any]:
    required = text.startswith("!")
    file = text[1 if required else 0 :]
    _check_client_ca(text, file)
    return {"client_ca": file, "client_required": required}


def _check_ciphers(ciphers: str) -> None:
    """A CA file in the place of the ciphers is the commonest slip: the client would go unverified."""
    if "/" in ciphers or ciphers.lower().endswith(_CERTIFICATE_SUFFIXES):
        raise ValueError(f"{ciphers!r} stands where the ciphers belong; leave them empty with two commas before the CA")


def _check_client_ca(client_ca: str, ca_file: str) -> None:
    if not ca_file:
        raise ValueError("the client CA is empty; take the last comma away to ask for no certificate")
    first = client_ca.split(",", 1)[0]
    if _is_cipher_word(first):
        raise ValueError(f"{first!r} reads as part of the cipher list, not as a CA file: separate ciphers with ':'")


def _is_cipher_word(text: str) -> bool:
    words = text.lstrip("!+-").split(":", 1)[0].upper()
    return all(word in _CIPHER_WORDS for word in words.split("+"))
