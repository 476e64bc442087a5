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
    __slots__ = ("_service", "_sock", "armed", "deadline", "fd", "idle_from")

    def __init__(self, service: Service, sock: RawSocket, fd: int, armed: int) -> None:
        """Takes over a socket that epoll watches for `armed`; `begin` follows."""
        self.deadline = service.lounge.now + LINGER_SECONDS
        self.idle_from = service.lounge.now
        self.armed = armed
        self.fd = fd
        self._service = service
        self._sock = sock

    def begin(self) -> None:
        """Says that we send nothing more, and waits for the client to say so."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return self._close()
        return self._service.lounge.park(self.fd, self, READ)  # what has come is an event, too

    def ready(self, events: int) -> None:
        try:
            for _ in range(READS_PER_TURN):
                if not self._sock.recv(READ_BYTES):
                    return self._close()
        except BlockingIOError:
            pass
        except OSError:
            return self._close()
        return self._service.lounge.park(self.fd, self, READ)

    def expired(self) -> None:
        self._close()

    def crashed(self) -> None:
        self._close()

    def owes_from(self) -> float:
        return self.idle_from

    def unwanted(self) -> bool:
        return False

    def waits_for(self) -> str:
        return "farewell"

    def leave_if_idle(self, when: float) -> None:
        """It is leaving already."""

    def give_way(self) -> None:
        self._close()

    def _close(self) -> None:
        self._service.lounge.forget(self.fd, self)
        self._sock.close()
        self._service.crowd.left(self)
