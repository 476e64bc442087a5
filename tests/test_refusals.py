"""refusals.py: what each verdict of OpenSSL is called. That OpenSSL gives them: test_tls.py and blackbox."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, ObjectIdentifier
from OpenSSL import crypto
from pki import CLIENT, SERVER, Issued, common_name, issue

from uwsgi_tls.refusals import alert, bounded, moment, words

ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def said(code: int, client: Issued, *, depth: int = 0, subject: str = "/CN=x", issuer: str = "/CN=CA") -> str:
    certificate = crypto.X509.from_cryptography(client.certificate)
    return words(code, "OpenSSL's words", depth, 4, certificate, subject, issuer)


@pytest.mark.parametrize(
    ("code", "depth", "text"),
    [
        (2, 0, "it was issued by /CN=CA, which is no CA that is trusted here or that the client has sent: /CN=x"),
        (
            20,
            1,
            "it was issued by /CN=CA, which is no CA that is trusted here or that the client has sent: the CA above",
        ),
        (3, 0, "the CRL of its issuer /CN=CA is missing (ssl-crl): /CN=x"),
        (8, 0, "the CRL of its issuer /CN=CA has a wrong signature: /CN=x"),
        (11, 0, "the CRL of its issuer /CN=CA is not valid yet: /CN=x"),
        (12, 0, "the CRL of its issuer /CN=CA has expired: /CN=x"),
        (18, 0, "it is self-signed, and not trusted here: /CN=x"),
        (19, 2, "its chain ends in a self-signed CA that is not trusted here: the CA above it, /CN=x"),
        (22, 5, "its chain has more than 4 intermediate CAs (ssl-verify-depth): the CA above it, /CN=x"),
        (23, 0, "it was revoked (serial ABC): /CN=x"),
        (25, 1, "a CA in its chain allows fewer CAs below it than there are: the CA above it, /CN=x"),
        (66, 0, "OpenSSL's words: /CN=x"),
    ],
)
def test_words(code: int, depth: int, text: str, tmp_path: Path) -> None:
    assert said(code, issue(tmp_path, "c", common_name("x"), serial=0xABC), depth=depth).startswith(text)


def test_dates(tmp_path: Path) -> None:
    client = issue(tmp_path, "c", common_name("x"))
    certificate = crypto.X509.from_cryptography(client.certificate)
    assert said(10, client) == f"it expired on {moment(certificate.get_notAfter())}: /CN=x"
    assert said(9, client) == f"it is not valid before {moment(certificate.get_notBefore())}: /CN=x"


@pytest.mark.parametrize(
    ("usage", "depth", "text"),
    [
        ([SERVER], 0, "certificate is not meant for clients: no clientAuth in its extended key usage"),
        ([ANY], 0, "certificate is not meant for clients: no clientAuth in its extended key usage"),
        ([SERVER], 1, "certificate is not meant for clients: no clientAuth in its extended key usage"),
        ([CLIENT, SERVER], 0, "certificate is not meant for clients: its key usage does not allow signatures"),
        ([], 0, "certificate is not meant for clients: its key usage does not allow signatures"),
        ([], 1, "certificate is not meant for a CA of clients: its key usage does not allow it"),
    ],
)
def test_purpose(usage: list[ObjectIdentifier], depth: int, text: str, tmp_path: Path) -> None:
    assert said(26, issue(tmp_path, "c", common_name("x"), usage=usage), depth=depth).startswith(f"{text}: ")


def test_an_extension_that_cannot_be_read(tmp_path: Path) -> None:
    extension = x509.UnrecognizedExtension(ExtensionOID.EXTENDED_KEY_USAGE, b"junk")
    client = issue(tmp_path, "c", common_name("x"), extensions=[(extension, False)])
    assert "is not meant for clients" in said(26, client)


def test_names_are_bounded(tmp_path: Path) -> None:
    client = issue(tmp_path, "c", common_name("x"))
    assert len(said(20, client, subject="/CN=" + "x" * 70000, issuer="/CN=" + "y" * 70000)) < 700
    assert bounded("x" * 256) == "x" * 256
    assert bounded("x" * 257) == "x" * 256 + "..."


@pytest.mark.parametrize(
    ("asn1", "text"),
    [(b"20260131235959Z", "2026-01-31 23:59:59 UTC"), (b"junk", "junk"), (None, "")],
)
def test_moment(asn1: bytes | None, text: str) -> None:
    assert moment(asn1) == text


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (2, "unknown_ca"),
        (3, "unknown_ca"),
        (7, "decrypt_error"),
        (9, "bad_certificate"),
        (10, "certificate_expired"),
        (12, "certificate_expired"),
        (18, "unknown_ca"),
        (23, "certificate_revoked"),
        (26, "unsupported_certificate"),
        (66, "bad_certificate"),
    ],
)
def test_alerts(code: int, name: str) -> None:
    """What clients really get: blackbox/test_handshake_log.py."""
    assert alert(code) == name
