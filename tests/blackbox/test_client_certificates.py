"""Client certificates: who gets in where, what the application then hears, and what the log says of the others.

One server has a listener or a name for each policy. Connections of the tables are made with Python's ssl; openssl,
curl and gnutls-cli, which has another TLS library, have the cases that a program shows best.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from pki import CLIENT, CLIENT_DN, SERVER, Issued, common_name, issue, name, pki, revocation_list

from .server import Daemon, curl, loopback, open_directory, uwsgi_tls, wait_until
from .test_http_to import Client as UwsgiClient
from .test_http_to import Node, front

SECONDS = 10.0  # no connection takes so long
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

APPLICATION = """
import json

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()]
"""

both_versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["tls1.2", "tls1.3"])


# --- who comes --------------------------------------------------------------------------------------------


def key_usage(*allowed: str) -> tuple[x509.KeyUsage, bool]:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{each: each in allowed for each in every}), True


def reordered(directory: Path, stem: str, client: Issued, *order: int) -> Issued:
    """The same client, who sends the certificates of its chain in another order, or not all of them."""
    crt = directory / f"{stem}.crt"
    chain = tuple(client.chain[each] for each in order)
    crt.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain))
    return Issued(client.certificate, client.key, chain, str(crt), client.key_file)


def crl(issuer: Issued, *revoked: Issued, days: tuple[int, int] = (-1, 30)) -> bytes:
    begin, end = (datetime.now(UTC).replace(tzinfo=None, microsecond=0) + timedelta(days=day) for day in days)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(begin).next_update(end)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(begin)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class People:
    """Who presents what, and the authorities above them."""

    def __init__(self, directory: Path) -> None:
        lab = pki()

        def make(stem: str, issuer: Issued | None, **more: object) -> Issued:
            subject = common_name(stem)
            return issue(directory, stem, subject, issuer, **{"usage": [CLIENT], **more})  # type: ignore[arg-type]  # as issue() has them

        root = lab.ca
        ca = {"authority": True, "usage": []}
        self.middle = make("Middle CA", root, **ca)
        self.revoked_middle = make("Revoked CA", root, **ca)
        expired_middle = make("Expired CA", root, days=(-30, -1), **ca)
        server_middle = make("Server CA", root, authority=True, usage=[SERVER])
        only_signs = make("Signing CA", root, extensions=[key_usage("key_cert_sign", "crl_sign")], **ca)
        no_ca = make("No CA", root)
        deep = lab.clients_below[3]
        self.revoked = make("Revoked", root)
        self.below_middle = make("Below", self.middle)
        self.below_revoked = make("Below Revoked", self.revoked_middle)
        self.everybody: dict[str, Issued | None] = {
            "nothing": None,
            "good": lab.client,
            "another CA's": lab.client_other_ca,
            "self-signed": lab.client_self_signed,
            "expired": lab.client_expired,
            "not yet valid": lab.client_not_yet,
            "serverAuth only": lab.client_server_only,
            "no extended key usage": make("Plain", root, usage=[]),
            "key usage without signatures": make("Encrypts", root, extensions=[key_usage("key_encipherment")]),
            "below one intermediate": lab.clients_below[1],
            "below three intermediates": deep,
            "below five intermediates": lab.clients_below[5],
            "without its chain": lab.client_no_chain,
            "chain in the wrong order": reordered(directory, "wrong-order", deep, 0, 3, 1, 2),
            "chain with a gap": reordered(directory, "gap", deep, 0, 1, 3),
            "below an expired CA": make("Below Expired", expired_middle),
            "below a CA for servers": make("Below Server", server_middle),
            "below a client": make("Below Client", no_ca),
            "a CA that only signs": only_signs,
            "a CA of any use": self.middle,
            "the root itself": root,
        }


GETS_IN = frozenset(
    {
        "good",
        "no extended key usage",
        "below one intermediate",
        "below three intermediates",
        "chain in the wrong order",  # RFC 8446, 4.4.2: only the first must be in its place
        # Both have the root's trust and no restriction: who holds such a key could make any client's certificate.
        "a CA of any use",
        "the root itself",
    }
)

# What the log says of the others; "{}" stands for an ordinary client's subject.
SAYS = {
    "another CA's": "it was issued by /CN=Other CA, which is no CA that is trusted here or .* sent: {}",
    "self-signed": "it is self-signed, and not trusted here: {}",
    "expired": "it expired on 20[0-9-]{8} [0-9:]{8} UTC: {}",
    "not yet valid": "it is not valid before 20[0-9-]{8} [0-9:]{8} UTC: {}",
    "serverAuth only": "certificate is not meant for clients: no clientAuth in its extended key usage: {}",
    "key usage without signatures": "certificate is not meant for clients: its key usage does not allow signatures: "
    "/CN=Encrypts",
    "below five intermediates": r"more than 4 intermediate CAs \(ssl-verify-depth\): the CA above it, /CN=",
    "without its chain": "it was issued by /CN=Lab Intermediate 1, which is no CA .*: {}",
    "chain with a gap": "it was issued by /CN=Lab Intermediate 2, which is no CA .*: the CA above it, "
    "/CN=Lab Intermediate 3",
    "below an expired CA": "it expired on .*: the CA above it, /CN=Expired CA",
    "below a CA for servers": "no clientAuth in its extended key usage: the CA above it, /CN=Server CA",
    "below a client": "/CN=No CA",
    "a CA that only signs": "its key usage does not allow signatures: /CN=Signing CA",
}
EVERYBODY = (*SAYS, *sorted(GETS_IN), "nothing")


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.fixture(scope="module")
def people(directory: Path) -> People:
    return People(directory)


# --- where they come to -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Door:
    """Where a policy holds: a port, and the name to ask for there."""

    port: int
    name: str = "server.lab"


MANDATORY, OPTIONAL, OPEN = Door(443), Door(444), Door(445)
NAMED_MANDATORY, NAMED_OPTIONAL = Door(445, "required.lab"), Door(445, "optional.lab")
SHALLOW, FLAT = Door(446), Door(447)
ALLOWED, ALLOWED_OPTIONAL, NAMED_ALLOWED = Door(448), Door(449), Door(445, "allowed.lab")
REVOKES, NO_CRL, OLD_CRL, NAMED_REVOKES = Door(450), Door(451), Door(452), Door(445, "revokes.lab")

DOORS = {
    "mandatory": MANDATORY,
    "optional": OPTIONAL,
    "mandatory by name": NAMED_MANDATORY,
    "optional by name": NAMED_OPTIONAL,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got: the application's variables, or OpenSSL's word for the alert that it got instead."""

    body: Any  # the JSON of it
    alert: str = ""
    session: ssl.SSLSession | None = None
    resumed: bool | None = None

    @property
    def environ(self) -> dict[str, str]:
        """What the application says of its variables."""
        return dict(self.body)


@dataclass(frozen=True, slots=True)
class Place:
    daemon: Daemon
    host: str

    def visit(
        self,
        door: Door,
        client: Issued | None,
        version: ssl.TLSVersion,
        *fields: str,
        session: ssl.SSLSession | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        """One connection with one request."""
        context = context or client_context(client, version)
        request = "\r\n".join(["GET / HTTP/1.1", f"Host: {door.name}", "Connection: close", *fields, "", ""])
        received = b""
        with socket.create_connection((self.host, door.port), SECONDS) as sock:
            try:
                with context.wrap_socket(sock, server_hostname=door.name, session=session) as tls:
                    tls.sendall(request.encode("latin-1"))
                    while data := tls.recv(65536):
                        received += data
                    if not received:
                        return Answer({}, "end")
                    return Answer(json.loads(received.partition(b"\r\n\r\n")[2]), "", tls.session, tls.session_reused)
            except ssl.SSLError as error:
                assert not received
                return Answer({}, error.reason or str(error))
            except (ConnectionResetError, BrokenPipeError):  # the request was on its way when the server left
                return Answer({}, "reset")

    def says(self, pattern: str, visit: Callable[[], object]) -> None:
        """That a visit makes the log say so; another is made where too many lines in one second left it out."""
        line = f"TLS handshake failed \\(client 127\\.[^()]*\\): {pattern}"

        def said() -> bool:
            visit()
            try:
                self.daemon.wait_for_line(line, 1.0)
            except AssertionError:
                return False
            return True

        wait_until(said, SECONDS, lambda: f"no line {line!r}:\n{self.daemon.log}")


def client_context(client: Issued | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=pki().ca.crt)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # an end without close_notify is an error here
    context.check_hostname = False  # all names have the same certificate here
    context.minimum_version = context.maximum_version = version
    if client is not None:
        context.load_cert_chain(client.crt, client.key_file)
    return context


@pytest.fixture(scope="module")
def place(directory: Path, people: People) -> Iterator[Place]:
    lab = pki()
    (directory / "app.py").write_text(APPLICATION)
    root_crl = crl(lab.ca, people.revoked, people.revoked_middle)
    (directory / "all.crl").write_bytes(root_crl + crl(people.middle) + crl(people.revoked_middle))
    (directory / "root.crl").write_bytes(root_crl)
    (directory / "old.crl").write_bytes(crl(lab.ca, days=(-30, -1)))
    host = loopback()
    identity = f"cert={lab.server_ec.crt},key={lab.server_ec.key_file}"

    def listener(door: Door, *more: str) -> list[str]:
        where = f"addr={host}:{door.port}" if door.name == "server.lab" else f"name={door.name}"
        option = "--https2" if door.name == "server.lab" else "--sni2"
        return [option, ",".join([where, identity, *more])]

    mandatory, optional = f"clientca=!{lab.ca.crt}", f"clientca={lab.ca.crt}"
    spki = lab.client_other_ca.certificate.fingerprint(hashes.SHA256()).hex()  # of nobody who gets in
    allow = ("allow=cn:Client 02", "allow=dns:a.lab", f"allow=spki:{spki}")
    arguments = [
        *listener(MANDATORY, mandatory),
        *listener(OPTIONAL, optional),
        *listener(OPEN),
        *listener(NAMED_MANDATORY, mandatory),
        *listener(NAMED_OPTIONAL, optional),
        *listener(SHALLOW, mandatory, "depth=1"),
        *listener(FLAT, mandatory, "depth=0"),
        *listener(ALLOWED, mandatory, *allow),
        *listener(ALLOWED_OPTIONAL, optional, *allow),
        *listener(NAMED_ALLOWED, mandatory, *allow),
        *listener(REVOKES, mandatory, f"crl={directory / 'all.crl'}"),
        *listener(NO_CRL, mandatory, f"crl={directory / 'root.crl'}"),
        *listener(OLD_CRL, mandatory, f"crl={directory / 'old.crl'}"),
        *listener(NAMED_REVOKES, mandatory, f"crl={directory / 'all.crl'}"),
    ]
    with uwsgi_tls(*arguments, "--wsgi-file", "app.py", "--https-export-cert", cwd=directory) as daemon:
        daemon.wait_for_workers(1)
        yield Place(daemon, host)


# --- who gets in ------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("where", DOORS)
def test_who_gets_in(place: Place, people: People, where: str, version: ssl.TLSVersion) -> None:
    """With "optional" a bad certificate is refused all the same, and only none is as good as a good one."""
    assert set(EVERYBODY) == set(people.everybody)
    door, got_in = DOORS[where], set()
    for who, client in people.everybody.items():
        answer = place.visit(door, client, version)
        if not answer.environ:
            assert answer.alert, who
            continue
        got_in.add(who)
        seen = answer.environ
        assert seen["HTTPS_SNI"] == door.name
        assert seen["SSL_CLIENT_VERIFY"] == seen["HTTPS_VERIFY"] == ("NONE" if client is None else "SUCCESS")
        if client is None:
            said = {name for name in seen if name.startswith(("SSL_CLIENT_", "HTTPS_C", "HTTPS_D"))}
            assert said == {"HTTPS_CIPHER", "SSL_CLIENT_VERIFY"}
        else:
            assert seen["HTTPS_CC"] == seen["SSL_CLIENT_CERT"] == client.pem
            assert seen["HTTPS_CLIENT_CERTIFICATE"].encode("latin-1") == client.der
    assert got_in == (GETS_IN | {"nothing"} if "optional" in where else GETS_IN)


@both_versions
def test_where_nobody_is_asked(place: Place, people: People, version: ssl.TLSVersion) -> None:
    for who in ("nothing", "good", "self-signed", "expired"):
        seen = place.visit(OPEN, people.everybody[who], version).environ
        assert (seen["SSL_CLIENT_VERIFY"], seen["HTTPS_VERIFY"]) == ("NONE", "NONE")
        assert "HTTPS_DN" not in seen


ALERTS = {
    "another CA's": "UNKNOWN_CA",
    "self-signed": "UNKNOWN_CA",
    "expired": "CERTIFICATE_EXPIRED",
    "not yet valid": "BAD_CERTIFICATE",
    "serverAuth only": "UNSUPPORTED_CERTIFICATE",
    "below five intermediates": "UNKNOWN_CA",
}


@both_versions
@pytest.mark.parametrize("who", ALERTS)
def test_the_alert_tells_the_client(place: Place, people: People, who: str, version: ssl.TLSVersion) -> None:
    """An alert that is sent last can be overtaken by the reset that a late request brings about: so none is sent."""
    context = client_context(people.everybody[who], version)
    with (
        socket.create_connection((place.host, MANDATORY.port), SECONDS) as sock,
        pytest.raises(ssl.SSLError) as caught,
        context.wrap_socket(sock, server_hostname="server.lab") as tls,
    ):
        tls.recv(1)
    assert str(caught.value.reason).endswith(f"ALERT_{ALERTS[who]}")


@pytest.mark.parametrize("who", SAYS)
def test_the_log_says_why_not(place: Place, people: People, who: str) -> None:
    subject = CLIENT_DN.replace("/", "/").replace(".", r"\.")
    pattern = f"client certificate refused: .*{SAYS[who].replace('{}', subject)}"
    place.says(pattern, lambda: place.visit(NAMED_OPTIONAL, people.everybody[who], TLS_1_3))


def test_the_log_says_that_one_is_required(place: Place) -> None:
    visit = lambda: place.visit(NAMED_MANDATORY, None, TLS_1_3)  # noqa: E731 - it is used once
    place.says("the client sent no certificate, and one is required", visit)


@both_versions
@pytest.mark.parametrize(
    ("door", "deepest"), [(FLAT, 0), (SHALLOW, 1), (MANDATORY, 4)], ids=["depth 0", "depth 1", "the default"]
)
def test_depth(place: Place, door: Door, deepest: int, version: ssl.TLSVersion) -> None:
    """How many CAs may stand between a client and the trusted one."""
    got_in = [bool(place.visit(door, client, version).environ) for client in pki().clients_below]
    assert got_in == [below <= deepest for below in range(len(got_in))]


# --- revocation -------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("door", [REVOKES, NAMED_REVOKES], ids=["listener", "name"])
def test_revoked(place: Place, people: People, door: Door, version: ssl.TLSVersion) -> None:
    presents = {"good": pki().client, "below": people.below_middle}
    presents |= {"revoked": people.revoked, "below revoked": people.below_revoked, "CA": people.revoked_middle}
    got_in = {who for who, client in presents.items() if place.visit(door, client, version).environ}
    assert got_in == {"good", "below"}
    assert place.visit(MANDATORY, people.revoked, version).environ, "that is what a CRL is for"


@both_versions
def test_a_crl_for_every_ca(place: Place, people: People, version: ssl.TLSVersion) -> None:
    """Without one nobody can say that a client is not revoked, nor with one that has ended."""
    assert place.visit(NO_CRL, pki().client, version).environ
    assert not place.visit(NO_CRL, people.below_middle, version).environ
    assert not place.visit(NO_CRL, people.revoked, version).environ
    assert not place.visit(OLD_CRL, pki().client, version).environ


def test_the_log_says_what_is_revoked(place: Place, people: People) -> None:
    serial = f"{people.revoked.certificate.serial_number:X}"
    for pattern, door, client in (
        (rf"it was revoked \(serial {serial}\): /CN=Revoked ", REVOKES, people.revoked),
        (r"it was revoked \(serial [0-9A-F]+\): the CA above it, /CN=Revoked CA", REVOKES, people.below_revoked),
        (r"the CRL of its issuer /CN=Middle CA is missing \(ssl-crl\): /CN=Below ", NO_CRL, people.below_middle),
        (r"the CRL of its issuer /CN=Lab CA has expired: ", OLD_CRL, pki().client),
    ):

        def visit(door: Door = door, client: Issued = client) -> Answer:
            return place.visit(door, client, TLS_1_3)

        place.says(f"client certificate refused: {pattern}".removesuffix(" "), visit)


# --- client-allow -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed(directory: Path) -> Issued:
    sans = [x509.DNSName("b.lab"), x509.DNSName("A.lab")]
    return issue(directory, "listed", common_name("x"), pki().ca, usage=[CLIENT], sans=sans)


@both_versions
@pytest.mark.parametrize("door", [ALLOWED, ALLOWED_OPTIONAL, NAMED_ALLOWED], ids=["mandatory", "optional", "name"])
def test_client_allow(place: Place, people: People, listed: Issued, door: Door, version: ssl.TLSVersion) -> None:
    """Who is verified and is none of those ends before any request; who has no certificate as the site says."""
    assert place.visit(door, listed, version).environ["SSL_CLIENT_SAN_DNS_1"] == "A.lab"
    for client in (pki().client, people.below_middle, pki().client_other_ca):
        assert not place.visit(door, client, version).body
    assert place.visit(door, pki().client, version).alert == "end", "in due form"
    assert bool(place.visit(door, None, version).body) is (door is ALLOWED_OPTIONAL)


@both_versions
def test_client_allow_when_resumed(place: Place, listed: Issued, version: ssl.TLSVersion) -> None:
    """Its session is good where it began. One of a client that had to go is not; nor is one that began elsewhere."""
    context = client_context(listed, version)
    first = place.visit(ALLOWED, listed, version, context=context)
    again = place.visit(ALLOWED, listed, version, context=context, session=first.session)
    assert (first.resumed, again.resumed) == (False, True)
    proved = {name for name in first.environ if name.startswith(("HTTPS", "SSL_"))} - {"SSL_SESSION_RESUMED"}
    assert {name: again.environ[name] for name in proved} == {name: first.environ[name] for name in proved}
    assert (first.environ["SSL_SESSION_RESUMED"], again.environ["SSL_SESSION_RESUMED"]) == ("Initial", "Resumed")
    other = client_context(pki().client, version)
    elsewhere = place.visit(MANDATORY, pki().client, version, context=other)
    assert elsewhere.environ
    moved = place.visit(ALLOWED, pki().client, version, context=other, session=elsewhere.session)
    assert not moved.environ


def test_the_log_names_who_is_not_allowed(place: Place) -> None:
    pattern = f"client certificate refused: no client-allow matches {CLIENT_DN}"
    place.says(pattern, lambda: place.visit(ALLOWED, pki().client, TLS_1_3))


# --- what the application hears ---------------------------------------------------------------------------

FORGED = (
    *("HTTPS_DN: forged", "HTTPS-DN: forged", "Https-Cc: forged", "HTTPS_VERIFY: forged", "HTTPS-Verify: forged"),
    *("SSL_CLIENT_VERIFY: forged", "Ssl-Client-Verify: forged", "SSL-CLIENT-S-DN: forged", "Ssl_Client_Cert: forged"),
    *("SSL-Client-SAN-DNS-0: forged", "SSL-Session-Resumed: forged", "HTTPS-SNI: forged", "SSL-Protocol: forged"),
    *("Client-Cert: :forged:", "CLIENT_CERT: :forged:", "Client-Cert-Chain: :forged:"),
)


@both_versions
@pytest.mark.parametrize("with_certificate", [False, True])
def test_no_header_becomes_one_of_them(place: Place, with_certificate: bool, version: ssl.TLSVersion) -> None:
    """All that a client's field can become is HTTP_*; and Client-Cert, which is believed as that, not even that."""
    client = pki().client if with_certificate else None
    plain, forged = (place.visit(OPTIONAL, client, version, *fields).environ for fields in ((), FORGED))
    with_forgery = {name for name, value in forged.items() if "forged" in value}
    assert all(name.startswith(("HTTP_HTTPS_", "HTTP_SSL_")) for name in with_forgery)
    ours = {name: value for name, value in plain.items() if name.startswith(("HTTPS", "SSL_"))}
    assert {name: value for name, value in forged.items() if name.startswith(("HTTPS", "SSL_"))} == ours


@both_versions
def test_the_same_on_every_request(place: Place, version: ssl.TLSVersion) -> None:
    context = client_context(pki().client, version)
    seen = []
    with (
        socket.create_connection((place.host, MANDATORY.port), SECONDS) as sock,
        context.wrap_socket(sock, server_hostname="server.lab") as tls,
    ):
        for _ in range(3):
            tls.sendall(b"GET / HTTP/1.1\r\nHost: server.lab\r\n\r\n")
            received = b""
            while not received.endswith((b"}", b"}\r\n0\r\n\r\n")):
                data = tls.recv(65536)
                assert data
                received += data
            body = received.partition(b"\r\n\r\n")[2]
            environ = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
            seen.append({name: value for name, value in environ.items() if name.startswith(("HTTPS", "SSL_"))})
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["HTTPS_DN"] == CLIENT_DN


ENDS_SECONDS = 12


@pytest.mark.parametrize("what", ["certificate", "CA", "CRL"])
def test_what_ends_while_the_server_runs(what: str) -> None:
    """Nobody is served on by a proof that has ended, neither on a kept connection nor with a session."""
    lab, days = pki(), ENDS_SECONDS / 86400
    with open_directory() as directory:
        ca = issue(directory, "ca", common_name("CA"), authority=True, days=(-1, days if what == "CA" else 1))
        client = issue(directory, "client", common_name("c"), ca, days=(-1, days if what == "certificate" else 1))
        (directory / "crl").write_bytes(revocation_list(ca, days=(-1, days if what == "CRL" else 1)))
        ends = time.time() + ENDS_SECONDS  # and the clock of certificates has whole seconds
        host = loopback()
        files = f"{lab.server_ec.crt},{lab.server_ec.key_file}"
        options = ("--https", f"{host}:443,{files},,!{ca.crt}", "--ssl-crl", str(directory / "crl"))
        (directory / "app.py").write_text(APPLICATION)
        with uwsgi_tls(*options, "--wsgi-file", "app.py", cwd=directory) as daemon, contextlib.ExitStack() as stack:
            daemon.wait_for_workers(1)
            place, door = Place(daemon, host), Door(443)
            visitors = {}
            for version in (TLS_1_2, TLS_1_3):
                context = client_context(client, version)
                context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
                session = place.visit(door, None, version, context=context).session
                assert place.visit(door, None, version, session=session, context=context).resumed
                sock = stack.enter_context(socket.create_connection((host, door.port), SECONDS))
                kept = stack.enter_context(context.wrap_socket(sock, server_hostname=door.name))
                visitors[version] = context, session, kept
            for _, _, kept in visitors.values():
                kept.sendall(b"HEAD / HTTP/1.1\r\nHost: server.lab\r\n\r\n")
                assert kept.recv(65536).startswith(b"HTTP/1.1 200 OK")
            assert time.time() < ends - 1, "the machine is too slow for this test"
            wait_until(lambda: time.time() > ends + 1, ENDS_SECONDS + 2, lambda: "")
            for version, (context, session, kept) in visitors.items():
                kept.sendall(b"HEAD / HTTP/1.1\r\nHost: server.lab\r\n\r\n")
                assert kept.recv(65536) == b""
                answer = place.visit(door, None, version, session=session, context=context)
                assert not answer.environ
                assert answer.alert


class Echo(BaseHTTPRequestHandler):
    """Answers with the header fields that came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(list(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@both_versions
def test_client_cert_field_for_http_backends(directory: Path, version: ssl.TLSVersion) -> None:
    """RFC 9440: one Client-Cert, ours, if a certificate was verified; also in a resumed session."""
    server, lab, host = pki().server_ec, pki(), loopback()
    listener = f"{host}:443,{server.crt},{server.key_file},,{lab.ca.crt}"
    node = ThreadingHTTPServer((host, 0), Echo)
    thread = threading.Thread(target=node.serve_forever)
    thread.start()
    options = ("--https", listener, "--http-to", f"{host}:{node.server_port}", "--http-backend-http")
    try:
        with uwsgi_tls(*options, cwd=directory) as daemon:
            daemon.wait_for_workers(1)
            place = Place(daemon, host)
            for client in (None, lab.client):
                context, session = client_context(client, version), None
                for resumed in (False, True):
                    answer = place.visit(MANDATORY, client, version, *FORGED, session=session, context=context)
                    assert answer.resumed is resumed
                    session = answer.session
                    fields = [(name, value) for name, value in answer.body if name.lower().startswith("client")]
                    expected = f":{base64.b64encode(lab.client.der).decode()}:"
                    assert fields == ([("Client-Cert", expected)] if client else [])
    finally:
        node.shutdown()
        thread.join()
        node.server_close()


def test_a_certificate_full_of_everything(place: Place, directory: Path) -> None:
    """A name of 4 kB, 60 alternative names, separators, control characters: all of it arrives, and nothing else.

    But for HTTPS_DN, which could not be told from another's.
    """
    odd = 'a/CN=root,CN=root+CN=root"\\;\r\nHTTPS_VERIFY: x\0\x1b\x85é☃'
    subject = name((NameOID.ORGANIZATION_NAME, odd * 80), (NameOID.COMMON_NAME, odd))
    sans: list[x509.GeneralName] = [x509.DNSName(f"n{number}.{'x' * 50}.lab") for number in range(60)]
    client = issue(directory, "full", subject, pki().ca, usage=[CLIENT], sans=sans)
    seen = place.visit(OPTIONAL, client, TLS_1_3).environ
    with (
        Node(directory / "node") as node,
        front(node, options=["--https-export-cert"], client_ca=pki().ca.crt) as (
            _,
            host,
        ),
    ):
        with UwsgiClient(host, certificate=client) as connection:
            assert connection.get().status == 200
        sent = node.calls[0].variables
    for told in (seen, sent):
        assert told["HTTPS_CLIENT_CERTIFICATE"].encode("latin-1") == client.der
        assert told["HTTPS_CC"] == told["SSL_CLIENT_CERT"] == client.pem
        assert "HTTPS_DN" not in told
        assert told["SSL_CLIENT_S_DN"] == seen["SSL_CLIENT_S_DN"]
        assert [told[f"SSL_CLIENT_SAN_DNS_{number}"] for number in range(60)] == [san.value for san in sans]
        assert told["HTTPS_VERIFY"] == "SUCCESS"
    assert len(seen["SSL_CLIENT_S_DN"]) > 4096
    assert seen["SSL_CLIENT_S_DN"].isascii()
    assert seen["SSL_CLIENT_S_DN"].isprintable()


def test_a_certificate_that_does_not_fit_into_a_packet(place: Place, directory: Path) -> None:
    """Each request is answered with 431, and the application of the worker itself, which needs no packet, has it."""
    subject = name(*((NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60) for _ in range(300)))
    client = issue(directory, "large", subject, pki().ca, usage=[CLIENT])
    assert place.visit(OPTIONAL, client, TLS_1_3).environ["SSL_CLIENT_CERT"] == client.pem
    with (
        Node(directory / "node") as node,
        front(node, options=["--https-export-cert"], client_ca=pki().ca.crt) as (
            _,
            host,
        ),
    ):
        with UwsgiClient(host, certificate=client) as connection:
            answers = [connection.get() for _ in range(2)]
        assert [(answer.status, answer.stays) for answer in answers] == [(431, True)] * 2
        assert not node.calls


# --- other programs ---------------------------------------------------------------------------------------


def openssl(place: Place, client: Issued | None, version: ssl.TLSVersion, door: Door) -> str:
    identity = ["-cert", client.crt, "-key", client.key_file, "-cert_chain", client.crt] if client else []
    return _pipe(
        *("openssl", "s_client", "-connect", f"{place.host}:{door.port}", "-servername", door.name, "-quiet"),
        *("-no_ign_eof", "-CAfile", pki().ca.crt, "-tls1_2" if version == TLS_1_2 else "-tls1_3", *identity),
        request=f"GET / HTTP/1.1\r\nHost: {door.name}\r\nConnection: close\r\n\r\n",
    )


def gnutls(place: Place, client: Issued | None, version: ssl.TLSVersion, door: Door) -> str:
    identity = ["--x509certfile", client.crt, "--x509keyfile", client.key_file] if client else []
    priority = f"NORMAL:-VERS-ALL:+VERS-TLS{'1.2' if version == TLS_1_2 else '1.3'}"
    return _pipe(
        *("gnutls-cli", "--logfile=/dev/null", "--no-ca-verification", "--priority", priority, *identity),
        *("--sni-hostname", door.name, "--port", str(door.port), place.host),
        request=f"GET / HTTP/1.1\r\nHost: {door.name}\r\nConnection: close\r\n\r\n",
    )


def _pipe(*command: str, request: str) -> str:
    """What a program prints of the answer to a request on its standard input, which stays open meanwhile."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request.encode())
            process.stdin.flush()
        except BrokenPipeError:  # it has been turned away already
            pass
        received = process.stdout.read()  # to its end, which the server brings about
        process.kill()
    return received.decode("latin-1")


def curl_(place: Place, client: Issued | None, version: ssl.TLSVersion, door: Door) -> str:
    identity = ["--cert", client.crt, "--key", client.key_file] if client else []
    number = "1.2" if version == TLS_1_2 else "1.3"
    limits = ["--tlsv" + number, "--tls-max", number]
    url = f"https://{door.name}:{door.port}/"
    done = curl(url, "--include", "--insecure", *limits, *identity, host=place.host)
    return done.stdout


@both_versions
@pytest.mark.parametrize("door", [MANDATORY, NAMED_OPTIONAL], ids=["mandatory", "optional by name"])
@pytest.mark.parametrize("program", [openssl, gnutls, curl_], ids=["openssl", "gnutls", "curl"])
def test_other_programs(
    place: Place,
    people: People,
    program: Callable[[Place, Issued | None, ssl.TLSVersion, Door], str],
    door: Door,
    version: ssl.TLSVersion,
) -> None:
    for who in ("nothing", "good", "below three intermediates", "another CA's", "expired", "serverAuth only"):
        output = program(place, people.everybody[who], version, door)
        expected = who in GETS_IN or (who == "nothing" and door is NAMED_OPTIONAL)
        assert output.startswith("HTTP/1.1 200 OK") is expected, (who, output)
        if expected:
            seen = json.loads(output.replace("\r\n", "\n").partition("\n\n")[2])
            assert seen.get("HTTPS_DN") == (None if who == "nothing" else CLIENT_DN)
