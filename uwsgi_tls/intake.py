"""A request's body on its way in: told from what follows it, and gathered before a backend is asked."""

from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.http import BadRequest
from uwsgi_tls.spool import Spool


class Intake:
    """Gathers one body of a known length, or of chunks (RFC 9112, 6)."""

    __slots__ = ("_decoder", "_left", "_limit", "body", "rest")

    def __init__(self, length: int, limit: int, memory: int) -> None:
        """All in bytes; a `length` below 0 means chunks, a `limit` of 0 none; `memory` is the spool's."""
        if limit and length > limit:
            raise BadRequest(413, "the body is larger than limit-post")
        self.body = Spool(memory)
        self.rest = b""  # what came after the body
        self._left = length
        self._limit = limit
        self._decoder = ChunkedDecoder() if length < 0 else None

    def feed(self, data: bytes) -> bool:
        """Adds what has come; True when the body is whole. Raises BadRequest, with 503 where it cannot be stored."""
        decoder = self._decoder
        if decoder is None:
            self._store(data[: self._left])
            self.rest = data[self._left :]
            self._left -= len(data)
            return self._left <= 0
        self._store(decoder.feed(data))
        if self._limit and self.body.size > self._limit:
            raise BadRequest(413, "the body is larger than limit-post")
        if decoder.done:
            self.rest = decoder.rest
        return decoder.done

    def _store(self, data: bytes) -> None:
        try:
            self.body.append(data)
        except OSError as error:
            raise BadRequest(503, f"its body cannot be stored: {error.strerror}") from None
