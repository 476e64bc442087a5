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

Fields = dict[str, str]


def of_request(exchange: Exchange) -> tuple[Collection[tuple[str, str]], Fields]:
    """The variables of the request of `exchange` as latin-1 strings, those that stand before the variables of its
    connection and those that stand after them, counted for the log; duplicates do not occur.
    """
    head, connection = exchange.head, exchange.connection
    assert head is not None
    first, fields = of_request_line(head), of_fields(head, exchange.body)
    exchange.variables = len(first) + len(connection.variables) + len(fields)
    if connection.service.access_log is not None:
        if not connection.variables_size:
            connection.variables_size = _packed_size(connection.variables.items())
        exchange.variables_size = _packed_size(first) + connection.variables_size + _packed_size(fields.items())
    return first, fields


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


def of_fields(head: RequestHead, body: Spool | None) -> Fields:
    """The last of them, after those of the connection."""
    if head.content_length < 0 and body is not None:
        # The chunks have been put together, so the length is known now (RFC 3875, 4.1.2).
        return {**head.fields, "CONTENT_LENGTH": str(body.size)}
    return head.fields


def server_name(host: str) -> str:
    """The Host field without its port; "localhost" where an HTTP/1.0 client named none."""
    if not host:
        return DEFAULT_HOST
    if host.endswith("]"):
        return host
    name, colon, port = host.rpartition(":")
    return name if (colon and port.isdigit()) or (colon and not port) else host
