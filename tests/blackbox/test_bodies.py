"""Bodies of a gigabyte, to and from an application in the worker and in a real uWSGI, and both ways at once.

They come out as they went in, and wait on the disk, not in memory. No gigabyte is kept by the tests either: blocks
are made, hashed and forgotten. `test_http.py` has the gigabyte to an application in the worker, and from a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import ssl
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest
from pki import pki

from .raw_client import PORT, READ_BYTES, Client, Site, get, post
from .server import USER, is_root, loopback, open_directory, real_uwsgi, uwsgi_tls, wait_until
from .test_http_to import Call, Node

MIB = 1 << 20
GIB = 1 << 30
ECHO_BYTES = 8 * MIB
WORKER_GROWTH_BYTES = 32 * MIB
SECONDS = 30.0

APPLICATION = r"""
import hashlib
from wsgiref.validate import validator

FILL = bytes(range(256)) * 4096

def numbered(total):
    for at in range(0, total, len(FILL)):
        yield at.to_bytes(8, "big") + FILL[8:]

def hash_of(blocks):
    digest, total = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        total += len(block)
    return f"{total} {digest.hexdigest()}"

def blocks(body, left):
    while left and (block := body.read(min(left, 65536))):
        left -= len(block)
        yield block

@validator
def application(environ, start_response):
    path, body, length = environ["PATH_INFO"], environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
    if path == "/up":
        answer = hash_of(blocks(body, length)).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
        return [answer]
    if path == "/echo":
        start_response("200 OK", [("Content-Type", "x/y"), ("Content-Length", str(length))])
        return blocks(body, length)
    start_response("200 OK", [("Content-Type", "x/y")])
    return numbered(int(environ["QUERY_STRING"]))
"""
FILL = bytes(range(256)) * 4096


def numbered(total: int) -> Iterator[bytes]:
    """`total` bytes in blocks that differ, so that a lost, doubled or misplaced one shows."""
    for at in range(0, total, len(FILL)):
        yield at.to_bytes(8, "big") + FILL[8:]


class Tally:
    """The length and hash of blocks that are not kept, in the words of the application's `hash_of`."""

    def __init__(self) -> None:
        self._digest, self._total = hashlib.sha256(), 0

    def add(self, block: bytes) -> None:
        self._digest.update(block)
        self._total += len(block)

    def __str__(self) -> str:
        return f"{self._total} {self._digest.hexdigest()}"


@pytest.fixture(scope="module")
def hash_of_a_gigabyte() -> str:
    tally = Tally()
    for block in numbered(GIB):
        tally.add(block)
    return str(tally)


@contextlib.contextmanager
def before(*backend: str | Path) -> Iterator[Site]:
    """The server with this backend; it must come through with its worker and give the disk back."""
    host, server = loopback(), pki().server_ec
    listener = f"{host}:{PORT},{server.crt},{server.key_file}"
    with uwsgi_tls("--https", listener, *backend, *USER) as daemon:
        daemon.wait_for_workers(1)
        site = Site(daemon, (host, PORT))
        worker = site.worker.pid
        yield site
        assert site.worker.pid == worker
        assert "defect" not in daemon.log
        wait_until(lambda: not files_of(worker), 5.0, lambda: f"{files_of(worker)} are still there")


def files_of(pid: int) -> list[str]:
    """The unlinked files that a process has open. Root alone may look: the worker is not dumpable (proc(5))."""
    if not is_root:
        return []
    folder = f"/proc/{pid}/fd"
    return [name for name in (os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)) if "(deleted)" in name]


@pytest.fixture(scope="module", params=["in the worker", "in uWSGI"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The same application at both places."""
    with open_directory() as place:
        application = place / "app.py"
        application.write_text(APPLICATION)
        if request.param == "in the worker":
            with before("--wsgi-file", application) as site:
                yield site
            return
        place.chmod(0o777)
        with (
            real_uwsgi(application, str(place / "uwsgi.sock"), "--processes", "1"),
            before("--http-to", place / "uwsgi.sock") as site,
        ):
            yield site


@contextlib.contextmanager
def small_growth(site: Site) -> Iterator[None]:
    """The most memory that the worker ever had does not grow by more than it may (proc(5), VmHWM)."""
    site.ask(post("/up", b"warm up"))
    most = site.peak_bytes()
    yield
    growth = site.peak_bytes() - most
    print(f"the worker has grown by {growth >> 10} KiB")
    assert growth < WORKER_GROWTH_BYTES


def test_a_gigabyte_up(site: Site, hash_of_a_gigabyte: str) -> None:
    """In chunks, of which nobody knows the sum before the end. No more than that: limit-post's default."""
    with small_growth(site), site.connect() as client:
        client.send(get("/up", "Transfer-Encoding: chunked", method="POST"))
        for block in numbered(GIB):
            client.send(b"%x\r\n" % len(block))
            client.send(block)
            client.send(b"\r\n")
        client.send(b"0\r\n\r\n")
        assert client.answer().text == hash_of_a_gigabyte


def test_a_gigabyte_down(site: Site, hash_of_a_gigabyte: str) -> None:
    """From a generator, without a length."""
    tally = Tally()
    with small_growth(site), site.connect() as client:
        client.send(get(f"/down?{GIB}"))
        answer = client.answer(sink=tally.add)
        assert answer.headers["transfer-encoding"] == "chunked"
        assert str(tally) == hash_of_a_gigabyte
        assert client.ask(post("/up", b"next")).text.startswith("4 ")


# --- both ways at once --------------------------------------------------------------------------------


def echoes(count: int) -> list[bytes]:
    """Bodies that differ, each of 8 MiB."""
    return [number.to_bytes(8, "big") + b"".join(numbered(ECHO_BYTES))[8:] for number in range(count)]


def talk(client: Client, outgoing: bytes) -> tuple[bytes, int]:
    """Sends, and reads all the while, to the server's end; says how much had come before all was sent."""
    received, early, left = bytearray(), 0, memoryview(outgoing)
    client.tls.setblocking(False)
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := client.tls.recv(READ_BYTES):
                received += data
            return bytes(received), early
        with contextlib.suppress(ssl.SSLWantWriteError):
            while left:
                left = left[client.tls.send(left[:READ_BYTES]) :]
                early = len(received)
                break
        ready = select.select([client.tls], [client.tls] if left else [], [], SECONDS)
        assert any(ready), f"nothing moves: {len(left)} bytes are left to send, {len(received)} have come"


def judge(received: bytes, count: int) -> Iterator[bytes]:
    """The bodies of so many responses, and nothing behind them."""
    for _ in range(count):
        client, body = h11.Connection(h11.CLIENT), bytearray()
        client.send(h11.Request(method="POST", target="/", headers=[("Host", "server.lab")]))
        client.send(h11.EndOfMessage())
        client.receive_data(received)
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Response | h11.Data), event
            if isinstance(event, h11.Data):
                body += event.data
        received = bytes(client.trailing_data[0])
        yield bytes(body)
    assert not received


def assert_echoes(site: Site) -> None:
    bodies = echoes(3)
    requests = [post("/echo", body) for body in bodies[:-1]] + [post("/echo", bodies[-1], "Connection: close")]
    with site.connect() as client:
        received, early = talk(client, b"".join(requests))
    assert early > ECHO_BYTES, "it went one way after the other"
    assert list(judge(received, len(bodies))) == bodies


def test_8_mebibytes_each_way_at_once(site: Site) -> None:
    """The client sends a body while it reads the answer to the last; an application in uWSGI answers as it reads."""
    with small_growth(site):
        assert_echoes(site)


def test_a_node_that_answers_as_it_reads() -> None:
    """It reads no further until we have taken what it says, and we get rid of the body only if it reads."""

    def echo(call: Call) -> None:
        call.sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {call.variables['CONTENT_LENGTH']}\r\n\r\n".encode())
        for block in call.blocks():
            call.sock.sendall(block)

    with open_directory() as place:
        place.chmod(0o777)
        with Node(place / "node.sock", echo) as node, before("--http-to", node.path) as site:
            assert_echoes(site)
