"""The uwsgi protocol, as far as it is not common to all that is sent on: one packet and one connection a request.

The packet is that of uWSGI's docs/Protocol, the answer an HTTP response; gunicorn and others may delimit it
(Content-Length, chunked), uWSGI ends it by closing.
"""

from uwsgi_tls import uwsgi_packet
from uwsgi_tls.backends.proxy import TooBig
from uwsgi_tls.backends.variables import of_fields, of_request_line
from uwsgi_tls.exchange import Exchange

# `close` is for servers that would keep the connection open and hold their answer's end back (gunicorn).
_CLOSE = ("HTTP_CONNECTION", "close")
# uWSGI takes the client's X-Forwarded-Proto for the scheme, and what comes later wins (proto/base.c).
_SCHEME = ("UWSGI_SCHEME", "https")
_UPGRADE = (("HTTP_UPGRADE", "websocket"), ("HTTP_CONNECTION", "Upgrade"))


class UwsgiProtocol:
    idle_seconds = 0.0  # a connection carries one request

    def __init__(self, modifier1: int = 0, modifier2: int = 0, extra: tuple[tuple[str, str], ...] = ()) -> None:
        self.modifier1 = modifier1
        self.modifier2 = modifier2
        self.extra = extra
        # What is the same in every request is put into the form of a packet once.
        self._end = uwsgi_packet.text((_CLOSE, _SCHEME, *extra))
        self._upgraded = uwsgi_packet.text((*_UPGRADE, _SCHEME, *extra))

    def encode(self, exchange: Exchange, upgrade: bool) -> bytes:
        """The packet of a request; with `upgrade` the node may turn it into a WebSocket. Raises TooBig."""
        head, connection = exchange.head, exchange.connection
        assert head is not None
        if not connection.packed:
            connection.packed = uwsgi_packet.text(connection.variables.items())
        first, fields = of_request_line(head), of_fields(head, exchange.body)
        text = f"{uwsgi_packet.text(first)}{connection.packed}{uwsgi_packet.text(fields.items())}"
        exchange.variables = len(first) + len(connection.variables) + len(fields)
        exchange.variables_size = len(text)
        text += self._upgraded if upgrade else self._end
        try:
            return uwsgi_packet.packet(text, self.modifier1, self.modifier2)
        except uwsgi_packet.PacketTooBig:
            raise TooBig("its variables do not fit into a uwsgi packet of 64 KiB") from None
