"""backends/answer.py: heads of answers, what they say of the body's end, and what comes after it."""

from __future__ import annotations

import pytest

from uwsgi_tls.backends.answer import CHUNKED, HEAD_BYTES, INTERIM_HEADS, UNTIL_CLOSE, AnswerBody, take_head
from uwsgi_tls.http import BadRequest
from uwsgi_tls.response import BadResponse


@pytest.mark.parametrize(
    ("method", "head", "length", "persistent"),
    [
        ("GET", "1.1 200 OK|Content-Length: 5", 5, True),
        ("GET", "1.1 200 OK|Content-Length: 5|content-length: 05", 5, True),
        ("GET", "1.0 200 OK|Content-Length: 5", 5, False),
        ("GET", "1.0 200 OK|Content-Length: 5|Connection: keep-alive", 5, False),
        ("GET", "1.1 200 OK|Content-Length: 5|Connection: Close", 5, False),
        ("GET", "1.1 200 OK|Content-Length: 5|Connection: x , close", 5, False),
        ("GET", "1.1 200 OK|Content-Length: 5|Connection: x|Connection: close", 5, False),
        ("GET", "1.1 200 OK|Content-Length: 5|Connection: keep-alive", 5, True),
        ("GET", "1.1 200 OK|Content-Length: 0", 0, False),
        ("GET", "1.1 200 OK|Transfer-Encoding: Chunked", CHUNKED, True),
        ("GET", "1.1 200 OK", UNTIL_CLOSE, False),
        ("GET", "1.1 204 No Content|Content-Length: 5", 0, False),
        ("GET", "1.1 304 Not Modified|Content-Length: 5", 0, False),
        ("HEAD", "1.1 200 OK|Content-Length: 5", 0, False),
        ("HEAD", "1.1 200 OK|Transfer-Encoding: chunked", 0, False),
        ("HEAD", "1.1 200 OK", 0, False),
        ("GET", "1.1 101 Switching|Upgrade: WebSocket|Connection: upgrade", 0, False),
    ],
)
def test_length(method: str, head: str, length: int, persistent: bool) -> None:
    raw = f"HTTP/{head}||rest".replace("|", "\r\n").encode()
    for first in range(len(raw) - len("rest")):
        assert take_head(raw[:first], method) == (None, raw[:first])
    found, rest = take_head(raw, method)
    assert found is not None
    assert (found.length, found.persistent, rest) == (length, persistent, b"rest")
    assert found.upgrade == ("websocket" if " 101 " in head else "")


@pytest.mark.parametrize(
    ("head", "cause"),
    [
        ("1.1 200 OK|Content-Length: 5|Content-Length: 6", "two different"),
        ("1.1 200 OK|Content-Length: 5, 5", "invalid Content-Length"),
        ("1.1 200 OK|Content-Length: +5", "invalid Content-Length"),
        ("1.1 200 OK|Content-Length:", "invalid Content-Length"),
        ("1.1 200 OK|Content-Length: \xb2", "invalid Content-Length"),
        (f"1.1 200 OK|Content-Length: {'9' * 19}", "invalid Content-Length"),
        ("1.1 200 OK|Content-Length: 5|Transfer-Encoding: chunked", "both"),
        ("1.1 200 OK|Transfer-Encoding: gzip, chunked", "transfer coding"),
        ("1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked", "transfer coding"),
        ("1.1 200 OK|Transfer-Encoding: identity", "transfer coding"),
        ("1.1 200 OK|Transfer-Encoding:", "transfer coding"),
        ("1.0 200 OK|Transfer-Encoding: chunked", "HTTP/1.0"),
        ("1.1 200 OK|A : b", "header"),
        ("1.1 200 OK|A: b| folded", "header"),
        ("1.1 200 OK|A: b\x00", "HTTP|header"),
        ("2 200 OK", "not an HTTP/1.1 response|status line"),
        ("1.1 20 OK", "status line"),
        (f"1.1 200 OK|A: {'x' * HEAD_BYTES}", "over"),
    ],
)
def test_bad_heads(head: str, cause: str) -> None:
    with pytest.raises(BadResponse, match=cause):
        take_head(f"HTTP/{head}||".replace("|", "\r\n").encode("latin-1"), "GET")


def test_what_is_passed_on() -> None:
    """Neither framing, nor what speaks of the way between the node and us, nor interim answers."""
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
        b"Connection: X-Hop, keep-alive, content-length\r\nX-Hop: 1\r\nx-hop: 2\r\nContent-Length: 2\r\n"
        b"Upgrade: h2c\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"
    )
    head, rest = take_head(raw, "GET")
    assert head is not None
    assert head.headers == [("Content-Length", "2"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]
    assert (head.status, head.length, rest) == ("200 OK", 2, b"")


def test_interim_answers_without_end() -> None:
    """A few are read over; a flood of them is no answer, and would keep everybody else waiting."""
    interim, last = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    head, rest = take_head(interim * INTERIM_HEADS + last, "GET")
    assert head is not None
    assert (head.status, rest) == ("200 OK", b"")
    with pytest.raises(BadResponse, match="interim"):
        take_head(interim * (INTERIM_HEADS + 1) + last, "GET")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("length", "data", "body", "whole", "more"),
    [
        (5, b"hello", b"hello", True, False),
        (5, b"hell", b"hell", False, False),
        (5, b"hello!", b"hello", True, True),
        (0, b"", b"", True, False),
        (0, b"!", b"", True, True),
        (UNTIL_CLOSE, b"hello", b"hello", False, False),
        (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", b"hello", True, False),
        (CHUNKED, b"5\r\nhello\r\n0\r\nA: b\r\n\r\n!", b"hello", True, True),
        (CHUNKED, b"5\r\nhello\r\n0\r\n", b"hello", False, False),
    ],
)
def test_body(length: int, data: bytes, body: bytes, whole: bool, more: bool, size: int) -> None:
    answer = AnswerBody(length)
    got = b"".join(answer.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert (got, answer.whole, answer.more) == (body, whole, more)
    assert answer.until_close is (length == UNTIL_CLOSE)


def test_bad_chunks() -> None:
    with pytest.raises(BadRequest):
        AnswerBody(CHUNKED).feed(b"5\nhello")
