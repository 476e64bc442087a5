"""HTTP/1.1 to a node, as far as it is not common to all that is sent on: the request's head.

The head is made anew from what the parser understood, so nothing of the client's framing reaches the node: one request
line in origin form, one Host, a Content-Length (the body is whole), no transfer coding, no field of the connection
(RFC 9110, 7.6.1). The parser keeps CGI names, so a field is spelt anew from its own: HTTP_X_TOKEN is `X-Token`, in
whatever letters the client wrote it.

What the node must be able to believe is said by us alone, and the client's own fields of these names end here:
`X-Forwarded-*`, `Forwarded` and `X-Real-IP` here, `Client-Cert` and `Client-Cert-Chain` (RFC 9440) in the parser.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

from uwsgi_tls.exchange import Exchange
from uwsgi_tls.http import RequestHead
from uwsgi_tls.names import DEFAULT_HOST

_OURS = frozenset(
    (
        "CONTENT_LENGTH",
        "HTTP_FORWARDED",
        "HTTP_HOST",
        "HTTP_VIA",
        "HTTP_X_REAL_IP",
    )
)
_ANSWERED = "HTTP_EXPECT"  # by our own 100 (Continue), and the body is here
_FORWARDED = "HTTP_X_FORWARDED"
_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))  # RFC 9110, 8.6: a length even where there is no body
_PSEUDONYM = "uwsgi-tls"

Fields = Iterable[tuple[str, str]]


def _nothing(exchange: Exchange) -> Fields:
    return ()


class HttpProtocol:
    def __init__(self, idle_seconds: float, identity: Callable[[Exchange], Fields] = _nothing) -> None:
        """`idle_seconds`: how long a connection is kept for another request, 0: not at all.

        `identity` gives the fields that tell who the client is, of names that no client can send through.
        """
        self.idle_seconds = idle_seconds
        self._identity = identity

    def encode(self, exchange: Exchange, upgrade: bool) -> bytes:
        """The head of a request; with `upgrade` the node may turn it into a WebSocket."""
        head, connection = exchange.head, exchange.connection
        assert head is not None
        host, address = head.host or DEFAULT_HOST, connection.peer[0]
        fields = [
            ("Host", host),
            *[(spelt, value) for name, value in head.fields.items() if (spelt := _spelling(name))],
            ("X-Forwarded-For", address),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", host),
            ("X-Real-IP", address),
            ("Via", _via(head)),
            *self._identity(exchange),
        ]
        if connection.endpoint.port:
            fields.append(("X-Forwarded-Port", connection.endpoint.port))
        if exchange.body is not None:
            fields.append(("Content-Length", str(exchange.body.size)))
        elif "CONTENT_LENGTH" in head.fields or head.method in _WITH_BODY:
            fields.append(("Content-Length", "0"))
        if upgrade:
            fields += (("Connection", "Upgrade"), ("Upgrade", "websocket"))
        else:
            fields.append(("Connection", "keep-alive" if self._keeps(exchange) else "close"))
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
        packet = f"{head.method} {origin_form(head)} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        exchange.variables, exchange.variables_size = len(fields), len(packet)
        return packet

    def _keeps(self, exchange: Exchange) -> bool:
        """Whether the connection may serve again.

        What a node leaves unread of a body, or says after the answer to HEAD, must be neither a request nor an answer.
        """
        head, body = exchange.head, exchange.body
        return (
            self.idle_seconds > 0
            and not (body is not None and body.size)
            and head is not None
            and head.method != "HEAD"
        )


def origin_form(head: RequestHead) -> str:
    """The request target as an origin server wants it (RFC 9112, 3.2.1): raw, and without the authority."""
    target = head.target
    if target.startswith("/") or target == "*":
        return target
    rest = target.partition("://")[2]
    path = rest[len(rest.partition("?")[0].partition("/")[0]) :]
    if not path:
        return "*" if head.method == "OPTIONS" else "/"  # RFC 9112, 3.2.4
    return path if path.startswith("/") else f"/{path}"


def _via(head: RequestHead) -> str:
    """RFC 9110, 7.6.3: a gateway must add itself."""
    before = head.fields.get("HTTP_VIA")
    here = f"{head.protocol[5:]} {_PSEUDONYM}"
    return f"{before}, {here}" if before else here


@lru_cache(maxsize=1024)
def _spelling(name: str) -> str:
    """The field name of a CGI variable; "" for one that is not passed on."""
    if name in _OURS or name == _ANSWERED or name.startswith(_FORWARDED):
        return ""
    return "-".join(word.capitalize() for word in name.removeprefix("HTTP_").split("_"))
