"""From a site and its files to a pyOpenSSL context.

A context is complete when `build_context` returns and is never changed; it is built before the fork, so that all
workers share its ticket keys, which are its own. No policy lives in a callback that could fail: pyOpenSSL keeps a
callback's exception on the context, where another thread's connection would raise it. The words of a policy are
policy.py's; uWSGI: core/ssl.c.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from OpenSSL import SSL, crypto
from OpenSSL._util import lib as _lib

from uwsgi_tls import policy, tls
from uwsgi_tls.certificates import BadFile, Credential, Material
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import Site

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# Constants that some versions of pyOpenSSL do not name; ssl.h
_OP_PRIORITIZE_CHACHA = 1 << 21
_MODE_ACCEPT_MOVING_WRITE_BUFFER = 0x2  # a retried write may come from another buffer


def build_context(site: Site, material: Material, scope: str) -> SSL.Context:
    """The server context of a site, of which nothing is left open and whose files hold `material`.

    Sessions are good within `scope`, a text. Raises ConfigError, with OpenSSL's reason where there is one.
    """
    with _blamed_on(site):
        return _build(site, material, scope)


def _build(site: Site, material: Material, scope: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[site.min_version])
    context.set_max_proto_version(_VERSIONS[site.max_version])
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | site.options)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_ACCEPT_MOVING_WRITE_BUFFER)
    _set_groups(context)
    _set_ciphers(context, site)
    for credential in material.credentials:
        _add_credential(context, credential)
    if material.client_cas:
        _ask_clients(context, site, material)
    # Resumption by tickets, which any worker can open; a cache would be one worker's own.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # A resumption verifies no certificate again; in TLS 1.3 it would begin this time anew.
    context.set_timeout(site.session_seconds)
    if material.client_cas:
        tls.renew_no_ticket(context)
    context.set_session_id(session_id(site, material, scope))
    tls.speak_http11(context)
    return context


def weak_suites(site: Site) -> list[str]:
    """OpenSSL's names of the suites that the site allows and that have no forward secrecy, or are in CBC mode.

    Raises ConfigError.
    """
    if site.min_version > "1.2" or not site.ciphers:
        return []
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    with _blamed_on(site):
        _set_ciphers(context, site)
    return policy.weak(SSL.Connection(context, None).get_cipher_list())


@contextmanager
def _blamed_on(site: Site) -> Iterator[None]:
    try:
        yield
    except BadFile as error:
        raise ConfigError(site.option, site.text, str(error), site.where) from None


def _set_groups(context: SSL.Context) -> None:
    """Debian 12's cryptography cannot name them: they stay OpenSSL's. set_tmp_ecdh leaves but one, as uWSGI does."""
    if hasattr(_lib, "SSL_CTX_set1_curves_list"):  # which takes any group since OpenSSL 1.1.1
        any(_lib.SSL_CTX_set1_curves_list(context._context, words.encode("ascii")) for words in policy.GROUPS)
        _lib.ERR_clear_error()  # an OpenSSL before 3.5 does not know the first form, and has said so


def _set_ciphers(context: SSL.Context, site: Site) -> None:
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    if not site.ciphers:
        # A client that puts ChaCha20 first has no AES in its processor. It is why Mozilla leaves the choice to clients.
        context.set_options(_OP_PRIORITIZE_CHACHA)
    words = site.ciphers + policy.NEVER_CIPHERS if site.ciphers else policy.PROFILES[site.profile].ciphers
    try:
        context.set_cipher_list(words.encode("utf-8"))
    except SSL.Error as error:
        raise BadFile(f"ciphers {site.ciphers!r}: {tls.openssl_reason(error)}; see openssl ciphers -v") from None
    suites = site.ciphersuites or policy.SUITES
    # Public since pyOpenSSL 25.2, as set_tls13_ciphersuites.
    if not _lib.SSL_CTX_set_ciphersuites(context._context, suites.encode("ascii")):
        raise BadFile(f"ciphersuites {suites!r}: OpenSSL does not have them")


def _add_credential(context: SSL.Context, credential: Credential) -> None:
    info = credential.info
    try:
        with _as_file(credential.chain) as path:
            # Of all that pyOpenSSL has, this alone gives each key type a chain of its own.
            context.use_certificate_chain_file(path)
    except SSL.Error as error:
        raise BadFile(f"certificate {info.file}: {tls.openssl_reason(error)}") from None
    try:
        try:
            # Types: what cryptography can load and TLS cannot use raises TypeError.
            context.use_privatekey(credential.key)  # type: ignore[arg-type]  # a key of any kind that a file may hold
        except TypeError:  # pyOpenSSL before 24.3 takes its own PKey, which the newer one deprecates
            context.use_privatekey(crypto.PKey.from_cryptography_key(credential.key))  # type: ignore[arg-type]  # likewise
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise BadFile(f"key of certificate {info.file}: {tls.openssl_reason(error)}") from None


def _ask_clients(context: SSL.Context, site: Site, material: Material) -> None:
    """Asks clients for a certificate of these CAs."""
    try:
        with _as_file(material.client_cas) as path:
            context.load_client_ca(path.encode("ascii"))  # the names, so that a browser offers the right ones
        # crypto.CRL and cryptography's are each known to some versions of pyOpenSSL only; a file is to all.
        with _as_file(material.client_cas + material.crls) as path:
            context.load_verify_locations(path)
    except SSL.Error as error:
        raise BadFile(f"client CA {site.client_ca}: {tls.openssl_reason(error)}") from None
    store = context.get_cert_store()
    if material.crls and store is not None:
        more = 0 if site.crl_of_leaf_only else crypto.X509StoreFlags.CRL_CHECK_ALL
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | more)
    context.set_verify(_verify_mode(site), tls.note_refusal)
    context.set_verify_depth(site.verify_depth or 0)


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


def client_policy(site: Site, material: Material) -> bytes:
    """What is asked of clients, as a digest: equal where the same is asked, b"" where nothing is."""
    if not material.client_cas:
        return b""
    return _digest(
        material.client_cas,
        material.crls,
        bytes([_verify_mode(site), site.crl_of_leaf_only]),
        str(site.verify_depth).encode("ascii"),
        repr(sorted((rule.kind, rule.value) for rule in site.client_allow)).encode("utf-8", "surrogateescape"),
    )


def session_id(site: Site, material: Material, scope: str) -> bytes:
    """The session id context, 32 bytes: a session must not be resumed where another client policy holds.

    With client certificates OpenSSL refuses to resume at all unless it is set: SSL_CTX_set_session_id_context(3).
    """
    texts = (scope, site.session_context)
    return _digest(*(text.encode("utf-8", "surrogateescape") for text in texts), client_policy(site, material))


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
