"""backends/http1.py: the head of a request as an HTTP node gets it, judged by h11."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import h11
import pytest

from uwsgi_tls.backends.http1 import HttpProtocol, origin_form
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.http import BadRequest, head_end, parse_head
from uwsgi_tls.spool import Spool

OURS = {
    "x-forwarded-for": "192.0.2.1",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "h.example:8443",
    "x-forwarded-port": "8443",
    "x-real-ip": "192.0.2.1",
    "via": "1.1 uwsgi-tls",
    "connection": "keep-alive",
    "host": "h.example:8443",
}


def an_exchange(raw: bytes, body: bytes | None = None, port: str = "8443") -> Exchange:
    connection: Any = SimpleNamespace(peer=("192.0.2.1", "4711"), endpoint=SimpleNamespace(port=port))
    exchange = Exchange(connection, parse_head(raw[: head_end(raw, 65536)], 100))
    if body is not None:
        exchange.body = Spool(1000)
        exchange.body.append(body)
    return exchange


def said(packet: bytes) -> tuple[h11.Request, dict[str, str], list[str]]:
    """The request as h11 understands it, its fields, and the spelling of their names."""
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(packet)
    request = judge.next_event()
    assert isinstance(request, h11.Request)
    names = [name.decode("latin-1") for name, _ in request.headers.raw_items()]
    assert len({name.lower() for name in names}) == len(names), "a name comes twice"
    return request, {name.decode(): value.decode("latin-1") for name, value in request.headers}, names


def fields_of(raw: bytes, **options: Any) -> dict[str, str]:
    return said(HttpProtocol(15).encode(an_exchange(raw, **options), upgrade=False))[1]


def test_a_request() -> None:
    raw = (
        b"GET /a%20b/%2e%2e/%c3%a9;x?q=%00&y HTTP/1.1\r\nhost: h.example:8443\r\nuser-AGENT: t/1\r\nX-Same: 1\r\n"
        b"x-same: 2\r\nCookie: a=b\r\nCookie: c=d\r\nX-Latin: \xe9\xff\r\nX-Empty:\r\nContent-Type: text/plain\r\n\r\n"
    )
    packet = HttpProtocol(15).encode(an_exchange(raw), upgrade=False)
    request, fields, names = said(packet)
    assert packet.startswith(b"GET /a%20b/%2e%2e/%c3%a9;x?q=%00&y HTTP/1.1\r\nHost: h.example:8443\r\n")
    assert request.method == b"GET"
    assert fields == OURS | {
        "user-agent": "t/1",
        "x-same": "1, 2",
        "cookie": "a=b; c=d",
        "x-latin": "\xe9\xff",
        "x-empty": "",
        "content-type": "text/plain",
    }
    assert {"User-Agent", "X-Same", "Content-Type", "X-Real-IP"} <= set(names)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/", "/"),
        ("//evil.example/x", "//evil.example/x"),
        ("/x?http://y/z", "/x?http://y/z"),
        ("/?", "/?"),
        ("http://other.example", "/"),
        ("HTTPS://other.example:1/", "/"),
        ("http://other.example/a/%2F?b=http://c/d", "/a/%2F?b=http://c/d"),
        ("http://other.example?b/c", "/?b/c"),
    ],
)
def test_targets(target: str, sent: str) -> None:
    raw = f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    exchange = an_exchange(raw)
    request, fields, _ = said(HttpProtocol(15).encode(exchange, upgrade=False))
    assert request.target == sent.encode()
    assert exchange.head is not None
    # RFC 9112, 3.2.2: of an absolute form the authority is the Host.
    host = exchange.head.host
    assert host.startswith("other.example" if "other" in target.partition("?")[0] else "h")
    assert fields["host"] == fields["x-forwarded-host"] == host


@pytest.mark.parametrize("target", ["*", "http://h"])
def test_the_whole_server(target: str) -> None:
    head = parse_head(f"OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 10)
    assert origin_form(head) == "*"


FORGED = b"""Forwarded: for=1.1.1.1
X-Forwarded-For: 1.1.1.1
x-forwarded-proto: http
X-FORWARDED-HOST: evil
X-Forwarded-Port: 1
X-Forwarded-Prefix: /evil
X-Forwarded-User: root
X-Forwarded-Client-Cert: evil
X-Real-IP: 1.1.1.1
Client-Cert: :evil:
client-cert-chain: :evil:
X_Forwarded_For: 1.1.1.1
X.Real.IP: 1.1.1.1
Client_Cert: :evil:
HTTP-X-Real-IP-: evil
Connection: close, X-Secret, Host, Content-Length, X-Real-IP
X-Secret: evil
Keep-Alive: 5
Proxy-Connection: keep-alive
Proxy: evil
TE: trailers
Trailer: X
Upgrade: h2c
Expect: 100-continue
""".replace(b"\n", b"\r\n")


def test_what_a_client_cannot_say() -> None:
    fields = fields_of(
        b"POST / HTTP/1.1\r\nHost: h.example:8443\r\nContent-Length: 2\r\n" + FORGED + b"\r\n", body=b"hi"
    )
    assert fields == OURS | {"content-length": "2", "connection": "close", "http-x-real-ip-": "evil"}


@pytest.mark.parametrize(
    ("raw", "body", "length"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", None, None),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", None, "0"),
        (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", None, "0"),
        (b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", None, None),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\n\r\n", b"hello", "5"),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"hello", "5"),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"", "0"),
    ],
)
def test_length(raw: bytes, body: bytes | None, length: str | None) -> None:
    fields = fields_of(raw, body=body)
    assert fields.get("content-length") == length
    assert "transfer-encoding" not in fields


def test_without_a_host() -> None:
    fields = fields_of(b"GET / HTTP/1.0\r\n\r\n", port="")
    assert fields["host"] == fields["x-forwarded-host"] == "localhost"
    assert fields["via"] == "1.0 uwsgi-tls"
    assert "x-forwarded-port" not in fields


def test_via_is_added_to() -> None:
    assert (
        fields_of(b"GET / HTTP/1.1\r\nHost: h\r\nVia: 1.0 a\r\nVia: 2 b\r\n\r\n")["via"] == "1.0 a, 2 b, 1.1 uwsgi-tls"
    )


def test_connection() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    for seconds, upgrade, expected in (
        (0, False, {"connection": "close"}),
        (5, False, {"connection": "keep-alive"}),
        (0, True, {"connection": "Upgrade", "upgrade": "websocket"}),
        (5, True, {"connection": "Upgrade", "upgrade": "websocket"}),
    ):
        fields = said(HttpProtocol(seconds).encode(an_exchange(raw), upgrade=upgrade))[1]
        assert {name: fields[name] for name in ("connection", "upgrade") if name in fields} == expected


@pytest.mark.parametrize(
    ("method", "body", "said_of_it"),
    [
        ("GET", None, "keep-alive"),
        ("POST", None, "keep-alive"),
        ("PUT", b"", "keep-alive"),
        ("HEAD", None, "close"),
        ("GET", b"hello", "close"),
        ("POST", b"hello", "close"),
    ],
)
def test_a_connection_that_will_not_be_kept(method: str, body: bytes | None, said_of_it: str) -> None:
    """A node that leaves a body unread must not look for a request in it."""
    assert fields_of(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode(), body=body)["connection"] == said_of_it


def test_identity_of_the_client() -> None:
    """What the caller says of the client's certificate; a client's own field of that name is never passed on."""

    def identity(exchange: Exchange) -> list[tuple[str, str]]:
        return [("Client-Cert", f":{exchange.connection.peer[0]}:")]

    raw = b"GET / HTTP/1.1\r\nHost: h\r\nClient-Cert: :evil:\r\n\r\n"
    fields = said(HttpProtocol(5, identity).encode(an_exchange(raw), upgrade=False))[1]
    assert fields["client-cert"] == ":192.0.2.1:"


def test_what_the_access_log_counts() -> None:
    exchange = an_exchange(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    packet = HttpProtocol(5).encode(exchange, upgrade=False)
    assert (exchange.variables, exchange.variables_size) == (packet.count(b"\r\n") - 2, len(packet))


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\x0b", b"\x1f", b"\x7f"])
@pytest.mark.parametrize(
    "raw",
    [
        b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /?%b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h%b/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GE%bT / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h%b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX%b: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: y%bz\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nVia: y%bz\r\n\r\n",
    ],
)
def test_nothing_can_split_the_head(raw: bytes, byte: bytes) -> None:
    """The parser refuses every byte that could; if it did not, h11 would."""
    try:
        exchange = an_exchange(raw.replace(b"%b", byte))
    except BadRequest:
        return
    pytest.fail(f"accepted: {cast(Any, exchange.head)}")
