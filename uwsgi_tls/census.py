"""What a worker tells in its slot of the scoreboard, at each sweep of its lounge and at its end.

A request costs its own counters alone; all else is looked at here, twice a second. Whoever is killed takes with it
what it had counted since the last sweep.
"""

import os
import socket
import struct
from collections import Counter
from collections.abc import Mapping, Sequence

from uwsgi_tls.calls import Calls
from uwsgi_tls.connection import Connection
from uwsgi_tls.crowd import Guest
from uwsgi_tls.lounge import NEVER
from uwsgi_tls.scoreboard import Slot
from uwsgi_tls.service import Service
from uwsgi_tls.tally import GAUGES, SOCKETS, WAITS
from uwsgi_tls.wear import Wear

_QUEUE = struct.Struct("=24xI")  # tcpi_unacked of a listening socket, in struct tcp_info of linux/tcp.h
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Census:
    """Counts who is there and tells it."""

    def __init__(
        self, slot: Slot, listeners: Sequence[socket.socket], calls: Calls | None = None, wear: Wear | None = None
    ) -> None:
        """`calls` and `wear` look at what there is at each beat."""
        self.service: Service | None = None  # that there is nothing of to tell yet
        self._slot = slot
        self._calls = calls
        self._wear = wear
        self._listeners = tuple(dict.fromkeys(listeners))[:SOCKETS]
        self._requests, self._micros, self._average = 0, 0, 0  # when it was told last

    def beat(self, now: float) -> None:
        """Tells that the worker is alive at `now` (time.monotonic() seconds), and all else that there is to tell."""
        service, calls = self.service, self._calls
        if service is None:
            return self._slot.beat(now)
        self._slot.beat(now, calls.look(now, service.running - service.held) if calls is not None else 0.0)
        service.failures.keep_time(now)
        counts = self.tell(service)
        if self._wear is not None:
            self._wear.look(now, counts)
        return None

    def tell(self, service: Service) -> Mapping[str, int]:
        """Tells what there is to count; returns the same."""
        crowd = service.crowd
        counts = {
            **dict.fromkeys(GAUGES, 0),
            **service.tally.counters(),
            "requests": service.requests,
            "limits.worker-connections": crowd.idle_told,
            "limits.https-max-handshakes": crowd.handshakes_told,
            "limits.connections-per-client": crowd.not_admitted,
            "limits.spool-limit": service.disk.refused,
            "spooled": service.disk.used,
        }
        waits = _waits(list(crowd.guests))
        counts |= {f"connections.{what}": waits[what] for what in WAITS}
        counts["average"] = self._average_of(counts["requests"], counts["micros"])
        counts["vsz"], counts["rss"] = _memory()
        for number, sock in enumerate(self._listeners):
            counts[f"queues.{number}"] = queue_length(sock)
        self._slot.tell(counts)
        return counts

    def _average_of(self, requests: int, micros: int) -> int:
        """Microseconds of a request, of late: those since the last time count as much as all before (as in uWSGI)."""
        more = requests - self._requests
        if more > 0:
            fresh = (micros - self._micros) // more
            self._average = (self._average + fresh) // 2 if self._requests else fresh
        self._requests, self._micros = requests, micros
        return self._average


def _waits(guests: Sequence[Guest]) -> Mapping[str, int]:
    """How many wait for what. Of thousands nearly all are idle connections: to ask each would hold others up."""
    others = [guest for guest in guests if guest.idle_from == NEVER or guest.__class__ is not Connection]
    waits = Counter(guest.waits_for() for guest in others)
    waits["idle"] += len(guests) - len(others)
    return waits


def queue_length(sock: socket.socket) -> int:
    """How many have connected to a listening socket and are not accepted yet; 0 where the kernel does not say so."""
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return 0
        length: int = _QUEUE.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size))[0]
    except OSError:  # the worker drains and has closed it
        return 0
    return length


def _memory() -> tuple[int, int]:
    """Bytes of address space and bytes resident: proc(5), /proc/PID/statm."""
    try:
        with open("/proc/self/statm", "rb") as file:
            size, resident = file.read().split()[:2]
    except (OSError, ValueError):  # no /proc, or no descriptor is left
        return 0, 0
    return int(size) * _PAGE_BYTES, int(resident) * _PAGE_BYTES
