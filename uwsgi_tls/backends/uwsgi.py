"""The uwsgi protocol, as far as it is not common to all that is sent on: one packet and one connection a request.

The packet is that of uWSGI's docs/Protocol, the answer an HTTP response; gunicorn and others may delimit it
(Content-Length, chunked), uWSGI ends it by closing.
"""

from uwsgi_tls import uwsgi_packet
from uwsgi_tls.backends.proxy import TooBig
from uwsgi_tls.backends.variables import variables
from uwsgi_tls.exchange import Exchange

# `close` is for servers that would keep the connection open and hold their answer's end back (gunicorn).
_CLOSE = (("HTTP_CONNECTION", "close"),)
# uWSGI takes the client's X-Forwarded-Proto for the scheme, and what comes later wins (proto/base.c).
_SCHEME = ("UWSGI_SCHEME", "https")
_UPGRADE = (("HTTP_UPGRADE", "websocket"), ("HTTP_CONNECTION", "Upgrade"))


class UwsgiProtocol:
    idle_seconds = 0.0  # a connection carries one request

    def __init__(self, modifier1: int = 0, modifier2: int = 0, extra: tuple[tuple[str, str], ...] = ()) -> None:
        self.modifier1 = modifier1
        self.modifier2 = modifier2
        self.extra = extra

    def encode(self, exchange: Exchange, upgrade: bool) -> bytes:
        """The packet of a request; with `upgrade` the node may turn it into a WebSocket. Raises TooBig."""
        pairs = [*variables(exchange), *(_UPGRADE if upgrade else _CLOSE), _SCHEME, *self.extra]
        try:
            return uwsgi_packet.encode(pairs, self.modifier1, self.modifier2)
        except uwsgi_packet.PacketTooBig:
            raise TooBig("its variables do not fit into a uwsgi packet of 64 KiB") from None
