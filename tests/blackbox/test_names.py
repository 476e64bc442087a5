"""Server names: which certificate, versions, ciphers and client policy each gets, at every listener."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from pki import SERVER, Issued, common_name, issue, pki

from .server import USER, Daemon, command, curl, loopback, open_directory, uwsgi_tls, wait_until
from .tls_client import APPLICATION, SECONDS, TLS_1_2, TLS_1_3, Tls

PORT, SECOND_PORT = 443, 8443
NAMES = """
    default.lab open.lab other-open.lab secret.lab other-ca.lab optional.lab *.wild.lab exact.wild.lab modern.lab
    old.lab expression.lab secret-expression.lab directory.lab *.wild-directory.lab directory-ca.lab
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A running server with two listeners: the first asks for no certificate, the second demands one."""

    daemon: Daemon
    host: str
    place: Path

    @property
    def first(self) -> tuple[str, int]:
        return self.host, PORT

    @property
    def second(self) -> tuple[str, int]:
        return self.host, SECOND_PORT


def certificates(place: Path) -> dict[str, Issued]:
    made = {}
    for name in NAMES.split():
        stem = name.replace("*", "_")
        sans = [x509.DNSName(name), *(x509.DNSName(f"secret{n}.re.lab") for n in (1, 2) if name.startswith("secret-"))]
        sans += [x509.DNSName(f"r{n}.lab") for n in (1, 2) if name == "expression.lab"]
        made[name] = issue(place, stem, common_name(name), pki().ca, usage=[SERVER], sans=sans)
    pair = [x509.DNSName("pair.lab")]
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    made["rsa"] = issue(place, "pair-rsa", common_name("pair.lab"), pki().ca, key=key, usage=[SERVER], sans=pair)
    made["ec"] = issue(place, "pair-ec", common_name("pair.lab"), pki().ca, usage=[SERVER], sans=pair)
    return made


def options(place: Path, host: str) -> list[str]:
    made = certificates(place)
    directory = place / "names"
    directory.mkdir()
    for name in ("directory.lab", "*.wild-directory.lab", "directory-ca.lab"):
        stem = name.replace("*", "_")
        for suffix in (".crt", ".key"):
            called = name.replace("*", "_wildcard")  # as the command pki does
            (place / (stem + suffix)).rename(directory / (called + suffix))
    (directory / "directory-ca.lab.ca").write_text(pki().ca.pem)
    # What a name that leaves the directory would find.
    for suffix in (".crt", ".key"):
        (place / f"outside{suffix}").write_bytes((place / f"open.lab{suffix}").read_bytes())

    def files(name: str) -> str:
        return f"{made[name].crt},{made[name].key_file}"

    def keys(name: str) -> str:
        return f"cert={made[name].crt},key={made[name].key_file}"

    ca, other = pki().ca.crt, pki().other_ca.crt
    return [
        *("--https", f"{host}:{PORT},{files('default.lab')}"),
        *("--https", f"{host}:{SECOND_PORT},{files('default.lab')},,!{ca}"),
        *("--https", f"{place / 'tls.sock'},{files('default.lab')}"),
        *("--sni", f"Open.Lab. {files('open.lab')}", "--sni", f"other-open.lab {files('other-open.lab')}"),
        *("--sni", f"secret.lab {files('secret.lab')},,!{ca}"),
        *("--sni", f"other-ca.lab {files('other-ca.lab')},,!{other}"),
        *("--sni", f"optional.lab {files('optional.lab')},,{ca}"),
        *("--sni", f"*.wild.lab {files('*.wild.lab')}", "--sni", f"exact.wild.lab {files('exact.wild.lab')}"),
        *("--sni2", f"name=modern.lab,{keys('modern.lab')},profile=modern"),
        *("--sni2", f"name=old.lab,{keys('old.lab')},max-version=1.2,ciphers=ECDHE-ECDSA-AES256-GCM-SHA384"),
        *("--sni2", f"name=pair.lab,{keys('rsa')},{keys('ec')}"),
        *("--sni-regexp", f"^secret[0-9]\\.re\\.lab$ {files('secret-expression.lab')},,!{ca}"),
        *("--sni-regexp", f"^R[0-9]\\.lab$ {files('expression.lab')}"),
        *("--sni-dir", str(directory), "--sni-dir-ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ]


@contextlib.contextmanager
def serving(more: list[str]) -> Iterator[Scene]:
    with open_directory() as place:
        host = loopback()
        (place / "app.py").write_text(APPLICATION)
        arguments = [*USER, *options(place, host), "--wsgi-file", str(place / "app.py"), *more]
        with uwsgi_tls(*arguments, cwd=place) as daemon:
            daemon.wait_for_workers()
            yield Scene(daemon, host, place)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with serving([]) as found:
        yield found


@pytest.fixture(scope="module")
def strict() -> Iterator[Scene]:
    with serving(["--sni-strict"]) as found:
        yield found


# --- who answers ----------------------------------------------------------------------------------------

WHO = [
    ("open.lab", "open.lab"),
    ("OPEN.lab", "open.lab"),
    ("exact.wild.lab", "exact.wild.lab"),
    ("any.wild.lab", "*.wild.lab"),
    ("r1.lab", "expression.lab"),
    ("directory.lab", "directory.lab"),
    ("any.wild-directory.lab", "*.wild-directory.lab"),
]


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["tls1.2", "tls1.3"])
@pytest.mark.parametrize(("asked", "shown"), WHO)
def test_a_name_gets_its_certificate(asked: str, shown: str, version: object, scene: Scene) -> None:
    """Python's ssl compares the name as well."""
    assert isinstance(version, type(TLS_1_2))
    reply = Tls(least=version, most=version).ask(scene.first, asked)
    assert (reply.error, reply.name, reply.status) == ("", shown, 200)
    assert reply.body == f"{asked.lower()} NONE -"


@pytest.mark.parametrize(
    "asked", [None, "unknown.lab", "a.b.wild.lab", "wild.lab", "r1.lab.example", "a.directory.lab"]
)
def test_everybody_else_gets_the_listeners_own(asked: str | None, scene: Scene) -> None:
    reply = Tls(checks_name=False).ask(scene.first, asked)
    assert (reply.error, reply.name, reply.status) == ("", "default.lab", 200)


def test_curl_finds_each_name(scene: Scene) -> None:
    for name in ("open.lab", "any.wild.lab", "directory.lab"):
        done = curl(f"https://{name}/", "--cacert", pki().ca.crt, host=scene.host)
        assert (done.returncode, done.stdout) == (0, f"{name} NONE -"), done.stderr


def gnutls(address: tuple[str, int], name: str, *more: str) -> str:
    """What gnutls-cli, which has a TLS library of its own, says of a connection that asks for `name`."""
    done = subprocess.run(
        ["gnutls-cli", "--port", str(address[1]), "--sni-hostname", name, "--verify-hostname", name, "--x509cafile",
         pki().ca.crt, *more, address[0]],
        input=f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n",
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_gnutls_finds_each_name(scene: Scene, strict: Scene) -> None:
    for name in ("open.lab", "any.wild.lab", "r1.lab", "directory.lab"):
        assert f"{name} NONE -" in gnutls(scene.first, name)
    client = ("--x509certfile", pki().client.crt, "--x509keyfile", pki().client.key_file)
    assert f"secret.lab SUCCESS {SUBJECT}" in gnutls(scene.first, "secret.lab", *client)
    assert "200 OK" not in gnutls(scene.first, "secret.lab")
    assert "Received alert [112]" in gnutls(strict.first, "unknown.lab")


HOSTILE = [
    "../outside",
    "./directory.lab",
    "names/directory.lab",
    "x" * 255,
    "127.0.0.1",
    "\xe9.lab",
    "a..lab",
    "-",
    ".",
]


def test_names_that_no_host_can_have(scene: Scene) -> None:
    """They are the listener's own, as no name is; no file is looked for."""
    for name in HOSTILE:
        said = subprocess.run(
            ["openssl", "s_client", "-connect", f"{scene.host}:{PORT}", "-servername", name],
            input=b"", capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert b"subject=CN = default.lab" in said.stdout, (name, said)


# --- a pair of keys, versions and ciphers ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "ciphers", "sigalgs", "key"),
    [
        ("-tls1_2", "ECDHE-RSA-AES128-GCM-SHA256", "", "RSA"),
        ("-tls1_2", "ECDHE-ECDSA-AES128-GCM-SHA256", "", "EC"),
        ("-tls1_3", "", "RSA-PSS+SHA256", "RSA"),
        ("-tls1_3", "", "ECDSA+SHA256", "EC"),
    ],
)
def test_a_pair_of_keys(version: str, ciphers: str, sigalgs: str, key: str, scene: Scene) -> None:
    """What the client can verify decides."""
    more = [*(("-cipher", ciphers) if ciphers else ()), *(("-sigalgs", sigalgs) if sigalgs else ())]
    said = subprocess.run(
        ["openssl", "s_client", "-connect", f"{scene.host}:{PORT}", "-servername", "pair.lab", version, *more,
         "-CAfile", pki().ca.crt, "-verify_return_error"],
        input="", capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in said.stdout, said
    assert f"Peer signature type: {'RSA-PSS' if key == 'RSA' else 'ECDSA'}" in said.stdout, said.stdout


def test_versions_are_a_names_own(scene: Scene) -> None:
    old, new = Tls(most=TLS_1_2), Tls(least=TLS_1_3)
    assert old.ask(scene.first, "modern.lab").error == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert new.ask(scene.first, "old.lab").error == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert new.ask(scene.first, "modern.lab").version == "TLSv1.3"
    assert old.ask(scene.first, "old.lab").version == "TLSv1.2"
    assert (old.ask(scene.first, "open.lab").version, new.ask(scene.first, "open.lab").version) == (
        "TLSv1.2",
        "TLSv1.3",
    )


def test_ciphers_are_a_names_own(scene: Scene) -> None:
    client = Tls(most=TLS_1_2)
    assert client.ask(scene.first, "old.lab").cipher == "ECDHE-ECDSA-AES256-GCM-SHA384"
    assert client.ask(scene.first, "directory.lab").cipher == "ECDHE-ECDSA-CHACHA20-POLY1305"
    poor = Tls(most=TLS_1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    assert poor.ask(scene.first, "open.lab").cipher == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert poor.ask(scene.first, "old.lab").error == "SSLV3_ALERT_HANDSHAKE_FAILURE"


# --- client certificates --------------------------------------------------------------------------------

NO_CERTIFICATE = {TLS_1_2: "SSLV3_ALERT_HANDSHAKE_FAILURE", TLS_1_3: "TLSV13_ALERT_CERTIFICATE_REQUIRED"}
DEMANDING = ["secret.lab", "SECRET.lab", "secret1.re.lab", "other-ca.lab"]
ASKING = ["optional.lab", "directory-ca.lab"]
SUBJECT = "emailAddress=c@lab,CN=Client 01,O=Lab,C=IT"


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["tls1.2", "tls1.3"])
@pytest.mark.parametrize("listener", ["first", "second"])
@pytest.mark.parametrize("name", DEMANDING)
def test_a_name_that_demands_a_certificate(name: str, listener: str, version: object, scene: Scene) -> None:
    assert isinstance(version, type(TLS_1_2))
    address = getattr(scene, listener)
    good, bad = pki().client, pki().client_other_ca
    if name == "other-ca.lab":
        good, bad = bad, good
    assert Tls(least=version, most=version).ask(address, name).error == NO_CERTIFICATE[version]
    assert Tls(bad, least=version, most=version).ask(address, name).error == "TLSV1_ALERT_UNKNOWN_CA"
    reply = Tls(good, least=version, most=version).ask(address, name)
    assert (reply.error, reply.body) == ("", f"{name.lower()} SUCCESS {SUBJECT}")


@pytest.mark.parametrize("name", ASKING)
def test_a_name_that_asks_for_a_certificate(name: str, scene: Scene) -> None:
    assert Tls().ask(scene.first, name).body == f"{name} NONE -"
    assert Tls(pki().client).ask(scene.first, name).body == f"{name} SUCCESS {SUBJECT}"
    assert Tls(pki().client_other_ca).ask(scene.first, name).error == "TLSV1_ALERT_UNKNOWN_CA"
    assert Tls(pki().client_expired).ask(scene.first, name).error == "SSLV3_ALERT_CERTIFICATE_EXPIRED"


def test_a_name_without_a_ca_asks_for_none(scene: Scene) -> None:
    """Not even at the listener whose own site demands one; and what is not asked for does not count."""
    for address in (scene.first, scene.second):
        for name in ("open.lab", "any.wild.lab", "r1.lab", "directory.lab"):
            assert Tls().ask(address, name).body == f"{name} NONE -"
            assert Tls(pki().client).ask(address, name).body == f"{name} NONE -"


def test_the_listeners_own_policy_is_for_who_has_no_name(scene: Scene) -> None:
    for name in (None, "unknown.lab", "-secret.lab"):
        assert Tls(checks_name=False).ask(scene.second, name).error == NO_CERTIFICATE[TLS_1_3]
        assert Tls(pki().client, checks_name=False).ask(scene.second, name, "nobody.lab").status == 200


# --- the Host of another ---------------------------------------------------------------------------------

PROTECTED_HOSTS = [
    "secret.lab",
    "SECRET.LAB",
    "secret.lab.",
    "secret.lab:443",
    "secret1.re.lab",
    "directory-ca.lab",
    # What no client can ask for in TLS is nobody's, and so not that of a wildcard or an expression of the application.
    "-secret1.re.lab",
    "secret-.re.lab:443",
    "a" * 64 + ".re.lab",
    "1.2.3",
    ("a" * 49 + ".") * 5 + "secret.lab",
]


@pytest.mark.parametrize("host", PROTECTED_HOSTS)
@pytest.mark.parametrize("sni", [None, "open.lab", "any.wild.lab", "unknown.lab"])
def test_a_host_that_asks_for_certificates_is_not_reached_by_another_name(
    sni: str | None, host: str, scene: Scene
) -> None:
    """RFC 9110, 15.5.20."""
    for client in (Tls(checks_name=False), Tls(pki().client, checks_name=False)):
        reply = client.ask(scene.first, sni, host)
        assert (reply.error, reply.status) == ("", 421)
        assert reply.head.startswith("HTTP/1.1 421 Misdirected Request\r\n")


def test_other_hosts_are_reached(scene: Scene) -> None:
    for sni, host in [
        ("open.lab", "other-open.lab"),
        ("open.lab", "unknown.lab"),
        (None, "open.lab"),
        ("open.lab", "[::1]"),
        ("open.lab", "127.0.0.1:443"),
    ]:
        assert Tls(checks_name=False).ask(scene.first, sni, host).status == 200
    client = Tls(pki().client)
    assert client.ask(scene.first, "secret.lab", "open.lab").status == 200  # nothing is asked for there
    assert client.ask(scene.first, "secret.lab", "secret1.re.lab").status == 200  # the same is asked for there
    assert client.ask(scene.first, "secret.lab", "other-ca.lab").status == 421


def test_the_listeners_own_site_is_protected_as_well(scene: Scene) -> None:
    """At the second listener hosts that nobody has demand a certificate, and the client of open.lab has shown none."""
    assert Tls().ask(scene.second, "open.lab", "unknown.lab").status == 421
    assert Tls().ask(scene.second, "open.lab", "127.0.0.1").status == 421
    assert Tls().ask(scene.second, "open.lab", "other-open.lab").status == 200


def test_each_request_of_a_connection_is_looked_at(scene: Scene) -> None:
    context = Tls().context
    with (
        socket.create_connection(scene.first, SECONDS) as raw,
        context.wrap_socket(raw, server_hostname="open.lab") as tls,
    ):
        requests = [
            f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n" for host in ("open.lab", "open.lab", "secret.lab", "open.lab")
        ]
        requests.insert(2, "GET https://secret.lab/ HTTP/1.1\r\nHost: open.lab\r\n\r\n")
        data = b""
        tls.sendall("".join(requests).encode())
        while more := tls.recv(65536):
            data += more
    assert re.findall(rb"HTTP/1\.1 (\d+) ", data) == [b"200", b"200", b"421"]


# --- strict ----------------------------------------------------------------------------------------------


def test_strict_refuses_unknown_names(strict: Scene) -> None:
    for name in ("unknown.lab", "a.b.wild.lab", "wild.lab"):
        assert Tls(checks_name=False).ask(strict.first, name).error == "TLSV1_UNRECOGNIZED_NAME"
    strict.daemon.wait_for_line(r"name unknown\.lab, .*: nobody here has that name")  # a few of each kind are told


@pytest.mark.parametrize("name", ["-other.lab", "other-.lab", "a" * 64 + ".lab", "1.2.3.4", "other..lab"])
def test_strict_refuses_what_is_no_name(name: str, strict: Scene) -> None:
    """Which is not to ask for none, as openssl sees it too."""
    said = subprocess.run(
        ["openssl", "s_client", "-connect", f"{strict.host}:{PORT}", "-servername", name, "-msg"],
        input="", capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert "fatal unrecognized_name" in said.stdout, said
    wait_until(
        lambda: any("it asked for what is no host name" in line for line in strict.daemon.lines), SECONDS,
        lambda: "nothing is said, not even of the first few",
    )  # fmt: skip


def test_strict_refuses_a_name_that_only_openssl_has_seen(strict: Scene) -> None:
    path = strict.place / "tls.sock"
    assert over_unix(path, None, 2).startswith(b"HTTP/1.1 200 OK")
    assert over_unix(path, "-other.lab", 2) == b""
    strict.daemon.wait_for_line("the client has asked for another name than it seemed to")


def test_strict_serves_known_names_and_none(strict: Scene) -> None:
    for name, shown in [*WHO, (None, "default.lab"), ("default.lab", "default.lab")]:
        assert Tls().ask(strict.first, name).name == shown
    assert Tls(pki().client).ask(strict.first, "secret.lab").status == 200
    assert Tls().ask(strict.first, "secret.lab").error == NO_CERTIFICATE[TLS_1_3]


def test_strict_as_openssl_sees_it(strict: Scene) -> None:
    """The alert of RFC 6066, fatal, and then the end of the connection, not a reset."""
    said = subprocess.run(
        ["openssl", "s_client", "-connect", f"{strict.host}:{PORT}", "-servername", "unknown.lab", "-msg"],
        input="", capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert "fatal unrecognized_name" in said.stdout
    assert "reset" not in said.stderr
    assert "alert number 112" in said.stderr


# --- starts that are refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--sni", "a.lab {crt},missing.key"], r"sni = a\.lab .*: key missing\.key: no such file"),
        (["--sni", "a.lab {crt},{key},,!garbage"], r"sni = .*: client CA garbage: is not PEM"),
        (["--sni", "a.lab {crt},{other}"], r"sni = .*: key .* does not match certificate"),
        (["--sni", "a.lab {crt},{key},NOSUCH"], r"sni = .*: ciphers 'NOSUCH': no cipher match"),
        (["--sni-regexp", "a {crt},{key},,!garbage"], r"sni-regexp = .*: client CA garbage: is not PEM"),
        (["--sni", "a.lab {crt},{key}", "--sni", "A.lab. {crt},{key}"], r"sni = A\.lab\. .*: a\.lab is given twice"),
        (["--sni", "a.lab {crt},{key}", "--sni2", "name=a.lab,cert={crt},key={key}"], r"sni2 = .* is given twice"),
        (["--sni-dir", "missing"], r"sni-dir = missing: sni-dir missing: no such file"),
        (["--sni-dir", "app.py"], r"sni-dir = app\.py: sni-dir app\.py: not a directory"),
        (["--sni-dir", "no-key"], r"sni-dir = no-key: key no-key/a\.lab\.key: no such file"),
        (["--sni-dir", "bad-ca"], r"sni-dir = bad-ca: client CA bad-ca/a\.lab\.ca: is not PEM"),
        (["--sni-dir", "twice"], r"sni-dir = twice: a\.lab\.crt: a\.lab is given twice, also by A\.lab\.crt"),
        (["--sni-dir", "ca"], r"sni-dir = ca: certificate ca/ca\.crt: is a CA's certificate, not a server's; keep it "),
        (["--sni-dir", "no-name"], r"sni-dir = no-name: a b\.crt: 'a b' is no server name"),
        (["--client-allow", "cn:x"], r"client-allow = cn:x: no client is asked for a certificate"),
        (["--ssl-crl", "x.crl"], r"ssl-crl = x\.crl: no client is asked for a certificate"),
    ],
)  # fmt: skip
def test_a_start_that_is_refused(more: list[str], line: str, public_directory: Path) -> None:
    server, other = pki().server_ec, pki().server
    (public_directory / "garbage").write_text("nothing\n")
    (public_directory / "app.py").write_text("")
    for directory, stem in (
        ("no-key", "a.lab"),
        ("bad-ca", "a.lab"),
        ("no-name", "a b"),
        ("twice", "a.lab"),
        ("twice", "A.lab"),
    ):
        (public_directory / directory).mkdir(exist_ok=True)
        (public_directory / directory / f"{stem}.crt").write_text(server.pem)
    (public_directory / "ca").mkdir()
    (public_directory / "ca" / "ca.crt").write_text(pki().ca.pem)
    (public_directory / "bad-ca" / "a.lab.key").write_bytes(Path(server.key_file).read_bytes())
    (public_directory / "bad-ca" / "a.lab.ca").write_text("nothing\n")
    files = {"crt": server.crt, "key": server.key_file, "other": other.key_file}
    arguments = [each.format(**files) for each in more]
    https = f"{loopback()}:{PORT},{server.crt},{server.key_file}"
    with uwsgi_tls(*USER, "--https", https, *arguments, cwd=public_directory) as daemon:
        assert daemon.wait() == 1
    (said,) = daemon.lines
    assert re.match(f"uwsgi-tls: {line}", said), said


# --- reloads ------------------------------------------------------------------------------------------------


def test_names_come_and_go_with_a_reload(public_directory: Path) -> None:
    """A directory that is wrong changes nothing."""
    directory = public_directory / "names"
    directory.mkdir()
    host = loopback()
    client = Tls(checks_name=False)

    def put(name: str) -> None:
        made = issue(public_directory, name, common_name(name), pki().ca, usage=[SERVER], sans=[x509.DNSName(name)])
        for file in (made.crt, made.key_file):
            Path(file).chmod(0o644)  # a monitor reads no key below /tmp, so the user must be able to
            Path(file).rename(directory / Path(file).name)

    def reload(line: str) -> None:
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line(line)

    put("a.lab")
    server = pki().server_ec
    (public_directory / "x.crt").write_text(server.pem)
    (public_directory / "x.key").write_bytes(Path(server.key_file).read_bytes())
    (public_directory / "x.key").chmod(0o644)
    https = f"{host}:{PORT},{public_directory}/x.crt,{public_directory}/x.key"
    with uwsgi_tls(*USER, "--https", https, "--sni-dir", str(directory)) as daemon:
        daemon.wait_for_line("generation 1 is serving")
        names = ("a.lab", "b.lab")
        assert [client.ask((host, PORT), name).name for name in names] == ["a.lab", "server.lab"]
        put("b.lab")
        (directory / "a.lab.crt").unlink()
        reload("generation 2 is serving")
        daemon.wait_for_line(r"worker 1 .* ended")  # until then it may have the next connection
        assert [client.ask((host, PORT), name).name for name in names] == ["server.lab", "b.lab"]
        (directory / "c.lab.crt").write_text("nothing\n")
        reload(r"reload failed, generation 2 stays: sni-dir = .*: certificate .*/c\.lab\.crt: is not PEM")
        assert [client.ask((host, PORT), name).name for name in names] == ["server.lab", "b.lab"]


# --- what is said about names ----------------------------------------------------------------------------


def test_check_says_who_gets_what(public_directory: Path) -> None:
    host = loopback()
    arguments = options(public_directory, host)
    done = subprocess.run(
        command("--check", *USER, *arguments, "--sni-strict", "--client-allow", "cn:Client 01"),
        cwd=public_directory, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(r"\(.*?\)|, until \S+", "", done.stdout)
    for said in (
        f"https for {host}:{PORT}\n  certificate {public_directory}/default.lab.crt: CN=default.lab, EC secp256r1\n"
        "  TLS 1.2 and 1.3, profile intermediate\n",
        f"sni for secret.lab\n  certificate {public_directory}/secret.lab.crt: CN=secret.lab, EC secp256r1\n"
        "  TLS 1.2 and 1.3, profile intermediate\n"
        f"  client certificates: required, CA {pki().ca.crt}, depth 4, only cn:Client 01\n",
        f"sni2 for pair.lab\n  certificate {public_directory}/pair-rsa.crt: CN=pair.lab, RSA 2048\n"
        f"  certificate {public_directory}/pair-ec.crt: CN=pair.lab, EC secp256r1\n",
        "sni for *.wild.lab\n",
        "sni-dir for *.wild-directory.lab\n",
        "TLS 1.3, profile modern\n",
        "TLS 1.2, profile intermediate, ciphers ECDHE-ECDSA-AES256-GCM-SHA384\n",
        "sni-regexp for ~ ^R[0-9]\\.lab$\n",
        "any other name than these and those of a listener's own certificate is refused ",
    ):
        assert said in text, f"{said}\n\n{text}"


def test_a_certificate_for_another_name_is_named(public_directory: Path) -> None:
    server = pki().server_ec
    https = f"{loopback()}:{PORT},{server.crt},{server.key_file}"
    sni = f"a.lab {server.crt},{server.key_file}"
    with uwsgi_tls(*USER, "--https", https, "--sni", sni) as daemon:
        daemon.wait_for_workers()
        daemon.wait_for_line(rf"certificate {server.crt}: is not good for a\.lab but for localhost, server\.lab, ")


# --- a hello in pieces ------------------------------------------------------------------------------------


def over_unix(path: Path, name: str | None, pieces: int) -> bytes:
    """What the server answers to a request whose hello comes in so many pieces, each taken up before the next."""
    context = Tls(checks_name=False).context
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello, answer = outgoing.read(), b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(str(path))
        size = -(-len(hello) // pieces)
        for at in range(0, len(hello), size):
            sock.sendall(hello[at : at + size])
            wait_until(lambda: _unread(sock) == 0, SECONDS, lambda: "the server does not read")
        shaken = False
        while data := sock.recv(65536):
            incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                if not shaken:
                    tls.do_handshake()
                    shaken = True
                    tls.write(f"GET / HTTP/1.1\r\nHost: {name or 'x'}\r\nConnection: close\r\n\r\n".encode())
                while more := tls.read(65536):
                    answer += more
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(outgoing.read())
    return answer


def _unread(sock: socket.socket) -> int:
    """Bytes that the other side of a UNIX socket has not taken yet: unix(7), SIOCOUTQ."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_a_name_that_only_openssl_has_seen(scene: Scene) -> None:
    """A UNIX socket wakes us for each piece. OpenSSL then reads on, with the context of whoever asks for no name."""
    path = scene.place / "tls.sock"
    assert over_unix(path, "open.lab", 1).endswith(b"open.lab NONE -")
    assert over_unix(path, None, 2).startswith(b"HTTP/1.1 200 OK")
    for name in ("open.lab", "secret.lab"):
        assert over_unix(path, name, 2) == b""
        scene.daemon.wait_for_line("the client has asked for another name than it seemed to")
