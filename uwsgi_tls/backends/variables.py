"""The CGI variables of a request, in the order in which uWSGI's router sends them (plugins/http/http.c).

A client chooses only what stands in `HTTP_*`, CONTENT_TYPE and CONTENT_LENGTH, and the parser made those names; no
header can become HTTPS_DN or any other name that is set here.
"""

from collections.abc import Collection
from itertools import chain

from uwsgi_tls.exchange import Exchange
from uwsgi_tls.http import RequestHead
from uwsgi_tls.names import DEFAULT_HOST
from uwsgi_tls.spool import Spool


def variables(exchange: Exchange) -> list[tuple[str, str]]:
    """All variables of the request of `exchange` as latin-1 strings; duplicates do not occur."""
    head = exchange.head
    assert head is not None
    connection = exchange.connection
    first, fields = of_request_line(head), of_fields(head, exchange.body)
    pairs = [*first, *connection.variables, *fields]
    exchange.variables = len(pairs)
    if connection.service.access_log is not None:
        if not connection.variables_size:
            connection.variables_size = _packed_size(connection.variables)
        exchange.variables_size = _packed_size(first) + connection.variables_size + _packed_size(fields)
    return pairs


def _packed_size(pairs: Collection[tuple[str, str]]) -> int:
    """The bytes of a uwsgi packet that would carry them, which is what uWSGI's log line means by it."""
    return 4 * len(pairs) + sum(map(len, chain.from_iterable(pairs)))


def of_request_line(head: RequestHead) -> Collection[tuple[str, str]]:
    """The first of them."""
    return (
        ("REQUEST_METHOD", head.method),
        ("PATH_INFO", head.path),
        ("REQUEST_URI", head.target),
        ("QUERY_STRING", head.query),
        ("SERVER_PROTOCOL", head.protocol),
        ("SCRIPT_NAME", ""),
        ("SERVER_NAME", server_name(head.host)),
    )


def of_fields(head: RequestHead, body: Spool | None) -> Collection[tuple[str, str]]:
    """The last of them, after those of the connection."""
    if head.content_length < 0 and body is not None:
        # The chunks have been put together, so the length is known now (RFC 3875, 4.1.2).
        return (*head.fields.items(), ("CONTENT_LENGTH", str(body.size)))
    return head.fields.items()


def server_name(host: str) -> str:
    """The Host field without its port; "localhost" where an HTTP/1.0 client named none."""
    if not host:
        return DEFAULT_HOST
    if host.endswith("]"):
        return host
    name, colon, port = host.rpartition(":")
    return name if (colon and port.isdigit()) or (colon and not port) else host
