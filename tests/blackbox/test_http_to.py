"""http-to: what backends are told, what comes back from them, and what they do wrong, seen from both ends.

Beside the real uWSGI and gunicorn stand `Node`s, backends made by hand, each of which behaves as its test says. What a
node is told is compared with what uWSGI's own router tells it about the same request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import resource
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import pytest
from cryptography.x509.oid import NameOID
from pki import CLIENT, CLIENT_DN, Issued, issue, name, pki

from .server import USER, Daemon, command, loopback, open_directory, real_uwsgi, wait_until
from .unix_server import UnixServer

PORT = 8443
SECONDS = 20.0  # what takes longer hangs
Pairs = list[tuple[str, str]]
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


# --- a backend made by hand -------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    """One request as a backend gets it: modifiers and variables, then the socket on which the body follows."""

    sock: socket.socket
    stream: BinaryIO
    modifiers: tuple[int, int]
    pairs: Pairs  # latin-1, in the order of the packet

    @property
    def variables(self) -> dict[str, str]:
        return dict(self.pairs)

    def blocks(self) -> Iterator[bytes]:
        """The body as CONTENT_LENGTH says, in pieces."""
        left = int(self.variables.get("CONTENT_LENGTH") or 0)
        while left:
            block = self.stream.read(min(left, 1 << 20))
            assert block, "the body ends before CONTENT_LENGTH"
            left -= len(block)
            yield block

    def answer(self, body: bytes = b"ok\n", status: str = "200 OK", headers: str = "") -> None:
        self.sock.sendall(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def wait_for_end(self) -> None:
        """Until the other side has closed the connection."""
        self.sock.settimeout(SECONDS)
        with contextlib.suppress(ConnectionError):
            while self.stream.read(65536):
                pass


def read_call(sock: socket.socket) -> Call:
    stream = sock.makefile("rb")
    modifier1, size, modifier2 = struct.unpack("<BHB", stream.read(4))
    packet, texts, at = stream.read(size), [], 0
    while at < size:
        (length,) = struct.unpack_from("<H", packet, at)
        texts.append(packet[at + 2 : at + 2 + length].decode("latin-1"))
        at += 2 + length
    return Call(sock, stream, (modifier1, modifier2), list(zip(texts[::2], texts[1::2], strict=True)))


class Node(UnixServer):
    """A uwsgi-protocol server; every connection has a thread, which does with its request what `behave` does."""

    def __init__(self, path: Path, behave: Callable[[Call], object] = Call.answer) -> None:
        super().__init__(path)
        self.calls: list[Call] = []
        self.behave = behave

    def serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(struct.error):  # a connection that is looked at only
            call = read_call(sock)
            self.calls.append(call)
            self.behave(call)
            call.stream.close()


# --- a client made by hand --------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def stays(self) -> bool:
        return self.headers.get("connection", "") != "close"


class Truncated(Exception):
    """The connection ended, and the client can tell that the answer was not whole."""


@dataclass
class Client:
    """A TLS connection and the answers on it, one after the other."""

    host: str
    port: int = PORT
    version: ssl.TLSVersion | None = None
    certificate: Issued | None = None
    session: ssl.SSLSession | None = None
    context: ssl.SSLContext | None = None
    receive_buffer: int = 0
    sock: ssl.SSLSocket = field(init=False)

    def __enter__(self) -> Self:
        if self.context is None:
            self.context = client_context(self.version, self.certificate)
        raw = socket.socket()
        if self.receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        raw.settimeout(SECONDS)
        raw.connect((self.host, self.port))
        self.sock = self.context.wrap_socket(
            raw, server_hostname="server.lab", session=self.session, suppress_ragged_eofs=False
        )
        self._stream = self.sock.makefile("rb")
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()
        self.sock.close()

    def send(self, method: str, target: str = "/", headers: str = "", body: bytes = b"", version: str = "1.1") -> None:
        if body:
            headers += f"Content-Length: {len(body)}\r\n"
        head = f"{method} {target} HTTP/{version}\r\nHost: server.lab\r\n{headers}\r\n"
        self.sock.sendall(head.encode("latin-1") + body)

    def get(self, target: str = "/", headers: str = "") -> Answer:
        self.send("GET", target, headers)
        return self.read_answer()

    def read_answer(self, method: str = "GET") -> Answer:
        """The next answer. Raises Truncated."""
        answer = self.read_head()
        try:
            answer.body = b"".join(self.blocks(answer, method))
        except (ConnectionError, ssl.SSLError) as error:
            raise Truncated(str(error)) from None
        return answer

    def read_head(self) -> Answer:
        try:
            status = self._stream.readline().decode()
            if not status:
                raise Truncated("no answer")
            headers = {}
            while (line := self._stream.readline().decode("latin-1").rstrip("\r\n")) != "":
                field_name, _, value = line.partition(": ")
                headers[field_name.lower()] = value
        except (ConnectionError, ssl.SSLError) as error:
            raise Truncated(str(error)) from None
        return Answer(int(status.split()[1]), headers)

    def blocks(self, answer: Answer, method: str = "GET") -> Iterator[bytes]:
        """The body of an answer whose head has been read, in pieces. Raises Truncated."""
        if method == "HEAD" or answer.status in (204, 304):
            return
        if "content-length" in answer.headers:
            yield from self._exactly(int(answer.headers["content-length"]))
        elif "transfer-encoding" in answer.headers:
            while (size := self._stream.readline()) != b"0\r\n":
                if not size:
                    raise Truncated("the connection ended before the last chunk")
                yield from self._exactly(int(size, 16))
                assert self._stream.readline() == b"\r\n"
            assert self._stream.readline() == b"\r\n"
        else:
            yield self._stream.read()  # until close_notify; SSLError without

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            block = self._stream.read(min(size, 1 << 20))
            if not block:
                raise Truncated("the connection ended in the body")
            size -= len(block)
            yield block

    def ended(self) -> bool:
        """Waits for the end of the connection; whether it was a clean one."""
        try:
            return self._stream.read() == b""
        except (ConnectionError, ssl.SSLError):
            return False


def client_context(version: ssl.TLSVersion | None = None, certificate: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=pki().ca.crt)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # an end without close_notify is an error here
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if certificate is not None:
        context.load_cert_chain(certificate.crt, certificate.key_file)
    return context


# --- the server between them ------------------------------------------------------------------


def https(host: str, client_ca: str = "") -> str:
    server = pki().server_ec
    return f"{host}:{PORT},{server.crt},{server.key_file}" + (f",HIGH,{client_ca}" if client_ca else "")


@contextlib.contextmanager
def front(
    *nodes: Node | Path | str, options: Sequence[str] = (), client_ca: str = "", descriptors: int = 0
) -> Iterator[tuple[Daemon, str]]:
    """Our server before these nodes, and the host it listens on; with so many descriptors at most."""
    host = loopback()
    to = [word for node in nodes for word in ("--http-to", str(node.path if isinstance(node, Node) else node))]
    limit = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
    with Daemon([*limit, *command("--https", https(host, client_ca), *to, *USER, *options)]) as server:
        server.wait_for_workers()
        yield server, host


def worker_status(server: Daemon, field_name: str) -> int:
    """A number of /proc/PID/status of the one worker, in its own unit."""
    (worker,) = server.wait_for_workers()
    return int(worker.status()[field_name].split()[0])


# --- what a backend is told -------------------------------------------------------------------

REQUESTS = {
    "plain": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "browser": b"GET /a%20b%2Fc/%C3%A9?x=1&y=%20 HTTP/1.1\r\nHost: foobar.example:8443\r\nUser-Agent: t/1 (x)\r\n"
    b"Accept: text/html;q=0.9, */*\r\nAccept-Language: de,en\r\nCookie: a=b; c=d\r\nX-Same: 1\r\nX-Same: 2\r\n\r\n",
    "query that is empty": b"GET /x? HTTP/1.1\r\nHost: h\r\n\r\n",
    "latin-1": b"GET /x%e9?%00 HTTP/1.1\r\nHost: h\r\nX-Latin: \xc3\xa9\xff\r\nX-Empty:\r\n\r\n",
    "body": b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc",
    "a method of its own": b"PROPFIND /p HTTP/1.1\r\nHost: h\r\nDepth: 1\r\n\r\n",
    "whole server": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "HTTP/1.0": b"GET /old HTTP/1.0\r\nHost: h\r\n\r\n",
    "forged": b"GET / HTTP/1.1\r\nHost: h\r\nHTTPS: off\r\nHTTPS-DN: /CN=root\r\nHTTPS-CC: x\r\n"
    b"REMOTE-ADDR: 1.1.1.1\r\nHTTP-HOST: evil\r\nX-Forwarded-For: 2.2.2.2\r\nRemote-User: root\r\n\r\n",
}
ROUTER_OPTIONS = (
    *("--https-export-cert", "--http-modifier1", "5", "--http-modifier2", "7"),
    *("--http-var", "FIRST=1", "--http-var", "SECOND=a=b c"),
)


@pytest.fixture(scope="module")
def odd_client(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    """A client whose name tries to look like another's."""
    subject = name((NameOID.COUNTRY_NAME, "IT"), (NameOID.ORGANIZATION_NAME, "Läb/CN=root"), (NameOID.COMMON_NAME, "x"))
    return issue(tmp_path_factory.mktemp("odd"), "odd", subject, pki().ca, usage=[CLIENT])


@dataclass(frozen=True, slots=True)
class Routers:
    """uWSGI's router and ours, both before the same node."""

    node: Node
    theirs: str
    ours: str
    server: Daemon


@pytest.fixture(scope="module")
def routers() -> Iterator[Routers]:
    with open_directory() as place, Node(place / "node.sock") as node:
        node.path.chmod(0o777)
        theirs, uwsgi = loopback(), Path(sys.executable).with_name("uwsgi")
        options = ["--master", "--die-on-term", "--http-keepalive=1", "--http-to", str(node.path), *ROUTER_OPTIONS]
        ca = pki().ca.crt
        with (
            Daemon([str(uwsgi), *options, "--https", https(theirs, ca)]) as router,
            front(node, options=ROUTER_OPTIONS, client_ca=ca) as (server, ours),
        ):
            router.wait_for_line("spawned uWSGI http")
            router.wait_until_it_listens((theirs, PORT))
            yield Routers(node, theirs, ours, server)


def told(routers: Routers, client: Client, request: bytes) -> Call:
    """What the node is told when `client` sends `request`."""
    routers.node.calls.clear()
    client.sock.sendall(request)
    assert client.read_answer().status == 200
    (call,) = routers.node.calls
    return call


def is_not_uwsgis(name: str) -> bool:
    """Whether a variable is one of those about TLS that uWSGI does not have."""
    return name.startswith(("SSL_", "HTTPS_SNI", "HTTPS_PROTOCOL", "HTTPS_CIPHER", "HTTPS_VERIFY"))


def without_known_differences(ours: bool, call: Call, client: Client) -> Pairs:
    """The variables, after a look at those in which we differ on purpose."""
    variables, pairs = call.variables, list(call.pairs)
    local_port = client.sock.getsockname()[1]
    if ours:
        # uWSGI says the machine's name, and the port with its bytes swapped (issue 1889).
        assert variables["SERVER_NAME"] == variables["HTTP_HOST"].partition(":")[0]
        assert variables["REMOTE_PORT"] == str(local_port)
        # For backends that would keep the connection open, and for uWSGI; before the http-vars.
        assert pairs[-4:-2] == [("HTTP_CONNECTION", "close"), ("UWSGI_SCHEME", "https")]
        pairs = [pair for pair in pairs if not is_not_uwsgis(pair[0])]
    else:
        assert variables["SERVER_NAME"] == socket.gethostname()
        assert variables["REMOTE_PORT"] == str(socket.htons(local_port))
        names = [key for key, _ in pairs]
        if names[1:3] == ["REQUEST_URI", "PATH_INFO"]:  # its order where there is no "?"
            pairs[1:3] = pairs[2:0:-1]
    different = ("SERVER_NAME", "REMOTE_PORT")
    ours_alone = ("HTTP_CONNECTION", "UWSGI_SCHEME")
    return [(key, value if key not in different else "") for key, value in pairs if key not in ours_alone]


@pytest.mark.parametrize("with_certificate", [False, True], ids=["anonymous", "certificate"])
@pytest.mark.parametrize("request_name", REQUESTS)
def test_the_same_variables_as_uwsgi(routers: Routers, request_name: str, with_certificate: bool) -> None:
    """Byte for byte and in the same order, on the first and the second request of a connection."""
    request, certificate = REQUESTS[request_name], pki().client if with_certificate else None
    with Client(routers.theirs, certificate=certificate) as client:
        call = told(routers, client, request)
        expected = without_known_differences(False, call, client)
        assert call.modifiers == (5, 7)
    with Client(routers.ours, certificate=certificate) as client:
        for _ in range(1 if request_name == "HTTP/1.0" else 2):
            call = told(routers, client, request)
            assert without_known_differences(True, call, client) == expected
            assert call.modifiers == (5, 7)
    seen = call.variables
    if with_certificate:
        assert seen["HTTPS_DN"] == CLIENT_DN
        assert seen["HTTPS_CLIENT_CERTIFICATE"].encode("latin-1") == pki().client.der
        assert seen["HTTPS_CC"] == pki().client.pem
    else:
        assert not {"HTTPS_DN", "HTTPS_CC", "HTTPS_CLIENT_CERTIFICATE"} & seen.keys()


def test_order_of_variables(routers: Routers) -> None:
    """The request, the server, what TLS proved, the peer, the header fields, our own, the http-vars."""
    with Client(routers.ours, certificate=pki().client) as client:
        call = told(routers, client, REQUESTS["body"])
    expected = (
        "REQUEST_METHOD PATH_INFO REQUEST_URI QUERY_STRING SERVER_PROTOCOL SCRIPT_NAME SERVER_NAME SERVER_PORT"
        " UWSGI_ROUTER HTTPS HTTPS_CLIENT_CERTIFICATE HTTPS_DN HTTPS_CC HTTPS_SNI SSL_TLS_SNI HTTPS_PROTOCOL"
        " HTTPS_CIPHER HTTPS_VERIFY SSL_PROTOCOL SSL_CIPHER SSL_SESSION_RESUMED SSL_CLIENT_VERIFY SSL_CLIENT_S_DN"
        " SSL_CLIENT_I_DN SSL_CLIENT_M_SERIAL SSL_CLIENT_V_START SSL_CLIENT_V_END SSL_CLIENT_FINGERPRINT"
        " SSL_CLIENT_CERT REMOTE_ADDR REMOTE_PORT HTTP_HOST CONTENT_TYPE CONTENT_LENGTH HTTP_CONNECTION UWSGI_SCHEME"
        " FIRST SECOND"
    )
    assert " ".join(key for key, _ in call.pairs) == expected


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_what_a_certificate_proved_holds_in_a_resumed_session(routers: Routers, version: ssl.TLSVersion) -> None:
    context = client_context(version, pki().client)
    session, seen = None, []
    for resumed in (False, True):
        with Client(routers.ours, context=context, session=session) as client:
            assert client.sock.session_reused is resumed
            for _ in range(2):
                variables = told(routers, client, REQUESTS["plain"]).variables
                names = {key for key in variables if key.startswith("HTTPS") and not is_not_uwsgis(key)}
                seen.append({key: variables[key] for key in names})
            session = client.sock.session
            assert client.sock.version() == {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}[version]
    expected = {
        "HTTPS": "on",
        "HTTPS_DN": CLIENT_DN,
        "HTTPS_CC": pki().client.pem,
        "HTTPS_CLIENT_CERTIFICATE": pki().client.der.decode("latin-1"),
    }
    assert seen == [expected] * 4


def test_a_name_with_separators_in_it(routers: Routers, odd_client: Issued) -> None:
    """What a CA let into one part of the name is no part of its own in HTTPS_DN."""
    seen = []
    for host in (routers.theirs, routers.ours):
        with Client(host, certificate=odd_client) as client:
            seen.append(told(routers, client, REQUESTS["plain"]).variables["HTTPS_DN"])
    assert seen[1] == r"/C=IT/O=L\xC3\xA4b\/CN=root/CN=x"
    assert seen[0] in (seen[1], seen[1].replace(r"\/", "/"))  # its own OpenSSL may be too old to escape it


def test_names_with_an_underscore_do_not_arrive(routers: Routers) -> None:
    request = b"GET / HTTP/1.1\r\nHost: h\r\nX_User: evil\r\nX-User: good\r\nX_Other: evil\r\n\r\n"
    with Client(routers.ours) as client:
        variables = told(routers, client, request).variables
    assert variables["HTTP_X_USER"] == "good"
    assert "HTTP_X_OTHER" not in variables


def test_variables_that_do_not_fit_into_a_packet(directory: Path) -> None:
    """64 KiB is the packet's limit; the request is told so, and nothing else ends."""
    with Node(directory / "n") as node, front(node, options=("-b", "65536")) as (_, host):
        with Client(host) as client:
            answer = client.get(headers=f"X-Big: {'x' * 65400}\r\n")
            assert (answer.status, answer.stays) == (431, True)
            assert client.get(headers=f"X-Big: {'x' * 64900}\r\n").status == 200
        assert len(node.calls) == 1


# --- real backends ----------------------------------------------------------------------------

HASHING = """
import hashlib, json

BLOCK = bytes(range(256)) * 4096

def application(environ, start_response):
    if environ["PATH_INFO"] == "/down":
        size = int(environ["QUERY_STRING"])
        length = [] if environ.get("HTTP_X_LENGTH") == "no" else [("Content-Length", str(size))]
        start_response("200 OK", length)
        return (BLOCK[: min(len(BLOCK), size - at)] for at in range(0, size, len(BLOCK)))
    digest, size, read = hashlib.sha256(), 0, environ["wsgi.input"].read
    while size < int(environ.get("CONTENT_LENGTH") or 0) and (block := read(1 << 20)):
        digest.update(block)
        size += len(block)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"sha256": digest.hexdigest(), "size": size, "length": environ.get("CONTENT_LENGTH"),
                        "coding": environ.get("HTTP_TRANSFER_ENCODING")}).encode()]
"""
BLOCK = bytes(range(256)) * 4096
MIB = 1 << 20


def pattern(size: int) -> Iterator[bytes]:
    """`size` bytes as the application above makes them."""
    for at in range(0, size, len(BLOCK)):
        yield BLOCK[: min(len(BLOCK), size - at)]


def hash_of(blocks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


@pytest.fixture(scope="module", params=["uwsgi", "gunicorn"])
def real_node(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The socket of a real server with the application above: one ends its answers by closing, one by chunks."""
    with open_directory() as place:
        application, path = place / "hashing.py", place / "node.sock"
        application.write_text(HASHING)
        if request.param == "uwsgi":
            with real_uwsgi(application, str(path), "--processes", "2"):
                yield path
            return
        gunicorn = Path(sys.executable).with_name("gunicorn")
        options = ["--protocol", "uwsgi", "--bind", f"unix:{path}", "--umask", "0", "--workers", "2", "--timeout", "60"]
        with Daemon([str(gunicorn), *options, "--no-control-socket", "hashing:application"], cwd=place) as daemon:
            daemon.wait_until_it_listens(str(path))
            yield path


def test_bodies_both_ways(real_node: Path) -> None:
    """8 MiB up with a length and in chunks, 8 MiB down with and without a length, on one connection."""
    size, expected = 8 * MIB, hash_of(pattern(8 * MIB))
    with front(real_node) as (_, host), Client(host) as client:
        client.send("POST", "/up", f"Content-Length: {size}\r\n")
        for block in pattern(size):
            client.sock.sendall(block)
        wanted = f'{{"sha256": "{expected}", "size": {size}, "length": "{size}", "coding": null}}'.encode()
        assert client.read_answer().body == wanted
        client.send("PUT", "/up", "Transfer-Encoding: chunked\r\n")
        for block in pattern(size):
            client.sock.sendall(b"%x;ext=1\r\n%b\r\n" % (len(block), block))
        client.sock.sendall(b"0\r\nTrailer: dropped\r\n\r\n")
        # The chunks are put together on the way, and the application learns the length; uWSGI's router loses the body.
        assert client.read_answer().body == wanted
        answer = client.get(f"/down?{size}")
        assert answer.headers["content-length"] == str(size)
        assert hashlib.sha256(answer.body).hexdigest() == expected
        answer = client.get(f"/down?{size}", "X-Length: no\r\n")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert hashlib.sha256(answer.body).hexdigest() == expected
        answer = client.get("/down?0")
        assert (answer.status, answer.body) == (200, b"")
        client.send("HEAD", "/down?100")
        answer = client.read_answer("HEAD")
        assert (answer.headers["content-length"], answer.body, answer.stays) == ("100", b"", True)


def test_a_body_over_the_limit(directory: Path) -> None:
    """limit-post holds for both framings, and the node is not asked."""
    with Node(directory / "n") as node, front(node, options=("--limit-post", "1000")) as (_, host):
        for headers, body in (("Content-Length: 1001\r\n", b""), ("Transfer-Encoding: chunked\r\n", b"3e9\r\n")):
            with Client(host) as client:
                client.send("POST", "/", headers)
                client.sock.sendall(body + b"x" * 1001)
                answer = client.read_answer()
                assert (answer.status, answer.stays) == (413, False)
        assert node.calls == []


def test_pipelining(directory: Path) -> None:
    """Requests that came at once are answered in turn, bodies and all."""

    def behave(call: Call) -> None:
        call.answer(call.variables["PATH_INFO"].encode() + b":" + b"".join(call.blocks()))

    with Node(directory / "n", behave) as node, front(node) as (_, host), Client(host) as client:
        requests = [
            f"POST /{i} HTTP/1.1\r\nHost: h\r\nContent-Length: {i % 7}\r\n\r\n{'x' * (i % 7)}" for i in range(50)
        ]
        client.sock.sendall("".join(requests).encode())
        assert [client.read_answer().body for _ in range(50)] == [b"/%d:%b" % (i, b"x" * (i % 7)) for i in range(50)]


def test_continue_is_said_once_and_by_us(directory: Path) -> None:
    def behave(call: Call) -> None:
        call.sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")  # interim answers end with us
        call.answer(b"".join(call.blocks()))

    with Node(directory / "n", behave) as node, front(node) as (_, host), Client(host) as client:
        client.send("POST", "/", "Content-Length: 3\r\nExpect: 100-continue\r\n")
        assert client.read_head().status == 100
        assert node.calls == []  # not asked before the body is whole
        client.sock.sendall(b"abc")
        answer = client.read_answer()
        assert (answer.status, answer.body) == (200, b"abc")


# --- several nodes, dead ones -----------------------------------------------------------------


def dead_tcp_port() -> tuple[socket.socket, str]:
    """An address that refuses connections as long as the socket, bound and deaf, is there."""
    deaf = socket.socket()
    deaf.bind((loopback(), 0))
    host, port = deaf.getsockname()
    return deaf, f"{host}:{port}"


def test_round_robin(directory: Path) -> None:
    with Node(directory / "a") as a, Node(directory / "b") as b, front(a, b) as (_, host), Client(host) as client:
        for _ in range(10):
            assert client.get().status == 200
        assert (len(a.calls), len(b.calls)) == (5, 5)


@pytest.mark.parametrize("kind", ["refuses", "no such file", "not a socket"])
def test_a_dead_node_is_passed_over(directory: Path, kind: str) -> None:
    """No request fails, the dead one is asked once in its time of grace, and then again."""
    deaf, tcp = dead_tcp_port()
    (directory / "file").write_text("")
    nodes: dict[str, Path | str] = {
        "refuses": tcp,
        "no such file": directory / "missing",
        "not a socket": directory / "file",
    }
    dead = nodes[kind]
    with (
        deaf,
        Node(directory / "n") as node,
        front(dead, node, options=("--http-gracetime", "1")) as (server, host),
        Client(host) as client,
    ):
        for number in range(10):
            client.send("POST", "/", body=b"x" * 100 * number)
            assert client.read_answer().status == 200
        complaint = re.escape(f"unable to connect to {dead}: ")
        assert len(re.findall(complaint, server.log)) == 1, server.log
        assert len(node.calls) == 10

        def asked_again() -> bool:
            assert client.get().status == 200
            return len(re.findall(complaint, server.log)) == 2

        wait_until(asked_again, 5, lambda: server.log)


def test_a_node_that_is_back_is_used_again(directory: Path) -> None:
    path = directory / "n"
    with front(path, options=("--http-gracetime", "3600")) as (_, host), Client(host) as client:
        assert client.get().status == 502
        with Node(path) as node:
            # The only one: its time of grace would help nobody.
            assert client.get().status == 200
            assert len(node.calls) == 1


def test_all_dead(directory: Path) -> None:
    """502 at once, with the connection kept, and the log says which node and why."""
    deaf, tcp = dead_tcp_port()
    with deaf, front(directory / "missing", tcp) as (server, host), Client(host) as client:
        started = time.monotonic()
        for _ in range(20):
            client.send("POST", "/", body=b"hello")
            answer = client.read_answer()
            assert (answer.status, answer.stays, answer.body) == (502, True, b"502 Bad Gateway\n")
        assert time.monotonic() - started < 2
        assert f"unable to connect to {tcp}: Connection refused" in server.log
        assert "missing: No such file or directory" in server.log


def test_many_requests_at_once_for_a_node_that_is_dead(directory: Path) -> None:
    """Each is refused in turn, however many came in one piece, and the log does not grow by a line for each."""
    count = 500
    with front(directory / "missing.sock", options=("-L",)) as (server, host), Client(host) as client:
        started = time.monotonic()
        client.sock.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" * count)
        for _ in range(count):
            answer = client.read_answer()
            assert (answer.status, answer.stays) == (502, True)
        assert client.get().status == 502
        seconds = int(time.monotonic() - started) + 2
        assert "defect" not in server.log
        assert 1 <= server.log.count("unable to connect to ") <= 10 * seconds
        assert len(server.lines) <= 11 * seconds + 10


def test_a_node_with_a_request_is_not_given_up_for_another(directory: Path) -> None:
    """Once a node has got the request, no other gets it: it may have done what was asked (RFC 9110, 9.2.2)."""
    with (
        Node(directory / "a", lambda call: None) as a,
        Node(directory / "b") as b,
        front(a, b) as (_, host),
        Client(host) as client,
    ):
        client.send("POST", "/", body=b"pay")
        assert client.read_answer().status == 502
        assert (len(a.calls), len(b.calls)) == (1, 0)


# --- nodes that misbehave ---------------------------------------------------------------------


def half(headers: str) -> Callable[[Call], None]:
    return lambda call: call.sock.sendall(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + b"5\r\nhello\r\n")


def reset(call: Call) -> None:
    call.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("behave", "status", "reason"),
    [
        pytest.param(lambda call: None, 502, "closed the connection without an answer", id="closes"),
        pytest.param(reset, 502, "closed the connection without an answer", id="shuts down"),
        pytest.param(
            lambda call: call.sock.sendall(b"HTTP/1.1 200 OK\r\nA: b"), 502, "without an answer", id="half a head"
        ),
        pytest.param(lambda call: call.sock.sendall(b"garbage\r\n\r\n"), 502, "not valid", id="garbage"),
        pytest.param(lambda call: call.sock.sendall(b"\0" * 100000), 502, "not valid", id="zeros"),
        pytest.param(
            lambda call: call.sock.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000),
            502,
            "not valid",
            id="endless head",
        ),
        pytest.param(
            lambda call: call.answer(headers="Set-Cookie: a\0b\r\n"), 502, "not valid", id="control character"
        ),
        pytest.param(lambda call: call.answer(headers="Content-Length: 9\r\n"), 502, "not valid", id="two lengths"),
        pytest.param(
            lambda call: call.answer(headers="Transfer-Encoding: chunked\r\n"), 502, "not valid", id="length and chunks"
        ),
        pytest.param(lambda call: call.answer(headers="Transfer-Encoding: gzip\r\n"), 502, "not valid", id="gzip"),
        pytest.param(lambda call: call.answer(status="99 No"), 502, "not valid", id="status"),
    ],
)
def test_bad_answers(directory: Path, behave: Callable[[Call], None], status: int, reason: str) -> None:
    """A 502 whose reason is in the log; the connection of the client goes on."""
    with Node(directory / "n", behave) as node, front(node) as (server, host), Client(host) as client:
        for _ in range(2):
            answer = client.get("/bad")
            assert (answer.status, answer.stays) == (status, True)
        node.behave = Call.answer
        assert client.get("/good").body == b"ok\n"
        server.wait_for_line(f"GET /bad .*{status}: .*{reason}", seconds=5)
        server.wait_for_line("GET /good => ", seconds=5)  # the others stand before it
        assert len(re.findall(r"GET /bad => .*\(HTTP/1.1 502\)", server.log)) == 2


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param("Content-Length: 100", id="length"),
        pytest.param("Transfer-Encoding: chunked", id="chunks"),
    ],
)
def test_a_node_that_closes_in_mid_answer(directory: Path, headers: str, version: str) -> None:
    """The client can tell: a length not reached, no last chunk, or, without either, no close_notify."""
    with Node(directory / "n", half(headers)) as node, front(node) as (server, host), Client(host) as client:
        client.send("GET", version=version)
        head = client.read_head()
        assert head.status == 200
        with pytest.raises((Truncated, ssl.SSLError)):
            list(client.blocks(head))
        server.wait_for_line("in the middle of its answer", seconds=5)


def test_bad_chunks(directory: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n"
    with Node(directory / "n", lambda call: call.sock.sendall(answer)) as node, front(node) as (server, host):
        with Client(host) as client, pytest.raises(Truncated):
            client.get()
        server.wait_for_line("sent chunks that are not valid", seconds=5)


def test_more_than_the_length(directory: Path) -> None:
    """What a node sends after its answer's end is not the beginning of the next one."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    with (
        Node(directory / "n", lambda call: call.sock.sendall(answer)) as node,
        front(node) as (_, host),
        Client(host) as client,
    ):
        assert client.get().body == b"ok"
        node.behave = Call.answer
        assert client.get().body == b"ok\n"


def test_a_silent_node(directory: Path) -> None:
    """504 after http-timeout, before an answer and in a half head; the connection to the node is closed."""
    ends = [threading.Event(), threading.Event()]

    def behave(call: Call) -> None:
        if call.variables["PATH_INFO"] == "/half":
            call.sock.sendall(b"HTTP/1.1 200 OK\r\n")
        call.wait_for_end()
        ends[len(node.calls) - 1].set()

    with (
        Node(directory / "n", behave) as node,
        front(node, options=("--http-timeout", "1")) as (_, host),
        Client(host) as client,
    ):
        for path, end in zip(("/silent", "/half"), ends, strict=True):
            started = time.monotonic()
            answer = client.get(path)
            assert (answer.status, answer.stays) == (504, True)
            assert 0.9 < time.monotonic() - started < 4
            assert end.wait(5)


def test_a_node_that_falls_silent_in_its_body(directory: Path) -> None:
    def behave(call: Call) -> None:
        half("Content-Length: 100")(call)
        call.wait_for_end()

    with (
        Node(directory / "n", behave) as node,
        front(node, options=("--http-timeout", "1")) as (_, host),
        Client(host) as client,
    ):
        started = time.monotonic()
        with pytest.raises(Truncated):
            client.get()
        assert 0.9 < time.monotonic() - started < 4


def test_a_node_that_is_slow_but_not_silent(directory: Path) -> None:
    """http-timeout is for silence, not for the whole answer; and each piece is passed on when it comes."""
    pause = threading.Event()

    def behave(call: Call) -> None:
        call.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for letter in b"slowly":
            pause.wait(0.4)
            call.sock.sendall(bytes([letter]))

    with (
        Node(directory / "n", behave) as node,
        front(node, options=("--http-timeout", "1")) as (_, host),
        Client(host) as client,
    ):
        client.send("GET")
        head = client.read_head()
        started = time.monotonic()
        assert b"".join(client.blocks(head)) == b"slowly"
        assert time.monotonic() - started > 1.5


def test_an_answer_before_the_body_was_read(directory: Path) -> None:
    """A node may refuse a body that it has not read: its answer arrives, though the rest can no longer be sent."""
    size = 8 * MIB

    def behave(call: Call) -> None:
        call.answer(b"too big\n", "413 Content Too Large")

    with Node(directory / "n", behave) as node, front(node) as (_, host), Client(host) as client:
        for _ in range(3):
            client.send("POST", "/", body=b"x" * size)
            answer = client.read_answer()
            assert (answer.status, answer.body) == (413, b"too big\n")


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%b", id="continue"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"%b", id="head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"llo", id="length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n", id="chunks"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhe", b"llo", id="until the end"),
    ],
)
def test_a_node_that_speaks_before_it_reads(directory: Path, first: bytes, rest: bytes) -> None:
    """It gets all of the body all the same, and its client all of the answer."""
    size = 5 * MIB
    got: list[str] = []
    body = b"".join(pattern(size))
    pause = threading.Event()

    def behave(call: Call) -> None:
        call.sock.sendall(first)
        pause.wait(0.3)  # in which the server hears that, with a full socket before it
        got.append(hash_of(call.blocks()))
        call.sock.sendall(rest.replace(b"%b", b"hello"))

    with (
        Node(directory / "n", behave) as node,
        front(node, options=("--http-timeout", "5")) as (_, host),
        Client(host) as client,
    ):
        for _ in range(2):
            client.send("POST", "/", body=body)
            answer = client.read_answer()
            assert (answer.status, answer.body) == (200, b"hello")
        assert got == [hash_of(pattern(size))] * 2


# --- nodes that reset their connection --------------------------------------------------------


@contextlib.contextmanager
def resetting_node(answer: bytes, heard: threading.Event) -> Iterator[str]:
    """A TCP node that says `answer` to each request and, when that was `heard`, resets (socket(7), SO_LINGER 0)."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                call = read_call(sock)
                sock.sendall(answer)
                heard.wait(SECONDS)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                call.stream.close()
                sock.close()

    with socket.create_server((loopback(), 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host, port = listener.getsockname()
        yield f"{host}:{port}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"", id="until the end"),
        pytest.param(b"Content-Length: 100\r\n", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", id="chunks"),
    ],
)
@pytest.mark.parametrize("size", [0, 5 * MIB], ids=["no body", "body unread"])
def test_a_node_that_resets_in_mid_answer(headers: bytes, version: str, size: int) -> None:
    """A reset is no end, not even of an answer that only its end delimits: the client can tell."""
    heard = threading.Event()
    answer = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n5\r\nhello\r\n"
    with resetting_node(answer, heard) as node, front(node) as (server, host), Client(host) as client:
        client.send("POST", body=bytes(size), version=version)
        head = client.read_head()
        assert head.status == 200
        heard.set()
        with pytest.raises((Truncated, ssl.SSLError, ConnectionError)):
            list(client.blocks(head))
        server.wait_for_line("broke the connection: Connection reset by peer", seconds=5)
        assert "defect" not in server.log


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nA: b\r\n"])
def test_a_node_that_resets_before_its_head_is_whole(answer: bytes) -> None:
    """502, and the client's connection goes on."""
    heard = threading.Event()
    heard.set()
    with resetting_node(answer, heard) as node, front(node) as (server, host), Client(host) as client:
        for _ in range(2):
            refused = client.get()
            assert (refused.status, refused.stays) == (502, True)
        server.wait_for_line("502: .*broke the connection: Connection reset by peer", seconds=5)
        assert "defect" not in server.log


# --- a node whose listen queue is full --------------------------------------------------------


@contextlib.contextmanager
def full_queue(path: Path) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A UNIX listener that accepts nothing, and the connections that fill its queue (connect(2), EAGAIN)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen(0)
        waiting: list[socket.socket] = []
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
            waiting.append(client)
        yield listener, waiting


def test_a_full_queue_is_waited_for(directory: Path) -> None:
    with full_queue(directory / "n") as (listener, waiting), front(directory / "n") as (server, host):
        with Client(host) as client:
            client.send("POST", "/", body=b"x" * 100000)
            client.sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.sock.recv(1)
            client.sock.settimeout(SECONDS)
            for _ in waiting:
                listener.accept()[0].close()
            with listener.accept()[0] as sock:
                call = read_call(sock)
                assert len(b"".join(call.blocks())) == 100000
                call.answer()
                call.stream.close()
            assert client.sock.recv(12) == b"HTTP/1.1 200"
        assert "unable to connect" not in server.log  # busy is not dead


def test_a_queue_that_stays_full(directory: Path) -> None:
    with full_queue(directory / "n"), front(directory / "n", options=("--http-connect-timeout", "1")) as (server, host):
        with Client(host) as client:
            for _ in range(2):
                started = time.monotonic()
                answer = client.get()
                assert (answer.status, answer.stays) == (503, True)
                assert 0.9 < time.monotonic() - started < 3
        server.wait_for_line("503: .*its listen queue stayed full", seconds=5)


def test_a_client_that_leaves_while_the_queue_is_full(directory: Path) -> None:
    with full_queue(directory / "n") as (listener, waiting), front(directory / "n") as (server, host):
        with Client(host) as client:
            client.send("GET", "/left")
            client.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.sock.recv(1)
        server.wait_for_line(r"GET /left .*499", seconds=5)
        for _ in waiting:
            listener.accept()[0].close()
        with Client(host) as client:
            client.send("GET", "/next")
            with listener.accept()[0] as sock:
                call = read_call(sock)
                assert call.variables["PATH_INFO"] == "/next"  # nobody asks for the one who left
                call.answer()
                call.stream.close()
            assert client.read_answer().status == 200


# --- clients that leave, or are slow ----------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"], ids=["thinking", "answering"]
)
def test_a_client_that_leaves_closes_the_connection_to_its_node(directory: Path, answer: bytes) -> None:
    began, ended = threading.Event(), threading.Event()

    def behave(call: Call) -> None:
        call.sock.sendall(answer)
        began.set()
        call.wait_for_end()
        ended.set()

    with Node(directory / "n", behave) as node, front(node) as (server, host):
        with Client(host) as client:
            client.send("GET", "/left")
            assert began.wait(5)
            assert not ended.wait(0.2)
        assert ended.wait(5)
        server.wait_for_line("GET /left", seconds=5)


def test_a_slow_client_gets_every_byte(directory: Path) -> None:
    """48 MiB read at leisure: the node is done long before, and so is not held by its client."""
    size, done = 48 * MIB, threading.Event()

    def behave(call: Call) -> None:
        call.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for block in pattern(size):
            call.sock.sendall(block)
        done.set()

    with Node(directory / "n", behave) as node, front(node) as (server, host):
        with Client(host, receive_buffer=4096) as client:
            client.send("GET")
            head = client.read_head()
            assert done.wait(SECONDS), "the node waits for the client"
            with Client(host) as other:
                assert other.get().status == 200  # of 48 MiB, at full speed, beside the slow one
            digest, received = hashlib.sha256(), 0
            for block in client.blocks(head):
                digest.update(block)
                received += len(block)
            assert received == size
            assert digest.hexdigest() == hash_of(pattern(size))
        assert worker_status(server, "Threads") == 2


# --- many at once -----------------------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """The soft limit of open files may be as low as 1024; the hard one is not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_2000_long_polls_in_one_thread(directory: Path) -> None:
    """All are under way at once in a worker with one service thread, which has time for others; each gets its own."""
    count, polite, batch = 2000, 100, 50  # no more at once than the listen queue takes
    waiting = set[int]()
    Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("<xHx", await reader.readexactly(4))
        path = re.search(rb"PATH_INFO..(/(?:poll|fast)(\d+))", await reader.readexactly(size), re.DOTALL)
        assert path is not None
        if path[1].startswith(b"/poll"):
            waiting.add(int(path[2]))
            if len(waiting) == count:
                all_wait.set()
            await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path[1]), path[1]))
        writer.close()

    async def ask(path: str, streams: Streams) -> bool:
        reader, writer = streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: server.lab\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return head.startswith(b"HTTP/1.1 200") and await reader.readexactly(len(path)) == path.encode()

    async def run(server: Daemon, host: str) -> None:
        node = await asyncio.start_unix_server(serve, directory / "n", backlog=1024)
        (directory / "n").chmod(0o777)
        context = client_context()

        async def connect() -> Streams:
            return await asyncio.open_connection(host, PORT, ssl=context, server_hostname="server.lab")

        before, streams = worker_status(server, "VmRSS"), list[Streams]()
        for _ in range(0, count, batch):
            streams += await asyncio.gather(*(connect() for _ in range(batch)))
        polls = [asyncio.create_task(ask(f"/poll{number}", pair)) for number, pair in enumerate(streams)]
        await asyncio.wait_for(all_wait.wait(), SECONDS)
        grown = worker_status(server, "VmRSS") - before
        assert worker_status(server, "Threads") == 2  # the one that accepts and the one that serves
        other, times = await connect(), []
        for number in range(polite):
            started = time.monotonic()
            assert await ask(f"/fast{number}", other)
            times.append(time.monotonic() - started)
        print(f"{count} polls took {grown} kB; others wait {sorted(times)[polite // 2] * 1000:.1f} ms for their answer")
        assert not any(poll.done() for poll in polls)
        go_on.set()
        assert await asyncio.wait_for(asyncio.gather(*polls), SECONDS) == [True] * count
        assert worker_status(server, "Threads") == 2
        for _, writer in [*streams, other]:
            writer.transport.abort()
        node.close()

    all_wait, go_on = asyncio.Event(), asyncio.Event()
    with front(directory / "n", options=("--processes", "1", "--threads", "1", "-L")) as (server, host):
        asyncio.run(run(server, host))
        assert "defect" not in server.log


def test_many_clients_and_nodes_that_come_and_go(directory: Path) -> None:
    """Descriptor numbers are used again and again: no answer ever goes to another's client."""
    failures: list[object] = []

    def behave(call: Call) -> None:
        path = call.variables["PATH_INFO"]
        if path.endswith("5"):
            return None  # closes: 502
        return call.answer(path.encode())

    def work(host: str, worker: int) -> None:
        context = client_context()
        try:
            for number in range(30):
                with Client(host, context=context) as client:
                    for turn in range(3):
                        path = f"/{worker}/{number}/{turn}" + ("5" if (number + turn) % 4 == 0 else "")
                        if number % 6 == 5 and turn == 1:
                            client.send("GET", path)
                            break  # leaves without its answer
                        answer = client.get(path)
                        expected = (502, b"502 Bad Gateway\n") if path.endswith("5") else (200, path.encode())
                        if (answer.status, answer.body) != expected:
                            failures.append((path, answer))
        except Exception as error:
            failures.append(error)

    with Node(directory / "n", behave) as node, front(node, options=("-L",)) as (server, host):
        threads = [threading.Thread(target=work, args=(host, worker)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert "defect" not in server.log


# --- out of descriptors -----------------------------------------------------------------------


def test_descriptors_are_left_for_nodes(directory: Path) -> None:
    """More clients than the worker has descriptors for: it takes so many only that each can still reach a node."""
    with Node(directory / "n") as node, front(node, descriptors=32) as (server, host), contextlib.ExitStack() as stack:
        (worker,) = server.wait_for_workers()
        others = [stack.enter_context(socket.create_connection((host, PORT))) for _ in range(40)]
        # Half of the places may be in a handshake; these are, so that this is said before there is no place at all.
        server.wait_for_line("is full and accepts nobody|handshakes are under way", seconds=5)
        context = client_context()

        def well() -> bool:
            with Client(host, context=context) as client:
                return client.get().status == 200

        assert well()
        for other in others:
            other.close()
        assert well()
        assert worker.status()["Threads"] == "2"
        assert server.wait_for_workers()[0].pid == worker.pid
        assert "defect" not in server.log
