"""From an https option to a pyOpenSSL context, and from a finished handshake to what it proved.

Every difference between pyOpenSSL 23.0.0 and the newest, and every use of its unofficial `_lib`, is in this module.
A context is complete when `build_context` returns and is never changed; it is built before the fork, so that all
workers share its ticket keys. No policy lives in a callback: pyOpenSSL keeps a callback's exception on the context,
where another thread's connection would raise it. Policy: Mozilla's guidelines 6.0, "intermediate"; uWSGI: core/ssl.c.
"""

import hashlib
import os
import threading
from _socket import socket as RawSocket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

from uwsgi_tls import certificates
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener

INTERMEDIATE_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    ":ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
NEVER_CIPHERS = ":!aNULL:!eNULL:!PSK:!SRP"  # "HIGH" alone has suites without any certificate: openssl-ciphers(1)
RECORD_BYTES = 16384  # RFC 8446, 5.1: a read of this size leaves nothing decrypted behind in OpenSSL
SESSION_SECONDS = 300  # uWSGI's; each resumption in TLS 1.3 begins them anew, and verifies no certificate again
VERIFY_DEPTH = 4  # intermediate CAs between a client's certificate and a trusted one

# Constants that some versions of pyOpenSSL do not name; ssl.h
_MODE_ENABLE_PARTIAL_WRITE = 0x1
_MODE_AUTO_RETRY = 0x4
_MODE_ACCEPT_MOVING_WRITE_BUFFER = 0x2  # a retried write may come from another buffer

_NEEDED = (
    "OPENSSL_free",
    "SSL_clear_mode",
    "SSL_get_verify_result",
    "SSL_read",
    "SSL_write",
    "X509_NAME_oneline",
    "X509_get_issuer_name",
    "X509_get_subject_name",
    "X509_verify_cert_error_string",
)
_missing = [name for name in _NEEDED if not hasattr(_lib, name)]
if _missing:  # better no start than certificates whose verification nobody can read
    raise ImportError(f"this version of cryptography does not have {', '.join(_missing)}")

_scratch = threading.local()  # where a thread's records are decrypted to
_HTTPS_ON = (("HTTPS", "on"),)
_REASONS = {
    "http request": "plain HTTP on the HTTPS port",
    "https proxy request": "a proxy's CONNECT on the HTTPS port",
    "no shared cipher": "the client offers no cipher that is allowed here",
    "no suitable key share": "the client offers no key exchange group that is allowed here",
    "no suitable signature algorithm": "the client accepts no signature that our key can make",
    "peer did not return a certificate": "the client sent no certificate, and one is required",
    "unsupported protocol": "the client offers no TLS version that is allowed here",
    "wrong version number": "what the client sends is not TLS",
}


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a connection negotiated and what its client proved; "" is what is not known or does not apply."""

    protocol: str  # "TLSv1.3"
    cipher: str
    group: str  # key exchange; pyOpenSSL before 26.0 cannot tell
    sni: str
    alpn: str
    resumed: bool
    client_verify: str  # "SUCCESS", or "NONE" for no certificate; a bad one never gets this far
    client_dn: str = ""
    client_issuer: str = ""
    client_serial: str = ""  # hexadecimal
    client_not_before: str = ""  # "2026-01-31 23:59:59 UTC"
    client_not_after: str = ""
    client_fingerprint: str = ""  # SHA-256 of the certificate, hexadecimal


def build_context(option: HttpsListener) -> SSL.Context:
    """The server context of an https option. Raises ConfigError, with OpenSSL's reason where there is one."""
    try:
        return _build(option)
    except certificates.BadFile as error:
        raise ConfigError(option.option, option.text, str(error), option.where) from None


def _build(option: HttpsListener) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_ENABLE_PARTIAL_WRITE | _MODE_ACCEPT_MOVING_WRITE_BUFFER)
    # Groups stay OpenSSL's own: set_tmp_ecdh would leave one of them, as uWSGI's P-256.
    _set_ciphers(context, option)
    _set_certificate(context, option)
    authorities = _set_client_ca(context, option)
    # Resumption by tickets, which any worker can open; a cache would be one worker's own.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_timeout(SESSION_SECONDS)
    context.set_session_id(_session_id(option, authorities))
    context.set_alpn_select_callback(_select_http11)
    return context


def _set_ciphers(context: SSL.Context, option: HttpsListener) -> None:
    if option.ciphers:
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    words = option.ciphers + NEVER_CIPHERS if option.ciphers else INTERMEDIATE_CIPHERS
    try:
        context.set_cipher_list(words.encode("utf-8"))
    except SSL.Error as error:
        cause = f"ciphers {option.ciphers!r}: {_openssl_reason(error)}; see openssl ciphers -v"
        raise certificates.BadFile(cause) from None


def _set_certificate(context: SSL.Context, option: HttpsListener) -> None:
    key = certificates.private_key(option.key)
    try:
        context.use_certificate_chain_file(option.certificate)
    except SSL.Error as error:
        raise certificates.BadFile(f"certificate {option.certificate}: {_openssl_reason(error)}") from None
    try:
        try:
            # Types: what cryptography can load and TLS cannot use raises TypeError.
            context.use_privatekey(key)  # type: ignore[arg-type]  # a key of any kind that a file may hold
        except TypeError:  # pyOpenSSL before 24.3 takes its own PKey, which the newer one deprecates
            context.use_privatekey(crypto.PKey.from_cryptography_key(key))  # type: ignore[arg-type]  # likewise
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise certificates.BadFile(f"key {option.key}: {_openssl_reason(error)}") from None


def _set_client_ca(context: SSL.Context, option: HttpsListener) -> bytes:
    """Ask clients for a certificate of these CAs, if there are any. Returns the bytes of the CA file."""
    if not option.client_ca:
        if option.client_required:
            raise certificates.BadFile("a client certificate is required, but no client CA is given")
        return b""
    authorities = bytes(certificates.read_file(option.client_ca, "client CA"))
    try:
        context.load_verify_locations(option.client_ca)
        context.load_client_ca(os.fsencode(option.client_ca))  # the names, so that a browser offers the right ones
    except SSL.Error as error:
        raise certificates.BadFile(f"client CA {option.client_ca}: {_openssl_reason(error)}") from None
    # Without a callback OpenSSL's own verdict stands.
    context.set_verify(_verify_mode(option), None)
    context.set_verify_depth(VERIFY_DEPTH)
    return authorities


def _verify_mode(option: HttpsListener) -> int:
    if not option.client_ca:
        return SSL.VERIFY_NONE
    return SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if option.client_required else 0)


def _session_id(option: HttpsListener, authorities: bytes) -> bytes:
    """The session id context, 32 bytes: a session must not be resumed where another client policy holds.

    With client certificates OpenSSL refuses to resume at all unless it is set: SSL_CTX_set_session_id_context(3).
    """
    digest = hashlib.sha256()
    for part in (str(option.address).encode("utf-8", "surrogateescape"), authorities, bytes([_verify_mode(option)])):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _select_http11(connection: SSL.Connection, offered: Sequence[bytes]) -> Any:
    # Without a common name the handshake goes on without ALPN, as with uWSGI, and curl --http1.0 gets its answer.
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def server_connection(context: SSL.Context, sock: RawSocket) -> SSL.Connection:
    """The server's side of a connection that does not block.

    pyOpenSSL lets one read consume handshake records for as long as there are any, so that a client that sends nothing
    but KeyUpdates holds the thread that reads; here each is one turn, SSL_CTX_set_mode(3).
    """
    conn = SSL.Connection(context, sock)  # type: ignore[arg-type]  # all it needs is fileno()
    _lib.SSL_clear_mode(_ssl(conn), _MODE_AUTO_RETRY)
    conn.set_accept_state()
    return conn


def outlived(conn: SSL.Connection) -> bool:
    """Whether a resumed session is of a client whose certificate has ended since it was verified, when it began."""
    if not _resumed(conn):
        return False
    certificate = conn.get_peer_certificate()
    return certificate is not None and certificate.has_expired()


def receive(conn: SSL.Connection) -> bytes:
    """`conn.recv` of one record. Raises as that does.

    It and `send` are called for every request, and what pyOpenSSL does around the library's own functions (a new
    buffer, a look at the type, an inspection of every result) costs as much as they do.
    """
    buffer: Any = getattr(_scratch, "buffer", None)
    if buffer is None:
        buffer = _scratch.buffer = _ffi.new("char[]", RECORD_BYTES)
    count = _lib.SSL_read(_ssl(conn), buffer, RECORD_BYTES)
    if count <= 0:
        _raise(conn, count)
    return bytes(_ffi.buffer(buffer, count))


def send(conn: SSL.Connection, data: bytes | memoryview) -> int:
    """`conn.send`: how many bytes were taken, which may be a record's worth. Raises as that does. Never of no bytes."""
    buffer = _ffi.from_buffer(data)
    count: int = _lib.SSL_write(_ssl(conn), buffer, len(buffer))
    if count <= 0:
        _raise(conn, count)
    return count


def client_variables(conn: SSL.Connection, export_cert: bool) -> tuple[tuple[str, str], ...]:
    """The variables that tell a backend of TLS and of the client's certificate, names and order as uWSGI's https.c.

    HTTPS_CLIENT_CERTIFICATE is DER in a latin-1 str, HTTPS_CC (with export_cert) PEM. Call it after the handshake.
    """
    certificate = _client_certificate(conn)
    if certificate is None:
        return _HTTPS_ON
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate).decode("latin-1")
    subject = _one_line(_lib.X509_get_subject_name(_pointer(certificate)))
    variables = (*_HTTPS_ON, ("HTTPS_CLIENT_CERTIFICATE", der), ("HTTPS_DN", subject))
    if not export_cert:
        return variables
    pem = crypto.dump_certificate(crypto.FILETYPE_PEM, certificate).decode("ascii")
    return (*variables, ("HTTPS_CC", pem))


def facts(conn: SSL.Connection) -> TlsFacts:
    """What the built-in page shows. Call it after the handshake."""
    certificate = _client_certificate(conn)
    return TlsFacts(
        protocol=conn.get_protocol_version_name(),
        cipher=conn.get_cipher_name() or "",
        group=_group(conn),
        sni=(conn.get_servername() or b"").decode("latin-1"),
        alpn=conn.get_alpn_proto_negotiated().decode("latin-1"),
        resumed=_resumed(conn),
        client_verify="NONE" if certificate is None else "SUCCESS",
        **({} if certificate is None else _client_facts(certificate)),
    )


def _client_facts(certificate: crypto.X509) -> dict[str, str]:
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    return {
        "client_dn": _one_line(_lib.X509_get_subject_name(_pointer(certificate))),
        "client_issuer": _one_line(_lib.X509_get_issuer_name(_pointer(certificate))),
        "client_serial": f"{certificate.get_serial_number():X}",
        "client_not_before": _time(certificate.get_notBefore()),
        "client_not_after": _time(certificate.get_notAfter()),
        "client_fingerprint": hashlib.sha256(der).hexdigest(),
    }


def _time(asn1: bytes | None) -> str:
    """ "20260131235959Z" as a person writes it."""
    t = (asn1 or b"").decode("ascii", "replace")
    return f"{t[:4]}-{t[4:6]}-{t[6:8]} {t[8:10]}:{t[10:12]}:{t[12:14]} UTC" if len(t) == 15 else t


def _client_certificate(conn: SSL.Connection) -> crypto.X509 | None:
    """The client's certificate if it was verified; of a resumed session, the one that was verified when it began."""
    certificate = conn.get_peer_certificate()
    if certificate is None or _lib.SSL_get_verify_result(_ssl(conn)) != 0:  # X509_V_OK
        return None
    return certificate


def _one_line(name: Any) -> str:
    r"""A name as uWSGI's HTTPS_DN: "/C=IT/CN=a\/b", each byte that is not printable ASCII as \xHH.

    That is OpenSSL's own function, the same since 3.0, which escapes "/" and "+" so that no value can pose as another
    attribute. With NULL for a buffer nothing is cut off.
    """
    text = _lib.X509_NAME_oneline(name, _ffi.NULL, 0)
    if text == _ffi.NULL:
        raise MemoryError("X509_NAME_oneline")
    try:
        return str(_ffi.string(text), "latin-1")
    finally:
        _lib.OPENSSL_free(text)


def _group(conn: SSL.Connection) -> str:
    try:
        return conn.get_group_name() or ""
    except (AttributeError, NotImplementedError):  # pyOpenSSL before 26.0; OpenSSL before 3.2
        return ""


def _resumed(conn: SSL.Connection) -> bool:
    return hasattr(_lib, "SSL_session_reused") and _lib.SSL_session_reused(_ssl(conn)) == 1


def _ssl(conn: SSL.Connection) -> Any:
    return conn._ssl


def _raise(conn: SSL.Connection, result: int) -> None:
    conn._raise_ssl_error(_ssl(conn), result)


def _pointer(certificate: crypto.X509) -> Any:
    return certificate._x509


def reason(exc: SSL.Error, conn: SSL.Connection | None) -> str:
    """Why a handshake or a read failed, in one line of words; of a refused certificate, what was wrong with it."""
    if isinstance(exc, SSL.ZeroReturnError):
        return "the client ended the connection"
    if isinstance(exc, SSL.SysCallError):
        code = exc.args[0] if exc.args else -1
        return os.strerror(code).lower() if code > 0 else "the client closed the connection"
    text = _openssl_reason(exc)
    if text == "certificate verify failed" and conn is not None:
        return f"client certificate refused: {_verify_text(conn)}"
    _, alert, name = text.partition(" alert ")
    if alert:  # "sslv3 alert bad certificate", "tlsv1 alert unknown ca"
        return f"the client refused, with the alert: {name}"
    return _REASONS.get(text, text)


def _verify_text(conn: SSL.Connection) -> str:
    text = _lib.X509_verify_cert_error_string(_lib.SSL_get_verify_result(_ssl(conn)))
    return str(_ffi.string(text), "ascii", "replace")


def _openssl_reason(error: Exception) -> str:
    """The first reason in OpenSSL's error queue: the cause, where later ones name the steps that it broke."""
    queue = error.args[0] if error.args else None
    words = next((entry[-1] for entry in queue if entry[-1]), "") if isinstance(queue, list) else str(error)
    return words or "unknown TLS error"
