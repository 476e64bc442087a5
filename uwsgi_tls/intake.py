"""A request's body on its way in: told from what follows it, and gathered before a backend is asked."""

from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.http import BadRequest
from uwsgi_tls.pace import Pace
from uwsgi_tls.service import Limits
from uwsgi_tls.spool import Disk, Spool


class Intake:
    """Gathers one body of a known length, or of chunks (RFC 9112, 6)."""

    __slots__ = ("_decoder", "_left", "_limit", "_pace", "body", "deadline", "rest")

    def __init__(self, length: int, limits: Limits, disk: Disk, now: float) -> None:
        """`length` in bytes, below 0 for chunks; `now` in time.monotonic() seconds. Raises BadRequest."""
        if limits.body_bytes and length > limits.body_bytes:
            raise BadRequest(413, "the body is larger than limit-post")
        self.body = Spool(limits.memory_bytes, disk)
        if not self.body.has_room(length):
            raise BadRequest(503, "its body cannot be stored: spool-limit is reached")
        self.rest = b""  # what came after the body
        self._left = length
        self._limit = limits.body_bytes
        self._decoder = ChunkedDecoder() if length < 0 else None
        self._pace = Pace(now, limits.body, limits.body_rate, limits.body_time)
        self.deadline = self._pace.deadline(now)

    @property
    def chunked(self) -> bool:
        """Whether what comes may cost far more than its bytes do."""
        return self._decoder is not None

    def feed(self, data: bytes, now: float) -> bool:
        """Adds what has come; True when the body is whole. Raises BadRequest, with 503 where it cannot be stored.

        Only payload buys time, not the frames of chunks.
        """
        before = self.body.size
        whole = self._gather(data)
        if self.body.size > before:
            self._pace.moved(now, self.body.size - before)
            self.deadline = self._pace.deadline(now)
        return whole

    def _gather(self, data: bytes) -> bool:
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
