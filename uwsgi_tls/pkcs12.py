"""A certificate, its chain and its key in one file, PKCS#12 (RFC 7292), as browsers and Windows export them."""

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import pkcs12

if TYPE_CHECKING:  # a name that Debian 12's cryptography has not
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


class BadPkcs12(Exception):
    """Its text is the cause."""


def is_pkcs12(data: bytearray) -> bool:
    """Whether `data` begins as a PFX does: a SEQUENCE whose first member is the INTEGER 3 (RFC 7292, 4)."""
    if len(data) < 12 or data[0] != 0x30:
        return False
    skip = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)  # X.690, 8.1.3: the length in one byte, or how many it takes
    return bytes(data[skip : skip + 3]) == b"\x02\x01\x03"


def read(data: bytearray, passphrases: Iterable[bytes]) -> "tuple[list[x509.Certificate], PrivateKeyTypes]":
    """The chain, the key's own certificate first, and the key. Raises BadPkcs12."""
    tried = 0
    for passphrase in itertools.chain((None, b""), passphrases):
        tried += 1
        try:
            key, certificate, others = pkcs12.load_key_and_certificates(bytes(data), passphrase)
        except (ValueError, UnsupportedAlgorithm):
            continue
        if key is None or certificate is None:
            raise BadPkcs12("holds no key with its certificate")
        return _chain(certificate, others), key
    if tried > 2:
        raise BadPkcs12("no passphrase opens it, or it is damaged")
    raise BadPkcs12("is encrypted; its passphrase is given by ssl-key-password-file or -command")


def _chain(certificate: x509.Certificate, others: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """From the key's own certificate upwards; what does not belong there is left out."""
    left = list(others)
    chain = [certificate]
    while (issuer := next((each for each in left if each.subject == chain[-1].issuer), None)) is not None:
        left.remove(issuer)
        if issuer.subject != issuer.issuer:  # clients have the root, or do not trust it
            chain.append(issuer)
        else:
            break
    return chain
