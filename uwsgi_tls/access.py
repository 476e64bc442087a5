"""What the access log says of an exchange that is over, or cut."""

import time
from typing import TYPE_CHECKING

from uwsgi_tls.access_log import AccessRecord
from uwsgi_tls.http import RequestHead

if TYPE_CHECKING:
    from uwsgi_tls.exchange import Exchange

NO_HEAD = RequestHead(
    method="-",
    target="-",
    path="",
    query="",
    protocol="-",
    minor=1,
    host="",
    fields={},
    content_length=0,
    keep_alive=False,
    expect_continue=False,
    upgrade="",
)
STATUS_CLIENT_LEFT = 499  # as nginx has it, where there was nobody left to answer


def record(exchange: "Exchange", seconds: float) -> AccessRecord:
    """The facts of one line; the exchange has lasted so long, and is over now."""
    connection, head = exchange.connection, exchange.head or NO_HEAD
    service = connection.service
    return {
        "pid": service.pid,
        "wid": service.worker,
        "core": 0,
        "requests": service.requests,
        "addr": connection.peer[0],
        "port": connection.peer[1],
        "user": "",
        "vars": exchange.variables,
        "pktsize": exchange.variables_size,
        "start": time.time() - seconds,
        "method": head.method,
        "uri": head.target,
        "proto": head.protocol,
        "host": head.host,
        "status": exchange.status or STATUS_CLIENT_LEFT,
        "rsize": max(0, exchange.sent - exchange.waiting()),
        "headers": exchange.headers,
        "hsize": exchange.head_bytes,
        "micros": int(seconds * 1e6),
        "switches": 1,
        "content_length": head.content_length,
        "fields": head.fields,
        "connection": connection.variables,
    }
