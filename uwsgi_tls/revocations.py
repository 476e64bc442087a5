"""Certificate revocation lists (RFC 5280, 5): read and compared with the CAs of clients before they are used.

OpenSSL refuses each client whose CA has no valid list, which is right and hard to understand from its words; so what
is missing or too old is said when the list is read.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from uwsgi_tls import pem

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def read(data: bytes, authorities: Sequence[x509.Certificate], now: datetime) -> tuple[bytes, list[str]]:
    """The CRLs in a file as PEM, and what is to be said of them. Raises ValueError with what is wrong."""
    blocks = _CRL.findall(data)
    if not blocks:
        raise ValueError(pem.instead(data, "CRL"))
    warnings: list[str] = []
    issuers = set()
    for number, block in enumerate(blocks, 1):
        try:
            crl = x509.load_pem_x509_crl(block)
            issuer = crl.issuer
        except (ValueError, TypeError):
            raise ValueError(f"CRL {number} of {len(blocks)} is damaged") from None
        issuers.add(issuer)
        _check_signature(crl, [each for each in authorities if each.subject == issuer])
        end = _next_update(crl)
        if end is not None and end <= now:
            name = issuer.rfc4514_string()
            warnings.append(f"that of {name} has expired on {end:%Y-%m-%d %H:%M} UTC; its clients will be refused")
    for each in authorities:
        if each.subject not in issuers:
            warnings.append(f"has no CRL of {each.subject.rfc4514_string()}; its clients will be refused")
    return b"\n".join(blocks) + b"\n", warnings


def ends(crls: bytes) -> list[datetime]:
    """The moments until which these CRLs are good (PEM that `read` has returned)."""
    found = (_next_update(x509.load_pem_x509_crl(block)) for block in _CRL.findall(crls))
    return [end for end in found if end is not None]


def _check_signature(crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate]) -> None:
    """By one of the CAs of that name; of a CA that clients bring along OpenSSL checks it."""
    if not issuers:
        return
    for issuer in issuers:
        try:
            if crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # a kind that cannot sign: TypeError
                return
        except (TypeError, UnsupportedAlgorithm):
            return
    raise ValueError(f"was not signed by {issuers[0].subject.rfc4514_string()} of the client CAs")


def _next_update(crl: x509.CertificateRevocationList) -> datetime | None:
    if hasattr(crl, "next_update_utc"):  # cryptography 42
        return crl.next_update_utc
    return None if crl.next_update is None else crl.next_update.replace(tzinfo=UTC)
