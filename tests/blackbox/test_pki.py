"""`uwsgi-tls pki` as a person types it: OpenSSL, NSS (Firefox), GnuTLS and curl take what it makes, and so do we."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from .seed_pki import CA_PASSWORD, SeedPki
from .server import command, curl, is_root, loopback, uwsgi_tls

SERVER_NAME = "foobar.example"
SECONDS = 60


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",  # openssl shows a friendly name in Latin-1
        check=False,
        timeout=SECONDS,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def pki(line: str, directory: Path) -> str:
    """Type `uwsgi-tls pki` with the words of `line`; returns what it said."""
    answer = run(*command("pki", *shlex.split(line)), cwd=directory)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def next_commands(said: str) -> list[list[str]]:
    """The commands that it tells the person to type next."""
    return [shlex.split(line) for line in said.splitlines() if line.startswith("  ")]


def shown_password(said: str) -> str:
    (line,) = [line for line in said.splitlines() if line.startswith("the password of ")]
    return line.rpartition(" ")[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority, a server, three clients whose .p12 has the password `secret`; bob is revoked."""
    directory = tmp_path_factory.mktemp("made")
    (directory / "password").write_text("secret\n")
    pki("ca --name 'Our CA'", directory)
    pki(f"server {SERVER_NAME} '*.{SERVER_NAME}' 127.0.0.1 ::1", directory)
    pki("client 'anna müller' --email anna@example.org --password-file password", directory)
    pki("client bob --legacy --password-file password", directory)
    pki("client carl --rsa --password-file password", directory)
    pki("revoke bob --reason keyCompromise", directory)
    return directory


CLIENTS = {"anna_müller": True, "bob": False, "carl": True}  # whether it is still good


def test_openssl(made: Path) -> None:
    strict = ("openssl", "verify", "-x509_strict", "-CAfile", "ca.crt")
    server = ("-purpose", "sslserver", "-verify_hostname", f"a.{SERVER_NAME}", f"{SERVER_NAME}.crt")
    assert run(*strict, *server, cwd=made).returncode == 0
    assert run(*strict, "-verify_ip", "::1", f"{SERVER_NAME}.crt", cwd=made).returncode == 0
    assert run(*strict, "-purpose", "sslclient", f"{SERVER_NAME}.crt", cwd=made).returncode != 0
    for name, good in CLIENTS.items():
        answer = run(*strict, "-purpose", "sslclient", f"{name}.crt", cwd=made)
        assert answer.returncode == 0, answer.stdout
        assert run(*strict, "-purpose", "sslserver", f"{name}.crt", cwd=made).returncode != 0
        answer = run(*strict, "-crl_check", "-CRLfile", "ca.crl", f"{name}.crt", cwd=made)
        assert (answer.returncode == 0) == good, answer.stdout
        assert ("certificate revoked" in answer.stdout) == (not good)
        answer = run("openssl", "pkcs12", "-in", f"{name}.p12", "-passin", "file:password", "-nodes", cwd=made)
        assert answer.returncode == 0, answer.stdout
        key = run("openssl", "pkey", "-in", f"{name}.key", "-pubout", cwd=made).stdout
        assert run("openssl", "x509", "-in", f"{name}.crt", "-noout", "-pubkey", cwd=made).stdout == key
    assert "verify OK" in run("openssl", "crl", "-in", "ca.crl", "-CAfile", "ca.crt", "-noout", cwd=made).stdout


def test_nss(made: Path, tmp_path: Path) -> None:
    """The library of Firefox, and of Chrome on Linux."""
    database = f"sql:{tmp_path}"

    def nss(*words: str) -> str:
        answer = run(words[0], "-d", database, *words[1:], cwd=made)
        assert answer.returncode == 0, answer.stdout
        return answer.stdout

    def opinion(name: str, usage: str) -> str:
        return run("certutil", "-d", database, "-V", "-e", "-u", usage, "-n", name, cwd=made).stdout

    nss("certutil", "-N", "--empty-password")
    nss("certutil", "-A", "-n", "ca", "-t", "CT,,", "-i", "ca.crt")
    nss("certutil", "-A", "-n", "server", "-t", ",,", "-i", f"{SERVER_NAME}.crt")
    for name in CLIENTS:
        nss("pk12util", "-i", f"{name}.p12", "-w", "password", "-K", "")
    valid = "certificate is valid"
    assert valid in opinion("server", "V")
    for name in CLIENTS:
        assert valid in opinion(name.replace("_", " "), "C")
    assert run("openssl", "crl", "-in", "ca.crl", "-outform", "DER", "-out", tmp_path / "crl", cwd=made).returncode == 0
    nss("crlutil", "-I", "-i", str(tmp_path / "crl"))
    for name, good in CLIENTS.items():
        assert (valid if good else "has been revoked") in opinion(name.replace("_", " "), "C")


def test_gnutls(made: Path) -> None:
    verify = ("certtool", "--verify-profile", "medium", "--verify", "--load-ca-certificate", "ca.crt")
    server = ("--verify-purpose", "1.3.6.1.5.5.7.3.1", "--verify-hostname", SERVER_NAME)
    answer = run(*verify, *server, "--infile", f"{SERVER_NAME}.crt", cwd=made)
    assert answer.returncode == 0, answer.stdout
    for name, good in CLIENTS.items():
        client = ("--verify-purpose", "1.3.6.1.5.5.7.3.2", "--load-crl", "ca.crl", "--infile", f"{name}.crt")
        answer = run(*verify, *client, cwd=made)
        assert (answer.returncode == 0) == good, answer.stdout
        answer = run("certtool", "--p12-info", "--inder", "--infile", f"{name}.p12", "--password", "secret", cwd=made)
        assert answer.returncode == 0, answer.stdout
        assert "-----BEGIN CERTIFICATE-----" in answer.stdout


@pytest.mark.parametrize("more", ["", " --rsa"])
def test_what_it_says_next_works(tmp_path: Path, more: str) -> None:
    """From nothing to a server that only lets clients of ours in, with the commands as they are printed."""
    host = loopback()
    (pki_server,) = next_commands(pki("ca" + more, tmp_path))
    assert pki_server == ["uwsgi-tls", "pki", "server", "NAME..."]
    open_to_all, clients_only = next_commands(pki(f"server {SERVER_NAME}{more}", tmp_path))
    for name in ("alice", "bob"):
        said = pki(f"client {name}{more}", tmp_path)
    ((_, *curl_options, _),) = next_commands(said)
    url = f"https://{SERVER_NAME}:8443/"

    def ask(*options: str) -> subprocess.CompletedProcess[str]:
        return curl(url, *[str(tmp_path / word) if (tmp_path / word).exists() else word for word in options], host=host)

    def server_arguments(line: list[str]) -> list[str]:
        return [word.replace(":8443", f"{host}:8443") for word in line[1:]]

    with uwsgi_tls(*server_arguments(clients_only), cwd=tmp_path) as server:
        server.wait_for_workers()
        answer = ask(*curl_options)
        assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"
        assert "bob" in answer.stdout
        p12 = f"{tmp_path}/bob.p12:{shown_password(said)}"
        answer = ask("--cacert", "ca.crt", "--cert-type", "P12", "--cert", p12)
        assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"
        assert "bob" in answer.stdout
        assert ask("--cacert", "ca.crt").returncode in (35, 56)  # handshake failed; TLS 1.3: at the first read
        server.wait_for_line("sent no certificate, and one is required", seconds=5)
        crt, key = f"{SERVER_NAME}.crt", f"{SERVER_NAME}.key"
        assert ask("--cacert", "ca.crt", "--cert", crt, "--key", key).returncode in (35, 56)  # not for clients
        assert ask(*curl_options).returncode == 0
    with uwsgi_tls(*server_arguments(open_to_all), cwd=tmp_path) as server:
        server.wait_for_workers()
        assert ask("--cacert", "ca.crt").returncode == 0


def test_revoked_client_is_refused(made: Path) -> None:
    """The server takes our list as it is."""
    host = loopback()
    https = f"{host}:8443,{SERVER_NAME}.crt,{SERVER_NAME}.key,,!ca.crt"
    with uwsgi_tls("--https", https, "--ssl-crl", "ca.crl", cwd=made) as server:
        server.wait_for_workers()
        for name, good in CLIENTS.items():
            options = ("--cacert", "ca.crt", "--cert", f"{name}.crt", "--key", f"{name}.key")
            paths = [str(made / word) if "." in word else word for word in options]
            answer = curl(f"https://{SERVER_NAME}:8443/", *paths, host=host)
            assert answer.returncode in ((0,) if good else (35, 56)), f"{name} {answer.stderr}\n{server.log}"
        server.wait_for_line("revoked", seconds=5)


def test_authority_of_openssl(pki: SeedPki, tmp_path: Path) -> None:
    """One that was made with the seed page's commands, password and all, goes on with ours."""
    for name in ("ca.crt", "ca.key", "client.crt"):
        shutil.copy(pki.directory / name, tmp_path)
    (tmp_path / "password").write_text(CA_PASSWORD)
    for words in (
        ("server", SERVER_NAME),
        ("client", "anna"),
        ("revoke", "client"),
        ("revoke", "anna"),
    ):
        answer = run(*command("pki", *words, "--ca-password-file", "password"), cwd=tmp_path)
        assert answer.returncode == 0, answer.stdout
    verify = ("openssl", "verify", "-CAfile", "ca.crt", "-crl_check", "-CRLfile", "ca.crl")
    assert run(*verify, f"{SERVER_NAME}.crt", cwd=tmp_path).returncode == 0
    for name in ("client", "anna"):
        assert "certificate revoked" in run(*verify, f"{name}.crt", cwd=tmp_path).stdout
    answer = run(*command("pki", "crl"), cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (
        1,
        "uwsgi-tls pki: there is no terminal to ask for a password: --ca-password-file names a file\n",
    )


@pytest.mark.skipif(not is_root, reason="becomes another user")
def test_without_rights(public_directory: Path) -> None:
    """Another user gets one line, and makes nothing."""
    words = command("pki", "ca", "--dir", public_directory)
    answer = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words, cwd=public_directory)
    assert (answer.returncode, answer.stdout) == (1, f"uwsgi-tls pki: {public_directory}/ca.crt: permission denied\n")
    assert list(public_directory.iterdir()) == []
