"""failures.py: what a line about a handshake says, and that a flood of them is few lines."""

import re
import string
import time
from collections.abc import Callable

import pytest

from uwsgi_tls import failures
from uwsgi_tls.failures import LINES_OF_A_KIND, PERIOD_SECONDS, Failure, Failures
from uwsgi_tls.log_text import Fields

CLIENT = ("192.0.2.1", "50514")


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (Failure("why", "other", CLIENT, "0.0.0.0:443"), "(client 192.0.2.1:50514, 0.0.0.0:443)"),
        (Failure("why", "other", ("2001:db8::1", "5"), "[::]:443"), "(client [2001:db8::1]:5, [::]:443)"),
        (
            Failure("why", "other", CLIENT, "=0", "sent: unknown_ca", "shop.lab", b"\x0a\x0a\3\4\3\3"),
            "(client 192.0.2.1:50514, =0, name shop.lab, offers TLSv1.3 TLSv1.2, alert sent: unknown_ca)",
        ),
        (Failure("why", "other", CLIENT, "=0", sni=""), "(client 192.0.2.1:50514, =0, a name that is none)"),
    ],
)
def test_a_line(failure: Failure, line: str) -> None:
    assert str(failure) == f"TLS handshake failed {line}: why"


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


def fail(say: Callable[[Failure], None], reason: str, times: int, counted: str = "other") -> None:
    for number in range(times):
        say(Failure(reason, counted, ("192.0.2.1", str(number)), "=0"))


def test_repeated_ones_are_counted(log: Log) -> None:
    say = Failures()
    fail(say, "why", 40)
    fail(say, "why", 1, "closed")
    assert len(log.lines) == LINES_OF_A_KIND + 1
    say.keep_time(log.now + PERIOD_SECONDS - 1)
    assert len(log.lines) == LINES_OF_A_KIND + 1
    say.keep_time(log.now + PERIOD_SECONDS)
    assert log.lines[LINES_OF_A_KIND + 1 :] == [
        "TLS handshake failed (client 192.0.2.1:39, =0, 37 more like this in the last 60 s): why"
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


def test_words_of_clients_hide_no_other_kind(log: Log) -> None:
    """A client makes up as many certificates and names as it likes, and the reason has them."""
    say = Failures()
    for number in range(1000):
        fail(say, f"it is self-signed: /CN={number}", 1, "certificate")
        fail(say, "nobody here has that name", 1, "name")
    fail(say, "what was sent is not TLS", 1, "not_tls")
    assert len(log.lines) == 2 * LINES_OF_A_KIND + 1
    assert log.lines[-1].endswith(": what was sent is not TLS")
    say.keep_time(log.now + PERIOD_SECONDS)
    assert len(log.lines) == 2 * (LINES_OF_A_KIND + 1) + 1


@pytest.mark.parametrize(
    "form", ["/CN={}", "CN={},O=Lab", "emailAddress={}+CN=x", "1.2.3.4=#{}", "#30{}", "O={}, which is no CA", ""]
)
def test_no_form_of_a_name_makes_a_kind(log: Log, form: str) -> None:
    """`tls.shown_subject` has several: RFC 2253's where X509_NAME_oneline could deceive, as with a backslash in it."""
    say = Failures()
    for letter in string.ascii_lowercase:
        for words in ("it is self-signed, and not trusted here: ", "it was issued by "):
            fail(say, f"client certificate refused: {words}{form.format(letter)}", 1, "certificate")
    assert len(log.lines) == 2 * LINES_OF_A_KIND


def test_alerts_are_kinds_of_their_own(log: Log) -> None:
    say = Failures()
    for alert in ("sent: unknown_ca", "sent: certificate_expired"):
        for _ in range(10):
            say(Failure("why", "certificate", CLIENT, "=0", alert))
    assert len(log.lines) == 2 * LINES_OF_A_KIND


def test_no_name_of_a_certificate_is_taken_for_the_address() -> None:
    forged = "it is self-signed: /CN=x (client 198.51.100.7:4444, =0)"
    says = str(Failure(forged, "certificate", CLIENT, "=0", sni="shop.lab"))
    found = re.search(r"TLS handshake failed \(client (\S+):\d+, ", says)
    assert found is not None
    assert found[1] == CLIENT[0]


def test_the_end_comes_before_the_end_of_the_period(log: Log) -> None:
    say = Failures()
    fail(say, "why", 10)
    say.keep_time(failures.NEVER)
    assert log.lines[-1].endswith("7 more like this in the last 60 s): why")
