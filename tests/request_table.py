"""Requests as bytes and what becomes of them: the tables of the parser's tests, of those over TLS, and of the fuzz.

Three tables: heads that are accepted and what they say, heads that are refused and their status, and attacks: streams
with a request in them that nobody may see.
"""

from __future__ import annotations

from dataclasses import dataclass

from uwsgi_tls.http import CHUNKED

LIMIT = 1024  # bytes of a head
MAX_HEADERS = 20  # fields of one
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    """A request with a good Host and these field lines."""
    return b"\r\n".join((line, host, *fields, b"", b""))


def line(request_line: bytes) -> bytes:
    return get(line=request_line)


def bare(*lines: bytes) -> bytes:
    """A request of exactly these lines."""
    return b"\r\n".join((*lines, b"", b""))


# --- accepted ---------------------------------------------------------------------------------------------------------

# Every attribute that a request says is given; the others are those of GET / on host a.
PLAIN: dict[str, object] = {
    "method": "GET",
    "target": "/",
    "path": "/",
    "query": "",
    "protocol": "HTTP/1.1",
    "minor": 1,
    "host": "a",
    "fields": {"HTTP_HOST": "a"},
    "content_length": 0,
    "keep_alive": True,
    "expect_continue": False,
    "upgrade": "",
}


def with_fields(**fields: str) -> dict[str, object]:
    return {"fields": {"HTTP_HOST": "a", **fields}}


def target(text: str, path: str, query: str = "") -> dict[str, object]:
    return {"target": text, "path": path, "query": query}


def host(text: str) -> dict[str, object]:
    return {"host": text, "fields": {"HTTP_HOST": text}}


OLD: dict[str, object] = {"protocol": "HTTP/1.0", "minor": 0, "keep_alive": False}


ACCEPTED: list[tuple[bytes, dict[str, object]]] = [
    (get(), {}),
    (b"\r\n" + get(), {}),  # RFC 9112 2.2: one empty line first
    # Methods: any token, case kept
    (line(b"HEAD / HTTP/1.1"), {"method": "HEAD"}),
    (line(b"get / HTTP/1.1"), {"method": "get"}),
    (line(b"PROPFIND / HTTP/1.1"), {"method": "PROPFIND"}),
    (line(b"M-SEARCH / HTTP/1.1"), {"method": "M-SEARCH"}),
    (line(b"!#$%&'*+-.^_`|~09 / HTTP/1.1"), {"method": "!#$%&'*+-.^_`|~09"}),
    (line(b"PRI / HTTP/1.1"), {"method": "PRI"}),
    # Origin-form targets
    (line(b"GET /a/b.html HTTP/1.1"), target("/a/b.html", "/a/b.html")),
    (line(b"GET //a//b HTTP/1.1"), target("//a//b", "//a//b")),
    (line(b"GET /../a/./b HTTP/1.1"), target("/../a/./b", "/../a/./b")),
    (line(b"GET /? HTTP/1.1"), target("/?", "/")),
    (line(b"GET /a?b=c&d HTTP/1.1"), target("/a?b=c&d", "/a", "b=c&d")),
    (line(b"GET /a?b?c HTTP/1.1"), target("/a?b?c", "/a", "b?c")),
    (line(b"GET /a?%41+%20 HTTP/1.1"), target("/a?%41+%20", "/a", "%41+%20")),
    (line(b"GET /a%20b/%41%2fc HTTP/1.1"), target("/a%20b/%41%2fc", "/a b/A/c")),
    (line(b"GET /%c3%A9 HTTP/1.1"), target("/%c3%A9", "/\xc3\xa9")),
    (line(b"GET /%zz%4%%25 HTTP/1.1"), target("/%zz%4%%25", "/%zz%4%%")),  # invalid escapes stay
    (line(b"GET /% HTTP/1.1"), target("/%", "/%")),
    (line(b"GET /%0d%0a HTTP/1.1"), target("/%0d%0a", "/\r\n")),
    (line(b"GET /%3f%23 HTTP/1.1"), target("/%3f%23", "/?#")),
    (line(b"GET /?%00 HTTP/1.1"), target("/?%00", "/", "%00")),
    (line(b"GET /*;a=b:c@d HTTP/1.1"), target("/*;a=b:c@d", "/*;a=b:c@d")),
    (line(b'GET /{|}^`"<>\\ HTTP/1.1'), target('/{|}^`"<>\\', '/{|}^`"<>\\')),  # browsers send some of these
    # Absolute-form: the target's host wins
    (
        line(b"GET http://b:81/c?d HTTP/1.1"),
        {**target("http://b:81/c?d", "/c", "d"), **host("b:81")},
    ),
    (line(b"GET https://b HTTP/1.1"), {**target("https://b", "/"), **host("b")}),
    (line(b"GET HTTPS://b?c HTTP/1.1"), {**target("HTTPS://b?c", "/", "c"), **host("b")}),
    (line(b"GET http://[::1]/%41 HTTP/1.1"), {**target("http://[::1]/%41", "/A"), **host("[::1]")}),
    (bare(b"GET http://b/ HTTP/1.0"), {**OLD, **target("http://b/", "/"), **host("b")}),
    (line(b"OPTIONS http://b HTTP/1.1"), {"method": "OPTIONS", **target("http://b", "*"), **host("b")}),
    (line(b"OPTIONS http://b/ HTTP/1.1"), {"method": "OPTIONS", **target("http://b/", "/"), **host("b")}),
    (line(b"OPTIONS http://b? HTTP/1.1"), {"method": "OPTIONS", **target("http://b?", "/"), **host("b")}),
    # Asterisk-form
    (line(b"OPTIONS * HTTP/1.1"), {"method": "OPTIONS", **target("*", "*")}),
    # Versions
    (bare(b"GET / HTTP/1.0"), {**OLD, "host": "", "fields": {}}),
    (line(b"GET / HTTP/1.0"), OLD),
    (line(b"GET / HTTP/1.2"), {}),  # RFC 9110 2.5: the highest minor version that we know
    (line(b"GET / HTTP/1.9"), {}),
    # Connection
    (get(b"Connection: close"), {"keep_alive": False}),
    (get(b"Connection: CLOSE"), {"keep_alive": False}),
    (get(b"Connection: keep-alive"), {}),
    (get(b"Connection: keep-alive, close"), {"keep_alive": False}),
    (get(b"Connection: foo", b"Connection: close"), {"keep_alive": False}),
    (get(b"Connection: ,,close,"), {"keep_alive": False}),
    (get(b"Connection: closed"), {}),
    (get(b"Connection:"), {}),
    (get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), {**OLD, "keep_alive": True}),
    (get(b"Connection: Keep-Alive", line=b"GET / HTTP/1.0"), {**OLD, "keep_alive": True}),
    (get(b"Connection: keep-alive, close", line=b"GET / HTTP/1.0"), OLD),
    (get(b"Connection: x-a, X-B", b"X-A: 1", b"X-B: 2", b"X-C: 3"), with_fields(HTTP_X_C="3")),
    (get(b"Connection: host, content-type", b"Content-Type: b"), with_fields(CONTENT_TYPE="b")),
    (
        get(b"Connection: content-length, nt-length", b"Content-Length: 3"),
        {**with_fields(CONTENT_LENGTH="3"), "content_length": 3},
    ),
    (get(b"Connection: Upgrade", b"Upgrade: websocket"), {"upgrade": "websocket"}),
    (get(b"Connection: keep-alive, upgrade", b"Upgrade: websocket"), {"upgrade": "websocket"}),
    (get(b"Upgrade: websocket"), {}),
    (get(b"Connection: Upgrade", b"Upgrade: websocket", line=b"GET / HTTP/1.0"), OLD),
    # Fields that stay on this connection
    (get(b"Keep-Alive: timeout=5", b"TE: trailers", b"Trailer: X", b"Proxy-Connection: keep-alive"), {}),
    (get(b"Proxy: http://evil"), {}),
    (get(b"Client-Cert: :AA==:", b"CLIENT-CERT-CHAIN: :AA==:", b"Client_Cert: :AA==:"), {}),
    # Names
    (get(b"aCCept: x"), with_fields(HTTP_ACCEPT="x")),
    (get(b"X-Foo-Bar: x"), with_fields(HTTP_X_FOO_BAR="x")),
    (get(b"1: x"), with_fields(HTTP_1="x")),
    (get(b"X_Foo: 1", b"X-Foo: 2"), with_fields(HTTP_X_FOO="2")),
    (get(b"X.Foo: 1", b"X!: 2", b"X~: 3"), {}),
    (get(b"Content_Length: 5", b"Transfer_Encoding: chunked", b"Content_Type: a"), {}),
    (get(b"HTTPS_DN: /CN=evil", b"HTTPS-DN: /CN=evil"), with_fields(HTTP_HTTPS_DN="/CN=evil")),
    (get(b"Http-Host: b", b"Https: on"), with_fields(HTTP_HTTP_HOST="b", HTTP_HTTPS="on")),
    (get(b"Remote-User: root"), with_fields(HTTP_REMOTE_USER="root")),
    # Values
    (get(b"A:x"), with_fields(HTTP_A="x")),
    (get(b"A:"), with_fields(HTTP_A="")),
    (get(b"A: \t "), with_fields(HTTP_A="")),
    (get(b"A: \t x\ty  z \t"), with_fields(HTTP_A="x\ty  z")),
    (get(b"A: x:y"), with_fields(HTTP_A="x:y")),
    (get(b"A: \xe9\xff\x80\x85\xa0"), with_fields(HTTP_A="\xe9\xff\x80\x85\xa0")),
    (get(b"Content-Type: text/plain"), with_fields(CONTENT_TYPE="text/plain")),
    # Repetitions that may be joined
    (get(b"X-Foo: 1", b"x-foo: 2", b"X-FOO:"), with_fields(HTTP_X_FOO="1, 2, ")),
    (get(b"Cookie: a=1", b"cookie: b=2"), with_fields(HTTP_COOKIE="a=1; b=2")),
    (get(b"X-Forwarded-For: 1", b"X-Forwarded-For: 2"), with_fields(HTTP_X_FORWARDED_FOR="1, 2")),
    # Host
    (get(host=b"hOST: a"), {}),
    (get(host=b"Host: a:443"), host("a:443")),
    (get(host=b"Host: a:"), host("a:")),
    (get(host=b"Host: a.b-c_d.example.com.:65535"), host("a.b-c_d.example.com.:65535")),
    (get(host=b"Host: 127.0.0.1"), host("127.0.0.1")),
    (get(host=b"Host: [::1]:8443"), host("[::1]:8443")),
    (get(host=b"Host: [::ffff:127.0.0.1]"), host("[::ffff:127.0.0.1]")),
    (get(host=b"Host: " + b"a" * 255 + b":65535"), host("a" * 255 + ":65535")),
    # Bodies
    (get(b"Content-Length: 0"), with_fields(CONTENT_LENGTH="0")),
    (get(b"Content-Length: 5"), {**with_fields(CONTENT_LENGTH="5"), "content_length": 5}),
    (get(b"Content-Length:\t5 "), {**with_fields(CONTENT_LENGTH="5"), "content_length": 5}),
    (get(b"Content-Length: 0010"), {**with_fields(CONTENT_LENGTH="10"), "content_length": 10}),
    (
        get(b"Content-Length: " + b"9" * 18),
        {**with_fields(CONTENT_LENGTH="9" * 18), "content_length": 10**18 - 1},
    ),
    (
        get(b"Content-Length: 5", line=b"POST / HTTP/1.0"),
        {**OLD, **with_fields(CONTENT_LENGTH="5"), "method": "POST", "content_length": 5},
    ),
    (get(b"Transfer-Encoding: chunked"), {"content_length": CHUNKED}),
    (get(b"transfer-encoding:CHUNKED"), {"content_length": CHUNKED}),
    (get(b"Transfer-Encoding: \tchunked\t "), {"content_length": CHUNKED}),
    # Expect
    (
        get(b"Expect: 100-continue", b"Content-Length: 5"),
        {
            **with_fields(HTTP_EXPECT="100-continue", CONTENT_LENGTH="5"),
            "content_length": 5,
            "expect_continue": True,
        },
    ),
    (
        get(b"Expect: 100-Continue", b"Transfer-Encoding: chunked"),
        {**with_fields(HTTP_EXPECT="100-Continue"), "content_length": CHUNKED, "expect_continue": True},
    ),
    (
        get(b"Expect: 100-continue", b"Connection: expect", b"Transfer-Encoding: chunked"),
        {"content_length": CHUNKED, "expect_continue": True},
    ),
    (get(b"Expect: 100-continue"), with_fields(HTTP_EXPECT="100-continue")),
    (
        get(b"Expect: 100-continue", b"Content-Length: 5", line=b"GET / HTTP/1.0"),
        {**OLD, **with_fields(HTTP_EXPECT="100-continue", CONTENT_LENGTH="5"), "content_length": 5},
    ),
    # At the limits
    (get(*[b"X%d: " % i for i in range(MAX_HEADERS - 1)]), with_fields(**{f"HTTP_X{i}": "" for i in range(19)})),
    (get(b"A: " + b"x" * (LIMIT - len(get(b"A: ")))), with_fields(HTTP_A="x" * (LIMIT - len(get(b"A: "))))),
]


# --- refused, and with which status -----------------------------------------------------------------------------------

REFUSED: list[tuple[int, bytes]] = [
    # Empty lines before the request line: one at most
    (400, b"\r\n\r\n" + get()),
    (400, b"\n" + get()),
    (400, b"\r" + get()),
    (400, b" " + get()),
    (400, b"\r\n " + get()),
    # Request lines
    (400, bare(b"GET")),
    (400, bare(b"GET /")),  # HTTP/0.9
    (400, line(b"GET  HTTP/1.1")),
    (400, line(b"GET / ")),
    (400, line(b"GET  / HTTP/1.1")),
    (400, line(b"GET /  HTTP/1.1")),
    (400, line(b"GET / HTTP/1.1 ")),
    (400, line(b"GET\t/ HTTP/1.1")),
    (400, line(b"GET /\tHTTP/1.1")),
    (400, line(b"GET /\x0bHTTP/1.1")),
    (400, line(b"GET / a HTTP/1.1")),
    (400, line(b"GET / HTTP/1.1 HTTP/1.1")),
    (400, line(b"/ HTTP/1.1")),
    (400, line(b" / HTTP/1.1")),
    (400, line(b"GE(T / HTTP/1.1")),
    (400, line(b"GET: / HTTP/1.1")),
    (400, line(b"G\xc9T / HTTP/1.1")),
    (400, line(b'"GET" / HTTP/1.1')),
    (400, line(b"GET / http/1.1")),
    (400, line(b"GET / HTTP/1")),
    (400, line(b"GET / HTTP/1.")),
    (400, line(b"GET / HTTP/.1")),
    (400, line(b"GET / HTTP/1.10")),
    (400, line(b"GET / HTTP/01.1")),
    (400, line(b"GET / HTTP/1,1")),
    (400, line(b"GET / HTTP/1 .1")),
    (400, line(b"GET / HTTP/+1.1")),
    (400, line(b"GET / HTTP/1.\xb2")),
    (400, line(b"GET / HTTPS/1.1")),
    (400, line(b"GET / XHTTP/1.1")),
    (400, line(b"GET / ICAP/1.0")),
    (400, line(b"HTTP/1.1 200 OK")),
    (400, bare(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443", b"GET / HTTP/1.1", b"Host: a")),  # never inside TLS
    (400, b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x04\xd2\x01\xbb" + get()),  # PROXY v2
    (400, b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160) + b"\r\n\r\n"),  # TLS inside TLS
    (400, b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    # Versions
    (505, line(b"GET / HTTP/2.0")),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (505, line(b"GET / HTTP/0.9")),
    (505, line(b"GET / HTTP/3.0")),
    (505, line(b"GET / HTTP/9.9")),
    (505, bare(b"GET / HTTP/2.0", b"bad line")),  # the request line is judged first, however the head arrives
    # Targets
    (400, line(b"GET a HTTP/1.1")),
    (400, line(b"GET ?a HTTP/1.1")),
    (400, line(b"GET * HTTP/1.1")),
    (400, line(b"GET *a HTTP/1.1")),
    (400, line(b"OPTIONS ** HTTP/1.1")),
    (400, line(b"GET a:443 HTTP/1.1")),
    (400, line(b"OPTIONS a:443 HTTP/1.1")),
    (400, line(b"GET /a#b HTTP/1.1")),
    (400, line(b"GET /?a#b HTTP/1.1")),
    (400, line(b"GET /a\x00b HTTP/1.1")),
    (400, line(b"GET /a\x01b HTTP/1.1")),
    (400, line(b"GET /a\x7fb HTTP/1.1")),
    (400, line(b"GET /?\x1f HTTP/1.1")),
    (400, line(b"GET /\xc3\xa9 HTTP/1.1")),
    (400, line(b"GET /?\xff HTTP/1.1")),
    (400, line(b"GET /%00 HTTP/1.1")),
    (400, line(b"GET /a%00.html?b HTTP/1.1")),
    (400, line(b"GET http://b/%00 HTTP/1.1")),
    (400, line(b"GET \\a HTTP/1.1")),
    (400, line(b"GET http:///a HTTP/1.1")),
    (400, line(b"GET http:// HTTP/1.1")),
    (400, line(b"GET http:/a HTTP/1.1")),
    (400, line(b"GET http:a HTTP/1.1")),
    (400, line(b"GET ftp://a/ HTTP/1.1")),
    (400, line(b"GET file:///etc/passwd HTTP/1.1")),
    (400, line(b"GET http://user@b/ HTTP/1.1")),
    (400, line(b"GET http://user:pw@b/ HTTP/1.1")),
    (400, line(b"GET http://b:99999/ HTTP/1.1")),
    (400, line(b"GET http://b,c/ HTTP/1.1")),
    (400, bare(b"GET http://b/ HTTP/1.1")),  # a Host is still needed
    (501, line(b"CONNECT a:443 HTTP/1.1")),
    (501, line(b"CONNECT / HTTP/1.1")),
    # Line ends
    (400, get().replace(b"\r\n", b"\n")),
    (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n\r" + NEXT),
    # Field lines
    (400, get(b" folded")),
    (400, get(b"\tfolded")),
    (400, get(b"A: x", b" folded")),
    (400, get(b"Transfer-Encoding:", b" chunked")),
    (400, bare(b"GET / HTTP/1.1", b" Host: a")),
    (400, get(b"A : x")),
    (400, get(b"A\t: x")),
    (400, get(b"Transfer-Encoding : chunked")),
    (400, get(b"Content-Length : 5")),
    (400, get(b"Transfer-Encoding\x0b: chunked")),
    (400, get(b"Transfer-Encoding\x00: chunked")),
    (400, get(b"no colon")),
    (400, get(b"nocolon")),
    (400, get(b": x")),
    (400, get(b":")),
    (400, get(b"A B: x")),
    (400, get(b"(A): x")),
    (400, get(b"A,B: x")),
    (400, get(b'"A": x')),
    (400, get(b"A\xe9: x")),
    (400, get(b"\xef\xbb\xbfA: x")),
    (400, get(b"A@B: x")),
    (400, get(b"A/B: x")),
    (400, get(b"A\x7f: x")),
    (400, get(b"A: x\x00y")),
    (400, get(b"A: \x01")),
    (400, get(b"A: x\x08")),
    (400, get(b"A: x\x0b")),
    (400, get(b"A: x\x0c")),
    (400, get(b"A: x\x1by")),
    (400, get(b"A: \x7f")),
    (400, get(b"A_B: \x00")),  # a field that will be dropped is still judged
    # Fields that may come once
    (400, get(b"Host: a")),
    (400, get(b"host: b")),
    (400, get(b"Content-Length: 5", b"Content-Length: 5")),
    (400, get(b"Content-Length: 5", b"Content-Length: 6")),
    (400, get(b"Content-Length: 5", b"content-length: 5")),
    (400, get(b"Content-Length:", b"Content-Length: 5")),
    (400, get(b"Content-Type: a", b"Content-Type: b")),
    (400, get(b"Authorization: Basic YTpi", b"Authorization: Basic YTpj")),
    (400, get(b"Origin: https://a", b"Origin: https://b")),
    (400, get(b"Range: bytes=0-1", b"Range: bytes=2-3")),
    (400, get(b"Expect: 100-continue", b"Expect: 100-continue")),
    (400, get(b"Sec-WebSocket-Key: a", b"Sec-WebSocket-Key: b")),
    (400, get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    (400, get(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked")),
    (400, get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
    # Host
    (400, bare(b"GET / HTTP/1.1")),
    (400, bare(b"GET / HTTP/1.1", b"A: b")),
    (400, get(host=b"Host:")),
    (400, get(host=b"Host: ")),
    (400, bare(b"GET / HTTP/1.0", b"Host:")),
    (400, get(host=b"Host: a b")),
    (400, get(host=b"Host: a, b")),
    (400, get(host=b"Host: a/b")),
    (400, get(host=b"Host: a?b")),
    (400, get(host=b"Host: a#b")),
    (400, get(host=b"Host: a@b")),
    (400, get(host=b"Host: a\\b")),
    (400, get(host=b"Host: http://a")),
    (400, get(host=b"Host: <a>")),
    (400, get(host=b"Host: a%41")),
    (400, get(host=b"Host: \xc3\xa9")),
    (400, get(host=b"Host: .")),
    (400, get(host=b"Host: ..")),
    (400, get(host=b"Host: .a")),
    (400, get(host=b"Host: a..b")),
    (400, get(host=b"Host: a:b")),
    (400, get(host=b"Host: a:-1")),
    (400, get(host=b"Host: a:65536")),
    (400, get(host=b"Host: a:000443")),
    (400, get(host=b"Host: a:80:80")),
    (400, get(host=b"Host: :443")),
    (400, get(host=b"Host: ::1")),
    (400, get(host=b"Host: [::1")),
    (400, get(host=b"Host: ::1]")),
    (400, get(host=b"Host: []")),
    (400, get(host=b"Host: [:::]")),
    (400, get(host=b"Host: [1:2:3]")),
    (400, get(host=b"Host: [::1]a")),
    (400, get(host=b"Host: [fe80::1%25eth0]")),
    (400, get(host=b"Host: [v1.a]")),
    (400, get(host=b"Host: [127.0.0.1]")),
    (400, get(host=b"Host: " + b"a" * 262)),
    (400, get(line=b"GET http://b/ HTTP/1.1", host=b"Host: a b")),  # invalid, even if the target wins
    # Content-Length
    (400, get(b"Content-Length:")),
    (400, get(b"Content-Length: a")),
    (400, get(b"Content-Length: +5")),
    (400, get(b"Content-Length: -5")),
    (400, get(b"Content-Length: -0")),
    (400, get(b"Content-Length: 5 5")),
    (400, get(b"Content-Length: 5,5")),
    (400, get(b"Content-Length: 5, 5")),
    (400, get(b"Content-Length: 5,")),
    (400, get(b"Content-Length: 5.0")),
    (400, get(b"Content-Length: 5e0")),
    (400, get(b"Content-Length: 0x5")),
    (400, get(b"Content-Length: 1_0")),
    (400, get(b'Content-Length: "5"')),
    (400, get(b"Content-Length: 5;a")),
    (400, get(b"Content-Length: \xb2")),  # a superscript two is a digit to str.isdigit
    (400, get(b"Content-Length: \xa05")),
    (413, get(b"Content-Length: 1" + b"0" * 18)),
    (413, get(b"Content-Length: 18446744073709551621")),  # 5 modulo 2**64
    (413, get(b"Content-Length: " + b"9" * 500)),
    (413, get(b"Content-Length: " + b"0" * 19 + b"5")),
    # Transfer-Encoding, alone and with Content-Length (CL.TE, TE.CL, TE.TE)
    (400, get(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    (400, get(b"Transfer-Encoding: chunked", b"Content-Length: 5")),
    (400, get(b"Content-Length: 0", b"Transfer-Encoding: chunked")),
    (400, get(b"Content-Length: 5", b"Transfer-Encoding: identity")),
    (400, get(b"Transfer-Encoding: gzip, chunked", b"Content-Length: 5")),
    (400, get(b"Transfer-Encoding: chunked", b"Content-Length: 5", line=b"POST / HTTP/1.0")),
    (400, get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")),
    (400, get(b"Transfer-Encoding:")),
    (400, get(b"Transfer-Encoding: ,")),
    (400, get(b"Transfer-Encoding: identity")),
    (400, get(b"Transfer-Encoding: gzip")),
    (400, get(b"Transfer-Encoding: chunked, gzip")),
    (400, get(b"Transfer-Encoding: chunked, identity")),
    (400, get(b"Transfer-Encoding: chunked, chunked")),
    (400, get(b"Transfer-Encoding: chunked,")),
    (400, get(b"Transfer-Encoding: ,chunked")),
    (400, get(b"Transfer-Encoding: chunked;q=1")),
    (400, get(b"Transfer-Encoding: xchunked")),
    (400, get(b"Transfer-Encoding: chunkedx")),
    (400, get(b"Transfer-Encoding: chunk")),
    (400, get(b'Transfer-Encoding: "chunked"')),
    (400, get(b"Transfer-Encoding: 'chunked'")),
    (400, get(b"Transfer-Encoding: \x0bchunked")),
    (400, get(b"Transfer-Encoding: chunked\x00")),
    (400, get(b"Transfer-Encoding: \xa0chunked")),
    (400, get(b"Transfer-Encoding: gzip chunked")),
    (400, get(b"Transfer-Encoding: gzip\x0bx, chunked")),
    (400, get(b"Transfer-Encoding: gz ip, chunked")),
    (501, get(b"Transfer-Encoding: gzip, chunked")),
    (501, get(b"Transfer-Encoding: identity,chunked")),
    (501, get(b"Transfer-Encoding: gzip,\tdeflate , Chunked")),
    # Expect
    (417, get(b"Expect: 200-ok")),
    (417, get(b"Expect:")),
    (417, get(b"Expect: 100-continue, foo", b"Content-Length: 5")),
    (417, get(b"Expect: foo", line=b"GET / HTTP/1.0")),
    # Limits
    (431, get(*[b"X%d: " % i for i in range(MAX_HEADERS)])),
    (431, get(*[b"X_%d: " % i for i in range(MAX_HEADERS)])),  # those that are dropped count
    (431, get(b"A: " + b"x" * (LIMIT + 1 - len(get(b"A: "))))),
    (431, get(b"A: " + b"x" * 2 * LIMIT)),
    (431, get(b"A" * 2 * LIMIT + b": x")),
    (431, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * LIMIT),
    (400, get(b"A: \x00" + b"x" * 2 * LIMIT)),  # before the limit
    (431, get(b"A: " + b"x" * 2 * LIMIT + b"\x00")),  # behind it
    (414, line(b"GET /" + b"a" * LIMIT + b" HTTP/1.1")),
    (414, line(b"A" * LIMIT + b" / HTTP/1.1")),
    (414, b"\r\n" + line(b"GET /" + b"a" * LIMIT + b" HTTP/1.1")),
]


# --- request smuggling ------------------------------------------------------------------------------------------------

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"  # RFC 9112 11.2: must never be taken for a request


@dataclass(frozen=True, slots=True)
class Attack:
    """A stream that is to be taken for two requests, and the status of the one that it is: 200 or a refusal."""

    family: str
    stream: bytes
    status: int


def post(*fields: bytes, body: bytes) -> bytes:
    return get(*fields, line=b"POST / HTTP/1.1") + body


def counted(*fields: bytes, body: bytes = SMUGGLED) -> bytes:
    """A request with a right Content-Length and these fields too: its body is the smuggled request."""
    return post(b"Content-Length: %d" % len(body), *fields, body=body)


def chunks(*fields: bytes, size: bytes = b"%x" % len(SMUGGLED), body: bytes = SMUGGLED + b"\r\n0\r\n\r\n") -> bytes:
    """A chunked request whose first chunk is the smuggled request, or what else `body` has."""
    return post(b"Transfer-Encoding: chunked", *fields, body=size + b"\r\n" + body)


TE = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"  # with it a chunked body would be over, and the smuggled request the next

ATTACKS: list[Attack] = [
    # One sees Content-Length, the other Transfer-Encoding
    *[
        Attack("CL.TE", counted(field, body=LAST + SMUGGLED), 400)
        for field in (
            TE,
            b"transfer-encoding:chunked",
            b"Transfer-Encoding:\tchunked",
            b"Transfer-Encoding: CHUNKED",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding\t: chunked",
            b"Transfer-Encoding\x0b: chunked",
            b"Transfer-Encoding\x00: chunked",
            b"Transfer-Encoding\xa0: chunked",
            b" Transfer-Encoding: chunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding:\n chunked",
            b"X: a\nTransfer-Encoding: chunked",
            b"X: a\rTransfer-Encoding: chunked",
            b"X: a\r\rTransfer-Encoding: chunked",
            b"\r\rTransfer-Encoding: chunked",
            b"\x00Transfer-Encoding: chunked",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked;a=b",
            b'Transfer-Encoding: "chunked"',
            b"Transfer-Encoding: x chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding:",
            b"Transfer-Encoding chunked",
        )
    ],
    Attack("CL.TE", post(b"Content-Length: 6", TE, body=LAST + b"G" + SMUGGLED), 400),
    Attack("CL.TE", post(b"Content-Length: 6", TE, b"Connection: content-length", body=LAST + b"G" + SMUGGLED), 400),
    *[
        Attack("TE.CL", chunks(field), 400)
        for field in (
            b"Content-Length: 4",
            b"Content-Length: 0",
            b"content-length:4",
            b"Content-Length: 0, 4",
            b"Content-Length : 4",
            b"Content-Length\x0b: 4",
            b" Content-Length: 4",
            b"X: a\nContent-Length: 4",
            b"X: a\rContent-Length: 4",
            b"Content-Length:\r\n 4",
            b"Content-Length: x",
            b"Content-Length:",
        )
    ],
    # Two codings, or one that only one of two parsers knows
    *[
        Attack("TE.TE", post(*fields, body=LAST + SMUGGLED), 400)
        for fields in (
            (TE, TE),
            (TE, b"Transfer-Encoding: x"),
            (TE, b"Transfer-Encoding: identity"),
            (b"Transfer-Encoding: x", TE),
            (b"Transfer-Encoding: identity", TE),
            (b"Transfer-Encoding: chunked, chunked",),
            (b"Transfer-Encoding: chunked, x",),
            (b"Transfer-Encoding: chunked x",),
            (b"Transfer-Encoding: ,chunked",),
            (b"Transfer-Encoding: chunked,",),
            (b"Transfer-Encoding: 'chunked'",),
            (b"Transfer-Encoding: \x0bchunked",),
            (b"Transfer-Encoding: chunked\x0b",),
            (b"Transfer-Encoding: \x00chunked",),
            (b"Transfer-Encoding: chunked\x00",),
            (b"Transfer-Encoding: \xa0chunked",),
            (b"Transfer-Encoding: chun\tked",),
            (b"Transfer-Encoding: chunked\r\n x",),
        )
    ],
    Attack("TE.TE", post(b"Transfer-Encoding: x, chunked", body=LAST + SMUGGLED), 501),
    Attack("TE.TE", post(b"Transfer-Encoding: gzip, chunked", body=LAST + SMUGGLED), 501),
    Attack("TE in 1.0", get(TE, line=b"POST / HTTP/1.0") + LAST + SMUGGLED, 400),
    Attack("TE in 1.0", get(TE, b"Connection: keep-alive", line=b"POST / HTTP/1.0") + LAST + SMUGGLED, 400),
    # Two lengths, or one that two parsers read differently
    *[
        Attack("CL.CL", post(*fields, body=SMUGGLED), 400)
        for fields in (
            (b"Content-Length: 0", b"Content-Length: %d" % len(SMUGGLED)),
            (b"Content-Length: %d" % len(SMUGGLED), b"Content-Length: 0"),
            (b"Content-Length: %d" % len(SMUGGLED), b"content-length: %d" % len(SMUGGLED)),
            (b"Content-Length: %d, 0" % len(SMUGGLED),),
            (b"Content-Length: 0 %d" % len(SMUGGLED),),
            (b"Content-Length: +0",),
            (b"Content-Length: -%d" % len(SMUGGLED),),
            (b"Content-Length: 0x25",),
            (b"Content-Length: 3_7",),
            (b"Content-Length: 0\x0b",),
            (b"Content-Length: 0\x00",),
            (b"Content-Length: 0;",),
            (b"Content-Length 0: 0",),
            (b"Content-Length:\r\n 0",),
        )
    ],
    Attack("CL.CL", post(b"Content-Length: 18446744073709551616", body=SMUGGLED), 413),
    # A method that one of two parsers believes to have no body
    *[
        Attack("CL.0", counted().replace(b"POST", method, 1), 200)
        for method in (b"GET", b"DELETE", b"OPTIONS", b"TRACE", b"FOO")
    ],
    *[
        Attack("TE.0", chunks().replace(b"POST", method, 1), 200)
        for method in (b"GET", b"DELETE", b"OPTIONS", b"TRACE", b"FOO")
    ],
    # Chunk extensions: a line end in one, or one that is dropped with what follows (TERM.EXT, EXT.TERM, SPILL)
    Attack("chunk extension", chunks(size=b"%x;a=b" % len(SMUGGLED)), 200),
    Attack("chunk extension", chunks(size=b'%x;a="0;b"' % len(SMUGGLED)), 200),
    *[
        Attack("chunk extension", chunks(size=size, body=body + SMUGGLED), 400)
        for size, body in (
            (b"2;\nxx", b"25\r\n0\r\n\r\n"),
            (b"2;a\nb", b"xx\r\n0\r\n\r\n"),
            (b"2;a\rb", b"xx\r\n0\r\n\r\n"),
            (b'2;a="\r\n"', b"xx\r\n0\r\n\r\n"),
            (b"2;a\x00", b"xx\r\n0\r\n\r\n"),
            (b"2 ;a", b"xx\r\n0\r\n\r\n"),
            (b"2\t;a", b"xx\r\n0\r\n\r\n"),
            (b"2 a", b"xx\r\n0\r\n\r\n"),
            (b"2,a", b"xx\r\n0\r\n\r\n"),
            (b";2", b"xx\r\n0\r\n\r\n"),
            (b"2;" + b"a" * 300, b"xx\r\n0\r\n\r\n"),
        )
    ],
    # Chunk sizes and chunk ends
    *[
        Attack("chunk", chunks(size=size, body=body + SMUGGLED), 400)
        for size, body in (
            (b"2 ", b"xx\r\n0\r\n\r\n"),
            (b" 2", b"xx\r\n0\r\n\r\n"),
            (b"+2", b"xx\r\n0\r\n\r\n"),
            (b"-2", b"xx\r\n0\r\n\r\n"),
            (b"0x2", b"xx\r\n0\r\n\r\n"),
            (b"2_2", b"xx\r\n0\r\n\r\n"),
            (b"\xb2", b"xx\r\n0\r\n\r\n"),
            (b"", b"2\r\nxx\r\n0\r\n\r\n"),
            (b"10000000000000002", b"xx\r\n0\r\n\r\n"),
            (b"00000000000000002", b"xx\r\n0\r\n\r\n"),
            (b"2\r", b"xx\r\n0\r\n\r\n"),
            (b"2", b"xx0\r\n\r\n"),
            (b"2", b"xxYY0\r\n\r\n"),
            (b"2", b"xxx\r\n0\r\n\r\n"),
            (b"2", b"xx\n0\r\n\r\n"),
            (b"2", b"xx\r0\r\n\r\n"),
            (b"2", b"xx\r\n0\n\r\n"),
            (b"2", b"xx\r\n0\r\n\n"),
            (b"2", b"xx\r\n0\r\n\r\r\n"),
            (b"2", b"xx\r\n\r\n0\r\n\r\n"),
            (b"2\nxx", b"0\r\n\r\n"),
        )
    ],
    # Trailers are dropped, good ones; what is no trailer ends it
    Attack("trailer", chunks(body=SMUGGLED + b"\r\n0\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"), 200),
    Attack("trailer", chunks(body=SMUGGLED + b"\r\n0\r\nContent-Length: 9\r\n\r\n"), 200),
    *[
        Attack("trailer", chunks(size=b"0", body=body + SMUGGLED), 400)
        for body in (b"X: a\n\r\n", b"X: a\r\n b\r\n\r\n", b"X : a\r\n\r\n", b"X\r\n\r\n", b"X: \x00\r\n\r\n", b"")
    ],
    # Lines that one of two parsers sees end at a bare LF or CR
    *[
        Attack("bare LF", stream + SMUGGLED, 400)
        for stream in (
            get().replace(b"\r\n", b"\n"),
            b"GET / HTTP/1.1\r\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r",
            get(b"X: a\n"),
            get(b"X: a\n\nGET /smuggled HTTP/1.1"),
            get(b"X: a\r\rGET /smuggled HTTP/1.1"),
            get(b"X: a\n b"),
            b"\n" + get(),
        )
    ],
    # Names that become a framing field's in a variable, or that one of two parsers cuts
    *[
        Attack("field name", counted(field), 200)
        for field in (
            b"Transfer_Encoding: chunked",
            b"TRANSFER_ENCODING: chunked",
            b"Content_Length: 0",
            b"Content.Length: 0",
            b"Transfer.Encoding: chunked",
            b"Http-Transfer-Encoding: chunked",
            b"X-Transfer-Encoding: chunked",
            b"Transfer-Encodings: chunked",
            b"Content-Lengt: 0",
            b"Connection: content-length",
            b"Connection: keep-alive, content-length, host",
        )
    ],
    *[
        Attack("field name", counted(field), 400)
        for field in (
            b"Content-Length\x00: 0",
            b"Content-Length\x7f: 0",
            b"Content-Length : 0",
            b"Content-Length\xad: 0",
            b"Content Length: 0",
            b'"Content-Length": 0',
            b"\xefContent-Length: 0",
            b"(x)Content-Length: 0",
            b"Content-Length@: 0",
            b": 0",
            b"Content-Length",
        )
    ],
    Attack("field name", chunks(b"Connection: transfer-encoding"), 200),
    # An expectation or another protocol that one of two parsers acts on
    Attack("Expect", counted(b"Expect: y 100-continue"), 417),
    Attack("Expect", counted(b"Expect: 100-continue, y"), 417),
    Attack("Expect", counted(b"Expect:"), 417),
    Attack("Expect", counted(b"Expect : 100-continue"), 400),
    Attack("Upgrade", counted(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAA"), 200),
    Attack("Upgrade", counted(b"Connection: Upgrade", b"Upgrade: TLS/1.3"), 200),
    # Request lines
    *[
        Attack("request line", line(request_line) + SMUGGLED, status)
        for request_line, status in (
            (b"GET / HTTP/1.1 \x0b", 400),
            (b"GET / HTTP/1.1\tx", 400),
            (b"GET / HTTP/1.1 HTTP/1.0", 400),
            (b"GET /\x0bHTTP/1.1", 400),
            (b"GET\x00 / HTTP/1.1", 400),
            (b"GET / HTTP/1.1\x00", 400),
            (b"GET / HTTP/01.1", 400),
            (b"GET / HTTP/2.0", 505),
            (b"GET / HTTP/0.9", 505),
            (b"GET /", 400),
            (b"CONNECT a:443 HTTP/1.1", 501),
        )
    ],
]
