"""Our HTTP parser beside two others: h11 (strict, any method) and httptools (llhttp, as in Node.js).

A stream of bytes is read by all three as far as each accepts it. What ours accepts, a judge must read as the same
requests with the same bodies; where it refuses instead, or where ours refuses what a judge accepts, the class of the
difference stands in one of the tables below with its reason. A request that two parsers read differently is what
request smuggling is made of, so a difference that is not in a table fails.

UWSGI_TLS_FUZZ_EXAMPLES=100000 makes a long run.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import h11
import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.http import CHUNKED, BadRequest, RequestHead, head_end, parse_head

EXAMPLES = int(os.environ.get("UWSGI_TLS_FUZZ_EXAMPLES", "1000"))
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
    refused: str = ""  # the reason; "" when it would take more bytes, or closes after the last request
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
            fields = dict(head.headers)
            host = fields.get(b"host", b"") if head.target[:1] in b"/*" else b""
            reading.requests.append(Request(head.method, head.target, host, body, numbered(fields)))
            connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                reading.closed = True
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
        if not self.reading.closed:
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
            reading.refused = str(refusal)
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
    ("CONNECT", BOTH, get(line=b"CONNECT a:443 HTTP/1.1"), "no proxy"),
    ("asterisk-form target without OPTIONS", BOTH, get(line=b"GET * HTTP/1.1"), "RFC 9112 3.2.4"),
    ("malformed request target", BOTH, get(line=b"GET ftp://a/ HTTP/1.1"), "not an http or https URI"),
    ("%00 in the request target", BOTH, get(line=b"GET /%00 HTTP/1.1"), "cuts paths short in C programs"),
    ("control character or bare CR or LF in the request head", ("h11",), get().replace(b"\r\n", b"\n"), "RFC 9112 2.2"),
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
    ("repeated HTTP_HOST", ("httptools",), get(b"Host: b"), "RFC 9112 3.2"),
    (
        "repeated CONTENT_LENGTH",
        ("h11",),
        get(b"Content-Length: 0", b"Content-Length: 0"),
        "RFC 9112 6.3: may be refused",
    ),
    ("repeated HTTP_TRANSFER_ENCODING", ("httptools",), get(b"Transfer-Encoding: a", CHUNKS), "TE.TE smuggling"),
    ("repeated CONTENT_TYPE", BOTH, get(b"Content-Type: a", b"Content-Type: b"), "one field: no list"),
    ("repeated HTTP_EXPECT", BOTH, get(b"Expect: 100-continue", b"Expect: 100-continue"), "one field: no list"),
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
        "Only Transfer-Encoding: chunked",
        get(CHUNKS, body=b"0\r\nTransfer-Encoding:\r\n\r\n"),
        "trailers are dropped",
    ),
    ("httptools", "Invalid method", get(line=b"FOO / HTTP/1.1"), "any token is a method"),
    ("httptools", "Expected space after method", get(line=b"GETS / HTTP/1.1"), "any token is a method"),
    (
        "httptools",
        "Request has invalid `Tr",
        get(CHUNKS + b"\t", body=b"0\r\n\r\n"),
        "RFC 9110 5.6.3: OWS may be a tab",
    ),
    ("httptools", "Expected HTTP/2 Connection Preface", get(line=b"PRI / HTTP/1.1"), "any token is a method"),
    ("httptools", "Invalid HTTP version", get(line=b"GET / HTTP/1.2"), "RFC 9110 2.5: read as 1.1"),
    ("httptools", "upgrade", get(b"Connection: upgrade", b"Upgrade: a") * 2, "RFC 9110 7.8: an Upgrade may be ignored"),
    ("httptools", "Invalid character in chunk ext", get(CHUNKS, body=b"0;a b\r\n\r\n"), "extensions are dropped"),
    (
        "httptools",
        "Content-Length can't be",
        get(CHUNKS, body=b"0\r\nContent-Length: 5\r\n\r\n"),
        "trailers are dropped",
    ),
]


def explained(found: tuple[str, str], judge: str) -> bool:
    who, reason = found
    if who == "ours":
        return any(reason == row[0] and judge in row[1] for row in OURS_STRICTER)
    return any(who == row[0] and (reason.startswith(row[1]) if row[1] else not reason) for row in JUDGE_STRICTER)


@pytest.mark.parametrize(
    ("reason", "judge", "stream"),
    [(reason, judge, stream) for reason, judges, stream, _ in OURS_STRICTER for judge in judges],
)
def test_ours_is_stricter(reason: str, judge: str, stream: bytes) -> None:
    assert difference(stream, judge) == ("ours", reason)


@pytest.mark.parametrize(("judge", "reason", "stream"), [row[:3] for row in JUDGE_STRICTER])
def test_judge_is_stricter(judge: str, reason: str, stream: bytes) -> None:
    found = difference(stream, judge)
    assert found is not None
    assert found[0] == judge
    assert explained(found, judge)
    assert found[1].startswith(reason)


# --- made-up streams --------------------------------------------------------------------------------------------------


def one_of(text: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(text.split(b"|"))


# The parts of a request in order: good bytes, and bytes that at least one parser somewhere has got wrong.
GOOD_METHOD, BAD_METHOD = one_of(b"GET|POST|OPTIONS|PUT|HEAD|GET"), one_of(b"FOO|get|CONNECT|PRI|G\x00|G ET|\xc9|")
GOOD_TARGET = one_of(b"/|/a?b|/%41|http://b/c|https://b:1?c")
BAD_TARGET = one_of(b"*|a:1|/%00|/#|/\xff|//|/a b|http://|http://c@b/|ftp://b/|/\\||\t/|/\x0b")
GOOD_VERSION, BAD_VERSION = (
    one_of(b"HTTP/1.1|HTTP/1.1|HTTP/1.0"),
    one_of(b"HTTP/1.2|HTTP/2.0|HTTP/1|HTTP/1.10|http/1.1|"),
)
GOOD_HOST = one_of(b"Host: a|host:a:1|Host: [::1]")
BAD_HOST = one_of(
    b"Host:|Host: a b|Host: a,b|Host : a|X: y|Host: a\r\nHost: a|Host: b@a|Host: [::1|\x00Host: a|Host: a\x00"
)
GOOD_NAME = one_of(b"A|X-1|X-2|Connection|A_B|Content_Length|Transfer_Encoding|Trailer|Upgrade|Content-Type|TE")
BAD_NAME = one_of(
    b"Content-Length|Transfer-Encoding|TRANSFER-ENCODING|Expect|Host| A|A |A\x0b|\xc3\xa9||Transfer-Encoding\t"
)
GOOD_VALUE = one_of(b"a|\xff|close|keep-alive|keep-alive, close|close, x|upgrade|websocket||a\tb|close close")
BAD_VALUE = one_of(
    b"0|5|05|+5|-1|5,5|5, 5|0x5|5 |1e1|18446744073709551621|chunked|Chunked|chunked |chunked, chunked|gzip, chunked"
    b"|chunked, identity|identity|chunked;a=b|x\x0bchunked|\x00|a\rb|a\nb|a\r\n b|100-continue|a\x7f"
)
GOOD_SPACE, BAD_SPACE = st.just(b" "), one_of(b"|  |\t|\x0b| \r\n|\r")
GOOD_COLON, BAD_COLON = one_of(b": |:|:\t|: \t "), one_of(b" :| |::||=|\r\n:")
GOOD_CRLF, BAD_CRLF = st.just(b"\r\n"), one_of(b"\n|\r|\r\r\n|\n\r\n| \r\n|\r\n |\x00\r\n||\x85")
GOOD_START, BAD_START = one_of(b"||\r\n"), one_of(b"\n|\r| |\r\n\r\n|\x00|0")
GOOD_BODY = one_of(
    b"\r\n|\r\n|Content-Length: 5\r\n\r\nhello|Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    b"|Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n02\r\nyz\r\n0\r\nA: b\r\n\r\n|Content-Length: 0\r\n\r\n"
)
BAD_HEAD_END = one_of(
    b"\r\n|\n|\n\r\n|\r\r\n|Content-Length: 5\r\n\r\n|Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"|Transfer-Encoding: chunked\r\n\r\n|Transfer-Encoding: chunked\r\n\r\n|Transfer-Encoding: chunked\r\n\n"
)
BAD_BODY = one_of(
    b"|hello|5\r\nhello\r\n|0\r\n\r\n|0\r\nA: b\r\n\r\n|1;a=b\r\nx\r\n|05\r\nhello\r\n|5\nhello\r\n|5\r\nhello"
    b"|5\r\nhello\n|5 \r\nhello\r\n|0\r\n|0\r\n\n|1;\n\r\nx\r\n|g\r\n|ffffffffffffffff5\r\nhello\r\n|-5\r\n|\r\n"
    b"|0x5\r\nhello\r\n|0\r\nContent-Length: 5\r\n\r\n|0\r\n \r\n|5;a\nhello\r\n|5\r\nhello\r\n0\r\n\r\n"
    b'|5;a b\r\nhello\r\n|5;a="b"\r\nhello\r\n'
)
PARTS = (
    (GOOD_START, BAD_START),
    (GOOD_METHOD, BAD_METHOD),
    (GOOD_SPACE, BAD_SPACE),
    (GOOD_TARGET, BAD_TARGET),
    (GOOD_SPACE, BAD_SPACE),
    (GOOD_VERSION, BAD_VERSION),
    (GOOD_CRLF, BAD_CRLF),
    (GOOD_HOST, BAD_HOST),
    (GOOD_CRLF, BAD_CRLF),
    (GOOD_NAME, BAD_NAME),
    (GOOD_COLON, BAD_COLON),
    (GOOD_VALUE, BAD_VALUE),
    (GOOD_CRLF, BAD_CRLF),
    (GOOD_BODY, st.builds(lambda end, first, second: end + first + second, BAD_HEAD_END, BAD_BODY, BAD_BODY)),
)
BYTE = st.sampled_from([bytes((byte,)) for byte in b'\r\n\t \x00\x0b\x0c\x1f\x7f\x80\xff:;,=#%_-+09azAZ/?*"\\'])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Bytes that look like a request, with up to two parts that are not quite right."""
    bad = draw(st.one_of(st.just(set()), st.sets(st.integers(0, len(PARTS) - 1), max_size=2)))
    return b"".join([draw(parts[number in bad]) for number, parts in enumerate(PARTS)])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    stream = b"".join(draw(st.lists(requests(), min_size=1, max_size=3))) + get(line=b"GET /last HTTP/1.1")
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        place = draw(st.integers(0, len(stream)))
        stream = stream[:place] + draw(BYTE) + stream[place + draw(st.integers(0, 1)) :]
    return stream


FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="UWSGI_TLS_FUZZ_EXAMPLES" not in os.environ,  # the short run is the same everywhere
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("judge", BOTH)
def test_any_stream_is_read_alike(judge: str) -> None:
    @FUZZ
    @given(streams())
    def run(stream: bytes) -> None:
        found = difference(stream, judge)
        assert found is None or explained(found, judge), found

    run()


VALUE_CHARACTERS = "\t" + "".join(map(chr, [*range(0x20, 0x7F), *range(0x80, 0x100)]))


@st.composite
def valid_requests(draw: st.DrawFn) -> tuple[bytes, Request]:
    """A request that every parser must read, and what it says."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"PROPFIND"]))
    target = b"/" + draw(st.text("abc/.?=&%21-_~!$'()*+,;:@", max_size=20)).encode()
    host = draw(st.sampled_from([b"a", b"www.example.com:8443", b"[::1]:443", b"127.0.0.1"]))
    values = draw(st.lists(st.text(VALUE_CHARACTERS, max_size=20), max_size=4))
    fields = [f"X-{n}:{value}".encode("latin-1") for n, value in enumerate(values)]
    body = draw(st.binary(max_size=60))
    if draw(st.booleans()):
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
        pieces = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
        fields.append(CHUNKS)
    else:
        sent = body
        fields.append(b"Content-Length: %d" % len(body))
    raw = get(
        *draw(st.permutations(fields)), line=b"%b %b HTTP/1.1" % (method, target), host=b"Host: " + host, body=sent
    )
    said = {f"x-{n}".encode(): value.strip(" \t").encode("latin-1") for n, value in enumerate(values)}
    return raw, Request(method, target, host, body, said)


@FUZZ
@given(st.lists(valid_requests(), min_size=1, max_size=4))
def test_valid_requests_are_read_by_all(requests: list[tuple[bytes, Request]]) -> None:
    stream = b"".join(raw for raw, _ in requests)
    expected = Reading([request for _, request in requests])
    assert ours(stream) == by_h11(stream) == by_httptools(stream) == expected


def test_the_same_however_it_arrives() -> None:
    """head_end and ChunkedDecoder, byte by byte, say what they say of the whole."""

    @FUZZ
    @given(streams())
    def run(stream: bytes) -> None:
        whole = ours(stream)
        assert ours_byte_by_byte(stream) == (whole.requests, bool(whole.refused))

    run()


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
