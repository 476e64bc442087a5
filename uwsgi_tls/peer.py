"""What a finished handshake proved: variables for backends, facts for the built-in page, and whether the client stays.

All of it is asked once a connection, after its handshake. A client's certificate counts only if OpenSSL has verified
it; a resumed session has the one that was verified when it began. Names and forms are those of uWSGI's https.c
(HTTPS_DN, HTTPS_CC, HTTPS_CLIENT_CERTIFICATE) and of mod_ssl (SSL_*); what no text can hold exactly is left out rather
than altered, and only the certificate itself (DER, PEM) has bytes that a header field may not have.
"""

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto

from uwsgi_tls import client_allow, hello, rfc2253, tls
from uwsgi_tls.client_allow import Identity, Rule
from uwsgi_tls.refusals import bounded, moment

FOREVER = float("inf")
SANS_MAX = 64  # alternative names that become variables: uWSGI takes 127 variables in all (core/uwsgi.c, vec_size)

_CERTIFICATE = "HTTPS_CLIENT_CERTIFICATE"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SAN_KINDS = (("DNS", x509.DNSName), ("Email", x509.RFC822Name), ("URI", x509.UniformResourceIdentifier))
_UNREADABLE = (ValueError, x509.InvalidVersion)  # what OpenSSL has verified, cryptography may be too strict to read

Variables = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a connection negotiated and what its client proved; "" is what is not known or does not apply."""

    protocol: str  # "TLSv1.3"
    cipher: str
    group: str  # key exchange; pyOpenSSL before 26.0 cannot tell
    sni: str
    alpn: str
    resumed: bool
    client_verify: str  # "SUCCESS", or "NONE" for no certificate; a bad one never gets this far
    client_dn: str = ""
    client_issuer: str = ""
    client_serial: str = ""  # hexadecimal
    client_not_before: str = ""  # "2026-01-31 23:59:59 UTC"
    client_not_after: str = ""
    client_fingerprint: str = ""  # SHA-256 of the certificate, hexadecimal


def objection(conn: SSL.Connection, shaken: tls.Handshake, rules: Sequence[Rule]) -> str:
    """Why a client that has shaken hands must go all the same; "" where it may stay.

    With rules, whoever has shown a certificate must match one; to come without any is what the site's CA mode decides.
    """
    certificate = shaken.certificate
    if certificate is None:
        # OpenSSL has seen to that; a session, or a fault of ours, must not undo it.
        if shaken.unverified or conn.get_verify_mode() & SSL.VERIFY_FAIL_IF_NO_PEER_CERT:
            return "client certificate refused: it was not verified"
        return ""
    if shaken.resumed and certificate.has_expired():
        return "its session is older than the end of its certificate"
    if rules and not client_allow.matches(identity(certificate, rules), rules):
        return f"client certificate refused: no client-allow matches {bounded(tls.shown_subject(certificate))}"
    return ""


def seconds_left(shaken: tls.Handshake, trusted_until: float) -> float:
    """For how long a client that stays may be believed to be who it is; infinity where it has shown no certificate.

    That is until its certificate ends, or `trusted_until` (UTC seconds): what has ended before that handshake already
    was not needed for it.
    """
    if shaken.certificate is None:
        return FOREVER
    now = time.time()
    return min(tls.not_after(shaken.certificate), trusted_until if trusted_until > now else FOREVER) - now


def client_variables(conn: SSL.Connection, shaken: tls.Handshake, sni: str, export_cert: bool) -> Variables:
    """The variables that tell a backend of TLS and of the client's certificate, as latin-1 strings.

    `sni` is the name that the ClientHello was seen to ask for, in the form of `hello.host_name`.
    HTTPS_CLIENT_CERTIFICATE is DER; HTTPS_CC and SSL_CLIENT_CERT (only with export_cert) are PEM.
    """
    protocol, cipher, resumed, certificate, _ = shaken
    verify = "NONE" if certificate is None else "SUCCESS"
    variables = [("HTTPS", "on")]
    if certificate is not None:
        der, pem = tls.der(certificate), tls.pem(certificate) if export_cert else ""
        variables += _as_uwsgi(certificate, der, pem)
    sni = _asked_for(conn, sni)
    if sni:
        variables += (("HTTPS_SNI", sni), ("SSL_TLS_SNI", sni))
    variables += (
        ("HTTPS_PROTOCOL", protocol),
        ("HTTPS_CIPHER", cipher),
        ("HTTPS_VERIFY", verify),
        ("SSL_PROTOCOL", protocol),
        ("SSL_CIPHER", cipher),
        ("SSL_SESSION_RESUMED", "Resumed" if resumed else "Initial"),
        ("SSL_CLIENT_VERIFY", verify),
    )
    if certificate is not None:
        variables += _as_mod_ssl(certificate, der, pem)
    return tuple(variables)


def _asked_for(conn: SSL.Connection, sni: str) -> str:
    """The name; from OpenSSL where nobody has looked. It forgets the name when it resumes a session of TLS 1.2."""
    return sni or hello.host_name(conn.get_servername() or b"")


def identity_fields(variables: Mapping[str, str]) -> Variables:
    """The header fields that tell an HTTP server who the client is, of a connection with these variables.

    That is Client-Cert of RFC 9440, if a certificate was verified. Client-Cert-Chain is not sent: a resumed session
    does not know the chain any more.
    """
    der = variables.get(_CERTIFICATE)
    if der is None:
        return ()
    return (("Client-Cert", f":{base64.b64encode(der.encode('latin-1')).decode('ascii')}:"),)


def _as_uwsgi(certificate: crypto.X509, der: bytes, pem: str) -> Iterator[tuple[str, str]]:
    """uWSGI's, byte for byte and in its order: plugins/http/https.c. No subject that could pose as another."""
    yield _CERTIFICATE, der.decode("latin-1")
    if rfc2253.is_plain(tls.subject_der(certificate)):
        yield "HTTPS_DN", tls.subject_line(certificate)
    if pem:
        yield "HTTPS_CC", pem


def _as_mod_ssl(certificate: crypto.X509, der: bytes, pem: str) -> Iterator[tuple[str, str]]:
    """mod_ssl's, in its forms; of ours are SSL_CLIENT_FINGERPRINT (SHA-256) and SSL_CLIENT_SAN_URI_n."""
    for who, name in (("S", tls.subject_der(certificate)), ("I", tls.issuer_der(certificate))):
        with suppress(ValueError):  # text that its own type does not allow
            yield f"SSL_CLIENT_{who}_DN", rfc2253.text(name)
    serial = f"{certificate.get_serial_number():X}"
    yield "SSL_CLIENT_M_SERIAL", serial.rjust(len(serial) + len(serial) % 2, "0")
    yield "SSL_CLIENT_V_START", _gmt(certificate.get_notBefore())
    yield "SSL_CLIENT_V_END", _gmt(certificate.get_notAfter())
    yield "SSL_CLIENT_FINGERPRINT", hashlib.sha256(der).hexdigest()
    names = _alternative_names(der)
    left = SANS_MAX
    for kind, _ in _SAN_KINDS:
        for number, value in enumerate(names[kind][:left]):
            yield f"SSL_CLIENT_SAN_{kind}_{number}", value
        left -= len(names[kind][:left])
    if pem:
        yield "SSL_CLIENT_CERT", pem


def identity(certificate: crypto.X509, rules: Sequence[Rule]) -> Identity:
    """What these rules are compared with. A part that cannot be read exactly is not there, so it matches nothing."""
    der = tls.der(certificate)
    names = _alternative_names(der)
    try:
        cn = rfc2253.common_name(tls.subject_der(certificate))
    except ValueError:
        cn = ""
    return Identity(
        cn=cn,
        dns=tuple(name.lower() for name in names["DNS"]),
        email=tuple(map(client_allow.mailbox, names["Email"])),
        uri=tuple(names["URI"]),
        spki=_spki(der) if any(rule.kind == "spki" for rule in rules) else "",
        fingerprint=hashlib.sha256(der).hexdigest(),
    )


def _spki(der: bytes) -> str:
    """SHA-256 of the SubjectPublicKeyInfo. Reading the key takes some versions of cryptography half a millisecond."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    except (*_UNREADABLE, TypeError, UnsupportedAlgorithm):  # a key of a kind that it does not know
        return ""


def _alternative_names(der: bytes) -> dict[str, list[str]]:
    """The subjectAltNames, by mod_ssl's word for their kind; those that hold more than visible ASCII are left out.

    None of these kinds allows any other character, and a NUL or a newline would be there to deceive.
    """
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        sans = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = {word: list(map(str, sans.get_values_for_type(kind))) for word, kind in _SAN_KINDS}
    except (*_UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        found = {word: [] for word, _ in _SAN_KINDS}
    return {word: [name for name in names if _is_visible(name)] for word, names in found.items()}


def _is_visible(name: str) -> bool:
    return name != "" and all("!" <= character <= "~" for character in name)


def _gmt(asn1: bytes | None) -> str:
    """ "20260131235959Z" as mod_ssl has it, ASN1_TIME_print(3): "Jan 31 23:59:59 2026 GMT"."""
    t = (asn1 or b"").decode("ascii", "replace")
    try:
        return f"{_MONTHS[int(t[4:6]) - 1]} {int(t[6:8]):2} {t[8:10]}:{t[10:12]}:{t[12:14]} {t[:4]} GMT"
    except (ValueError, IndexError):
        return ""


def facts(conn: SSL.Connection, sni: str) -> TlsFacts:
    """What the built-in page shows."""
    protocol, cipher, resumed, certificate, _ = tls.outcome(conn)
    return TlsFacts(
        protocol=protocol,
        cipher=cipher,
        group=tls.group(conn),
        sni=_asked_for(conn, sni),
        alpn=conn.get_alpn_proto_negotiated().decode("latin-1"),
        resumed=resumed,
        client_verify="NONE" if certificate is None else "SUCCESS",
        **({} if certificate is None else _client_facts(certificate)),
    )


def _client_facts(certificate: crypto.X509) -> dict[str, str]:
    return {
        "client_dn": tls.shown_subject(certificate),
        "client_issuer": tls.shown_issuer(certificate),
        "client_serial": f"{certificate.get_serial_number():X}",
        "client_not_before": moment(certificate.get_notBefore()),
        "client_not_after": moment(certificate.get_notAfter()),
        "client_fingerprint": hashlib.sha256(tls.der(certificate)).hexdigest(),
    }
