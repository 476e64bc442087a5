"""Which calls of the application a worker has under way, and since when: what harakiri goes by.

It is looked at with each sweep of the lounge and costs a request nothing: a call is as old as the first sweep that has
seen it, so half a second may be missing. One that has waited for its client meanwhile begins anew.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from uwsgi_tls.logs import line

if TYPE_CHECKING:
    from uwsgi_tls.exchange import Exchange


TARGET_CHARACTERS = 500  # of a URI, in the log


class Calls:
    """Those of one worker."""

    def __init__(self, worker: int, limit: float) -> None:
        """`worker` is its number; `limit`, in seconds, is harakiri, or 0."""
        self._worker = worker
        self._limit = limit
        self._since: dict[Exchange, float] = {}
        self._named: set[Exchange] = set()

    def look(self, now: float, running: Iterable["Exchange"]) -> float:
        """Since when (time.monotonic() seconds) the oldest of `running` runs; 0.0 where there is none.

        Names each that is too old: the master, which ends the worker, does not know the request.
        """
        self._since = {exchange: self._since.get(exchange, now) for exchange in running}
        if self._limit:
            self._named &= self._since.keys()
            for exchange, since in self._since.items():
                if now - since > self._limit and exchange not in self._named:
                    self._named.add(exchange)
                    self._name(exchange, now - since)
        return min(self._since.values(), default=0.0)

    def _name(self, exchange: "Exchange", seconds: float) -> None:
        head = exchange.head
        if head is not None:
            request = f"{head.method} {head.target[:TARGET_CHARACTERS]} from {exchange.connection.peer[0]}"
            line(f"worker {self._worker}: the application has had {request} for {seconds:.1f} seconds (harakiri)")
