"""The logs of the real process: one line a request, in uWSGI's form, the user's own or JSON, and no client's own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .raw_client import Site, get, post, serving
from .server import wait_until

APPLICATION = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/raise":
        raise RuntimeError("on purpose\\nin two lines")
    environ["wsgi.errors"].write(f"application got {environ['PATH_INFO']!a}\\n")
    body = b"x" * 627
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "627")])
    return [body]
"""

# uWSGI 2.0's own line (core/logging.c, uwsgi_logit_simple).
DEFAULT = re.compile(
    r"\[pid: (?P<pid>\d+)\|app: 0\|req: (?P<req>\d+)/\d+\] (?P<addr>[\d.]+) \(\)"
    r" \{(?P<vars>\d+) vars in (?P<pktsize>\d+) bytes\}"
    r" \[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\] (?P<method>\S+) (?P<uri>\S+) => generated (?P<rsize>\d+) bytes"
    r" in \d+ msecs \((?P<proto>\S+) (?P<status>\d+)\) (?P<headers>\d+) headers in (?P<hsize>\d+) bytes"
    r" \(1 switches on core \d+\)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("logs"), APPLICATION) as site:
        yield site


def logged(site: Site, request: bytes, pattern: str) -> str:
    """Make a request and return the one line that `pattern` is found in."""
    site.ask(request)
    site.daemon.wait_for_line(pattern, 10)
    found = [line for line in site.daemon.lines if re.search(pattern, line)]
    assert len(found) == 1, found
    return found[0]


def test_default_line(site: Site) -> None:
    line = logged(site, get("/a%20b/c?x=1&y=2"), r"GET /a%20b/c\?")
    match = DEFAULT.fullmatch(line)
    assert match, line
    assert match["pid"] == str(site.worker.pid)
    assert (match["addr"], match["method"], match["uri"]) == ("127.0.0.1", "GET", "/a%20b/c?x=1&y=2")
    assert (match["rsize"], match["proto"], match["status"], match["headers"]) == ("627", "HTTP/1.1", "200", "3")
    assert int(match["vars"]) >= 12
    assert int(match["pktsize"]) > 12 * 4  # each has two lengths of two bytes
    assert 66 < int(match["hsize"]) < 200


def test_requests_are_counted(site: Site) -> None:
    counts = []
    for number in range(3):
        match = DEFAULT.fullmatch(logged(site, get(f"/count/{number}"), rf"GET /count/{number} "))
        assert match
        counts.append(int(match["req"]))
    assert counts == list(range(counts[0], counts[0] + 3))


def test_one_line_for_each_of_a_pipeline(site: Site) -> None:
    with site.connect() as client:
        client.send(b"".join(get(f"/pipe/{number}") for number in range(20)))
        for _ in range(20):
            assert client.answer().status == 200
    site.daemon.wait_for_line("GET /pipe/19 ")
    lines = [line for line in site.daemon.lines if "GET /pipe/" in line]
    assert [line.split("GET ")[1].split()[0] for line in lines] == [f"/pipe/{number}" for number in range(20)]


def test_refused_requests_are_logged_with_their_status(site: Site) -> None:
    line = logged(site, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", r"\(- 400\)")
    assert DEFAULT.fullmatch(line), line
    site.daemon.wait_for_line("400: invalid Host")
    assert "431" in logged(site, get("/", *[f"X-{n}: x" for n in range(200)]), r"\(- 431\)")


def test_a_raising_application_is_logged(site: Site) -> None:
    match = DEFAULT.fullmatch(logged(site, get("/raise"), "GET /raise => "))
    assert match
    assert match["status"] == "500"
    site.daemon.wait_for_line("RuntimeError: on purpose")
    site.daemon.wait_for_line(r"\] \| in two lines$")
    site.daemon.wait_for_line(r"\] \| Traceback \(most recent call last\):$")


def test_a_client_that_left_is_logged(site: Site) -> None:
    with site.connect() as client:
        client.send(post("/left", b"half a body")[:-3])
        client.reset()
    assert "(HTTP/1.1 499)" in site.daemon.wait_for_line("POST /left ")


def test_log_format(tmp_path: Path) -> None:
    combined = '%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(size) "%(referer)" "%(uagent)"'
    with serving(tmp_path, APPLICATION, "--log-format", combined) as site:
        request = get("/fmt?a=%22", "Referer: https://server.lab/", 'User-Agent: a "quoted\\" \xe9 \x80 one')
        line = logged(site, request, "GET /fmt")
        match = re.fullmatch(
            r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /fmt\?a=%22 HTTP/1\.1" 200 (\d+)'
            r' "https://server\.lab/" "(.*)"',
            line,
        )
        assert match, line
        assert int(match[1]) > 627  # with the head
        assert match[2] == r"a \x22quoted\x5C\x22 \xE9 \x80 one"


def test_log_format_from_an_ini(tmp_path: Path) -> None:
    """There %(name) would be a placeholder of the configuration; for a log format it must not be."""
    (tmp_path / "log.ini").write_text("[uwsgi]\nlogformat = ini %(method) %(uri) %(status)\n")
    with serving(tmp_path, APPLICATION, "log.ini") as site:
        assert logged(site, get("/ini"), "^ini ") == "ini GET /ini 200"


def test_json(tmp_path: Path) -> None:
    """Every line that the server writes, whatever happens; the application writes what it wants."""
    with serving(tmp_path, APPLICATION, "--log-json") as site:
        site.ask(get("/a?b", 'User-Agent: a "b"\t\xe9\\'))
        site.ask(get("/raise"))
        site.daemon.wait_for_line('"status":500')  # its thread writes it after the answer
        site.ask(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        with site.connect() as client:
            client.send(get("/left")[:-2])
        site.daemon.wait_for_line('"status":400')
        daemon = site.daemon
    objects = [json.loads(line) for line in daemon.lines if not line.startswith("application got ")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"]) for each in objects)
    requests = [each for each in objects if "uri" in each]
    messages = "\n".join(each["message"] for each in objects if "message" in each)
    assert [each["status"] for each in requests] == [200, 500, 400]
    first = requests[0]
    assert (first["method"], first["uri"], first["proto"], first["host"]) == ("GET", "/a?b", "HTTP/1.1", "server.lab")
    assert (first["uagent"], first["rsize"], first["wid"]) == ('a "b"\t\xe9\\', 627, 1)
    assert "RuntimeError: on purpose\nin two lines" in messages  # a traceback is one object too
    assert "invalid Host" in messages
    assert "generation 1 is serving" in messages


def test_json_when_the_application_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise RuntimeError('two\\nlines')\n")
    options = ("--wsgi-file", "app.py", "--log-json")
    with pytest.raises(AssertionError, match="ended") as failed, serving(tmp_path, "", *options):
        pass
    lines = str(failed.value).partition("\n")[2].splitlines()
    assert any("two\nlines" in json.loads(line)["message"] for line in lines)


def test_json_with_chosen_names(tmp_path: Path) -> None:
    with serving(tmp_path, APPLICATION, "--log-json", "--log-format", "%(status) %(uri)") as site:
        site.ask(get("/x"))
        assert json.loads(site.daemon.wait_for_line('"uri"')) == {"status": 200, "uri": "/x"}


@pytest.mark.parametrize("option", ["--disable-logging", "-L"])
def test_disable_logging(tmp_path: Path, option: str) -> None:
    """No line for a request; what the server has to say is still said, and what the application says."""
    with serving(tmp_path, APPLICATION, option) as site:
        site.ask(get("/quiet"))
        site.ask(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        site.daemon.wait_for_line("400: invalid Host")
        site.daemon.wait_for_line("application got '/quiet'")
        assert not [line for line in site.daemon.lines if "=> generated" in line]


def test_logto(tmp_path: Path) -> None:
    """All of it in the file, which nobody but owner and group can read, and which is appended to."""
    log = tmp_path / "server.log"
    for number in (1, 2):
        with serving(tmp_path, APPLICATION, "--logto", str(log)) as site:
            site.ask(get(f"/to/{number}"))
            wait_until(lambda: f"GET /to/{number} " in log.read_text(), 10, log.read_text)  # noqa: B023 called here
            assert "GET /to" not in site.daemon.log
            assert "application got" not in site.daemon.log
    text = log.read_text()
    assert os.stat(log).st_mode & 0o777 == 0o640
    assert [text.count(f"GET /to/{number} ") for number in (1, 2)] == [1, 1]
    assert [text.count(f"application got '/to/{number}'\n") for number in (1, 2)] == [1, 1]
    assert text.count("generation 1 is serving") == 2


FORGERIES = [
    b'GET /forged?"=>" HTTP/1.1\r\nHost: server.lab\r\nUser-Agent: x\x1b[31m\r\n\r\n',
    b"GET /forged%0a[pid:%201] HTTP/1.1\r\nHost: server.lab\r\n\r\n",
    b"GET /forged\xff HTTP/1.1\r\nHost: server.lab\r\n\r\n",
    b"\x1b[2J HTTP/1.1\r\nHost: server.lab\r\n\r\n",
    b"GET /forged HTTP/1.1\r\nHost: server.lab\r\nReferer: a\n[pid: 1|app: 0|req: 1/1] forged\r\n\r\n",
    b"GET /forged HTTP/1.1\r\nHost: server.lab\r\nUser-Agent: \xe2\x80\xa8[pid: 1] forged\r\n\r\n",
]


def test_no_client_writes_a_line_of_its_own(tmp_path: Path) -> None:
    with serving(tmp_path, APPLICATION, "--log-format", '%(method) %(uri) "%(uagent)" "%(referer)"') as site:
        before = len(site.daemon.lines)
        for request in FORGERIES:
            site.ask(request)
        site.ask(get("/last"))
        site.daemon.wait_for_line("^GET /last")
        lines = site.daemon.lines[before:]
    assert all(line.isascii() and line.isprintable() for line in lines), lines
    assert not [line for line in lines if line.startswith("[pid: 1")]
