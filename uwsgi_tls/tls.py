"""From a site and its files to a pyOpenSSL context, and what pyOpenSSL is asked of a connection and its certificate.

Every difference between pyOpenSSL 23.0.0 and the newest, and every use of its unofficial `_lib`, is in this module.
A context is complete when `build_context` returns and is never changed; it is built before the fork, so that all
workers share its ticket keys. No policy lives in a callback: pyOpenSSL keeps a callback's exception on the context,
where another thread's connection would raise it. Policy: Mozilla's guidelines 6.0, "intermediate"; uWSGI: core/ssl.c.
"""

import hashlib
import os
import threading
from _socket import socket as RawSocket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

from uwsgi_tls import refusals
from uwsgi_tls.certificates import BadFile, Credential, Material
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import Site

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
    "i2d_X509_NAME",
)
_missing = [name for name in _NEEDED if not hasattr(_lib, name)]
if _missing:  # better no start than certificates whose verification nobody can read
    raise ImportError(f"this version of cryptography does not have {', '.join(_missing)}")

_scratch = threading.local()  # where a thread's records are decrypted to
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


def build_context(site: Site, material: Material, scope: str) -> SSL.Context:
    """The server context of a site whose files hold `material`; sessions are good within `scope`, a text.

    Raises ConfigError, with OpenSSL's reason where there is one.
    """
    try:
        return _build(site, material, scope)
    except BadFile as error:
        raise ConfigError(site.option, site.text, str(error), site.where) from None


def _build(site: Site, material: Material, scope: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_ENABLE_PARTIAL_WRITE | _MODE_ACCEPT_MOVING_WRITE_BUFFER)
    # Groups stay OpenSSL's own: set_tmp_ecdh would leave one of them, as uWSGI's P-256.
    _set_ciphers(context, site)
    for credential in material.credentials:
        _add_credential(context, credential)
    if material.client_cas:
        _ask_clients(context, site, material)
    # Resumption by tickets, which any worker can open; a cache would be one worker's own.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_timeout(SESSION_SECONDS)
    context.set_session_id(_session_id(site, material, scope))
    context.set_alpn_select_callback(_select_http11)
    return context


def _set_ciphers(context: SSL.Context, site: Site) -> None:
    if site.ciphers:
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    words = site.ciphers + NEVER_CIPHERS if site.ciphers else INTERMEDIATE_CIPHERS
    try:
        context.set_cipher_list(words.encode("utf-8"))
    except SSL.Error as error:
        raise BadFile(f"ciphers {site.ciphers!r}: {_openssl_reason(error)}; see openssl ciphers -v") from None


def _add_credential(context: SSL.Context, credential: Credential) -> None:
    info = credential.info
    try:
        with _as_file(credential.chain) as path:
            # Of all that pyOpenSSL has, this alone gives each key type a chain of its own.
            context.use_certificate_chain_file(path)
    except SSL.Error as error:
        raise BadFile(f"certificate {info.file}: {_openssl_reason(error)}") from None
    try:
        try:
            # Types: what cryptography can load and TLS cannot use raises TypeError.
            context.use_privatekey(credential.key)  # type: ignore[arg-type]  # a key of any kind that a file may hold
        except TypeError:  # pyOpenSSL before 24.3 takes its own PKey, which the newer one deprecates
            context.use_privatekey(crypto.PKey.from_cryptography_key(credential.key))  # type: ignore[arg-type]  # likewise
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise BadFile(f"key of certificate {info.file}: {_openssl_reason(error)}") from None


def _ask_clients(context: SSL.Context, site: Site, material: Material) -> None:
    """Asks clients for a certificate of these CAs."""
    try:
        with _as_file(material.client_cas) as path:
            context.load_verify_locations(path)
            context.load_client_ca(path.encode("ascii"))  # the names, so that a browser offers the right ones
    except SSL.Error as error:
        raise BadFile(f"client CA {site.client_ca}: {_openssl_reason(error)}") from None
    context.set_verify(_verify_mode(site), _note_refusal)
    context.set_verify_depth(VERIFY_DEPTH)


@contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """A path under which OpenSSL finds these bytes: memory with a descriptor, memfd_create(2).

    It can be opened after the drop too, though /proc/self/fd is root's then: proc(5) lets a process see its own.
    """
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    with open(fd, "wb", buffering=0) as file:
        file.write(pem)
        yield f"/proc/self/fd/{fd}"


def _verify_mode(site: Site) -> int:
    if not site.client_ca:
        return SSL.VERIFY_NONE
    return SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if site.client_required else 0)


def _session_id(site: Site, material: Material, scope: str) -> bytes:
    """The session id context, 32 bytes: a session must not be resumed where another client policy holds.

    With client certificates OpenSSL refuses to resume at all unless it is set: SSL_CTX_set_session_id_context(3).
    """
    digest = hashlib.sha256()
    for part in (scope.encode("utf-8", "surrogateescape"), material.client_cas, bytes([_verify_mode(site)])):
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


def verified_certificate(conn: SSL.Connection) -> crypto.X509 | None:
    """The client's certificate if it was verified; of a resumed session, the one that was verified when it began."""
    certificate = conn.get_peer_certificate()
    if certificate is None or _lib.SSL_get_verify_result(_ssl(conn)) != 0:  # X509_V_OK
        return None
    return certificate


def resumed(conn: SSL.Connection) -> bool:
    """Whether the handshake took an earlier session up."""
    return hasattr(_lib, "SSL_session_reused") and _lib.SSL_session_reused(_ssl(conn)) == 1


def group(conn: SSL.Connection) -> str:
    """The group of the key exchange; "" where it is not known."""
    try:
        return conn.get_group_name() or ""
    except (AttributeError, NotImplementedError):  # pyOpenSSL before 26.0; OpenSSL before 3.2
        return ""


def der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def pem(certificate: crypto.X509) -> str:
    return crypto.dump_certificate(crypto.FILETYPE_PEM, certificate).decode("ascii")


def subject_line(certificate: crypto.X509) -> str:
    r"""The subject as uWSGI's HTTPS_DN: "/C=IT/CN=a\/b", each byte that is not printable ASCII as \xHH."""
    return _one_line(_lib.X509_get_subject_name(_pointer(certificate)))


def issuer_line(certificate: crypto.X509) -> str:
    """The issuer, likewise."""
    return _one_line(_lib.X509_get_issuer_name(_pointer(certificate)))


def subject_der(certificate: crypto.X509) -> bytes:
    """The subject's Name (RFC 5280, 4.1.2.4) in DER."""
    return _name_der(_lib.X509_get_subject_name(_pointer(certificate)))


def issuer_der(certificate: crypto.X509) -> bytes:
    """The issuer's Name in DER."""
    return _name_der(_lib.X509_get_issuer_name(_pointer(certificate)))


def _name_der(name: Any) -> bytes:
    where = _ffi.new("unsigned char **")
    size = _lib.i2d_X509_NAME(name, where)
    if size < 0:
        raise MemoryError("i2d_X509_NAME")
    try:
        return bytes(_ffi.buffer(where[0], size))
    finally:
        _lib.OPENSSL_free(where[0])


def _one_line(name: Any) -> str:
    """OpenSSL's own form, which since 3.0 escapes "/" and "+" so that no value can pose as another attribute."""
    text = _lib.X509_NAME_oneline(name, _ffi.NULL, 0)  # without a buffer of ours nothing is cut off
    if text == _ffi.NULL:
        raise MemoryError("X509_NAME_oneline")
    try:
        return str(_ffi.string(text), "latin-1")
    finally:
        _lib.OPENSSL_free(text)


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
        words = conn.get_app_data() or _verify_text(_lib.SSL_get_verify_result(_ssl(conn)))
        return f"client certificate refused: {words}"
    _, alert, name = text.partition(" alert ")
    if alert:  # "sslv3 alert bad certificate", "tlsv1 alert unknown ca"
        return f"the client refused, with the alert: {name}"
    return _REASONS.get(text, text)


def _note_refusal(conn: SSL.Connection, certificate: crypto.X509, code: int, depth: int, verdict: int) -> bool:
    """Writes down which certificate of a chain is refused and why, which nobody can ask later. The verdict stands."""
    if not verdict:
        try:
            subject, issuer = subject_line(certificate), issuer_line(certificate)
            limit = conn.get_context().get_verify_depth()
            conn.set_app_data(refusals.words(code, _verify_text(code), depth, limit, certificate, subject, issuer))
        except Exception:  # pyOpenSSL would raise it from another connection's handshake: then without these words
            conn.set_app_data(None)
    return bool(verdict)


def _verify_text(code: int) -> str:
    return str(_ffi.string(_lib.X509_verify_cert_error_string(code)), "ascii", "replace")


def _openssl_reason(error: Exception) -> str:
    """The first reason in OpenSSL's error queue: the cause, where later ones name the steps that it broke."""
    queue = error.args[0] if error.args else None
    words = next((entry[-1] for entry in queue if entry[-1]), "") if isinstance(queue, list) else str(error)
    return words or "unknown TLS error"
