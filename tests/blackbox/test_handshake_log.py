"""Why a handshake came to nothing, in one line: for each way to fail, what the log says and what the client saw."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pki import Issued, pki

from .raw_client import serving
from .server import Daemon, loopback, open_directory, uwsgi_tls

SECONDS = 10.0
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
OPEN, NEW, OLD, MANDATORY, ALLOWED = 8443, 8444, 8445, 8446, 8447


@dataclass(frozen=True, slots=True)
class Place:
    daemon: Daemon
    host: str

    def failure(self, reason: str, port: int) -> dict[str, str]:
        """The values of the line for whoever came from `port`; its text ends with its reason."""
        line = self.daemon.wait_for_line(
            rf'"message":"TLS handshake failed \(client [^()]*\): {reason}.*"port":"{port}"', SECONDS
        )
        values: dict[str, str] = json.loads(line)
        return values


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    lab = pki()
    host = loopback()
    identity = f"cert={lab.server_ec.crt},key={lab.server_ec.key_file}"
    arguments = [
        *("--https2", f"addr={host}:{OPEN},{identity}"),
        *("--https2", f"addr={host}:{NEW},{identity},min-version=1.3"),
        *("--https2", f"addr={host}:{OLD},{identity},max-version=1.2"),
        *("--https2", f"addr={host}:{MANDATORY},{identity},clientca=!{lab.ca.crt}"),
        *("--https2", f"addr={host}:{ALLOWED},{identity},clientca=!{lab.ca.crt},allow=cn:Nobody"),
        *("--sni-strict", "--log-json", "--https-handshake-timeout", "1"),
    ]
    with open_directory() as directory, uwsgi_tls(*arguments, cwd=directory) as daemon:
        daemon.wait_for_workers(1)
        yield Place(daemon, host)


def client(
    certificate: Issued | None = None,
    *,
    newest: ssl.TLSVersion = TLS_1_3,
    ciphers: str = "",
    trusting: bool = True,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if trusting:
        context.load_verify_locations(pki().ca.crt)
    context.minimum_version, context.maximum_version = TLS_1_2, newest
    if ciphers:
        context.set_ciphers(ciphers)
    if certificate is not None:
        context.load_cert_chain(certificate.crt, certificate.key_file)
    return context


def shake(host: str, port: int, context: ssl.SSLContext, name: str = "server.lab") -> tuple[int, str]:
    """A handshake and a word; our port, and the alert that came, by OpenSSL's word for it."""
    with socket.create_connection((host, port), SECONDS) as sock:
        own: int = sock.getsockname()[1]
        try:
            with context.wrap_socket(sock, server_hostname=name) as tls:
                tls.sendall(b"GET / HTTP/1.0\r\n\r\n")  # in TLS 1.3 a client learns only now that it was refused
                tls.recv(1)
        except ssl.SSLError as error:
            return own, error.reason or ""
        except OSError:
            pass
        return own, ""


REFUSED = "client certificate refused: "


@pytest.mark.parametrize(
    ("port", "context", "name", "reason", "alert", "offers", "seen"),
    [
        pytest.param(
            NEW, lambda: client(newest=TLS_1_2), "server.lab",
            "the client offers no TLS version that is allowed here", "sent: protocol_version", "TLSv1.2",
            "PROTOCOL_VERSION", id="version",
        ),
        pytest.param(
            OLD, lambda: client(newest=TLS_1_2, ciphers="AES128-GCM-SHA256"), "server.lab",
            "the client offers no cipher that is allowed here", "sent: handshake_failure", "TLSv1.2",
            "HANDSHAKE_FAILURE", id="cipher",
        ),
        pytest.param(
            OPEN, lambda: client(trusting=False), "server.lab",
            "the client refused, with the alert: unknown ca", "received: unknown_ca", "TLSv1.3 TLSv1.2",
            "CERTIFICATE_VERIFY_FAILED", id="the client does not trust us",
        ),
        pytest.param(
            OPEN, client, "nobody.lab",
            "nobody here has that name", "sent: unrecognized_name", "TLSv1.3 TLSv1.2",
            "UNRECOGNIZED_NAME", id="name",
        ),
        pytest.param(
            MANDATORY, client, "server.lab",
            "the client sent no certificate, and one is required", "sent: certificate_required", "TLSv1.3 TLSv1.2",
            "CERTIFICATE_REQUIRED", id="no certificate",
        ),
        pytest.param(
            MANDATORY, lambda: client(newest=TLS_1_2), "server.lab",
            "the client sent no certificate, and one is required", "sent: handshake_failure", "TLSv1.2",
            "HANDSHAKE_FAILURE", id="no certificate, TLS 1.2",
        ),
        pytest.param(
            MANDATORY, lambda: client(pki().client_other_ca), "server.lab",
            REFUSED + "it was issued by /CN=Other CA, which is no CA that is trusted here", "sent: unknown_ca",
            "TLSv1.3 TLSv1.2", "UNKNOWN_CA", id="unknown CA",
        ),
        pytest.param(
            MANDATORY, lambda: client(pki().client_expired), "server.lab",
            REFUSED + "it expired on ", "sent: certificate_expired", "TLSv1.3 TLSv1.2", "CERTIFICATE_EXPIRED",
            id="expired",
        ),
        pytest.param(
            MANDATORY, lambda: client(pki().client_not_yet, newest=TLS_1_2), "server.lab",
            REFUSED + "it is not valid before ", "sent: bad_certificate", "TLSv1.2", "BAD_CERTIFICATE",
            id="not yet valid",
        ),
        pytest.param(
            MANDATORY, lambda: client(pki().client_server_only), "server.lab",
            REFUSED + "certificate is not meant for clients", "sent: unsupported_certificate", "TLSv1.3 TLSv1.2",
            "UNSUPPORTED_CERTIFICATE", id="purpose",
        ),
        pytest.param(
            MANDATORY, lambda: client(pki().client_self_signed), "server.lab",
            REFUSED + "it is self-signed", "sent: unknown_ca", "TLSv1.3 TLSv1.2", "UNKNOWN_CA", id="self-signed",
        ),
        pytest.param(
            ALLOWED, lambda: client(pki().client), "server.lab",
            REFUSED + "no client-allow matches", "sent: close_notify", "TLSv1.3 TLSv1.2", "", id="not allowed",
        ),
    ],
)  # fmt: skip
def test_a_client_of_tls(
    place: Place,
    port: int,
    context: Callable[[], ssl.SSLContext],
    name: str,
    reason: str,
    alert: str,
    offers: str,
    seen: str,
) -> None:
    own, alert_seen = shake(place.host, port, context(), name)
    values = place.failure(re.escape(reason), own)
    assert values["reason"].startswith(reason)
    assert (values["alert"], values["offers"], values["sni"]) == (alert, offers, name)
    assert (values["addr"], values["listener"]) == ("127.0.0.1", f"{place.host}:{port}")
    assert alert_seen.endswith(seen), "the client says which alert it got"


def first_words() -> bytes:
    """A whole ClientHello."""
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="server.lab").do_handshake()
    return sent.read()


@pytest.mark.parametrize(
    ("words", "ends", "reason", "sni"),
    [
        pytest.param(lambda: b"GET / HTTP/1.1\r\n\r\n", False, "plain HTTP was sent to the HTTPS port", "", id="HTTP"),
        pytest.param(lambda: b"SSH-2.0-x\r\n", False, "what was sent is not TLS", "", id="garbage"),
        pytest.param(
            lambda: first_words()[:100], True, "the client closed the connection in the middle of its first words", "",
            id="half a hello",
        ),
        pytest.param(
            lambda: first_words()[:100], False, "the client's first words did not come in time", "", id="slow hello"
        ),
        pytest.param(first_words, True, "the client closed the connection", "server.lab", id="middle"),
        pytest.param(first_words, False, "it did not finish in time", "server.lab", id="slow"),
    ],
)  # fmt: skip
def test_a_client_that_does_not_get_far(
    place: Place, words: Callable[[], bytes], ends: bool, reason: str, sni: str
) -> None:
    with socket.create_connection((place.host, OPEN), SECONDS) as sock:
        own = sock.getsockname()[1]
        sock.sendall(words())
        if ends:
            sock.shutdown(socket.SHUT_WR)
        values = place.failure(reason, own)
    assert (values["alert"], values["sni"]) == ("", sni)
    assert values["offers"] == ("TLSv1.3 TLSv1.2" if sni else "")


def test_whether_somebody_is_there_is_no_failure(place: Place) -> None:
    """As balancers ask: a connection without a byte. The next line is that of the next client."""
    before = len(place.daemon.lines)
    for _ in range(3):
        socket.create_connection((place.host, OPEN), SECONDS).close()
    own, _ = shake(place.host, OPEN, client(), "later.lab")
    place.failure(re.escape("nobody here has that name"), own)
    assert len(place.daemon.lines) == before + 1


def test_a_flood_is_a_few_lines(place: Place) -> None:
    began = time.monotonic()
    for number in range(300):
        with socket.create_connection((place.host, OPEN), SECONDS) as sock:
            sock.sendall(f"\0 {number}".encode())
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
    assert time.monotonic() - began < 50, "all in one period"
    lines = [line for line in place.daemon.lines if "what was sent is not TLS" in line]
    assert 0 < len(lines) <= 3 + 4, "perhaps two periods"


def test_a_worker_that_ends_says_what_it_has_left_out(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        for _ in range(10):
            with socket.create_connection(site.address, SECONDS) as sock, contextlib.suppress(ConnectionResetError):
                sock.sendall(b"SSH-2.0-x\r\n")
                assert sock.recv(1) == b""
    lines = [line for line in site.daemon.lines if "what was sent is not TLS" in line]
    assert len(lines) == 4
    assert lines[-1].endswith(", 7 more like this in the last 60 s): what was sent is not TLS")
