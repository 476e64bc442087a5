"""The request table over TLS against the real server: each row on a connection of its own, and what follows it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from request_table import ACCEPTED, ATTACKS, LIMIT, MAX_HEADERS, NEXT, PLAIN, REFUSED, Attack

from uwsgi_tls.http import CHUNKED

from .raw_client import Client, Site, chunked, serving

# Says what it got; /seen says which requests have come since it was last asked.
APPLICATION = r"""
import json

seen = []

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["REQUEST_URI"] == "/seen":
        told, seen[:] = json.dumps(seen), []
        return [told.encode()]
    seen.append(environ["REQUEST_URI"])
    said = {name: value for name, value in environ.items() if name.isupper() and isinstance(value, str)}
    said["body"] = environ["wsgi.input"].read().decode("latin-1")
    return [json.dumps(said).encode()]
"""

SEEN = b"GET /seen HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b"GET /body HTTP/1.1\r\nHost: a\r\n\r\n"  # would be a request, were it not a body
LIMIT_POST = 1 << 30


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    limits = ["--buffer-size", str(LIMIT), "--http-max-headers", str(MAX_HEADERS), "--limit-post", str(LIMIT_POST)]
    with serving(tmp_path_factory.mktemp("table"), APPLICATION, *limits) as site:
        worker = site.worker.pid
        yield site
        assert site.worker.pid == worker
        assert "Traceback" not in site.daemon.log
        assert "defect" not in site.daemon.log


def seen(client: Client) -> list[str]:
    """The targets that the application has been asked for since the last time."""
    answer = client.ask(SEEN)
    assert answer.status == 200
    found: list[str] = json.loads(answer.body)
    return found


@pytest.fixture(scope="module")
def witness(site: Site) -> Iterator[Client]:
    """A kept connection to ask what the application has seen."""
    with site.connect() as client:
        yield client


@pytest.mark.parametrize(("status", "raw"), REFUSED)
def test_refused(site: Site, witness: Client, status: int, raw: bytes) -> None:
    """One well-formed answer, then the end; neither this request nor the next comes to the application."""
    with site.connect() as client:
        client.send(raw + NEXT)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        client.assert_ended()
    assert seen(witness) == []


def with_body(raw: bytes, length: int) -> tuple[bytes, bytes]:
    """The row with a body as its head announces it, and the body."""
    if length == CHUNKED:
        return raw + chunked("", BODY, 7).partition(b"\r\n\r\n")[2], BODY
    body = BODY[:length]
    return raw + body, body


def expected_environ(row: dict[str, object], body: bytes) -> dict[str, object]:
    """What the application must be told of a row, by the names that the request decides."""
    fields = row["fields"]
    assert isinstance(fields, dict)
    environ: dict[str, object] = {
        "REQUEST_METHOD": row["method"],
        "REQUEST_URI": row["target"],
        "PATH_INFO": row["path"],
        "QUERY_STRING": row["query"],
        "SERVER_PROTOCOL": row["protocol"],
        **fields,
        "body": body.decode(),
    }
    if row["content_length"] == CHUNKED:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def check_answer(client: Client, row: dict[str, object], body: bytes) -> None:
    answer = client.answer(str(row["method"]))
    assert answer.status == 200
    if row["method"] == "HEAD":
        assert answer.body == b""
        return
    environ = json.loads(answer.body)
    ours = {name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))}
    expected = expected_environ(row, body)
    assert {**ours, **{name: environ[name] for name in expected}} == expected


@pytest.mark.parametrize(("raw", "said"), ACCEPTED)
def test_accepted(site: Site, witness: Client, raw: bytes, said: dict[str, object]) -> None:
    """The application is told what the row says, and the next request is answered unless the connection must end."""
    row = {**PLAIN, **said}
    length = row["content_length"]
    assert isinstance(length, int)
    with site.connect() as client:
        if length > LIMIT_POST:
            assert client.ask(raw).status == 413
            return client.assert_ended()
        sent, body = with_body(raw, length)
        client.send(sent + NEXT)
        check_answer(client, row, body)
        if row["keep_alive"]:
            assert json.loads(client.answer().body)["REQUEST_URI"] == "/next"
            assert seen(client) == [row["target"], "/next"]
        else:
            client.assert_ended()
            assert seen(witness) == [row["target"]]


def test_all_that_is_accepted_in_one_pipeline(site: Site) -> None:
    """In order, each with its own body, and none lost or added."""
    rows = [(raw, {**PLAIN, **said}) for raw, said in ACCEPTED]
    rows = [(raw, row) for raw, row in rows if row["keep_alive"] and int(str(row["content_length"])) <= LIMIT_POST]
    pairs = [with_body(raw, int(str(row["content_length"]))) for raw, row in rows]
    with site.connect() as client:
        client.send(b"".join(sent for sent, _ in pairs))
        for (_, row), (_, body) in zip(rows, pairs, strict=True):
            check_answer(client, row, body)
        assert seen(client) == [row["target"] for _, row in rows]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.family}: {attack.stream!r}")
def test_request_smuggling(site: Site, witness: Client, attack: Attack) -> None:
    """The request inside the stream is never seen; the one behind it is answered, or nothing is after a refusal."""
    with site.connect() as client:
        client.send(attack.stream + NEXT)
        answer = client.answer()
        assert answer.status == attack.status
        if attack.status == 200:
            assert json.loads(client.answer().body)["REQUEST_URI"] == "/next"
            assert seen(client) == ["/", "/next"]
        else:
            assert answer.headers["connection"] == "close"
            client.assert_ended()
            assert seen(witness) == []
