"""The files of a site, examined before they are used: certificate chains, private keys, client CAs.

uWSGI says "unable to assign key" for four different causes (core/ssl.c); here each has its own words. The private key
passes through here as bytes that are wiped after use; it is never text and never logged.
Files are PEM (RFC 7468). No other module opens them: tls.py builds the context from what has been found good here.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto

from uwsgi_tls import chains, pem, pkcs12, private_keys, revocations, tls
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import PKCS12_SUFFIXES, Site, SniSite

if TYPE_CHECKING:  # names that Debian 12's cryptography has not
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

FILE_BYTES_MAX = 16 * 1024 * 1024  # a bundle of every public CA has 0.2 MB

_CERTIFICATE = re.compile(rb"-----BEGIN ((?:X509 )?CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)
_NOT_A_SERVERS = "is a CA's certificate, not a server's"


class BadFile(Exception):
    """A file that cannot be used; its text is the cause and names the file."""


class Unreadable(BadFile):
    """There may be nothing wrong with it, but we are not the user who may read it."""


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate and its key are, for --check and the log."""

    file: str
    subject: str  # RFC 4514
    names: tuple[str, ...]  # DNS names and IP addresses the certificate is good for
    not_after: datetime  # UTC
    expiry_warning: datetime  # UTC: from then on somebody should renew it
    key_kind: str  # "RSA 2048", "EC secp256r1", "Ed25519"
    chain_length: int  # certificates in the file, the server's own included

    def __str__(self) -> str:
        return f"certificate {self.file}: {self.subject}, {self.key_kind}, until {self.not_after:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate of the server with its private key."""

    chain: bytes  # PEM, the server's own certificate first
    key: "PrivateKeyTypes" = field(repr=False)
    info: CertificateInfo


@dataclass(frozen=True, slots=True)
class Material:
    """All that the files of a site hold: what tls.py needs to make a context."""

    credentials: tuple[Credential, ...]
    client_cas: bytes  # PEM; b"": no client certificate is asked for
    crls: bytes  # PEM
    warnings: tuple[str, ...]  # one line each
    trusted_until: float = float("inf")  # UTC seconds: the first end of a client CA or CRL that is good now


Read = Callable[[str, str], bytearray]
Passphrases = Callable[[str], Iterable[bytes]]  # what may open the key in a file
Known = Mapping[tuple[str, str], Credential]  # by the paths of certificate and key


def open_file(path: str) -> int:
    """A descriptor for reading. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a FIFO would wait for a writer


def read_file(path: str, what: str, opened: Callable[[str], int] = open_file) -> bytearray:
    """The bytes of a regular file of at most FILE_BYTES_MAX bytes, which `opened` opens.

    Raises BadFile, naming it as `what` and path; Unreadable where we may not read it.
    """
    with _explained(path, what):
        fd = opened(path)
        try:
            data = _content(fd, f"{what} {path}")
        finally:
            os.close(fd)
    if not data or data.isspace():  # strip() would copy a key
        raise BadFile(f"{what} {path}: is empty")
    return data


def read_names(path: str, what: str, opened: Callable[[str], int] = open_file) -> list[str]:
    """The names in a directory, sorted. Raises BadFile, as `read_file` does."""
    with _explained(path, what):
        fd = opened(path)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)


@contextmanager
def _explained(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise Unreadable(f"{what} {path}: {_refusal(error)}") from None
    except FileNotFoundError:
        place = "" if os.path.isabs(path) else f" (in {os.getcwd()})"
        raise BadFile(f"{what} {path}: no such file{place}") from None
    except OSError as error:
        raise BadFile(f"{what} {path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:  # a NUL in the path
        raise BadFile(f"{what} {path}: {error}") from None


def _content(fd: int, name: str) -> bytearray:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise BadFile(f"{name}: is {'a directory' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
    if status.st_size > FILE_BYTES_MAX:
        raise BadFile(f"{name}: has more than {FILE_BYTES_MAX} bytes")
    data = bytearray(status.st_size)  # read in place, so that no copy of a key is left behind
    del data[os.readv(fd, [data]) :]
    return data


def _refusal(error: PermissionError) -> str:
    """EACCES (13) is the usual one; with EPERM trusted_path.py says why it does not open a file."""
    denied = f"permission denied (read as uid {os.geteuid()})"
    return denied if error.errno == errno.EACCES else str(error.strerror)


def no_passphrases(key: str) -> Iterable[bytes]:
    """None for any key."""
    return ()


def load(
    site: Site, read: Read = read_file, passphrases: Passphrases = no_passphrases, known: Known = MappingProxyType({})
) -> Material:
    """Read and compare the files of a site. `read` takes a path and what it is, returns its bytes, raises BadFile.

    A certificate and key that may not be read are those of `known`, if it has them. Raises ConfigError with the cause
    and the file, and as its __cause__ the BadFile. The bytes that `read` returned are wiped.
    """
    try:
        return _load(site, read, passphrases, known)
    except BadFile as error:
        raise ConfigError(site.option, site.text, str(error), site.where) from error


def _load(site: Site, read: Read, passphrases: Passphrases, known: Known) -> Material:
    warnings: list[str] = []
    authorities: list[crypto.X509] = []
    crls = b""
    if site.client_ca:
        authorities = _client_cas(site.client_ca, read, warnings)
        if site.crl:
            crls = _crls(site.crl, read, authorities, warnings)
    elif site.client_required:
        raise BadFile("a client certificate is required, but no client CA is given")
    credentials = []
    for certificate, key in site.certificates:
        try:
            credential, chain = _credential(site, certificate, key, read, passphrases)
        except Unreadable as error:
            if (certificate, key) not in known:
                raise
            # Nothing is known to be wrong with them, and they are not to hold up what else has changed.
            credential = known[certificate, key]
            chain = _readable(certificate, _from_pem(credential.chain))
            warnings.append(f"{error}: certificate {certificate} and its key stay as they were")
        credentials.append(credential)
        remarks = _remarks(site, chain, authorities)
        warnings += [f"certificate {certificate}: {remark}" for remark in remarks]
        warnings += _mode_warnings(key)
    _check_kinds(credentials)
    return Material(tuple(credentials), _pem(authorities), crls, tuple(warnings), _trusted_until(authorities, crls))


def _credential(
    site: Site, certificate: str, key_file: str, read: Read, passphrases: Passphrases
) -> tuple[Credential, list[x509.Certificate]]:
    if certificate.endswith(PKCS12_SUFFIXES):
        certificates, key = _pkcs12(certificate, read, passphrases)
        chain = _readable(certificate, certificates)
    else:
        certificates = _certificates(certificate, "certificate", read)
        chain = _readable(certificate, certificates)
        if site.option == "sni-dir" and not chains.is_servers_own(chain[0], _names(site)):
            # Nobody has named this file: it is there, and the key of a CA beside it is not for us to open.
            raise BadFile(f"certificate {certificate}: {_NOT_A_SERVERS}; keep it elsewhere")
        key = _private_key(key_file, read, passphrases)
    _check_match(certificate, key_file, chain, key.public_key())
    try:
        kind = private_keys.kind(key)
    except private_keys.BadKey as error:
        raise BadFile(f"key {key_file}: {error}") from None
    leaf = chain[0]
    broken = chains.broken_signature(chain)
    if broken:
        raise BadFile(f"certificate {certificate}: {broken}")
    info = CertificateInfo(
        file=certificate,
        subject=leaf.subject.rfc4514_string(),
        names=chains.names(leaf),
        not_after=chains.not_after(leaf),
        expiry_warning=chains.expiry_warning(chains.not_before(leaf), chains.not_after(leaf)),
        key_kind=kind,
        chain_length=len(chain),
    )
    return Credential(_pem(certificates), key, info), chain


def _pkcs12(path: str, read: Read, passphrases: Passphrases) -> "tuple[list[crypto.X509], PrivateKeyTypes]":
    data = read(path, "certificate")
    try:
        if not pkcs12.is_pkcs12(data):
            raise BadFile(f"certificate {path}: is no PKCS#12 file")
        chain, key = pkcs12.read(data, passphrases(path))
    except pkcs12.BadPkcs12 as error:
        raise BadFile(f"certificate {path}: {error}") from None
    finally:
        private_keys.wipe(data)
    return [crypto.X509.from_cryptography(each) for each in chain], key


def _check_kinds(credentials: Sequence[Credential]) -> None:
    """That no two keys are of one kind: OpenSSL keeps one certificate of each, SSL_CTX_use_certificate(3)."""
    seen: dict[str, str] = {}
    for each in credentials:
        file, kind = each.info.file, each.info.key_kind.split()[0]
        if kind in seen:
            raise BadFile(f"certificate {file}: its key is {kind}, as that of {seen[kind]}; give one of a kind")
        seen[kind] = file


def _remarks(site: Site, chain: list[x509.Certificate], authorities: list[crypto.X509]) -> Iterator[str]:
    leaf = chain[0]
    yield from chains.expiry(leaf, datetime.now(UTC))
    yield from chains.gap(chain, [each.to_cryptography() for each in authorities])
    if not chains.is_servers_own(leaf, _names(site)):
        yield _NOT_A_SERVERS
    for name in _names(site):
        if not chains.is_good_for(leaf, name):
            yield f"is not good for {name} but for {', '.join(chains.names(leaf)) or 'no name'}"


def _names(site: Site) -> tuple[str, ...]:
    return site.names if isinstance(site, SniSite) else ()


def _client_cas(path: str, read: Read, warnings: list[str]) -> list[crypto.X509]:
    authorities = _certificates(path, "client CA", read)
    for number, authority in enumerate(authorities, 1):
        if authority.has_expired():
            warnings.append(f"client CA {path}: certificate {number} of {len(authorities)} has expired")
    return authorities


def _crls(path: str, read: Read, authorities: Sequence[crypto.X509], warnings: list[str]) -> bytes:
    try:
        known = [each.to_cryptography() for each in authorities]
        crls, found = revocations.read(bytes(read(path, "CRL")), known, datetime.now(UTC))
    except ValueError as error:
        raise BadFile(f"CRL {path}: {error}") from None
    warnings += [f"CRL {path}: {each}" for each in found]
    return crls


def _trusted_until(authorities: Sequence[crypto.X509], crls: bytes) -> float:
    """What has ended already lets nobody in, so no session depends on it; the rest of a bundle may."""
    now = datetime.now(UTC).timestamp()
    ends = [tls.not_after(each) for each in authorities] + [end.timestamp() for end in revocations.ends(crls)]
    return min((end for end in ends if end > now), default=float("inf"))


def _private_key(path: str, read: Read, passphrases: Passphrases) -> "PrivateKeyTypes":
    data = read(path, "key")
    try:
        return private_keys.read(data, passphrases(path))
    except private_keys.BadKey as error:
        raise BadFile(f"key {path}: {error}") from None
    finally:
        private_keys.wipe(data)


def _from_pem(chain: bytes) -> list[crypto.X509]:
    return [crypto.load_certificate(crypto.FILETYPE_PEM, block.group()) for block in _CERTIFICATE.finditer(chain)]


def _pem(certificates: Sequence[crypto.X509]) -> bytes:
    return b"".join(crypto.dump_certificate(crypto.FILETYPE_PEM, each) for each in certificates)


def _certificates(path: str, what: str, read: Read) -> list[crypto.X509]:
    """All certificates of a PEM file, as OpenSSL reads them. Raises BadFile if there is none, or one is damaged."""
    data = read(path, what)
    try:
        blocks = [bytes(block.group()) for block in _CERTIFICATE.finditer(data)]
        if not blocks:
            raise BadFile(f"{what} {path}: {pem.instead(data, 'certificate')}")
    finally:
        private_keys.wipe(data)  # the key may stand in the same file
    found = []
    for number, block in enumerate(blocks, 1):
        try:
            if b"Proc-Type:" in block:  # RFC 1421's encryption, for which OpenSSL would ask the terminal
                raise ValueError
            found.append(crypto.load_certificate(crypto.FILETYPE_PEM, block))
        except (crypto.Error, ValueError):
            raise BadFile(f"{what} {path}: certificate {number} of {len(blocks)} is damaged") from None
    return found


def _readable(path: str, chain: list[crypto.X509]) -> list[x509.Certificate]:
    """The same for cryptography, which refuses some that OpenSSL takes."""
    try:
        return [certificate.to_cryptography() for certificate in chain]
    except ValueError as error:
        raise BadFile(f"certificate {path}: {error}") from None


def _check_match(certificate: str, key_file: str, chain: list[x509.Certificate], key: "PublicKeyTypes") -> None:
    wanted = _spki(key)
    matches = [_spki(each.public_key()) == wanted for each in chain]
    if matches[0]:
        return
    if any(matches):
        cause = f"certificate {matches.index(True) + 1} of {len(chain)} matches it; the server's own must stand first"
    else:
        cause = "it is the key of another certificate"
    raise BadFile(f"key {key_file}: does not match certificate {certificate}: {cause}")


def _spki(key: "PublicKeyTypes") -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _mode_warnings(path: str) -> Iterator[str]:
    mode = 0
    with suppress(OSError):  # a directory that only root may enter: its files are out of reach of others anyway
        mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        who = "writable by others" if mode & (stat.S_IWOTH | stat.S_IWGRP) else "readable by every user"
        yield f"key {path}: is {who} (mode {mode:04o}); chmod 600"
