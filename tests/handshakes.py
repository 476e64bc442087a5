"""Handshakes in the tests' own process: our contexts, with Python's ssl in a thread, or `openssl s_client`."""

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pytest
from OpenSSL import SSL
from pki import Issued, Pki

from uwsgi_tls import certificates, contexts, sites
from uwsgi_tls.addresses import SharedAddress
from uwsgi_tls.client_allow import Rule
from uwsgi_tls.https_option import HttpsListener
from uwsgi_tls.options import Config
from uwsgi_tls.peer import TlsFacts, client_variables, facts, objection
from uwsgi_tls.tls import outcome, reason

SECONDS = 20  # no handshake takes so long; what takes longer hangs
TLS_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
CAN_NAME_GROUPS = hasattr(SSL.Connection, "get_group_name")  # pyOpenSSL 26.0

both_versions = pytest.mark.parametrize("version", TLS_VERSIONS, ids=["tls1.2", "tls1.3"])


def option(server: Issued, ciphers: str = "", client_ca: str = "", required: bool = False) -> HttpsListener:
    text = f"=0,{server.crt},{server.key_file}"
    return HttpsListener(
        address=SharedAddress(0),
        certificates=((server.crt, server.key_file),),
        ciphers=ciphers,
        client_ca=client_ca,
        client_required=required,
        text=text,
        option="https",
    )


def build_context(listener: HttpsListener) -> SSL.Context:
    """The context of a listener, with what it leaves open filled in by the options' defaults."""
    (site,) = sites.of_listeners(Config(https=(listener,)))
    return contexts.build_context(site, certificates.load(site), str(listener.address))


@dataclass
class Server:
    """What the server's side of one connection saw; first what it is given."""

    sni: str = "server.lab"
    export_cert: bool = True
    rules: tuple[Rule, ...] = ()
    reason: str = ""  # why there is no connection
    facts: TlsFacts | None = None
    variables: tuple[tuple[str, str], ...] = ()
    objection: str = ""

    def serve(self, context: SSL.Context, sock: socket.socket) -> None:
        """Shake hands and say what that proved, in one line of JSON; then close as a server does."""
        conn = SSL.Connection(context, sock)
        conn.set_accept_state()
        try:
            conn.do_handshake()
            shaken = outcome(conn)
            self.objection = objection(conn, shaken, self.rules)
            self.variables = client_variables(conn, shaken, self.sni, self.export_cert)
            self.facts = facts(conn, self.sni)
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
    server_context: SSL.Context,
    context: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
    server: Server | None = None,
) -> tuple[Server, Client]:
    ours, theirs = socket.socketpair()
    server, client = server or Server(), Client()
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
