"""revocations.py: what a CRL file may hold, and what is said of it; and what OpenSSL makes of it (contexts.py)."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from handshakes import both_versions, client_context, handshake, option
from pki import CLIENT, Issued, Pki, common_name, issue, revocation_list

from uwsgi_tls import certificates, contexts, revocations, sites
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config


@pytest.fixture(scope="module")
def chain(lab: Pki, tmp_path_factory: pytest.TempPathFactory) -> tuple[Issued, Issued]:
    """An intermediate CA, and a client that it has signed."""
    place = tmp_path_factory.mktemp("chain")
    above = issue(place, "above", common_name("Above"), lab.ca, authority=True)
    return above, issue(place, "client", common_name("Below"), above, usage=[CLIENT])


def read(data: bytes, *authorities: Issued) -> tuple[bytes, list[str]]:
    return revocations.read(data, [each.certificate for each in authorities], datetime.now(UTC))


# --- the file ----------------------------------------------------------------------------------------------


def test_a_list_for_each_ca(lab: Pki) -> None:
    one, two = revocation_list(lab.ca), revocation_list(lab.other_ca)
    pem, warnings = read(b"text before\n" + one + two, lab.ca, lab.other_ca)
    assert (pem.count(b"BEGIN X509 CRL"), warnings) == (2, [])


def test_a_ca_without_a_list_is_named(lab: Pki) -> None:
    assert read(revocation_list(lab.ca), lab.ca, lab.other_ca)[1] == [
        "has no CRL of CN=Other CA; its clients will be refused"
    ]


def test_a_list_that_has_expired_is_named(lab: Pki) -> None:
    (warning,) = read(revocation_list(lab.ca, days=(-30, -1)), lab.ca)[1]
    assert re.fullmatch(r"that of CN=Lab CA has expired on 20.* UTC; its clients will be refused", warning)


def test_a_list_of_a_ca_that_clients_bring(lab: Pki, chain: tuple[Issued, Issued]) -> None:
    both = revocation_list(lab.ca) + revocation_list(chain[0])
    assert read(both, lab.ca)[1] == []


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (lambda lab: b"nothing", "is not PEM"),
        (lambda lab: lab.ca.pem.encode(), "holds no CRL but CERTIFICATE"),
        (lambda lab: revocation_list(lab.ca)[:200], "its CRL is cut off"),
        (lambda lab: 2 * revocation_list(lab.ca).replace(b"\nM", b"\nA", 1), "CRL 1 of 2 is damaged"),
        (lambda lab: revocation_list(lab.ca, key=lab.other_ca.key), "was not signed by CN=Lab CA of the client CAs"),
    ],
)  # fmt: skip
def test_a_file_that_is_refused(content: object, cause: str, lab: Pki, tmp_path: Path) -> None:
    assert callable(content)
    path = tmp_path / "ca.crl"
    path.write_bytes(content(lab))
    with pytest.raises(ConfigError) as caught:
        certificates.load(replace(option(lab.server, "", lab.ca.crt), crl=str(path)))
    assert caught.value.cause == f"CRL {path}: {cause}"


def test_a_file_that_is_missing(lab: Pki) -> None:
    with pytest.raises(ConfigError, match="CRL /none: no such file"):
        certificates.load(replace(option(lab.server, "", lab.ca.crt), crl="/none"))


# --- what OpenSSL makes of it --------------------------------------------------------------------------------


def verdict(
    lab: Pki, crls: Sequence[bytes], client: Issued, version: ssl.TLSVersion, place: Path, check: str = ""
) -> str:
    """Why the client is refused; "" where it is not."""
    path = place / "all.crl"
    path.write_bytes(b"".join(crls))
    config = Config(https=(option(lab.server, "", lab.ca.crt, True),), ssl_crl=str(path), ssl_crl_check=check)
    (site,) = sites.of_listeners(config)
    context = contexts.build_context(site, certificates.load(site), "")
    server, seen = handshake(context, client_context(lab, version, client))
    assert bool(seen.received) == (not server.reason)
    return server.reason


@both_versions
def test_who_is_revoked(version: ssl.TLSVersion, lab: Pki, chain: tuple[Issued, Issued], tmp_path: Path) -> None:
    above, below = chain
    free = [revocation_list(lab.ca), revocation_list(above)]
    revoked = "client certificate refused: it was revoked"
    cases = [
        (free, lab.client, ""),
        (free, below, ""),
        ([revocation_list(lab.ca, [lab.client])], lab.client, revoked),
        ([revocation_list(lab.ca, [lab.client]), free[1]], below, ""),
        ([free[0], revocation_list(above, [below])], below, revoked),
        ([revocation_list(lab.ca, [above]), free[1]], below, revoked),
        ([free[0]], below, "client certificate refused: the CRL of its issuer /CN=Above is missing"),
        ([revocation_list(lab.ca, days=(-30, -1))], lab.client, "client certificate refused: the CRL of its issuer"),
        ([revocation_list(lab.ca, days=(1, 30))], lab.client, "client certificate refused: the CRL of its issuer"),
        ([free[0], revocation_list(above, key=lab.ca.key)], below, "client certificate refused: the CRL of its issuer"),
    ]
    for crls, client, words in cases:
        found = verdict(lab, crls, client, version, tmp_path)
        assert found.startswith(words) if words else not found, (words, found)


@both_versions
def test_the_list_of_the_leaf_alone(
    version: ssl.TLSVersion, lab: Pki, chain: tuple[Issued, Issued], tmp_path: Path
) -> None:
    above, below = chain
    assert verdict(lab, [revocation_list(above)], below, version, tmp_path, "leaf") == ""
    assert "is missing" in verdict(lab, [revocation_list(above)], below, version, tmp_path, "chain")
    assert "revoked" in verdict(lab, [revocation_list(above, [below])], below, version, tmp_path, "leaf")
