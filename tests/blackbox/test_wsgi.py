"""PEP 3333 over real TLS: good applications under wsgiref.validate, bad ones of every kind, threads, where they are.

What an application does wrong costs its own request: the client can tell, the log says why, and the worker goes on.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pki import CLIENT_DN, pki

from .raw_client import DESCRIPTORS, PORT, Site, chunked, get, post, serving
from .server import loopback, uwsgi_tls, wait_until

EXIT_NO_APPLICATION = 22

# --- applications that do something wrong, or unusual ---------------------------------------------------

# Every route says when it is closed, so that the tests can count.
ROUTES = r"""
import sys

class Body:
    def __init__(self, environ, blocks):
        self.name, self.blocks = environ["PATH_INFO"], blocks
    def __iter__(self):
        return iter(self.blocks)
    def close(self):
        sys.stderr.write(f"closed {self.name}\n")

class File:
    '''A file whose end is told.'''
    def __init__(self, environ, path):
        self.name, self.file = environ["PATH_INFO"], open(path, "rb")
        self.fileno, self.tell, self.seek, self.read = self.file.fileno, self.file.tell, self.file.seek, self.file.read
    def close(self):
        self.file.close()
        sys.stderr.write(f"closed {self.name}\n")

PLAIN = [("Content-Type", "text/plain")]

def ok(environ, start):
    start("200 OK", PLAIN)
    return Body(environ, [b"fine"])

def no_blocks(environ, start):
    start("200 OK", PLAIN)
    return Body(environ, [])

def empty_blocks(environ, start):
    start("200 OK", PLAIN)
    return Body(environ, [b"", b"one", b"", b"two", b""])

def late_start(environ, start):
    '''start_response may wait for the first block, PEP 3333.'''
    def blocks():
        start("200 OK", PLAIN)
        yield b"late"
    return Body(environ, blocks())

def write_and_iterate(environ, start):
    write = start("200 OK", PLAIN)
    write(b"written ")
    write(b"")
    return Body(environ, [b"and iterated"])

def exact_length(environ, start):
    start("200 OK", [("Content-Length", "6")])
    return Body(environ, [b"abc", b"def"])

def hop_by_hop(environ, start):
    start("200 OK", [("Connection", "x"), ("Transfer-Encoding", "chunked"), ("Keep-Alive", "9"), ("X-Kept", "yes")])
    return Body(environ, [b"fine"])

def own_close(environ, start):
    start("200 OK", [("Connection", "close")])
    return Body(environ, [b"bye"])

def empty_length(environ, start):
    start("200 OK", [("Content-Length", "0")])
    return Body(environ, [])

def whole_file(environ, start):
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](File(environ, __file__))

def rest_of_file(environ, start):
    file = File(environ, __file__)
    file.seek(100)
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](file)

def past_the_end_of_file(environ, start):
    file = File(environ, __file__)
    file.seek(1 << 30)
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](file)

def part_of_file(environ, start):
    start("200 OK", [("Content-Length", "10")])
    return environ["wsgi.file_wrapper"](File(environ, __file__))

def too_short_file(environ, start):
    start("200 OK", [("Content-Length", "999999")])
    return environ["wsgi.file_wrapper"](File(environ, __file__))

def no_real_file(environ, start):
    import io
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"from memory"), 4)

def file_after_write(environ, start):
    start("200 OK", PLAIN)(b"written ")
    return environ["wsgi.file_wrapper"](File(environ, __file__))

def changed_mind(environ, start):
    '''An error page in the place of what was begun, as long as nothing has been sent.'''
    start("200 OK", PLAIN)
    try:
        raise RuntimeError("changed my mind")
    except RuntimeError:
        start("503 Sorry", [("X-Error", "yes")], sys.exc_info())
    return Body(environ, [b"sorry"])

def changed_mind_too_late(environ, start):
    def blocks():
        start("200 OK", PLAIN)
        yield b"begun"
        try:
            raise RuntimeError("too late")
        except RuntimeError:
            start("503 Sorry", PLAIN, sys.exc_info())
        yield b"never"
    return Body(environ, blocks())

def raises_at_once(environ, start):
    raise RuntimeError("at once")

def raises_after_start(environ, start):
    start("200 OK", PLAIN)
    raise RuntimeError("after start_response")

def raises_before_a_block(environ, start):
    start("200 OK", PLAIN)
    def blocks():
        raise RuntimeError("before a block")
        yield b""
    return Body(environ, blocks())

def raises_mid_body(environ, start):
    start("200 OK", PLAIN)
    def blocks():
        yield b"some"
        raise RuntimeError("mid-body")
    return Body(environ, blocks())

def raises_mid_length(environ, start):
    start("200 OK", [("Content-Length", "100")])
    def blocks():
        yield b"some"
        raise RuntimeError("mid-body")
    return Body(environ, blocks())

def raises_in_close(environ, start):
    class Bad(Body):
        def close(self):
            super().close()
            raise RuntimeError("in close")
    start("200 OK", PLAIN)
    return Bad(environ, [b"all ", b"of it"])

def exits(environ, start):
    sys.exit("enough")

def exits_mid_body(environ, start):
    start("200 OK", PLAIN)
    def blocks():
        yield b"some"
        raise SystemExit(1)
    return Body(environ, blocks())

def interrupts(environ, start):
    raise KeyboardInterrupt

def returns_str(environ, start):
    start("200 OK", PLAIN)
    return "text"

def returns_str_block(environ, start):
    start("200 OK", PLAIN)
    return Body(environ, ["text"])

def returns_str_in_list(environ, start):
    start("200 OK", PLAIN)
    return ["text"]

def str_after_bytes(environ, start):
    start("200 OK", PLAIN)
    return Body(environ, [b"bytes", "text"])

def returns_none(environ, start):
    start("200 OK", PLAIN)

def returns_a_number(environ, start):
    start("200 OK", PLAIN)
    return 7

def writes_str(environ, start):
    start("200 OK", PLAIN)("text")
    return []

def never_starts(environ, start):
    return Body(environ, [b"never"])

def never_starts_at_all(environ, start):
    return Body(environ, [])

def starts_twice(environ, start):
    start("200 OK", PLAIN)
    start("200 OK", PLAIN)
    return Body(environ, [b"never"])

def too_many_bytes(environ, start):
    start("200 OK", [("Content-Length", "3")])
    return Body(environ, [b"12", b"345", b"6"])

def too_many_bytes_in_one(environ, start):
    start("200 OK", [("Content-Length", "3")])
    return [b"12345"]

def too_few_bytes(environ, start):
    start("200 OK", [("Content-Length", "30")])
    return Body(environ, [b"12"])

def too_few_bytes_in_one(environ, start):
    start("200 OK", [("Content-Length", "30")])
    return [b"12"]

def no_bytes(environ, start):
    start("200 OK", [("Content-Length", "30")])
    return Body(environ, [])

HEADS = {
    "status_with_crlf": ("200 OK\r\nX-Evil: 1", PLAIN),
    "status_without_reason": ("200", PLAIN),
    "status_no_number": ("OK", PLAIN),
    "status_1xx": ("100 Continue", PLAIN),
    "status_bytes": (b"200 OK", PLAIN),
    "status_number": (200, PLAIN),
    "value_with_crlf": ("200 OK", [("X-A", "a\r\nX-Evil: 1")]),
    "value_with_lf": ("200 OK", [("X-A", "a\nX-Evil: 1")]),
    "value_with_nul": ("200 OK", [("X-A", "a\0b")]),
    "value_not_latin1": ("200 OK", [("X-A", "\u20ac")]),
    "value_bytes": ("200 OK", [("X-A", b"a")]),
    "value_number": ("200 OK", [("X-A", 7)]),
    "name_with_colon": ("200 OK", [("X-A: b\r\nX-Evil", "a")]),
    "name_with_blank": ("200 OK", [("X A", "a")]),
    "name_empty": ("200 OK", [("", "a")]),
    "name_bytes": ("200 OK", [(b"X-A", "a")]),
    "triple": ("200 OK", [("X-A", "a", "b")]),
    "headers_none": ("200 OK", None),
    "length_no_number": ("200 OK", [("Content-Length", "many")]),
    "length_negative": ("200 OK", [("Content-Length", "-1")]),
    "two_lengths": ("200 OK", [("Content-Length", "4"), ("Content-Length", "5")]),
}

def application(environ, start):
    name = environ["PATH_INFO"][1:]
    if name in HEADS:
        start(*HEADS[name])
        return Body(environ, [b"body"])
    return globals()[name](environ, start)
"""

CUT = -1  # instead of a status: the response begins and does not end


@dataclass(frozen=True, slots=True)
class Case:
    """A route, and what must come of a GET for it."""

    name: str
    status: int
    body: bytes = b""
    log: str = ""  # a pattern; "" means not even a traceback
    closes: int = 1  # how often close() is called
    keeps: bool = True  # the connection goes on to the next request

    def __str__(self) -> str:
        return self.name


INVALID = r"500: the application's response is not valid"
SERVER_ERROR = b"500 Internal Server Error\n"


def fails(name: str, log: str, closes: int = 0, keeps: bool = True) -> Case:
    return Case(name, 500, SERVER_ERROR, log, closes, keeps)


def cut(name: str, log: str, closes: int = 1) -> Case:
    return Case(name, CUT, b"", log, closes, keeps=False)


CASES = [
    Case("ok", 200, b"fine"),
    Case("no_blocks", 200),
    Case("empty_blocks", 200, b"onetwo"),
    Case("late_start", 200, b"late"),
    Case("write_and_iterate", 200, b"written and iterated"),
    Case("exact_length", 200, b"abcdef"),
    Case("empty_length", 200),
    Case("hop_by_hop", 200, b"fine"),
    Case("own_close", 200, b"bye", keeps=False),
    Case("whole_file", 200, ROUTES.encode()),
    Case("rest_of_file", 200, ROUTES.encode()[100:]),
    Case("past_the_end_of_file", 200),
    Case("part_of_file", 200, ROUTES.encode()[:10]),
    fails("too_short_file", "shorter than its Content-Length", closes=1),
    Case("no_real_file", 200, b"from memory", closes=0),
    Case("file_after_write", 200, b"written " + ROUTES.encode()),
    Case("changed_mind", 503, b"sorry"),
    cut("changed_mind_too_late", "RuntimeError: too late"),
    fails("raises_at_once", "RuntimeError: at once"),
    fails("raises_after_start", "RuntimeError: after start_response"),
    fails("raises_before_a_block", "RuntimeError: before a block", closes=1),
    cut("raises_mid_body", "RuntimeError: mid-body"),
    cut("raises_mid_length", "RuntimeError: mid-body"),
    Case("raises_in_close", 200, b"all of it", "RuntimeError: in close", closes=1),
    fails("exits", "SystemExit: enough"),
    cut("exits_mid_body", "SystemExit: 1"),
    fails("interrupts", "KeyboardInterrupt"),
    fails("returns_str", "TypeError"),
    fails("returns_str_block", "TypeError", closes=1),
    fails("returns_str_in_list", "TypeError"),
    cut("str_after_bytes", "TypeError"),
    fails("returns_none", "TypeError"),
    fails("returns_a_number", "TypeError"),
    fails("writes_str", "TypeError"),
    fails("never_starts", "did not call start_response", closes=1),
    fails("never_starts_at_all", "did not call start_response", closes=1),
    fails("starts_twice", "twice without exc_info"),
    Case("too_many_bytes", 200, b"123", "longer than its Content-Length", keeps=False),
    Case("too_many_bytes_in_one", 200, b"123", "longer than its Content-Length", closes=0, keeps=False),
    cut("too_few_bytes", "shorter than its Content-Length"),
    cut("too_few_bytes_in_one", "shorter than its Content-Length", closes=0),
    cut("no_bytes", "shorter than its Content-Length"),
    *[
        fails(name, INVALID, closes=1)
        for name in re.findall(r'^    "(\w+)": \(', ROUTES, re.MULTILINE)
        if name != "status_without_reason"
    ],
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server with all routes; it must come through with its worker."""
    with serving(tmp_path_factory.mktemp("wsgi"), ROUTES) as site:
        worker = site.worker.pid
        yield site
        assert site.worker.pid == worker
        assert "defect" not in site.daemon.log


@pytest.mark.parametrize("case", CASES, ids=str)
def test_application(site: Site, case: Case) -> None:
    before = len(site.daemon.lines)
    with site.connect() as client:
        client.send(get(f"/{case.name}"))
        if case.status == CUT:
            assert not client.ends_cleanly()
        else:
            answer = client.answer()
            assert (answer.status, answer.body) == (case.status, case.body)
            assert "x-evil" not in answer.headers
            if case.keeps:
                assert client.ask(get("/ok")).body == b"fine"
            else:
                client.assert_ended()
    site.ask(get("/ok"))
    site.daemon.wait_for_line("closed /ok")
    lines = site.daemon.lines[before:]
    if case.name != "ok":
        assert lines.count(f"closed /{case.name}") == case.closes
    if case.log:
        assert_logged(site, before, case)
    else:
        assert "Traceback" not in "\n".join(lines)


def assert_logged(site: Site, before: int, case: Case) -> None:
    """The log says what was wrong; again and again, as of such lines it takes only ten a second."""

    def logged() -> bool:
        if re.search(case.log, "\n".join(site.daemon.lines[before:])):
            return True
        with site.connect() as client:
            client.send(get(f"/{case.name}", "Connection: close"))
            client.ends_cleanly()
        return False

    wait_until(logged, 5.0, lambda: f"no {case.log!r} in the log")


def test_a_cut_response_cannot_pass_for_complete(site: Site) -> None:
    """Neither form of framing lets the client take it for whole, and no close_notify covers it up."""
    for name in ("raises_mid_body", "raises_mid_length", "too_few_bytes", "changed_mind_too_late"):
        with site.connect() as client:
            client.send(get(f"/{name}"))
            with pytest.raises(Exception, match=r"(?i)eof|reset by peer"):
                client.answer()


@pytest.mark.parametrize("name", ["whole_file", "ok", "exact_length", "too_short_file", "raises_mid_body"])
def test_head_of_every_kind(site: Site, name: str) -> None:
    """The framing of the body that is not sent comes out the same, and the connection stays in step."""
    with site.connect() as client:
        client.send(get(f"/{name}", method="HEAD") + get("/ok"))
        head, after = client.answer("HEAD"), client.answer()
    assert head.body == b""
    assert after.body == b"fine"
    if name == "whole_file":
        assert head.headers["content-length"] == str(len(ROUTES.encode()))


def test_a_closed_application_connection_is_announced(site: Site) -> None:
    assert site.ask(get("/own_close")).headers["connection"] == "close"
    answer = site.ask(get("/hop_by_hop"))
    assert "keep-alive" not in answer.headers
    assert answer.headers["x-kept"] == "yes"


# --- good applications, under the judge of the standard library ------------------------------------------

VALIDATED = r"""
import hashlib, json
from wsgiref.validate import validator

@validator
def application(environ, start_response):
    body = environ["wsgi.input"]
    how = environ["QUERY_STRING"]
    if how == "lines":
        data = b"".join(body)
    elif how == "readline":
        data = b"".join(iter(body.readline, b""))
    elif how == "readlines":
        data = b"".join(body.readlines())
    elif how == "unread":
        data = b""
    else:
        blocks = []
        while block := body.read(10_000):
            blocks.append(block)
        data = b"".join(blocks)
    assert body.read(1) == b"" or how == "unread"
    environ["wsgi.errors"].write("said to wsgi.errors\n")
    environ["wsgi.errors"].flush()
    seen = {name: value for name, value in environ.items() if isinstance(value, (str, bool, tuple))}
    answer = json.dumps({**seen, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}).encode()
    if environ["REQUEST_METHOD"] == "HEAD" or how == "empty":
        start_response("204 No Content", [])
        return []
    length = [] if how == "generator" else [("Content-Length", str(len(answer)))]
    write = start_response("200 OK", [("Content-Type", "application/json"), *length])
    if how == "write":
        write(answer)
        return []
    if how == "generator":
        return (answer[at : at + 7] for at in range(0, len(answer), 7))
    return [answer[:7], answer[7:]]
"""


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    options = ("--threads", "2", "--http-var", "ANSWER=42", "--https-export-cert")
    with serving(tmp_path_factory.mktemp("validate"), VALIDATED, *options, client_ca=pki().ca.crt) as site:
        yield site
        assert "Traceback" not in site.daemon.log
        assert "AssertionError" not in site.daemon.log


BODY = b"one line\nand another\n" * 50_000  # a megabyte: its spool is a file


@pytest.mark.parametrize("how", ["", "lines", "readline", "readlines", "unread", "empty", "write", "generator"])
@pytest.mark.parametrize("body", [b"", b"small\nbody", BODY], ids=["no body", "in memory", "in a file"])
def test_validate(validated: Site, how: str, body: bytes) -> None:
    requests = [post(f"/?{how}", body, "Content-Type: text/plain"), chunked(f"/?{how}", body, 4000), get(f"/?{how}")]
    for request in requests:
        answer = validated.ask(request)
        assert answer.status == (204 if how == "empty" else 200)
        if how != "empty":
            length = 0 if how == "unread" or request is requests[-1] else len(body)
            assert json.loads(answer.body)["bytes"] == length
    assert validated.ask(get(f"/?{how}", method="HEAD")).status == 204


def test_environ(validated: Site) -> None:
    fields = ["Content-Type: a/b", "X-Two: 1", "x-two: 2", "Cookie: a=1", "Cookie: b=2"]
    request = get("/caf%C3%A9/%2F?q=%C3%A9&r", *fields)
    seen = json.loads(validated.ask(request).body)
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/café//".encode().decode("latin-1"),  # PEP 3333: bytes as latin-1
        "QUERY_STRING": "q=%C3%A9&r",
        "REQUEST_URI": "/caf%C3%A9/%2F?q=%C3%A9&r",
        "SERVER_NAME": "server.lab",
        "SERVER_PORT": str(PORT),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "a/b",
        "HTTP_HOST": "server.lab",
        "HTTP_X_TWO": "1, 2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTPS": "on",
        "ANSWER": "42",
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "https",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert seen["REMOTE_PORT"].isdigit()
    assert "HTTP_CONTENT_TYPE" not in seen
    assert not {"HTTPS_DN", "HTTPS_CC", "HTTPS_CLIENT_CERTIFICATE", "SSL_CLIENT_S_DN"} & seen.keys()
    validated.daemon.wait_for_line("said to wsgi.errors")


FORGED = [
    "HTTPS_DN: /CN=forged",
    "HTTPS-DN: /CN=forged",
    "Https_Dn: /CN=forged",
    "HTTPS_CLIENT_CERTIFICATE: forged",
    "HTTPS_CC: forged",
    "SSL_CLIENT_VERIFY: forged",
    "HTTPS: forged",
    "REMOTE_ADDR: forged",
    "REMOTE_USER: forged",
    "UWSGI_ROUTER: forged",
    "SERVER_PORT: forged",
    "PATH_INFO: forged",
    "SCRIPT_NAME: forged",
    "ANSWER: forged",
    "wsgi.input: forged",
    "Proxy: forged",
    "proxy: forged",
    "CONTENT_LENGTH: 99",
    "Content_Length: 99",
    "Transfer_Encoding: chunked",
    "X_Forwarded_For: forged",
]


@pytest.mark.parametrize("with_certificate", [False, True])
def test_no_header_can_pose_as_what_tls_proved(validated: Site, with_certificate: bool) -> None:
    """Nor as any other variable of ours, nor, as HTTP_PROXY, as the environment's (CVE-2016-5385)."""
    certificate = pki().client if with_certificate else None
    with validated.connect(certificate=certificate) as client:
        seen = json.loads(client.ask(get("/", *FORGED)).body)
    # What comes of such a header at all has a name that nobody trusts.
    forged = {name for name, value in seen.items() if "forged" in str(value)}
    assert forged == {"HTTP_HTTPS_DN", "HTTP_HTTPS", "HTTP_ANSWER"}
    assert seen["ANSWER"] == "42"
    assert "CONTENT_LENGTH" not in seen
    trusted = {"HTTPS_DN", "HTTPS_CC", "HTTPS_CLIENT_CERTIFICATE"}
    assert trusted & seen.keys() == (trusted if with_certificate else set())
    if with_certificate:
        assert seen["HTTPS_DN"] == CLIENT_DN
        assert seen["HTTPS_CC"] == pki().client.pem
        assert seen["HTTPS_CLIENT_CERTIFICATE"].encode("latin-1") == pki().client.der


def test_multiprocess(tmp_path: Path) -> None:
    host = loopback()
    (tmp_path / "app.py").write_text(VALIDATED)
    server = pki().server_ec
    options = ("--wsgi-file", "app.py", "--processes", "2")
    with uwsgi_tls("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *options, cwd=tmp_path) as daemon:
        daemon.wait_for_workers(2)
        seen = json.loads(Site(daemon, (host, PORT)).ask(get("/")).body)
    assert (seen["wsgi.multiprocess"], seen["wsgi.multithread"]) == (True, False)


# --- threads --------------------------------------------------------------------------------------------

HOLDING = f"""
import os, threading
{DESCRIPTORS}

both = threading.Barrier(2, timeout=10)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/descriptors":
        return descriptors(environ, start_response)
    if environ["PATH_INFO"] == "/meet":
        both.wait()  # fails unless two calls are here at once
    elif environ["PATH_INFO"] == "/hold":
        environ["wsgi.errors"].write("holding\\n")
        with open(environ["QUERY_STRING"]) as fifo:
            fifo.read()
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]
"""


def test_two_threads_run_two_calls_and_a_third_waits_without_one(tmp_path: Path) -> None:
    fifos = [tmp_path / "first", tmp_path / "second"]
    for fifo in fifos:
        os.mkfifo(fifo)
    with serving(tmp_path, HOLDING, "--threads", "2") as site:
        with site.connect() as one, site.connect() as two:
            one.send(get("/meet"))
            two.send(get("/meet"))
            assert one.answer().body == two.answer().body == b"/meet"
        with site.connect() as one, site.connect() as two, site.connect() as third, site.connect() as fourth:
            one.send(get(f"/hold?{fifos[0]}"))
            two.send(get(f"/hold?{fifos[1]}"))
            wait_until(lambda: site.daemon.lines.count("holding") == 2, 10.0, lambda: site.daemon.log)
            waiting = [third, fourth, *[site.connect() for _ in range(20)]]  # handshakes go on,
            for client in waiting:
                client.send(get("/waiting"))
            with site.connect() as bad:  # and so do heads and answers that need no application
                bad.send(b"nonsense\r\n\r\n")
                assert bad.answer().status == 400
            third.tls.settimeout(0.2)
            with pytest.raises(TimeoutError):
                third.tls.recv(1)
            third.tls.settimeout(10)
            fifos[0].write_text("go on")
            assert one.answer().status == 200
            for client in waiting:  # one thread is enough for all of them
                assert client.answer().body == b"/waiting"
                client.tls.close()
            with site.connect() as after:
                assert after.ask(get("/waiting")).status == 200
            fifos[1].write_text("go on")
            assert two.answer().status == 200


def test_a_slow_body_does_not_hold_the_only_thread(tmp_path: Path) -> None:
    """The application is called when the body is there, and gets through with a response that nobody reads."""
    with serving(tmp_path, HOLDING, "--threads", "1") as site:
        uploads = [site.connect() for _ in range(20)]
        for upload in uploads:
            upload.send(post("/x", bytes(1000))[:-1])
        assert site.ask(get("/polite")).body == b"/polite"
        for upload in uploads:
            upload.send(b"\0")
            assert upload.answer("POST").body == b"/x"
            upload.tls.close()


FAR_AHEAD = """
produced = 0
def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/produced":
        return [str(produced).encode()]
    def blocks():
        global produced
        for _ in range(320):
            produced += 1
            yield bytes(1 << 20)
        produced = -1
    return blocks()
"""


@pytest.mark.parametrize("leaves", [False, True])
def test_an_application_far_ahead_of_its_client_waits(tmp_path: Path, leaves: bool) -> None:
    """At some 256 MiB, so that no client can fill the disk; it goes on when the client does, or ends with it."""
    with serving(tmp_path, FAR_AHEAD, "--threads", "2") as site, site.connect() as client:

        def produced() -> int:
            return int(site.ask(get("/produced")).body)

        client.send(get("/"))
        wait_until(lambda: produced() > 250, 60.0, lambda: f"{produced()} MiB")
        assert 250 < produced() < 280
        if leaves:
            client.reset()
            site.daemon.stop()  # nobody waits for ever
            return
        assert 250 < produced() < 280
        received = 0

        def count(data: object) -> None:
            nonlocal received
            assert isinstance(data, bytes)
            received += len(data)

        assert client.answer(sink=count).status == 200
        assert received == 320 << 20
        assert produced() == -1


def test_a_waiting_request_whose_client_left_is_no_harm(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with serving(tmp_path, HOLDING) as site:
        assert site.ask(get("/")).status == 200
        base = site.descriptors()
        with site.connect() as one:
            one.send(get(f"/hold?{fifo}"))
            site.daemon.wait_for_line("^holding$")
            for reset in (False, True) * 5:
                with site.connect() as client:
                    client.send(get("/waiting"))
                    if reset:
                        client.reset()
            fifo.write_text("go on")
            assert one.answer().status == 200
            assert one.ask(get("/after")).body == b"/after"
        site.wait_for_descriptors(base)
        assert "Traceback" not in site.daemon.log


# Calls are counted, and a thread of the application's tells how many descriptors there are while all others are busy.
QUEUED = """
import os, threading

calls = []

def tell():
    while True:
        with open("asked") as fifo:
            fifo.read()
        with open("descriptors", "w") as fifo:
            fifo.write(str(len(os.listdir("/proc/self/fd"))))

threading.Thread(target=tell, daemon=True).start()

def application(environ, start_response):
    calls.append(environ["PATH_INFO"])
    if environ["PATH_INFO"] == "/hold":
        environ["wsgi.errors"].write("holding\\n")
        with open("hold") as fifo:
            fifo.read()
    start_response("200 OK", [])
    return [" ".join(calls).encode()]
"""


def test_whoever_leaves_the_queue_is_never_given_to_the_application(tmp_path: Path) -> None:
    """Nor kept until there would have been room: its socket and its body's file are freed while the call goes on."""
    for name in ("hold", "asked", "descriptors"):
        os.mkfifo(tmp_path / name)

    def descriptors() -> int:
        (tmp_path / "asked").write_text("how many?")
        return int((tmp_path / "descriptors").read_text())

    with serving(tmp_path, QUEUED, "--threads", "1") as site, site.connect() as busy:
        busy.send(get("/hold"))
        site.daemon.wait_for_line("^holding$")
        base = descriptors()
        clients = [site.connect() for _ in range(12)]
        for number, client in enumerate(clients):
            client.send(post("/left", bytes(100_000)) if number % 2 else get("/left"))
        # 18 descriptors: six have a body that is too long for memory.
        wait_until(lambda: descriptors() == base + 18, 10.0, lambda: f"{descriptors()}, were {base}")
        for number, client in enumerate(clients):
            if number % 3 == 0:
                client.reset()
            elif number % 3 == 1:
                client.tls.close()
            else:
                with client:
                    client.tls.shutdown(socket.SHUT_WR)
                    client.ends_cleanly()  # however: it ends now, and not when there is room
        wait_until(lambda: descriptors() == base, 10.0, lambda: f"{descriptors()}, were {base}")
        with site.connect() as stays:
            stays.send(get("/stays"))
            (tmp_path / "hold").write_text("go on")
            assert busy.answer().body == b"/hold"
            assert stays.answer().body == b"/hold /stays"
        assert busy.ask(get("/last")).body == b"/hold /stays /last"
        assert len(re.findall(r"(?:GET|POST) /left => ", site.daemon.log)) == 12
        assert "Traceback" not in site.daemon.log


def test_a_queued_client_is_told_when_it_has_waited_too_long(tmp_path: Path) -> None:
    """With 503 after http-timeout; the call that takes so long may go on, and its client has its response."""
    for name in ("hold", "asked", "descriptors"):
        os.mkfifo(tmp_path / name)
    with serving(tmp_path, QUEUED, "--threads", "1", "--http-timeout", "1") as site, site.connect() as busy:
        busy.send(get("/hold"))
        site.daemon.wait_for_line("^holding$")
        for request in (get("/late"), post("/late", bytes(100_000)), get("/late") + get("/after")):
            with site.connect() as client:
                began = time.monotonic()
                assert client.ask(request).status == 503
                assert 0.9 < time.monotonic() - began < 4.0
                client.assert_ended()
        site.daemon.wait_for_line("503: no application thread was free in time")
        (tmp_path / "hold").write_text("go on")
        assert busy.answer().body == b"/hold"
        assert site.ask(get("/next")).body == b"/hold /next"


# --- files, blocks and write() that are not what they seem -----------------------------------------------

FILES = """
import gzip, io, os, sys

class Readable:
    '''Of 39 blocks, but for what happens at the 30th.'''
    def __init__(self, at_block_30):
        self.blocks, self.at_block_30 = 0, at_block_30
    def read(self, size):
        self.blocks += 1
        if self.blocks == 30:
            self.at_block_30()
        return b"x" * size if self.blocks < 40 else b""

class WithDescriptor(Readable):
    '''It has a file's, too.'''
    def __init__(self, at_block_30):
        super().__init__(at_block_30)
        self.file = open("file", "rb")
        self.fileno, self.tell, self.close = self.file.fileno, self.file.tell, self.file.close

def wait():
    sys.stderr.write("waiting\\n")
    with open("fifo") as fifo:
        fifo.read()

class ClosesBadly(io.FileIO):
    def close(self):
        if not self.closed:
            super().close()
            raise RuntimeError("close failed")

FILES = {
    "/exits": lambda: Readable(sys.exit),
    "/slow": lambda: Readable(wait),
    "/descriptor-exits": lambda: WithDescriptor(sys.exit),
    "/descriptor-slow": lambda: WithDescriptor(wait),
    "/gzip": lambda: gzip.open("file.gz"),
    "/closes-badly": lambda: ClosesBadly("file"),
}

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] in FILES:
        return environ["wsgi.file_wrapper"](FILES[environ["PATH_INFO"]](), 65536)
    if environ["PATH_INFO"] == "/descriptors":
        return [str(len(os.listdir("/proc/self/fd"))).encode()]
    return [b"fine"]
"""


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Site]:
    """A server with all of these; it must come through with its worker."""
    os.mkfifo(tmp_path / "fifo")
    with open(tmp_path / "file", "wb") as file:
        file.truncate(64 << 20)
    with gzip.open(tmp_path / "file.gz", "wb") as packed:
        packed.write(BODY)
    with serving(tmp_path, FILES, "--threads", "1") as site:
        worker = site.worker.pid
        yield site
        assert not site.daemon.running or site.worker.pid == worker
        assert "defect" not in site.daemon.log


def test_a_file_that_exits_while_it_is_read(files: Site) -> None:
    """As often as it likes: it is the application's code and costs its own response."""
    for _ in range(5):
        with files.connect() as client:
            client.send(get("/exits"))
            assert not client.ends_cleanly()
    assert files.ask(get("/")).body == b"fine"
    files.daemon.wait_for_line("SystemExit")


@pytest.mark.parametrize("how", ["exits", "slow"])
def test_a_file_with_a_descriptor_is_read_without_its_code(files: Site, how: str) -> None:
    """A response that goes on after the application has returned runs nothing of it in a thread that serves clients."""
    for _ in range(4):
        assert files.ask(get(f"/descriptor-{how}")).body == bytes(64 << 20)
    assert files.ask(get("/")).body == b"fine"
    assert "SystemExit" not in files.daemon.log
    assert "waiting" not in files.daemon.lines


def test_a_file_that_is_slow_to_read(files: Site, tmp_path: Path) -> None:
    """It holds the thread of the application, not those that serve the clients."""
    clients = [files.connect() for _ in range(3)]
    for client in clients:
        client.send(get("/slow"))
    files.daemon.wait_for_line("^waiting$")
    for _ in range(10):
        with files.connect() as other:
            other.send(b"nonsense\r\n\r\n")
            assert other.answer().status == 400
    assert files.daemon.lines.count("waiting") == 1
    for turn in range(1, 4):  # whoever's it is
        files.wait_for_lines("waiting", turn)
        (tmp_path / "fifo").write_text("go on")
    for client in clients:
        assert client.answer().body == b"x" * 65536 * 39
        client.tls.close()


def test_a_file_that_is_unpacked_as_it_is_read(files: Site) -> None:
    """Its descriptor's length is that of other bytes."""
    with files.connect() as client:
        assert client.ask(get("/gzip")).body == BODY
        assert client.ask(get("/")).body == b"fine"


def test_a_file_that_cannot_be_closed(files: Site) -> None:
    """Clients leave in the middle of it: the log has why, and neither their sockets nor the worker's end suffer."""
    base = files.descriptors()
    for number in range(6):
        with files.connect(receive_buffer_bytes=4096) as client:
            client.send(get("/closes-badly"))
            assert client.peek()
            if number % 2:
                client.reset()
    assert len(files.ask(get("/closes-badly")).body) == 64 << 20
    files.wait_for_descriptors(base)
    files.daemon.wait_for_line("RuntimeError: close failed")
    began = time.monotonic()
    assert files.daemon.stop() == 0
    assert time.monotonic() - began < 5.0


BLOCKS = """
from array import array

class Lying(bytes):
    def __new__(cls, data, length):
        self = super().__new__(cls, data)
        self.length = length
        return self
    def __len__(self):
        return self.length

KINDS = {
    "less": Lying(b"hello", 3),
    "more": Lying(b"hello", 30),
    "none": Lying(b"hello", 0),
    "bytearray": bytearray(b"hello"),
    "array": memoryview(array("I", [1, 2, 3])),
    "str": "hello",
    "int": 5,
    "empty str": "",
    "zero": 0,
}

def application(environ, start_response):
    _, how, kind, *length = environ["PATH_INFO"].split("/")
    write = start_response("200 OK", [("Content-Length", each) for each in length])
    if how == "write":
        write(KINDS[kind])
        return []
    if how == "one":
        return [KINDS[kind]]
    return iter([KINDS[kind], KINDS[kind]])
"""
WORDS = {
    "less": b"hello",
    "more": b"hello",
    "none": b"hello",
    "bytearray": b"hello",
    "array": array("I", [1, 2, 3]).tobytes(),
}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("blocks"), BLOCKS) as site:
        yield site
        assert "defect" not in site.daemon.log


@pytest.mark.parametrize("with_length", [False, True], ids=["", "with a length"])
@pytest.mark.parametrize("how", ["one", "two", "write"])
@pytest.mark.parametrize("kind", WORDS)
def test_blocks_that_are_not_plain_bytes(blocks: Site, kind: str, how: str, with_length: bool) -> None:
    """What is sent, and what is said of its length, are their bytes."""
    expected = WORDS[kind] * (2 if how == "two" else 1)
    path = f"/{how}/{kind}" + (f"/{len(expected)}" if with_length else "")
    with blocks.connect() as client:
        for _ in range(2):
            answer = client.ask(get(path))
            assert (answer.status, answer.body) == (200, expected)
            assert answer.headers.get("content-length", str(len(expected))) == str(len(expected))


@pytest.mark.parametrize("how", ["one", "two", "write"])
@pytest.mark.parametrize("kind", ["str", "int", "empty%20str", "zero"])
def test_what_is_no_block(blocks: Site, kind: str, how: str) -> None:
    with blocks.connect() as client:
        for _ in range(2):
            assert client.ask(get(f"/{how}/{kind}")).status == 500
    blocks.daemon.wait_for_line("TypeError")


KEEPS_WRITE = """
import threading

kept, outcomes = [], []

def write_late():
    outcomes.clear()
    for write in kept:
        try:
            write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nevil")
            outcomes.append("written")
        except Exception as error:
            outcomes.append(type(error).__name__)
    kept.clear()

def application(environ, start_response):
    path, _, size = environ["PATH_INFO"][1:].partition("/")
    if path == "late":
        thread = threading.Thread(target=write_late)
        thread.start()
        thread.join()
        start_response("200 OK", [])
        return [" ".join(outcomes).encode()]
    length = [("Content-Length", size)] if path == "length" else []
    kept.append(start_response("200 OK", length))
    return iter([b"x" * int(size)])
"""


@pytest.mark.parametrize("how", ["length", "chunks"])
@pytest.mark.parametrize("size", [5, 16 << 20], ids=["sent", "waiting for its client"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_write_after_the_response(tmp_path: Path, how: str, size: int, method: str) -> None:
    """It sends nothing, and above all nothing that the client would take for its next response."""
    with serving(tmp_path, KEEPS_WRITE) as site, site.connect(receive_buffer_bytes=4096) as client:
        for _ in range(2):
            client.send(get(f"/{how}/{size}", method=method))
            assert client.peek()
            assert site.ask(get("/late")).body == b"Gone"
            assert client.answer(method).body == (b"x" * size if method == "GET" else b"")
        assert client.ask(get("/chunks/3")).body == b"xxx"


# --- where the application is ----------------------------------------------------------------------------

WHERE = """
import os, sys

def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{__name__} {os.getcwd()}".encode()]

def other(environ, start_response):
    start_response("200 OK", [])
    return [b"other"]

"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a WSGI file, a package, and a virtual environment with a module."""
    (tmp_path / "here" / "package").mkdir(parents=True)
    (tmp_path / "here" / "app.py").write_text(WHERE)
    (tmp_path / "here" / "app.wsgi").write_text(WHERE)
    (tmp_path / "here" / "package" / "__init__.py").write_text("")
    (tmp_path / "here" / "package" / "web.py").write_text(WHERE)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = tmp_path / "venv" / "lib" / version / "site-packages"
    libraries.mkdir(parents=True)
    (libraries / "inside.py").write_text(WHERE)
    (libraries / "more.pth").write_text(str(tmp_path / "here") + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--wsgi-file", "here/app.py"], "uwsgi_tls_wsgi_file {tree}"),
        (["--wsgi-file", "{tree}/here/app.wsgi"], "uwsgi_tls_wsgi_file {tree}"),
        (["--chdir", "here", "--wsgi-file", "app.py"], "uwsgi_tls_wsgi_file {tree}/here"),
        (["--wsgi-file", "here/app.py", "--callable", "other"], "other"),
        (["--chdir", "here", "-w", "package.web"], "package.web {tree}/here"),
        (["--chdir", "here", "--module", "package.web:other"], "other"),
        (["--pythonpath", "here", "--module", "package.web"], "package.web {tree}"),
        (["--pp", "nowhere", "--pp", "{tree}/here", "--module", "package.web"], "package.web {tree}"),
        (["-H", "venv", "--module", "package.web:other"], "other"),  # through the .pth
        (["--chdir", "here", "--virtualenv", "../venv", "--module", "inside"], "inside {tree}/here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_application_is_found(tree: Path, options: list[str], expected: str) -> None:
    with serving(tree, "", *[option.format(tree=tree) for option in options]) as site:
        assert site.ask(get("/")).text == expected.format(tree=tree)


BROKEN = {
    "raises.py": "first = 1\nraise RuntimeError('broken on purpose')\n",
    "syntax.py": "def application(:\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "imports.py": "import no_such_module_anywhere\n",
    "nothing.py": "other = 1\n",
    "number.py": "application = 1\n",
}


@pytest.mark.parametrize(
    ("options", "line", "traceback"),
    [
        (["--wsgi-file", "raises.py"], "RuntimeError: broken on purpose", "raises.py"),
        (["--wsgi-file", "raises.py", "--processes", "3"], "RuntimeError: broken on purpose", "raises.py"),
        (["--wsgi-file", "syntax.py"], "SyntaxError: ", "syntax.py"),
        (["--wsgi-file", "exits.py"], "SystemExit: 0", "exits.py"),
        (["--wsgi-file", "imports.py"], "ModuleNotFoundError: No module named 'no_such_module_anywhere'", "imports.py"),
        (["--module", "raises"], "RuntimeError: broken on purpose", "raises.py"),
        (["--module", "no_such_module_either"], "there is no module no_such_module_either in ['", ""),
        (["--wsgi-file", "nothing.py"], "nothing.py has no callable application", ""),
        (["--wsgi-file", "number.py"], "number.py has no callable application", ""),
        (["--wsgi-file", "nothing.py", "--callable", "a.b"], "nothing.py has no callable a.b", ""),
        (["--module", "nothing:missing"], "nothing:missing has no callable missing", ""),
        (["--virtualenv", ".", "--module", "nothing:other"], "has no ", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_application_that_cannot_be_loaded(tmp_path: Path, options: list[str], line: str, traceback: str) -> None:
    """One line says what is wrong, above it the application's own traceback, and nothing is left."""
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    server = pki().server_ec
    listener = f"{loopback()}:{PORT},{server.crt},{server.key_file}"
    with uwsgi_tls("--https", listener, *options, cwd=tmp_path) as daemon:
        assert daemon.wait() == EXIT_NO_APPLICATION
        assert not daemon.tree()
    found = [text for text in daemon.lines if "unable to load the application: " in text]
    assert 1 <= len(found) <= 3
    assert all(line in text for text in found)
    assert ("Traceback" in daemon.log) == bool(traceback), daemon.log
    if traceback:
        assert f'{traceback}", line' in daemon.log


@pytest.mark.parametrize(("name", "traceback"), [("raises.py", True), ("exits.py", True), ("nothing.py", False)])
def test_without_need_app(tmp_path: Path, name: str, traceback: bool) -> None:
    """It serves errors then, as uWSGI does, and says why."""
    (tmp_path / name).write_text(BROKEN[name])
    with serving(tmp_path, "", "--wsgi-file", name, "--need-app=false") as site:
        assert site.ask(get("/")).status == 500
        site.daemon.wait_for_line("no application, every request gets a 500: ")
        assert ("Traceback" in site.daemon.log) == traceback


def test_wsgi_file_is_not_run_twice(tmp_path: Path) -> None:
    """Its workers have it, the master does not: an application's code never runs where a reload could not renew it."""
    (tmp_path / "app.py").write_text("import os\nprint(f'loaded by {os.getpid()}', flush=True)\n" + WHERE)
    with serving(tmp_path, "", "--wsgi-file", "app.py") as site:
        loaded = [line for line in site.daemon.lines if line.startswith("loaded by")]
        assert loaded == [f"loaded by {site.worker.pid}"]
