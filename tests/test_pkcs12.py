"""pkcs12.py, and the files of that kind in certificates.py."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12 as made
from pki import Issued, pki

from uwsgi_tls import certificates, pkcs12
from uwsgi_tls.certificates import BadFile
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import Site, parse_https


def packed(issued: Issued, passphrase: bytes = b"", others: Iterable[x509.Certificate] = ()) -> bytes:
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase)
    return made.serialize_key_and_certificates(b"site", issued.key, issued.certificate, list(others) or None, how)


def site(path: Path) -> Site:
    return Site(certificates=((str(path), str(path)),), option="https", text="x")


def test_what_is_one() -> None:
    assert pkcs12.is_pkcs12(bytearray(packed(pki().server_ec)))
    assert pkcs12.is_pkcs12(bytearray(packed(pki().server_ec, b"secret")))


@pytest.mark.parametrize("data", [b"", b"0", b"\x30\x84", b"-----BEGIN CERTIFICATE-----", "der", "key"])
def test_what_is_none(data: bytes | str) -> None:
    if data == "der":
        data = pki().server_ec.der
    elif data == "key":
        data = pki().server_ec.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    assert isinstance(data, bytes)
    assert not pkcs12.is_pkcs12(bytearray(data))


def test_the_chain_comes_in_order_and_without_the_root() -> None:
    leaf = pki().clients_below[2]
    upwards = [*leaf.chain, pki().ca.certificate]
    assert len(upwards) == 4
    chain, key = pkcs12.read(bytearray(packed(leaf, b"", [upwards[3], upwards[2], upwards[1]])), [])
    assert chain == upwards[:3]
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert key.public_key().public_bytes(*spki) == leaf.key.public_key().public_bytes(*spki)


@pytest.mark.parametrize("passphrase", [b"", b"secret", "pàß".encode()])
def test_a_site_of_one_file(tmp_path: Path, passphrase: bytes) -> None:
    path = tmp_path / "site.p12"
    path.write_bytes(packed(pki().server_ec, passphrase))
    tried: list[str] = []

    def passphrases(key: str) -> Iterable[bytes]:
        tried.append(key)
        return iter((b"wrong", passphrase))

    material = certificates.load(site(path), passphrases=passphrases)
    assert material.credentials[0].chain == pki().server_ec.pem.encode()
    assert material.credentials[0].info.key_kind == "EC secp256r1"
    assert tried == [str(path)]


@pytest.mark.parametrize(
    ("content", "passphrases", "cause"),
    [
        (b"junk" * 10, (), "is no PKCS#12 file"),
        ("locked", (), "is encrypted; its passphrase"),
        ("locked", (b"one", b"two"), "no passphrase opens it"),
        ("cut", (b"secret",), "no passphrase opens it"),
        ("no key", (), "holds no key with its certificate"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, content: bytes | str, passphrases: tuple[bytes, ...], cause: str) -> None:
    path = tmp_path / "site.p12"
    locked = packed(pki().server_ec, b"secret")
    no_key = made.serialize_key_and_certificates(
        b"x", None, None, [pki().server_ec.certificate], serialization.NoEncryption()
    )
    choice = {"locked": locked, "cut": locked[:-20], "no key": no_key}
    path.write_bytes(content if isinstance(content, bytes) else choice[content])
    with pytest.raises(ConfigError, match=f"{path}: {cause}") as caught:
        certificates.load(site(path), passphrases=lambda key: passphrases)
    assert isinstance(caught.value.__cause__, BadFile)


def test_in_place_of_certificate_and_key() -> None:
    assert parse_https("=0,site.p12,").certificates == (("site.p12", "site.p12"),)
    assert parse_https("=0,site.pfx,,HIGH,!ca.crt").certificates == (("site.pfx", "site.pfx"),)
    with pytest.raises(ValueError, match="the key file is empty"):
        parse_https("=0,site.crt,")
