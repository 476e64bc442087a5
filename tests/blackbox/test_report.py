"""The built-in page over real TLS: what was negotiated and what the client proved, for people and for programs."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from pki import CLIENT_DN, pki

from .raw_client import Site, get, post, serving
from .server import curl

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
JSON = "Accept: application/json"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with neither application nor backend, which asks clients for a certificate and takes none too."""
    with serving(tmp_path_factory.mktemp("report"), client_ca=pki().ca.crt) as site:
        yield site
        assert "Traceback" not in site.daemon.log
        assert "defect" not in site.daemon.log


class Rows(HTMLParser):
    """The rows of the page's table, and the names of all elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.elements: set[str] = set()
        self._in_cell = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.add(tag)
        self._in_cell = tag in ("th", "td")
        if self._in_cell:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data

    def rows(self) -> dict[str, str]:
        return dict(zip(self.cells[::2], self.cells[1::2], strict=True))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ((), "text/plain"),
        (("Accept: */*",), "text/plain"),
        (("Accept: text/plain",), "text/plain"),
        ((BROWSER,), "text/html"),
        ((JSON,), "application/json"),
        (("Accept: image/png",), "text/plain"),
    ],
)
def test_the_kind_of_page_follows_accept(site: Site, accept: tuple[str, ...], kind: str) -> None:
    answer = site.ask(get("/", *accept))
    assert (answer.status, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_curl_gets_text(site: Site) -> None:
    host, port = site.address
    answer = curl(f"https://server.lab:{port}/a?b", "--cacert", pki().ca.crt, host=host)
    assert answer.returncode == 0, answer.stderr
    assert "uwsgi-tls is working" in answer.stdout
    facts = dict(line.split("  ", 1) for line in answer.stdout.splitlines() if "  " in line)
    assert facts["protocol"].strip() == "TLSv1.3"
    assert facts["sni"].strip() == "server.lab"
    assert facts["alpn"].strip() == "http/1.1"
    assert facts["resumed"].strip() == "no"


def test_all_three_say_the_same(site: Site) -> None:
    with site.connect(certificate=pki().client) as client:
        facts = json.loads(client.ask(get("/", JSON)).body)
        page = Rows(client.ask(get("/", BROWSER)).text)
        text = client.ask(get("/")).text
    rows = page.rows()
    assert len(rows) == len(facts)
    for name, value in facts.items():
        words, shown = name.replace("_", " "), {True: "yes", False: "no", "": "-"}.get(value, value)
        assert rows[words] == shown
        assert any(line.startswith(words) and line.endswith(f"  {shown}") for line in text.splitlines())


@pytest.mark.parametrize(
    ("newest", "protocol"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]
)
def test_what_was_negotiated(site: Site, newest: ssl.TLSVersion, protocol: str) -> None:
    with site.connect(newest=newest) as client:
        facts = json.loads(client.ask(get("/some/path?query", JSON)).body)
        used = client.tls.cipher()
    assert used is not None
    assert facts["protocol"] == protocol
    assert facts["cipher"] == used[0]
    assert facts["sni"] == "server.lab"
    assert facts["resumed"] is False
    assert (facts["method"], facts["path"]) == ("GET", "/some/path")
    assert facts["server"].startswith("uwsgi-tls ")


def test_a_resumed_session_is_shown(site: Site) -> None:
    with site.connect(certificate=pki().client) as client:
        first = json.loads(client.ask(get("/", JSON)).body)
        session, context = client.tls.session, client.tls.context
    raw = socket.create_connection(site.address, timeout=10)
    with context.wrap_socket(raw, server_hostname="server.lab", session=session) as tls:
        tls.sendall(get("/", JSON, "Connection: close"))
        received = b""
        while data := tls.recv(65536):
            received += data
    second = json.loads(received.partition(b"\r\n\r\n")[2])
    assert (first["resumed"], second["resumed"]) == (False, True)
    assert second["client_dn"] == first["client_dn"] == CLIENT_DN


def test_without_a_certificate(site: Site) -> None:
    facts = json.loads(site.ask(get("/", JSON)).body)
    assert facts["client_verify"] == "NONE"
    assert {value for name, value in facts.items() if name.startswith("client_")} == {"NONE", ""}


def test_with_a_certificate(site: Site) -> None:
    with site.connect(certificate=pki().client) as client:
        facts = json.loads(client.ask(get("/", JSON)).body)
    certificate = pki().client.certificate
    assert facts["client_verify"] == "SUCCESS"
    assert facts["client_dn"] == CLIENT_DN
    assert facts["client_issuer"] == "/CN=Lab CA"
    assert int(facts["client_serial"], 16) == certificate.serial_number
    assert facts["client_not_after"].endswith(" UTC")


HOSTILE = "/%3Cscript%3Ealert(1)%3C/script%3E%22%26%27%0d%0a%1b%5b31m%e2%80%ae"


@pytest.mark.parametrize("accept", [BROWSER, "Accept: */*"])
def test_what_the_client_chose_is_escaped(site: Site, accept: str) -> None:
    answer = site.ask(get(HOSTILE, accept))
    assert answer.status == 200
    if accept == BROWSER:
        page = Rows(answer.text)
        assert "script" not in page.elements
        assert page.rows()["path"].startswith("/<script>alert(1)</script>\"&'\\x0d\\x0a\\x1b[31m")
    lines = [line for line in answer.text.splitlines() if "alert(1)" in line]
    assert len(lines) == 1
    assert all(character.isprintable() for character in lines[0])


def test_hostile_path_in_json(site: Site) -> None:
    assert json.loads(site.ask(get(HOSTILE, JSON)).body)["path"].startswith("/<script>")


def test_head(site: Site) -> None:
    with site.connect() as client:
        client.send(get("/", JSON, method="HEAD") + get("/", JSON))
        head, page = client.answer("HEAD"), client.answer()
    assert head.body == b""
    assert int(head.headers["content-length"]) == len(page.body) + 1  # "HEAD" for "GET" in it


@pytest.mark.parametrize("body", [b"", b"x" * 300_000], ids=["no body", "a body on the disk"])
def test_other_methods(site: Site, body: bytes) -> None:
    with site.connect() as client:
        answer = client.ask(post("/", body))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        assert client.ask(get("/")).status == 200


def test_pipeline_in_one_thread(site: Site) -> None:
    """The page needs no thread of its own: the worker has one for everything here."""
    with site.connect() as client:
        client.send(b"".join(get(f"/{number}", JSON) for number in range(200)))
        assert [json.loads(client.answer().body)["path"] for _ in range(200)] == [f"/{n}" for n in range(200)]
