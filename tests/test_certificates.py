"""certificates.py: each way in which a certificate, key or CA file can be wrong has its own words."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from pki import Issued, Key, Pki, common_name, issue, key_pem, name, write_secret

from uwsgi_tls import certificates
from uwsgi_tls.certificates import CertificateInfo, load
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener, SniSite, parse_https

IS_ROOT = os.geteuid() == 0


def option(certificate: str, key: str, client_ca: str = "", required: bool = False) -> HttpsListener:
    text = f"127.0.0.1:443,{certificate},{key}"
    return replace(parse_https(text), client_ca=client_ca, client_required=required, where="site.ini:4")


def info(listener: HttpsListener) -> CertificateInfo:
    (credential,) = load(listener).credentials
    return credential.info


def cause(listener: HttpsListener) -> str:
    with pytest.raises(ConfigError) as caught:
        load(listener)
    assert (caught.value.option, caught.value.value, caught.value.where) == ("https", listener.text, "site.ini:4")
    assert "\n" not in str(caught.value)
    return caught.value.cause


# What is good


def test_what_the_files_hold(lab: Pki) -> None:
    material = load(option(lab.server.crt, lab.server.key_file, lab.ca_bundle, required=True))
    (credential,) = material.credentials
    found = credential.info
    assert (found.file, found.subject) == (lab.server.crt, "CN=server.lab")
    assert found.names == ("localhost", "server.lab", "127.0.0.1", "::1")
    assert timedelta(days=364) < found.not_after - datetime.now(UTC) < timedelta(days=366)
    assert (found.key_kind, found.chain_length, material.warnings) == ("RSA 2048", 1, ())
    assert credential.chain.decode("ascii") == lab.server.pem
    assert material.client_cas == Path(lab.ca_bundle).read_bytes()


def test_without_client_ca_and_without_names(lab: Pki) -> None:
    below = lab.clients_below[2]
    material = load(option(below.crt, below.key_file))
    found = material.credentials[0].info
    assert (found.names, found.chain_length, found.key_kind) == ((), 3, "EC secp256r1")
    assert material.client_cas == b""
    assert material.credentials[0].chain == Path(below.crt).read_bytes()


def test_certificate_and_key_in_one_file_in_any_order(lab: Pki, tmp_path: Path) -> None:
    crt, key = Path(lab.server.crt).read_bytes(), Path(lab.server.key_file).read_bytes()
    for number, content in enumerate((crt + key, key + crt, b"Bag Attributes\n    name: x\n" + key + b"text\n" + crt)):
        both = tmp_path / f"{number}.pem"
        write_secret(both, content)
        assert info(option(str(both), str(both))).key_kind == "RSA 2048"


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_both_forms_of_pem_keys(form: serialization.PrivateFormat, lab: Pki, tmp_path: Path) -> None:
    for server in (lab.server, lab.server_ec):
        write_secret(tmp_path / "x.key", key_pem(server.key, form=form).replace(b"\n", b"\r\n"))
        assert info(option(server.crt, str(tmp_path / "x.key"))).names[0] == "localhost"


def test_a_key_as_openssl_ecparam_writes_it(tmp_path: Path) -> None:
    """The page's readers make EC keys so: an EC PARAMETERS block stands before the key."""
    key, crt = str(tmp_path / "x.key"), str(tmp_path / "x.crt")
    subprocess.run(["openssl", "ecparam", "-name", "secp384r1", "-genkey", "-out", key], check=True)
    subprocess.run(["openssl", "req", "-x509", "-key", key, "-subj", "/CN=x", "-days", "30", "-out", crt], check=True)
    assert "EC PARAMETERS" in Path(key).read_text()
    os.chmod(key, 0o600)
    found = info(option(crt, key))
    assert (found.key_kind, found.subject) == ("EC secp384r1", "CN=x")


@pytest.mark.parametrize("kind", ["Ed25519", "Ed448"])
def test_edwards_curves(kind: str, tmp_path: Path) -> None:
    key, crt = str(tmp_path / "x.key"), str(tmp_path / "x.crt")
    command = ["openssl", "req", "-x509", "-newkey", kind, "-noenc", "-keyout", key, "-out", crt, "-subj", "/CN=x"]
    subprocess.run(command, check=True, capture_output=True)
    assert info(option(crt, key)).key_kind == kind


# Warnings


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ((-30, -1), "has expired on "),
        ((-90, 20), "expires on "),
        ((-5, 1), "expires on "),
        ((2, 90), "is valid only from "),
        ((2, 8), "is valid only from "),
    ],
)
def test_validity_is_a_warning(days: tuple[float, float], words: str, tmp_path: Path) -> None:
    server = issue(tmp_path, "x", common_name("x"), days=days)
    (warning,) = load(option(server.crt, server.key_file)).warnings
    assert warning.startswith(f"certificate {server.crt}: {words}")


@pytest.mark.parametrize("days", [(-1, 5), (-4, 2), (-30, 15), (-50, 20)])
def test_one_that_lives_short_is_not_always_about_to_end(days: tuple[float, float], tmp_path: Path) -> None:
    server = issue(tmp_path, "x", common_name("x"), days=days)
    found = load(option(server.crt, server.key_file))
    assert found.warnings == ()
    (credential,) = found.credentials
    life = timedelta(days=days[1] - days[0])
    assert credential.info.expiry_warning == credential.info.not_after - life / 4


def sni(option: str, name: str, issued: Issued) -> SniSite:
    return SniSite(names=(name,), certificates=((issued.crt, issued.key_file),), option=option, text="x")


def self_signed(directory: Path, cn: str, *sans: str) -> Issued:
    """As `openssl req -x509` makes it, which calls everything an authority."""
    return issue(directory, cn, common_name(cn), authority=True, sans=[x509.DNSName(san) for san in sans])


NOT_A_SERVERS = "is a CA's certificate, not a server's"


def test_the_certificate_of_a_ca_is_no_servers(lab: Pki, tmp_path: Path) -> None:
    """A directory of `pki` that is taken for that of the names would serve with the CA's key."""
    below = issue(tmp_path, "below.lab", common_name("below.lab"), lab.ca, authority=True)
    for one, called in ((lab.ca, "ca"), (below, "below.lab"), (self_signed(tmp_path, "other.lab"), "a.lab")):
        read: list[str] = []

        def reader(path: str, what: str, read: list[str] = read) -> bytearray:
            read.append(path)
            return certificates.read_file(path, what)

        with pytest.raises(ConfigError) as caught:
            load(sni("sni-dir", called, one), reader)
        assert caught.value.cause == f"certificate {one.crt}: {NOT_A_SERVERS}; keep it elsewhere"
        assert read == [one.crt]
        assert f"certificate {one.crt}: {NOT_A_SERVERS}" in load(sni("sni", called, one)).warnings
    for one in (lab.ca, below):
        assert f"certificate {one.crt}: {NOT_A_SERVERS}" in load(option(one.crt, one.key_file)).warnings


def test_a_self_signed_certificate_is_a_servers_of_its_own_name(tmp_path: Path) -> None:
    for number, (one, called) in enumerate(
        [
            (self_signed(tmp_path, "a.lab", "A.lab"), "a.lab"),
            (self_signed(tmp_path, "whatever", "*.b.lab"), "*.b.lab"),
            (self_signed(tmp_path, "any", "*.b.lab"), "x.b.lab"),
            (self_signed(tmp_path, "C.lab"), "c.lab"),
        ]
    ):
        for site in (sni("sni-dir", called, one), sni("sni", called, one), option(one.crt, one.key_file)):
            said = [line for line in load(site).warnings if NOT_A_SERVERS in line]
            # For a listener there is no name to compare with, so that one without any may as well be an authority.
            assert len(said) == (number == 3 and isinstance(site, HttpsListener))


def test_an_expired_client_ca_is_a_warning(lab: Pki, tmp_path: Path) -> None:
    old = issue(tmp_path, "old", common_name("Old CA"), authority=True, days=(-30, -1))
    bundle = tmp_path / "bundle.crt"
    bundle.write_text(lab.ca.pem + old.pem)
    (warning,) = load(option(lab.server.crt, lab.server.key_file, str(bundle))).warnings
    assert warning == f"client CA {bundle}: certificate 2 of 2 has expired"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o600, ""),
        (0o400, ""),
        (0o640, ""),  # Debian's group ssl-cert
        (0o644, "is readable by every user (mode 0644); chmod 600"),
        (0o604, "is readable by every user (mode 0604); chmod 600"),
        (0o660, "is writable by others (mode 0660); chmod 600"),
        (0o602, "is writable by others (mode 0602); chmod 600"),
    ],
)
def test_a_key_that_others_can_read(mode: int, words: str, lab: Pki, tmp_path: Path) -> None:
    key = tmp_path / "x.key"
    write_secret(key, key_pem(lab.server.key))
    key.chmod(mode)
    expected = (f"key {key}: {words}",) if words else ()
    assert load(option(lab.server.crt, str(key), lab.ca.crt)).warnings == expected


# Files that cannot be read


def missing(path: Path) -> str:
    return "no such file"


def directory(path: Path) -> str:
    path.mkdir()
    return "is a directory"


def fifo(path: Path) -> str:
    os.mkfifo(path)  # opening one waits for a writer
    return "is not a regular file"


def empty(path: Path) -> str:
    path.write_text(" \n")
    return "is empty"


def huge(path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(certificates.FILE_BYTES_MAX + 1)
    return "has more than 16777216 bytes"


@pytest.mark.parametrize("make", [missing, directory, fifo, empty, huge])
@pytest.mark.parametrize("which", ["certificate", "key", "client CA"])
def test_a_file_that_cannot_be_read(make: Callable[[Path], str], which: str, lab: Pki, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    expected = make(bad)
    files = {"certificate": lab.server.crt, "key": lab.server.key_file, "client CA": lab.ca.crt} | {which: str(bad)}
    found = cause(option(files["certificate"], files["key"], files["client CA"]))
    assert found.startswith(f"{which} {bad}: {expected}")


@pytest.mark.parametrize("which", ["certificate", "key"])
def test_permission_denied_says_to_whom(which: str, lab: Pki) -> None:
    bad = lab.directory / "unreadable.pem"  # www-data could enter that directory
    bad.touch()
    bad.chmod(0)
    files = {"certificate": lab.server.crt, "key": lab.server.key_file} | {which: str(bad)}
    uid = 33 if IS_ROOT else os.geteuid()
    os.seteuid(uid)
    try:
        found = cause(option(files["certificate"], files["key"]))
    finally:
        os.seteuid(os.getuid())
    assert found == f"{which} {bad}: permission denied (read as uid {uid})"


def test_a_relative_path_is_missing_somewhere(lab: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cause(option("x.crt", lab.server.key_file)) == f"certificate x.crt: no such file (in {tmp_path})"


def test_a_nul_in_a_path(lab: Pki) -> None:
    assert "embedded null byte" in cause(option(lab.server.crt, "x\0.key"))


@pytest.mark.skipif(not IS_ROOT, reason="a file of root's needs root to make it")
def test_root_reads_its_own_0600_key(lab: Pki) -> None:
    status = os.stat(lab.server.key_file)
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
    assert load(option(lab.server.crt, lab.server.key_file, lab.ca.crt)).warnings == ()


# Files with the wrong things in them


def der(lab: Pki) -> bytes:
    return lab.server.der


def cut_off(lab: Pki) -> bytes:
    return lab.server.pem.encode()[:300]


def scrambled(lab: Pki) -> bytes:
    return (lab.ca.pem + lab.server.pem.replace("MII", "AAA", 1)).encode()


def encrypted_block(lab: Pki) -> bytes:
    """RFC 1421 allows it, and OpenSSL would ask the terminal for the passphrase."""
    head = "-----BEGIN CERTIFICATE-----\n"
    secret = head + "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n"
    return lab.server.pem.replace(head, secret).encode()


def a_key(lab: Pki) -> bytes:
    return key_pem(lab.server.key)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda lab: b"<html>404</html>", "is not PEM"),
        (der, "is not PEM but looks like DER; convert it with openssl"),
        (a_key, "holds no certificate but PRIVATE KEY"),
        (cut_off, "its certificate is cut off"),
        (scrambled, "certificate 2 of 2 is damaged"),
        (encrypted_block, "certificate 1 of 1 is damaged"),
    ],
)
@pytest.mark.parametrize("which", ["certificate", "client CA"])
def test_not_a_certificate(content: Callable[[Pki], bytes], words: str, which: str, lab: Pki, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_bytes(content(lab))
    files = {"certificate": lab.server.crt, "client CA": lab.ca.crt} | {which: str(bad)}
    found = cause(option(files["certificate"], lab.server.key_file, files["client CA"]))
    assert found == f"{which} {bad}: {words}"


def openssh(lab: Pki) -> bytes:
    return key_pem(lab.server_ec.key, form=serialization.PrivateFormat.OpenSSH)


def key_der(lab: Pki) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return lab.server.key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


def public_key(lab: Pki) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return lab.server.key.public_key().public_bytes(serialization.Encoding.PEM, form)


ENCRYPTED = "the key is encrypted; its passphrase is given by ssl-key-password-file or -command"
DAMAGED = "the private key is damaged or of an unknown kind"
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda lab: b"secret", "is not PEM"),
        (key_der, "is not PEM but looks like DER; convert it with openssl"),
        (lambda lab: lab.server.pem.encode(), "holds no private key but CERTIFICATE"),
        (public_key, "holds no private key but PUBLIC KEY"),
        (lambda lab: key_pem(lab.server.key)[:400], "its private key is cut off"),
        (lambda lab: key_pem(lab.server.key).replace(b"MII", b"AAA", 1), DAMAGED),
        (lambda lab: key_pem(lab.server.key).replace(b" PRIVATE", b" QUANTUM PRIVATE"), DAMAGED),
        (openssh, "is in OpenSSH's own format; ssh-keygen -p -m PEM converts it"),
        (lambda lab: key_pem(lab.server.key, b"secret"), ENCRYPTED),
        (lambda lab: key_pem(lab.server.key, b"secret", TRADITIONAL), ENCRYPTED),
        (lambda lab: key_pem(lab.server_ec.key, b"secret", TRADITIONAL), ENCRYPTED),
    ],
)
def test_not_a_usable_key(content: Callable[[Pki], bytes], words: str, lab: Pki, tmp_path: Path) -> None:
    bad = tmp_path / "bad.key"
    write_secret(bad, content(lab))
    assert cause(option(lab.server.crt, str(bad))) == f"key {bad}: {words}"


def test_a_key_of_another_certificate(lab: Pki) -> None:
    for server, other in ((lab.server, lab.server_ec), (lab.server_ec, lab.server), (lab.server_ec, lab.client)):
        assert cause(option(server.crt, other.key_file)) == (
            f"key {other.key_file}: does not match certificate {server.crt}: it is the key of another certificate"
        )


def test_a_chain_in_the_wrong_order(lab: Pki, tmp_path: Path) -> None:
    below = lab.clients_below[1]
    crt = tmp_path / "x.crt"
    parts = [each.public_bytes(serialization.Encoding.PEM) for each in below.chain]
    crt.write_bytes(b"".join(reversed(parts)))
    assert cause(option(str(crt), below.key_file)).endswith(
        "certificate 2 of 2 matches it; the server's own must stand first"
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024), "RSA 1024 is too weak, 2048 bits"),
        (lambda: ec.generate_private_key(ec.SECP224R1()), "EC secp224r1 is too weak, 256 bits"),
    ],
)
def test_a_weak_key(make: Callable[[], Key], words: str, tmp_path: Path) -> None:
    server = issue(tmp_path, "x", common_name("x"), key=make())
    assert cause(option(server.crt, server.key_file)).startswith(f"key {server.key_file}: {words}")


def test_a_kind_of_key_that_tls_has_not(tmp_path: Path) -> None:
    key, crt = str(tmp_path / "x.key"), str(tmp_path / "x.crt")
    parameters = str(tmp_path / "dsa.pem")
    subprocess.run(["openssl", "genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:1024",
                    "-out", parameters], check=True, capture_output=True)  # fmt: skip
    subprocess.run(["openssl", "genpkey", "-paramfile", parameters, "-out", key], check=True, capture_output=True)
    subprocess.run(["openssl", "req", "-x509", "-key", key, "-subj", "/CN=x", "-out", crt], check=True)
    assert cause(option(crt, key)) == f"key {key}: is of a kind that TLS has no use for; make an RSA or EC key"


def test_required_without_a_ca_fails_closed(lab: Pki) -> None:
    assert "required, but no client CA" in cause(option(lab.server.crt, lab.server.key_file, required=True))


# The key is a secret, and nobody is asked for one


@pytest.mark.parametrize("which", ["certificate", "key", "traditional key"])
def test_what_is_encrypted_asks_nobody(which: str, lab: Pki, tmp_path: Path) -> None:
    """With a terminal at hand: OpenSSL would wait there for the passphrase."""
    key, crt = tmp_path / "x.key", tmp_path / "x.crt"
    write_secret(key, key_pem(lab.server.key, b"secret", TRADITIONAL if which == "traditional key" else None))
    crt.write_bytes(encrypted_block(lab) if which == "certificate" else lab.server.pem.encode())
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from uwsgi_tls.certificates import load\n"
        "from uwsgi_tls.https_option import parse_https\n"
        "try: load(parse_https(f'127.0.0.1:443,{sys.argv[1]},{sys.argv[2]}'))\n"
        "except Exception as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(crt), str(key), str(Path(__file__).parent.parent)]
    primary, secondary = os.openpty()
    with open(primary, "rb", buffering=0), open(secondary, "rb+", buffering=0) as terminal:
        done = subprocess.run(
            command, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, text=True,
            start_new_session=True, timeout=20, check=True,
        )  # fmt: skip
    assert ("certificate 1 of 1 is damaged" if which == "certificate" else ENCRYPTED) in done.stdout


def test_the_bytes_of_the_files_are_wiped(lab: Pki) -> None:
    seen: list[bytearray] = []

    def watched(path: str, what: str) -> bytearray:
        data = certificates.read_file(path, what)
        seen.append(data)
        return data

    load(option(lab.server.crt, lab.server.key_file, lab.ca.crt), watched)
    assert [any(data) for data in seen] == [False, False, False]  # nothing but zero bytes


def test_everything_is_read_through_the_reader(lab: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may be the one that can open the files."""
    files = {"crt": lab.server.crt, "key": lab.server.key_file, "ca": lab.ca.crt}

    def read(path: str, what: str) -> bytearray:
        return bytearray(Path(files[path]).read_bytes())

    material = load(option("crt", "key", "ca"), read)
    assert (material.credentials[0].info.subject, material.client_cas.decode()) == ("CN=server.lab", lab.ca.pem)

    def refuse(path: str, what: str) -> bytearray:
        raise certificates.BadFile(f"{what} {path}: not today")

    with pytest.raises(ConfigError, match="certificate crt: not today"):
        load(option("crt", "key"), refuse)


def test_one_certificate_for_each_kind_of_key(lab: Pki) -> None:
    pair = replace(
        option("a", "b"),
        certificates=((lab.server.crt, lab.server.key_file), (lab.server_ec.crt, lab.server_ec.key_file)),
    )
    assert [each.info.key_kind for each in load(pair).credentials] == ["RSA 2048", "EC secp256r1"]
    twice = replace(pair, certificates=(*pair.certificates, (lab.client.crt, lab.client.key_file)))
    assert (
        cause(twice)
        == f"certificate {lab.client.crt}: its key is EC, as that of {lab.server_ec.crt}; give one of a kind"
    )


def test_no_message_holds_a_piece_of_the_key(lab: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = key_pem(lab.server.key).splitlines()[1:-1]
    for content in (
        b"\n".join(body),
        key_pem(lab.server.key)[:-40],
        key_pem(lab.server.key).replace(b"MII", b"AAA", 1),
    ):
        write_secret(tmp_path / "x.key", content)
        with pytest.raises(ConfigError) as caught:
            load(option(lab.server.crt, str(tmp_path / "x.key")))
        shown = repr(caught.value) + str(caught.value.__cause__) + caplog.text
        assert not any(line.decode() in shown for line in body)


def test_names_are_what_the_certificate_says(tmp_path: Path) -> None:
    subject = name((NameOID.COUNTRY_NAME, "IT"), (NameOID.COMMON_NAME, "a+b, Zoë"))
    sans = [x509.DNSName("*.example.com"), x509.RFC822Name("c@lab")]
    server: Issued = issue(tmp_path, "x", subject, sans=sans)
    found = info(option(server.crt, server.key_file))
    assert (found.subject, found.names) == ("CN=a\\+b\\, Zoë,C=IT", ("*.example.com",))
