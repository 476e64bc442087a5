"""tls.py: what a context lets through, and what a handshake is said to have proved.

The handshakes are real: ours, with a client in a thread (Python's ssl) or in a process (`openssl s_client`).
"""

import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID, ObjectIdentifier
from OpenSSL import SSL
from pki import CLIENT, CLIENT_DN, Issued, Pki, common_name, issue, key_pem, pki, write_secret

from uwsgi_tls import certificates, tls
from uwsgi_tls.addresses import SharedAddress, TcpAddress
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener
from uwsgi_tls.tls import TlsFacts, build_context, client_variables, facts, reason

if TYPE_CHECKING:  # generic only in newer versions of cryptography
    NameAttribute = x509.NameAttribute[Any]

SECONDS = 20  # no handshake takes so long; what takes longer hangs
TLS_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
CAN_NAME_GROUPS = hasattr(SSL.Connection, "get_group_name")  # pyOpenSSL 26.0

both_versions = pytest.mark.parametrize("version", TLS_VERSIONS, ids=["tls1.2", "tls1.3"])


@pytest.fixture(scope="session")
def lab() -> Pki:
    return pki()


def option(server: Issued, ciphers: str = "", client_ca: str = "", required: bool = False) -> HttpsListener:
    text = f"=0,{server.crt},{server.key_file}"
    return HttpsListener(SharedAddress(0), server.crt, server.key_file, ciphers, client_ca, required, text)


@dataclass
class Server:
    """What the server's side of one connection saw."""

    reason: str = ""  # why there is no connection
    facts: TlsFacts | None = None
    variables: tuple[tuple[str, str], ...] = ()

    def serve(self, context: SSL.Context, sock: socket.socket) -> None:
        """Shake hands and say what that proved, in one line of JSON; then close as a server does."""
        conn = SSL.Connection(context, sock)
        conn.set_accept_state()
        try:
            conn.do_handshake()
            self.variables = client_variables(conn, export_cert=True)
            self.facts = facts(conn)
            conn.send(json.dumps(asdict(self.facts)).encode() + b"\n")
            conn.shutdown()
            sock.shutdown(socket.SHUT_WR)
            while conn.recv(65536):  # until the client closes too, so that nothing unread resets the connection
                pass
        except SSL.Error as error:
            if self.facts is None:
                self.reason = reason(error, conn)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.variables]


@dataclass
class Client:
    """What Python's ssl saw of one connection."""

    error: str = ""  # OpenSSL's reason
    received: bytes = b""
    cipher: str = ""
    alpn: str | None = None
    resumed: bool | None = None
    session: ssl.SSLSession | None = None

    def talk(self, context: ssl.SSLContext, sock: socket.socket, session: ssl.SSLSession | None) -> None:
        sock.settimeout(SECONDS)
        try:
            with context.wrap_socket(sock, server_hostname="server.lab", session=session) as wrapped:
                while data := wrapped.recv(65536):  # in TLS 1.3 only this shows a refused certificate
                    self.received += data
                self.cipher = (wrapped.cipher() or ("",))[0]
                self.alpn = wrapped.selected_alpn_protocol()
                self.resumed, self.session = wrapped.session_reused, wrapped.session
        except ssl.SSLError as error:
            self.error = error.reason or str(error)
        except OSError as error:
            self.error = type(error).__name__


def client_context(
    lab: Pki,
    version: ssl.TLSVersion | None = None,
    identity: Issued | None = None,
    ciphers: str = "",
    alpn: list[str] | None = None,
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=lab.ca.crt)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if identity is not None:
        context.load_cert_chain(identity.crt, identity.key_file)
    if ciphers:
        context.set_ciphers(ciphers)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def handshake(
    server_context: SSL.Context, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[Server, Client]:
    ours, theirs = socket.socketpair()
    server, client = Server(), Client()
    thread = threading.Thread(target=client.talk, args=(context, theirs, session))
    with ours, theirs:
        thread.start()
        server.serve(server_context, ours)
        ours.close()
        thread.join(SECONDS)
    assert not thread.is_alive()
    return server, client


@contextlib.contextmanager
def tcp_server(context: SSL.Context) -> Iterator[tuple[str, list[Server]]]:
    """A server for s_client: its "host:port", and what it saw of each connection in turn."""
    seen: list[Server] = []

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            with sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", SECONDS, 0))
                if done.is_set():
                    return
                seen.append(Server())
                seen[-1].serve(context, sock)

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{where[1]}", seen
        finally:
            done.set()
            socket.create_connection(where).close()
            thread.join(SECONDS)
    assert not thread.is_alive()


def s_client(where: str, *arguments: str, stdin: str = "") -> str:
    command = ["openssl", "s_client", "-connect", where, "-servername", "server.lab", "-ign_eof", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout + done.stderr


# Protocol and ciphers


@both_versions
@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_a_handshake_and_its_facts(version: ssl.TLSVersion, kind: str, lab: Pki) -> None:
    context = build_context(option(lab.server if kind == "RSA" else lab.server_ec))
    server, client = handshake(context, client_context(lab, version))
    assert (server.reason, client.error) == ("", "")
    assert server.variables == (("HTTPS", "on"),)
    assert server.facts is not None
    assert server.facts == TlsFacts(
        protocol={TLS_VERSIONS[0]: "TLSv1.2", TLS_VERSIONS[1]: "TLSv1.3"}[version],
        cipher=client.cipher,
        group=server.facts.group,
        sni="server.lab",
        alpn="",
        resumed=False,
        client_verify="NONE",
    )
    assert json.loads(client.received) == asdict(server.facts)
    assert bool(server.facts.group) == CAN_NAME_GROUPS


@pytest.mark.parametrize("old", ["-tls1_1", "-tls1"])
def test_older_protocols_are_refused_whatever_the_ciphers(old: str, lab: Pki) -> None:
    with tcp_server(build_context(option(lab.server, "ALL:@SECLEVEL=0"))) as (where, seen):
        assert "alert protocol version" in s_client(where, old, "-cipher", "ALL:@SECLEVEL=0")
    assert seen[0].reason == "the client offers no TLS version that is allowed here"


@both_versions
def test_the_client_chooses_unless_ciphers_are_given(version: ssl.TLSVersion, lab: Pki) -> None:
    strong, fast = "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"

    def chosen(server: str, client: str) -> str:
        return handshake(build_context(option(lab.server, server)), client_context(lab, version, ciphers=client))[
            1
        ].cipher

    if version == ssl.TLSVersion.TLSv1_3:
        assert chosen("HIGH", fast) == "TLS_AES_256_GCM_SHA384"  # the list is TLS 1.2's alone
        return
    assert chosen("", f"{strong}:{fast}") == strong
    assert chosen("", f"{fast}:{strong}") == fast
    assert chosen(f"{strong}:{fast}", f"{fast}:{strong}") == strong
    assert chosen(f"{fast}:{strong}", f"{strong}:{fast}") == fast


def test_the_default_ciphers_are_mozillas(lab: Pki) -> None:
    words = SSL.Connection(build_context(option(lab.server))).get_cipher_list()
    assert [word for word in words if not word.startswith("TLS_")] == tls.INTERMEDIATE_CIPHERS.split(":")
    assert not handshake(build_context(option(lab.server)), client_context(lab, ciphers="ALL"))[1].error
    server, client = handshake(
        build_context(option(lab.server)), client_context(lab, ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA")
    )
    assert server.reason == "the client offers no cipher that is allowed here"
    assert client.error == "SSLV3_ALERT_HANDSHAKE_FAILURE"


@pytest.mark.parametrize("ciphers", ["HIGH", "ALL", "ALL:eNULL:@SECLEVEL=0", "HIGH:ADH:PSK:SRP", "HIGH:+aNULL"])
def test_no_cipher_without_a_certificate_or_encryption(ciphers: str, lab: Pki) -> None:
    context = build_context(option(lab.server, ciphers))
    with tcp_server(context) as (where, seen):
        for weak in ("aNULL", "eNULL"):
            assert "handshake failure" in s_client(where, "-tls1_2", "-cipher", f"{weak}:@SECLEVEL=0")
        assert "Cipher is AES128-SHA" in s_client(where, "-tls1_2", "-cipher", "AES128-SHA")
    assert [bool(server.reason) for server in seen] == [True, True, False]
    words = SSL.Connection(context).get_cipher_list()
    assert words
    assert not any(
        "NULL" in word or "PSK" in word or "SRP" in word or word.startswith(("ADH", "AECDH")) for word in words
    )


def test_groups_are_left_to_openssl(lab: Pki) -> None:
    """uWSGI pins P-256, so that clients with X25519 alone fail."""
    with tcp_server(build_context(option(lab.server))) as (where, seen):
        for group in ("X25519", "P-384", "P-256"):
            assert '"protocol": "TLSv1.3"' in s_client(where, "-groups", group)
    names = [server.facts.group.upper() for server in seen if server.facts]
    assert names == (["X25519", "SECP384R1", "SECP256R1"] if CAN_NAME_GROUPS else ["", "", ""])


def test_renegotiation_is_refused(lab: Pki) -> None:
    context = build_context(option(lab.server))
    options = context.set_options(0)
    assert options & SSL.OP_NO_RENEGOTIATION  # OpenSSL 3 refuses it by default too
    assert options & SSL.OP_NO_COMPRESSION
    seen: list[str] = []

    def serve(sock: socket.socket) -> None:
        conn = SSL.Connection(context, sock)
        conn.set_accept_state()
        try:
            while True:
                seen.append(conn.recv(100).decode())
        except SSL.Error as error:
            seen.append(reason(error, conn))

    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=serve, args=(ours,))
        thread.start()
        client_side = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client_side.set_max_proto_version(SSL.TLS1_2_VERSION)
        client = SSL.Connection(client_side, theirs)
        client.set_connect_state()
        client.do_handshake()
        client.send(b"before")
        assert client.renegotiate()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            client.do_handshake()
        theirs.close()
        thread.join(SECONDS)
    assert seen == ["before", "the client refused, with the alert: handshake failure"]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None), (["http/1.0"], None), ([], None)],
)
def test_alpn_promises_http_1_1_alone(offered: list[str], chosen: str | None, lab: Pki) -> None:
    server, client = handshake(build_context(option(lab.server)), client_context(lab, alpn=offered))
    assert (client.error, client.alpn) == ("", chosen)
    assert server.facts is not None
    assert server.facts.alpn == (chosen or "")


def test_the_whole_chain_is_sent(lab: Pki) -> None:
    sans = [x509.DNSName("server.lab")]
    server = issue(lab.directory, "server-below", common_name("x"), intermediate(lab), sans=sans)
    assert not handshake(build_context(option(server)), client_context(lab))[1].error


def intermediate(lab: Pki) -> Issued:
    """The authority that signed clients_below[1], with its chain."""
    stem = lab.directory / "intermediate-1"
    below = lab.clients_below[1]
    key = certificates.private_key(f"{stem}.key")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Issued(below.chain[1], key, below.chain[1:], f"{stem}.crt", f"{stem}.key")


def send_all(conn: SSL.Connection, data: bytes) -> None:
    while data:
        data = data[conn.send(data) :]


def test_a_write_may_be_partial_and_go_on_from_another_buffer(lab: Pki) -> None:
    """Without the two modes OpenSSL calls the second write a "bad write retry"."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conn = SSL.Connection(build_context(option(lab.server)), ours)
        conn.set_accept_state()
        thread = threading.Thread(target=conn.do_handshake)
        thread.start()
        wrapped = client_context(lab).wrap_socket(theirs, server_hostname="server.lab")
        thread.join(SECONDS)
        ours.setblocking(False)
        data = b"x" * 4_000_000
        first = conn.send(data)
        assert 0 < first < len(data)
        with pytest.raises(SSL.WantWriteError):
            send_all(conn, data * 10)
        wrapped.settimeout(SECONDS)
        taken = 0
        while taken < 100_000:
            taken += len(wrapped.recv(65536))
        assert conn.send(bytes(bytearray(data))) > 0
        wrapped.close()


# Client certificates: SPEC's matrix, uWSGI's outcome in each field but the last


REFUSED_NOTHING = ("the client sent no certificate, and one is required", "handshake_failure", "certificate_required")
UNKNOWN_CA = ("client certificate refused: unable to get local issuer certificate", "unknown_ca", "unknown_ca")
TOO_LONG = ("client certificate refused: certificate chain too long", "unknown_ca", "unknown_ca")
SELF_SIGNED = ("client certificate refused: self-signed certificate", "unknown_ca", "unknown_ca")
EXPIRED = ("client certificate refused: certificate has expired", "certificate_expired", "certificate_expired")
NOT_YET = ("client certificate refused: certificate is not yet valid", "bad_certificate", "bad_certificate")
PURPOSE = ("client certificate refused: unsu", "unsupported_certificate", "unsupported_certificate")

MATRIX: dict[str, tuple[Callable[[Pki], Issued | None], Any, Any]] = {
    # what the client presents, the outcome with "ca.crt", the outcome with "!ca.crt"; None is success
    "nothing": (lambda lab: None, None, REFUSED_NOTHING),
    "good": (lambda lab: lab.client, None, None),
    "another CA's": (lambda lab: lab.client_other_ca, UNKNOWN_CA, UNKNOWN_CA),
    "self-signed": (lambda lab: lab.client_self_signed, SELF_SIGNED, SELF_SIGNED),
    "expired": (lambda lab: lab.client_expired, EXPIRED, EXPIRED),
    "not yet valid": (lambda lab: lab.client_not_yet, NOT_YET, NOT_YET),
    "without its chain": (lambda lab: lab.client_no_chain, UNKNOWN_CA, UNKNOWN_CA),
    "serverAuth only": (lambda lab: lab.client_server_only, PURPOSE, PURPOSE),
    "below one intermediate": (lambda lab: lab.clients_below[1], None, None),
    "below four intermediates": (lambda lab: lab.clients_below[4], None, None),
    "below five intermediates": (lambda lab: lab.clients_below[5], TOO_LONG, TOO_LONG),
}


@both_versions
@pytest.mark.parametrize("required", [False, True], ids=["optional", "mandatory"])
@pytest.mark.parametrize("presents", MATRIX)
def test_client_certificate_matrix(version: ssl.TLSVersion, required: bool, presents: str, lab: Pki) -> None:
    who, optional, mandatory = MATRIX[presents]
    expected = mandatory if required else optional
    identity = who(lab)
    context = build_context(option(lab.server_ec, "", lab.ca.crt, required))
    server, client = handshake(context, client_context(lab, version, identity))
    if expected is not None:
        words, alert_1_2, alert_1_3 = expected
        assert server.reason.startswith(words)
        assert (server.facts, server.variables, client.received) == (None, (), b"")
        alert = alert_1_3 if version == ssl.TLSVersion.TLSv1_3 else alert_1_2
        assert client.error.lower().endswith(f"alert_{alert}")
        return
    assert (server.reason, client.error) == ("", "")
    assert server.facts is not None
    assert server.facts.client_verify == ("NONE" if identity is None else "SUCCESS")
    assert server.names == (
        ["HTTPS"] if identity is None else ["HTTPS", "HTTPS_CLIENT_CERTIFICATE", "HTTPS_DN", "HTTPS_CC"]
    )


@both_versions
def test_without_a_client_ca_nobody_is_asked(version: ssl.TLSVersion, lab: Pki) -> None:
    server, client = handshake(build_context(option(lab.server)), client_context(lab, version, lab.client))
    assert client.error == ""
    assert server.variables == (("HTTPS", "on"),)
    with tcp_server(build_context(option(lab.server))) as (where, _):
        assert "No client certificate CA names sent" in s_client(where)


def test_what_a_client_proved(lab: Pki) -> None:
    server, _ = handshake(
        build_context(option(lab.server, "", lab.ca.crt, True)), client_context(lab, None, lab.client)
    )
    certificate = lab.client.certificate
    assert server.variables == (
        ("HTTPS", "on"),
        ("HTTPS_CLIENT_CERTIFICATE", lab.client.der.decode("latin-1")),
        ("HTTPS_DN", CLIENT_DN),
        ("HTTPS_CC", lab.client.pem),
    )
    assert lab.client.pem.endswith("-----END CERTIFICATE-----\n")
    assert server.facts is not None
    fact = server.facts
    assert (fact.client_verify, fact.client_dn, fact.client_issuer) == ("SUCCESS", CLIENT_DN, "/CN=Lab CA")
    assert int(fact.client_serial, 16) == certificate.serial_number
    assert fact.client_fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    shown = subprocess.run(
        ["openssl", "x509", "-in", lab.client.crt, "-noout", "-dates", "-dateopt", "iso_8601"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    begin, end = fact.client_not_before.replace(" UTC", "Z"), fact.client_not_after.replace(" UTC", "Z")
    assert shown == f"notBefore={begin}\nnotAfter={end}\n"


def test_a_certificate_that_was_not_verified_proves_nothing(lab: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """No handshake gets there as contexts are now; should one ever, it must not pass for a proof."""

    class Doubtful:
        SSL_get_verify_result = staticmethod(lambda pointer: 18)  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    real = vars(tls)["_lib"]
    monkeypatch.setattr(tls, "_lib", Doubtful())
    server, _ = handshake(
        build_context(option(lab.server, "", lab.ca.crt, True)), client_context(lab, None, lab.client)
    )
    assert server.variables == (("HTTPS", "on"),)
    assert server.facts is not None
    assert (server.facts.client_verify, server.facts.client_dn) == ("NONE", "")


@both_versions
def test_the_pem_is_an_option(version: ssl.TLSVersion, lab: Pki) -> None:
    ours, theirs = socket.socketpair()
    client = Client()
    with ours, theirs:
        thread = threading.Thread(target=client.talk, args=(client_context(lab, version, lab.client), theirs, None))
        thread.start()
        conn = SSL.Connection(build_context(option(lab.server, "", lab.ca.crt)), ours)
        conn.set_accept_state()
        conn.do_handshake()
        assert [name for name, _ in client_variables(conn, False)] == ["HTTPS", "HTTPS_CLIENT_CERTIFICATE", "HTTPS_DN"]
        assert client_variables(conn, True)[:3] == client_variables(conn, False)
        conn.shutdown()
        ours.close()
        thread.join(SECONDS)


def test_the_names_of_the_cas_are_sent(lab: Pki) -> None:
    with tcp_server(build_context(option(lab.server, "", lab.ca_bundle))) as (where, _):
        output = s_client(where)
    names = output.partition("Acceptable client certificate CA names\n")[2].partition("\nRequested")[0]
    assert names.splitlines()[:2] == ["CN = Lab CA", "CN = Other CA"]


def test_every_ca_of_a_bundle_is_trusted(lab: Pki) -> None:
    context = build_context(option(lab.server, "", lab.ca_bundle, True))
    for client in (lab.client, lab.client_other_ca):
        assert handshake(context, client_context(lab, None, client))[0].reason == ""


def test_a_real_openssl_client(lab: Pki) -> None:
    with tcp_server(build_context(option(lab.server, "HIGH", lab.ca.crt, True))) as (where, seen):
        for version in ("-tls1_2", "-tls1_3"):
            arguments = (version, "-cert", lab.client.crt, "-key", lab.client.key_file, "-CAfile", lab.ca.crt)
            output = s_client(where, *arguments, "-verify_return_error")
            assert CLIENT_DN in output
            assert "TLS session ticket lifetime hint: 300 (seconds)" in output
            assert "alert" in s_client(where, version)
    assert [bool(server.reason) for server in seen] == [False, True, False, True]


# HTTPS_DN, byte for byte


def attribute(oid: ObjectIdentifier, value: str, kind: _ASN1Type | None = None) -> "NameAttribute":
    return x509.NameAttribute(oid, value, kind) if kind else x509.NameAttribute(oid, value)


CN, OU, O, C = (  # noqa: E741 - that is what X.520 calls it
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.COUNTRY_NAME,
)
SUBJECTS: dict[str, tuple[list[list["NameAttribute"]], str]] = {
    "escapes": (
        [[attribute(C, "IT")], [attribute(CN, 'a/CN=root+OU=x,d=e\\f"g;<>#')]],
        '/C=IT/CN=a\\/CN=root\\+OU=x,d=e\\f"g;<>#',
    ),
    "UTF-8": ([[attribute(CN, "Zoë ☃")]], r"/CN=Zo\xC3\xAB \xE2\x98\x83"),
    "control characters": ([[attribute(CN, "a\n\t\x7f\x01b")]], r"/CN=a\x0A\x09\x7F\x01b"),
    "embedded NUL": ([[attribute(CN, "good.lab\0evil.lab")]], r"/CN=good.lab\x00evil.lab"),
    # DER sorts a set by its bytes.
    "multi-valued": ([[attribute(OU, "unit"), attribute(CN, "name")], [attribute(O, "Lab")]], "/CN=name+OU=unit/O=Lab"),
    "BMPString": (
        [[attribute(CN, "bé☃/", _ASN1Type.BMPString)]],
        r"/CN=\x00b\x00\xE9&\x03\x00\/",
    ),
    "UniversalString": ([[attribute(CN, "aé", _ASN1Type.UniversalString)]], r"/CN=\x00\x00\x00a\x00\x00\x00\xE9"),
    "unnamed attribute": ([[attribute(ObjectIdentifier("1.2.3.4.5"), "x")]], "/1.2.3.4.5=x"),
    "longer than 512 bytes": ([[attribute(OU, "x" * 64)] for _ in range(40)], "/OU=" + "/OU=".join(["x" * 64] * 40)),
    "long and escaped": ([[attribute(OU, "/é" * 32)] for _ in range(20)], ("/OU=" + r"\/\xC3\xA9" * 32) * 20),
    "usual names": (
        [
            [attribute(oid, value)]
            for oid, value in (
                (NameOID.STATE_OR_PROVINCE_NAME, "RM"),
                (NameOID.LOCALITY_NAME, "Roma"),
                (NameOID.SERIAL_NUMBER, "7"),
                (NameOID.GIVEN_NAME, "g"),
                (NameOID.SURNAME, "s"),
                (NameOID.TITLE, "t"),
                (NameOID.USER_ID, "u"),
                (NameOID.DOMAIN_COMPONENT, "lab"),
                (NameOID.EMAIL_ADDRESS, "c@lab"),
            )
        ],
        "/ST=RM/L=Roma/serialNumber=7/GN=g/SN=s/title=t/UID=u/DC=lab/emailAddress=c@lab",
    ),
    "empty": ([], ""),
}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_https_dn(subject: str, lab: Pki, tmp_path: Path) -> None:
    sets, expected = SUBJECTS[subject]
    name = x509.Name([x509.RelativeDistinguishedName(each) for each in sets])
    client = issue(tmp_path, "dn", name, lab.ca, usage=[CLIENT])
    context = build_context(option(lab.server_ec, "", lab.ca.crt, True))
    server, _ = handshake(context, client_context(lab, None, client))
    assert server.reason == ""
    assert dict(server.variables)["HTTPS_DN"] == expected
    command = ["openssl", "x509", "-in", client.crt, "-noout", "-subject", "-nameopt", "compat"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    assert shown == b"subject=" + expected.encode("ascii") + b"\n"


# Resumption


@both_versions
@pytest.mark.parametrize("mode", ["no client CA", "optional", "optional, with certificate", "mandatory"])
def test_tickets_resume(version: ssl.TLSVersion, mode: str, lab: Pki) -> None:
    """With a client CA and no session id context, the first connection works and every resumed one dies."""
    client_ca = "" if mode == "no client CA" else lab.ca.crt
    context = build_context(option(lab.server, "", client_ca, mode == "mandatory"))
    client = client_context(lab, version, lab.client if "certificate" in mode or mode == "mandatory" else None)
    first_server, first = handshake(context, client)
    assert (first.error, first.resumed) == ("", False)
    server, again = handshake(context, client, first.session)
    assert (server.reason, again.error, again.resumed) == ("", "", True)
    assert first_server.facts is not None
    assert server.facts is not None
    assert server.facts.resumed
    assert not first_server.facts.resumed
    assert server.variables == first_server.variables  # what was proved then still is


@both_versions
def test_any_worker_resumes(version: ssl.TLSVersion, lab: Pki) -> None:
    """The context is built before the fork, so the workers share its ticket keys."""
    context = build_context(option(lab.server, "", lab.ca.crt, True))
    client = client_context(lab, version, lab.client)
    session, resumed = None, []
    for _ in range(3):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = os.fork()
            if pid == 0:
                try:
                    theirs.close()
                    Server().serve(context, ours)
                finally:
                    os._exit(0)
            ours.close()
            seen = Client()
            seen.talk(client, theirs, session)
        os.waitpid(pid, 0)
        assert seen.error == ""
        session = seen.session
        resumed.append(seen.resumed)
    assert resumed == [False, True, True]


@both_versions
def test_no_session_crosses_to_another_policy(version: ssl.TLSVersion, lab: Pki) -> None:
    """CVE-2025-23419's kind: a session made without certificate must not open a listener that demands one."""
    client = client_context(lab, version)
    for client_ca in ("", lab.ca.crt):
        _, first = handshake(build_context(option(lab.server, "", client_ca)), client)
        assert first.session is not None
        server, again = handshake(build_context(option(lab.server, "", lab.ca.crt, True)), client, first.session)
        assert server.reason == "the client sent no certificate, and one is required"
        assert again.received == b""


def test_s_client_resumes_too(lab: Pki, tmp_path: Path) -> None:
    session = str(tmp_path / "session.pem")
    with tcp_server(build_context(option(lab.server, "", lab.ca.crt, True))) as (where, _):
        for version in ("-tls1_2", "-tls1_3"):
            identity = (version, "-cert", lab.client.crt, "-key", lab.client.key_file)
            assert f"New, {version.replace('-tls1_', 'TLSv1.')}" in s_client(where, *identity, "-sess_out", session)
            assert f"Reused, {version.replace('-tls1_', 'TLSv1.')}" in s_client(where, *identity, "-sess_in", session)


def test_the_session_id_context_is_the_policys(lab: Pki) -> None:
    plain = option(lab.server)
    listeners = [
        plain,
        replace(plain, address=TcpAddress("127.0.0.1", 443)),
        replace(plain, address=TcpAddress("127.0.0.1", 444)),
        replace(plain, client_ca=lab.ca.crt),
        replace(plain, client_ca=lab.ca.crt, client_required=True),
        replace(plain, client_ca=lab.ca_bundle, client_required=True),
    ]
    ids = [tls._session_id(each, Path(each.client_ca).read_bytes() if each.client_ca else b"") for each in listeners]
    assert {len(each) for each in ids} == {32}  # OpenSSL takes no more; uWSGI's longer names are silently not set
    assert len(set(ids)) == len(ids)


# Mistakes


def test_bad_options(lab: Pki, tmp_path: Path) -> None:
    garbage, encrypted, missing = tmp_path / "garbage.pem", tmp_path / "encrypted.key", str(tmp_path / "missing.pem")
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    write_secret(encrypted, key_pem(lab.server.key, b"secret"))
    good = option(lab.server)
    for bad, words in [
        (replace(good, ciphers="NOSUCHCIPHER"), "ciphers 'NOSUCHCIPHER': no cipher match"),
        (replace(good, ciphers="TLS_AES_128_GCM_SHA256"), "no cipher match"),
        (replace(good, certificate=missing), f"certificate {missing}: "),
        (replace(good, certificate=str(garbage)), f"certificate {garbage}: "),
        (replace(good, key=missing), f"key {missing}: no such file"),
        (replace(good, key=str(encrypted)), f"key {encrypted}: the key is encrypted"),
        (replace(good, key=lab.client.key_file), f"key {lab.client.key_file}: "),
        (replace(good, client_ca=missing), f"client CA {missing}: no such file"),
        (replace(good, client_ca=str(garbage)), f"client CA {garbage}: "),
        (replace(good, client_ca=lab.server.key_file), f"client CA {lab.server.key_file}: "),
        (replace(good, client_required=True), "required, but no client CA"),
    ]:
        with pytest.raises(ConfigError) as caught:
            build_context(replace(bad, where="site.ini:4"))
        assert words in caught.value.cause, bad
        assert (caught.value.option, caught.value.value, caught.value.where) == ("https", good.text, "site.ini:4")
        assert "\n" not in str(caught.value)
        assert "[(" not in str(caught.value)


def test_what_no_handshake_shows(lab: Pki) -> None:
    """Memory of idle connections, partial and moving writes, and no session cache that one worker has to itself."""
    context = build_context(option(lab.server))
    release_buffers, moving_write_buffer, partial_write = 0x10, 0x2, 0x1  # ssl.h
    assert context.set_mode(0) & 0x13 == release_buffers | moving_write_buffer | partial_write
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF


def test_building_a_context_uses_it_for_nothing(lab: Pki) -> None:
    """A used context is frozen, and one used before the fork would share what a connection leaves behind."""
    context = build_context(option(lab.server, "HIGH", lab.ca.crt))
    assert not getattr(context, "_used", False)


# Reasons


def failure(context: SSL.Context, talk: Callable[[socket.socket], None]) -> str:
    """Why the server's side says that the handshake failed, when the client does `talk` and closes."""
    ours, theirs = socket.socketpair()
    server = Server()
    with ours:
        with theirs:
            talk(theirs)
        server.serve(context, ours)
    return server.reason


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "plain HTTP on the HTTPS port"),
        (b"CONNECT x:443 HTTP/1.1\r\n\r\n", "a proxy's CONNECT on the HTTPS port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what the client sends is not TLS"),
        (b"", "the client closed the connection"),
        (b"\x16\x03\x01", "the client closed the connection"),
    ],
)
def test_reasons_of_bytes(sent: bytes, words: str, lab: Pki) -> None:
    assert failure(build_context(option(lab.server)), lambda sock: sock.sendall(sent)) == words


def test_the_client_does_not_trust_us(lab: Pki) -> None:
    stranger = ssl.create_default_context(cafile=lab.other_ca.crt)
    server, client = handshake(build_context(option(lab.server)), stranger)
    assert client.error == "CERTIFICATE_VERIFY_FAILED"
    # In TLS 1.3 we may have finished before its alert comes.
    assert server.reason in ("the client refused, with the alert: unknown ca", "")
    stranger.maximum_version = ssl.TLSVersion.TLSv1_2
    server, _ = handshake(build_context(option(lab.server)), stranger)
    assert server.reason == "the client refused, with the alert: unknown ca"


def test_a_reset_is_named(lab: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
        with sock:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            server = Server()
            server.serve(build_context(option(lab.server)), sock)
    assert server.reason == "connection reset by peer"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SSL.Error([]), "unknown TLS error"),
        (SSL.Error(), "unknown TLS error"),
        (SSL.Error([("SSL routines", "", "")]), "unknown TLS error"),
        (SSL.Error([("SSL routines", "", "bad extension"), ("", "", "later")]), "bad extension"),
        (SSL.Error([("SSL routines", "", "certificate verify failed")]), "certificate verify failed"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "the client closed the connection"),
        (SSL.SysCallError(32, "EPIPE"), "broken pipe"),
        (SSL.ZeroReturnError(), "the client ended the connection"),
    ],
)
def test_reasons_without_a_connection(error: SSL.Error, words: str) -> None:
    assert reason(error, None) == words


# Cost


def test_without_a_client_certificate_it_costs_next_to_nothing(lab: Pki) -> None:
    """The aim is 3 us for the variables; the limit is loose because others use the machine too."""
    ours, theirs = socket.socketpair()
    client = Client()
    with ours, theirs:
        thread = threading.Thread(target=client.talk, args=(client_context(lab), theirs, None))
        thread.start()
        conn = SSL.Connection(build_context(option(lab.server, "", lab.ca.crt)), ours)
        conn.set_accept_state()
        conn.do_handshake()
        number = 2000
        for action, limit in ((lambda: client_variables(conn, True), 15), (lambda: facts(conn), 60)):
            micros = min(timeit.repeat(action, number=number, repeat=5)) / number * 1e6
            print(f"{micros:.2f} us")
            assert micros < limit
        conn.shutdown()
        ours.close()
        thread.join(SECONDS)
