"""A socket that has had our last word: kept until the client's end, so that this word arrives.

The kernel answers bytes that nobody reads with a reset, and a reset destroys what the client has not read yet
(RFC 9112, 9.6). So what still comes is read and thrown away, for a moment.
"""

import socket
from _socket import socket as RawSocket

from uwsgi_tls.lounge import READ
from uwsgi_tls.service import Service

LINGER_SECONDS = 2.0
READ_BYTES = 65536
READS_PER_TURN = 16


class Farewell:
    __slots__ = ("_fd", "_service", "_sock", "armed", "deadline")

    def __init__(self, service: Service, sock: RawSocket, fd: int, armed: int) -> None:
        """Takes over a socket that epoll watches for `armed`, and says that we send nothing more."""
        self.deadline = service.lounge.now + LINGER_SECONDS
        self.armed = armed
        self._service = service
        self._sock = sock
        self._fd = fd
        service.guests.add(self)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()
        else:
            self.ready(0)

    def ready(self, events: int) -> None:
        try:
            for _ in range(READS_PER_TURN):
                if not self._sock.recv(READ_BYTES):
                    return self._close()
        except BlockingIOError:
            pass
        except OSError:
            return self._close()
        return self._service.lounge.park(self._fd, self, READ)

    def expired(self) -> None:
        self._close()

    def crashed(self) -> None:
        self._close()

    def leave_if_idle(self, when: float) -> None:
        """It is leaving already."""

    def _close(self) -> None:
        self._service.lounge.forget(self._fd, self)
        self._sock.close()
        self._service.left(self)
