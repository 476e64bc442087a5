"""A private key in PEM, decrypted where it has to be: what kind it is, and whether it is strong enough.

Bytes of keys are wiped after use, and nobody is asked for a passphrase here.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from uwsgi_tls import pem

if TYPE_CHECKING:  # a name that Debian 12's cryptography has not
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

RSA_BITS_MIN = 2048  # OpenSSL's security level 2 and Mozilla's guidelines 6.0
EC_BITS_MIN = 256

_PRIVATE_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)


class BadKey(Exception):
    """Its text is the cause."""


def read(data: bytearray, passphrases: Iterable[bytes]) -> "PrivateKeyTypes":
    """The first private key in a file, which may hold certificates too; passphrases are taken only for one that is
    encrypted. Raises BadKey.
    """
    block = _PRIVATE_KEY.search(data)
    if block is None:
        raise BadKey(pem.instead(data, "private key"))
    label = bytes(block.group(1))
    if label == b"OPENSSH ":  # openssh's PROTOCOL.key
        raise BadKey("is in OpenSSH's own format; ssh-keygen -p -m PEM converts it")
    encoded = data[block.start() : block.end()]
    try:
        if label == b"ENCRYPTED " or b"Proc-Type: 4,ENCRYPTED" in encoded:  # PKCS#8, or RFC 1421's header
            return _decrypt(encoded, passphrases)
        return serialization.load_pem_private_key(encoded, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise BadKey("the private key is damaged or of an unknown kind") from None
    finally:
        wipe(encoded)


def kind(key: "PrivateKeyTypes") -> str:
    """ "RSA 2048", "EC secp256r1", "Ed25519". Raises BadKey for what is too weak, or nothing for TLS."""
    if isinstance(key, rsa.RSAPrivateKey):
        return _strong(f"RSA {key.key_size}", key.key_size, RSA_BITS_MIN)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _strong(f"EC {key.curve.name}", key.key_size, EC_BITS_MIN)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "Ed25519"
    if isinstance(key, ed448.Ed448PrivateKey):
        return "Ed448"
    raise BadKey("is of a kind that TLS has no use for; make an RSA or EC key")


def wipe(data: bytearray) -> None:
    """Overwrites it with zero bytes."""
    data[:] = bytes(len(data))


def _decrypt(encoded: bytearray, passphrases: Iterable[bytes]) -> "PrivateKeyTypes":
    tried = False
    for passphrase in passphrases:
        tried = True
        try:
            return serialization.load_pem_private_key(encoded, password=passphrase)
        except (TypeError, ValueError):
            continue
    if tried:
        raise BadKey("no passphrase opens it")
    raise BadKey("the key is encrypted; its passphrase is given by ssl-key-password-file or -command")


def _strong(name: str, bits: int, least: int) -> str:
    if bits < least:
        raise BadKey(f"{name} is too weak, {least} bits are the least")
    return name
