"""What a client can do beneath HTTP: with TLS records, with the pieces of its hello, with a session that it has kept.

Whatever it is, it must cost the server next to nothing, hold nobody up, and end in time.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pki import CLIENT_DN, Issued, pki

from uwsgi_tls.farewell import LINGER_SECONDS

from .raw_client import PORT, Site, get, serving
from .server import Process, open_directory, uwsgi_tls
from .test_hostile import cpu_seconds
from .test_http_to import SECONDS, TLS_1_2, TLS_1_3, Call, Node, Truncated, client_context, front
from .test_http_to import Client as HttpClient
from .test_proxy_protocol import V1, V2, behind
from .tls13 import APPLICATION_DATA, HALF_A_KEY_UPDATE, HANDSHAKE, KEY_UPDATE, Client

HEADERS_SECONDS = WRITE_SECONDS = 1
LIMITS = (f"--http-headers-timeout={HEADERS_SECONDS}", f"--http-write-timeout={WRITE_SECONDS}")
SLACK_SECONDS = 2.5  # two sweeps of the lounge, and a busy machine
MIB = 1 << 20
FLOOD = 100_000  # KeyUpdates


@contextlib.contextmanager
def costs_nothing(worker: Process, seconds: float = 0.3) -> Iterator[None]:
    """The worker spends less CPU time meanwhile."""
    before = cpu_seconds(worker)
    yield
    used = cpu_seconds(worker) - before
    assert used < seconds, f"{used:.2f} s of CPU"


def wait_for_end(client: Client) -> None:
    """Until the server ends the connection, in whatever form; it sends nothing before."""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        assert client.receive() == b""


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def dribble(client: Client) -> None:
    """A handshake record that never ends, a byte at a time: each wakes the server, and none is progress."""
    record = client.sealer.record(bytes(1000), HANDSHAKE)
    client.sock.settimeout(0.2)
    for at in range(50):
        try:
            client.sock.sendall(record[at : at + 1])
            assert client.receive() == b""
        except TimeoutError:
            continue
        except (ssl.SSLError, ConnectionError):
            pass
        return
    raise AssertionError("still there after 10 s")


# --- half a KeyUpdate -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The built-in page, in a hurry."""
    with serving(tmp_path_factory.mktemp("hasty"), "", *LIMITS) as site:
        yield site


ways = pytest.mark.parametrize("stay", [wait_for_end, dribble], ids=["and silence", "and a record that dribbles"])


def connect(address: tuple[str, int]) -> Client:
    return Client(socket.create_connection(address)).handshake()


@ways
def test_half_a_key_update_after_half_a_head(hasty: Site, stay: Callable[[Client], None]) -> None:
    """The 408 cannot be sent until the rest of the message is there: that is waited for, but not for longer."""
    with connect(hasty.address) as client, costs_nothing(hasty.worker):
        began = time.monotonic()
        client.send(b"GET / HTTP/1.1\r\nHo")
        client.send_handshake(HALF_A_KEY_UPDATE)
        stay(client)
        took = time.monotonic() - began
    assert HEADERS_SECONDS <= took < HEADERS_SECONDS + WRITE_SECONDS + SLACK_SECONDS
    assert hasty.ask(get("/")).status == 200


@dataclass(slots=True)
class Thinker:
    """A node that answers /think when it may, and all else at once; a client that waits for its answer to /think."""

    path: Path
    body: bytes
    go: threading.Event = field(default_factory=threading.Event)

    def behave(self, call: Call) -> None:
        if call.variables["PATH_INFO"] == "/think":
            assert self.go.wait(SECONDS)
        call.answer(self.body)

    @contextlib.contextmanager
    def asked(self) -> Iterator[tuple[Process, Client, HttpClient]]:
        """The worker, the client, of whose KeyUpdate half has come, and another one."""
        with Node(self.path, self.behave) as node, front(node, options=LIMITS) as (server, host):
            (worker,) = server.wait_for_workers(1)
            with connect((host, PORT)) as client, HttpClient(host) as other:
                client.send(get("/think"))
                client.send_handshake(HALF_A_KEY_UPDATE)
                assert other.get().body == self.body  # who comes later is served later: there is one thread
                with costs_nothing(worker):
                    self.go.set()
                    yield worker, client, other


@pytest.fixture(params=[3, 4 * MIB], ids=["3 bytes", "4 MiB"])
def thinker(request: pytest.FixtureRequest) -> Iterator[Thinker]:
    with open_directory() as directory:
        directory.chmod(0o777)
        yield Thinker(directory / "n", bytes(request.param))


@ways
def test_half_a_key_update_while_a_node_thinks(thinker: Thinker, stay: Callable[[Client], None]) -> None:
    with thinker.asked() as (_, client, _):
        began = time.monotonic()
        stay(client)
        assert WRITE_SECONDS * 0.9 <= time.monotonic() - began < WRITE_SECONDS + SLACK_SECONDS


def test_the_other_half_of_a_key_update(thinker: Thinker) -> None:
    """The answer that had to wait for it comes whole, and so does the next."""
    end = b"\r\n\r\n" + thinker.body
    with thinker.asked() as (_, client, other):
        assert other.get().body == thinker.body  # as above: by now the other answer is there, too
        client.send_handshake(KEY_UPDATE[len(HALF_A_KEY_UPDATE) :])
        client.sealer.update()
        for _ in range(2):
            assert client.read_until(end).startswith(b"HTTP/1.1 200 OK\r\n")
            client.send(get("/again"))


# --- many KeyUpdates ------------------------------------------------------------------------------------


def test_a_flood_of_key_updates_holds_nobody_up(tmp_path: Path) -> None:
    """The one thread takes them one by one, and answers a polite client between them."""
    patient = ("--max-requests-per-connection", "0")  # the polite client asks as often as it is answered
    with serving(tmp_path, "", *patient) as site, connect(site.address) as client, site.connect() as polite:
        flood = client.key_updates(FLOOD) + client.sealer.record(get("/"), APPLICATION_DATA)

        def hostile() -> bytes:
            client.sock.sendall(flood)
            return client.receive()

        with ThreadPoolExecutor() as pool:
            answered = pool.submit(hostile)
            answers = 0
            while not answered.done():
                assert polite.ask(get("/")).status == 200
                answers += 1
            assert answered.result().startswith(b"HTTP/1.1 200 OK\r\n"), "the flood has not reached the server"
        assert answers > 100


# --- a ClientHello in pieces ----------------------------------------------------------------------------


def assert_goes_on(client: Client, sent: int) -> None:
    """The rest of the hello comes, and then all is as usual."""
    client.handshake(sent).send(get("/"))
    assert client.receive().startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("first", [0, 3, 4, 100, -1])
def test_urgent_data_within_a_hello(hasty: Site, first: int) -> None:
    """It counts among the bytes that are there, and is not among those that can be read (tcp(7))."""
    with Client(socket.create_connection(hasty.address)) as client:
        sent = first % len(client.hello)
        client.sock.sendall(client.hello[:sent])
        client.sock.send(b"!", socket.MSG_OOB)
        with costs_nothing(hasty.worker):
            threading.Event().wait(1.0)
        assert_goes_on(client, sent)


def test_a_hello_and_the_end(hasty: Site) -> None:
    """Who sends no more cannot finish a handshake, and gets no answer: that would cost a signature."""
    with Client(socket.create_connection(hasty.address)) as client:
        client.sock.send(client.hello, socket.MSG_MORE)  # with the end, in one segment: tcp(7)
        client.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert read_all(client.sock) == b""


@pytest.fixture(scope="module")
def local() -> Iterator[tuple[Process, str]]:
    """The worker of a server that listens on a UNIX path."""
    server = pki().server_ec
    with open_directory() as directory:
        path = str(directory / "https")
        with uwsgi_tls("--https", f"{path},{server.crt},{server.key_file}") as daemon:
            (worker,) = daemon.wait_for_workers(1)
            yield worker, path


@pytest.mark.parametrize("first", [0, 1, 5, 100, -1])
def test_half_a_hello_on_a_unix_socket(local: tuple[Process, str], first: int) -> None:
    """A UNIX socket is ready whenever something is there, whatever was asked for (socket(7), SO_RCVLOWAT)."""
    worker, path = local
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    with Client(sock) as client:
        sent = first % len(client.hello)
        client.sock.sendall(client.hello[:sent])
        with costs_nothing(worker):
            threading.Event().wait(1.0)
        assert_goes_on(client, sent)


@pytest.mark.parametrize("first", [V1[:20], V2[:-1]], ids=["v1", "v2"])
def test_urgent_data_within_a_proxy_header(tmp_path: Path, first: bytes) -> None:
    """A load balancer sends none; the connection ends, without a word and without work."""
    with behind(tmp_path, "127.0.0.0/8") as (daemon, host), socket.create_connection((host, PORT), SECONDS) as sock:
        (worker,) = daemon.wait_for_workers(1)
        with costs_nothing(worker):
            sock.sendall(first)
            sock.send(b"!", socket.MSG_OOB)
            daemon.wait_for_line("came in pieces")
            with contextlib.suppress(ConnectionError):
                assert read_all(sock) == b""


# --- sessions that are older than their certificate -----------------------------------------------------


def short_lived(directory: Path, end: datetime) -> Issued:
    """The laboratory's client, with a certificate that ends then."""
    lab = pki()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(lab.client.certificate.subject)
        .issuer_name(lab.ca.certificate.subject)
        .public_key(lab.client.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
        .sign(lab.ca.key, hashes.SHA256())
    )
    path = directory / "short-lived.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Issued(certificate, lab.client.key, (certificate,), str(path), lab.client.key_file)


def test_a_session_ends_with_its_certificate(tmp_path: Path) -> None:
    """A resumption verifies no certificate again, and each gives a new ticket: it would go on for years."""
    with open_directory() as directory, Node(directory / "n") as node:
        directory.chmod(0o777)
        with front(node, client_ca=pki().ca.crt) as (_, host):
            end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
            identity = short_lived(tmp_path, end)
            clients = {version: client_context(version, identity) for version in (TLS_1_2, TLS_1_3)}
            sessions: dict[ssl.TLSVersion, ssl.SSLSession | None] = {}
            for resumed in (False, True):
                for version, context in clients.items():
                    with HttpClient(host, context=context, session=sessions.get(version)) as client:
                        assert client.sock.session_reused is resumed
                        assert client.get().status == 200
                        sessions[version] = client.sock.session
            assert datetime.now(UTC) < end, "too slow a machine for this test"
            assert [call.variables.get("HTTPS_DN") for call in node.calls] == [CLIENT_DN] * 4
            threading.Event().wait((end - datetime.now(UTC)).total_seconds() + 1.1)
            for version, context in clients.items():
                with (
                    pytest.raises((Truncated, ssl.SSLError, ConnectionError)),
                    HttpClient(host, context=context, session=sessions[version]) as client,
                ):
                    client.get()
            assert len(node.calls) == 4


# --- last words -----------------------------------------------------------------------------------------


def send_much(sock: socket.socket | ssl.SSLSocket) -> None:
    """1 MB: half at once, half after the server has said that it has said all."""
    sock.sendall(bytes(MIB // 2))
    end = select.poll()
    end.register(sock, select.POLLRDHUP)
    assert end.poll(SECONDS * 1000)
    for _ in range(50):
        sock.sendall(bytes(MIB // 100))


def test_a_400_survives_what_the_client_still_sends(hasty: Site) -> None:
    with hasty.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        send_much(client.tls)
        assert client.answer().status == 400
        client.assert_ended()


def test_the_answer_to_plain_http_survives_its_body(hasty: Site) -> None:
    with socket.create_connection(hasty.address, SECONDS) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        send_much(sock)
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert b"use TLS" in body


def test_an_alert_survives_what_the_client_still_sends(hasty: Site) -> None:
    with socket.create_connection(hasty.address, SECONDS) as sock:
        sock.sendall(b"\x16\x03\x01\0\x2c\x01\0\0\x28" + bytes(40))  # a ClientHello of no version at all
        send_much(sock)
        assert read_all(sock)[:1] == b"\x15", "no alert (RFC 8446, 5.1)"


def test_a_client_that_never_ends_is_left(hasty: Site) -> None:
    """The moment for which a refused client is listened to is one, however much it sends."""
    with socket.create_connection(hasty.address, SECONDS) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_all(sock)
        began = time.monotonic()
        pause = threading.Event()
        with pytest.raises(ConnectionError):  # noqa: PT012
            while time.monotonic() < began + 10:
                sock.sendall(b"more")
                pause.wait(0.05)
        assert time.monotonic() - began < LINGER_SECONDS + SLACK_SECONDS
