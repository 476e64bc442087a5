"""A TLS client that sends exactly the bytes that it is told to, and h11 to judge every byte of the answers.

Half a response, a response that is not well formed, and a TCP end without close_notify (which could be an attacker's)
are errors here: http.client forgives all three. `serving` is the server to talk to, with the test's own application.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h11
from pki import Issued, pki

from .server import Daemon, Process, loopback, uwsgi_tls, wait_until

ANSWER_SECONDS = 20.0  # until the next bytes come
READ_BYTES = 65536
PORT = 8443


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. `headers`: lower-case names, repeated ones joined by ", "."""

    status: int
    headers: dict[str, str]
    body: bytes  # empty when a sink took it
    interim: tuple[int, ...]  # the 1xx that came before

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """One connection, with its handshake done."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        certificate: Issued | None = None,
        receive_buffer_bytes: int = 0,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki().ca.crt)
        context.maximum_version = newest
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which Python sets, and which takes any end for a good one
        if certificate is not None:
            context.load_cert_chain(certificate.crt, certificate.key_file)
        raw = socket.socket()
        if receive_buffer_bytes:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)  # before connect: tcp(7)
        raw.settimeout(ANSWER_SECONDS)
        raw.connect(address)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context.wrap_socket(raw, server_hostname="server.lab", suppress_ragged_eofs=False)
        self._left = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tls.close()

    def send(self, data: bytes) -> None:
        self.tls.sendall(data)

    def send_pieces(self, data: bytes, size: int) -> None:
        """Each piece in a TLS record and a TCP segment of its own."""
        for at in range(0, len(data), size):
            self.tls.sendall(data[at : at + size])

    def peek(self) -> bytes:
        """Wait for something to come and leave it for `answer`."""
        self._left += self.tls.recv(READ_BYTES)
        return self._left

    def answer(self, method: str = "GET", *, sink: Callable[[bytes], object] | None = None) -> Answer:
        """Read the whole response to a `method` request; raises what h11 or the TLS layer thinks of a bad one."""
        judge = h11.Connection(h11.CLIENT)
        judge.send(h11.Request(method=method, target="/", headers=[("Host", "server.lab")]))
        judge.send(h11.EndOfMessage())
        if self._left:
            judge.receive_data(self._left)
        interim: list[int] = []
        body: list[bytes] = []
        keep = sink or body.append
        head: h11.Response | None = None
        while True:
            event = judge.next_event()
            if event is h11.NEED_DATA:
                judge.receive_data(self.tls.recv(READ_BYTES))
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                keep(bytes(event.data))
            else:
                assert isinstance(event, h11.EndOfMessage), event
                assert head is not None
                self._left = bytes(judge.trailing_data[0])
                return Answer(head.status_code, _headers(head), b"".join(body), tuple(interim))

    def ask(self, request: bytes) -> Answer:
        """Send a request and read its response."""
        self.send(request)
        return self.answer("HEAD" if request.startswith(b"HEAD ") else "GET")

    def assert_ended(self) -> None:
        """The server sends nothing more, not a byte, and ends TLS and TCP in due form."""
        assert not self._left, f"bytes that nobody asked for: {self._left!r}"
        more = self.tls.recv(READ_BYTES)  # b"" for close_notify; a bare TCP end would raise SSLError
        assert not more, f"bytes that nobody asked for: {more!r}"

    def ends_cleanly(self) -> bool:
        """Read to the end; whether the server said that it was the end, so that what came can pass for complete."""
        try:
            while self.tls.recv(READ_BYTES):
                pass
        except (ssl.SSLError, ConnectionResetError):
            return False
        return True

    def reset(self) -> None:
        """Leave without a word: the server gets a TCP reset (socket(7), SO_LINGER 0)."""
        self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tls.close()


def _headers(response: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def get(path: str, *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    """The bytes of a request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: server.lab", *fields, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *fields: str, version: str = "1.1") -> bytes:
    """The bytes of a request with a body of a stated length."""
    return get(path, f"Content-Length: {len(body)}", *fields, version=version, method="POST") + body


def chunked(path: str, body: bytes, size: int, *fields: str) -> bytes:
    """The bytes of a request whose body comes in chunks of `size` bytes."""
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return get(path, "Transfer-Encoding: chunked", *fields, method="POST") + coded + b"0\r\n\r\n"


# --- the server -----------------------------------------------------------------------------------------


# A WSGI application for `Site.descriptors`; needs os.
DESCRIPTORS = """
def descriptors(environ, start_response):
    start_response("200 OK", [])
    return [str(len(os.listdir("/proc/self/fd"))).encode()]
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A running server."""

    daemon: Daemon
    address: tuple[str, int]

    def connect(
        self,
        *,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        certificate: Issued | None = None,
        receive_buffer_bytes: int = 0,
    ) -> Client:
        return Client(self.address, newest=newest, certificate=certificate, receive_buffer_bytes=receive_buffer_bytes)

    def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.ask(request)

    @property
    def worker(self) -> Process:
        """Its one worker."""
        (worker,) = self.daemon.wait_for_workers(1)
        return worker

    def descriptors(self) -> int:
        """How many the worker has open, as the application at /descriptors says.

        Only root can see it from outside, as the worker is not dumpable (proc(5)).
        """
        return int(self.ask(get("/descriptors", "Connection: close")).body)

    def wait_for_descriptors(self, count: int) -> None:
        """Wait until the worker has no more descriptors open than `count`."""
        wait_until(lambda: self.descriptors() <= count, 10.0, lambda: f"{self.descriptors()} descriptors, were {count}")

    def wait_for_lines(self, line: str, count: int) -> None:
        """Wait until `line` stands so many times in the log."""
        wait_until(lambda: self.daemon.lines.count(line) >= count, 10.0, lambda: self.daemon.log)

    def peak_bytes(self) -> int:
        """The most memory that the worker has ever had (proc(5), VmHWM)."""
        return int(self.worker.status()["VmHWM"].removesuffix("kB")) * 1024


@contextlib.contextmanager
def serving(directory: Path, application: str = "", *options: str | Path, client_ca: str = "") -> Iterator[Site]:
    """The server with the text of a WSGI file, put into `directory`; without one it serves its built-in page."""
    if application:
        (directory / "app.py").write_text(application)
        options = ("--wsgi-file", "app.py", *options)
    host = loopback()
    identity = pki().server_ec
    listener = f"{host}:{PORT},{identity.crt},{identity.key_file}"
    if client_ca:
        listener += f",,{client_ca}"
    with uwsgi_tls("--https", listener, *options, cwd=directory) as daemon:
        daemon.wait_for_workers(1)
        yield Site(daemon, (host, PORT))
