"""calls.py: since when calls run, and which are named, at moments of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from uwsgi_tls import calls
from uwsgi_tls.calls import Calls
from uwsgi_tls.exchange import Exchange


class Call:
    """An exchange, as far as it is looked at."""

    def __init__(self, target: str = "/") -> None:
        self.head: Any = SimpleNamespace(method="GET", target=target)
        self.connection = SimpleNamespace(peer=("192.0.2.1", "4711"))


def look(watched: Calls, now: float, *running: Call) -> float:
    return watched.look(now, cast(list[Exchange], list(running)))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said = list[str]()
    monkeypatch.setattr(calls, "line", said.append)
    return said


def test_the_oldest(said: list[str]) -> None:
    watched, first, second = Calls(1, 0), Call(), Call()
    assert look(watched, 10.0) == 0.0
    assert look(watched, 10.5, first) == 10.5
    assert look(watched, 11.0, first, second) == 10.5
    assert look(watched, 11.5, second) == 11.0
    assert look(watched, 12.0) == 0.0
    assert look(watched, 99.0, second) == 99.0, "it has been away"
    assert said == []


def test_who_is_too_old_is_named_once(said: list[str]) -> None:
    watched, slow, other = Calls(3, 2.0), Call("/slow?" + "x" * 600), Call("/other")
    for now in (10.0, 11.0, 12.0):
        look(watched, now, slow, other)
    assert said == []
    for now in (12.5, 13.0):
        look(watched, now, slow)
    request = "GET /slow?" + "x" * (calls.TARGET_CHARACTERS - 6)
    assert said == [f"worker 3: the application has had {request} from 192.0.2.1 for 2.5 seconds (harakiri)"]
