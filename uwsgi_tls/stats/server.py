"""Answers whoever connects to a socket for statistics; one thread that waits for nobody, few clients, little time.

On a plain socket a client says nothing, as with uWSGI: it gets the document and the end. On one of HTTP it gets an
answer to one GET, if it asked for an address and not for a name, which may be anybody's. Nothing that a client says is
used for more than to choose among a handful of documents.
"""

import re
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

from uwsgi_tls.listeners import StatsSocket

CLIENTS_MAX = 32  # more make the oldest go
CLIENT_SECONDS = 5.0  # for all of it
HEAD_BYTES = 8192
READ_BYTES = 4096
_HOST = re.compile(rb"^host:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_GONE = select.EPOLLHUP | select.EPOLLERR


@dataclass(frozen=True, slots=True)
class Document:
    """What a path shows."""

    kind: str  # Content-Type
    make: Callable[[], bytes]
    policy: str = "default-src 'none'"  # Content-Security-Policy


@dataclass(frozen=True, slots=True)
class Site:
    """All documents by path, and which of them is shown to who does not ask, or wants no HTML."""

    documents: Mapping[str, Document]
    plain: Document
    public: bool = False  # by whatever host name


@dataclass(slots=True)
class _Client:
    socket: socket.socket
    deadline: float
    http: bool
    head: bytes = b""
    answer: bytes = b""


class Server:
    """Serves `site` at listening sockets that do not block."""

    def __init__(self, sockets: Sequence[StatsSocket], site: Site, end: int = -1) -> None:
        """`end` is a descriptor; once it can be read, nobody new is answered and run() returns with the last client."""
        self._site = site
        self._end = end
        self._leaving = False
        self._sockets = {each.socket.fileno(): each for each in sockets}
        self._clients: dict[int, _Client] = {}  # the oldest first
        self._poll = select.epoll()
        for fd in self._sockets:
            self._poll.register(fd, select.EPOLLIN)
        if end >= 0:
            self._poll.register(end, select.EPOLLIN)

    def run(self) -> None:
        while self._clients or not self._leaving:
            self.turn()

    def turn(self, patience: float = -1.0) -> None:
        """Waits for something to do, `patience` seconds at most, and does it."""
        if self._clients:
            patience = max(0.0, next(iter(self._clients.values())).deadline - time.monotonic())
        for fd, events in self._poll.poll(patience):
            if fd == self._end:
                self._leave()
            elif fd in self._sockets and not self._leaving:
                self._accept(self._sockets[fd])
            elif fd in self._clients:
                self._drive(self._clients[fd], events)
        now = time.monotonic()
        for client in [each for each in self._clients.values() if each.deadline <= now]:
            self._close(client)

    def _leave(self) -> None:
        """Whoever is connected gets his answer still; the queue is the next process's."""
        self._leaving = True
        for fd in (self._end, *self._sockets):
            self._poll.unregister(fd)

    def _accept(self, listening: StatsSocket) -> None:
        try:
            sock, _ = listening.socket.accept()
        except OSError:  # it has left already
            return
        if len(self._clients) >= CLIENTS_MAX:
            self._close(next(iter(self._clients.values())))
        sock.setblocking(False)
        client = _Client(sock, time.monotonic() + CLIENT_SECONDS, listening.http)
        self._clients[sock.fileno()] = client
        if not client.http:
            client.answer = self._site.plain.make()
        self._poll.register(sock.fileno(), select.EPOLLIN if client.http else select.EPOLLOUT)

    def _drive(self, client: _Client, events: int) -> None:
        try:
            if not client.answer:
                client.head += client.socket.recv(READ_BYTES) or b"\r\n\r\n"  # who says no more has asked all
                if not self._is_whole(client.head):
                    return
                any_host = self._site.public or client.socket.family == socket.AF_UNIX
                client.answer = respond(client.head, self._site, any_host=any_host)
                self._poll.modify(client.socket.fileno(), select.EPOLLOUT)
            client.answer = client.answer[client.socket.send(client.answer) :]
        except BlockingIOError:
            return
        except OSError:
            return self._close(client)
        if not client.answer or events & _GONE:
            self._close(client)

    def _is_whole(self, head: bytes) -> bool:
        return b"\r\n\r\n" in head or b"\n\n" in head or len(head) > HEAD_BYTES

    def _close(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        with suppress(OSError):  # what it has said and nobody read must not destroy the answer by a reset
            client.socket.shutdown(socket.SHUT_WR)
            client.socket.recv(HEAD_BYTES)
        client.socket.close()


def respond(head: bytes, site: Site, *, any_host: bool = False) -> bytes:
    """The whole HTTP response to a request head, after which the connection ends.

    Without `any_host` a name that is not localhost is refused: its owner can make it lead to our address, and his page
    would then read ours as its own (DNS rebinding).
    """
    line, _, fields = head[:HEAD_BYTES].partition(b"\n")
    words = line.split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response(400, Document("text/plain; charset=utf-8", lambda: b"not HTTP\n"))
    if not any_host and not all(_is_ours(host.decode("latin-1")) for host in _HOST.findall(fields)):
        wrong = Document("text/plain; charset=utf-8", lambda: b"ask for the address, or say stats-public\n")
        return _response(421, wrong, body=words[0] != b"HEAD")
    method, target = words[0], words[1].partition(b"?")[0].decode("latin-1")
    document = site.documents.get(target)
    if target == "/" and b"text/html" not in fields:
        document = site.plain  # uwsgitop http://ADDRESS
    if document is None:
        return _response(404, Document("text/plain; charset=utf-8", lambda: b"not found\n"), body=method != b"HEAD")
    if method not in (b"GET", b"HEAD"):
        return _response(405, Document("text/plain; charset=utf-8", lambda: b"GET it\n"), "Allow: GET, HEAD\r\n")
    return _response(200, document, body=method == b"GET")


def _is_ours(host: str) -> bool:
    """Whether this value of Host (RFC 9110, 7.2) is an address, localhost, or nothing; a port may follow."""
    name = re.sub(r":[0-9]*\Z", "", host) if host.count(":") == 1 or "]" in host else host
    if name.lower() in ("", "localhost"):
        return True
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True


def _response(status: int, document: Document, more: str = "", *, body: bool = True) -> bytes:
    content = document.make()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {document.kind}\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\nCache-Control: no-store\r\nVary: Accept\r\n"
        f"X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n"
        f"Content-Security-Policy: {document.policy}\r\n{more}\r\n"
    )
    return head.encode("latin-1") + (content if body else b"")
