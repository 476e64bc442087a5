"""`uwsgi-tls pki` in one process: which files it makes, what is in them, what it says, and what it will not do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from uwsgi_tls import certificate_authority, cli, pki, pki_files
from uwsgi_tls.certificate_authority import moment

NOT_ASCII = "b\u00fccher.example"


@pytest.fixture(autouse=True)
def _directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def authority() -> x509.Certificate:
    assert pki.run(["ca", "--name", "Our CA"]) == 0
    return certificate("ca")


def certificate(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(f"{name}.crt").read_bytes())


def revocations() -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(Path("ca.crl").read_bytes())


def revoked() -> dict[int, str]:
    """The numbers on the list, with their reasons."""
    found = {}
    for entry in revocations():
        reasons = [extension.value.reason.value for extension in entry.extensions]
        found[entry.serial_number] = reasons[0] if reasons else ""
    return found


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


def mode(name: str) -> int:
    return stat.S_IMODE(Path(name).stat().st_mode)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that the command ends with, having made nothing."""
    before = files()
    capsys.readouterr()
    assert cli.main(["pki", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("uwsgi-tls pki: ")
    assert files() == before
    return err.removeprefix("uwsgi-tls pki: ").rstrip("\n")


# --- what is made -------------------------------------------------------------------------------------


def extensions(of: x509.Certificate) -> dict[str, tuple[bool, object]]:
    return {type(one.value).__name__: (one.critical, one.value) for one in of.extensions}


def usages(of: x509.Certificate) -> set[str]:
    value = of.extensions.get_extension_for_class(x509.KeyUsage).value
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(value, name)}


def lifetime(of: x509.Certificate) -> timedelta:
    return moment(of, "not_valid_after") - moment(of, "not_valid_before")


def test_authority(capsys: pytest.CaptureFixture[str]) -> None:
    assert pki.run(["ca", "--name", "Our CA"]) == 0
    authority = certificate("ca")
    assert files() == {"ca.crt", "ca.key"}
    assert (mode("ca.crt"), mode("ca.key")) == (0o644, 0o600)
    assert authority.subject == authority.issuer
    assert authority.subject.rfc4514_string() == "CN=Our CA"
    found = extensions(authority)
    assert found["BasicConstraints"] == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert found["KeyUsage"][0]
    assert usages(authority) == {"key_cert_sign", "crl_sign"}
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    assert found["SubjectKeyIdentifier"] == (False, identifier)
    assert found["AuthorityKeyIdentifier"] == (False, x509.AuthorityKeyIdentifier(identifier.digest, None, None))
    assert len(found) == 4
    assert lifetime(authority) == timedelta(days=3650, minutes=5)
    key = load_pem_private_key(Path("ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert capsys.readouterr().out.endswith("next:\n  uwsgi-tls pki server NAME...\n")


def test_server(authority: x509.Certificate) -> None:
    assert pki.run(["server", "WWW.Example.org", "*.example.org", "192.0.2.1", "[2001:DB8::1]", "www.example.org"]) == 0
    assert files() == {"ca.crt", "ca.key", "www.example.org.crt", "www.example.org.key"}
    assert (mode("www.example.org.crt"), mode("www.example.org.key")) == (0o644, 0o600)
    made = certificate("www.example.org")
    assert made.subject.rfc4514_string() == "CN=www.example.org"
    assert made.issuer == authority.subject
    found = extensions(made)
    assert found["BasicConstraints"] == (True, x509.BasicConstraints(ca=False, path_length=None))
    assert found["KeyUsage"][0]
    assert usages(made) == {"digital_signature"}
    assert found["ExtendedKeyUsage"] == (False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))
    assert found["SubjectAlternativeName"] == (
        False,
        x509.SubjectAlternativeName(
            [
                x509.DNSName("www.example.org"),
                x509.DNSName("*.example.org"),
                x509.IPAddress(ip_address("192.0.2.1")),
                x509.IPAddress(ip_address("2001:db8::1")),
            ]
        ),
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    assert found["AuthorityKeyIdentifier"] == (False, x509.AuthorityKeyIdentifier(identifier.digest, None, None))
    assert len(found) == 6
    assert 128 < made.serial_number.bit_length() < 160
    end = moment(made, "not_valid_after")
    assert abs(end - datetime.now(UTC) - timedelta(days=365)) < timedelta(minutes=2)
    assert moment(made, "not_valid_before") >= moment(authority, "not_valid_before")


@pytest.mark.usefixtures("authority")
def test_client(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pki.run(["client", "J\u00fcrgen / 1", "--email", "j@example.org"]) == 0
    stem = "J\u00fcrgen___1"
    assert files() == {"ca.crt", "ca.key", f"{stem}.crt", f"{stem}.key", f"{stem}.p12"}
    assert (mode(f"{stem}.crt"), mode(f"{stem}.key"), mode(f"{stem}.p12")) == (0o644, 0o600, 0o600)
    made = certificate(stem)
    assert [name.value for name in made.subject] == ["J\u00fcrgen / 1"]
    found = extensions(made)
    assert found["ExtendedKeyUsage"] == (False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
    assert found["SubjectAlternativeName"] == (
        False,
        x509.SubjectAlternativeName([x509.RFC822Name("j@example.org")]),
    )
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "password" in line]
    password = line.rpartition(" ")[2]
    assert len(password) == 23
    packed = pkcs12.load_pkcs12(Path(f"{stem}.p12").read_bytes(), password.encode())
    assert packed.cert is not None
    assert packed.cert.certificate == made
    assert packed.cert.friendly_name == "J\u00fcrgen / 1".encode()
    assert packed.additional_certs == []
    assert isinstance(packed.key, ec.EllipticCurvePrivateKey)
    assert packed.key.public_key().public_numbers() == public_numbers(made)


def public_numbers(of: x509.Certificate) -> ec.EllipticCurvePublicNumbers:
    key = of.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_numbers()


@pytest.mark.usefixtures("authority")
def test_made_up_passwords_differ(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pki.run(["client", "a"]) == pki.run(["client", "b"]) == 0
    words = [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines() if "the password" in line]
    assert len(set(words)) == 2


def test_rsa() -> None:
    assert pki.run(["ca", "--rsa"]) == pki.run(["server", "a", "--rsa"]) == pki.run(["client", "b", "--rsa"]) == 0
    for name in ("ca", "a", "b"):
        key = certificate(name).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 2048
    # TLS 1.2's key exchange by RSA enciphers with the server's key, never with a client's
    assert usages(certificate("a")) == {"digital_signature", "key_encipherment"}
    assert usages(certificate("b")) == {"digital_signature"}


def test_name_of_the_authority_by_default() -> None:
    assert pki.run(["ca"]) == 0
    (name,) = certificate("ca").subject
    assert str(name.value).startswith("uwsgi-tls CA ")


def test_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert pki.run(["ca", "--dir", "my pki"]) == pki.run(["server", "a", "--dir", "my pki"]) == 0
    assert pki.run(["ca", "--dir", "."]) == 0
    assert {path.name for path in Path("my pki").iterdir()} == {"ca.crt", "ca.key", "a.crt", "a.key"}
    out = capsys.readouterr().out
    assert "  uwsgi-tls pki server --dir 'my pki' NAME...\n" in out
    assert "  uwsgi-tls --https ':8443,my pki/a.crt,my pki/a.key,,!my pki/ca.crt'\n" in out


def test_umask_never_opens_a_key() -> None:
    before = os.umask(0)
    try:
        assert pki.run(["ca"]) == pki.run(["client", "a"]) == 0
    finally:
        os.umask(before)
    assert [mode(name) for name in ("ca.key", "a.key", "a.p12", "ca.crt")] == [0o600, 0o600, 0o600, 0o644]


def test_umask_never_opens_a_directory() -> None:
    before = os.umask(0)
    try:
        assert pki.run(["ca", "--dir", "new"]) == pki.run(["crl", "--dir", "new"]) == 0
    finally:
        os.umask(before)
    assert [mode(name) for name in ("new", "new/ca.crl")] == [0o755, 0o644]


def test_days(authority: x509.Certificate) -> None:
    assert pki.run(["server", "a", "--days", "7"]) == 0
    assert timedelta(days=7) <= lifetime(certificate("a")) <= timedelta(days=7, minutes=5)
    assert pki.run(["server", "b", "--days", "36500"]) == 0
    assert moment(certificate("b"), "not_valid_after") == moment(authority, "not_valid_after")


def test_no_leaf_is_older_than_its_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """openssl, unlike us, makes an authority that is good from this moment on."""
    with monkeypatch.context() as patch:
        patch.setattr(certificate_authority, "CLOCK_SKEW", timedelta(0))
        assert pki.run(["ca"]) == 0
    assert pki.run(["server", "a"]) == 0
    assert moment(certificate("a"), "not_valid_before") == moment(certificate("ca"), "not_valid_before")


@pytest.mark.usefixtures("authority")
def test_a_name_too_long_for_a_common_name() -> None:
    name = ".".join(["a" * 40, "b" * 40, "example"])
    assert pki.run(["server", name]) == 0
    made = certificate(name)
    assert list(made.subject) == []
    assert extensions(made)["SubjectAlternativeName"] == (True, x509.SubjectAlternativeName([x509.DNSName(name)]))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("*.example.org", "_wildcard.example.org"),
        ("::1", "__1"),
        ("../../etc/passwd", "_.._.._etc_passwd"),
        (".hidden", "_.hidden"),
        ("-v", "_-v"),
        ("a,b:c;d=e!f $(g)\n", "a_b_c_d_e_f___g__"),
        ("anna@example.org", "anna@example.org"),
        ("\u00e4 \u5b57", "\u00e4_\u5b57"),
    ],
)
def test_file_names(name: str, stem: str) -> None:
    assert pki_files.file_name(name) == stem


def test_an_intermediate_authority_sends_its_chain() -> None:
    """Where ca.crt is no root: the leaf's file and the .p12 hold it too, but never the root above it."""
    assert pki.run(["ca", "--dir", "root", "--name", "Root"]) == 0
    root = certificate("root/ca")
    root_key = load_pem_private_key(Path("root/ca.key").read_bytes(), None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    key = certificate_authority.new_key(with_rsa=False)
    middle = certificate_authority.new_authority("Middle", key, 10).certificate
    builder = x509.CertificateBuilder(root.subject, middle.subject, middle.public_key(), 77)
    builder = builder.not_valid_before(moment(root, "not_valid_before"))
    builder = builder.not_valid_after(moment(root, "not_valid_after"))
    for kind in (x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier):
        extension = middle.extensions.get_extension_for_class(kind)
        builder = builder.add_extension(extension.value, extension.critical)
    middle = builder.sign(root_key, hashes.SHA256())
    Path("ca.crt").write_bytes(pki._pem(middle, root))
    Path("ca.key").write_bytes(pki._key_pem(key))
    Path("ca.key").chmod(0o600)
    Path("password").write_text("secret")
    assert pki.run(["server", "a"]) == pki.run(["client", "b", "--password-file", "password"]) == 0
    for name in ("a", "b"):
        leaf, *more = certificate_authority.load_certificates(Path(f"{name}.crt").read_bytes())
        assert leaf.issuer == middle.subject
        assert more == [middle]
    packed = pkcs12.load_pkcs12(Path("b.p12").read_bytes(), b"secret")
    assert [one.certificate for one in packed.additional_certs] == [middle]


# --- passwords ----------------------------------------------------------------------------------------


def test_password_of_the_authority(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("good").write_text("correct horse\nnot this line\n")
    Path("bad").write_text("wrong\n")
    assert pki.run(["ca", "--password-file", "good"]) == 0
    with pytest.raises(TypeError):
        load_pem_private_key(Path("ca.key").read_bytes(), None)
    load_pem_private_key(Path("ca.key").read_bytes(), b"correct horse")
    assert pki.run(["server", "a", "--ca-password-file", "good"]) == 0
    assert "the password is wrong" in refusal(capsys, "server", "b", "--ca-password-file", "bad")
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    asked = refusal(capsys, "server", "b")
    assert asked == "there is no terminal to ask for a password: --ca-password-file names a file"


@pytest.mark.usefixtures("authority")
def test_password_file_of_the_p12(capsys: pytest.CaptureFixture[str]) -> None:
    for number, text in enumerate((b"secret\r\n", b"secret", b" two words \n")):
        Path("password").write_bytes(text)
        capsys.readouterr()
        assert pki.run(["client", f"c{number}", "--password-file", "password"]) == 0
        assert "password" not in capsys.readouterr().out
        pkcs12.load_pkcs12(Path(f"c{number}.p12").read_bytes(), text.rstrip(b"\r\n"))
    for text, cause in (
        (b"", "password file password: is empty, or has more than 1023 bytes"),
        (b"\nsecret", "password file password: is empty, or has more than 1023 bytes"),
        (b"x" * 1024, "password file password: is empty, or has more than 1023 bytes"),
        (b"\xc3\xa4", "new.p12: the password must be ASCII, programs disagree about other letters"),
    ):
        Path("password").write_bytes(text)
        assert refusal(capsys, "client", "new", "--password-file", "password") == cause
    assert refusal(capsys, "client", "new", "--password-file", "none") == "none: no such file or directory"


def on_a_terminal(command: list[str], *answers: str) -> tuple[int, str]:
    """Run `uwsgi-tls pki ...` on a terminal of its own, answer its questions; returns its status and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "uwsgi_tls", "pki", *command])
    said = b""
    left = [*answers]
    guard = threading.Timer(60, os.kill, (pid, 9))
    guard.start()
    try:
        while True:
            try:
                data = os.read(terminal, 4096)
            except OSError:  # EIO: hung up
                break
            if not data:
                break
            said += data
            if left and said.endswith(b": "):
                os.write(terminal, left.pop(0).encode() + b"\n")
    finally:
        _, status = os.waitpid(pid, 0)
        guard.cancel()
        os.close(terminal)
    return os.waitstatus_to_exitcode(status), said.decode()


def test_passwords_from_a_terminal() -> None:
    status, said = on_a_terminal(["ca", "--ask-password"], "one", "two")
    assert (status, files()) == (1, set())
    assert said.endswith("uwsgi-tls pki: the two passwords differ\r\n")
    status, said = on_a_terminal(["ca", "--ask-password"], "first secret", "first secret")
    assert status == 0, said
    status, said = on_a_terminal(["client", "a", "--ask-password"], "first secret", "second", "second")
    assert status == 0, said
    assert "Password of ca.key: " in said
    assert "secret" not in said  # not echoed
    pkcs12.load_pkcs12(Path("a.p12").read_bytes(), b"second")
    status, said = on_a_terminal(["server", "b"], "\x04")  # Ctrl-D
    assert status == 1
    assert "Traceback" not in said


def test_ctrl_c_at_the_prompt() -> None:
    status, said = on_a_terminal(["ca", "--ask-password"], "\x03")
    assert status == cli.INTERRUPTED
    assert "Traceback" not in said
    assert files() == set()


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (NOT_ASCII, f"name {NOT_ASCII}: is not ASCII; write an international name in its xn-- form"),
        ("", "name : is neither a DNS name nor an IP address"),
        ("a..b", "name a..b: is neither a DNS name nor an IP address"),
        ("a.example.", "name a.example.: is neither a DNS name nor an IP address"),
        ("a.example:443", "name a.example:443: is neither a DNS name nor an IP address"),
        ("https://a.example", "name https://a.example: is neither a DNS name nor an IP address"),
        ("a b", "name a b: is neither a DNS name nor an IP address"),
        ("a\nb", "name a\\nb: is neither a DNS name nor an IP address"),
        ("a-.b", "name a-.b: is neither a DNS name nor an IP address"),
        ("x" * 64, f"name {'x' * 64}: is neither a DNS name nor an IP address"),
        (".".join(["x" * 63] * 4), f"name {'.'.join(['x' * 63] * 4)}: is neither a DNS name nor an IP address"),
        ("192.0.2.300", "name 192.0.2.300: is neither a DNS name nor an IP address"),
        ("192.0.2.0/24", "name 192.0.2.0/24: is neither a DNS name nor an IP address"),
        ("fe80::1%eth0", "name fe80::1%eth0: is neither a DNS name nor an IP address"),
        ("*", "name *: is neither a DNS name nor an IP address"),
        ("*.org", "name *.org: clients ignore a wildcard with fewer than two labels after it"),
        ("a.*.example.org", "name a.*.example.org: is neither a DNS name nor an IP address"),
        ("a*.example.org", "name a*.example.org: is neither a DNS name nor an IP address"),
    ],
)
@pytest.mark.usefixtures("authority")
def test_server_names_that_are_none(name: str, cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "server", "good.example", name) == cause


@pytest.mark.parametrize(
    "name", ["a", "my_container", "xn--bcher-kva.example", "1.example", "a.b.c.d.e", "*.a.example"]
)
def test_server_names(name: str) -> None:
    assert certificate_authority.server_name(name) == x509.DNSName(name)


@pytest.mark.usefixtures("authority")
def test_client_names_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("", "  ", "a\nb", "\udcff"):
        assert "is empty or has characters that cannot be printed" in refusal(capsys, "client", name)
    assert "has more than 64 characters" in refusal(capsys, "client", "x" * 65)
    for email in ("", "a", "a@", "a b@c", "a@b@c", "\u00e4@example.org"):
        assert "is not of the form USER@HOST" in refusal(capsys, "client", "x", "--email", email)


@pytest.mark.usefixtures("authority")
def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert pki.run(["client", "a"]) == 0
    before = {name: Path(name).read_bytes() for name in files()}
    said = "exists, and is not overwritten; move it away first"
    assert refusal(capsys, "ca") == f"ca.crt: {said}"
    assert refusal(capsys, "server", "a") == f"a.crt: {said}"
    assert refusal(capsys, "client", "a") == f"a.crt: {said}"
    assert refusal(capsys, "client", "ca") == f"ca.crt: {said}"
    assert {name: Path(name).read_bytes() for name in files()} == before
    Path("a.crt").unlink()
    Path("a.key").unlink()
    assert refusal(capsys, "client", "a") == f"a.p12: {said}"
    Path("b.key").symlink_to("elsewhere")
    assert refusal(capsys, "server", "b") == f"b.key: {said}"
    assert not Path("elsewhere").exists()


@pytest.mark.usefixtures("authority")
def test_a_file_that_appears_in_between(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody can put a link where a key is about to be."""
    Path("a.key").symlink_to("elsewhere")
    monkeypatch.setattr(pki, "refuse_to_overwrite", lambda *paths: None)
    assert refusal(capsys, "server", "a") == "a.key: exists, and is not overwritten; move it away first"
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device", "x.key"), KeyboardInterrupt()])
@pytest.mark.usefixtures("authority")
def test_a_full_disk_leaves_nothing(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.fsync
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise error
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    before = files()
    capsys.readouterr()
    assert cli.main(["pki", "server", "x"]) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert files() == before
    assert len(calls) == 2
    if isinstance(error, OSError):
        assert capsys.readouterr().err == "uwsgi-tls pki: x.key: no space left on device\n"


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ([], "the following arguments are required: COMMAND (uwsgi-tls pki --help)"),
        (["server"], "the following arguments are required: NAME (uwsgi-tls pki server --help)"),
        (["ca", "--days", "0"], "0 is not a number of days from 1 to 36500"),
        (["ca", "--days", "-1"], "-1 is not a number of days from 1 to 36500"),
        (["ca", "--days", "9" * 5000], "is not a number of days from 1 to 36500"),
        (["ca", "--days", "\u0663x"], "is not a number of days from 1 to 36500"),
        (["ca", "--nam", "x"], "unrecognized arguments: --nam x"),
        (["ca", "--password-file", "a", "--ask-password"], "not allowed with"),
        (["revoke", "a", "--reason", "certificateHold"], "invalid choice: 'certificateHold'"),
        (["forget"], "invalid choice: 'forget'"),
        (["ca", "--name", "x" * 65], "has more than 64 characters"),
        (["ca", "--dir", "none/such"], "none/such: no such file or directory"),
        (["server", "a"], "ca.crt: is not there; uwsgi-tls pki ca makes it"),
        (["revoke", "a", "--dir", "x"], "x/ca.crt: is not there; uwsgi-tls pki ca --dir x makes it"),
    ],
)
def test_mistakes(words: list[str], cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cause in refusal(capsys, *words)


def test_authorities_that_cannot_sign(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert pki.run(["ca"]) == pki.run(["ca", "--dir", "other"]) == pki.run(["server", "a"]) == 0
    good, good_key = Path("ca.crt").read_bytes(), Path("ca.key").read_bytes()

    def with_files(crt: bytes, key: bytes) -> str:
        Path("ca.crt").write_bytes(crt)
        Path("ca.key").write_bytes(key)
        return refusal(capsys, "server", "b")

    assert with_files(good, Path("other/ca.key").read_bytes()) == "ca.crt: does not match its key"
    leaf, leaf_key = Path("a.crt").read_bytes(), Path("a.key").read_bytes()
    assert with_files(leaf, leaf_key) == "ca.crt: is not the certificate of an authority (basicConstraints, keyUsage)"
    assert with_files(b"x", good_key) == "ca.crt: holds no certificate in PEM"
    damaged = good.replace(b"CERTIFICATE-----\nM", b"CERTIFICATE-----\nA")
    assert with_files(damaged, good_key) == "ca.crt: holds a damaged certificate"
    assert with_files(good, good) == "ca.key: the password is wrong, or the file is no private key in PEM"
    assert with_files(good, b"") == "CA key ca.key: is empty"
    Path("ca.key").unlink()
    assert refusal(capsys, "server", "b").startswith("CA key ca.key: no such file")

    long_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(days=40)
    monkeypatch.setattr(certificate_authority, "_now", lambda: long_ago)
    assert pki.run(["ca", "--dir", "old", "--days", "10"]) == 0
    ended = long_ago + timedelta(days=10)
    assert refusal(capsys, "server", "b", "--dir", "old") == f"old/ca.crt: has expired on {ended:%Y-%m-%d}"


@pytest.mark.usefixtures("authority")
def test_a_key_that_others_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    for bits, warned in ((0o600, False), (0o640, False), (0o644, True), (0o660, True)):
        Path("ca.key").chmod(bits)
        capsys.readouterr()
        assert pki.run(["server", f"m{bits}"]) == 0
        warning = f"uwsgi-tls pki: warning: ca.key is open to others (mode {bits:04o}); chmod 600\n"
        assert capsys.readouterr().err == (warning if warned else "")


# --- revocation ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("authority")
def test_revoke(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c", "d"):
        assert pki.run(["client", name]) == 0
    numbers = {name: certificate(name).serial_number for name in ("a", "b", "c", "d")}
    assert pki.run(["revoke", "a", "--reason", "keyCompromise"]) == 0
    assert revoked() == {numbers["a"]: "keyCompromise"}
    Path("elsewhere").mkdir()
    Path("b.crt").rename("elsewhere/b.pem")
    assert pki.run(["revoke", "elsewhere/b.pem"]) == 0
    assert pki.run(["revoke", f"{numbers['c']:040X}"]) == 0
    assert pki.run(["revoke", "d.crt", "--reason", "superseded"]) == 0
    assert pki.run(["revoke", "0x01"]) == 0  # such as openssl x509 -set_serial 01 makes
    everything = {
        numbers["a"]: "keyCompromise",
        numbers["b"]: "",
        numbers["c"]: "",
        numbers["d"]: "superseded",
        1: "",
    }
    assert revoked() == everything
    dates = [moment(entry, "revocation_date") for entry in revocations()]
    assert mode("ca.crl") == 0o644
    found = revocations()
    authority_key = certificate("ca").public_key()
    assert isinstance(authority_key, ec.EllipticCurvePublicKey)
    assert found.is_signature_valid(authority_key)
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 5
    found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)

    capsys.readouterr()
    assert pki.run(["revoke", "a", "--reason", "superseded"]) == 0
    assert capsys.readouterr().out.startswith(f"0x{numbers['a']:x} was revoked already on ")
    assert pki.run(["crl"]) == 0
    assert revoked() == everything
    assert [moment(entry, "revocation_date") for entry in revocations()] == dates
    assert certificate_authority.list_number(revocations()) == 7
    assert not [name for name in files() if name.startswith("ca.crl.")]


@pytest.mark.usefixtures("authority")
def test_life_of_the_list() -> None:
    def days() -> int:
        found = revocations()
        return (moment(found, "next_update") - moment(found, "last_update")).days

    assert pki.run(["crl"]) == 0
    assert days() == 30
    assert revoked() == {}
    assert certificate_authority.list_number(revocations()) == 1
    assert pki.run(["crl", "--days", "100"]) == 0
    assert pki.run(["revoke", "0x77"]) == 0
    assert certificate_authority.list_number(revocations()) == 3
    assert days() == 100  # it stays what was chosen once


@pytest.mark.usefixtures("authority")
def test_what_cannot_be_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert pki.run(["ca", "--dir", "other", "--name", "Our CA"]) == pki.run(["client", "--dir", "other", "x"]) == 0
    for word in ("anna", "abba", "0x", "0x0", "0x" + "f" * 40, "12", "other"):
        told = refusal(capsys, "revoke", word)
        assert told == f"{word}: is no certificate in ., no file, and no serial number (0x...)"
    assert refusal(capsys, "revoke", "other/x.crt") == "other/x.crt: was not issued by this authority"
    assert refusal(capsys, "revoke", "ca") == "ca.crt: was not issued by this authority"
    assert refusal(capsys, "revoke", "ca.key") == "ca.key: holds no certificate in PEM"


@pytest.mark.usefixtures("authority")
def test_a_list_that_is_not_ours_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert pki.run(["ca", "--dir", "other", "--name", "Our CA"]) == pki.run(["crl", "--dir", "other"]) == 0
    for data, cause in (
        (Path("other/ca.crl").read_bytes(), "ca.crl: is the revocation list of another authority"),
        (b"x", "ca.crl: is not a revocation list in PEM, or damaged"),
        (b"", "revocation list ca.crl: is empty"),
    ):
        Path("ca.crl").write_bytes(data)
        assert refusal(capsys, "revoke", "0x77") == cause
        assert Path("ca.crl").read_bytes() == data


@pytest.mark.usefixtures("authority")
def test_revocations_at_the_same_time_are_all_kept() -> None:
    commands = [
        [sys.executable, "-P", "-m", "uwsgi_tls", "pki", "revoke", f"0x{number:x}", "--reason", "superseded"]
        for number in range(1, 7)
    ]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait(60) for process in running] == [0] * 6
    assert sorted(revoked()) == [1, 2, 3, 4, 5, 6]


def test_lock_is_held() -> None:
    """While one holds it another waits: without that the test above would only seldom fail."""
    order = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with pki_files.locked(Path("key")):
            order.append("second")

    Path("key").touch()
    thread = threading.Thread(target=second)
    with pki_files.locked(Path("key")):
        thread.start()
        entered.wait(10)
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.usefixtures("authority")
def test_a_lock_that_is_not_given_back(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki_files, "LOCK_SECONDS", 0.2)
    with pki_files.locked(Path("ca.key")):
        assert refusal(capsys, "revoke", "0x77") == "ca.key: another process has held its lock for 0.2 seconds"
    assert pki.run(["revoke", "0x77"]) == 0


@pytest.mark.usefixtures("authority")
def test_nobody_but_the_owner_can_put_a_revocation_off() -> None:
    """What others may read they may lock, flock(2): the directory, the certificate, the list."""
    assert pki.run(["crl"]) == 0
    with contextlib.ExitStack() as stack:
        for path in (Path(), *Path().iterdir()):
            if path == Path() or mode(str(path)) & 0o077:
                descriptor = os.open(path, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        command = [sys.executable, "-P", "-m", "uwsgi_tls", "pki", "revoke", "0x77"]
        assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode == 0
    assert set(revoked()) == {0x77}


@pytest.mark.usefixtures("authority")
def test_a_list_that_is_a_link(capsys: pytest.CaptureFixture[str]) -> None:
    assert pki.run(["revoke", "0x77"]) == 0
    Path("www").mkdir()
    Path("ca.crl").rename("www/served.crl")
    Path("ca.crl").symlink_to("www/served.crl")
    assert pki.run(["revoke", "0x78"]) == 0
    assert Path("ca.crl").is_symlink()
    assert {path.name for path in Path("www").iterdir()} == {"served.crl"}
    assert set(revoked()) == {0x77, 0x78}
    Path("www/served.crl").rename("www/elsewhere.crl")
    assert refusal(capsys, "revoke", "0x79").startswith("revocation list ca.crl: no such file")
    assert refusal(capsys, "crl").startswith("revocation list ca.crl: no such file")
    assert {path.name for path in Path("www").iterdir()} == {"elsewhere.crl"}


@pytest.mark.usefixtures("authority")
def test_a_client_that_is_called_like_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    """Its name must not protect whose number it is."""
    assert pki.run(["client", "anna"]) == 0
    number = certificate("anna").serial_number
    text = f"{number:040x}"
    colons = ":".join(text[at : at + 2] for at in range(0, 40, 2))
    for name in (text, f"0x{text}", colons):
        assert pki.run(["client", name]) == 0
    told = refusal(capsys, "revoke", text)
    assert told == f"{text}: is a serial number and the file {text}.crt; write 0x{text} or {text}.crt"
    assert pki.run(["revoke", f"0x{text}"]) == 0
    assert set(revoked()) == {number}
    assert pki.run(["revoke", colons]) == 0
    assert set(revoked()) == {number}
    assert pki.run(["revoke", f"{text}.crt"]) == 0
    assert set(revoked()) == {number, certificate(text).serial_number}


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519", "ed448"])
def test_only_what_was_signed_is_revoked_by_its_file(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Issuer and key identifier are words that anybody can write."""
    makers: dict[str, Callable[[], certificate_authority.SigningKey]] = {
        "ec": lambda: certificate_authority.new_key(with_rsa=False),
        "rsa": lambda: certificate_authority.new_key(with_rsa=True),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ed448": ed448.Ed448PrivateKey.generate,
    }

    def signed(builder: x509.CertificateBuilder, key: certificate_authority.SigningKey) -> bytes:
        digest = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
        return builder.sign(key, digest).public_bytes(Encoding.PEM)

    key = makers[kind]()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
    now = datetime.now(UTC).replace(tzinfo=None)
    base = x509.CertificateBuilder().issuer_name(name).not_valid_before(now).not_valid_after(now + timedelta(days=9))
    base = base.public_key(key.public_key())
    root = base.subject_name(name).serial_number(7)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    Path("ca.crt").write_bytes(signed(root, key))
    Path("ca.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    Path("ca.key").chmod(0o600)
    assert pki.run(["client", "anna"]) == 0
    real = certificate("anna")
    forged = base.subject_name(real.subject).serial_number(real.serial_number)
    for extension in real.extensions:
        forged = forged.add_extension(extension.value, extension.critical)
    for stem, maker in makers.items():
        Path(f"{stem}.crt").write_bytes(signed(forged, maker()))
        assert refusal(capsys, "revoke", stem) == f"{stem}.crt: was not issued by this authority"
    assert pki.run(["revoke", "anna"]) == 0
    assert set(revoked()) == {real.serial_number}


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["pki", "--help"])
    assert end.value.code == 0
    assert "revoke" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert "uwsgi-tls pki --help" in capsys.readouterr().out
