"""failures.py: what a line about a handshake says, and that a flood of them is few lines."""

import time
from collections.abc import Callable

import pytest

from uwsgi_tls import failures
from uwsgi_tls.failures import KINDS, LINES_OF_A_KIND, PERIOD_SECONDS, Failure, Failures
from uwsgi_tls.log_text import Fields

CLIENT = ("192.0.2.1", "50514")


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (Failure("why", CLIENT, "0.0.0.0:443"), "why (client 192.0.2.1:50514, 0.0.0.0:443)"),
        (Failure("why", ("2001:db8::1", "5"), "[::]:443"), "why (client [2001:db8::1]:5, [::]:443)"),
        (
            Failure("why", CLIENT, "=0", "sent: unknown_ca", "shop.lab", b"\x0a\x0a\3\4\3\3"),
            "why (client 192.0.2.1:50514, =0, name shop.lab, offers TLSv1.3 TLSv1.2, alert sent: unknown_ca)",
        ),
        (Failure("why", CLIENT, "=0", sni=""), "why (client 192.0.2.1:50514, =0, a name that is none)"),
    ],
)
def test_a_line(failure: Failure, line: str) -> None:
    assert str(failure) == f"TLS handshake failed: {line}"


class Log:
    """The lines, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.fields: list[Fields] = []

    def line(self, text: str, priority: int, fields: Fields = {}) -> None:  # noqa: B006 it is not changed
        self.lines.append(text)
        self.fields.append(fields)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(failures, "line", log.line)
    monkeypatch.setattr(time, "monotonic", lambda: log.now)
    return log


def fail(say: Callable[[Failure], None], reason: str, times: int) -> None:
    for number in range(times):
        say(Failure(reason, ("192.0.2.1", str(number)), "=0"))


def test_repeated_ones_are_counted(log: Log) -> None:
    say = Failures()
    fail(say, "why", 40)
    fail(say, "other", 1)
    assert len(log.lines) == LINES_OF_A_KIND + 1
    say.keep_time(log.now + PERIOD_SECONDS - 1)
    assert len(log.lines) == LINES_OF_A_KIND + 1
    say.keep_time(log.now + PERIOD_SECONDS)
    assert log.lines[LINES_OF_A_KIND + 1 :] == [
        "TLS handshake failed: why (client 192.0.2.1:39, =0): 37 more like this in the last 60 s"
    ]
    assert log.fields[-1]["more"] == 37
    say.keep_time(log.now + 10 * PERIOD_SECONDS)
    assert len(log.lines) == LINES_OF_A_KIND + 2


def test_the_next_period_begins_with_the_next_failure(log: Log) -> None:
    say = Failures()
    fail(say, "why", 10)
    log.now += PERIOD_SECONDS
    say.keep_time(log.now)
    log.lines.clear()
    log.now += 1000
    fail(say, "why", LINES_OF_A_KIND)
    assert len(log.lines) == LINES_OF_A_KIND
    say.keep_time(log.now + PERIOD_SECONDS - 1)
    say.keep_time(log.now + PERIOD_SECONDS)
    assert len(log.lines) == LINES_OF_A_KIND


def test_reasons_without_end_are_few_lines(log: Log) -> None:
    """A client makes up as many certificates as it likes, and the reason has its name."""
    say = Failures()
    for number in range(10_000):
        fail(say, f"it is self-signed: /CN={number}", 1)
    assert len(log.lines) == KINDS
    say.keep_time(log.now + PERIOD_SECONDS)
    assert log.lines[KINDS:] == [f"{10_000 - KINDS} more TLS handshakes failed in the last 60 s, for other reasons"]


def test_the_most_that_a_period_can_bring(log: Log) -> None:
    say = Failures()
    for number in range(1000):
        fail(say, f"reason {number}", 100)
    say.keep_time(log.now + PERIOD_SECONDS)
    assert len(log.lines) == KINDS * (LINES_OF_A_KIND + 1) + 1


def test_the_end_comes_before_the_end_of_the_period(log: Log) -> None:
    say = Failures()
    fail(say, "why", 10)
    say.keep_time(failures.NEVER)
    assert log.lines[-1].endswith("7 more like this in the last 60 s")
