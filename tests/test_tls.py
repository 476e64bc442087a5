"""tls.py: what a context lets through, and what a handshake is said to have proved.

The handshakes are real: ours, with a client in a thread (Python's ssl) or in a process (`openssl s_client`).
"""

import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from handshakes import (
    CAN_NAME_GROUPS,
    SECONDS,
    TLS_VERSIONS,
    Client,
    Server,
    both_versions,
    build_context,
    client_context,
    handshake,
    option,
    s_client,
    tcp_server,
)
from OpenSSL import SSL
from OpenSSL._util import lib
from pki import CLIENT_DN, Issued, Pki, common_name, issue, key_pem, write_secret

from uwsgi_tls import certificates, contexts, policy, privileges, sites
from uwsgi_tls.addresses import TcpAddress
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener
from uwsgi_tls.options import Config
from uwsgi_tls.peer import TlsFacts
from uwsgi_tls.tls import RECORD_BYTES, reason, server_connection
from uwsgi_tls.users import Identity

CAN_SET_GROUPS = hasattr(lib, "SSL_CTX_set1_curves_list")


# Protocol and ciphers


@both_versions
@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_a_handshake_and_its_facts(version: ssl.TLSVersion, kind: str, lab: Pki) -> None:
    context = build_context(option(lab.server if kind == "RSA" else lab.server_ec))
    server, client = handshake(context, client_context(lab, version))
    assert (server.reason, client.error) == ("", "")
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
def test_the_server_chooses(version: ssl.TLSVersion, lab: Pki) -> None:
    """All but one thing: a client that puts ChaCha20 first has a reason, unless ciphers are given."""
    strong, fast = "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"
    chacha = "ECDHE-RSA-CHACHA20-POLY1305"

    def chosen(server: str, client: str) -> str:
        return handshake(build_context(option(lab.server, server)), client_context(lab, version, ciphers=client))[
            1
        ].cipher

    if version == ssl.TLSVersion.TLSv1_3:
        assert chosen("HIGH", strong) == "TLS_AES_128_GCM_SHA256"  # the list is TLS 1.2's alone
        return
    assert chosen("", f"{strong}:{fast}:{chacha}") == fast
    assert chosen("", f"{chacha}:{strong}:{fast}") == chacha
    assert chosen(f"{strong}:{fast}:{chacha}", f"{fast}:{strong}") == strong
    assert chosen(f"{fast}:{strong}:{chacha}", f"{chacha}:{strong}:{fast}") == fast


def test_the_default_ciphers_are_mozillas(lab: Pki) -> None:
    words = SSL.Connection(build_context(option(lab.server))).get_cipher_list()
    assert [word for word in words if not word.startswith("TLS_")] == policy.PROFILES["intermediate"].ciphers.split(":")
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


def test_the_groups_are_mozillas(lab: Pki) -> None:
    """uWSGI pins P-256, so that clients with X25519 alone fail; OpenSSL by itself has weaker and stronger ones too."""
    with tcp_server(build_context(option(lab.server))) as (where, seen):
        for group in ("X25519", "P-384", "P-256"):
            assert '"protocol": "TLSv1.3"' in s_client(where, "-groups", group)
        if CAN_SET_GROUPS:
            for group in ("X448", "P-521", "ffdhe2048"):
                assert "handshake failure" in s_client(where, "-groups", group)
    names = [server.facts.group.upper() for server in seen if server.facts]
    assert names == (["X25519", "SECP384R1", "SECP256R1"] if CAN_NAME_GROUPS else ["", "", ""])


def test_a_group_that_is_safe_from_quantum_computers_comes_first(lab: Pki) -> None:
    """Where this OpenSSL has one; two contexts of ours, since the client in Python's ssl may be older."""
    if not CAN_SET_GROUPS:
        return
    context = build_context(option(lab.server))
    for offered, chosen in ((b"X25519:X25519MLKEM768", "X25519MLKEM768"), (b"P-256:X25519", "SECP256R1")):
        client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        assert lib.SSL_CTX_set1_curves_list(client._context, offered)
        ours, theirs = SSL.Connection(context, None), SSL.Connection(client, None)
        ours.set_accept_state()
        theirs.set_connect_state()
        for _ in range(3):  # ClientHello, HelloRetryRequest, ClientHello
            for one, other in ((theirs, ours), (ours, theirs)):
                with suppress(SSL.WantReadError):
                    one.do_handshake()
                with suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(RECORD_BYTES))
        assert (ours.get_group_name() or "").upper() == chosen


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


@pytest.mark.skipif(os.geteuid() != 0, reason="a drop needs root")
def test_a_context_is_built_after_the_drop_too(lab: Pki) -> None:
    """A process that is not dumpable does not own its /proc/self/fd; a reload builds contexts there."""
    below = lab.clients_below[2]
    (listener,) = sites.of_listeners(Config(https=(option(below, "", lab.ca_bundle, True),)))
    material = certificates.load(listener)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            privileges.drop(Identity("nobody", 65534, 65534, ()))
            privileges.harden(no_new_privs=True)
            assert os.stat("/proc/self/fd").st_uid == 0
            contexts.build_context(listener, material, "")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def intermediate(lab: Pki) -> Issued:
    """The authority that signed clients_below[1], with its chain."""
    stem = lab.directory / "intermediate-1"
    below = lab.clients_below[1]
    key = serialization.load_pem_private_key(Path(f"{stem}.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Issued(below.chain[1], key, below.chain[1:], f"{stem}.crt", f"{stem}.key")


def fill(conn: SSL.Connection, data: bytes) -> None:
    while True:
        conn.send(data)


def test_a_write_that_waited_goes_on_from_another_buffer(lab: Pki) -> None:
    """Without the mode for it OpenSSL calls the second write a "bad write retry"."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conn = server_connection(build_context(option(lab.server)), ours)
        thread = threading.Thread(target=conn.do_handshake)
        thread.start()
        wrapped = client_context(lab).wrap_socket(theirs, server_hostname="server.lab")
        thread.join(SECONDS)
        ours.setblocking(False)
        data = b"x" * 65536
        with pytest.raises(SSL.WantWriteError):
            fill(conn, data)
        wrapped.settimeout(SECONDS)
        taken = 0
        while taken < 100_000:
            taken += len(wrapped.recv(65536))
        assert conn.send(bytes(bytearray(data * 2))) == 2 * len(data)  # and may be longer than it was
        wrapped.close()


# Client certificates: SPEC's matrix, uWSGI's outcome in each field but the last


# Words of the log, of which "{}" is the client's subject; the client's alert in TLS 1.2 and in TLS 1.3.
REFUSED = "client certificate refused: "
REFUSED_NOTHING = ("the client sent no certificate, and one is required", "handshake_failure", "certificate_required")
UNTRUSTED = ", which is no CA that is trusted here or that the client has sent: {}"
UNKNOWN_CA = (f"{REFUSED}it was issued by /CN=Other CA{UNTRUSTED}", "unknown_ca", "unknown_ca")
NO_CHAIN = (f"{REFUSED}it was issued by /CN=Lab Intermediate 1{UNTRUSTED}", "unknown_ca", "unknown_ca")
TOO_LONG = (
    f"{REFUSED}its chain has more than 4 intermediate CAs (ssl-verify-depth): the CA",
    "unknown_ca",
    "unknown_ca",
)
SELF_SIGNED = (f"{REFUSED}it is self-signed, and not trusted here: {{}}", "unknown_ca", "unknown_ca")
EXPIRED = (f"{REFUSED}it expired on 20", "certificate_expired", "certificate_expired")
NOT_YET = (f"{REFUSED}it is not valid before 20", "bad_certificate", "bad_certificate")
PURPOSE = (
    f"{REFUSED}certificate is not meant for clients: no clientAuth in its extended key usage: {{}}",
    "unsupported_certificate",
    "unsupported_certificate",
)

MATRIX: dict[str, tuple[Callable[[Pki], Issued | None], Any, Any]] = {
    # what the client presents, the outcome with "ca.crt", the outcome with "!ca.crt"; None is success
    "nothing": (lambda lab: None, None, REFUSED_NOTHING),
    "good": (lambda lab: lab.client, None, None),
    "another CA's": (lambda lab: lab.client_other_ca, UNKNOWN_CA, UNKNOWN_CA),
    "self-signed": (lambda lab: lab.client_self_signed, SELF_SIGNED, SELF_SIGNED),
    "expired": (lambda lab: lab.client_expired, EXPIRED, EXPIRED),
    "not yet valid": (lambda lab: lab.client_not_yet, NOT_YET, NOT_YET),
    "without its chain": (lambda lab: lab.client_no_chain, NO_CHAIN, NO_CHAIN),
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
        assert server.reason.startswith(words.replace("{}", CLIENT_DN))
        assert (server.facts, server.variables, client.received) == (None, (), b"")
        alert = alert_1_3 if version == ssl.TLSVersion.TLSv1_3 else alert_1_2
        assert client.error.lower().endswith(f"alert_{alert}")
        return
    assert (server.reason, client.error) == ("", "")
    assert server.facts is not None
    assert server.facts.client_verify == ("NONE" if identity is None else "SUCCESS")
    assert ("HTTPS_DN" in server.names) == (identity is not None)


@both_versions
def test_without_a_client_ca_nobody_is_asked(version: ssl.TLSVersion, lab: Pki) -> None:
    server, client = handshake(build_context(option(lab.server)), client_context(lab, version, lab.client))
    assert client.error == ""
    assert not {"HTTPS_DN", "SSL_CLIENT_S_DN"} & set(server.names)
    with tcp_server(build_context(option(lab.server))) as (where, _):
        assert "No client certificate CA names sent" in s_client(where)


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
    proved = set(server.variables) - {("SSL_SESSION_RESUMED", "Resumed")}
    assert proved == set(first_server.variables) - {("SSL_SESSION_RESUMED", "Initial")}  # what was proved then still is


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
    ids = [contexts.session_id(each, certificates.load(each), str(each.address)) for each in listeners]
    assert {len(each) for each in ids} == {32}  # OpenSSL takes no more; uWSGI's longer names are silently not set
    assert len(set(ids)) == len(ids)


# Mistakes


def with_files(listener: HttpsListener, certificate: str = "", key: str = "") -> HttpsListener:
    (old_certificate, old_key) = listener.certificates[0]
    return replace(listener, certificates=((certificate or old_certificate, key or old_key),))


def test_bad_options(lab: Pki, tmp_path: Path) -> None:
    garbage, encrypted, missing = tmp_path / "garbage.pem", tmp_path / "encrypted.key", str(tmp_path / "missing.pem")
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    write_secret(encrypted, key_pem(lab.server.key, b"secret"))
    good = option(lab.server)
    for bad, words in [
        (replace(good, ciphers="NOSUCHCIPHER"), "ciphers 'NOSUCHCIPHER': no cipher match"),
        (replace(good, ciphers="TLS_AES_128_GCM_SHA256"), "no cipher match"),
        (with_files(good, certificate=missing), f"certificate {missing}: "),
        (with_files(good, certificate=str(garbage)), f"certificate {garbage}: "),
        (with_files(good, key=missing), f"key {missing}: no such file"),
        (with_files(good, key=str(encrypted)), f"key {encrypted}: the key is encrypted"),
        (with_files(good, key=lab.client.key_file), f"key {lab.client.key_file}: "),
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
