"""Streams that hypothesis makes up, read by our parser and by its judges (http_judges.py); each known difference.

UWSGI_TLS_FUZZ_EXAMPLES=100000 makes a long run. `bin/fuzz` looks further, guided by coverage.
"""

import os

import pytest
from http_judges import (
    BOTH,
    CHUNKS,
    JUDGE_STRICTER,
    OURS_STRICTER,
    Reading,
    Request,
    by_h11,
    by_httptools,
    difference,
    explained,
    get,
    ours,
    ours_byte_by_byte,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("UWSGI_TLS_FUZZ_EXAMPLES", "1000"))


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
