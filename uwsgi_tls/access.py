"""What the access log says of an exchange that is over, or cut."""

from typing import TYPE_CHECKING

from uwsgi_tls.logs import AccessRecord

if TYPE_CHECKING:
    from uwsgi_tls.exchange import Exchange

STATUS_CLIENT_LEFT = 499  # as nginx has it, where there was nobody left to answer


def record(exchange: "Exchange", ended: float) -> AccessRecord:
    """The facts of one line; `ended` is the time (time.time()) at which it is over."""
    connection, head = exchange.connection, exchange.head
    service = connection.service
    fields = head.fields if head is not None else {}
    return AccessRecord(
        pid=service.pid,
        worker=service.worker,
        requests=service.requests,
        addr=connection.peer[0],
        user="",
        vars=exchange.variables,
        vars_size=exchange.variables_size,
        start=exchange.started,
        method=head.method if head is not None else "-",
        uri=head.target if head is not None else "-",
        protocol=head.protocol if head is not None else "-",
        status=exchange.status or STATUS_CLIENT_LEFT,
        size=max(0, exchange.sent - exchange.waiting()),
        headers=exchange.headers,
        headers_size=exchange.head_bytes,
        micros=int((ended - exchange.started) * 1e6),
        host=head.host if head is not None else "",
        user_agent=fields.get("HTTP_USER_AGENT", ""),
        referer=fields.get("HTTP_REFERER", ""),
        core=0,
    )
