"""One TLS connection of a client that forgives nothing: half an answer is none, nor is an end without close_notify.

When the connection ends too early it says whether any of the answer had come: only if not may an idempotent request be
sent again (RFC 9110, 9.2.2).
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

PATIENCE_SECONDS = 30.0  # without a byte; what takes longer hangs
READ_BYTES = 65536
_pause = threading.Event().wait

Result = TypeVar("Result")


class CutError(Exception):
    """The connection ended before the answer did."""

    def __init__(self, cause: str, *, begun: bool) -> None:
        super().__init__(cause)
        self.begun = begun  # some of the answer had come


class WrongError(Exception):
    """Something that must not be; the text says what."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and how slowly."""

    target: str
    method: str = "GET"
    body: bytes = b""
    sent_bytes: int = 0  # of the body at once; 0: all
    read_bytes: int = 0  # of the answer at once; 0: all that is there
    pause: float = 0.0  # seconds, after each piece

    def head(self) -> bytes:
        length = f"Content-Length: {len(self.body)}\r\n" if self.method == "PUT" else ""
        return f"{self.method} {self.target} HTTP/1.1\r\nHost: server.lab\r\n{length}\r\n".encode()


class Connection:
    """From connect() on; `shake_hands` comes first."""

    def __init__(self, address: tuple[str, int], receive_buffer: int = 0) -> None:
        """Raises WrongError: the port is served at every moment."""
        self.opened = time.monotonic()
        self.address = address
        self.begun = False  # something of the present answer has come
        self.stays = True
        self.asked = 0  # requests
        self._raw = self._sock = socket.socket()
        if receive_buffer:
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._raw.settimeout(PATIENCE_SECONDS)
        try:
            self._raw.connect(address)
        except OSError as error:
            self._raw.close()
            raise WrongError(f"cannot connect: {error}") from None
        self.port: int = self._raw.getsockname()[1]
        self._left = b""  # read, and not taken yet

    def close(self) -> None:
        self._sock.close()

    def shake_hands(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        """Raises CutError."""
        self._sock = self._guarded(
            lambda: context.wrap_socket(
                self._raw, server_hostname="server.lab", session=session, suppress_ragged_eofs=False
            )
        )

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._sock.session if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def resumed(self) -> bool:
        return isinstance(self._sock, ssl.SSLSocket) and bool(self._sock.session_reused)

    def send(self, data: bytes) -> None:
        self._guarded(lambda: self._sock.sendall(data))

    def exchange(self, request: Request) -> bytes:
        """The body of the answer, which is a 200. Raises CutError, WrongError."""
        self.begun, self.asked = False, self.asked + 1
        self.send(request.head())
        size = request.sent_bytes or max(len(request.body), 1)
        for at in range(0, len(request.body), size):
            self.send(request.body[at : at + size])
            if request.sent_bytes:
                _pause(request.pause)
        fields = self.read_head(200)
        self.stays = fields.get("connection", "") != "close"
        body = self._body(fields, request)
        if self._left:
            raise WrongError(f"more than an answer: {self._left[:80]!r}")
        return body

    def _body(self, fields: dict[str, str], request: Request) -> bytes:
        if "content-length" in fields:
            return self._take(int(fields["content-length"]), request)
        if fields.get("transfer-encoding") != "chunked":
            raise WrongError(f"an answer without an end: {fields}")
        body = []
        while size := int(self._line(), 16):
            body.append(self._take(size, request))
            if self._line():
                raise WrongError("a chunk is longer than it says")
        if self._line():
            raise WrongError("a trailer that nobody sent")
        return b"".join(body)

    def read_head(self, expected: int) -> dict[str, str]:
        """The fields of an answer of that status. Raises CutError, WrongError."""
        line = self._line()
        if not line.startswith(b"HTTP/1.1 %d " % expected):
            raise WrongError(f"not a {expected}: {line[:80]!r}")
        fields = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(": ")
            fields[name.lower()] = value.lower()
        return fields

    def take(self, count: int) -> bytes:
        """The next bytes. Raises CutError, WrongError."""
        return self._take(count, Request(""))

    def _take(self, count: int, pace: Request) -> bytes:
        pieces, left = [], count
        while left:
            if not self._left:
                self._read(pace.read_bytes or READ_BYTES)
                if pace.read_bytes:
                    _pause(pace.pause)
            piece, self._left = self._left[:left], self._left[left:]
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _line(self) -> bytes:
        while b"\r\n" not in self._left:
            self._read(READ_BYTES)
        line, _, self._left = self._left.partition(b"\r\n")
        return line

    def _read(self, count: int) -> None:
        data = self._guarded(lambda: self._sock.recv(count))
        if not data:
            raise CutError("the server said that it was the end", begun=self.begun)
        self.begun = True
        self._left += data

    def _guarded(self, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except TimeoutError:
            raise WrongError(f"nothing for {PATIENCE_SECONDS:.0f} seconds") from None
        except (ConnectionError, ssl.SSLError) as error:
            raise CutError(f"{type(error).__name__}: {error}", begun=self.begun) from None

    def reset(self) -> None:
        """Leaves without a word: the server gets a TCP reset (socket(7), SO_LINGER 0)."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()
