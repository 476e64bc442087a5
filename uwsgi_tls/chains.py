"""What a certificate of the server says, and what clients will not like about it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

EXPIRY_WARNING_MAX = timedelta(days=21)
# A quarter of its life, if that is less: certbot 4 renews when a third is left, or half of less than 10 days, so that a
# warning means that renewal has failed.
EXPIRY_WARNING_SHARE = 4

_BROKEN_HASHES = (hashes.SHA1, hashes.MD5)


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses that a certificate is good for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):  # ValueError: an extension that cryptography cannot read
        return ()
    found = extension.value.get_values_for_type(x509.DNSName)
    return (*found, *(str(address) for address in extension.value.get_values_for_type(x509.IPAddress)))


def is_good_for(certificate: x509.Certificate, pattern: str) -> bool:
    """Whether its names have a name, or a wildcard as it is written (RFC 6125, 6.4.3: one label)."""
    known = {name.lower() for name in names(certificate)}
    return pattern in known or "*." + pattern.partition(".")[2] in known


def is_servers_own(certificate: x509.Certificate, patterns: Sequence[str]) -> bool:
    """Whether it is meant for a server that has these names, or any name where there are none.

    The certificate of a CA (RFC 5280, 4.2.1.9) is not, unless it is signed by itself and has the name: that is what
    `openssl req -x509` makes for a server.
    """
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return True
    if not is_authority:
        return True
    if certificate.issuer != certificate.subject:
        return False
    if not patterns:
        return bool(names(certificate))
    called = {str(each.value).lower() for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    return any(pattern in called or is_good_for(certificate, pattern) for pattern in patterns)


def not_after(certificate: x509.Certificate) -> datetime:
    """Its last moment, UTC."""
    if hasattr(certificate, "not_valid_after_utc"):  # cryptography 42; the older name warns from then on
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=UTC)


def not_before(certificate: x509.Certificate) -> datetime:
    """Its first moment, UTC."""
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc
    return certificate.not_valid_before.replace(tzinfo=UTC)


def expiry_warning(begin: datetime, end: datetime) -> datetime:
    """From when on somebody should renew a certificate that is valid from `begin` to `end`, UTC.

    At its end where that comes before its beginning, so that no dates lead out of what a datetime can hold.
    """
    life = max(end - begin, timedelta())
    return end - min(life / EXPIRY_WARNING_SHARE, EXPIRY_WARNING_MAX)


def expiry(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    """What is to be said of its dates, if anything."""
    end, begin = not_after(certificate), not_before(certificate)
    if end <= now:
        yield f"has expired on {end:%Y-%m-%d %H:%M} UTC; clients will refuse it"
    elif now >= expiry_warning(begin, end):
        yield f"expires on {end:%Y-%m-%d %H:%M} UTC"
    if begin > now:
        yield f"is valid only from {begin:%Y-%m-%d %H:%M} UTC on; clients will refuse it"


def gap(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> Iterator[str]:
    """That the certificate above the first one is neither in the file nor one of the roots that we know."""
    issuer = chain[0].issuer
    if issuer not in [each.subject for each in (*chain, *roots)]:
        name = issuer.rfc4514_string()
        yield f"its issuer {name} is not in the file; unless clients have it as a root they will refuse the server"


def broken_signature(chain: Sequence[x509.Certificate]) -> str:
    """The broken hash that one of them is signed with, with its place in the chain; "" where there is none.

    Whoever trusts a self-signed one does not look at its signature.
    """
    for number, certificate in enumerate(chain, 1):
        try:
            algorithm = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            continue
        if isinstance(algorithm, _BROKEN_HASHES) and certificate.issuer != certificate.subject:
            return f"certificate {number} of {len(chain)} is signed with {algorithm.name}, which clients refuse"
    return ""
