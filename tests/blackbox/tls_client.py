"""One request over TLS by Python's ssl, and all that its client can tell of the server: for the tests of names.

A client is a context with a protocol version and an identity, so that what it says depends on nothing else, and it can
take a session from one name to another.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from pki import Issued, pki

SECONDS = 20.0
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

# Answers with what the server knows of its client: the name that it asked for, and who it is.
APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [])
    text = " ".join(environ.get(name, "-") for name in ("HTTPS_SNI", "HTTPS_VERIFY", "SSL_CLIENT_S_DN"))
    return [text.encode("latin-1")]
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it: an error, in OpenSSL's words, or a response."""

    error: str = ""
    name: str = ""  # the common name in the server's certificate
    key: str = ""  # "RSA" or "EC"
    version: str = ""
    cipher: str = ""
    resumed: bool = False
    session: ssl.SSLSession | None = None
    status: int = 0  # 0: the connection ended without a response
    head: str = ""
    body: str = ""


class Tls:
    """A client that trusts the laboratory's CA, and shows `identity` whenever it is asked."""

    def __init__(
        self,
        identity: Issued | None = None,
        *,
        least: ssl.TLSVersion = TLS_1_2,
        most: ssl.TLSVersion = TLS_1_3,
        ciphers: str = "",
        checks_name: bool = True,
    ) -> None:
        self.context = ssl.create_default_context(cafile=pki().ca.crt)
        self.context.minimum_version, self.context.maximum_version = least, most
        self.context.check_hostname = checks_name
        if identity is not None:
            self.context.load_cert_chain(identity.crt, identity.key_file)
        if ciphers:
            self.context.set_ciphers(ciphers)

    def ask(
        self, address: tuple[str, int], sni: str | None, host: str = "", session: ssl.SSLSession | None = None
    ) -> Reply:
        """GET / of `host`, or of the name; without a name the certificate's is not compared."""
        self.context.check_hostname = self.context.check_hostname and sni is not None
        request = f"GET / HTTP/1.1\r\nHost: {host or sni or 'nobody.lab'}\r\nConnection: close\r\n\r\n"
        data = b""
        try:
            with (
                socket.create_connection(address, SECONDS) as raw,
                self.context.wrap_socket(raw, server_hostname=sni, session=session) as tls,
            ):
                tls.sendall(request.encode())
                while more := tls.recv(65536):
                    data += more
                head, _, body = data.decode("latin-1").partition("\r\n\r\n")
                cipher = tls.cipher()
                certificate = tls.getpeercert() or {}
                return Reply(
                    name=_common_name(certificate),
                    key="EC" if b"\x2a\x86\x48\xce\x3d\x02\x01" in (tls.getpeercert(True) or b"") else "RSA",
                    version=tls.version() or "",
                    cipher=cipher[0] if cipher else "",
                    resumed=bool(tls.session_reused),
                    session=tls.session,
                    status=int(head[9:12] or 0),
                    head=head,
                    body=body,
                )
        except ssl.SSLError as error:
            return Reply(error=error.reason or str(error))
        except (ConnectionResetError, BrokenPipeError) as error:
            return Reply(error=type(error).__name__)


def _common_name(certificate: object) -> str:
    assert isinstance(certificate, dict)
    return next((value for pairs in certificate["subject"] for name, value in pairs if name == "commonName"), "")
