"""websocket.py: which requests are an opening handshake, and the head of a 101."""

from __future__ import annotations

import pytest

from uwsgi_tls.http import parse_head
from uwsgi_tls.websocket import is_opening, switching_head

GOOD = (
    "GET / HTTP/1.1|Host: h|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==|"
    "Sec-WebSocket-Version: 13"
)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", True),
        ("websocket|", "WebSocket|", True),
        ("websocket|", "h2c , websocket|", True),
        ("Upgrade|", "keep-alive, upgrade|", True),
        ("GET", "get", False),
        ("GET", "POST", False),
        ("1.1", "1.0", False),
        ("websocket|", "websockets|", False),
        ("Upgrade: websocket|", "", False),
        ("Connection: Upgrade|", "", False),
        ("Connection: Upgrade|", "Connection: Upgrade, Sec-WebSocket-Key|", False),
        ("13", "12", False),
        ("13", "13, 8", False),
        ("|Sec-WebSocket-Version: 13", "", False),
        ("lZg==", "lZg=", False),
        ("MDEy", "", False),
        ("MDEy", "MD y", False),
        ("Host: h", "Host: h|Content-Length: 1", False),
        ("Host: h", "Host: h|Content-Length: 0", True),
        ("Host: h", "Host: h|Transfer-Encoding: chunked", False),
    ],
)
def test_opening(old: str, new: str, expected: bool) -> None:
    text = GOOD.replace(old, new, 1) if old else GOOD
    assert is_opening(parse_head((text + "||").replace("|", "\r\n").encode(), 10)) is expected


def test_switching_head() -> None:
    headers = [("Sec-WebSocket-Accept", "x"), ("Content-Length", "5"), ("Set-Cookie", "a"), ("Keep-Alive", "5")]
    assert switching_head("101 Over", headers) == (
        b"HTTP/1.1 101 Over\r\nSec-WebSocket-Accept: x\r\nSet-Cookie: a\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\n\r\n"
    )
