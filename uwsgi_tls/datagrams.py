"""A UNIX datagram socket to a log daemon, syslog's or the journal's, which is never waited for (unix(7)).

It is connected before root is given up and the root directory changes. A daemon that is started anew binds a new
socket, so a send that is refused is followed by another attempt to connect, once a second. An upgrade leaves it to the
next program as it is: the daemon may be away by then, or reached by root alone.
"""

import errno
import os
import socket
import time

from uwsgi_tls import heritage

RETRY_SECONDS = 1.0
_NOBODY = (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE)


class Datagrams:
    """Each message is one datagram: it arrives as a whole, or not at all."""

    def __init__(self, path: str) -> None:
        """Raises OSError where nobody has bound `path`, or not for datagrams."""
        self._path = os.path.abspath(path)
        self._next_try = 0.0  # time.monotonic() seconds
        name = f"datagrams to {path}"
        if (left := heritage.left(name)) is not None:
            self._socket = socket.socket(fileno=left)
        else:
            self._socket = _connected(self._path)
        heritage.keep(name, self._socket.fileno())

    def send(self, data: bytes) -> None:
        """Raises OSError; BlockingIOError where the other side does not read."""
        try:
            self._socket.send(data)
        except OSError as error:
            if error.errno not in _NOBODY or time.monotonic() < self._next_try:
                raise
            self._next_try = time.monotonic() + RETRY_SECONDS
            self._socket.connect(self._path)
            self._socket.send(data)


def _connected(path: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        channel.connect(path)
    except OSError:
        channel.close()
        raise
    return channel
