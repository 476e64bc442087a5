"""policy.py: the words of TLS policy, and those that are refused."""

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL

from uwsgi_tls import policy

GOOD: list[tuple[Callable[[str], Any], str, Any]] = [
    *((policy.version, text, "1.2") for text in ("1.2", "TLSv1.2", "tls1.2", "TLSV1.2")),
    (policy.version, "1.3", "1.3"),
    (policy.profile, "modern", "modern"),
    (policy.ciphersuites, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    (policy.ssl_option, "0", 0),
    (policy.ssl_option, "536870912", 1 << 29),  # uWSGI's manual: SSL_OP_NO_TLSv1_3
    (policy.ssl_option, "0x4000", SSL.OP_NO_TICKET),
    (policy.ssl_option, "SSL_OP_NO_TICKET", SSL.OP_NO_TICKET),
    (policy.ssl_option, "op_no_ticket", SSL.OP_NO_TICKET),
    (policy.ssl_option, "NO_TLSv1_2", SSL.OP_NO_TLSv1_2),
    (policy.ssl_option, "NO_TLSv1_3", SSL.OP_NO_TLSv1_3),
    (policy.ssl_option, "CIPHER_SERVER_PREFERENCE", SSL.OP_CIPHER_SERVER_PREFERENCE),
    (policy.ssl_option, "NO_RENEGOTIATION", SSL.OP_NO_RENEGOTIATION),
    (policy.ssl_option, "NO_COMPRESSION", SSL.OP_NO_COMPRESSION),
    (policy.ssl_option, "ALL", SSL.OP_ALL),
]

BAD: list[tuple[Callable[[str], Any], str, str]] = [
    *((policy.version, text, "is broken (RFC 8996)") for text in ("1.0", "1.1", "TLSv1", "tlsv1.1")),
    *((policy.version, text, "is no TLS version") for text in ("", "SSLv3", "2", "1.2.", "1.30")),
    (policy.profile, "old", "allows TLS 1.0"),
    (policy.profile, "Modern", "is no profile"),
    (policy.ciphersuites, "TLS_AES_128_GCM_SHA256:", "'' is no TLS 1.3 cipher suite"),
    (policy.ciphersuites, "ECDHE-RSA-AES128-GCM-SHA256", "is no TLS 1.3 cipher suite"),
    (policy.ssl_option, "IGNORE_UNEXPECTED_EOF", "would look whole"),
    (policy.ssl_option, str(SSL.OP_IGNORE_UNEXPECTED_EOF | SSL.OP_NO_TICKET), "SSL_OP_IGNORE_UNEXPECTED_EOF in it"),
    (policy.ssl_option, "ALLOW_UNSAFE_LEGACY_RENEGOTIATION", "renegotiation stays off"),
    (policy.ssl_option, str(1 << 8), "SSL_OP_ALLOW_CLIENT_RENEGOTIATION in it"),
    (policy.ssl_option, "ENABLE_KTLS", "stays in the process"),
    (policy.ssl_option, "-1", "is neither a number nor"),
    (policy.ssl_option, "0x100000000", "the bits 0x100000000"),
    (policy.ssl_option, "SSL_OP_NONSENSE", "is neither a number nor one of SSL_OP_ALL, SSL_OP_CLEANSE"),
    (policy.ssl_option, "\u0661", "is neither a number nor"),
]


@pytest.mark.parametrize(("read", "text", "value"), GOOD)
def test_good_words(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(("read", "text", "cause"), BAD)
def test_bad_words(read: Callable[[str], Any], text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        read(text)


def test_the_options_are_openssls() -> None:
    """Each of our numbers that pyOpenSSL has a name for is the same there."""
    ours = policy._HARMLESS | {name: bit for name, (bit, _) in policy._REFUSED.items()}
    theirs = {name.removeprefix("OP_").upper(): getattr(SSL, name) for name in dir(SSL) if name.startswith("OP_")}
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 8
    # What OpenSSL has given up is 0.
    assert {name: theirs[name] for name in shared if theirs[name]} == {
        name: 1 << ours[name] for name in shared if theirs[name]
    }


def test_the_versions_that_are_left() -> None:
    assert policy.versions_left("1.2", "1.3", 0) == ("1.2", "1.3")
    assert policy.versions_left("1.3", "1.3", 0) == ("1.3",)
    assert policy.versions_left("1.2", "1.3", SSL.OP_NO_TLSv1_3) == ("1.2",)
    assert policy.versions_left("1.3", "1.2", 0) == ()


def test_weak_suites_are_those_of_rsa_and_of_cbc() -> None:
    """openssl's own table says what a suite's key exchange and encryption are."""
    shown = subprocess.run(
        ["openssl", "ciphers", "-v", "HIGH:!PSK:!SRP:!aNULL"], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in shown.stdout.splitlines()]
    strong = [
        row[0] for row in rows if row[2] != "Kx=RSA" and any(mode in row[4] for mode in ("GCM", "CCM", "POLY1305"))
    ]
    names = [row[0] for row in rows]
    assert strong
    assert [name for name in names if name not in policy.weak(names)] == strong
    assert "AES128-SHA" in policy.weak(names)
    assert policy.weak(policy.PROFILES["intermediate"].ciphers.split(":")) == []
