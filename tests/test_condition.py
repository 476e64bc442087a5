"""condition.py: what the master says of itself, there and back, and what is called wrong."""

import json
from dataclasses import replace

import pytest

from uwsgi_tls.condition import Certificate, Condition, Member, faults, from_json, span

NOW = 1_800_000_000
DAY = 86400

GOOD = Certificate("/a.crt", ("a.example", "b.example"), NOW + 90 * DAY, NOW + 69 * DAY)
CONDITION = Condition(
    moment=12.5,
    state="serving",
    generation=3,
    wanted=2,
    started=NOW - 60,
    workers=(Member(1, 3, 71, "serving", 5, 0.2), Member(2, 3, 72, "starting", 0, 0.0)),
    listeners=("127.0.0.1:443",),
    certificates=(GOOD,),
    failure="worker 1 died",
    wrong=("worker 2 is missing\n\x1b[31m",),
)


def test_there_and_back() -> None:
    text = CONDITION.to_json()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert from_json(text.encode()) == CONDITION


def test_the_rest_of_a_longer_one_behind_it_is_not_read() -> None:
    assert from_json(CONDITION.to_json().encode() + b'ing", "wrong": []}\n') == CONDITION


def test_what_a_master_of_before_an_upgrade_says() -> None:
    values = json.loads(CONDITION.to_json())
    for each in values["certificates"]:
        del each["expiry_warning"]
    (told,) = from_json(json.dumps(values).encode()).certificates
    assert told == replace(GOOD, expiry_warning=GOOD.not_after)


WITHOUT_WRONG = {name: value for name, value in json.loads(CONDITION.to_json()).items() if name != "wrong"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        CONDITION.to_json().encode()[:200],
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        json.dumps(WITHOUT_WRONG).encode(),
        json.dumps(WITHOUT_WRONG | {"wrong": [], "workers": [1]}).encode(),
        json.dumps(WITHOUT_WRONG | {"wrong": [], "certificates": [{"file": 1}]}).encode(),
        json.dumps(WITHOUT_WRONG | {"wrong": [], "moment": "soon"}).encode(),
        json.dumps(WITHOUT_WRONG | {"wrong": [], "moment": None}).encode(),
        json.dumps(WITHOUT_WRONG | {"wrong": [], "generation": float("inf")}).encode(),
        json.dumps(WITHOUT_WRONG | {"wrong": 5}).encode(),
        json.dumps(
            WITHOUT_WRONG | {"wrong": [], "certificates": [{"file": "a", "names": [], "not_after": 10**30}]}
        ).encode(),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_no_master_has_written(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json's own, or ours
        from_json(text)


def test_lines_for_the_log() -> None:
    assert list(CONDITION.lines()) == [
        "status: serving, generation 3, 2 workers wanted",
        "status: worker 1 (pid: 71): generation 3, serving, 5 requests",
        "status: worker 2 (pid: 72): generation 3, starting, 0 requests",
        "status: certificate /a.crt (a.example, b.example) until 2027-04-15",
        "status: wrong: worker 2 is missing\n\x1b[31m",
    ]


ONE = Member(1, 1, 71, "serving", 0, 0.4)
TWO = Member(2, 1, 72, "serving", 0, 0.4)
FAULTS: list[tuple[tuple[Member, ...], int, tuple[Certificate, ...], list[str]]] = [
    ((ONE, TWO), 2, (GOOD,), []),
    ((ONE,), 2, (), ["worker 2 is missing"]),
    ((), 2, (), ["worker 1 is missing", "worker 2 is missing"]),
    ((), 0, (), []),
    ((Member(1, 1, 71, "draining", 0, 0.0),), 1, (), ["worker 1 is missing"]),
    ((Member(1, 1, 71, "starting", 0, 0.0),), 1, (), []),
    ((Member(1, 1, 71, "draining", 0, 99.0), Member(1, 2, 72, "serving", 0, 0.0)), 1, (), []),
    ((Member(1, 1, 71, "serving", 0, 7.6),), 1, (), ["worker 1 (pid 71) has given no sign of life for 8 seconds"]),
    ((Member(1, 1, 71, "serving", 0, 4.9),), 1, (), []),
    ((), 0, (Certificate("a", (), NOW, NOW - DAY),), ["certificate a has expired"]),
    ((), 0, (Certificate("a", (), NOW, NOW),), ["certificate a has expired"]),
    ((), 0, (Certificate("a", (), NOW + 3 * DAY, NOW),), ["certificate a expires in 3 days"]),
    ((), 0, (Certificate("a", (), NOW + 3 * DAY, NOW + 1),), []),
    ((), 0, (Certificate("a", (), NOW + DAY, NOW - DAY),), ["certificate a expires in 24 h"]),
    ((), 0, (Certificate("a", (), NOW + 600, NOW - 600),), ["certificate a expires in 10 min"]),
]


@pytest.mark.parametrize(("workers", "wanted", "certificates", "expected"), FAULTS)
def test_faults(
    workers: tuple[Member, ...], wanted: int, certificates: tuple[Certificate, ...], expected: list[str]
) -> None:
    assert list(faults(workers, wanted, certificates, NOW)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0 s"), (1.2, "1 s"), (119.0, "119 s"), (120.0, "2 min"), (7200.0, "2 h"), (200_000.0, "2 days")],
)
def test_span(seconds: float, expected: str) -> None:
    assert span(seconds) == expected
