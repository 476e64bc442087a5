"""Request heads and chunked bodies: bytes in, outcome out. Each case is tried whole, byte by byte and in a pipeline."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from request_table import ACCEPTED, ATTACKS, LIMIT, MAX_HEADERS, NEXT, PLAIN, REFUSED, get, line

from uwsgi_tls import http
from uwsgi_tls.http import BadRequest, RequestHead, head_end, parse_head

Outcome = RequestHead | int | None


def arrive(raw: bytes, step: int, *, remember: bool = True) -> Outcome:
    """What becomes of a head that comes `step` bytes at a time: its record, a status, or None for more wanted."""
    seen = 0
    try:
        for size in [*range(step, len(raw), step), len(raw)]:
            end = head_end(raw[:size], LIMIT, seen if remember else 0)
            if end >= 0:
                return parse_head(raw[:end], MAX_HEADERS)
            seen = size
    except BadRequest as refusal:
        return refusal.status
    return None


def outcome(raw: bytes) -> Outcome:
    """The outcome of `raw`, the same for every way in which it may arrive."""
    whole = arrive(raw, len(raw) or 1)
    assert arrive(raw, 1) == whole
    assert arrive(raw, 1, remember=False) == whole
    assert arrive(raw, 7) == whole
    return whole


@pytest.mark.parametrize(("raw", "expected"), ACCEPTED)
def test_accepted(raw: bytes, expected: dict[str, object]) -> None:
    head = outcome(raw)
    assert isinstance(head, RequestHead), head
    assert {name: getattr(head, name) for name in PLAIN} == {**PLAIN, **expected}
    fields = expected.get("fields", PLAIN["fields"])
    assert isinstance(fields, dict)
    assert list(head.fields) == list(fields)  # in the order of arrival


@pytest.mark.parametrize("raw", [raw for raw, _ in ACCEPTED])
def test_accepted_in_a_pipeline(raw: bytes) -> None:
    assert head_end(raw + NEXT, LIMIT) == len(raw)
    assert head_end(bytearray(raw + NEXT), LIMIT) == len(raw)


@pytest.mark.parametrize(("status", "raw"), REFUSED)
def test_refused(status: int, raw: bytes) -> None:
    assert outcome(raw) == status
    # Nor does what follows make it right.
    assert outcome(raw + NEXT) == status


def test_no_row_is_written_twice() -> None:
    raws = [raw for _, raw in REFUSED] + [raw for raw, _ in ACCEPTED] + [attack.stream for attack in ATTACKS]
    assert len(set(raws)) == len(raws)


# Refused at once, though no line of it is finished.
EARLY = [
    (400, b"\x16"),
    (400, b"\x00"),
    (400, b"\n"),
    (400, b" "),
    (400, b"\x80"),
    (400, b"\r "),
    (400, b"\r\n\r"),
    (400, b"\r\n\n"),
    (400, b"GET\x00"),
    (400, b"GET /\x07"),
    (400, b"GET / HTTP/1.1\n"),
    (400, b"GET / HTTP/1.1\rH"),
    (400, b"GET /\r\n"),
    (400, b"\r\nGET /\r\n"),
    (505, b"PRI * HTTP/2.0\r\n"),
    (501, b"CONNECT a:1 HTTP/1.1\r\n"),
    (400, b"GET / HTTP/1.1\r\nA: b\n"),
    (400, b"GET / HTTP/1.1\r\nA: b\rC"),
    (400, b"GET / HTTP/1.1\r\nA: b\x00"),
    (414, b"GET /" + b"a" * (LIMIT - 5)),
    (431, b"GET / HTTP/1.1\r\n" + b"a" * (LIMIT - 16)),
]


@pytest.mark.parametrize(("status", "raw"), EARLY)
def test_refused_at_once(status: int, raw: bytes) -> None:
    assert outcome(raw) == status
    assert outcome(raw[:-1]) is None


WAITING = [
    b"",
    b"\r",
    b"\r\n",
    b"\r\nG",
    b"G",
    b"GET",
    b"GET /" + b"a" * (LIMIT - 6),
    b"GET / HTTP/1.1\r",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\n\r",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    b"PRI * HTTP/2.0",
]


@pytest.mark.parametrize("raw", WAITING)
def test_unfinished_head_waits(raw: bytes) -> None:
    assert outcome(raw) is None
    assert head_end(raw, LIMIT) == -1


def test_fifty_requests_of_a_pipeline() -> None:
    heads = [get(b"N: %d" % n, line=b"GET /%d HTTP/1.1" % n) for n in range(50)]
    buffer = b"".join(heads)
    for n in range(50):
        end = head_end(buffer, LIMIT)
        head = parse_head(buffer[:end], MAX_HEADERS)
        assert (head.target, head.fields["HTTP_N"]) == (f"/{n}", str(n))
        buffer = buffer[end:]
    assert buffer == b""


def test_parse_head_needs_the_whole_head() -> None:
    with pytest.raises(BadRequest):
        parse_head(b"GET / HTTP/1.1\r\nHost: a\r\n", MAX_HEADERS)
    with pytest.raises(BadRequest):
        parse_head(get() + b"A: b\r\n\r\n", MAX_HEADERS)


REASONS = [
    (get(b" x"), "folded header field"),
    (get(b"A: b", b"\tx: y"), "folded header field"),
    (get(b"x"), "header field without a colon"),
    (get(b"A : x"), "blank before the colon of a header field"),
    (get(b"A@: x"), "invalid header field name"),
    (get(b": x"), "invalid header field name"),
    (get(b"A: \x00"), "control character in a header field"),
    (get(b"A: b\rc"), "control character in a header field"),
    (get(b"Host: b"), "repeated HTTP_HOST"),
]


@pytest.mark.parametrize(("raw", "reason"), REASONS)
def test_reason_for_the_log(raw: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(raw, MAX_HEADERS)
    assert caught.value.reason == reason


def test_name_table_does_not_grow_without_limit() -> None:
    for n in range(3000):
        parse_head(get(b"X-Name-%d: 1" % n, b"Y" * 500 + b"-%d: 1" % n), MAX_HEADERS)
        assert len(http._names) <= http._NAMES_LEARNT
    assert max(map(len, http._names)) <= http._NAME_LEARNT_CHARS
    # The usual names survive, and the table still learns.
    assert http._names["User-Agent"] == "HTTP_USER_AGENT"
    parse_head(get(b"X-Learnt: 1"), MAX_HEADERS)
    assert http._names["X-Learnt"] == "HTTP_X_LEARNT"


def linear(work: Callable[[], object]) -> None:
    """`work` takes milliseconds, or a second where coverage is measured; if it were quadratic, minutes."""
    begin = time.process_time()
    work()
    assert time.process_time() - begin < 10


MEGABYTE = 1 << 20
HOSTILE = [
    get(b"A:" + b" " * MEGABYTE + b"\x00"),
    get(b"A:" + b" " * (MEGABYTE // 2) + b"x" * (MEGABYTE // 2) + b"\x00"),
    get(b"A:" + b" \t" * (MEGABYTE // 2) + b"x"),
    get(b"A" * MEGABYTE),
    get(b"A: " + b"x " * (MEGABYTE // 2)),
    get(b"Connection: " + b"a," * (MEGABYTE // 2)),
    get(b"Connection: " + b",".join(b"%x" % n for n in range(MEGABYTE // 6))),
    get(b"Transfer-Encoding: " + b"a," * (MEGABYTE // 2) + b"chunked"),
    get(host=b"Host: " + b"a." * (MEGABYTE // 2) + b"!"),
    get(host=b"Host: " + b"a" * MEGABYTE + b"!"),
    get(host=b"Host: [" + b":" * MEGABYTE),
    line(b"GET /" + b"%41" * (MEGABYTE // 3) + b" HTTP/1.1"),
    line(b"GET /" + b"?" * MEGABYTE),
    line(b"A" * MEGABYTE),
    line(b"GET http://" + b"a" * MEGABYTE),
    line(b"GET http://" + b"a." * (MEGABYTE // 2) + b"! HTTP/1.1"),
    line(b"GET http://a" + b"/?" * (MEGABYTE // 2) + b" HTTP/1.1"),
    get(b"Content-Length: " + b"9" * MEGABYTE),
    get(*[b"A: " + b"x" * 10000] * 100),
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_head_costs_linear_time(raw: bytes) -> None:
    def work() -> None:
        with suppress(BadRequest):
            parse_head(raw[: head_end(raw, 4 * MEGABYTE)], MAX_HEADERS * 10)

    linear(work)


def test_head_byte_by_byte_costs_linear_time() -> None:
    # What an earlier call has seen is not looked at again: a stray byte there is for that call to find.
    assert head_end(b"GET / HTTP/1.1\r\nA: \x00 b", LIMIT, seen=22) == -1
    buffer = bytearray()
    raw = get(b"A: " + b"x" * 30000)

    def work() -> None:
        seen = 0
        for byte in raw:
            buffer.append(byte)
            end = head_end(buffer, 32768, seen)
            seen = len(buffer)
        assert end == len(raw)

    linear(work)
