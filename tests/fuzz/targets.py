"""What is fuzzed: a function that takes any bytes and fails if our reading of them is wrong, and seeds for it.

What is wrong is said by another reader of the same bytes (h11, llhttp, OpenSSL, a plain reading of HAProxy's text), or
by the same reader when the bytes come in other pieces.
"""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h11
import test_chunked
import test_hello
import test_proxy_protocol
import test_response
from http_judges import BOTH, JUDGE_STRICTER, OURS_STRICTER, difference, explained, get, ours, ours_byte_by_byte
from request_table import ACCEPTED, ATTACKS, NEXT, REFUSED

from uwsgi_tls import hello, proxy_protocol, response
from uwsgi_tls.backends.answer import CHUNKED, AnswerBody, AnswerHead, take_head
from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.http import BadRequest

SEED_BYTES = 512  # longer rows are about limits, which mutation does not reach


@dataclass(frozen=True, slots=True)
class Target:
    """`read` raises AssertionError, or whatever a defect raises; `words` are what a mutation may insert."""

    read: Callable[[bytes], None]
    seeds: list[bytes]
    words: tuple[bytes, ...] = ()


# --- requests ---------------------------------------------------------------------------------------------------------


def requests(stream: bytes) -> None:
    """Both judges read what we read, or the difference is explained; and it does not matter how the bytes come."""
    for judge in BOTH:
        found = difference(stream, judge)
        assert found is None or explained(found, judge), (judge, found)
    whole = ours(stream)
    assert ours_byte_by_byte(stream) == (whole.requests, bool(whole.refused))


CHUNKED_HEAD = get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1")


def chunked(data: bytes) -> None:
    """A body as the judges read it; and the same in two pieces, cut where the first byte says."""
    cut, body = (data[0], data[1:]) if data else (0, b"")
    whole, halves = decoded(body), decoded(body[:cut], body[cut:])
    assert whole[2] == halves[2]
    if not whole[2]:
        assert whole == halves
    for judge in BOTH:
        found = difference(CHUNKED_HEAD + body, judge)
        assert found is None or explained(found, judge), (judge, found)


def decoded(*pieces: bytes) -> tuple[bytes, bytes | None, bool]:
    """The payload, what follows the body (None before its end), and whether it was refused."""
    decoder = ChunkedDecoder()
    payload = b""
    try:
        for piece in pieces:
            payload += decoder.feed(piece)
    except BadRequest:
        return payload, None, True
    return payload, decoder.rest if decoder.done else None, False


# --- answers of a backend ---------------------------------------------------------------------------------------------

# Fields of the connection, which end here or are said anew.
HOP_BY_HOP = (
    b"connection content-length keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade"
).split()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader makes of a node's bytes so far."""

    status: int
    body: bytes
    whole: bool


def answers(data: bytes) -> None:
    """h11 hears the same answer, it does not matter how it comes, and h11 understands what a client is told of it."""
    head, answer = heard(data, len(data) or 1)
    assert heard(data, 1) == (head, answer)
    if head is None or head.status.startswith("101"):
        return
    theirs = heard_by_h11(data)
    # It judges trailers and the fields of interim answers, both of which we drop.
    assert theirs == answer or (theirs == UNREADABLE and (head.length == CHUNKED or data[9:10] == b"1"))
    try:
        framed = response.frame(head.status, head.headers, method="GET", minor=1, keep_alive=True, date="", server="")
    except response.BadResponse:
        return
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in head.headers]
    told(framed, answer.status, [field for field in fields if field[0] not in HOP_BY_HOP])


UNREADABLE = Answer(0, b"", False)


def heard(data: bytes, size: int) -> tuple[AnswerHead | None, Answer]:
    """Our reading of bytes that come in pieces of `size`; no head and UNREADABLE where it is refused."""
    buffer, payload = b"", b""
    head = body = None
    try:
        for at in range(0, len(data), size):
            buffer += data[at : at + size]
            if head is None:
                head, buffer = take_head(buffer, "GET")
            if head is not None:
                body = body or AnswerBody(head.length)
                if not body.whole:
                    payload += body.feed(buffer)
                buffer = b""
    except (response.BadResponse, BadRequest):
        return None, UNREADABLE
    if head is None or body is None:
        return None, UNREADABLE
    return head, Answer(int(head.status[:3]), payload, body.whole)


def client() -> h11.Connection:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    return connection


def heard_by_h11(data: bytes) -> Answer:
    """h11's reading; UNREADABLE where it refuses, which makes the connection end and nobody the wiser."""
    judge = client()
    judge.receive_data(data)
    status, body = 0, b""
    try:
        while (event := judge.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, body, True)
    except h11.RemoteProtocolError:
        return UNREADABLE
    return Answer(status, body, False)


def told(framed: response.Framed, status: int, fields: list[tuple[bytes, bytes]]) -> None:
    """The client sees one response with these fields, framed as `framed` says, and nothing after it."""
    payload = b"x" * min(framed.length, 10) if framed.body == response.LENGTH else b"xyz"
    sent = {response.NONE: b"", response.CHUNKED: b"3\r\nxyz\r\n0\r\n\r\n"}.get(framed.body, payload)
    judge = client()
    judge.receive_data(framed.head + sent)
    head = judge.next_event()
    assert isinstance(head, h11.Response)
    assert head.status_code == status
    assert [field for field in head.headers if field[0] not in HOP_BY_HOP] == fields
    if framed.length > len(payload):
        return
    received = b""
    while isinstance(event := judge.next_event(), h11.Data):
        received += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert received == (b"" if framed.body == response.NONE else payload)
    assert judge.trailing_data == (b"", False)


# --- the first bytes of a connection ----------------------------------------------------------------------------------


def openssl() -> test_hello.Judge:
    with tempfile.TemporaryDirectory() as directory:
        return test_hello.Judge(Path(directory))


JUDGE = openssl()


def hellos(data: bytes) -> None:
    """OpenSSL never sees a name or protocols that we do not; looking again when told finds what looking once does."""
    whole = hello.look(data)
    answer = hello.look(b"")
    while isinstance(answer, hello.Wanted) and answer.bytes_total <= len(data):
        there = answer.bytes_total
        answer = hello.look(data[:there])
        assert not isinstance(answer, hello.Wanted) or there < answer.bytes_total <= hello.HELLO_BYTES
    if isinstance(whole, hello.Wanted):
        assert isinstance(answer, hello.Wanted)
    elif isinstance(answer, hello.Hello) or (isinstance(whole, hello.Hello) and whole.sni):
        assert answer == whole
    if not data:
        return
    JUDGE.hears(data)
    if JUDGE.name is not None:
        assert isinstance(whole, hello.Hello)
        assert whole.sni == hello.host_name(JUDGE.name)
    if JUDGE.protocols is not None:
        assert isinstance(whole, hello.Hello)
        assert whole.alpn == JUDGE.protocols


def proxy_headers(data: bytes) -> None:
    """A plain reading of the header's text agrees, for every beginning of it."""
    seen = proxy_protocol.look(data)
    if isinstance(seen, proxy_protocol.Wanted):
        assert len(data) < seen.bytes_total <= proxy_protocol.V2_BYTES
    elif seen is not None:
        header = data[: seen.length]
        assert proxy_protocol.look(header) == seen
        for there in range(seen.length):
            less = proxy_protocol.look(header[:there])
            assert isinstance(less, proxy_protocol.Wanted)
            assert there < less.bytes_total <= seen.length
        read = source_of_version_2 if header.startswith(proxy_protocol.SIGNATURE) else source_of_version_1
        source = (ipaddress.ip_address(seen.source[0]), int(seen.source[1])) if seen.source else None
        assert source == read(header)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressAndPort = tuple[Address, int]


def plain(address: Address) -> Address:
    """IPv4 as such where IPv6 carries it."""
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def source_of_version_1(line: bytes) -> AddressAndPort | None:
    assert line.endswith(b"\r\n")
    assert len(line) <= proxy_protocol.V1_BYTES
    words = line[:-2].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    address = ipaddress.ip_address(words[2])
    assert " ".join(words) == f"PROXY TCP{address.version} {words[2]} {words[3]} {int(words[4])} {int(words[5])}"
    return plain(address), int(words[4])


def source_of_version_2(header: bytes) -> AddressAndPort | None:
    command, family, body = header[12] & 15, header[13], header[16:]
    assert len(body) == int.from_bytes(header[14:16])
    octets = {0x11: 4, 0x21: 16}.get(family)
    if command == 0 or octets is None:
        return None
    return plain(ipaddress.ip_address(body[:octets])), int.from_bytes(body[2 * octets : 2 * octets + 2])


# --- the list ---------------------------------------------------------------------------------------------------------

TABLES = [
    *[raw for raw, _ in ACCEPTED],
    *[raw for _, raw in REFUSED],
    *[attack.stream for attack in ATTACKS],
    *[row[2] for row in OURS_STRICTER],
    *[row[2] for row in JUDGE_STRICTER],
]
ANSWER = b"HTTP/1.1 200 OK\r\nA: b\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
HTTP_WORDS = (
    *(b"\r\n", b"\r\n\r\n", b": ", b" HTTP/1.1\r\n", b"HTTP/1.0", b"Host: a\r\n", b"http://a", b"Connection: close"),
    *(
        b"Connection: keep-alive\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"Upgrade: a\r\n",
        b"PUT ",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"HEAD ",
        b"OPTIONS * ",
        b"POST ",
        b"gzip, chunked",
    ),
)

TARGETS = {
    "requests": Target(requests, [row + NEXT for row in TABLES], HTTP_WORDS),
    "chunked": Target(chunked, [bytes((n % 7,)) + body for n, (body, _) in enumerate(test_chunked.BODIES)], HTTP_WORDS),
    "answers": Target(
        answers,
        [
            *[head + body for head, _, _ in test_response.PARSED for body in (b"", b"body")],
            *test_response.MALFORMED,
            *[ANSWER + CHUNKS + body for body, _ in test_chunked.BODIES],
            b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER + b"Content-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\n\r\n",
            ANSWER + b"Connection: x-a, close\r\nX-A: 1\r\nX-B: 2\r\n\r\nbody",
            ANSWER + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        ],
        HTTP_WORDS,
    ),
    "hellos": Target(
        hellos,
        [*test_hello.SEEDS, *[test_hello.record(message) for message, _ in test_hello.HAND_MADE.values()]],
        (b"\x16\x03\x01", b"\x01\x00", *(test_hello.server_name(b"a"), test_hello.alpn(b"h2"))),
    ),
    "proxy-headers": Target(
        proxy_headers,
        [*[header for header, _ in test_proxy_protocol.WHOLE], *test_proxy_protocol.NO_HEADER],
        (b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"192.0.2.7", b"::1", b"65535", proxy_protocol.SIGNATURE),
    ),
}
