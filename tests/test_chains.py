"""chains.py: what clients will not like about a certificate of the server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from pki import Pki, common_name, issue

from uwsgi_tls import chains


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a.lab", True),
        ("b.wild.lab", True),
        ("*.wild.lab", True),
        ("wild.lab", False),
        ("a.b.wild.lab", False),
        ("*.lab", False),
        ("c.lab", False),
    ],
)
def test_for_which_names_it_is_good(name: str, good: bool, tmp_path: Path) -> None:
    sans = [x509.DNSName("A.lab"), x509.DNSName("*.wild.lab")]
    assert chains.is_good_for(issue(tmp_path, "x", common_name("c.lab"), sans=sans).certificate, name) is good


def test_a_certificate_without_names_is_good_for_none(tmp_path: Path) -> None:
    certificate = issue(tmp_path, "x", common_name("c.lab")).certificate
    assert (chains.names(certificate), chains.is_good_for(certificate, "c.lab")) == ((), False)


@pytest.mark.parametrize(
    ("life", "before"),
    [
        (timedelta(days=3650), timedelta(days=21)),
        (timedelta(days=90), timedelta(days=21)),
        (timedelta(days=85), timedelta(days=21)),
        (timedelta(days=84), timedelta(days=21)),
        (timedelta(days=83, hours=23), timedelta(days=20, hours=23, minutes=45)),
        (timedelta(days=45), timedelta(days=11, hours=6)),
        (timedelta(days=7), timedelta(days=1, hours=18)),
        (timedelta(days=6), timedelta(hours=36)),
        (timedelta(hours=1), timedelta(minutes=15)),
        (timedelta(seconds=1), timedelta(milliseconds=250)),
        (timedelta(), timedelta()),
        (timedelta(days=-30), timedelta()),
    ],
    ids=str,
)
def test_when_the_warning_begins(life: timedelta, before: timedelta) -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    assert chains.expiry_warning(end - life, end) == end - before


@pytest.mark.parametrize("begin", [datetime.min, datetime.max])
@pytest.mark.parametrize("end", [datetime.min, datetime.max])
def test_no_dates_are_too_strange_for_it(begin: datetime, end: datetime) -> None:
    begin, end = begin.replace(tzinfo=UTC), end.replace(tzinfo=UTC)
    assert chains.expiry_warning(begin, end) == end - (timedelta(days=21) if begin < end else timedelta())


@pytest.mark.parametrize(
    ("days", "before"),
    [((-10, 90), timedelta(days=21)), ((-1, 5), timedelta(hours=36)), ((1, 7), timedelta(hours=36))],
)
def test_what_is_said_of_dates(tmp_path: Path, days: tuple[float, float], before: timedelta) -> None:
    certificate = issue(tmp_path, "x", common_name("x"), days=days).certificate
    end = chains.not_after(certificate)
    assert list(chains.expiry(certificate, end - before - timedelta(seconds=1))) == []
    assert list(chains.expiry(certificate, end - before)) == [f"expires on {end:%Y-%m-%d %H:%M} UTC"]
    assert "has expired on" in next(chains.expiry(certificate, end))
    assert "is valid only from" in next(
        chains.expiry(certificate, chains.not_before(certificate) - timedelta(seconds=1))
    )
    assert end.tzinfo is UTC
    assert end > datetime.now(UTC)


def test_a_gap_is_an_issuer_that_nobody_knows(lab: Pki) -> None:
    below = lab.clients_below[1].chain
    assert list(chains.gap(below, [])) == []
    (words,) = chains.gap(below[:1], [])
    assert words.startswith("its issuer CN=Lab Intermediate 1 is not in the file; unless clients have it as a root")
    assert list(chains.gap([lab.client.certificate], [])) != []
    assert list(chains.gap([lab.client.certificate], [lab.ca.certificate])) == []
    assert list(chains.gap([lab.client_self_signed.certificate], [])) == []


class Signed:
    """A certificate of which only its signature is asked."""

    def __init__(self, algorithm: hashes.HashAlgorithm | str | None, issuer: str = "issuer") -> None:
        self.subject, self.issuer = "subject", issuer
        self._algorithm = algorithm

    @property
    def signature_hash_algorithm(self) -> Any:
        if isinstance(self._algorithm, str):
            raise UnsupportedAlgorithm(self._algorithm)
        return self._algorithm


@pytest.mark.parametrize(
    ("algorithms", "words"),
    [
        ([hashes.SHA256()], ""),
        ([None], ""),  # EdDSA has none
        (["SM3"], ""),
        ([hashes.SHA1()], "certificate 1 of 1 is signed with sha1, which clients refuse"),
        ([hashes.SHA256(), hashes.MD5()], "certificate 2 of 2 is signed with md5, which clients refuse"),
    ],
)
def test_broken_signatures(algorithms: list[hashes.HashAlgorithm | str | None], words: str) -> None:
    """No cryptography of today signs with them any more."""
    chain = [Signed(each) for each in algorithms]
    assert chains.broken_signature(cast(Any, chain)) == words


def test_nobody_looks_at_the_signature_of_a_self_signed_one() -> None:
    assert chains.broken_signature(cast(Any, [Signed(hashes.SHA1(), "subject")])) == ""
