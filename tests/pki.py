"""Certificates for the tests, made once a session in a temporary directory: `pki()` is the only way in.

Every certificate is NAME.crt with the key NAME.key, PEM, the key readable by its owner alone; a chain stands in one
file, leaf first. Elliptic curves wherever RSA is not the point, because RSA keys take a tenth of a second each.
"""

import atexit
import functools
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_DN = "/C=IT/O=Lab/CN=Client 01/emailAddress=c@lab"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate with its key, in memory and as files."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...]  # itself and the intermediates above it, without the root
    crt: str
    key_file: str

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def name(*pairs: tuple[ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def common_name(text: str) -> x509.Name:
    return name((NameOID.COMMON_NAME, text))


def issue(
    directory: Path,
    stem: str,
    subject: x509.Name,
    issuer: Issued | None = None,
    *,
    key: Key | None = None,
    days: tuple[float, float] = (-1, 365),
    usage: Sequence[ObjectIdentifier] = (),
    sans: Sequence[x509.GeneralName] = (),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    authority: bool = False,
    serial: int = 0,
) -> Issued:
    """Make one certificate, self-signed without an issuer, valid over `days` counted from now."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    begin, end = (datetime.now(UTC).replace(tzinfo=None, microsecond=0) + timedelta(days=day) for day in days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(sans)), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(key if issuer is None else issuer.key, hashes.SHA256())
    # A root is trusted, not sent.
    above = issuer.chain if issuer is not None and issuer.certificate.issuer != issuer.certificate.subject else ()
    chain = (certificate, *above)
    crt, key_file = directory / f"{stem}.crt", directory / f"{stem}.key"
    crt.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain))
    write_secret(key_file, key_pem(key))
    return Issued(certificate, key, chain, str(crt), str(key_file))


def revocation_list(
    issuer: Issued, revoked: Sequence[Issued] = (), *, days: tuple[float, float] = (-1, 30), key: Key | None = None
) -> bytes:
    """A CRL of an authority in PEM, valid over `days` counted from now; `key` signs it in the authority's stead."""
    begin, end = (datetime.now(UTC).replace(tzinfo=None, microsecond=0) + timedelta(days=day) for day in days)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(begin).next_update(end)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(begin)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key or issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def key_pem(key: Key, passphrase: bytes = b"", form: serialization.PrivateFormat | None = None) -> bytes:
    """A key as PEM: PKCS#8, or the older TraditionalOpenSSL form."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, form or serialization.PrivateFormat.PKCS8, encryption)


def write_secret(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        file.write(data)


class Pki:
    """A laboratory: two roots, servers with RSA and EC keys, and clients good and bad."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        sans = [
            x509.DNSName("localhost"),
            x509.DNSName("server.lab"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        subject = common_name("server.lab")
        make = functools.partial(issue, directory)
        self.ca = make("ca", common_name("Lab CA"), authority=True)
        self.other_ca = make("other-ca", common_name("Other CA"), authority=True)
        rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.server = make("server", subject, self.ca, key=rsa_key, usage=[SERVER], sans=sans)
        self.server_ec = make("server-ec", subject, self.ca, usage=[SERVER], sans=sans)
        person = name(
            (NameOID.COUNTRY_NAME, "IT"),
            (NameOID.ORGANIZATION_NAME, "Lab"),
            (NameOID.COMMON_NAME, "Client 01"),
            (NameOID.EMAIL_ADDRESS, "c@lab"),
        )
        self.client = make("client", person, self.ca, usage=[CLIENT])
        self.client_other_ca = make("client-other-ca", person, self.other_ca, usage=[CLIENT])
        self.client_expired = make("client-expired", person, self.ca, usage=[CLIENT], days=(-30, -1))
        self.client_not_yet = make("client-not-yet", person, self.ca, usage=[CLIENT], days=(1, 30))
        self.client_server_only = make("client-server-only", person, self.ca, usage=[SERVER])
        self.client_self_signed = make("client-self-signed", person, usage=[CLIENT])
        # Clients below 1, 2, ... intermediate authorities; [n] has n of them.
        self.clients_below: list[Issued] = [self.client]
        issuer = self.ca
        for depth in range(1, 6):
            issuer = make(f"intermediate-{depth}", common_name(f"Lab Intermediate {depth}"), issuer, authority=True)
            self.clients_below.append(make(f"client-below-{depth}", person, issuer, usage=[CLIENT]))
        below = self.clients_below[1]
        crt = directory / "client-no-chain.crt"
        crt.write_text(below.pem)
        self.client_no_chain = Issued(below.certificate, below.key, below.chain[:1], str(crt), below.key_file)
        self.ca_bundle = str(directory / "bundle.crt")  # two authorities
        Path(self.ca_bundle).write_text(self.ca.pem + self.other_ca.pem)


@functools.cache
def pki() -> Pki:
    """The laboratory of this test session."""
    directory, owner = tempfile.mkdtemp(prefix="uwsgi-tls-pki-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child that ends the ordinary way must leave it to us
            shutil.rmtree(directory)

    atexit.register(remove)
    os.chmod(directory, 0o755)
    return Pki(Path(directory))
