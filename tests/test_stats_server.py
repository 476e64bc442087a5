"""stats/server.py: whoever connects gets a document and the end, and nobody keeps others waiting."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from uwsgi_tls.listeners import StatsSocket
from uwsgi_tls.stats import server as module
from uwsgi_tls.stats.server import CLIENTS_MAX, HEAD_BYTES, Document, Server, Site, respond

SECONDS = 10.0
BIG = b"x" * (8 << 20)  # more than the kernel keeps for a client that does not read
SITE = Site(
    {
        "/": Document("text/html", lambda: b"<html>", "default-src 'self'"),
        "/metrics": Document("text/plain", lambda: b"metrics"),
        "/big": Document("text/plain", lambda: BIG),
    },
    plain=Document("application/json", lambda: b"{}"),
)


class Serving:
    """A server in a thread, on a plain socket and on one of HTTP."""

    def __init__(self, site: Site = SITE) -> None:
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=100) for _ in range(2)]
        for sock in self.sockets:
            sock.setblocking(False)
        plain, http = self.sockets
        self.server = Server([StatsSocket(plain, "plain", False), StatsSocket(http, "http", True)], site)
        self.over = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.over:
            self.server.turn(0.05)

    def connect(self, http: bool) -> socket.socket:
        client = socket.create_connection(self.sockets[http].getsockname(), SECONDS)
        client.settimeout(SECONDS)
        return client

    def ask(self, request: bytes) -> bytes:
        with self.connect(http=True) as client:
            client.sendall(request)
            return read(client)

    def close(self) -> None:
        self.over = True
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        for client in list(self.server._clients.values()):
            client.socket.close()
        self.server._poll.close()
        for sock in self.sockets:
            sock.close()


def read(client: socket.socket) -> bytes:
    data = b""
    while more := client.recv(65536):
        data += more
    return data


@pytest.fixture
def serving() -> Iterator[Serving]:
    scene = Serving()
    yield scene
    scene.close()


def test_who_says_nothing_gets_the_document(serving: Serving) -> None:
    with serving.connect(http=False) as client:
        assert read(client) == b"{}"


@pytest.mark.parametrize(
    ("request_head", "status", "body"),
    [
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK", "metrics"),
        ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "200 OK", "metrics"),
        ("GET / HTTP/1.1\nAccept: text/html\n\n", "200 OK", "<html>"),
        ("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", "200 OK", "{}"),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK", ""),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed", "GET it\n"),
        ("GET /../etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found", "not found\n"),
        ("GET http://a/metrics HTTP/1.1\r\n\r\n", "404 Not Found", "not found\n"),
        ("\x16\x03\x01 hello\r\n\r\n", "400 Bad Request", "not HTTP\n"),
        ("GET /metrics\r\n\r\n", "400 Bad Request", "not HTTP\n"),
        ("GET /" + "a" * HEAD_BYTES + " HTTP/1.1", "400 Bad Request", "not HTTP\n"),
        ("\r\n\r\n", "400 Bad Request", "not HTTP\n"),
    ],
)
def test_http(serving: Serving, request_head: str, status: str, body: str) -> None:
    head, _, content = serving.ask(request_head.encode("latin-1")).decode().partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}\r\n")
    assert content == body
    length = len("metrics") if request_head.startswith("HEAD") else len(body)
    assert f"\r\nContent-Length: {length}\r\n" in head
    assert "\r\nConnection: close\r\n" in head
    assert "\r\nX-Content-Type-Options: nosniff\r\n" in head
    policy = "default-src 'self'" if body == "<html>" else "default-src 'none'"
    assert f"\r\nContent-Security-Policy: {policy}" in head


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9192", True),
        ("[::1]", True),
        ("[::1]:9192", True),
        ("LocalHost:9192", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:9192", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1\r\nhOST:evil.example", False),
    ],
)
def test_a_name_may_be_anybodys(host: str, ours: bool) -> None:
    """A page of evil.example, which its owner makes lead to 127.0.0.1, is not to read ours."""
    head = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert respond(head, SITE).startswith(b"HTTP/1.1 200 OK" if ours else b"HTTP/1.1 421 Misdirected Request")
    assert respond(head, SITE, any_host=True).startswith(b"HTTP/1.1 200 OK")


def test_who_may_use_a_name(serving: Serving) -> None:
    head = b"GET /metrics HTTP/1.1\r\nHost: stats.example\r\n\r\n"
    assert serving.ask(head).startswith(b"HTTP/1.1 421 ")
    serving.server._site = dataclasses.replace(SITE, public=True)
    assert serving.ask(head).startswith(b"HTTP/1.1 200 ")


def test_a_head_in_pieces(serving: Serving) -> None:
    with serving.connect(http=True) as client:
        for piece in (b"GET /met", b"rics HT", b"TP/1.1\r\n", b"\r\n"):
            client.sendall(piece)
        assert read(client).endswith(b"\r\n\r\nmetrics")


def test_a_client_that_ends_its_side_is_answered(serving: Serving) -> None:
    with serving.connect(http=True) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
        client.shutdown(socket.SHUT_WR)
        assert read(client).endswith(b"metrics")


def test_nobody_waits_for_those_who_do_not_read_or_speak(serving: Serving) -> None:
    with serving.connect(http=True) as reader, serving.connect(http=True):
        reader.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        assert serving.ask(b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"metrics")
        assert len(read(reader)) > len(BIG)


def test_a_client_has_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENT_SECONDS", 0.2)
    serving = Serving()
    try:
        with serving.connect(http=True) as client:
            client.sendall(b"GET /")
            assert read(client) == b""
    finally:
        serving.close()


def test_many_make_the_oldest_go(serving: Serving) -> None:
    clients = [serving.connect(http=True) for _ in range(CLIENTS_MAX + 1)]
    assert read(clients[0]) == b""
    clients[1].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert read(clients[1]).endswith(b"metrics")
    for client in clients:
        client.close()


def test_a_client_that_leaves_costs_nobody(serving: Serving) -> None:
    for http in (False, True):
        client = serving.connect(http)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        client.close()
    assert serving.ask(b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"metrics")


def test_nothing_of_a_request_comes_back() -> None:
    assert b"<script" not in respond(b"GET /<script> HTTP/1.1\r\n\r\n", SITE)


def test_at_the_end_it_finishes_what_it_has_begun(serving: Serving) -> None:
    """A new process takes its place: who is connected gets the whole answer, who comes now waits for that one."""
    serving.close()
    (plain, http), (end, wakeup) = (socket.create_server(("127.0.0.1", 0)) for _ in range(2)), os.pipe()
    for sock in (plain, http):
        sock.setblocking(False)
    server = Server([StatsSocket(plain, "plain", False), StatsSocket(http, "http", True)], SITE, end)
    client = socket.create_connection(http.getsockname(), SECONDS)
    server.turn(SECONDS)  # it is accepted
    os.write(wakeup, b"\0")
    late = socket.create_connection(plain.getsockname(), SECONDS)
    thread = threading.Thread(target=server.run)
    thread.start()
    with client, late, plain, http:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert read(client).endswith(b"\r\n\r\nmetrics")
        thread.join(SECONDS)
        assert not thread.is_alive()
        with plain.accept()[0]:
            pass
    os.close(end)
    os.close(wakeup)
