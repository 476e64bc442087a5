"""Behind a load balancer: the PROXY header before TLS says who the client is, from those who are believed."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pki import pki

from .raw_client import PORT
from .server import Daemon, loopback, uwsgi_tls

WHO = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['REMOTE_ADDR']} {environ['REMOTE_PORT']}".encode()]
"""
V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 40001 443\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x21" + struct.pack("!H", 36 + 5) + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
V2 += socket.inet_pton(socket.AF_INET6, "::1") + struct.pack("!HH", 5, 443) + b"\x04\x00\x02ok"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


@contextlib.contextmanager
def behind(directory: Path, *trusted: str) -> Iterator[tuple[Daemon, str]]:
    (directory / "app.py").write_text(WHO)
    host, server = loopback(), pki().server_ec
    options = ["--https", f"{host}:{PORT},{server.crt},{server.key_file}", "--wsgi-file", "app.py"]
    options += ["--http-enable-proxy-protocol", *(f"--proxy-protocol-trust={network}" for network in trusted)]
    with uwsgi_tls(*options, cwd=directory) as daemon:
        daemon.wait_for_workers(1)
        yield daemon, host


def connect(host: str) -> socket.socket:
    sock = socket.create_connection((host, PORT), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(
    sock: socket.socket, request: bytes = b"GET / HTTP/1.1\r\nHost: server.lab\r\nConnection: close\r\n\r\n"
) -> bytes:
    context = ssl.create_default_context(cafile=str(pki().ca.crt))
    with context.wrap_socket(sock, server_hostname="server.lab") as tls:
        tls.sendall(request)
        return b"".join(iter(lambda: tls.recv(65536), b""))


@pytest.mark.parametrize(
    ("header", "client"), [pytest.param(V1, b"192.0.2.7 40001", id="v1"), pytest.param(V2, b"2001:db8::7 5", id="v2")]
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_the_client_is_whom_the_header_names(tmp_path: Path, header: bytes, client: bytes, step: int) -> None:
    """However the header comes; the access log has it too."""
    with behind(tmp_path, "192.0.2.1", "127.0.0.0/8") as (daemon, host):
        sock = connect(host)
        for start in range(0, len(header), step):
            sock.sendall(header[start : start + step])
        assert ask(sock).endswith(client)
        daemon.wait_for_line(rf"\] {client.split()[0].decode()} \(\)")


def test_a_balancer_that_speaks_for_itself(tmp_path: Path) -> None:
    with behind(tmp_path, "127.0.0.0/8") as (_, host):
        sock = connect(host)
        own = sock.getsockname()
        sock.sendall(LOCAL)
        assert ask(sock).endswith(f"{own[0]} {own[1]}".encode())


def assert_turned_away(host: str, first: bytes) -> None:
    """The connection ends without a word."""
    with connect(host) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(first)
        assert sock.recv(1) == b""


@pytest.mark.parametrize(
    "first",
    [b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x y 1 2\r\n", V2[:13] + b"\xff" + V2[14:]],
)
def test_without_a_header_nobody_is_served(tmp_path: Path, first: bytes) -> None:
    with behind(tmp_path, "127.0.0.0/8") as (daemon, host):
        assert_turned_away(host, first)
        assert "Traceback" not in daemon.log
        sock = connect(host)
        sock.sendall(V1)
        assert ask(sock).endswith(b"192.0.2.7 40001")


def test_the_header_of_a_stranger_is_not_believed(tmp_path: Path) -> None:
    with behind(tmp_path, "192.0.2.0/24") as (daemon, host):
        assert_turned_away(host, V1)
        daemon.wait_for_line("not to be believed")


def test_a_header_inside_tls_is_a_bad_request(tmp_path: Path) -> None:
    """uWSGI takes it there, from any client."""
    with behind(tmp_path, "127.0.0.0/8") as (_, host):
        sock = connect(host)
        sock.sendall(V1)
        answer = ask(sock, b"PROXY TCP4 203.0.113.1 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")


def test_whom_to_believe_must_be_said() -> None:
    with uwsgi_tls("--https", "127.0.0.1:0,a,b", "--http-enable-proxy-protocol") as daemon:
        assert daemon.wait() == 1
        assert "proxy-protocol-trust must name" in daemon.log
