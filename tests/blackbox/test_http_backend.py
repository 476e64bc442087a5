"""http-backend-http: requests through the real server to nodes that speak HTTP/1.1.

A real gunicorn, whose keep-alive is used, and `HttpNode`s, made by hand, which write down every byte and answer with
whatever the test says. What is told to a node is judged by h11.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h11
import pytest
from pki import pki

from .server import Daemon, open_directory, wait_until
from .test_http_to import HASHING, MIB, SECONDS, Answer, Client, Node, dead_tcp_port, front, hash_of, pattern
from .unix_server import UnixServer

HTTP = ("--http-backend-http",)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


@dataclass(frozen=True, slots=True)
class Told:
    """A request as a node gets it, and on which of its connections."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    sock: socket.socket


def say_ok(told: Told) -> None:
    told.sock.sendall(OK)


class HttpNode(UnixServer):
    """An HTTP/1.1 server. `behave` answers a request; False: and ends the connection."""

    def __init__(self, path: Path, behave: Callable[[Told], object] | None = None) -> None:
        super().__init__(path)
        self.told: list[Told] = []
        self.behave: Callable[[Told], object] = behave or say_ok

    def serve(self, sock: socket.socket, number: int) -> None:
        judge = h11.Connection(h11.SERVER)
        while (told := self._read(judge, sock, number)) is not None:
            self.told.append(told)
            if self.behave(told) is False:
                return
            assert judge.trailing_data[0] == b"", "bytes that nobody asked for"
            judge = h11.Connection(h11.SERVER)

    def _read(self, judge: h11.Connection, sock: socket.socket, number: int) -> Told | None:
        request, body = None, []
        while True:
            event = judge.next_event()
            if event is h11.NEED_DATA:
                data = sock.recv(65536)
                if not data and request is None:
                    return None
                judge.receive_data(data)
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            else:
                assert isinstance(event, h11.EndOfMessage), event
                assert request is not None
                headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
                assert len(headers) == len(list(request.headers)), "a name comes twice"
                method, target = request.method.decode(), request.target.decode()
                return Told(number, method, target, headers, b"".join(body), sock)


# --- real gunicorn ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gunicorn() -> Iterator[Path]:
    with open_directory() as place:
        (place / "hashing.py").write_text(HASHING)
        path = place / "node.sock"
        binary = Path(sys.executable).with_name("gunicorn")
        options = ["--bind", f"unix:{path}", "--umask", "0", "--worker-class", "gthread", "--threads", "4"]
        options += ["--keep-alive", "30", "--timeout", "60", "--no-control-socket", "hashing:application"]
        with Daemon([str(binary), *options], cwd=place) as daemon:
            daemon.wait_until_it_listens(str(path))
            yield path


def test_bodies_both_ways(gunicorn: Path) -> None:
    """8 MiB up with a length and in chunks, 8 MiB down with and without a length, on one connection."""
    size, expected = 8 * MIB, hash_of(pattern(8 * MIB))
    with front(gunicorn, options=HTTP) as (_, host), Client(host) as client:
        for headers, coded in ((f"Content-Length: {size}\r\n", False), ("Transfer-Encoding: chunked\r\n", True)):
            client.send("PUT", "/up", headers)
            for block in pattern(size):
                client.sock.sendall(b"%x\r\n%b\r\n" % (len(block), block) if coded else block)
            if coded:
                client.sock.sendall(b"0\r\nTrailer: dropped\r\n\r\n")
            wanted = f'{{"sha256": "{expected}", "size": {size}, "length": "{size}", "coding": null}}'.encode()
            assert client.read_answer().body == wanted
        for headers, framing in (("", "content-length"), ("X-Length: no\r\n", "transfer-encoding")):
            answer = client.get(f"/down?{size}", headers)
            assert framing in answer.headers
            assert hashlib.sha256(answer.body).hexdigest() == expected
        client.send("HEAD", "/down?100")
        answer = client.read_answer("HEAD")
        assert (answer.headers["content-length"], answer.body, answer.stays) == ("100", b"", True)


# --- what a node is told ----------------------------------------------------------------------


def test_what_a_node_is_told(directory: Path) -> None:
    """One Host, one length, who the client is from us alone, and nothing of the client's own connection."""
    options = ("--http-var", "A=b", *HTTP)
    with (
        HttpNode(directory / "n") as node,
        front(node.path, options=options, client_ca=pki().ca.crt) as (server, host),
        Client(host, certificate=pki().client) as client,
    ):
        server.wait_for_line("http-var is of the uwsgi protocol: no effect with http-backend-http", seconds=5)
        client.sock.sendall(
            b"POST http://server.lab:8443/a%2Fb?c=%20 HTTP/1.1\r\nHost: other\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n"
            b"X-Real-IP: 1.1.1.1\r\nClient-Cert: :forged:\r\nX_Real_IP: 1.1.1.1\r\nX-Token: a\r\nX-Token: b\r\n"
            b"Expect: 100-continue\r\nUpgrade: h2c\r\nTE: trailers\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
        )
        answer = client.read_head()
        if answer.status == 100:
            answer = client.read_answer()
        local = client.sock.getsockname()[0]
        (told,) = node.told
        assert (told.method, told.target, told.body) == ("POST", "/a%2Fb?c=%20", b"hello")
        assert told.headers == {
            "host": "server.lab:8443",
            "x-token": "a, b",
            "x-forwarded-for": local,
            "x-forwarded-proto": "https",
            "x-forwarded-host": "server.lab:8443",
            "x-forwarded-port": "8443",
            "x-real-ip": local,
            "via": "1.1 uwsgi-tls",
            "content-length": "5",
            "connection": "close",
            "client-cert": f":{base64.b64encode(pki().client.der).decode()}:",
        }


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("Content-Length: %d\r\nTransfer-Encoding: chunked", id="CL.TE"),
        pytest.param("Transfer-Encoding: chunked\r\nContent-Length: %d", id="TE.CL"),
        pytest.param("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", id="TE.TE"),
        pytest.param("Transfer-Encoding: xchunked", id="TE of another name"),
        pytest.param("Transfer-Encoding : chunked", id="blank before the colon"),
        pytest.param("Transfer_Encoding: chunked", id="underscore"),
        pytest.param("Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding", id="named in Connection"),
        pytest.param("Content-Length: %d\r\nConnection: Content-Length", id="length named in Connection"),
        pytest.param("Content-Length: 0\r\nContent-Length: %d", id="two lengths"),
        pytest.param("Content-Length: 0, %d", id="a list"),
        pytest.param("Content-Length: 0\r\nContent_Length: %d", id="length with an underscore"),
        pytest.param("Content-Length: +0", id="sign"),
        pytest.param("X: y\nContent-Length: %d", id="bare LF"),
        pytest.param("X: y\rContent-Length: %d", id="bare CR"),
        pytest.param("X: y\r\n Content-Length: %d", id="folded"),
        pytest.param("X\0: y", id="NUL"),
    ],
)
def test_nothing_is_smuggled(directory: Path, head: str) -> None:
    """Whatever frames a body in two ways: the node reads no request in it, by h11's reading of the same bytes."""
    body = b"0\r\n\r\n" + SMUGGLED
    fields = head.replace("%d", str(len(body)))
    with HttpNode(directory / "n") as node, front(node.path, options=HTTP) as (_, host):
        with Client(host) as client:
            client.sock.settimeout(1.0)
            client.sock.sendall(f"POST /x HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n".encode() + body)
            with contextlib.suppress(Exception):  # some of it is refused, and some is two requests by every reading
                while True:
                    client.read_answer()
        assert all(told.method == "POST" or told.headers["host"] == "h" for told in node.told)
        judged = requests_by_h11(f"POST /x HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n".encode() + body)
        assert len(node.told) <= judged


def requests_by_h11(data: bytes) -> int:
    """How many requests a strict reader finds in these bytes."""
    count = 0
    while data:
        judge = h11.Connection(h11.SERVER)
        judge.receive_data(data)
        try:
            while not isinstance(event := judge.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return count
        except h11.RemoteProtocolError:
            return count
        count += 1
        data = judge.trailing_data[0]
    return count


# --- kept connections -------------------------------------------------------------------------


def test_one_connection_serves_many_clients(directory: Path) -> None:
    with HttpNode(directory / "n") as node, front(node.path, options=HTTP) as (_, host):
        for _ in range(5):
            with Client(host) as client:
                for _ in range(5):
                    assert client.get().body == b"ok\n"
        assert (len(node.told), node.connections) == (25, 1)


def test_none_is_kept_without_keepalive(directory: Path) -> None:
    options = (*HTTP, "--http-backend-keepalive", "0")
    with HttpNode(directory / "n") as node, front(node.path, options=options) as (_, host), Client(host) as client:
        for _ in range(5):
            assert client.get().body == b"ok\n"
        assert node.connections == 5
        assert {told.headers["connection"] for told in node.told} == {"close"}


def test_answers_that_are_left_over_reach_nobody(directory: Path) -> None:
    """A node that answers twice poisons no other client, whether its second answer comes with the first or later."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    answered, spoken = threading.Event(), threading.Event()

    def behave(told: Told) -> None:
        if told.target == "/twice":
            told.sock.sendall(OK + evil)
            return
        told.sock.sendall(OK)
        if told.target == "/later":
            assert answered.wait(SECONDS)
            told.sock.sendall(evil)
            spoken.set()

    with (
        HttpNode(directory / "n", behave) as node,
        front(node.path, options=HTTP) as (_, host),
        Client(host) as attacker,
        Client(host) as victim,
    ):
        for number in range(10):
            assert attacker.get("/twice").body == b"ok\n"
            assert victim.get(f"/{number}").body == b"ok\n"
            answered.clear()
            spoken.clear()
            assert attacker.get("/later").body == b"ok\n"
            answered.set()
            assert spoken.wait(SECONDS)
            assert victim.get(f"/{number}").body == b"ok\n"
        assert len(node.told) == 40


def test_a_node_that_closes_as_it_is_asked(directory: Path) -> None:
    """The race of keep-alive: no request is lost, and none that may not be is sent twice."""

    def behave(told: Told) -> object:
        first = told.connection not in seen
        seen.add(told.connection)
        if first:
            told.sock.sendall(OK)
        return first  # it has read a second request, and closes without a word

    seen: set[int] = set()
    with HttpNode(directory / "n", behave) as node, front(node.path, options=HTTP) as (_, host), Client(host) as client:
        for number in range(10):
            assert client.get(f"/{number}").body == b"ok\n"
        assert [told.target for told in node.told].count("/5") == 2
        node.told.clear()
        for number in range(10):
            client.send("POST", f"/{number}", body=b"pay")
            assert client.read_answer().body == b"ok\n"
        assert len(node.told) == 10
        assert {told.body for told in node.told} == {b"pay"}


def test_a_node_that_restarts(directory: Path) -> None:
    """Connections to its former self are gone, and nobody is told."""
    with front(directory / "n", options=HTTP) as (_, host), Client(host) as client:
        for _ in range(3):
            with HttpNode(directory / "n") as node:
                assert client.get().body == b"ok\n"
                assert node.connections == 1
                for told in node.told:
                    told.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 502),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 502),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab", 502),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\nContent-Length: 0\r\n\r\n", 502),
        (b"\x15\x03\x01\x00\x02\x02\x16", 502),
        (b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nuntil the end", 200),
    ],
)
def test_other_answers(directory: Path, answer: bytes, expected: int) -> None:
    """The client's connection goes on; the node's does not."""

    def behave(told: Told) -> object:
        told.sock.sendall(OK if told.target == "/good" else answer)
        return told.target == "/good"

    with HttpNode(directory / "n", behave) as node, front(node.path, options=HTTP) as (_, host), Client(host) as client:
        for _ in range(2):
            assert client.get("/bad").status == expected
            assert client.get("/good").body == b"ok\n"
        assert node.connections == 3  # each bad answer took the kept one away


# --- fallback ---------------------------------------------------------------------------------


def ask(client: Client, count: int) -> Sequence[Answer]:
    return [client.get() for _ in range(count)]


@pytest.mark.parametrize("options", [(), HTTP], ids=["uwsgi", "http"])
def test_fallback(directory: Path, options: tuple[str, ...]) -> None:
    """Nobody is told when no node can be reached, neither at first nor while it is passed over; in order; and back."""
    kind: type[HttpNode] | type[Node] = HttpNode if options else Node
    deaf, tcp = dead_tcp_port()
    more = ["--http-fallback", tcp, "--http-fallback", str(directory / "b"), "--http-fallback", str(directory / "c")]
    with (
        deaf,
        kind(directory / "b") as b,
        kind(directory / "c") as c,
        front(directory / "a", options=(*options, *more, "--http-gracetime", "2")) as (server, host),
        Client(host) as client,
    ):
        assert {answer.status for answer in ask(client, 20)} == {200}
        assert (calls(b), calls(c)) == (20, 0)
        assert len(re.findall(r"unable to connect to .*/a: No such file", server.log)) == 1
        assert len(re.findall(rf"unable to connect to {re.escape(tcp)}: Connection refused", server.log)) == 1
        with kind(directory / "a") as a:
            wait_until(lambda: client.get().status == 200 and calls(a) > 0, SECONDS, lambda: server.log)
            before = calls(b)
            assert {answer.status for answer in ask(client, 10)} == {200}
            assert (calls(b), calls(c)) == (before, 0)


def calls(node: Node | HttpNode) -> int:
    return len(node.told if isinstance(node, HttpNode) else node.calls)


def test_no_fallback_once_a_node_has_the_request(directory: Path) -> None:
    options = ("--http-fallback", str(directory / "b"))
    with Node(directory / "a", lambda call: None) as a, Node(directory / "b") as b:
        with front(a, options=options) as (_, host), Client(host) as client:
            client.send("POST", "/", body=b"pay")
            assert client.read_answer().status == 502
        assert (len(a.calls), len(b.calls)) == (1, 0)


def test_nobody_to_fall_back_on(directory: Path) -> None:
    options = ("--http-fallback", str(directory / "b"))
    with front(directory / "a", options=options) as (_, host), Client(host) as client:
        assert [answer.status for answer in ask(client, 3)] == [502] * 3
