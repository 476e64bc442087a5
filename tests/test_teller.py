"""teller.py: how what is known becomes one condition, and where that goes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from uwsgi_tls import teller
from uwsgi_tls.certificates import CertificateInfo
from uwsgi_tls.condition import Condition, from_json
from uwsgi_tls.scoreboard import Reading, Scoreboard
from uwsgi_tls.stats.facts import Facts, ListeningSocket
from uwsgi_tls.status_file import StatusFile
from uwsgi_tls.teller import Teller

END = datetime.now(UTC) + timedelta(days=3)
INFO = CertificateInfo("/a.crt", "CN=a", ("a.example",), END, END - timedelta(days=2), "EC secp256r1", 1)
FACTS = Facts(
    master=1, threads=1, directory="/", sockets=(ListeningSocket("127.0.0.1:443", 100, True),), certificates=(INFO,)
)


def reading(change: Callable[[Scoreboard], None] = lambda _: None) -> Reading:
    """Of a server with one worker of two, which has just shown a sign of life."""
    scoreboard = Scoreboard(slots=4)
    scoreboard.enter("serving", 3, 2)
    slot = scoreboard.take(1, 3)
    slot.enter("serving", 71)
    slot.beat(time.monotonic())
    change(scoreboard)
    return scoreboard.read()


def condition(of: Reading, facts: Facts = FACTS, kept: Sequence[str] = (), wrong: Sequence[str] = ()) -> Condition:
    return Teller(lambda: facts, lambda: kept, StatusFile()).condition(of, "worker 2 died", wrong)


def test_all_that_is_known() -> None:
    before = time.monotonic()
    told = condition(reading())
    assert before <= told.moment <= time.monotonic()
    assert (told.state, told.generation, told.wanted, told.failure) == ("serving", 3, 2, "worker 2 died")
    assert told.listeners == ("127.0.0.1:443",)
    (certificate,) = told.certificates
    assert (certificate.file, certificate.names) == ("/a.crt", ("a.example",))
    end = int(END.timestamp())
    assert (certificate.not_after, certificate.expiry_warning) == (end, end - 2 * 86400)
    (worker,) = told.workers
    assert (worker.number, worker.generation, worker.pid, worker.state) == (1, 3, 71, "serving")
    assert 0 <= worker.silent < 5
    assert told.wrong == ("worker 2 is missing",)


def test_what_is_wrong_and_in_which_order() -> None:
    soon = replace(FACTS, certificates=(replace(INFO, expiry_warning=END - timedelta(days=4)),))
    assert condition(reading(), soon, ["/b.crt"], ["reload failed"]).wrong == (
        "reload failed",
        "worker 2 is missing",
        "certificate /a.crt expires in 3 days",
        "certificate /b.crt and its key could not be read again: they are as they were",
    )


def test_nobody_is_missing_in_a_stop() -> None:
    assert condition(reading(lambda scoreboard: scoreboard.enter("stopping", 3, 2))).wrong == ()


def test_one_that_has_not_shown_any_sign_of_life_yet_is_not_silent() -> None:
    told = condition(reading(lambda scoreboard: scoreboard.take(2, 3).enter("starting", 72)))
    assert [worker.silent < 5 for worker in told.workers] == [True, True]
    assert told.wrong == ()


def test_into_the_file_or_into_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(teller, "line", said.append)
    file = StatusFile.open(str(tmp_path / "pid"), None, print)
    tells = Teller(lambda: FACTS, tuple, file)
    tells.write(reading(), "", [])
    assert from_json((tmp_path / "pid.status").read_bytes()).wrong == ("worker 2 is missing",)
    assert said == []
    tells.log(reading(), "", [])
    assert said[0] == "status: serving, generation 3, 2 workers wanted"
    assert said[-1] == "status: wrong: worker 2 is missing"
    file.remove()
