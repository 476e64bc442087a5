"""However the bytes of a request arrive, one by one or with fifty more, a real uWSGI is sent the same ones.

Between our server and uWSGI stands a relay that keeps what passes. Each request is sent in one piece, byte by byte,
and 50 to a pipeline; what uWSGI was sent, and the environment that its application saw, must not differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pki import pki

from .raw_client import PORT, Answer, Site, chunked, get, post
from .server import USER, loopback, open_directory, real_uwsgi, uwsgi_tls, wait_until
from .unix_server import UnixServer

PIPELINE = 50
MEMORY_BYTES = 1000  # of a body; more is a file, so that both ways are gone here

# What the application sees goes into a field of the answer, as that of HEAD has no body. Not among it: the client's
# port, and uWSGI's own objects.
APPLICATION = r"""
import hashlib, json

def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    seen = {name: value for name, value in environ.items() if isinstance(value, (str, bool, tuple))}
    del seen["REMOTE_PORT"]
    answer = json.dumps([seen, body.decode("latin-1")], sort_keys=True).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", [*headers, ("X-Seen", hashlib.sha256(answer).hexdigest())])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer]
"""

# --- the relay ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Passage:
    """One connection to uWSGI: what was sent on it so far."""

    sent: bytearray = field(default_factory=bytearray)

    def whole(self) -> bool:
        """Whether it has the packet, and as much of a body as the packet says (uWSGI's docs/Protocol)."""
        if len(self.sent) < 4:
            return False
        size: int = struct.unpack("<BHB", self.sent[:4])[1]
        length = re.search(rb"\x0e\0CONTENT_LENGTH..(\d+)", bytes(self.sent[: 4 + size]), re.DOTALL)
        return len(self.sent) >= 4 + size + (int(length[1]) if length else 0)


class Relay(UnixServer):
    """A UNIX socket before another: copies what comes, both ways, and keeps what goes to the other, in order."""

    def __init__(self, path: Path, target: Path) -> None:
        super().__init__(path)
        self._target = target
        self.passages: list[Passage] = []

    def serve(self, sock: socket.socket, number: int) -> None:
        passage = Passage()
        self.passages.append(passage)
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.connect(str(self._target))
            upwards = threading.Thread(target=_copy, args=(sock, theirs, passage.sent.extend), daemon=True)
            upwards.start()
            _copy(theirs, sock)
            sock.shutdown(socket.SHUT_RDWR)  # uWSGI ends its answer by closing
            upwards.join()


def _copy(source: socket.socket, sink: socket.socket, keep: Callable[[bytes], object] = lambda data: None) -> None:
    with contextlib.suppress(OSError):  # the other direction has ended the connection
        while data := source.recv(65536):
            keep(data)
            sink.sendall(data)


# --- requests of many kinds -----------------------------------------------------------------------------

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: de,en-US;q=0.7,en;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://server.lab/before?x=1",
    "DNT: 1",
    "Sec-GPC: 1",
    "Connection: keep-alive",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Priority: u=0, i",
    "Cache-Control: max-age=0",
)  # with Host 15
BINARY = bytes(range(256)) * 2
CHUNKS = (
    b'5;name="a \\" b";c\r\n\r\n0\r\n\r\n'  # data that looks like the last chunk
    b"00A;x = y\r\n0123456789\r\n"
    b"600\r\n" + BINARY * 3 + b"\r\n0;last\r\nX-Trailer: dropped\r\nContent-Length: 99\r\n\r\n"
)

REQUESTS: dict[str, tuple[bytes, bytes]] = {  # and the body that arrives
    "browser": (get("/a/page?id=1", *BROWSER), b""),
    "percent-encoding": (get("/a%20b%2Fc/%C3%A9/%e9%7E?x=%20&y=%00&z=%"), b""),
    "no query": (get("/x?"), b""),
    "empty values": (get("/", "X-Empty:", "X-Blank: \t ", "User-Agent:", "Content-Type:"), b""),
    "duplicates": (get("/", "X-Same: 1", "Accept: a/b", "X-Same: 2", "x-same:", "Accept: c/d"), b""),
    "cookies": (get("/", 'Cookie: a=1; b="x y"', "X-Between: 1", "Cookie: c=; a=2"), b""),
    "not ASCII": (get("/", "X-Latin: \xc3\xa9\xff\xa0"), b""),
    "dropped names": (get("/", "X_Under: evil", "X-Under: good", "Keep-Alive: 9", "TE: trailers", "X_Under: e"), b""),
    "absolute form": (get("https://server.lab:8443/there?x=/../y", "X-A: b"), b""),
    "HEAD": (get("/head?x", "If-None-Match: *", method="HEAD"), b""),
    "a method of its own": (get("/p", "Depth: 1", method="PROPFIND"), b""),
    "whole server": (get("*", method="OPTIONS"), b""),
    "small body": (post("/p?q", b"a=1&b=%20", "Content-Type: application/x-www-form-urlencoded"), b"a=1&b=%20"),
    "body in a file": (post("/p", BINARY * 6, "Content-Type: application/octet-stream"), BINARY * 6),
    "no body to speak of": (post("/p", b""), b""),
    "body that looks like a request": (post("/p", get("/evil")), get("/evil")),
    "chunks": (
        get("/p", "Transfer-Encoding: chunked", "Trailer: X-Trailer", "X-B: c", method="PUT") + CHUNKS,
        b"\r\n0\r\n" + b"0123456789" + BINARY * 3,
    ),
    "small chunks": (chunked("/p", b"hello, world", 1), b"hello, world"),
}


# --- what arrives ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chain:
    """Our server, the relay and uWSGI, one behind the other."""

    site: Site
    relay: Relay

    def ask(self, kinds: list[str], piece: int) -> list[Arrival]:
        """Sends these requests on one connection, in pieces of so many bytes; returns what came of each."""
        del self.relay.passages[:]
        sent = b"".join(REQUESTS[kind][0] for kind in kinds)
        with self.site.connect() as client:
            client.send_pieces(sent, piece)
            answers = [client.answer("HEAD" if kind == "HEAD" else "GET") for kind in kinds]
            port = client.tls.getsockname()[1]
        passages = list(self.relay.passages)
        assert len(passages) == len(kinds)
        wait_until(lambda: all(each.whole() for each in passages), 5.0, lambda: f"{passages}")
        return [arrival(bytes(each.sent), port, answer) for each, answer in zip(passages, answers, strict=True)]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of one request: the bytes that uWSGI was sent, and a digest of what its application saw."""

    sent: bytes
    seen: str


def arrival(sent: bytes, port: int, answer: Answer) -> Arrival:
    """With the client's port taken out, which is another for each connection, and always one of five digits."""
    variable = b"\x0b\0REMOTE_PORT\x05\0"
    before, after = sent.split(variable)
    assert after.startswith(b"%d" % port)
    seen = answer.headers["x-seen"]
    if answer.body:
        assert hashlib.sha256(answer.body).hexdigest() == seen
    return Arrival(before + variable + b"....." + after[5:], seen)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    host, server = loopback(), pki().server_ec
    with open_directory() as place:
        place.chmod(0o777)
        (place / "app.py").write_text(APPLICATION)
        options = ("--https", f"{host}:{PORT},{server.crt},{server.key_file}", "--http-to", str(place / "relay.sock"))
        with (
            real_uwsgi(place / "app.py", str(place / "uwsgi.sock"), "--processes", "1"),
            Relay(place / "relay.sock", place / "uwsgi.sock") as relay,
            uwsgi_tls(*options, "--post-buffering", str(MEMORY_BYTES), *USER) as daemon,
        ):
            daemon.wait_for_workers(1)
            yield Chain(Site(daemon, (host, PORT)), relay)
            assert "defect" not in daemon.log


@pytest.fixture(scope="module")
def in_one_piece(chain: Chain) -> dict[str, Arrival]:
    """What came of each request alone, sent at once."""
    return {kind: chain.ask([kind], 1 << 20)[0] for kind in REQUESTS}


@pytest.mark.parametrize("kind", REQUESTS)
def test_what_arrives_is_the_request(in_one_piece: dict[str, Arrival], kind: str) -> None:
    """A whole packet, and behind it the body: nothing less and nothing more."""
    sent, body = in_one_piece[kind].sent, REQUESTS[kind][1]
    _, size, _ = struct.unpack("<BHB", sent[:4])
    assert sent[4 + size :] == body
    if body:
        assert b"\x0e\0CONTENT_LENGTH" + struct.pack("<H", len(str(len(body)))) + b"%d" % len(body) in sent
    assert b"evil" not in sent[: 4 + size]


def test_the_requests_differ(in_one_piece: dict[str, Arrival]) -> None:
    """Or else the tests below would compare nothing."""
    assert len({each.sent for each in in_one_piece.values()}) == len(REQUESTS)
    assert len({each.seen for each in in_one_piece.values()}) == len(REQUESTS)


@pytest.mark.parametrize("piece", [1, 2, 61], ids=["byte by byte", "two bytes a record", "61 bytes a record"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_in_pieces(chain: Chain, in_one_piece: dict[str, Arrival], kind: str, piece: int) -> None:
    assert chain.ask([kind], piece) == [in_one_piece[kind]]


@pytest.mark.parametrize("piece", [1 << 20, 1000, 7], ids=["at once", "1000 bytes a record", "7 bytes a record"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_50_to_a_pipeline(chain: Chain, in_one_piece: dict[str, Arrival], kind: str, piece: int) -> None:
    assert chain.ask([kind] * PIPELINE, piece) == [in_one_piece[kind]] * PIPELINE


@pytest.mark.parametrize("piece", [1 << 20, 1000, 1], ids=["at once", "1000 bytes a record", "byte by byte"])
def test_50_of_all_kinds_to_a_pipeline(chain: Chain, in_one_piece: dict[str, Arrival], piece: int) -> None:
    """Whatever stands before and after a request does not show in it."""
    kinds = [*REQUESTS, *reversed(REQUESTS), *REQUESTS][:PIPELINE]
    assert chain.ask(kinds, piece) == [in_one_piece[kind] for kind in kinds]
