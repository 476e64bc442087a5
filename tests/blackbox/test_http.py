"""HTTP/1.1 over real TLS against the real process: what goes over the wire, in order, to the byte (RFC 9112)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import h11
import pytest
from pki import pki

from .raw_client import DESCRIPTORS, PORT, READ_BYTES, Client, Site, chunked, get, post, serving
from .server import Daemon, command, curl, loopback, wait_until

MIB = 1 << 20
GIB = 1 << 30
BIG_BYTES = 50 * MIB
WORKER_GROWTH_BYTES = 32 * MIB
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

APPLICATION = r"""
import hashlib, json, os

BLOCK = 65536

def numbered(total):
    '''Blocks that differ, so that a lost, doubled or misplaced one shows.'''
    for at in range(0, total, BLOCK):
        yield at.to_bytes(8, "big") * (BLOCK // 8)

def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    names = ["REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "CONTENT_LENGTH", "HTTP_X_LONG"]
    seen = {name: environ[name] for name in names if name in environ}
    return [json.dumps({**seen, "body": body.decode("latin-1")}).encode()]

def digest(environ, start_response):
    sha, total = hashlib.sha256(), 0
    while block := environ["wsgi.input"].read(1 << 20):
        sha.update(block)
        total += len(block)
    start_response("200 OK", [])
    return [f"{total} {sha.hexdigest()}".encode()]

def empty(environ, start_response):
    start_response(environ["QUERY_STRING"] + " Without Body", [])
    return [b"this must not be sent"]

def blocks(environ, start_response):
    start_response("200 OK", [])
    return (b"block %d," % number for number in range(int(environ["QUERY_STRING"])))

def stream(environ, start_response):
    '''Says something, and the rest when somebody has written to the FIFO.'''
    start_response("200 OK", [])
    yield b"first"
    with open(environ["QUERY_STRING"]) as fifo:
        fifo.read()
    yield b"second"

def big(environ, start_response):
    kind, total = environ["QUERY_STRING"].split("=")
    total = int(total)
    if kind == "list":
        start_response("200 OK", [])
        return [b"".join(numbered(total))]
    if kind == "generator":
        start_response("200 OK", [])
        return numbered(total)
    if kind == "write":
        write = start_response("200 OK", [("Content-Length", str(total))])
        for block in numbered(total):
            write(block)
        return []
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(kind, "rb"))

DESCRIPTORS

class Patient:
    '''All of a response at once, and then a while before it is over.'''
    def __init__(self, fifo):
        self.fifo = fifo
    def __iter__(self):
        yield bytes(50 << 20)
        with open(self.fifo) as fifo:
            fifo.read()

def patient(environ, start_response):
    start_response("200 OK", [("Content-Length", str(50 << 20))])
    return Patient(environ["QUERY_STRING"])

ROUTES = {f"/{route.__name__}": route for route in (echo, digest, empty, blocks, stream, big, patient, descriptors)}

def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
""".replace("DESCRIPTORS", DESCRIPTORS)


def numbered(total: int) -> bytes:
    """What the application's function of this name makes, at once."""
    return b"".join(at.to_bytes(8, "big") * 8192 for at in range(0, total, 65536))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for most tests here. It must come through all with its worker, its threads, and no traceback."""
    with serving(tmp_path_factory.mktemp("http"), APPLICATION, "--threads", "2") as site:
        worker, threads = site.worker.pid, site.worker.status()["Threads"]
        yield site
        assert (site.worker.pid, site.worker.status()["Threads"]) == (worker, threads)
        assert "Traceback" not in site.daemon.log
        assert "defect" not in site.daemon.log


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def is_read(fifo: Path) -> bool:
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:  # fifo(7)
            raise
        return False
    return True


def wait_for_reader(fifo: Path) -> int:
    """Wait until the application has come to the FIFO; closing the descriptor that is returned lets it go on."""
    found: list[int] = []

    def there() -> bool:
        with contextlib.suppress(OSError):
            found.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))  # ENXIO: nobody reads, fifo(7)
        return bool(found)

    wait_until(there, 10.0, lambda: "the application did not come to its FIFO")
    return found[0]


# --- one connection, many requests ----------------------------------------------------------------------


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_keep_alive(site: Site, newest: ssl.TLSVersion) -> None:
    with site.connect(newest=newest) as client:
        assert client.tls.version() == newest.name.replace("_", ".")
        for number in (1, 2):
            answer = client.ask(get(f"/echo?{number}"))
            assert answer.status == 200
            assert json.loads(answer.body)["QUERY_STRING"] == str(number)
            assert "connection" not in answer.headers


def test_connection_close(site: Site) -> None:
    with site.connect() as client:
        answer = client.ask(get("/echo", "Connection: close"))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        client.assert_ended()


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20], ids=lambda size: f"pieces of {size}")
def test_pipeline_of_50_in_order(site: Site, size: int) -> None:
    """With and without bodies, of all three framings, and requests split wherever a piece ends."""
    requests = []
    for number in range(50):
        body = f"body {number} ".encode() * number
        kinds = [get(f"/echo?{number}"), post(f"/echo?{number}", body), chunked(f"/echo?{number}", body, 13)]
        requests.append((kinds[number % 3], body if number % 3 else b""))
    with site.connect() as client:
        client.send_pieces(b"".join(request for request, _ in requests), size)
        for number, (_, body) in enumerate(requests):
            seen = json.loads(client.answer().body)
            assert seen["QUERY_STRING"] == str(number)
            assert seen["body"] == body.decode()
        assert client.ask(get("/echo?last")).status == 200


def test_pipelined_requests_after_the_last_are_not_answered(site: Site) -> None:
    """RFC 9112, 9.6: a server that said close must not process what follows."""
    with site.connect() as client:
        client.send(get("/echo?1") + get("/echo?2", "Connection: close") + get("/echo?never"))
        assert [json.loads(client.answer().body)["QUERY_STRING"] for _ in range(2)] == ["1", "2"]
        client.assert_ended()
    assert "never" not in site.daemon.log


def test_head_has_the_fields_of_get_and_no_body(site: Site) -> None:
    with site.connect() as client:
        client.send(get("/echo", method="HEAD") + get("/blocks?9", method="HEAD") + get("/echo"))
        first, second, third = client.answer("HEAD"), client.answer("HEAD"), client.answer()
    assert (first.status, first.body, second.status, second.body) == (200, b"", 200, b"")
    # "HEAD" in the echo is one letter longer than "GET"
    assert int(first.headers["content-length"]) == len(third.body) + 1
    assert "content-length" not in second.headers


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(site: Site, status: int) -> None:
    with site.connect() as client:
        answer = client.ask(get(f"/empty?{status}"))
        assert (answer.status, answer.body) == (status, b"")
        assert "transfer-encoding" not in answer.headers
        if status == 204:
            assert "content-length" not in answer.headers  # RFC 9110, 8.6
        assert client.ask(get("/echo")).status == 200


def test_an_empty_line_before_a_request(site: Site) -> None:
    """RFC 9112, 2.2: some old clients send one after a body."""
    with site.connect() as client:
        client.send(post("/echo?1", b"body") + b"\r\n" + get("/echo?2"))
        assert [json.loads(client.answer().body)["QUERY_STRING"] for _ in range(2)] == ["1", "2"]


def test_date(site: Site) -> None:
    """RFC 9110, 6.6.1: an origin server with a clock sends one."""
    date = parsedate_to_datetime(site.ask(get("/echo")).headers["date"])
    assert abs(date.timestamp() - time.time()) < 5


@pytest.mark.parametrize("path", ["/echo", f"/big?list={BIG_BYTES}", f"/big?generator={BIG_BYTES}"])
def test_a_client_that_says_it_sends_no_more_is_answered(site: Site, path: str) -> None:
    """It may close its half of the TCP connection and wait (RFC 9112, 9.6)."""
    with site.connect() as client:
        client.send(get(path))
        socket.socket.shutdown(client.tls, socket.SHUT_WR)  # the SSLSocket's own would forget that there is TLS
        received = [0]
        answer = client.answer(sink=lambda block: received.append(len(block)))
        assert answer.status == 200
        assert path == "/echo" or sum(received) == BIG_BYTES


# --- HTTP/1.0 -------------------------------------------------------------------------------------------


def test_http10_closes(site: Site) -> None:
    with site.connect() as client:
        answer = client.ask(get("/echo", version="1.0"))
        assert json.loads(answer.body)["SERVER_PROTOCOL"] == "HTTP/1.0"
        client.assert_ended()


def test_http10_without_a_host(site: Site) -> None:
    with site.connect() as client:
        assert client.ask(b"GET /echo HTTP/1.0\r\n\r\n").status == 200
        client.assert_ended()


def test_http10_keep_alive_on_request(site: Site) -> None:
    with site.connect() as client:
        for number in (1, 2):
            answer = client.ask(get(f"/echo?{number}", "Connection: keep-alive", version="1.0"))
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")


def test_http10_body_of_unknown_length_ends_with_the_connection(site: Site) -> None:
    """It knows no chunks, whatever it asks for."""
    with site.connect() as client:
        answer = client.ask(get("/blocks?3", "Connection: keep-alive", version="1.0"))
        assert answer.body == b"block 0,block 1,block 2,"
        assert not {"transfer-encoding", "content-length"} & answer.headers.keys()
        client.assert_ended()


# --- request bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 1000, 1 << 16])
@pytest.mark.parametrize("piece", [1, 1 << 20], ids=["byte by byte", "at once"])
def test_chunked_request(site: Site, size: int, piece: int) -> None:
    body = bytes(range(256)) * 3
    with site.connect() as client:
        client.send_pieces(chunked("/echo", body, size), piece)
        seen = json.loads(client.answer().body)
    assert seen["body"].encode("latin-1") == body
    assert seen["CONTENT_LENGTH"] == str(len(body))


def test_chunk_extensions_and_trailers_are_dropped(site: Site) -> None:
    coded = b"5;name=value\r\nhello\r\n0\r\nX-Long: trailer\r\nContent-Length: 9\r\n\r\n"
    with site.connect() as client:
        seen = json.loads(client.ask(get("/echo", "Transfer-Encoding: chunked", method="POST") + coded).body)
        assert seen["body"] == "hello"
        assert "HTTP_X_LONG" not in seen
        assert client.ask(get("/echo")).status == 200


def test_request_byte_by_byte(site: Site) -> None:
    with site.connect() as client:
        client.send_pieces(post("/echo?slow", b"and steady"), 1)
        assert json.loads(client.answer().body)["body"] == "and steady"


def test_continue_is_sent_when_the_body_is_wanted(site: Site) -> None:
    with site.connect() as client:
        client.send(get("/echo", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert client.tls.recv(READ_BYTES) == CONTINUE
        client.send(b"hello")
        answer = client.answer()
        assert (json.loads(answer.body)["body"], answer.interim) == ("hello", ())


def test_continue_for_a_chunked_body(site: Site) -> None:
    with site.connect() as client:
        client.send(get("/echo", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST"))
        assert client.tls.recv(READ_BYTES) == CONTINUE
        client.send(b"5\r\nhello\r\n0\r\n\r\n")
        assert json.loads(client.answer().body)["body"] == "hello"


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/echo", b"hello", "Expect: 100-continue"),  # the body is there already
        get("/echo", "Content-Length: 0", "Expect: 100-continue", method="POST"),
        get("/echo", "Expect: 100-continue"),
        post("/echo", b"hello", "Expect: 100-continue", version="1.0"),  # RFC 9110, 10.1.1
    ],
    ids=["body came along", "empty body", "no body", "HTTP/1.0"],
)
def test_no_continue(site: Site, request_bytes: bytes) -> None:
    with site.connect() as client:
        answer = client.ask(request_bytes)
        assert (answer.status, answer.interim) == (200, ())


def test_no_continue_when_the_body_has_begun(site: Site) -> None:
    """The client has not waited, so it needs no leave (RFC 9110, 10.1.1)."""
    request = post("/echo", b"hello", "Expect: 100-continue")
    with site.connect() as client:
        client.send_pieces(request, len(request) - 3)
        answer = client.answer()
        assert (json.loads(answer.body)["body"], answer.interim) == ("hello", ())


def test_no_continue_before_the_answer_to_the_request_before(site: Site, fifo: Path) -> None:
    """The 100 must stand after the response that is still on its way, or a client takes it for that one's."""
    with site.connect() as client:
        second = get("/echo", "Content-Length: 5", "Expect: 100-continue", method="POST")
        client.send(get(f"/stream?{fifo}") + second)
        os.close(wait_for_reader(fifo))
        assert client.answer().body == b"firstsecond"
        client.send(b"hello")
        answer = client.answer()
        assert (json.loads(answer.body)["body"], answer.interim) == ("hello", (100,))


def test_a_body_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with serving(tmp_path, APPLICATION, "--limit-post", "1000") as site:
        with site.connect() as client:
            answer = client.ask(get("/echo", "Content-Length: 1001", "Expect: 100-continue", method="POST"))
            assert (answer.status, answer.interim) == (413, ())
            client.assert_ended()
        with site.connect() as client:  # of chunks it is known only later; what the client still sends is read
            client.send(chunked("/echo", bytes(200_000), 300))
            assert client.answer().status == 413
            client.assert_ended()
        assert site.ask(post("/digest", bytes(1000))).text.startswith("1000 ")


def test_a_gigabyte_up(site: Site) -> None:
    """It waits on the disk, not in memory, and comes out as it went in."""
    block = numbered(MIB)
    digest = hashlib.sha256()
    before = site.peak_bytes()
    with site.connect() as client:
        client.send(get("/digest", f"Content-Length: {GIB}", method="POST"))
        for number in range(GIB // MIB):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            client.send(piece)
        assert client.answer().text == f"{GIB} {digest.hexdigest()}"
    assert site.peak_bytes() - before < WORKER_GROWTH_BYTES


def test_a_gigabyte_down(site: Site, tmp_path: Path) -> None:
    """Through wsgi.file_wrapper; the file is sparse, with marks."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for at in range(0, GIB, 128 * MIB):
            file.seek(at + at // 77)
            file.write(b"mark %d" % at)
        file.truncate(GIB)
    received = hashlib.sha256()
    before = site.peak_bytes()
    with site.connect() as client:
        client.send(get(f"/big?{path}=0"))
        answer = client.answer(sink=received.update)
    assert answer.headers["content-length"] == str(GIB)
    assert site.peak_bytes() - before < WORKER_GROWTH_BYTES
    with path.open("rb") as file:
        assert received.digest() == hashlib.file_digest(file, "sha256").digest()


# --- responses ------------------------------------------------------------------------------------------


def test_chunked_response(site: Site) -> None:
    with site.connect() as client:
        answer = client.ask(get("/blocks?1000"))
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body == b"".join(b"block %d," % number for number in range(1000))
        assert client.ask(get("/blocks?0")).body == b""


def test_a_block_is_sent_before_the_next_is_made(site: Site, fifo: Path) -> None:
    """PEP 3333, "Buffering and Streaming": a server does not delay a block."""
    with site.connect() as client:
        client.send(get(f"/stream?{fifo}"))
        go_on = wait_for_reader(fifo)
        seen = b""
        while b"first" not in seen:
            seen += client.tls.recv(READ_BYTES)
        os.close(go_on)
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen += client.tls.recv(READ_BYTES)
        assert b"second" in seen


@pytest.mark.parametrize(
    ("kind", "newest"),
    [
        ("list", ssl.TLSVersion.TLSv1_3),
        ("generator", ssl.TLSVersion.TLSv1_2),
        ("write", ssl.TLSVersion.TLSv1_3),
        ("file", ssl.TLSVersion.TLSv1_2),
        ("file", ssl.TLSVersion.TLSv1_3),
    ],
)
def test_a_slow_reader_gets_every_byte(site: Site, tmp_path: Path, kind: str, newest: ssl.TLSVersion) -> None:
    """It reads nothing until the application has long gone; meanwhile one spool or file waits, no thread."""
    expected = numbered(BIG_BYTES)
    name = kind
    if kind == "file":
        (tmp_path / "big").write_bytes(expected)
        name = str(tmp_path / "big")
    with site.connect(receive_buffer_bytes=4096, newest=newest) as client:
        client.send(get(f"/big?{name}={BIG_BYTES}") + get("/echo?after"))
        client.peek()
        # Both application threads are free: these two would wait for ever if one were still held.
        for _ in range(2):
            assert site.ask(get("/echo")).status == 200
        client.tls.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        parts: list[bytes] = []
        answer = client.answer(sink=parts.append)
        assert answer.status == 200
        assert b"".join(parts) == expected
        assert json.loads(client.answer().body)["QUERY_STRING"] == "after"


# --- refusals -------------------------------------------------------------------------------------------

SMUGGLED = get("/echo?smuggled")
HOST = "Host: server.lab"
REFUSED: list[tuple[str, list[str], int]] = [
    ("head over buffer-size", ["GET /echo HTTP/1.1", HOST, "X-Long: " + "x" * 32768], 431),
    ("many fields over buffer-size", ["GET /echo HTTP/1.1", HOST, *[f"X-{n}: {'x' * 400}" for n in range(90)]], 431),
    ("target over buffer-size", ["GET /" + "x" * 32768 + " HTTP/1.1", HOST], 414),
    ("101 fields", ["GET /echo HTTP/1.1", HOST, *[f"X-{n}: x" for n in range(100)]], 431),
    ("body over limit-post", ["POST /echo HTTP/1.1", HOST, "Content-Length: 1073741825"], 413),
]


@pytest.mark.parametrize(("lines", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_the_limits_without_an_option(site: Site, lines: list[str], status: int) -> None:
    """One well-formed answer, then the end; what came after it is not looked at. test_http_table.py has the rest."""
    with site.connect() as client:
        client.send("\r\n".join([*lines, "", ""]).encode() + SMUGGLED)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        client.assert_ended()
    assert "smuggled" not in site.daemon.log


def test_a_bad_request_after_good_ones(site: Site) -> None:
    with site.connect() as client:
        client.send(get("/echo?1") + post("/echo?2", b"x") + b"GET\x00" + SMUGGLED)
        assert [client.answer().status for _ in range(3)] == [200, 200, 400]
        client.assert_ended()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PURGE", "M-SEARCH", "!#$%&'*+.^_`|~"])
def test_any_token_is_a_method(site: Site, method: str) -> None:
    answer = site.ask(get("/echo", method=method))
    assert answer.status == 200
    if method != "HEAD":
        assert json.loads(answer.body)["REQUEST_METHOD"] == method


def test_a_refusal_survives_what_the_client_still_sends(site: Site) -> None:
    """A close with unread bytes would make the kernel reset the connection and destroy the answer (RFC 9112, 9.6)."""
    with site.connect() as client:
        client.send(get("/echo", "Content-Length: 9999999999", method="POST"))
        for _ in range(50):
            client.send(bytes(20_000))
        assert client.answer().status == 413


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    """The request is refused, or its response cut, and the server goes on. RLIMIT_FSIZE stands for a full disk."""
    (tmp_path / "app.py").write_text(APPLICATION)
    host, server = loopback(), pki().server_ec
    listener = f"{host}:{PORT},{server.crt},{server.key_file}"
    full = ["prlimit", "--fsize=200000", *command("--https", listener, "--wsgi-file", "app.py")]
    with Daemon(full, cwd=tmp_path) as daemon:
        daemon.wait_for_workers(1)
        site = Site(daemon, (host, PORT))
        base = site.descriptors()
        for request in (post("/digest", bytes(300_000)), chunked("/digest", bytes(300_000), 5000)):
            with site.connect() as client:
                client.send(request)
                answer = client.answer()
                assert (answer.status, answer.headers["connection"]) == (503, "close")
                client.assert_ended()
        daemon.wait_for_line("503: its body cannot be stored: File too large")
        for kind in ("list", "generator", "write"):
            with site.connect(receive_buffer_bytes=4096) as client:
                client.send(get(f"/big?{kind}={BIG_BYTES}"))
                client.peek()
                assert site.ask(post("/digest", bytes(100_000))).status == 200
                assert not client.ends_cleanly()
        daemon.wait_for_line("could not be stored: .*File too large")
        site.wait_for_descriptors(base)
        assert "Traceback" not in daemon.log
        assert "defect" not in daemon.log


@pytest.mark.parametrize("extra", [b"\r\n", bytes(100_000)], ids=["an empty line", "much"])
def test_a_last_response_survives_what_the_client_still_sends(site: Site, extra: bytes) -> None:
    """As above, after a response that takes a while to be read; old browsers send an empty line after every body."""
    with site.connect(receive_buffer_bytes=4096) as client:
        client.send(post(f"/big?list={MIB}", b"body", "Connection: close"))
        client.peek()
        with contextlib.suppress(ssl.SSLError, OSError):  # the answer is what counts
            client.send(extra)
        assert client.answer().body == numbered(MIB)
        client.assert_ended()


# --- what is not TLS ------------------------------------------------------------------------------------


def test_plain_http_on_the_tls_port(site: Site) -> None:
    host, port = site.address
    answer = curl(f"http://server.lab:{port}/", "--include", host=host)
    assert answer.returncode == 0, answer.stderr
    judge = h11.Connection(h11.CLIENT)
    with socket.create_connection(site.address, timeout=10) as plain:
        plain.sendall(judge.send(h11.Request(method="GET", target="/", headers=[("Host", "x")])) or b"")
        judge.send(h11.EndOfMessage())
        while data := plain.recv(READ_BYTES):
            judge.receive_data(data)
        judge.receive_data(b"")
    response, body, end = judge.next_event(), judge.next_event(), judge.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == 400
    assert isinstance(body, h11.Data)
    assert b"use TLS" in bytes(body.data)
    assert isinstance(end, h11.EndOfMessage)
    assert "use TLS" in answer.stdout


@pytest.mark.parametrize("junk", [b"\0" * 100, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x80\x2e\x01\x03\x01", b"\xff" * 70_000])
def test_junk_is_closed_without_an_answer(site: Site, junk: bytes) -> None:
    plain = socket.create_connection(site.address, timeout=10)
    with plain, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        plain.sendall(junk)
        assert plain.recv(READ_BYTES) == b""
    assert site.ask(get("/echo")).status == 200


# --- deadlines ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with deadlines of one second; an idle connection has two, as 1 means no more than "on" there."""
    names = ["https-handshake-timeout", "http-headers-timeout", "http-body-timeout", "http-write-timeout"]
    options = [word for name in names for word in (f"--{name}", "1")]
    with serving(tmp_path_factory.mktemp("hasty"), APPLICATION, *options, "--http-keepalive=2") as site:
        yield site


def test_half_a_head_gets_408(hasty: Site) -> None:
    with hasty.connect() as client:
        client.send(get("/echo")[:-3])
        assert client.answer().status == 408
        client.assert_ended()


def test_a_dribbled_head_gets_408(hasty: Site) -> None:
    """The deadline is for the whole head: bytes that keep coming do not put it off."""
    start = time.monotonic()
    with hasty.connect() as client:
        client.tls.settimeout(0.1)
        for byte in get("/echo", "X-Long: " + "x" * 1000):
            client.send(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                client.peek()
                break
        client.tls.settimeout(10)
        assert client.answer().status == 408
    assert time.monotonic() - start < 5


def test_half_a_body_gets_408(hasty: Site) -> None:
    with hasty.connect() as client:
        client.send(post("/echo", b"hello")[:-1])
        assert client.answer("POST").status == 408
        client.assert_ended()


def test_the_body_has_a_deadline_for_each_piece(hasty: Site) -> None:
    """A slow uplink is no fault as long as something comes, and enough of it (http-body-min-rate)."""
    piece = b"hello" * 30
    request = post("/echo", piece * 5)
    with hasty.connect() as client:
        client.send(request[: -5 * len(piece)])
        for _ in range(5):
            client.tls.settimeout(0.4)
            with pytest.raises(TimeoutError):
                client.tls.recv(1)
            client.send(piece)
        client.tls.settimeout(10)
        assert json.loads(client.answer().body)["body"] == "hello" * 150


@pytest.mark.parametrize("before", [0, 1], ids=["before a request", "after a request"])
def test_an_idle_connection_is_closed_politely(hasty: Site, before: int) -> None:
    """RFC 9112, 9.8: with close_notify, and without an answer to a request that nobody sent."""
    with hasty.connect() as client:
        for _ in range(before):
            assert client.ask(get("/echo")).status == 200
        client.assert_ended()


def test_a_client_that_does_not_read_is_left(hasty: Site) -> None:
    base = hasty.descriptors()
    with hasty.connect(receive_buffer_bytes=4096) as client:
        client.send(get(f"/big?generator={BIG_BYTES}"))
        client.tls.recv(1)
        hasty.wait_for_descriptors(base)
        assert not client.ends_cleanly()


def test_a_silent_handshake_is_ended(hasty: Site) -> None:
    with socket.create_connection(hasty.address, timeout=10) as silent, contextlib.suppress(ConnectionResetError):
        assert silent.recv(1) == b""


@pytest.mark.parametrize("value", ["0", "false"])
def test_without_keep_alive(tmp_path: Path, value: str) -> None:
    with serving(tmp_path, APPLICATION, f"--http-keepalive={value}") as site:
        for request in (get("/echo"), get("/echo", "Connection: keep-alive", version="1.0")):
            with site.connect() as client:
                answer = client.ask(request + get("/echo?never"))
                assert answer.status == 200
                assert answer.headers.get("connection", "close") == "close"
                client.assert_ended()


# --- clients that leave ---------------------------------------------------------------------------------

HELLO_HEAD = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # of a ClientHello of 512 bytes


def leave_in_hello(site: Site) -> None:
    with socket.create_connection(site.address, timeout=10) as client:
        client.sendall(HELLO_HEAD)


def leave_in_handshake(site: Site) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="server.lab")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection(site.address, timeout=10) as client:
        client.sendall(outgoing.read())
        assert client.recv(1)


def leaving(send: bytes, *, read: int = 0, reset: bool = False) -> Callable[[Site], None]:
    def leave(site: Site) -> None:
        with site.connect(receive_buffer_bytes=4096) as client:
            client.send(send)
            if read:
                client.tls.recv(read)
            if reset:
                client.reset()

    return leave


LEAVING = {
    "in the ClientHello": leave_in_hello,
    "in the handshake": leave_in_handshake,
    **{
        f"{name}{', with a reset' if reset else ''}": leaving(send, read=read, reset=reset)
        for reset in (False, True)
        for name, send, read in [
            ("after the handshake", b"", 0),
            ("in the head", get("/echo")[:-3], 0),
            ("in the body", post("/echo", bytes(1000))[:-3], 0),
            ("in a body on the disk", post("/echo", bytes(300_000))[:-3], 0),
            ("in a chunk", chunked("/echo", bytes(1000), 100)[:-50], 0),
            ("before the answer", get(f"/big?list={MIB}"), 0),
            ("in a list", get(f"/big?list={BIG_BYTES}"), 1),
            ("in a generator", get(f"/big?generator={BIG_BYTES}"), 1),
            ("in write()", get(f"/big?write={BIG_BYTES}"), 1),
            ("in a pipeline", (get("/echo") + post("/echo", b"x")) * 200, 1),
        ]
    },
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
def test_a_client_that_leaves_costs_nothing(site: Site, leave: Callable[[Site], None]) -> None:
    """No descriptor, no thread, no traceback, and the worker goes on."""
    base = site.descriptors()
    for _ in range(5):
        leave(site)
    for _ in range(3):
        assert site.ask(get("/echo")).status == 200
    site.wait_for_descriptors(base)
    assert "Traceback" not in site.daemon.log
    assert "defect" not in site.daemon.log


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_in_a_file(site: Site, tmp_path: Path, reset: bool) -> None:
    (tmp_path / "big").write_bytes(bytes(BIG_BYTES))
    test_a_client_that_leaves_costs_nothing(site, leaving(get(f"/big?{tmp_path / 'big'}=0"), read=1, reset=reset))


def test_an_application_that_outlives_its_client_disturbs_no_other(site: Site, fifo: Path) -> None:
    """The descriptor of the client that left may be another client's by the time that the application has finished."""
    base = site.descriptors()
    with contextlib.ExitStack() as stack:
        with site.connect(receive_buffer_bytes=4096) as client:
            client.send(get(f"/patient?{fifo}"))
            client.tls.recv(1)
            go_on = wait_for_reader(fifo)
            client.reset()
        site.wait_for_descriptors(base + 1)  # the FIFO: the spool and the client's connection are closed
        others: list[Client] = [stack.enter_context(site.connect()) for _ in range(5)]
        for other in others:
            assert other.ask(get("/echo?before")).status == 200
        os.close(go_on)
        wait_until(lambda: not is_read(fifo), 10.0, lambda: "the application does not end")
        for other in others * 2:
            assert other.ask(get("/echo?after")).status == 200
    site.wait_for_descriptors(base)
