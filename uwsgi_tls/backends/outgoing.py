"""A request on its way to a node: its words in the node's protocol, and then the body as it is."""

from _socket import socket as RawSocket

from uwsgi_tls.spool import Spool

BLOCK_BYTES = 65536  # of one write
BODY_BYTES = 1 << 20  # sent in one turn; then other connections have theirs


class Outgoing:
    __slots__ = ("_body", "_unsent", "_words")

    def __init__(self, words: bytes, body: Spool | None) -> None:
        self._words = self._unsent = words
        self._body = body

    def send(self, sock: RawSocket) -> bool:
        """Whether all has been sent. Raises BlockingIOError when the node does not take more now, and OSError."""
        while self._unsent:
            self._unsent = self._unsent[sock.send(self._unsent) :]
        body, budget = self._body, BODY_BYTES
        while body is not None and body.size:
            if budget <= 0:
                return False
            sent = sock.send(body.front(BLOCK_BYTES))
            body.consume(sent)
            budget -= sent
        return True

    @property
    def left(self) -> int:
        """How many bytes are still to be sent."""
        return len(self._unsent) + (self._body.size if self._body is not None else 0)

    def rewind(self) -> None:
        """All of it is to be sent once more."""
        self._unsent = self._words
        if self._body is not None:
            self._body.rewind()

    def close(self) -> None:
        """Nothing of it is needed any more."""
        if self._body is not None:
            self._body.close()
