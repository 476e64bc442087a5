"""A small certificate authority in memory: its own certificate, those of servers and clients, its revocation list.

The profile is RFC 5280's: version 3, random serial numbers, key identifiers, critical basicConstraints and keyUsage,
one extended usage a certificate. No file is opened here and nobody is asked anything: that is pki.py. Works with
cryptography 38 (Debian 12) and later.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:  # names that Debian 12's cryptography has not
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

# What signs certificates, and what we make for ourselves and for leaves.
SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
LeafKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

RSA_BITS = 2048
COMMON_NAME_CHARACTERS_MAX = 64  # RFC 5280, appendix A: ub-common-name
DNS_NAME_BYTES_MAX = 253
LIST_DAYS = 30  # openssl-ca(1) as Debian configures it
CLOCK_SKEW = timedelta(minutes=5)  # a machine whose clock is slow takes a new certificate too

# RFC 5280 section 5.3.1, in the words of openssl-ca(1). What is missing there cannot be said of a certificate of ours,
# or could be taken back: a hold needs a command that lifts it.
REASONS = {
    str(reason.value): reason
    for reason in (
        x509.ReasonFlags.unspecified,
        x509.ReasonFlags.key_compromise,
        x509.ReasonFlags.affiliation_changed,
        x509.ReasonFlags.superseded,
        x509.ReasonFlags.cessation_of_operation,
        x509.ReasonFlags.privilege_withdrawn,
    )
}

_KEY_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")  # RFC 1123 section 2.1, and the underscore of container names
_EMAIL = re.compile(r"[!-?A-~]+@[A-Za-z0-9.-]+")  # RFC 5280 section 4.2.1.6: rfc822Name is ASCII
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Refused(Exception):
    """What the authority will not do; its text is the cause, in one line."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that may sign others, with its key."""

    certificate: x509.Certificate
    key: SigningKey
    chain: tuple[x509.Certificate, ...]  # what goes with a leaf: all but roots, which the other side has to have anyway


# --- names --------------------------------------------------------------------------------------------


def common_name(text: str) -> str:
    """`text` as the name of a person or an authority. Raises Refused for what cannot stand in a certificate."""
    if not text.strip() or not text.isprintable():
        raise Refused(f"name {text!r}: is empty or has characters that cannot be printed")
    if len(text) > COMMON_NAME_CHARACTERS_MAX:
        raise Refused(f"name {text}: has more than {COMMON_NAME_CHARACTERS_MAX} characters")
    return text


def server_name(text: str) -> x509.GeneralName:
    """`text` as the DNS name or IP address of a server, in small letters. Raises Refused."""
    text = text.lower()
    address = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if "%" not in address:  # a certificate holds no zone (fe80::1%eth0)
            return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        pass
    if not text.isascii():
        raise Refused(f"name {text}: is not ASCII; write an international name in its xn-- form")
    labels = text.split(".")
    plain = labels[1:] if labels[0] == "*" else labels
    # A name whose last label is a number is an address to every client (WHATWG URL, "ends in a number").
    if not plain or not all(map(_LABEL.fullmatch, plain)) or plain[-1].isdigit() or len(text) > DNS_NAME_BYTES_MAX:
        raise Refused(f"name {text}: is neither a DNS name nor an IP address")
    if labels[0] == "*" and len(plain) < 2:
        raise Refused(f"name {text}: clients ignore a wildcard with fewer than two labels after it")
    return x509.DNSName(text)


def email_address(text: str) -> x509.RFC822Name:
    """`text` as an e-mail address. Raises Refused."""
    if not _EMAIL.fullmatch(text):
        raise Refused(f"e-mail {text}: is not of the form USER@HOST in ASCII")
    return x509.RFC822Name(text)


# --- certificates -------------------------------------------------------------------------------------


def new_key(*, with_rsa: bool) -> LeafKey:
    """A new private key: on the curve P-256, or RSA for whoever cannot do with that."""
    if with_rsa:
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def new_authority(name: str, key: LeafKey, days: int) -> Authority:
    """A root with a certificate of its own, good for `days` from now."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(name))])
    now = _now()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, key, now - CLOCK_SKEW, now + timedelta(days=days))
        .issuer_name(subject)
        # It signs leaves only, so nobody whose leaf it is can be an authority too.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, _digest(key))
    )
    return Authority(certificate, key, ())


def load_certificates(data: bytes | bytearray) -> list[x509.Certificate]:
    """All certificates of a PEM file. Raises Refused if there is none, or one is damaged."""
    try:
        found = [x509.load_pem_x509_certificate(bytes(block)) for block in _CERTIFICATE.findall(data)]
    except ValueError:
        raise Refused("holds a damaged certificate") from None
    if not found:
        raise Refused("holds no certificate in PEM")
    return found


def load_authority(data: bytes | bytearray, key: "PrivateKeyTypes") -> Authority:
    """The authority whose certificate comes first in `data` (PEM), with `key`. Raises Refused if it cannot sign."""
    certificates = load_certificates(data)
    certificate = certificates[0]
    if not isinstance(key, SigningKey) or _spki(key.public_key()) != _spki(certificate.public_key()):
        raise Refused("does not match its key")
    if not _may_sign(certificate):
        raise Refused("is not the certificate of an authority (basicConstraints, keyUsage)")
    if moment(certificate, "not_valid_after") <= datetime.now(UTC):
        raise Refused(f"has expired on {moment(certificate, 'not_valid_after'):%Y-%m-%d}")
    chain = tuple(one for one in certificates if one.subject != one.issuer)
    return Authority(certificate, key, chain)


def server_certificate(
    authority: Authority, names: Sequence[x509.GeneralName], key: LeafKey, days: int
) -> x509.Certificate:
    """A certificate for a server with these DNS names and IP addresses."""
    first = str(names[0].value)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, first)] if len(first) <= COMMON_NAME_CHARACTERS_MAX else []
    )
    return _leaf(authority, subject, names, key, ExtendedKeyUsageOID.SERVER_AUTH, days)


def client_certificate(
    authority: Authority, name: str, email: x509.RFC822Name | None, key: LeafKey, days: int
) -> x509.Certificate:
    """A certificate for a client of this name. The e-mail address, if any, is an alternative name (section 4.1.2.6)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(name))])
    return _leaf(authority, subject, [email] if email else [], key, ExtendedKeyUsageOID.CLIENT_AUTH, days)


def _leaf(
    authority: Authority,
    subject: x509.Name,
    names: Sequence[x509.GeneralName],
    key: LeafKey,
    usage: x509.ObjectIdentifier,
    days: int,
) -> x509.Certificate:
    now = _now()
    issuer = authority.certificate
    # Within the life of the authority: what outlives it verifies nowhere, whatever its own date promises.
    start = max(now - CLOCK_SKEW, moment(issuer, "not_valid_before"))
    end = min(now + timedelta(days=days), moment(issuer, "not_valid_after"))
    # Only key exchange by RSA, which TLS 1.2 still has, needs a server's key to encipher.
    rsa_server = isinstance(key, rsa.RSAPrivateKey) and usage == ExtendedKeyUsageOID.SERVER_AUTH
    enciphers = ["key_encipherment"] if rsa_server else []
    builder = (
        _builder(subject, key, start, end)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature", *enciphers), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_authority_key_identifier(authority), critical=False)
    )
    if names:  # section 4.2.1.6: critical where the subject is empty
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)
    return builder.sign(authority.key, _digest(authority.key))


def _builder(subject: x509.Name, key: LeafKey, start: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


# --- the revocation list ------------------------------------------------------------------------------


def serial_number(text: str) -> int | None:
    """The serial number that `text` is, in hexadecimal as openssl prints it; None if it can only be a name.

    A short one needs 0x: a mistyped name such as "abba" must not be taken for a number.
    """
    if not re.fullmatch(r"0x[0-9A-Fa-f]{1,40}|[0-9A-Fa-f]{16,40}|([0-9A-Fa-f]{2}:)+[0-9A-Fa-f]{2}", text):
        return None
    number = int(text.replace(":", ""), 16)
    return number if 0 < number.bit_length() < 160 else None  # section 4.1.2.2: at most 20 octets, positive


def is_issued_by(certificate: x509.Certificate, authority: Authority) -> bool:
    """Whether this authority has signed the certificate: what a certificate says of its issuer anybody can write."""
    if certificate.issuer != authority.certificate.subject or certificate == authority.certificate:
        return False
    public, signature = authority.key.public_key(), certificate.signature
    signed = certificate.tbs_certificate_bytes
    try:
        digest = certificate.signature_hash_algorithm
        if isinstance(public, rsa.RSAPublicKey) and digest is not None:
            # cryptography 41 knows PSS from the older padding.
            scheme = getattr(certificate, "signature_algorithm_parameters", padding.PKCS1v15())
            public.verify(signature, signed, scheme, digest)
        elif isinstance(public, ec.EllipticCurvePublicKey) and digest is not None:
            public.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            public.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):  # such as another key's kind of signature
        return False
    return True


def load_revocation_list(data: bytes | bytearray, authority: Authority) -> x509.CertificateRevocationList:
    """The list in `data` (PEM). Raises Refused if it is damaged or another authority's."""
    try:
        found = x509.load_pem_x509_crl(bytes(data))
    except ValueError:
        raise Refused("is not a revocation list in PEM, or damaged") from None
    public = authority.key.public_key()
    if found.issuer != authority.certificate.subject or not found.is_signature_valid(public):
        raise Refused("is the revocation list of another authority")
    return found


def revocation_list(
    authority: Authority,
    earlier: x509.CertificateRevocationList | None,
    days: int | None,
    serial: int | None = None,
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
) -> x509.CertificateRevocationList:
    """A new list: what is on the `earlier` one, and the certificate with number `serial`.

    It is good for `days`; if None, for as long as the earlier one was, or LIST_DAYS.
    """
    now = _now()
    if days is None:
        days = LIST_DAYS
        if earlier is not None:  # one that is empty is false
            days = (moment(earlier, "next_update") - moment(earlier, "last_update")).days
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(now + timedelta(days=days))
        .add_extension(_authority_key_identifier(authority), critical=False)
        .add_extension(x509.CRLNumber(1 if earlier is None else list_number(earlier) + 1), critical=False)
    )
    for entry in earlier or ():
        builder = builder.add_revoked_certificate(entry)
    if serial is not None:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
        if reason != x509.ReasonFlags.unspecified:  # section 5.3.1: rather no reason than this one
            revoked = revoked.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(authority.key, _digest(authority.key))


def list_number(revocations: x509.CertificateRevocationList) -> int:
    """Its crlNumber; 0 if it has none."""
    try:
        return revocations.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


# --- parts --------------------------------------------------------------------------------------------


def moment(thing: object, name: str) -> datetime:
    """One of the times of a certificate or list (`name` without _utc), with its time zone."""
    if hasattr(thing, f"{name}_utc"):  # cryptography 42; the older names warn from then on
        found: datetime = getattr(thing, f"{name}_utc")
        return found
    older: datetime = getattr(thing, name)
    return older.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)  # X.509 knows no fractions


def _digest(key: SigningKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _spki(key: "PublicKeyTypes") -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as missing:
        return missing.oid == x509.KeyUsage.oid  # without it a key is for everything (section 4.2.1.3)
    return usage.key_cert_sign and usage.crl_sign


def _authority_key_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    try:
        own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(*names: str) -> x509.KeyUsage:
    """These bits of section 4.2.1.3, and none else."""
    return x509.KeyUsage(**{name: name in names for name in _KEY_USAGES})
