"""A Django project and a Flask application, unmodified: in the worker, in the worker under wsgiref.validate, in uWSGI.

The client is curl, as far as it will do. The sites stand in `sites/`; both answer the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
from pki import pki

from .raw_client import PORT, Site, chunked, get, post
from .server import USER, Daemon, curl, loopback, open_directory, real_uwsgi, uwsgi_tls

SITES = Path(__file__).with_name("sites")
APPLICATIONS = {"django": ("django_site.wsgi", "application"), "flask": ("flask_site", "app")}
WHERE = ("in the worker", "validated", "in uWSGI")
UPLOAD = bytes(range(256)) * 4096  # a megabyte
CURL_PARTIAL_FILE, CURL_RECEIVE_ERROR = 18, 56  # curl(1), exit codes


@dataclass(frozen=True, slots=True)
class Framework:
    """A site that runs, and curl to ask it."""

    name: str
    where: str
    site: Site
    place: Path

    def curl(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        host, port = self.site.address
        cookies = str(self.place / "cookies")
        common = ("--cacert", pki().ca.crt, "--cookie", cookies, "--cookie-jar", cookies)
        return curl(f"https://server.lab:{port}{path}", *common, *options, host=host)

    def ask(self, path: str, *options: str) -> str:
        """The body of a good answer."""
        answer = self.curl(path, "--fail-with-body", *options)
        assert answer.returncode == 0, (answer.stdout, answer.stderr)
        return answer.stdout


@contextlib.contextmanager
def running(name: str, where: str, place: Path) -> Iterator[Daemon]:
    """The server whose application is the site of this name, at one of three places."""
    module, callable_name = APPLICATIONS[name]
    sites = place / "sites"
    shutil.copytree(SITES, sites, ignore=shutil.ignore_patterns("__pycache__"))
    (sites / "validated.py").write_text(
        "from wsgiref.validate import validator\n"
        f"from {module} import {callable_name}\n"
        f"application = validator({callable_name})\n"
    )
    identity, node = pki().server_ec, str(place / "uwsgi.sock")
    options = {
        "in the worker": ("--pythonpath", str(sites), "--module", f"{module}:{callable_name}", "--threads", "2"),
        "validated": ("--pythonpath", str(sites), "--wsgi-file", str(sites / "validated.py"), "--threads", "2"),
        "in uWSGI": ("--http-to", node),
    }
    with contextlib.ExitStack() as stack:
        if where == "in uWSGI":
            file = (sites / module.replace(".", "/")).with_suffix(".py")
            theirs = ("--pythonpath", str(sites), "--callable", callable_name, *USER)
            stack.enter_context(real_uwsgi(file, node, *theirs))
        listener = f"{loopback()}:{PORT},{identity.crt},{identity.key_file}"
        daemon = stack.enter_context(uwsgi_tls("--https", listener, *options[where], *USER))
        daemon.wait_for_workers(1)
        yield daemon
        assert "defect" not in daemon.log


@pytest.fixture(scope="module", params=itertools.product(APPLICATIONS, WHERE), ids=" ".join)
def framework(request: pytest.FixtureRequest) -> Iterator[Framework]:
    name, where = request.param
    with open_directory() as place:
        place.chmod(0o777)
        (place / "upload").write_bytes(UPLOAD)
        with running(name, where, place) as daemon:
            host = re.findall(r"bound to TCP address ([\d.]+):", daemon.log)[0]
            yield Framework(name, where, Site(daemon, (host, PORT)), place)


# --- what a request looks like --------------------------------------------------------------------------


def test_a_request(framework: Framework) -> None:
    """Whether it is secure, under which URL it was made, and by whom."""
    seen = json.loads(framework.ask("/seen/?a=1&b=%C3%A9", "--cookie", "c=d", "--user-agent", "t/1"))
    seen["url"] = unquote(seen["url"])  # Flask's is an IRI
    assert seen == {
        "method": "GET",
        "secure": True,
        "url": f"https://server.lab:{PORT}/seen/?a=1&b=é",
        "path": "/seen/",
        "query": {"a": "1", "b": "é"},
        "client": "127.0.0.1",
        "agent": "t/1",
        "cookies": {"c": "d"},
    }


def test_headers_cannot_make_a_request_another(framework: Framework) -> None:
    """Nobody has told the sites that they stand behind a proxy."""
    forged = ["X-Forwarded-Proto: http", "X-Forwarded-For: 6.6.6.6", "REMOTE-ADDR: 6.6.6.6", "HTTPS: off"]
    seen = json.loads(framework.ask("/seen/", *itertools.chain(*(("--header", field) for field in forged))))
    assert (seen["secure"], seen["client"]) == (True, "127.0.0.1")


def test_another_host(framework: Framework) -> None:
    """The framework's own check of the host sees what the client said."""
    answer = framework.curl("/seen/", "--header", "Host: evil.lab", "--include")
    assert answer.stdout.startswith("HTTP/1.1 400 ")


# --- bodies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [(), ("--header", "Transfer-Encoding: chunked")], ids=["length", "chunks"])
def test_upload(framework: Framework, framing: tuple[str, ...]) -> None:
    """multipart/form-data, as a browser sends it; Django wants its token and, as this is HTTPS, a good Referer."""
    token = framework.ask("/token/")
    expected = {"name": "u.bin", "size": len(UPLOAD), "sha256": hashlib.sha256(UPLOAD).hexdigest(), "comment": "ä b"}
    form = ("--form", f"file=@{framework.place}/upload;filename=u.bin", "--form", "comment=ä b")
    fields = ("--header", f"X-CSRFToken: {token}", "--referer", f"https://server.lab:{PORT}/")
    assert json.loads(framework.ask("/upload/", *form, *fields, *framing)) == expected
    if framework.name == "django":
        refused = framework.curl("/upload/", *form, *fields[:2], "--write-out", "%{http_code}")
        assert refused.stdout.endswith("403")


def test_a_stream(framework: Framework) -> None:
    with framework.site.connect() as client:
        answer = client.ask(get("/stream/"))
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.text == "".join(f"part {number}\n" for number in range(1000))
        assert client.ask(get("/count/")).status == 200


def test_a_file(framework: Framework) -> None:
    """Through wsgi.file_wrapper, whole and in part."""
    with framework.site.connect() as client:
        answer = client.ask(get(f"/file/?path={framework.place}/upload"))
        assert (answer.status, answer.body) == (200, UPLOAD)
        assert answer.headers["content-length"] == str(len(UPLOAD))
        assert "filename=" in answer.headers["content-disposition"]
        assert client.ask(get(f"/file/?path={framework.place}/upload", method="HEAD")).body == b""
        assert client.ask(get("/count/")).status == 200


# --- redirects and cookies ------------------------------------------------------------------------------


def test_redirects(framework: Framework) -> None:
    """To a path of its own, and, from a path without its slash, to a URL that is made of the request's."""
    assert json.loads(framework.ask("/redirect/", "--location"))["query"] == {"from": "redirect"}
    moved = framework.site.ask(get("/seen?x=1"))
    assert moved.status in (301, 308)
    assert moved.headers["location"] in ("/seen/?x=1", "https://server.lab/seen/?x=1")
    assert json.loads(framework.ask("/seen?x=1", "--location"))["query"] == {"x": "1"}


def test_a_session(framework: Framework) -> None:
    """It is kept in a cookie that only goes over HTTPS."""
    (framework.place / "cookies").unlink(missing_ok=True)
    assert [framework.ask("/count/") for _ in range(3)] == ["1", "2", "3"]
    assert "; secure" in framework.site.ask(get("/count/")).headers["set-cookie"].lower()


# --- what goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?length=100"])
def test_a_generator_that_raises_in_the_middle(framework: Framework, query: str) -> None:
    """What came cannot be taken for all of it; the log says why, and the site goes on."""
    for _ in range(3):
        answer = framework.curl(f"/breaks/{query}")
        assert answer.stdout == "a beginning\n"
        if framework.where == "in uWSGI" and not query:
            assert answer.returncode == 0  # its closing is the end of every answer without a length: nobody can tell
        else:
            assert answer.returncode in (CURL_PARTIAL_FILE, CURL_RECEIVE_ERROR)
    if framework.where != "in uWSGI":
        framework.site.daemon.wait_for_line("RuntimeError: in the middle")
        with framework.site.connect() as client:
            client.send(get(f"/breaks/{query}"))
            assert not client.ends_cleanly()
    assert framework.site.ask(get("/count/")).status == 200


def test_a_view_that_raises(framework: Framework) -> None:
    """The framework's own page, and the connection goes on."""
    with framework.site.connect() as client:
        answer = client.ask(get("/fails/"))
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (500, "text/html")
        assert client.ask(get("/count/")).status == 200


def test_a_page_that_is_not_there(framework: Framework) -> None:
    with framework.site.connect() as client:
        for request in (get("/nothing/"), get("/nothing/", method="HEAD"), post("/nothing/", UPLOAD)):
            assert client.ask(request).status in (403, 404)  # 403: Django looks for its token first
        assert client.ask(chunked("/nothing/", UPLOAD, 9999)).status in (403, 404)
        assert client.ask(get("/count/")).status == 200
