"""The opening handshake of a WebSocket (RFC 6455), as far as a gateway must know it: it neither makes nor checks keys.

What comes after the handshake is a tunnel's (`tunnel.py`).
"""

import re
from collections.abc import Sequence

from uwsgi_tls.http import RequestHead

PROTOCOL = "websocket"
_KEY = re.compile(r"[0-9A-Za-z+/]{22}==")  # RFC 6455, 4.1: 16 bytes in base64
_NOT_PASSED = frozenset(("content-length", "keep-alive", "proxy-connection", "te", "trailer"))


def is_opening(head: RequestHead) -> bool:
    """Whether a request is what RFC 6455, 4.1 asks of a client; RequestHead.upgrade has looked at Connection."""
    if not head.upgrade or head.method != "GET" or head.content_length:
        return False
    protocols = [protocol.strip(" \t").lower() for protocol in head.upgrade.split(",")]
    fields = head.fields
    return (
        PROTOCOL in protocols
        and fields.get("HTTP_SEC_WEBSOCKET_VERSION") == "13"
        and _KEY.fullmatch(fields.get("HTTP_SEC_WEBSOCKET_KEY", "")) is not None
    )


def switching_head(status: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """The head of a 101 for the client, from a parsed one: the fields of the way between the node and us are ours."""
    lines = [f"{name}: {value}\r\n" for name, value in headers if name.lower() not in _NOT_PASSED]
    text = f"HTTP/1.1 {status}\r\n{''.join(lines)}Upgrade: {PROTOCOL}\r\nConnection: Upgrade\r\n\r\n"
    return text.encode("latin-1")
