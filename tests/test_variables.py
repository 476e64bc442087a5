"""backends/variables.py: which variables a request becomes, in which order, and the server's name among them."""

from types import SimpleNamespace
from typing import cast

import pytest

from uwsgi_tls.backends.variables import of_request, server_name
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.http import head_end, parse_head
from uwsgi_tls.spool import Spool
from uwsgi_tls.uwsgi_packet import text

CONNECTION = (
    ("SERVER_PORT", "443"),
    ("UWSGI_ROUTER", "http"),
    ("HTTPS", "on"),
    ("HTTPS_DN", "/CN=client"),
    ("REMOTE_ADDR", "192.0.2.1"),
    ("REMOTE_PORT", "4711"),
)


def exchange(request: bytes, body: bytes | None = None, access_log: object = None) -> Exchange:
    head = parse_head(request[: head_end(request, 65536)], 100)
    spool = None
    if body is not None:
        spool = Spool(1000)
        spool.append(body)
    connection = SimpleNamespace(
        variables=dict(CONNECTION), variables_size=0, service=SimpleNamespace(access_log=access_log)
    )
    return cast(Exchange, SimpleNamespace(head=head, body=spool, connection=connection, variables_size=0))


def variables(it: Exchange) -> list[tuple[str, str]]:
    """All of them, in the order in which a packet has them."""
    first, fields = of_request(it)
    return [*first, *it.connection.variables.items(), *fields.items()]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("server.lab", "server.lab"),
        ("server.lab:8443", "server.lab"),
        ("server.lab:", "server.lab"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:443", "[2001:db8::1]"),
        ("", "localhost"),
    ],
)
def test_server_name(host: str, name: str) -> None:
    assert server_name(host) == name


def test_order_is_that_of_uwsgis_router() -> None:
    request = b"GET /a%20b?x=1 HTTP/1.1\r\nHost: server.lab:443\r\nUser-Agent: me\r\nX-Last: 1\r\n\r\n"
    assert variables(exchange(request)) == [
        ("REQUEST_METHOD", "GET"),
        ("PATH_INFO", "/a b"),
        ("REQUEST_URI", "/a%20b?x=1"),
        ("QUERY_STRING", "x=1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SCRIPT_NAME", ""),
        ("SERVER_NAME", "server.lab"),
        *CONNECTION,
        ("HTTP_HOST", "server.lab:443"),
        ("HTTP_USER_AGENT", "me"),
        ("HTTP_X_LAST", "1"),
    ]


def test_they_are_counted_for_the_log() -> None:
    it = exchange(b"GET /caf%C3%A9 HTTP/1.1\r\nHost: x\r\n\r\n", access_log=object())
    pairs = variables(it)
    assert it.variables == len(pairs) == 14
    assert it.variables_size == len(text(pairs))


def test_no_name_comes_twice_whatever_the_client_sends() -> None:
    fields = "\r\n".join(f"{name}: forged" for name, _ in CONNECTION)
    request = f"GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\nHTTPS-DN: forged\r\nScript-Name: forged\r\n\r\n"
    pairs = variables(exchange(request.encode()))
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
    assert {name: value for name, value in pairs if not name.startswith("HTTP_")} == {
        **dict(CONNECTION),
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "REQUEST_URI": "/",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "x",
    }


def test_a_chunked_body_has_got_a_length() -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    pairs = dict(variables(exchange(request, b"hello")))
    assert pairs["CONTENT_LENGTH"] == "5"
    assert "HTTP_TRANSFER_ENCODING" not in pairs


def test_a_stated_length_comes_once() -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\n"
    pairs = variables(exchange(request, b"hello"))
    content = [pair for pair in pairs if pair[0].startswith("CONTENT")]
    assert content == [("CONTENT_LENGTH", "5"), ("CONTENT_TYPE", "a/b")]
