"""TLS policy in words: profiles, versions, cipher suites and ssl-option, and what they mean to OpenSSL.

Profiles are Mozilla's guidelines 6.0. What a word would take away from what the program promises (no renegotiation, no
compression, forward secrecy, no end of a stream that an attacker could have made) is refused here, with its reason.
"""

import re
from dataclasses import dataclass
from typing import Final

VERSIONS: Final = ("1.2", "1.3")  # RFC 8996: nothing below
DEFAULT_PROFILE = "intermediate"
NEVER_CIPHERS = ":!aNULL:!eNULL:!PSK:!SRP"  # "HIGH" alone has suites without any certificate: openssl-ciphers(1)

_INTERMEDIATE_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    ":ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# Mozilla's, where OpenSSL's own list goes on to P-521, X448 and finite fields. The first form is OpenSSL 3.5's: what is
# safe from quantum computers is worth a round trip, and among the others the client's key share counts.
GROUPS: Final = ("X25519MLKEM768/X25519:secp256r1:secp384r1", "X25519:secp256r1:secp384r1")
# In Mozilla's order: OpenSSL's own begins with AES-256, which takes a third more time and protects nobody better.
SUITES: Final = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_SUITES = frozenset([*SUITES.split(":"), "TLS_AES_128_CCM_SHA256"])
_FORWARD_SECRET = ("ECDHE-", "DHE-", "TLS_")
_AEAD = ("-GCM-", "-CHACHA20-", "-CCM", "TLS_")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile allows, beside the suites of TLS 1.3."""

    min_version: str
    max_version: str
    ciphers: str  # of TLS 1.2


PROFILES = {
    "modern": Profile("1.3", "1.3", _INTERMEDIATE_CIPHERS),
    DEFAULT_PROFILE: Profile("1.2", "1.3", _INTERMEDIATE_CIPHERS),
}

# SSL_OP_* of ssl.h, the same since OpenSSL 3.0: the number of the bit. What takes something away from clients or names
# what is on or meaningless anyway may be given; the others say why not.
_HARMLESS = {
    "CLEANSE_PLAINTEXT": 1,
    "TLSEXT_PADDING": 4,
    "SAFARI_ECDHE_ECDSA_BUG": 6,
    "DISABLE_TLSEXT_CA_NAMES": 9,
    "DONT_INSERT_EMPTY_FRAGMENTS": 11,
    "NO_TICKET": 14,
    "NO_SESSION_RESUMPTION_ON_RENEGOTIATION": 16,
    "NO_COMPRESSION": 17,
    "ENABLE_MIDDLEBOX_COMPAT": 20,
    "PRIORITIZE_CHACHA": 21,
    "CIPHER_SERVER_PREFERENCE": 22,
    "NO_SSLV3": 25,
    "NO_TLSV1": 26,
    "NO_TLSV1_2": 27,
    "NO_TLSV1_1": 28,
    "NO_TLSV1_3": 29,
    "NO_RENEGOTIATION": 30,
    "CRYPTOPRO_TLSEXT_BUG": 31,
}
_REFUSED = {
    "NO_EXTENDED_MASTER_SECRET": (0, "sessions would not be bound to their handshake (RFC 7627)"),
    "LEGACY_SERVER_CONNECT": (2, "renegotiation without RFC 5746 would be allowed"),
    "ENABLE_KTLS": (3, "encryption stays in the process"),
    "IGNORE_UNEXPECTED_EOF": (7, "a stream that somebody cut off would look whole"),
    "ALLOW_CLIENT_RENEGOTIATION": (8, "renegotiation stays off"),
    "ALLOW_NO_DHE_KEX": (10, "resumption would have no forward secrecy"),
    "ALLOW_UNSAFE_LEGACY_RENEGOTIATION": (18, "renegotiation stays off"),
    "NO_ENCRYPT_THEN_MAC": (19, "CBC suites would be open to padding oracles (RFC 7366)"),
    "TLS_ROLLBACK_BUG": (23, "a client could be talked down to an older version"),
    "NO_ANTI_REPLAY": (24, "early data would be taken twice"),
}
_ALL = 0x80000850  # SSL_OP_ALL, which uWSGI sets
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")
_SECURITY_LEVEL = re.compile("@SECLEVEL=([0-9])")
_RISKS = {
    "0": "keys of any size and signatures of any kind, broken ones too",
    "1": "RSA keys of 1024 bits and elliptic curves of 160",
}
_VERSION_BITS = {"1.2": 1 << _HARMLESS["NO_TLSV1_2"], "1.3": 1 << _HARMLESS["NO_TLSV1_3"]}


def version(text: str) -> str:
    """ "1.2" or "1.3", also written TLSv1.2 or tls1.3. Raises ValueError."""
    word = text.lower().removeprefix("tls").removeprefix("v")
    if word in ("1.0", "1", "1.1"):
        raise ValueError(f"TLS {word} is broken (RFC 8996); the versions are 1.2 and 1.3")
    if word not in VERSIONS:
        raise ValueError(f"{text!r} is no TLS version; there are 1.2 and 1.3")
    return word


def profile(text: str) -> str:
    """The name of a profile. Raises ValueError."""
    if text == "old":
        raise ValueError("the profile old allows TLS 1.0 and is gone from Mozilla's guidelines; take intermediate")
    if text not in PROFILES:
        raise ValueError(f"{text!r} is no profile; there are {' and '.join(PROFILES)}")
    return text


def ciphersuites(text: str) -> str:
    """TLS 1.3 suites joined by ":". OpenSSL would take nonsense for no suites at all. Raises ValueError."""
    for word in text.split(":"):
        if word not in _SUITES:
            raise ValueError(
                f"{word!r} is no TLS 1.3 cipher suite; there are {', '.join(sorted(_SUITES))}, joined by ':'"
            )
    return text


def ssl_option(text: str) -> int:
    """The bits of SSL_OP_* that a number or a name stands for. Raises ValueError for those that would weaken TLS."""
    if _NUMBER.fullmatch(text):
        bits = int(text, 0) if text[:2].lower() == "0x" else int(text)
        for name, (bit, why) in _REFUSED.items():
            if bits >> bit & 1:
                raise ValueError(f"it has SSL_OP_{name} in it: {why}")
        unknown = bits & ~sum(1 << bit for bit in _HARMLESS.values())
        if unknown:
            raise ValueError(f"the bits {unknown:#x} are none that a TLS server has a use for")
        return bits
    name = text.upper().removeprefix("SSL_").removeprefix("OP_")
    if name == "ALL":
        return _ALL
    if name in _REFUSED:
        raise ValueError(_REFUSED[name][1])
    if name not in _HARMLESS:
        raise ValueError(f"{text!r} is neither a number nor one of SSL_OP_ALL, SSL_OP_{', SSL_OP_'.join(_HARMLESS)}")
    return 1 << _HARMLESS[name]


def versions_left(least: str, most: str, options: int) -> tuple[str, ...]:
    """The TLS versions that are still offered."""
    return tuple(each for each in VERSIONS if least <= each <= most and not options & _VERSION_BITS[each])


def risk(ciphers: str) -> str:
    """What a cipher list allows by a security level below 2, OpenSSL's own: SSL_CTX_set_security_level(3).

    "" where it has none. The last level counts, in TLS 1.3 as well, and for the certificates of both sides.
    """
    levels = _SECURITY_LEVEL.findall(ciphers)
    return _RISKS.get(levels[-1], "") if levels else ""


def weak(suites: list[str]) -> list[str]:
    """Those of OpenSSL's cipher names that have no forward secrecy, or encrypt in CBC mode."""
    return [name for name in suites if not name.startswith(_FORWARD_SECRET) or not any(word in name for word in _AEAD)]
