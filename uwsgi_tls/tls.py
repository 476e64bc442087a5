"""What pyOpenSSL is asked of a connection and of its client's certificate, and OpenSSL's reasons in words.

Every difference between pyOpenSSL 23.0.0 and the newest, and every use of its unofficial `_lib`, is in this module and,
where it is about contexts, in contexts.py.
"""

import calendar
import os
import threading
import time
from _socket import socket as RawSocket
from typing import Any, NamedTuple

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

from uwsgi_tls import hello, refusals, rfc2253

RECORD_BYTES = 16384  # RFC 8446, 5.1: a read of this size leaves nothing decrypted behind in OpenSSL

_MODE_ENABLE_PARTIAL_WRITE, _MODE_AUTO_RETRY = 0x1, 0x4  # which not every version of pyOpenSSL names; ssl.h
_TLSEXT_ERR_OK, _TLSEXT_ERR_NOACK = 0, 3  # tls1.h

_NEEDED = (
    "OPENSSL_free",
    "SSL_CTX_set_alpn_select_cb",
    "SSL_CTX_set_tlsext_servername_callback",
    "SSL_clear_mode",
    "SSL_do_handshake",
    "SSL_get_error",
    "SSL_get_verify_result",
    "SSL_read",
    "SSL_session_reused",
    "SSL_set_options",
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
_NO_CERTIFICATE = "peer did not return a certificate"
_REASONS = {
    "http request": "plain HTTP on the HTTPS port",
    "https proxy request": "a proxy's CONNECT on the HTTPS port",
    "no shared cipher": "the client offers no cipher that is allowed here",
    "no suitable key share": "the client offers no key exchange group that is allowed here",
    "no suitable signature algorithm": "the client accepts no signature that our key can make",
    _NO_CERTIFICATE: "the client sent no certificate, and one is required",
    "unsupported protocol": "the client offers no TLS version that is allowed here",
    "wrong version number": "what the client sends is not TLS",
}
# The alerts that OpenSSL sends for them: ssl/statem/statem_srvr.c, extensions_srvr.c and statem_lib.c.
_ALERTS = {
    "no shared cipher": "handshake_failure",
    "no suitable key share": "handshake_failure",
    "no suitable signature algorithm": "handshake_failure",
    _NO_CERTIFICATE: "handshake_failure",
    "unsupported protocol": "protocol_version",
}


class Handshake(NamedTuple):
    """What a complete handshake has agreed on, and what its client has proved."""

    protocol: str  # "TLSv1.3"
    cipher: str
    resumed: bool  # it took an earlier session up
    certificate: crypto.X509 | None  # the client's, verified; of a resumed session, when it began
    unverified: bool  # the client has shown one that was not


def server_connection(context: SSL.Context, sock: RawSocket, resumes: bool = True) -> SSL.Connection:
    """The server's side of a connection that does not block. Where it does not resume, every handshake is a full one.

    pyOpenSSL lets one read consume handshake records for as long as there are any, so that a client that sends nothing
    but KeyUpdates holds the thread that reads; here each is one turn, SSL_CTX_set_mode(3). It also lets a write return
    after each record, which makes a response of many records a quarter dearer.
    """
    conn = SSL.Connection(context, sock)  # type: ignore[arg-type]  # all it needs is fileno()
    _lib.SSL_clear_mode(_ssl(conn), _MODE_AUTO_RETRY | _MODE_ENABLE_PARTIAL_WRITE)
    if not resumes:
        _lib.SSL_set_options(_ssl(conn), SSL.OP_NO_TICKET)
    conn.set_accept_state()
    return conn


def renew_no_ticket(context: SSL.Context) -> None:
    """Has a session last no longer than the first ticket that was given for it.

    In TLS 1.3 each resumption brings a ticket that begins the time of the session anew, so a client need never show its
    chain again. No version of cryptography has SSL_set_num_tickets(3). But OpenSSL sends none where this callback turns
    tickets off, which comes right after one was taken, with or without a name (extensions.c, final_server_name).
    """
    _lib.SSL_CTX_set_tlsext_servername_callback(context._context, _AFTER_TICKET)


def _after_ticket(ssl: Any, alert: Any, argument: Any) -> int:
    if not _lib.SSL_session_reused(ssl):
        return _TLSEXT_ERR_NOACK  # as without a callback
    _lib.SSL_set_options(ssl, SSL.OP_NO_TICKET)
    return _TLSEXT_ERR_OK


_AFTER_TICKET = _ffi.callback("int (*)(SSL *, int *, void *)", _after_ticket)  # OpenSSL itself does not keep it alive


def speak_http11(context: SSL.Context) -> None:
    """Has ALPN (RFC 7301) choose http/1.1 wherever a client offers it.

    Without a common name the handshake goes on without ALPN, as with uWSGI, and curl --http1.0 gets its answer.
    """
    _lib.SSL_CTX_set_alpn_select_cb(context._context, _SELECT_HTTP11, _ffi.NULL)


def _select_http11(ssl: Any, out: Any, out_size: Any, offered: Any, size: int, argument: Any) -> int:
    """SSL_CTX_set_alpn_select_cb(3): OpenSSL has seen to it that the lengths are right."""
    names = bytes(_ffi.buffer(offered, size))
    at = 0
    while at < size:
        end = at + 1 + names[at]
        if names[at + 1 : end] == b"http/1.1":
            out[0], out_size[0] = _HTTP11, len(_HTTP11)
            return _TLSEXT_ERR_OK
        at = end
    return _TLSEXT_ERR_NOACK


_HTTP11 = _ffi.new("unsigned char[8]", b"http/1.1")
_SELECT_HTTP11 = _ffi.callback(
    "int (*)(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)",
    _select_http11,
    error=_TLSEXT_ERR_NOACK,
)


def shake_hands(conn: SSL.Connection) -> bool:
    """`conn.do_handshake`: True when it is complete, False when the client must send first. Raises as that does else.

    To wait for the client is the usual thing, and an exception for it costs more than the question.
    """
    ssl = _ssl(conn)
    result = _lib.SSL_do_handshake(ssl)
    if result == 1:
        return True
    if _lib.SSL_get_error(ssl, result) != _lib.SSL_ERROR_WANT_READ:
        _raise(conn, result)
    return False


def outcome(conn: SSL.Connection) -> Handshake:
    """What the handshake of `conn`, which is complete, has come to."""
    certificate = conn.get_peer_certificate()
    verified = certificate is not None and _lib.SSL_get_verify_result(_ssl(conn)) == 0  # X509_V_OK
    return Handshake(
        conn.get_protocol_version_name(),
        conn.get_cipher_name() or "",
        resumed(conn),
        certificate if verified else None,
        certificate is not None and not verified,
    )


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
    """`conn.send`: how many bytes were taken, which is all of them. Raises as that does. Never of no bytes."""
    buffer = _ffi.from_buffer(data)
    count: int = _lib.SSL_write(_ssl(conn), buffer, len(buffer))
    if count <= 0:
        _raise(conn, count)
    return count


def has_asked_for(conn: SSL.Connection, name: str | None) -> bool:
    """Whether a client has asked OpenSSL for the same name as us, as `Hello` has it. Call it after the handshake.

    Of a session that is resumed in TLS 1.2 OpenSSL says the name with which it began, if any: SSL_get_servername(3).
    """
    asked = conn.get_servername()
    if asked is None:
        return name is None or resumed(conn)
    return hello.host_name(asked) == name


def resumed(conn: SSL.Connection) -> bool:
    """Whether the handshake took an earlier session up."""
    return bool(_lib.SSL_session_reused(_ssl(conn)) == 1)


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
    r"""The subject as uWSGI's HTTPS_DN: "/C=IT/CN=a\/b", each byte that is not printable ASCII as \xHH.

    Two names may have the same line, unless `rfc2253.is_plain`.
    """
    return _one_line(_lib.X509_get_subject_name(_pointer(certificate)))


def not_after(certificate: crypto.X509) -> float:
    """Its last moment, in UTC seconds. Raises ValueError if it has none that can be read."""
    return calendar.timegm(time.strptime((certificate.get_notAfter() or b"").decode("ascii"), "%Y%m%d%H%M%SZ"))


def shown_subject(certificate: crypto.X509) -> str:
    """The subject for a person: as `subject_line` where that cannot deceive, and in the form of RFC 2253 elsewhere."""
    return _shown(_lib.X509_get_subject_name(_pointer(certificate)))


def shown_issuer(certificate: crypto.X509) -> str:
    """The issuer, likewise."""
    return _shown(_lib.X509_get_issuer_name(_pointer(certificate)))


def _shown(name: Any) -> str:
    der = _name_der(name)
    if rfc2253.is_plain(der):
        return _one_line(name)
    try:
        return rfc2253.text(der)
    except ValueError:  # text that its own type does not allow
        return f"#{der.hex().upper()}"


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
    r"""OpenSSL's own form. Since 3.0 it escapes "/" and "+" in a value, but not "\", and it knows no character sets."""
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
    text = openssl_reason(exc)
    if conn is not None and "certificate verify failed" in _queue(exc):  # which a bad signature comes before
        words = conn.get_app_data() or _verify_text(_lib.SSL_get_verify_result(_ssl(conn)))
        return f"client certificate refused: {words}"
    _, alert, name = text.partition(" alert ")
    if alert:  # "sslv3 alert bad certificate", "tlsv1 alert unknown ca"
        return f"the client refused, with the alert: {name}"
    return _REASONS.get(text, text)


def alert(exc: SSL.Error, conn: SSL.Connection) -> str:
    """The alert that ended a handshake, as "sent: NAME" or "received: NAME" (RFC 8446, 6); "" where none did.

    Which one OpenSSL sends follows from its reason; to be told it by a callback costs a twentieth of every handshake.
    """
    text = openssl_reason(exc)
    _, received, name = text.partition(" alert ")
    if received:
        return f"received: {name.replace(' ', '_')}"
    sent = _ALERTS.get(text, "")
    if "certificate verify failed" in _queue(exc):
        sent = refusals.alert(_lib.SSL_get_verify_result(_ssl(conn)))
    elif text == _NO_CERTIFICATE and conn.get_protocol_version() == SSL.TLS1_3_VERSION:
        sent = "certificate_required"
    return f"sent: {sent}" if sent else ""


def note_refusal(conn: SSL.Connection, certificate: crypto.X509, code: int, depth: int, verdict: int) -> bool:
    """A verify callback: writes down which certificate is refused and why, which nobody can ask later.

    The verdict stands.
    """
    if not verdict:
        try:
            subject, issuer = shown_subject(certificate), shown_issuer(certificate)
            limit = conn.get_context().get_verify_depth()
            conn.set_app_data(refusals.words(code, _verify_text(code), depth, limit, certificate, subject, issuer))
        except Exception:  # pyOpenSSL would raise it from another connection's handshake: then without these words
            conn.set_app_data(None)
    return bool(verdict)


def _verify_text(code: int) -> str:
    return str(_ffi.string(_lib.X509_verify_cert_error_string(code)), "ascii", "replace")


def openssl_reason(error: Exception) -> str:
    """The first reason in OpenSSL's error queue: the cause, where later ones name the steps that it broke."""
    return next(filter(None, _queue(error)), "unknown TLS error")


def _queue(error: Exception) -> list[str]:
    queue = error.args[0] if error.args else None
    return [entry[-1] for entry in queue] if isinstance(queue, list) else [str(error)]
