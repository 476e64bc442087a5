"""Our HTTP parser beside two others: h11 (strict, any method) and httptools (llhttp, as in Node.js).

A stream of bytes is read by all three as far as each accepts it. What ours accepts, a judge must read as the same
requests with the same bodies; where it refuses instead, or where ours refuses what a judge accepts, the class of the
difference stands in one of the tables below with its reason. A request that two parsers read differently is what
request smuggling is made of, so a difference that is not in a table fails.

UWSGI_TLS_FUZZ_EXAMPLES=100000 makes a long run.
"""

import os
from dataclasses import dataclass, field

import h11
import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uwsgi_tls.http import CHUNKED, BadRequest, ChunkedDecoder, head_end, parse_head

EXAMPLES = int(os.environ.get("UWSGI_TLS_FUZZ_EXAMPLES", "1500"))
LIMIT = 8192


@dataclass(frozen=True)
class Request:
    """What a backend would be told."""

    method: bytes
    target: bytes
    host: bytes | None  # as the fields say it, before the target wins
    body: bytes


@dataclass
class Reading:
    """What a parser makes of a stream: requests that it read to their end, and why it stopped there."""

    requests: list[Request] = field(default_factory=list)
    refused: str = ""  # the reason; "" when it would take more bytes, or closes after the last request


def ours(stream: bytes) -> Reading:
    reading = Reading()
    try:
        while (end := head_end(stream, LIMIT)) >= 0:
            head = parse_head(stream[:end], 100)
            stream = stream[end:]
            if head.content_length == CHUNKED:
                decoder = ChunkedDecoder()
                body = decoder.feed(stream)
                if not decoder.done:
                    break
                stream = decoder.rest
            else:
                body, stream = stream[: head.content_length], stream[head.content_length :]
                if len(body) < head.content_length:
                    break
            host = head.fields.get("HTTP_HOST", "") if head.target[:1] in "/*" else ""
            reading.requests.append(
                Request(head.method.encode(), head.target.encode(), host.encode("latin-1"), body),
            )
            if not head.keep_alive:
                break
    except BadRequest as refusal:
        reading.refused = refusal.reason
    return reading


def by_h11(stream: bytes) -> Reading:
    reading = Reading()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    try:
        connection.receive_data(stream)
        while True:
            head = connection.next_event()
            if head is h11.NEED_DATA or head is h11.PAUSED or isinstance(head, h11.ConnectionClosed):
                break
            assert isinstance(head, h11.Request)
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                break
            host = dict(head.headers).get(b"host", b"") if head.target[:1] in b"/*" else b""
            reading.requests.append(Request(head.method, head.target, host, body))
            connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                break
            connection.start_next_cycle()
    except h11.RemoteProtocolError as refusal:
        reading.refused = str(refusal)
    return reading


class Listener:
    """httptools' callbacks."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.body = b""
        self.host = b""
        self.in_head = True
        self.closed = False

    def on_message_begin(self) -> None:
        self.target = self.body = self.host = b""
        self.in_head = True

    def on_headers_complete(self) -> None:
        self.in_head = False  # what follows are trailers

    def on_url(self, piece: bytes) -> None:
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head and name.lower() == b"host":
            self.host = value

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        if not self.closed:
            host = self.host if self.target[:1] in b"/*" else b""
            self.reading.requests.append(Request(self.parser.get_method(), self.target, host, self.body))
        self.closed = self.closed or not self.parser.should_keep_alive()


def by_httptools(stream: bytes) -> Reading:
    reading = Reading()
    listener = Listener(reading)
    try:
        listener.parser.feed_data(stream)
    except httptools.HttpParserUpgrade:
        reading.refused = "upgrade"
    except httptools.HttpParserError as refusal:
        if not listener.closed:
            reading.refused = str(refusal)
    return reading
