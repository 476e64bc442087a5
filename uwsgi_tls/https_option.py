"""The values of `https`, `https2` and `https-socket`: one listener with its certificate, key, ciphers and client CA.

Syntax of uWSGI's plugins/http/https.c and core/ssl.c. No file is opened here. Where uWSGI passes nonsense on (an
unknown https2 key, an empty field, a comma inside the cipher list) this module names it.
"""

from dataclasses import dataclass

from uwsgi_tls import addresses
from uwsgi_tls.addresses import Address

HTTPS_SYNTAX = "ADDRESS,CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]"

_HTTPS2_KEYS = {
    "addr": "addr",
    "cert": "cert",
    "crt": "cert",
    "key": "key",
    "ciphers": "ciphers",
    "clientca": "clientca",
    "client_ca": "clientca",
}
_CERTIFICATE_SUFFIXES = (".crt", ".pem", ".cer", ".ca")
# Words of openssl-ciphers(1) that people put after a comma; no CA file is called so.
_CIPHER_TEXT = """
    3DES ADH ADSS AECDH AECDSA AES AES128 AES256 AESCCM AESGCM AGOST ALL ANULL ARIA ARSA CAMELLIA CAMELLIA128
    CAMELLIA256 CBC CHACHA20 COMPLEMENTOFALL COMPLEMENTOFDEFAULT DEFAULT DES DH DHE DSS ECDH ECDHE ECDSA EDH EECDH ENULL
    EXP EXPORT EXPORT40 EXPORT56 GOST94 HIGH IDEA KDH KDHD KDHE KDHR KECDH KECDHE KEDH KGOST KPSK KRSA LOW MD5 MEDIUM
    NULL PSK RC2 RC4 RSA SEED SHA SHA1 SHA256 SHA384 SRP SSLV2 SSLV3 STRENGTH TLSV1 TLSV1.0 TLSV1.2
"""
_CIPHER_WORDS = frozenset(_CIPHER_TEXT.split())


@dataclass(frozen=True, slots=True)
class HttpsListener:
    """One https option as written: what to listen on, what to show clients and what to ask of them."""

    address: Address
    certificate: str
    key: str
    ciphers: str = ""
    client_ca: str = ""
    client_required: bool = False
    text: str = ""
    option: str = "https"
    where: str = ""


def parse_https(text: str) -> HttpsListener:
    """Read ADDRESS,CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]]; a fifth field keeps its commas. Raises ValueError."""
    fields = text.split(",", 4)
    if len(fields) < 3:
        raise ValueError(f"the syntax is {HTTPS_SYNTAX}")
    address, certificate, key = fields[:3]
    ciphers = fields[3] if len(fields) > 3 else ""
    client_ca = fields[4] if len(fields) > 4 else None
    return _listener(text, "https", address, certificate, key, ciphers, client_ca)


def parse_https2(text: str) -> HttpsListener:
    """Read comma-separated key=value pairs: addr, cert (crt), key, ciphers, clientca (client_ca). Raises ValueError."""
    items: dict[str, str] = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        if key == "spdy":
            raise ValueError("spdy is gone from OpenSSL and every browser; leave it out")
        name = _HTTPS2_KEYS.get(key)
        if name is None or not equals:
            if "ciphers" in items and _is_cipher_word(item):
                raise ValueError(f"{item!r} reads as part of the cipher list: separate ciphers with ':'")
            raise ValueError(f"{item!r} is not KEY=VALUE with a key of {', '.join(_HTTPS2_KEYS)}")
        if name in items:
            raise ValueError(f"{name} is given twice")
        items[name] = value
    missing = [name for name in ("addr", "cert", "key") if name not in items]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given: addr=ADDRESS,cert=FILE,key=FILE")
    ciphers = items.get("ciphers", "")
    return _listener(text, "https2", items["addr"], items["cert"], items["key"], ciphers, items.get("clientca"))


def _listener(
    text: str, option: str, address: str, certificate: str, key: str, ciphers: str, client_ca: str | None
) -> HttpsListener:
    for name, value in (("certificate", certificate), ("key", key)):
        if not value:
            raise ValueError(f"the {name} file is empty; the syntax is {HTTPS_SYNTAX}")
    _check_ciphers(ciphers)
    required = client_ca is not None and client_ca.startswith("!")
    ca_file = (client_ca or "")[1 if required else 0 :]
    if client_ca is not None:
        _check_client_ca(client_ca, ca_file)
    where = addresses.parse(address, shared_allowed=True)
    return HttpsListener(where, certificate, key, ciphers, ca_file, required, text, option)


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
