"""tally.py: every name has a place, every reason of the log its class, and what is counted comes out."""

from __future__ import annotations

from bisect import bisect_left

import pytest

from uwsgi_tls import tls
from uwsgi_tls.tally import BOUNDS, COUNTERS, FAILURES, GAUGES, NAMES, WAITS, Tally


def test_names_are_there_once() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(COUNTERS) + len(GAUGES)


def test_it_begins_at_nothing_and_counts_only_what_has_a_name() -> None:
    counts = Tally().counters()
    assert set(counts) <= set(COUNTERS)
    assert not any(counts.values())
    assert {name.partition(".")[0] for name in set(COUNTERS) - set(counts)} == {"requests", "limits"}


def test_each_thing_counts_where_it_belongs() -> None:
    tally = Tally()
    tally.accepted += 3
    tally.bytes_in += 10
    tally.bytes_out += 20
    tally.seconds += 0.25
    tally.responses[2] += 2
    tally.responses[0] += 1
    tally.count("exceptions")
    for what in WAITS:
        tally.count(f"deadlines.{what}")
    tally.shaken_hands("TLSv1.3", "TLS_AES_256_GCM_SHA384", 0.001, resumed=False, verified=True)
    tally.shaken_hands("TLSv9", "ROT13", 11.0, resumed=True, verified=False)
    tally.durations[bisect_left(BOUNDS, 0.0011)] += 1
    assert {name: count for name, count in tally.counters().items() if count} == {
        "accepted": 3,
        "bytes_in": 10,
        "bytes_out": 20,
        "micros": 250_000,
        "responses.2xx": 2,
        "responses.unanswered": 1,
        "exceptions": 1,
        **{f"deadlines.{what}": 1 for what in WAITS},
        "durations.0.0025": 1,
        "handshake_micros": 11_001_000,
        "handshake_durations.0.001": 1,
        "handshake_durations.inf": 1,
        "handshakes.full": 1,
        "handshakes.resumed": 1,
        "protocols.TLSv1.3": 1,
        "protocols.other": 1,
        "ciphers.TLS_AES_256_GCM_SHA384": 1,
        "ciphers.other": 1,
        "certificates.verified": 1,
        "certificates.none": 1,
    }


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("client certificate refused: it expired on 2020-01-01 00:00:00 UTC: /CN=a", "certificate"),
        ("client certificate refused: no client-allow matches /CN=a", "certificate"),
        ("its session is older than the end of its certificate", "certificate"),
        ("the client refused, with the alert: bad certificate", "alert"),
        ("the client has asked for another name than it seemed to", "name"),
        ("the client closed the connection", "closed"),
        ("the client ended the connection", "closed"),
        ("connection reset by peer", "closed"),
        ("broken pipe", "closed"),
        ("length mismatch", "other"),
        ("", "other"),
    ],
)
def test_why_a_handshake_failed(why: str, reason: str) -> None:
    tally = Tally()
    tally.not_shaken_hands(why)
    expected = {f"failures.{reason}"} | ({"certificates.refused"} if reason == "certificate" else set())
    assert {name for name, count in tally.counters().items() if count} == expected


def test_every_reason_that_has_words_has_a_class() -> None:
    """What OpenSSL says and tls.py puts in words of ours."""
    classes = set()
    for why in tls._REASONS.values():
        tally = Tally()
        tally.not_shaken_hands(why)
        classes |= {reason for reason in FAILURES if tally.counters()[f"failures.{reason}"]}
    assert classes == {"certificate", "version", "algorithms", "not_tls"}
