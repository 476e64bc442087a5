"""uWSGI's page on HTTPS support, example by example, against the real server, a real uWSGI and curl.

The inis are the page's, letter by letter, but for the addresses: 0.0.0.0 becomes a loopback address, /tmp/uwsgi.sock a
socket of the test's own. Where the page says `roberto`, www-data stands, whom every Debian has.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .seed_pki import SERVER_NAME, SeedPki
from .server import Daemon, curl, is_root, loopback, open_directory, real_uwsgi, uwsgi_tls

needs_root = pytest.mark.skipif(not is_root, reason="port 443 and a user to become need root")

USER = "www-data"
DN = "/C=IT/ST=Lazio/L=Roma/O=Lab/CN=Client 01/emailAddress=client@example.org"

APPLICATION = """
import json

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()]
"""

INI_CIPHERS = """
[uwsgi]
master = true
shared-socket = 0.0.0.0:443
uid = www-data
gid = www-data

https = =0,foobar.crt,foobar.key,HIGH
http-to = /tmp/uwsgi.sock
"""

INI_MANDATORY = """
  [uwsgi]
  master = true
  shared-socket = 0.0.0.0:443
  uid = www-data
  gid = www-data
  https = =0,foobar.crt,foobar.key,HIGH,!ca.crt
  http-to = /tmp/uwsgi.sock
"""

# "If you don't want the client certificate authentication to be mandatory, remove the '!' before ca.crt"
INI_OPTIONAL = INI_MANDATORY.replace("!ca.crt", "ca.crt")


@pytest.fixture(scope="module")
def backend() -> Iterator[Path]:
    """The UNIX socket of a real uWSGI whose application answers with what it was told about the request."""
    with open_directory() as directory:
        application = directory / "echo.py"
        application.write_text(APPLICATION)
        path = directory / "uwsgi.sock"
        with real_uwsgi(application, str(path)):
            yield path


def start_ini(text: str, host: str, backend: Path, pki: SeedPki) -> Daemon:
    """The server on one of the page's inis, in the directory of the certificates, as root."""
    ini = backend.with_name("page.ini")
    ini.write_text(text.replace("0.0.0.0", host).replace("/tmp/uwsgi.sock", str(backend)))
    return uwsgi_tls(ini, cwd=pki.directory)


def assert_serves(server: Daemon, host: str, pki: SeedPki, *options: str) -> dict[str, str]:
    """curl gets an answer with these options; returns what the application saw."""
    answer = curl(f"https://{SERVER_NAME}/a%20b?x=1", *pki.curl_server, *options, host=host)
    assert answer.returncode == 0, f"{answer.stderr}\n{server.log}"
    seen: dict[str, str] = json.loads(answer.stdout)
    assert seen["HTTPS"] == "on"
    assert seen["wsgi.url_scheme"] == "https"
    assert seen["PATH_INFO"] == "/a b"
    assert seen["SERVER_PORT"] == "443"
    return seen


def assert_refuses(server: Daemon, host: str, pki: SeedPki, reason: str, *options: str) -> None:
    """curl gets nothing with these options, and the log says that it was the certificate."""
    answer = curl(f"https://{SERVER_NAME}/refused", *pki.curl_server, *options, host=host)
    assert answer.returncode in (35, 56), f"{answer}\n{server.log}"  # handshake failed; TLS 1.3: at the first read
    assert answer.stdout == ""
    server.wait_for_line(reason, seconds=5)
    assert "GET /refused" not in server.log


# --- without privileges -----------------------------------------------------------------------


def test_first_example(self_signed: SeedPki) -> None:
    """uwsgi --master --https 0.0.0.0:8443,foobar.crt,foobar.key"""
    host = loopback()
    with uwsgi_tls("--master", "--https", f"{host}:8443,foobar.crt,foobar.key", cwd=self_signed.directory) as server:
        server.wait_for_workers()
        answer = curl(f"https://{SERVER_NAME}:8443/", *self_signed.curl_server, host=host)
    assert answer.returncode == 0, answer.stderr
    assert "TLSv1.3" in answer.stdout  # the built-in page says what was negotiated


# --- port 443, as root, with a drop -----------------------------------------------------------


@needs_root
def test_key_is_for_root_alone(pki: SeedPki, self_signed: SeedPki) -> None:
    """What the other tests rely on: the user that the server becomes can read neither of the keys."""
    for key in (pki.key, self_signed.key):
        assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (0, 0o600)


@needs_root
def test_shared_socket_and_drop(self_signed: SeedPki) -> None:
    """uwsgi --shared-socket 0.0.0.0:443 --uid roberto --gid roberto --https =0,foobar.crt,foobar.key"""
    host = loopback()
    arguments = ["--shared-socket", f"{host}:443", "--uid", USER, "--gid", USER, "--https", "=0,foobar.crt,foobar.key"]
    with uwsgi_tls(*arguments, cwd=self_signed.directory) as server:
        server.wait_for_workers()
        answer = curl(f"https://{SERVER_NAME}/", *self_signed.curl_server, host=host)
        assert answer.returncode == 0, answer.stderr
        for process in server.tree():
            uids = process.status()["Uid"].split()
            # A monitor that stays root for reloads would be the one exception, and it says so in its title.
            assert uids == ["33"] * 4 or "monitor" in process.title(), process.status()


@needs_root
def test_ini_with_ciphers(backend: Path, pki: SeedPki) -> None:
    host = loopback()
    with start_ini(INI_CIPHERS, host, backend, pki) as server:
        server.wait_for_workers()
        seen = assert_serves(server, host, pki)
        assert "HTTPS_DN" not in seen
        # HIGH has RSA key exchange, which our own list has not: the option is really used,
        assert_serves(server, host, pki, "--tls-max", "1.2", "--ciphers", "AES256-GCM-SHA384")
        # but it never means the suites without authentication that OpenSSL counts as HIGH,
        answer = curl(
            f"https://{SERVER_NAME}/",
            *pki.curl_server,
            "--tls-max",
            "1.2",
            "--ciphers",
            "AECDH-AES256-SHA@SECLEVEL=0",
            host=host,
        )
        assert answer.returncode == 35, f"{answer}\n{server.log}"
    with uwsgi_tls(
        "--shared-socket",
        f"{host}:443",
        "--uid",
        USER,
        "--https",
        "=0,foobar.crt,foobar.key",
        "--http-to",
        backend,
        cwd=pki.directory,
    ) as server:
        server.wait_for_workers()
        assert_serves(server, host, pki, "--tls-max", "1.2")
        answer = curl(
            f"https://{SERVER_NAME}/", *pki.curl_server, "--tls-max", "1.2", "--ciphers", "AES256-GCM-SHA384", host=host
        )
        assert answer.returncode == 35, f"{answer}\n{server.log}"


@needs_root
def test_done_when_command(backend: Path, pki: SeedPki) -> None:
    """--shared-socket HOST:443 --uid www-data --https =0,foobar.crt,foobar.key,HIGH,!ca.crt --http-to UNIX"""
    host = loopback()
    arguments = ["--shared-socket", f"{host}:443", "--uid", USER, "--https", "=0,foobar.crt,foobar.key,HIGH,!ca.crt"]
    with uwsgi_tls(*arguments, "--http-to", backend, cwd=pki.directory) as server:
        server.wait_for_workers()
        seen = assert_serves(server, host, pki, *pki.curl_client)
        assert seen["HTTPS_DN"] == DN
        assert_refuses(server, host, pki, "sent no certificate, and one is required")


@needs_root
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_ini_mandatory(backend: Path, pki: SeedPki, self_signed: SeedPki, version: str) -> None:
    host = loopback()
    with start_ini(INI_MANDATORY, host, backend, pki) as server:
        server.wait_for_workers()
        only = ("--tlsv" + version, "--tls-max", version)
        seen = assert_serves(server, host, pki, *only, *pki.curl_client)
        assert seen["HTTPS_DN"] == DN
        assert seen["HTTPS_CLIENT_CERTIFICATE"].encode("latin-1") == der(pki.client_certificate)
        assert "HTTPS_CC" not in seen  # only with https-export-cert
        assert_refuses(server, host, pki, "sent no certificate, and one is required", *only)
        stranger = ("--cert", str(self_signed.certificate), "--key", str(self_signed.key))
        assert_refuses(server, host, pki, "self.signed|verify|unable to get", *only, *stranger)
        assert_serves(server, host, pki, *only, *pki.curl_client)


@needs_root
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_ini_optional(backend: Path, pki: SeedPki, self_signed: SeedPki, version: str) -> None:
    host = loopback()
    with start_ini(INI_OPTIONAL, host, backend, pki) as server:
        server.wait_for_workers()
        only = ("--tlsv" + version, "--tls-max", version)
        assert assert_serves(server, host, pki, *only, *pki.curl_client)["HTTPS_DN"] == DN
        seen = assert_serves(server, host, pki, *only)
        assert not {"HTTPS_DN", "HTTPS_CC", "HTTPS_CLIENT_CERTIFICATE"} & seen.keys()
        # "Optional" is absent or valid; a certificate that does not verify never reaches the application.
        stranger = ("--cert", str(self_signed.certificate), "--key", str(self_signed.key))
        assert_refuses(server, host, pki, "self.signed|verify|unable to get", *only, *stranger)


@needs_root
def test_export_cert_and_forgery(backend: Path, pki: SeedPki) -> None:
    host = loopback()
    forged = ("-H", "HTTPS-DN: /CN=root", "-H", "HTTPS_DN: /CN=root", "-H", "HTTPS_CC: forged", "-H", "HTTPS: off")
    with start_ini(INI_OPTIONAL + "  https-export-cert = true\n", host, backend, pki) as server:
        server.wait_for_workers()
        seen = assert_serves(server, host, pki, *pki.curl_client, *forged)
        assert seen["HTTPS_DN"] == DN
        # byte for byte what PEM is: 64 letters a line, with the newline at the end
        assert seen["HTTPS_CC"] == ssl.DER_cert_to_PEM_cert(der(pki.client_certificate))
        seen = assert_serves(server, host, pki, *forged)
        assert not {"HTTPS_DN", "HTTPS_CC", "HTTPS_CLIENT_CERTIFICATE"} & seen.keys()


@needs_root
def test_list_of_acceptable_authorities(backend: Path, pki: SeedPki) -> None:
    """A browser offers the certificates whose issuer is on the list."""
    host = loopback()
    with start_ini(INI_MANDATORY, host, backend, pki) as server:
        server.wait_for_workers()
        said = s_client(host)
    names = said.partition("Acceptable client certificate CA names\n")[2].splitlines()
    assert names[:1] == ["C = IT, ST = Lazio, L = Roma, O = Lab, CN = Seed CA"] or names[:1] == [
        "C=IT, ST=Lazio, L=Roma, O=Lab, CN=Seed CA"  # as openssl 3.2 and later print it
    ], said


def der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def s_client(host: str) -> str:
    """What `openssl s_client` reports about a connection to port 443 of `host`."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:443", "-servername", SERVER_NAME, "-tls1_2"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
