"""One request and its response: what a backend is handed, and what it answers through.

A backend calls `start`, then `write` for each block, then `finish`; or `fail`; or `send_file`. None of them waits for
the client: what the socket does not take now goes to a spool, and the lounge drains it while the backend goes on. A
backend closes the request's body when it has read it. The spool is the only thing that two threads may touch at once
(the one that runs an application, and the one that drains), so it has the only lock here, and that is taken only once
a client has turned out to be slower than its response.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING

from uwsgi_tls import access, response
from uwsgi_tls.gone import Gone
from uwsgi_tls.http import RequestHead
from uwsgi_tls.pace import Pace
from uwsgi_tls.sources import File, FileSource, Source
from uwsgi_tls.spool import Spool
from uwsgi_tls.tally import BOUNDS

if TYPE_CHECKING:
    from uwsgi_tls.connection import Connection

_ALONE = nullcontext()  # in the lock's place as long as there is one thread
FRONT_BYTES = 131072
DRAIN_BYTES_PER_TURN = 1 << 20
RETRY_AFTER_SECONDS = "5"  # with a 429 or 503: RFC 6585, 4, and RFC 9110, 15.6.4
HIGH_WATER_BYTES = 1 << 28  # of a response that waits for its client: a backend's answer is read no further
STEP_BYTES = 1 << 17  # more than a backend's answer grows by in one step
EARNING_BYTES = 1 << 26
FULL_BYTES = HIGH_WATER_BYTES + (1 << 20)  # and an application waits, too


class Exchange:
    __slots__ = (
        "_cut",
        "_ended",
        "_framing",
        "_left",
        "_lock",
        "_pace",
        "_patience",
        "_pending",
        "_room",
        "_source",
        "_taken",
        "body",
        "connection",
        "head",
        "head_bytes",
        "headers",
        "keep_alive",
        "on_dry",
        "on_gone",
        "over",
        "sent",
        "started",
        "status",
        "taken",
        "variables",
        "variables_size",
    )

    def __init__(self, connection: "Connection", head: RequestHead | None) -> None:
        self.connection = connection
        self.head = head  # None: the request could not be read
        self.body: Spool | None = None
        self.taken = False  # a backend has it, and closes the body
        self.started = time.monotonic()  # the clock on the wall may be set meanwhile
        self.status = 0
        self.sent = 0  # bytes of the response's body
        self.headers = self.head_bytes = 0
        self.variables = self.variables_size = 0
        self.keep_alive = head is not None and head.keep_alive
        self.on_gone: Callable[[], None] | None = None  # a producer wants to know that nobody listens any more
        self.on_dry: Callable[[], None] | None = None  # a producer that shares our thread: the client has caught up
        self._pending = b""  # the response head, until the first block goes with it in one record
        self._framing = response.CLOSE
        self._left = 0
        self._source: Source | None = None
        self._lock: threading.Lock | nullcontext[None] = _ALONE
        self._pace: Pace | None = None  # of a client that has not taken all at once
        self._room: threading.Condition | None = None  # for a producer that is far ahead of its client
        self._patience = 0.0  # seconds that it still waits
        self._taken = 0  # bytes that the client has taken since its patience was full
        self._ended = False  # the producer has written all
        self._cut = False  # the producer has given up
        self.over = False  # logged and released; nothing may follow

    # What a backend calls, in this order.

    def start(self, status: str, headers: Sequence[tuple[str, str]]) -> None:
        """The response's status line ("200 OK") and fields. Raises response.BadResponse."""
        service, head = self.connection.service, self.head
        framed = response.frame(
            status,
            headers,
            method=head.method if head is not None else "GET",
            minor=head.minor if head is not None else 1,
            keep_alive=self.keep_alive and service.limits.keepalive > 0 and not service.draining,
            date=service.date(),
            server=service.server,
            hsts=service.hsts,
        )
        self.status = int(status[:3])
        self.keep_alive = framed.keep_alive
        self.headers = framed.head.count(b"\n") - 2
        self._pending = framed.head
        self.head_bytes = len(framed.head)
        self._framing = framed.body
        self._left = framed.length

    @property
    def begun(self) -> bool:
        """Whether the head has been sent, so that the status can change no more."""
        return self.status != 0 and not self._pending

    def write(self, data: bytes) -> None:
        """A block of the body. Raises Gone, and TypeError where it is not bytes."""
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # what `len` of other objects says need not be what is in them
        if self._ended or self.over:
            raise Gone("the response is complete")
        if not data:
            return
        framing = self._framing
        if framing == response.LENGTH:
            if len(data) > self._left:
                self._complain("its body is longer than its Content-Length; cut")
                data, self.keep_alive = data[: self._left], False
                if not data:
                    return
            self._left -= len(data)
        elif framing == response.NONE:
            return
        self.sent += len(data)
        if framing == response.CHUNKED:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._pending:
            data, self._pending = self._pending + data, b""
        self._send(data)

    def flush(self) -> None:
        """Sends the head now, for a body that is long in coming. Raises Gone."""
        if self._pending:
            data, self._pending = self._pending, b""
            self._send(data)

    def finish(self) -> bool:
        """The body is complete. True: all is sent and the caller carries the connection on. Raises Gone."""
        if self._framing == response.LENGTH and self._left:
            self.abort("its body is shorter than its Content-Length")
            return False
        if self._framing == response.CHUNKED:
            data, self._pending = self._pending + b"0\r\n\r\n", b""
            self._send(data)
        elif self._pending:
            self.flush()
        if self._source is not None:
            with self._lock:
                if self._source is not None:
                    self._ended = True
                    return False
        if self.over:  # and the descriptor may be another client's by now
            raise Gone("the client has left")
        self._end()
        return True

    def send_file(self, file: File, size: int) -> bool:
        """The `size` bytes of `file`, read as the client takes them, as the body of a response whose length is known.

        Closes the file. Like finish(). Raises response.BadResponse too, with nothing sent.
        """
        assert self._framing in (response.NONE, response.LENGTH)
        if size < self._left:
            file.close()
            raise response.BadResponse("its file is shorter than its Content-Length")
        if not self._left:
            file.close()
            return self.finish()
        try:
            self._lock, self._source = threading.Lock(), FileSource(self._pending, file, self._left)
        except OSError as error:  # no descriptor is left
            file.close()
            raise response.BadResponse(f"its file cannot be sent: {error.strerror}") from None
        self.sent, self._left, self._pending, self._ended = self._left, 0, b"", True
        try:
            return self._pump()
        except Gone:
            self.client_gone()  # there is a source, but the lounge does not have the connection yet
            return False

    def fail(self, status: int, reason: str) -> bool:
        """Answers with an error of ours, or ends the connection where an answer has begun. Like finish()."""
        if self.begun or self.over:
            self.abort(reason)
            return False
        text = f"{status} {HTTPStatus(status).phrase}"
        page = f"{text}\n".encode()
        self._complain(f"{status}: {reason}")
        self._pending, self.sent = b"", 0
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(page)))]
        if status in (429, 503):
            headers.append(("Retry-After", RETRY_AFTER_SECONDS))
        self.start(text, headers)
        self.write(page)
        return self.finish()

    def abort(self, reason: str) -> None:
        """Ends the connection without a clean end of the body, so that the client can tell; for the producer."""
        self._complain(reason)
        self.abandon()

    def abandon(self) -> None:
        """The producer gives up. Where the lounge has the connection, only its sweep may close it."""
        with self._lock:
            if self.over:
                return
            if self._source is not None:
                self._cut = True
                self.connection.deadline = 0.0
                return
        self.client_gone()

    def client_gone(self) -> None:
        """The connection ends before the response did; tells the producer. For the owner of the connection."""
        with self._lock:
            if self.over:
                return
            self._end()
            if self._room is not None:
                self._room.notify()
        self.connection.close()
        if self.on_gone is not None:
            self.on_gone()

    def waiting(self) -> int:
        """How many bytes wait for the client."""
        source = self._source
        return source.size if source is not None else 0

    @property
    def full(self) -> bool:
        """Whether a producer that can stop should: its client is far behind, or there is no room for what it lacks.

        `on_dry` tells when it may go on. Who asks before each step is never cut off for want of room.
        """
        source = self._source
        return isinstance(source, Spool) and (source.size > HIGH_WATER_BYTES or not source.has_room(STEP_BYTES))

    # The way to the socket.

    def _send(self, data: bytes) -> None:
        source = self._source
        if self.over:  # looked at second: who ends an exchange sets it before the source is taken away
            raise Gone("the client has left")
        if source is None:
            sent = self.connection.write(data)
            if sent == len(data):
                return
            service = self.connection.service
            spool = Spool(service.limits.memory_bytes, service.disk)
            self._append(spool, memoryview(data)[sent:])
            self._lock, self._source = threading.Lock(), spool
            # From here on the lounge owns the TLS connection, and we own the end of the spool.
            self._park(progress=True)
            return
        with self._lock:
            while self._source is not None and self._source.size > FULL_BYTES:
                self._wait_for_room()
            if self.over or self._ended:
                raise Gone("the client has left")
            if isinstance(self._source, Spool):
                return self._append(self._source, data)
        self._send(data)  # it ran dry meanwhile: the connection is ours again

    def _wait_for_room(self) -> None:
        """The one wait of an application for its client: so far ahead that the disk would be the client's to fill.

        It ends when the client has read some, or when all such waits since it last took EARNING_BYTES have lasted for
        the time that there is for writing. Raises Gone.
        """
        if self._room is None:
            assert not isinstance(self._lock, nullcontext)
            self._room = threading.Condition(self._lock)
            self._patience = self.connection.service.limits.write
        begin, held = time.monotonic(), self.connection.service.held
        held.add(self)  # harakiri is for applications that are slow, not for clients
        self._room.wait(self._patience)
        held.discard(self)
        self._patience -= time.monotonic() - begin
        if self._patience <= 0:
            self._complain("its client is too slow for a response of this size, and holds a thread")
            raise Gone("the client is too slow")

    def _earn_patience(self, taken: int) -> None:
        """A client that takes its response at a fair pace may let the application wait again."""
        self._taken += taken
        if self._taken > EARNING_BYTES:
            self._taken = 0
            self._patience = self.connection.service.limits.write

    def _append(self, spool: Spool, data: bytes | memoryview) -> None:
        try:
            spool.append(data, anyway=self.on_dry is not None)
        except OSError as error:
            self._complain(f"what its client did not take yet could not be stored: {error}")
            raise Gone("no room for the response") from None

    def _park(self, progress: bool) -> None:
        """Until the client has read some; of what it lets wait it must take so much a second on average."""
        connection = self.connection
        limits = connection.service.limits
        if self._pace is None:
            self._pace = Pace(connection.service.lounge.now, limits.write, limits.write_rate)
        connection.wait_to_write(self._drain, progress, self._pace.latest)

    def _drain(self, events: int) -> None:
        """The client has read some: sends on. A step of the connection."""
        if self._pump():
            self.connection.resume()

    def _pump(self) -> bool:
        """Moves bytes from the source to the socket. True: the response is complete and its connection goes on."""
        connection = self.connection
        with self._lock:
            source = self._source
            if self.over or source is None:
                return False
            if self._cut:
                raise Gone("the response was given up")
            before = source.size
            empty = self._move(source)
            taken = before - source.size
            if self._room is not None:
                self._earn_patience(taken)
                self._room.notify()
            if not empty:
                if self._pace is not None:
                    self._pace.moved(connection.service.lounge.now, taken)
                self._park(progress=taken > 0)
                return False
            source.close()
            self._source = self._pace = None
            ended = self._ended
        if ended:
            self._end()
            return True
        if self.on_dry is not None:
            connection.wait_for_answer()
            self.on_dry()
        return False

    def _move(self, source: Source) -> bool:
        """Sends until the source is empty (True), the socket is full, or it is the others' turn (False)."""
        budget = DRAIN_BYTES_PER_TURN
        while source.size:
            try:
                front = source.front(FRONT_BYTES)
            except OSError as error:
                self._complain(f"the rest of its response could not be read: {error}")
                raise Gone("the response cannot be read") from None
            sent = self.connection.write(front)
            source.consume(sent)
            budget -= sent
            if sent < len(front) or budget <= 0:
                return not source.size
        return True

    # The end.

    def _end(self) -> None:
        self.over = True
        service = self.connection.service
        service.requests += 1
        tally, seconds = service.tally, time.monotonic() - self.started
        tally.responses[self.status // 100] += 1
        tally.seconds += seconds
        tally.durations[bisect_left(BOUNDS, seconds)] += 1
        if service.access_log is not None:
            service.access_log.write(access.record(self, seconds))
        if self.body is not None and not self.taken:
            self.body.close()
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _complain(self, reason: str) -> None:
        head, connection = self.head, self.connection
        what = f"{head.method} {head.target}" if head is not None else "a request"
        connection.service.complain(f"{what} of {connection.peer[0]}: {reason}")
