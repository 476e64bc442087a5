"""Why a client's certificate is refused, in words for the log: OpenSSL's verdict, and what of the certificate it means.

The verdict is a code of x509_vfy.h about one certificate of the chain, whose place is its depth, 0 for the client's
own. What a certificate says is its maker's choice, so it is escaped (`subject` and `issuer` come as printable ASCII)
and bounded.
"""

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

NAME_CHARACTERS = 256  # of a name in a line

# x509_vfy.h; the numbers are the same in every OpenSSL since 1.1, but for what is left to its own words here.
_NO_ISSUER = frozenset((2, 20, 21))
_NO_CRL, _SIGNATURE, _CRL_SIGNATURE, _CRL_NOT_YET, _CRL_EXPIRED = 3, 7, 8, 11, 12
_NOT_YET, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_CA = 18, 19
_TOO_LONG, _REVOKED, _INVALID_CA, _PATH_LENGTH, _PURPOSE = 22, 23, 24, 25, 26

_ALERTS = {
    **dict.fromkeys(
        (*_NO_ISSUER, _NO_CRL, _SELF_SIGNED, _SELF_SIGNED_CA, _TOO_LONG, _INVALID_CA, _PATH_LENGTH), "unknown_ca"
    ),
    **dict.fromkeys((_EXPIRED, _CRL_EXPIRED), "certificate_expired"),
    **dict.fromkeys((_SIGNATURE, _CRL_SIGNATURE), "decrypt_error"),
    _REVOKED: "certificate_revoked",
    _PURPOSE: "unsupported_certificate",
}
_FIXED = {
    _SELF_SIGNED: "it is self-signed, and not trusted here",
    _SELF_SIGNED_CA: "its chain ends in a self-signed CA that is not trusted here",
    _PATH_LENGTH: "a CA in its chain allows fewer CAs below it than there are",
}


def words(code: int, openssl: str, depth: int, limit: int, certificate: crypto.X509, subject: str, issuer: str) -> str:
    """What is wrong, and with which certificate; `openssl` says so for a code that has no words of its own here.

    `limit` is how many CAs a chain may have between a client and a trusted CA.
    """
    above = "" if depth == 0 else "the CA above it, "
    return f"{_what(code, openssl, depth, limit, certificate, issuer)}: {above}{bounded(subject)}"


def alert(code: int) -> str:
    """The alert that OpenSSL tells the client this verdict with: ssl_x509err2alert() in ssl/statem/statem_lib.c."""
    return _ALERTS.get(code, "bad_certificate")


def _what(code: int, openssl: str, depth: int, limit: int, certificate: crypto.X509, issuer: str) -> str:
    if code in _FIXED:
        return _FIXED[code]
    if code in _NO_ISSUER:
        return f"it was issued by {bounded(issuer)}, which is no CA that is trusted here or that the client has sent"
    if code == _EXPIRED:
        return f"it expired on {moment(certificate.get_notAfter())}"
    if code == _NOT_YET:
        return f"it is not valid before {moment(certificate.get_notBefore())}"
    if code == _TOO_LONG:
        return f"its chain has more than {limit} intermediate CAs (ssl-verify-depth)"
    if code == _REVOKED:
        return f"it was revoked (serial {certificate.get_serial_number():X})"
    if code == _PURPOSE:
        return _purpose(depth, certificate)
    if code == _NO_CRL:
        return f"the CRL of its issuer {bounded(issuer)} is missing (ssl-crl)"
    if code in (_CRL_EXPIRED, _CRL_NOT_YET, _CRL_SIGNATURE):
        fault = {_CRL_EXPIRED: "has expired", _CRL_NOT_YET: "is not valid yet"}.get(code, "has a wrong signature")
        return f"the CRL of its issuer {bounded(issuer)} {fault}"
    return openssl


def _purpose(depth: int, certificate: crypto.X509) -> str:
    """RFC 5280, 4.2.1.3 and 4.2.1.12: no extension, no restriction; OpenSSL judges CAs by the second one too."""
    try:
        usages = certificate.to_cryptography().extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        usages = None
    if usages is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        return "certificate is not meant for clients: no clientAuth in its extended key usage"
    if depth:
        return "certificate is not meant for a CA of clients: its key usage does not allow it"
    return "certificate is not meant for clients: its key usage does not allow signatures"


def bounded(name: str) -> str:
    """A name, cut off where it is too long for a line."""
    return name if len(name) <= NAME_CHARACTERS else f"{name[:NAME_CHARACTERS]}..."


def moment(asn1: bytes | None) -> str:
    """ "20260131235959Z" as a person writes it."""
    t = (asn1 or b"").decode("ascii", "replace")
    return f"{t[:4]}-{t[4:6]}-{t[6:8]} {t[8:10]}:{t[10:12]}:{t[12:14]} UTC" if len(t) == 15 else t
