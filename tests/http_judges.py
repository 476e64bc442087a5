"""Our HTTP parser beside two others: h11 (strict, any method) and httptools (llhttp, as in Node.js).

A stream of bytes is read by all three as far as each accepts it. What ours accepts, a judge must read as the same
requests with the same bodies; where it refuses instead, or where ours refuses what a judge accepts, the class of the
difference stands in one of the tables below with its reason. A request that two parsers read differently is what
request smuggling is made of, so a difference that is not in a table fails.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import h11
import httptools

from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.http import CHUNKED, BadRequest, RequestHead, head_end, parse_head

LIMIT = 8192


@dataclass(frozen=True)
class Request:
    """What a backend would be told."""

    method: bytes
    target: bytes
    host: bytes  # "" for an absolute-form target, where judges show the Host that does not count
    body: bytes
    fields: dict[bytes, bytes]  # those named x-NUMBER


@dataclass
class Reading:
    """What a parser makes of a stream: requests that it read to their end, and why it stopped there."""

    requests: list[Request] = field(default_factory=list)
    refused: str = ""  # the reason, of a judge's "body: ..." behind a head; "" when it waits for more, or closes
    closed: bool = False


def as_request(head: RequestHead, body: bytes) -> Request:
    host = head.host if head.target[:1] in "/*" else ""
    fields = {
        name[5:].replace("_", "-").lower().encode(): value.encode("latin-1")
        for name, value in head.fields.items()
        if name.startswith("HTTP_X_")
    }
    return Request(head.method.encode(), head.target.encode(), host.encode(), body, numbered(fields))


def numbered(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in fields.items() if re.fullmatch(rb"x-[0-9]", name)}


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
            reading.requests.append(as_request(head, body))
            if not head.keep_alive:
                reading.closed = True
                break
    except BadRequest as refusal:
        reading.refused = refusal.reason
    return reading


def by_h11(stream: bytes) -> Reading:
    reading = Reading()
    in_head = True
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    try:
        connection.receive_data(stream)
        while True:
            head = connection.next_event()
            if head is h11.NEED_DATA or head is h11.PAUSED or isinstance(head, h11.ConnectionClosed):
                break
            assert isinstance(head, h11.Request)
            in_head, body = False, b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                break
            fields = dict(head.headers)
            host = fields.get(b"host", b"") if head.target[:1] in b"/*" else b""
            reading.requests.append(Request(head.method, head.target, host, body, numbered(fields)))
            connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                reading.closed = True
                break
            connection.start_next_cycle()
            in_head = True
    except h11.RemoteProtocolError as refusal:
        reading.refused = f"{'' if in_head else 'body: '}{refusal}"
    return reading


class Listener:
    """httptools' callbacks."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.parser = httptools.HttpRequestParser(self)
        self.target = b""
        self.body = b""
        self.fields: dict[bytes, bytes] = {}
        self.in_head = True

    def on_message_begin(self) -> None:
        self.target = self.body = b""
        self.fields = {}
        self.in_head = True

    def on_headers_complete(self) -> None:
        self.in_head = False  # what follows are trailers

    def on_url(self, piece: bytes) -> None:
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.fields[name.lower()] = value.strip(b" \t")

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        self.in_head = True
        if not self.reading.closed and not self.parser.should_upgrade():  # httptools reads no body of those
            host = self.fields.get(b"host", b"") if self.target[:1] in b"/*" else b""
            fields = numbered(self.fields)
            self.reading.requests.append(Request(self.parser.get_method(), self.target, host, self.body, fields))
        self.reading.closed = self.reading.closed or not self.parser.should_keep_alive()


def by_httptools(stream: bytes) -> Reading:
    reading = Reading()
    listener = Listener(reading)
    try:
        listener.parser.feed_data(stream)
    except httptools.HttpParserUpgrade:
        reading.refused = "upgrade"
    except httptools.HttpParserError as refusal:
        if not reading.closed:
            reading.refused = f"{'' if listener.in_head else 'body: '}{refusal}"
    return reading


JUDGES: dict[str, Callable[[bytes], Reading]] = {"h11": by_h11, "httptools": by_httptools}


def difference(stream: bytes, judge: str) -> tuple[str, str] | None:
    """How ours and a judge differ: (who stops first, why), or None if they say the same.

    Where ours waits for more, it is no difference that a judge already refuses what is there; nor where one has closed,
    what the other makes of the bytes after it.
    """
    mine, theirs = ours(stream), JUDGES[judge](stream)
    for one, other in zip(mine.requests, theirs.requests, strict=False):
        assert one == other, f"read differently by {judge}"
    if len(mine.requests) < len(theirs.requests):
        return "ours", mine.refused
    if len(mine.requests) > len(theirs.requests):
        return judge, theirs.refused
    return ("ours", mine.refused) if mine.refused and not theirs.refused and not theirs.closed else None


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a", body: bytes = b"") -> bytes:
    return b"\r\n".join((line, host, *fields, b"", body))


CHUNKS = b"Transfer-Encoding: chunked"
BOTH = ("h11", "httptools")

SINGLE = (
    *("Authorization", "Content-Range", "Expect", "If-Modified-Since", "If-Range", "If-Unmodified-Since"),
    *("Max-Forwards", "Origin", "Proxy-Authorization", "Range", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
)

# Ours refuses, the judges named read on: (our reason, judges, an example, why it is right to refuse).
OURS_STRICTER: list[tuple[str, tuple[str, ...], bytes, str]] = [
    ("malformed request line", ("h11",), get(line=b"GET /a#b HTTP/1.1"), "RFC 9112 3.2: a target has no fragment"),
    (
        "malformed request line",
        ("httptools",),
        b"\r\n" + b"\r\n" + get(),
        "RFC 9112 2.2: one empty line, not any number",
    ),
    ("HTTP version other than 1.x", BOTH, get(line=b"GET / HTTP/2.0"), "RFC 9110 2.5: another major version"),
    ("CONNECT", ("h11",), get(line=b"CONNECT a:443 HTTP/1.1"), "no proxy"),
    ("CONNECT", ("httptools",), b"CONNECT a:443 HTTP/1.1\r\n", "refused at once; llhttp waits for the whole head"),
    ("asterisk-form target without OPTIONS", BOTH, get(line=b"GET * HTTP/1.1"), "RFC 9112 3.2.4"),
    ("malformed request target", BOTH, get(line=b"GET ftp://a/ HTTP/1.1"), "not an http or https URI"),
    ("%00 in the request target", BOTH, get(line=b"GET /%00 HTTP/1.1"), "cuts paths short in C programs"),
    ("control character or bare CR or LF in the request head", ("h11",), get().replace(b"\r\n", b"\n"), "RFC 9112 2.2"),
    (
        "control character or bare CR or LF in the request head",
        ("httptools",),
        b"GET /\n",
        "HTTP/0.9 is no longer known, nor RFC 9112 2.2's bare LF",
    ),
    ("request does not begin with a method", ("httptools",), b"\r\n\r", "RFC 9112 2.2: one empty line"),
    ("request does not begin with a method", ("h11",), b";", "h11 waits for the line"),
    ("invalid header field name", ("h11",), get(b"\nA: b"), "h11 ends a head with a bare LF"),
    ("control character in a header field", ("h11",), get(b"A: \x01"), "RFC 9110 5.5: dangerous, may be refused"),
    ("folded header field", ("h11",), get(b" folded"), "RFC 9112 5.2: obs-fold may be refused"),
    (
        "header field without a colon",
        ("h11",),
        b"GET / HTTP/1.1\r\nHost: a\r\n\n" + get(),
        "h11 ends a head with a bare LF",
    ),
    (
        "blank before the colon of a header field",
        ("h11",),
        b"GET / HTTP/1.1\r\nHost: a\r\n\nA : b\r\n\r\n",
        "h11 ends a head with a bare LF",
    ),
    ("repeated HTTP_HOST", ("httptools",), get(b"Host: b"), "RFC 9112 3.2"),
    (
        "repeated CONTENT_LENGTH",
        ("h11",),
        get(b"Content-Length: 0", b"Content-Length: 0"),
        "RFC 9112 6.3: may be refused",
    ),
    ("repeated HTTP_TRANSFER_ENCODING", ("httptools",), get(b"Transfer-Encoding: a", CHUNKS), "TE.TE smuggling"),
    ("repeated CONTENT_TYPE", BOTH, get(b"Content-Type: a", b"Content-Type: b"), "one field: no list"),
    *[
        (
            f"repeated HTTP_{name.upper().replace('-', '_')}",
            BOTH,
            get(*[name.encode() + b": a"] * 2),
            "one field: no list",
        )
        for name in SINGLE
    ],
    ("no Host", ("httptools",), b"GET / HTTP/1.1\r\n\r\n", "RFC 9112 3.2"),
    ("no Host", ("h11",), b"GET / HTTP/1.2\r\n\r\n", "RFC 9112 3.2, and 9110 2.5: 1.2 is read as 1.1"),
    ("invalid Host", BOTH, get(host=b"Host: a/b"), "RFC 9112 3.2"),
    ("invalid port in Host", BOTH, get(host=b"Host: a:65536"), "RFC 9112 3.2"),
    ("invalid IPv6 address in Host", BOTH, get(host=b"Host: [1:2]"), "RFC 9112 3.2"),
    ("invalid Content-Length", ("h11",), get(b"Content-Length: 0, 0"), "RFC 9112 6.3: a list may be refused"),
    ("Content-Length of more than 18 digits", BOTH, get(b"Content-Length: " + b"1" * 19), "beyond any limit"),
    (
        "both Content-Length and Transfer-Encoding",
        ("h11",),
        get(b"Content-Length: 5", CHUNKS),
        "CL.TE, TE.CL smuggling",
    ),
    ("Transfer-Encoding in HTTP/1.0", BOTH, get(CHUNKS, line=b"GET / HTTP/1.0"), "RFC 9112 6.1: faulty framing"),
    ("invalid Transfer-Encoding", ("httptools",), get(b"Transfer-Encoding: ,chunked"), "no coding before the comma"),
    ("transfer coding other than chunked", ("httptools",), get(b"Transfer-Encoding: gzip, chunked"), "not implemented"),
    ("Expect other than 100-continue", BOTH, get(b"Expect: a"), "RFC 9110 10.1.1: 417"),
    ("malformed chunk", BOTH, get(CHUNKS, body=b"0" * 17 + b"\r\n\r\n"), "17 digits do not fit 64 bits"),
    ("chunk extensions too long", BOTH, get(CHUNKS, body=b"0;" + b"a" * 300 + b"\r\n\r\n"), "a limit"),
    ("malformed trailer", ("h11",), get(CHUNKS, body=b"0\r\nA: b\n\r\n"), "RFC 9112 2.2: bare LF"),
    ("trailer over 4096 bytes", BOTH, get(CHUNKS, body=b"0\r\nA: " + b"a" * 4096 + b"\r\n\r\n"), "a limit"),
    (
        "",
        ("httptools",),
        get(b"Connection: keep-alive, close", line=b"GET / HTTP/1.0") * 2,
        "close wins, as in HTTP/1.1",
    ),
]

# A judge refuses or stops, ours reads on: (judge, how its reason begins, an example, why ours may).
JUDGE_STRICTER: list[tuple[str, str, bytes, str]] = [
    ("h11", "", get(b"Connection: keep-alive", line=b"GET / HTTP/1.0") * 2, "h11 never keeps HTTP/1.0 alive"),
    ("h11", "no request line received", b"\r\n" + get(), "RFC 9112 2.2: at least one empty line should be ignored"),
    (
        "h11",
        "body: Only Transfer-Encoding: chunked",
        get(CHUNKS, body=b"0\r\nTransfer-Encoding:\r\n\r\n"),
        "trailers are dropped",
    ),
    ("httptools", "Invalid method", get(line=b"FOO / HTTP/1.1"), "any token is a method"),
    ("httptools", "Expected space after method", get(line=b"GETS / HTTP/1.1"), "any token is a method"),
    (
        "httptools",
        "body: Request has invalid `Tr",
        get(CHUNKS + b"\t", body=b"0\r\n\r\n"),
        "RFC 9110 5.6.3: OWS may be a tab",
    ),
    ("httptools", "Expected HTTP/2 Connection Preface", get(line=b"PRI / HTTP/1.1"), "any token is a method"),
    ("httptools", "Invalid HTTP version", get(line=b"GET / HTTP/1.2"), "RFC 9110 2.5: read as 1.1"),
    ("httptools", "upgrade", get(b"Connection: upgrade", b"Upgrade: a") * 2, "RFC 9110 7.8: an Upgrade may be ignored"),
    ("httptools", "body: Invalid character in chunk ext", get(CHUNKS, body=b"0;a b\r\n\r\n"), "extensions are dropped"),
    (
        "httptools",
        "body: Empty Transfer-Encoding",
        get(CHUNKS, body=b"0\r\nTransfer-Encoding:\r\n\r\n"),
        "trailers are dropped",
    ),
    (
        "httptools",
        "body: Invalid `Transfer-Encoding`",
        get(CHUNKS, body=b"0\r\nTransfer-Encoding: chunked\r\n\r\nG"),
        "trailers are dropped",
    ),
    (
        "h11",
        "body: conflicting Content-Length",
        get(CHUNKS, body=b"0\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
        "trailers are dropped",
    ),
    (
        "h11",
        "body: multiple Transfer-Encoding",
        get(CHUNKS, body=b"0\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "trailers are dropped",
    ),
    ("h11", "body: bad Content-Length", get(CHUNKS, body=b"0\r\nContent-Length: a\r\n\r\n"), "trailers are dropped"),
    (
        "httptools",
        "body: Content-Length can't be",
        get(CHUNKS, body=b"0\r\nContent-Length: 5\r\n\r\n"),
        "trailers are dropped",
    ),
]


def explained(found: tuple[str, str], judge: str) -> bool:
    who, reason = found
    if who == "ours":
        return any(reason == row[0] and judge in row[1] for row in OURS_STRICTER)
    return any(who == row[0] and (reason.startswith(row[1]) if row[1] else not reason) for row in JUDGE_STRICTER)


def ours_byte_by_byte(stream: bytes) -> tuple[list[Request], bool]:
    """`ours` for a reader that gets one byte at a time."""
    reading = Reading()
    buffer = b""
    head = decoder = None
    body = b""
    try:
        for byte in stream:
            buffer += bytes((byte,))
            if head is None:
                if (end := head_end(buffer, LIMIT, len(buffer) - 1)) < 0:
                    continue
                head = parse_head(buffer[:end], 100)
                decoder = ChunkedDecoder() if head.content_length == CHUNKED else None
                buffer = body = b""
            elif decoder is not None:
                body += decoder.feed(buffer)
                buffer = b""
            else:
                body += buffer
                buffer = b""
            if decoder.done if decoder is not None else len(body) == head.content_length:
                reading.requests.append(as_request(head, body))
                if not head.keep_alive:
                    break
                head = None
    except BadRequest as refusal:
        reading.refused = refusal.reason
    return reading.requests, bool(reading.refused)
