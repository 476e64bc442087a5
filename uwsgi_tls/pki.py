"""`uwsgi-tls pki`: the certificates of a small private authority, made with a command each.

Words of the command line in, files and lines for a person out. What a certificate holds is certificate_authority.py's,
how a file is made pki_files.py's, where a password comes from pki_passwords.py's. The directory is all that there is:
ca.crt, ca.key, and ca.crl, which is also the only record of what was revoked.
"""

import argparse
import contextlib
import os
import shlex
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from uwsgi_tls import certificate_authority as ca
from uwsgi_tls import pki_passwords
from uwsgi_tls.certificate_authority import Authority, LeafKey, Refused, SigningKey
from uwsgi_tls.certificates import BadFile, read_file
from uwsgi_tls.pki_files import PRIVATE, PUBLIC, NewFile, file_name, locked, refuse_to_overwrite, replace, write_new

if TYPE_CHECKING:  # names that Debian 12's cryptography has not
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

SUCCESS = 0
FAILURE = 1
CA_DAYS = 3650
LEAF_DAYS = 365  # Mozilla's guidelines: a server's certificate is good for 366 days at most
DAYS_MAX = 36500
NOT_FOR_OTHERS = 0o027  # what nobody but the owner may do with ca.key; that a group reads it may be meant
PKCS12_ROUNDS = 20_000


def run(words: Sequence[str]) -> int:
    """Do what the words after `pki` say and return the exit status. A mistake is one line on standard error."""
    try:
        arguments = _parser().parse_args(words)
        command: Callable[[argparse.Namespace], list[str]] = arguments.command
        print("\n".join(map(_printable, command(arguments))), flush=True)
        return SUCCESS
    except (Refused, BadFile) as error:
        cause = str(error)
    except OSError as error:
        cause = f"{error.filename or 'standard output'}: {(error.strerror or str(error)).lower()}"
    _complain(cause)
    return FAILURE


# --- the command line ---------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # argparse's own prints the usage too, and exits with 2
        raise Refused(f"{message} ({self.prog} --help)")


def _parser() -> _Parser:
    parser = _Parser(prog="uwsgi-tls pki", description="The certificates of a small private authority.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], list[str]], text: str, days: int | None) -> _Parser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=command)
        added.add_argument("--dir", type=Path, default=Path(), help="where the files are (default: here)")
        default = str(days) if days else f"as long as the last one, the first {ca.LIST_DAYS}"
        added.add_argument("--days", type=_days, default=days, help=f"how long it is good (default: {default})")
        if command is not _ca:
            added.add_argument("--ca-password-file", metavar="FILE", help="the password of ca.key, if it has one")
        return added

    authority = add("ca", _ca, "Make an authority: ca.crt and ca.key.", CA_DAYS)
    authority.add_argument("--name", default=f"uwsgi-tls CA {socket.gethostname()}"[: ca.COMMON_NAME_CHARACTERS_MAX])
    password = authority.add_mutually_exclusive_group()
    password.add_argument("--password-file", "--ca-password-file", metavar="FILE", help="encrypt ca.key with this one")
    password.add_argument("--ask-password", action="store_true", help="encrypt ca.key, and ask for the password")

    server = add("server", _server, "Make a server's certificate: NAME.crt and NAME.key.", LEAF_DAYS)
    server.add_argument(
        "name", nargs="+", metavar="NAME", help="DNS names, *.DOMAIN, IP addresses; the first is the file's"
    )

    client = add("client", _client, "Make a client's certificate: NAME.crt, NAME.key and NAME.p12.", LEAF_DAYS)
    client.add_argument("name", metavar="NAME", help="who it is (the common name)")
    client.add_argument("--email", metavar="ADDRESS", help="an e-mail address, as an alternative name")
    client.add_argument(
        "--legacy", action="store_true", help="a .p12 with 3DES and SHA-1, for a system that refuses AES"
    )
    password = client.add_mutually_exclusive_group()
    password.add_argument(
        "--password-file", metavar="FILE", help="the password of the .p12 (default: a new one, shown)"
    )
    password.add_argument("--ask-password", action="store_true", help="ask for the password of the .p12")
    for parent in (authority, server, client):
        parent.add_argument("--rsa", action="store_true", help=f"an RSA key of {ca.RSA_BITS} bits instead of EC P-256")

    revoke = add("revoke", _revoke, "Revoke a certificate: add it to ca.crl.", None)
    revoke.add_argument("which", metavar="NAME|FILE.crt|SERIAL", help="a serial number is hexadecimal: 0x...")
    revoke.add_argument("--reason", choices=ca.REASONS, default="unspecified")
    add("crl", _crl, "Renew ca.crl with all that is on it.", None)
    return parser


def _days(text: str) -> int:
    if not text.isdecimal() or len(text) > len(str(DAYS_MAX)) or not 1 <= int(text) <= DAYS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days from 1 to {DAYS_MAX}")
    return int(text)


# --- the commands: each makes its files and returns what to tell --------------------------------------


def _ca(arguments: argparse.Namespace) -> list[str]:
    certificate_file, key_file = arguments.dir / "ca.crt", arguments.dir / "ca.key"
    refuse_to_overwrite(certificate_file, key_file)
    name = ca.common_name(arguments.name)
    password = _new_password(arguments, key_file)
    authority = ca.new_authority(name, ca.new_key(with_rsa=arguments.rsa), arguments.days)
    with contextlib.suppress(FileExistsError):
        arguments.dir.mkdir(0o755)
    write_new(
        NewFile(certificate_file, _pem(authority.certificate), PUBLIC),
        NewFile(key_file, _key_pem(authority.key, password), PRIVATE),
    )
    return [
        f"wrote {certificate_file}: {name}, {_until(authority.certificate)}",
        f"wrote {key_file}: its key, {'encrypted' if password else 'not encrypted: keep it where only root can read'}",
        "next:",
        f"  {_pki_command('server', arguments.dir)} NAME...",
    ]


def _server(arguments: argparse.Namespace) -> list[str]:
    names = list(dict.fromkeys(map(ca.server_name, arguments.name)))
    texts = [str(name.value) for name in names]
    certificate_file, key_file = _files(arguments.dir, texts[0], "crt", "key")
    refuse_to_overwrite(certificate_file, key_file)
    authority = _authority(arguments)
    key = ca.new_key(with_rsa=arguments.rsa)
    certificate = ca.server_certificate(authority, names, key, arguments.days)
    write_new(
        NewFile(certificate_file, _pem(certificate, *authority.chain), PUBLIC),
        NewFile(key_file, _key_pem(key), PRIVATE),
    )
    https = f":8443,{certificate_file},{key_file}"
    clients_too = f"{https},,!{arguments.dir / 'ca.crt'}"
    return [
        f"wrote {certificate_file}: {', '.join(texts)}, {_until(certificate)}",
        f"wrote {key_file}: its key",
        "next; the second line lets in only clients that have a certificate:",
        f"  {shlex.join(['uwsgi-tls', '--https', https])}",
        f"  {shlex.join(['uwsgi-tls', '--https', clients_too])}",
    ]


def _client(arguments: argparse.Namespace) -> list[str]:
    name = ca.common_name(arguments.name)
    email = ca.email_address(arguments.email) if arguments.email is not None else None
    certificate_file, key_file, p12_file = _files(arguments.dir, name, "crt", "key", "p12")
    refuse_to_overwrite(certificate_file, key_file, p12_file)
    authority = _authority(arguments)
    given = _new_password(arguments, p12_file)
    if given and not given.isascii():
        raise Refused(f"{p12_file}: the password must be ASCII, programs disagree about other letters")
    password = given or pki_passwords.made_up()
    key = ca.new_key(with_rsa=arguments.rsa)
    certificate = ca.client_certificate(authority, name, email, key, arguments.days)
    p12 = _pkcs12(name, key, certificate, authority, password, legacy=arguments.legacy)
    write_new(
        NewFile(certificate_file, _pem(certificate, *authority.chain), PUBLIC),
        NewFile(key_file, _key_pem(key), PRIVATE),
        NewFile(p12_file, p12, PRIVATE),
    )
    curl = ["curl", "--cacert", arguments.dir / "ca.crt", "--cert", certificate_file, "--key", key_file]
    return [
        f"wrote {certificate_file}: {name}, {_until(certificate)}",
        f"wrote {key_file}: its key",
        f"wrote {p12_file}: both, for a browser",
        *([] if given else [f"the password of {p12_file}, which is shown only now: {password.decode()}"]),
        "next:",
        f"  {shlex.join(map(str, curl))} https://SERVER:8443/",
    ]


def _revoke(arguments: argparse.Namespace) -> list[str]:
    authority = _authority(arguments)
    serial = _serial_number(arguments, authority)
    return _renew_list(arguments, authority, serial, ca.REASONS[arguments.reason])


def _crl(arguments: argparse.Namespace) -> list[str]:
    return _renew_list(arguments, _authority(arguments), None, x509.ReasonFlags.unspecified)


def _renew_list(
    arguments: argparse.Namespace, authority: Authority, serial: int | None, reason: x509.ReasonFlags
) -> list[str]:
    path: Path = arguments.dir / "ca.crl"
    told = f"revoked 0x{serial:x}" if serial else ""
    with locked(arguments.dir / "ca.key"):
        earlier = None
        if os.path.lexists(path):  # a link to nowhere must not begin a list without what was on the last one
            data = read_file(str(path), "revocation list")
            with _about(path):
                earlier = ca.load_revocation_list(data, authority)
        known = earlier.get_revoked_certificate_by_serial_number(serial) if serial and earlier is not None else None
        if known:
            told = f"0x{known.serial_number:x} was revoked already on {ca.moment(known, 'revocation_date'):%Y-%m-%d}"
            serial = None
        new = ca.revocation_list(authority, earlier, arguments.days, serial, reason)
        replace(path, new.public_bytes(Encoding.PEM))
    end = ca.moment(new, "next_update")
    return [
        *([told] if told else []),
        f"wrote {path}: number {ca.list_number(new)}, {len(new)} revoked, good until {end:%Y-%m-%d}",
        f"next: the server reads it with --ssl-crl {shlex.quote(str(path))} and when it reloads; to renew it in time:",
        f"  {_pki_command('crl', arguments.dir)}",
    ]


# --- what is there already ----------------------------------------------------------------------------


def _authority(arguments: argparse.Namespace) -> Authority:
    path: Path = arguments.dir / "ca.crt"
    if not path.exists():
        raise Refused(f"{path}: is not there; {_pki_command('ca', arguments.dir)} makes it")
    data = read_file(str(path), "CA certificate")
    key = _ca_key(arguments)
    with _about(path):
        return ca.load_authority(data, key)


def _ca_key(arguments: argparse.Namespace) -> "PrivateKeyTypes":
    path: Path = arguments.dir / "ca.key"
    data = read_file(str(path), "CA key")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & NOT_FOR_OTHERS:
        _complain(f"warning: {path} is open to others (mode {mode:04o}); chmod 600")
    try:
        try:
            return load_pem_private_key(data, None)
        except TypeError:  # that is how cryptography says "encrypted"
            if arguments.ca_password_file:
                password = pki_passwords.from_file(arguments.ca_password_file)
            else:
                password = pki_passwords.from_terminal(f"Password of {path}: ", "--ca-password-file")
            return load_pem_private_key(data, password)
    except (ValueError, UnsupportedAlgorithm):
        raise Refused(f"{path}: the password is wrong, or the file is no private key in PEM") from None


def _new_password(arguments: argparse.Namespace, path: Path) -> bytes | None:
    """The password that is wanted for the new file `path`; None if the command line names none."""
    if arguments.password_file:
        return pki_passwords.from_file(arguments.password_file)
    if arguments.ask_password:
        return pki_passwords.new_from_terminal(path, "--password-file")
    return None


def _serial_number(arguments: argparse.Namespace, authority: Authority) -> int:
    """The number of the certificate that a person calls so: by its name here, by its file, or by the number itself."""
    which: str = arguments.which
    serial = ca.serial_number(which)
    if serial is not None and (which.startswith("0x") or ":" in which):  # whatever a client may have called itself
        return serial
    for path in (arguments.dir / f"{file_name(which)}.crt", Path(which), arguments.dir / which):
        if path.is_file():
            if serial is not None:
                raise Refused(f"{which}: is a serial number and the file {path}; write 0x{which} or {path}")
            data = read_file(str(path), "certificate")
            with _about(path):
                certificate = ca.load_certificates(data)[0]
                if not ca.is_issued_by(certificate, authority):
                    raise Refused("was not issued by this authority")
            return certificate.serial_number
    if serial is None:
        raise Refused(f"{which}: is no certificate in {arguments.dir}, no file, and no serial number (0x...)")
    return serial


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Whatever is refused within is refused because of this file."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{path}: {error}") from None


# --- in files and on the terminal ---------------------------------------------------------------------


def _files(directory: Path, name: str, *suffixes: str) -> list[Path]:
    return [directory / f"{file_name(name)}.{suffix}" for suffix in suffixes]


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _key_pem(key: SigningKey, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _pkcs12(
    name: str, key: LeafKey, certificate: x509.Certificate, authority: Authority, password: bytes, *, legacy: bool
) -> bytes:
    """The key and its chain (RFC 7292), without the root: who imports it is not to trust our authority for websites."""
    scheme = pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC if legacy else pkcs12.PBES.PBESv2SHA256AndAES256CBC
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(PKCS12_ROUNDS)
        .key_cert_algorithm(scheme)
        .hmac_hash(hashes.SHA1() if legacy else hashes.SHA256())
        .build(password)
    )
    return pkcs12.serialize_key_and_certificates(name.encode(), key, certificate, authority.chain or None, encryption)


def _pki_command(command: str, directory: Path) -> str:
    return shlex.join(["uwsgi-tls", "pki", command, *(["--dir", str(directory)] if directory != Path() else [])])


def _until(certificate: x509.Certificate) -> str:
    return f"good until {ca.moment(certificate, 'not_valid_after'):%Y-%m-%d}"


def _complain(text: str) -> None:
    print(f"uwsgi-tls pki: {_printable(text)}", file=sys.stderr)


def _printable(text: str) -> str:
    """`text` as one line that any terminal takes, whatever is in a name."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)
