"""TLS policy as options give it: versions, suites, depth, CRLs, sessions, HSTS, and what the log says of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from pki import CLIENT, Issued, common_name, issue, pki, revocation_list

from .server import USER, loopback, open_directory, uwsgi_tls
from .tls_client import SECONDS, TLS_1_2, TLS_1_3, Tls

PORT = 443
APPLICATION = """
def application(environ, start_response):
    headers = [("Strict-Transport-Security", "max-age=1")] if environ["PATH_INFO"] == "/own" else []
    start_response("404 Not Found" if environ["PATH_INFO"] == "/none" else "200 OK", headers)
    return [environ.get("SSL_CLIENT_VERIFY", "-").encode()]
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as directory:
        (directory / "app.py").write_text(APPLICATION)
        yield directory


def files(server: Issued | None = None) -> str:
    server = server or pki().server_ec
    return f"{server.crt},{server.key_file}"


def s_client(host: str, *arguments: str) -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{PORT}", *arguments],
        input="", capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_default_is_intermediate(place: Path) -> None:
    host = loopback()
    with uwsgi_tls(*USER, "--https", f"{host}:{PORT},{files()}") as daemon:
        daemon.wait_for_workers()
        for version in ("-tls1", "-tls1_1"):
            said = s_client(host, version, "-cipher", "ALL:@SECLEVEL=0")
            assert re.search("alert protocol version|alert number 70", said), said
        for version in ("-tls1_2", "-tls1_3"):
            assert "Cipher is " in s_client(host, version)
        for weak in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "aNULL:@SECLEVEL=0", "PSK"):
            assert "Cipher is (NONE)" in s_client(host, "-tls1_2", "-cipher", weak), weak
        said = s_client(host, "-tls1_2")
        assert "Compression: NONE" in said
        daemon.wait_for_line("no TLS version that is allowed here")
        daemon.wait_for_line("no cipher that is allowed here")


def test_modern_with_suites_of_its_own(place: Path) -> None:
    host = loopback()
    suite = "TLS_CHACHA20_POLY1305_SHA256"
    options = ("--tls-profile", "modern", "--ssl-ciphersuites", suite)
    with uwsgi_tls(*USER, "--https", f"{host}:{PORT},{files()}", *options) as daemon:
        daemon.wait_for_workers()
        assert Tls(most=TLS_1_2, checks_name=False).ask((host, PORT), None).error == "TLSV1_ALERT_PROTOCOL_VERSION"
        assert Tls(checks_name=False).ask((host, PORT), None).cipher == suite
        assert "Cipher is (NONE)" in s_client(host, "-ciphersuites", "TLS_AES_128_GCM_SHA256")


def test_hsts_is_in_every_response(place: Path) -> None:
    host = loopback()
    options = ("--wsgi-file", str(place / "app.py"), "--hsts", "63072000")
    with uwsgi_tls(*USER, "--https", f"{host}:{PORT},{files()}", *options) as daemon:
        daemon.wait_for_workers()
        for path, seconds in (("/", "63072000"), ("/none", "63072000"), ("/own", "1"), ("bad path", "63072000")):
            said = subprocess.run(
                ["openssl", "s_client", "-connect", f"{host}:{PORT}", "-quiet", "-ign_eof"],
                input=f"GET {path} HTTP/1.1\r\nHost: server.lab\r\nConnection: close\r\n\r\n",
                capture_output=True, text=True, timeout=SECONDS, check=False,
            ).stdout  # fmt: skip
            assert re.findall(r"(?i)strict-transport-security: max-age=(\d+)", said) == [seconds], said


def test_without_hsts_there_is_none(place: Path) -> None:
    host = loopback()
    with uwsgi_tls(*USER, "--https", f"{host}:{PORT},{files()}") as daemon:
        daemon.wait_for_workers()
        reply = Tls(checks_name=False).ask((host, PORT), None)
        assert reply.status == 200
        assert "strict-transport-security" not in reply.head.lower()


@pytest.mark.parametrize(
    ("options", "least_refused"),
    [
        ((), 5),
        (("--ssl-verify-depth=0",), 1),
        (("--ssl-verify-depth",), 2),  # without a value it is 1, as in uWSGI
        (("--ssl-verify-depth=2",), 3),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_depth_is_the_same_wherever_it_stands(
    options: tuple[str, ...], least_refused: int, before: bool, place: Path
) -> None:
    """uWSGI forgets it after the https option."""
    host = loopback()
    https = ("--https", f"{host}:{PORT},{files()},,!{pki().ca.crt}")
    arguments = (*options, *https) if before else (*https, *options)
    with uwsgi_tls(*USER, *arguments) as daemon:
        daemon.wait_for_workers()
        for depth, client in enumerate(pki().clients_below):
            reply = Tls(client, checks_name=False).ask((host, PORT), None)
            assert (reply.status == 200) == (depth < least_refused), depth
        daemon.wait_for_line(r"more than \d+ intermediate CAs \(ssl-verify-depth\)")


def test_revoked_clients(place: Path) -> None:
    """A plain CRL, one of a name's own, and who is refused is named."""
    host = loopback()
    stranger = issue(place, "stranger", common_name("Stranger"), pki().ca, usage=[CLIENT])
    (place / "all.crl").write_bytes(revocation_list(pki().ca, [pki().client]))
    (place / "own.crl").write_bytes(revocation_list(pki().ca, [stranger]))
    server = pki().server_ec
    own = f"name=server.lab,cert={server.crt},key={server.key_file},clientca=!{pki().ca.crt},crl={place / 'own.crl'}"
    options = ("--ssl-crl", str(place / "all.crl"), "--sni2", own)
    with uwsgi_tls(*USER, "--https", f"{host}:{PORT},{files()},,!{pki().ca.crt}", *options) as daemon:
        daemon.wait_for_workers()
        for version in (TLS_1_2, TLS_1_3):
            known, unknown = (
                Tls(each, least=version, most=version, checks_name=False) for each in (pki().client, stranger)
            )
            assert known.ask((host, PORT), None).error == "SSLV3_ALERT_CERTIFICATE_REVOKED"
            assert unknown.ask((host, PORT), None).status == 200
            assert known.ask((host, PORT), "server.lab").status == 200
            assert unknown.ask((host, PORT), "server.lab").error == "SSLV3_ALERT_CERTIFICATE_REVOKED"
        daemon.wait_for_line("client certificate refused: it was revoked .*Client 01")
        daemon.wait_for_line("client certificate refused: it was revoked .*Stranger")


def test_sessions_can_be_turned_off(place: Path) -> None:
    host = loopback()
    with uwsgi_tls(*USER, "--https", f"{host}:{PORT},{files()}", "--ssl-option", "SSL_OP_NO_TICKET") as daemon:
        daemon.wait_for_workers()
        for version in (TLS_1_2, TLS_1_3):
            client = Tls(least=version, most=version, checks_name=False)
            session = client.ask((host, PORT), None).session
            assert not client.ask((host, PORT), None, session=session).resumed


def test_what_is_doubtful_is_said_at_the_start(place: Path) -> None:
    """Once, in the log, by the name of the file or option; and the server serves."""
    host = loopback()
    sans = [x509.DNSName("server.lab")]
    old = issue(place, "old", common_name("old"), days=(-30, -1), sans=sans)
    soon = issue(place, "soon", common_name("soon"), days=(-90, 20), sans=sans)
    below = issue(place, "below", common_name("below"), pki().ca, sans=sans)
    (place / "soon.key").chmod(0o644)
    (place / "ca.crl").write_bytes(revocation_list(pki().ca, days=(-30, -1)))
    options = [
        *("--https", f"{host}:{PORT},{files(old)},HIGH", "--https", f"{host}:8443,{files(soon)},,!{pki().ca_bundle}"),
        *("--sni", f"server.lab {files(below)}", "--ssl-crl", str(place / "ca.crl"), "--ssl-enable-tlsv1"),
        *("--ssl-verbose", "--https-session-context", "x" * 40),
    ]
    with uwsgi_tls(*USER, *options, cwd=place) as daemon:
        daemon.wait_for_workers()
        for line in (
            rf"certificate {old.crt}: CN=old, EC secp256r1, until 20\d\d-\d\d-\d\d$",
            rf"certificate {old.crt}: has expired on 20.* UTC; clients will refuse it",
            rf"certificate {soon.crt}: expires on 20.* UTC",
            rf"certificate {below.crt}: its issuer CN=Lab CA is not in the file",
            rf"key {soon.key_file}: is readable by every user \(mode 0644\)",
            rf"CRL {place}/ca\.crl: that of CN=Lab CA has expired on ",
            rf"CRL {place}/ca\.crl: has no CRL of CN=Other CA",
            r"ciphers HIGH \(https = .*\) allow \d+ TLS 1\.2 suites without forward secrecy or in CBC mode, such as \S+"
            " the profile intermediate does not",
            "ssl-enable-tlsv1 has no effect: TLS 1.0 and 1.1 are broken",
        ):
            assert len([each for each in daemon.lines if re.search(line, each)]) == 1, f"{line}\n{daemon.log}"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--tls-profile", "old"), r"tls-profile = old: the profile old allows TLS 1\.0"),
        (("--tls-min-version", "1.1"), r"tls-min-version = 1\.1: TLS 1\.1 is broken"),
        (("--tls-min-version", "1.3", "--tls-max-version", "1.2"), r"https = .*: no TLS version is left"),
        (
            ("--tls-profile", "modern", "--tls-min-version", "1.2"),
            r"https = .*: TLS 1\.2 is none of the profile modern",
        ),
        (("--ssl-ciphersuites", "HIGH"), r"ssl-ciphersuites = HIGH: 'HIGH' is no TLS 1\.3 cipher suite"),
        (("--ssl-option", "SSL_OP_IGNORE_UNEXPECTED_EOF"), r"ssl-option = .*would look whole"),
        (("--ssl-verify-depth=many",), r"ssl-verify-depth = many: not a whole number"),
        (("--ssl-crl-check", "some"), r"ssl-crl-check = some: it is chain or leaf"),
        (("--ssl-session-timeout", "0"), r"ssl-session-timeout = 0: not between 1 and 86400"),
        (("--client-allow", "everybody"), r"client-allow = everybody: 'everybody' is not one of cn:NAME"),
        (("--ssl-enable-sslv3",), r"ssl-enable-sslv3 = : SSLv3 is broken"),
        (("--hsts", "a year"), r"hsts = a year: not a whole number"),
    ],
)
def test_a_policy_that_is_refused(options: tuple[str, ...], line: str, place: Path) -> None:
    https = f"{loopback()}:{PORT},{files()},,{pki().ca.crt}"
    with uwsgi_tls(*USER, "--https", https, *options) as daemon:
        assert daemon.wait() == 1
    (said,) = daemon.lines
    assert re.match(f"uwsgi-tls: {line}", said), said
