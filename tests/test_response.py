"""Response heads: what an application says in, bytes and framing out; a backend's bytes in, status and headers out."""

import email.utils
import time

import h11
import pytest

from uwsgi_tls.response import (
    CHUNKED,
    CLOSE,
    LENGTH,
    NONE,
    BadResponse,
    Framed,
    frame,
    http_date,
    parse_response_head,
    response_head_end,
)

DATE = "Mon, 23 Nov 2026 12:00:00 GMT"
TYPE = ("Content-Type", "text/plain")
FIVE = ("Content-Length", "5")

TE = b"Transfer-Encoding: chunked"

Headers = list[tuple[str, str]]


def framed(
    status: str = "200 OK",
    *headers: tuple[str, str],
    method: str = "GET",
    minor: int = 1,
    keep_alive: bool = True,
    date: str = "",
    server: str = "",
    hsts: str = "",
) -> Framed:
    return frame(
        status, headers, method=method, minor=minor, keep_alive=keep_alive, date=date, server=server, hsts=hsts
    )


def lines(result: Framed) -> list[bytes]:
    assert result.head.endswith(b"\r\n\r\n")
    return result.head[:-4].split(b"\r\n")


# Status, headers, method, minor, keep-alive asked -> body, length, keep-alive, the lines after the status line.
FRAMING: list[tuple[str, Headers, str, int, bool, int, int, bool, list[bytes]]] = [
    ("200 OK", [FIVE], "GET", 1, True, LENGTH, 5, True, [b"Content-Length: 5"]),
    ("200 OK", [FIVE], "GET", 1, False, LENGTH, 5, False, [b"Content-Length: 5", b"Connection: close"]),
    ("200 OK", [FIVE], "GET", 0, True, LENGTH, 5, True, [b"Content-Length: 5", b"Connection: keep-alive"]),
    ("200 OK", [FIVE], "GET", 0, False, LENGTH, 5, False, [b"Content-Length: 5"]),
    ("200 OK", [("Content-Length", "0")], "GET", 1, True, LENGTH, 0, True, [b"Content-Length: 0"]),
    ("200 OK", [("Content-Length", "007")], "GET", 1, True, LENGTH, 7, True, [b"Content-Length: 7"]),
    ("200 OK", [FIVE, FIVE], "GET", 1, True, LENGTH, 5, True, [b"Content-Length: 5"]),
    ("200 OK", [FIVE, ("content-length", "05")], "GET", 1, True, LENGTH, 5, True, [b"Content-Length: 5"]),
    ("200 OK", [], "GET", 1, True, CHUNKED, -1, True, [TE]),
    ("200 OK", [], "GET", 1, False, CHUNKED, -1, False, [TE, b"Connection: close"]),
    ("200 OK", [], "GET", 0, True, CLOSE, -1, False, []),
    ("200 OK", [], "GET", 0, False, CLOSE, -1, False, []),
    ("404 Not Found", [], "POST", 1, True, CHUNKED, -1, True, [TE]),
    # No body to HEAD; its Content-Length passes
    ("200 OK", [], "HEAD", 1, True, NONE, 0, True, []),
    ("200 OK", [FIVE], "HEAD", 1, True, NONE, 0, True, [b"Content-Length: 5"]),
    ("200 OK", [], "HEAD", 0, True, NONE, 0, True, [b"Connection: keep-alive"]),
    ("200 OK", [], "head", 1, True, CHUNKED, -1, True, [TE]),  # another method
    # 204 has no length, 304 that of the 200 it stands for, 205 zero
    ("204 No Content", [], "GET", 1, True, NONE, 0, True, []),
    ("204 No Content", [FIVE], "GET", 1, True, NONE, 0, True, []),
    ("204 No Content", [FIVE], "HEAD", 1, True, NONE, 0, True, []),
    ("204 No Content", [], "GET", 0, True, NONE, 0, True, [b"Connection: keep-alive"]),
    ("304 Not Modified", [], "GET", 1, True, NONE, 0, True, []),
    ("304 Not Modified", [FIVE], "GET", 1, True, NONE, 0, True, [b"Content-Length: 5"]),
    ("205 Reset Content", [], "GET", 1, True, NONE, 0, True, [b"Content-Length: 0"]),
    ("205 Reset Content", [FIVE], "GET", 1, True, NONE, 0, True, [b"Content-Length: 0"]),
    # The hop-by-hop fields of the application are dropped, but its wish to close is heard
    ("200 OK", [("Transfer-Encoding", "chunked")], "GET", 1, True, CHUNKED, -1, True, [TE]),
    ("200 OK", [("Transfer-Encoding", "chunked"), FIVE], "GET", 1, True, LENGTH, 5, True, [b"Content-Length: 5"]),
    ("200 OK", [("transfer-encoding", "gzip")], "GET", 0, True, CLOSE, -1, False, []),
    ("200 OK", [("Connection", "close")], "GET", 1, True, CHUNKED, -1, False, [TE, b"Connection: close"]),
    ("200 OK", [FIVE, ("connection", "x, Close")], "GET", 0, True, LENGTH, 5, False, [b"Content-Length: 5"]),
    ("200 OK", [FIVE, ("Connection", "keep-alive")], "GET", 1, True, LENGTH, 5, True, [b"Content-Length: 5"]),
    ("200 OK", [FIVE, ("Connection", "keep-alive")], "GET", 0, False, LENGTH, 5, False, [b"Content-Length: 5"]),
    (
        "200 OK",
        [FIVE, ("Keep-Alive", "5"), ("Upgrade", "x"), ("TE", "x"), ("Trailer", "x"), ("Proxy-Connection", "x")],
        "GET",
        1,
        True,
        LENGTH,
        5,
        True,
        [b"Content-Length: 5"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "headers", "method", "minor", "asked", "body", "length", "keep_alive", "expected"), FRAMING
)
def test_framing(
    status: str,
    headers: Headers,
    method: str,
    minor: int,
    asked: bool,
    body: int,
    length: int,
    keep_alive: bool,
    expected: list[bytes],
) -> None:
    result = framed(status, *headers, method=method, minor=minor, keep_alive=asked)
    assert (result.body, result.length, result.keep_alive) == (body, length, keep_alive)
    assert lines(result) == [b"HTTP/1.1 " + status.encode(), *expected]


@pytest.mark.parametrize(("method", "minor", "status"), [
    (method, minor, status)
    for method in ("GET", "HEAD")
    for minor in (0, 1)
    for status in ("200 OK", "204 No Content", "304 Not Modified", "404 Not Found", "599 x")
])  # fmt: skip
@pytest.mark.parametrize("headers", [[], [FIVE], [("Transfer-Encoding", "chunked"), FIVE]])
def test_a_client_finds_the_end(method: str, minor: int, status: str, headers: Headers) -> None:
    """h11, as the client, takes head and body as framed, and then nothing is left and nothing missing."""
    result = framed(status, *headers, method=method, minor=minor, date=DATE)
    body = {NONE: b"", LENGTH: b"12345", CHUNKED: b"5\r\n12345\r\n0\r\n\r\n", CLOSE: b"12345"}[result.body]
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(result.head + body)
    if result.body == CLOSE:
        client.receive_data(b"")
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert not {b"content-length", b"transfer-encoding"} <= set(dict(head.headers))
    payload = b""
    while isinstance(event := client.next_event(), h11.Data):
        payload += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert payload == (b"" if result.body == NONE else b"12345")
    assert client.trailing_data[0] == b""


def test_headers_pass_in_order_and_as_spelt() -> None:
    headers = [("X-Foo", "a"), ("set-cookie", "a=1"), ("Set-Cookie", "b=2"), TYPE, ("x!y", ""), ("X", "\xe9\x80\t ~")]
    assert lines(framed("200 OK", *headers, FIVE)) == [
        b"HTTP/1.1 200 OK",
        b"X-Foo: a",
        b"set-cookie: a=1",
        b"Set-Cookie: b=2",
        b"Content-Type: text/plain",
        b"x!y: ",
        b"X: \xe9\x80\t ~",
        b"Content-Length: 5",
    ]


def test_date_and_server_are_added_unless_said() -> None:
    assert lines(framed("200 OK", FIVE, date=DATE, server="s"))[1:3] == [b"Date: " + DATE.encode(), b"Server: s"]
    result = lines(framed("200 OK", ("date", "then"), ("SERVER", "app"), FIVE, date=DATE, server="s"))
    assert result[1:] == [b"date: then", b"SERVER: app", b"Content-Length: 5"]
    assert lines(framed("200 OK", FIVE))[1:] == [b"Content-Length: 5"]
    assert lines(framed("200 OK", ("Date", "then"), FIVE, date=DATE, server="s"))[1:3] == [b"Server: s", b"Date: then"]
    assert b"Date: " + DATE.encode() in lines(framed("200 OK", ("Server", "app"), FIVE, date=DATE, server="s"))


def test_hsts_is_added_unless_said() -> None:
    """RFC 6797, 6.1: a response has one Strict-Transport-Security field, and an application may know better."""
    added = b"Strict-Transport-Security: max-age=9"
    assert added in lines(framed("404 Not Found", FIVE, hsts="max-age=9"))
    for own in ("Strict-Transport-Security", "strict-transport-security", "STRICT-Transport-Security"):
        result = lines(framed("200 OK", (own, "max-age=0"), FIVE, hsts="max-age=9"))
        assert result[1:] == [own.encode() + b": max-age=0", b"Content-Length: 5"]


@pytest.mark.parametrize("status", ["200 OK", "200 ", "299 a b", "404 Nicht gefunden: \xfc", "500 \t", "599 x"])
def test_good_status(status: str) -> None:
    assert framed(status).head.startswith(b"HTTP/1.1 " + status.encode("latin-1") + b"\r\n")


BAD_STATUS = [
    *(
        "",
        "200",
        "OK",
        " 200 OK",
        "20 OK",
        "2000 OK",
        "200OK",
        "abc OK",
        "200\tOK",
        "+20 OK",
        "\xb200 OK",
        "\u0662\u0660\u0660 OK",
    ),
    *("100 Continue", "101 Switching Protocols", "199 x", "600 x", "000 x", "999 x"),
    *("200 OK\r\n", "200 OK\n", "200 OK\r\nA: b", "200 a\rb", "200 a\x00b", "200 a\x1bb", "200 \x7f", "200 \u20ac"),
]


@pytest.mark.parametrize("status", BAD_STATUS)
def test_bad_status(status: str) -> None:
    with pytest.raises(BadResponse):
        framed(status)


BAD_HEADERS: list[tuple[object, ...]] = [
    # Another header, another response
    (("A", "b\r\nC: d"),),
    (("A", "b\r\n\r\n<html>"),),
    (("A", "b\nC: d"),),
    (("A", "b\rC: d"),),
    (("A", "b\r\n"),),
    (("A", "b\n c"),),
    (("A\r\nB", "c"),),
    (("A: b\r\nC", "d"),),
    (("Set-Cookie", "a\nb"),),
    (("Connection", "close\r\nA: b"),),
    (("Keep-Alive", "a\nb"),),
    (("Date", "a\nb"),),
    # Names and values
    (("A", "\x00"),),
    (("A", "\x0b"),),
    (("A", "\x7f"),),
    (("A", "\u20ac"),),
    (("A\u20ac", "b"),),
    (("", "b"),),
    (("A B", "c"),),
    (("A:", "b"),),
    (("A: b", "c"),),
    (("A ", "b"),),
    ((" A", "b"),),
    (("A\t", "b"),),
    (("A\x00", "b"),),
    (("A\xe9", "b"),),
    (("A(", "b"),),
    (("Content-Length ", "5"),),
    # Lengths
    (("Content-Length", "5"), ("Content-Length", "6")),
    (("Content-Length", "5"), ("content-length", "6")),
    (("Content-Length", ""),),
    (("Content-Length", "a"),),
    (("Content-Length", "-5"),),
    (("Content-Length", "+5"),),
    (("Content-Length", " 5"),),
    (("Content-Length", "5, 5"),),
    (("Content-Length", "0x5"),),
    (("Content-Length", "1_0"),),
    (("Content-Length", "5.0"),),
    (("Content-Length", "\xb2"),),
    (("Content-Length", "\u0665"),),
    (("Content-Length", "9" * 19),),
    # Not pairs of str
    (("A", 5),),
    (("A", None),),
    (("A", b"b"),),
    ((b"A", "b"),),
    ((5, "b"),),
    (([], "b"),),
    (("A",),),
    (("A", "b", "c"),),
    (5,),
]


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=repr)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_bad_headers(headers: tuple[tuple[str, str], ...], method: str) -> None:
    with pytest.raises(BadResponse) as caught:
        framed("200 OK", *headers, method=method)
    assert caught.value.cause.isprintable()
    assert str(caught.value) == caught.value.cause


def test_not_even_the_right_types() -> None:
    for status, headers in ((b"200 OK", []), (None, []), (200, []), ("200 OK", None), ("200 OK", 5)):
        with pytest.raises(BadResponse):
            frame(status, headers, method="GET", minor=1, keep_alive=True, date="")  # type: ignore[arg-type]


@pytest.mark.parametrize("now", [0, 86399.9, 951782400, 1700000000.5, 1795435200, 4102444800])
def test_http_date(now: float) -> None:
    assert http_date(now) == email.utils.formatdate(int(now), usegmt=True)


def test_http_date_of_every_month_and_weekday() -> None:
    for day in range(0, 370, 5):
        assert http_date(day * 86400) == time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(day * 86400))


# --- a backend's head -------------------------------------------------------------------------------------------------

GOOD = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"

PARSED: list[tuple[bytes, str, Headers]] = [
    (GOOD, "200 OK", [("A", "b")]),
    (b"HTTP/1.0 404 Not Found\r\n\r\n", "404 Not Found", []),
    (b"HTTP/1.1 200 \r\n\r\n", "200 ", []),
    (b"HTTP/1.1 200\r\n\r\n", "200 ", []),  # uWSGI passes an application's "200" on
    (b"HTTP/1.1 500 \xe9\tx\r\n\r\n", "500 \xe9\tx", []),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "101 Switching Protocols", [("Upgrade", "x")]),
    (
        b"HTTP/1.1 200 OK\r\nset-cookie:a\r\nSet-Cookie: \tb \t\r\nX:\r\nY_Z: \xff\r\n\r\n",
        "200 OK",
        [("set-cookie", "a"), ("Set-Cookie", "b"), ("X", ""), ("Y_Z", "\xff")],
    ),
]


@pytest.mark.parametrize(("raw", "status", "headers"), PARSED)
def test_parse_response_head(raw: bytes, status: str, headers: Headers) -> None:
    assert response_head_end(raw + b"body\r\n\r\n", 100) == len(raw)
    assert response_head_end(bytearray(raw), 100) == len(raw)
    assert [response_head_end(raw[:size], 100) for size in range(len(raw))] == [-1] * len(raw)
    assert parse_response_head(raw) == (status, headers)


MALFORMED = [
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
    b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000\r\n\r\n",
    b"HTTP/1.1 600 x\r\n\r\n",
    b"HTTP/1.1 000 x\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"HTTP/1.1 200 a\x00b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
    b"Status: 200 OK\r\n\r\n",
    b"\r\n" + GOOD,
    b"<html>\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
]


@pytest.mark.parametrize("raw", MALFORMED)
def test_malformed_response_head(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_response_head(raw)


@pytest.mark.parametrize("raw", [b"X", b"HTTP/2", b"\r\n", b"HTTP/1.1 200 OK\nA", b"HTTP/1.1 200 OK\r\nA: b\x00"])
def test_malformed_response_head_is_refused_before_its_end(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        response_head_end(raw, 100)


def test_response_head_over_the_limit() -> None:
    assert response_head_end(GOOD, len(GOOD)) == len(GOOD)
    for raw in (GOOD, GOOD[:-2], GOOD + b"body"):
        with pytest.raises(BadResponse, match="response head over"):
            response_head_end(raw, len(GOOD) - 2)
