"""backends/report.py: the three forms of the page, without a connection; with one: blackbox/test_report.py."""

import json
from types import SimpleNamespace
from typing import cast

import pytest

from uwsgi_tls.backends.report import ReportBackend, one_line, render
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.http import parse_head
from uwsgi_tls.spool import Spool

FACTS: dict[str, object] = {
    "protocol": "TLSv1.3",
    "path": "/<b>&\"'\u2028\x07é",
    "resumed": True,
    "client_dn": "",
    "names": ("a", "b"),
}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/html", "text/html"),
        ("text/html,application/json", "text/html"),
        ("application/json, text/plain", "application/json"),
        ("application/json;charset=utf-8", "application/json"),
        ("image/png", "text/plain"),
    ],
)
def test_kind(accept: str, kind: str) -> None:
    assert render(FACTS, accept)[0] == kind


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        ("", "-"),
        ((), "-"),
        (("a", "b"), "a, b"),
        ("plain text", "plain text"),
        ("é€", "é€"),
        ("a\r\nb\0\x1b\x7f", "a\\x0d\\x0ab\\x00\\x1b\\x7f"),
        ("\u2028", "\\x2028"),
        (7, "7"),
    ],
)
def test_one_line(value: object, text: str) -> None:
    assert one_line(value) == text


def test_json_has_everything_as_it_is() -> None:
    assert json.loads(render(FACTS, "application/json")[1]) == {**FACTS, "names": ["a", "b"]}


def test_text_is_a_line_a_fact() -> None:
    lines = render(FACTS, "")[1].decode().splitlines()
    assert lines[0] == "uwsgi-tls is working"
    assert lines[2:] == [
        "protocol   TLSv1.3",
        "path       /<b>&\"'\\x2028\\x07é",
        "resumed    yes",
        "client dn  -",
        "names      a, b",
    ]


def test_html_is_escaped() -> None:
    page = render(FACTS, "text/html")[1].decode()
    assert "<tr><th>path</th><td>/&lt;b&gt;&amp;&quot;&#x27;\\x2028\\x07é</td></tr>" in page
    assert page.count("<tr>") == len(FACTS)


def test_names_that_no_encoding_has() -> None:
    """A surrogate can come of a file name; the page must not fail on it."""
    for accept in ("", "text/html", "application/json"):
        assert render({"path": "/\udc80"}, accept)[1]


def test_a_body_that_nobody_wants_is_closed() -> None:
    """One on the disk must not wait for the garbage collector."""
    answers: list[str] = []
    body = Spool(10)
    body.append(bytes(1000))
    raw = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    connection = SimpleNamespace(variables={}, service=SimpleNamespace(access_log=None))
    exchange = SimpleNamespace(
        head=parse_head(raw, 100),
        body=body,
        connection=connection,
        start=lambda status, headers: answers.append(status),
        finish=lambda: True,
    )
    assert ReportBackend().handle(cast(Exchange, exchange))
    assert answers == ["405 Method Not Allowed"]
    assert (body.size, body.on_disk) == (0, False)
