"""Who is connected to one worker, how many that are, and who gives way when they are too many.

A guest is whoever holds an accepted socket: an `Arrival`, its `Connection`, then a `Farewell`. Guests come in the main
thread, which is also where they are told to give way, and leave in service threads. To give way a guest is claimed from
the lounge first, so nobody else has it at that moment.
"""

import heapq
import threading
import time
from collections.abc import Callable
from operator import attrgetter, methodcaller
from typing import Protocol

from uwsgi_tls.logs import line
from uwsgi_tls.lounge import NEVER, Lounge, Waiter

NOT_COUNTED = "0.0.0.0"  # REMOTE_ADDR of those who come through a UNIX socket
BATCH_PART = 16  # of a limit: so many guests give way at once, for to look for them is a look at all
SPARED_SECONDS = 1.0  # of silence: a client whose next words are on their way is not told to go
HANDSHAKE_PART = 2  # of the connections, at most, are in a handshake
LOOK_SECONDS = 0.1  # between two searches for idle guests that found too few
NOTICE_SECONDS = 30.0  # between two lines that say the same


class Guest(Waiter, Protocol):
    """Whoever holds an accepted socket."""

    fd: int
    idle_from: float  # since when nothing is under way (time.monotonic() seconds), or NEVER

    def owes_from(self) -> float:
        """Since when (time.monotonic() seconds) a handshake or a head is under way, or NEVER. Any thread may ask."""

    def unwanted(self) -> bool:
        """Whether its client has too many connections: it is only told so. Any thread may ask."""

    def waits_for(self) -> str:
        """A word of tally.WAITS; any thread may ask."""

    def leave_if_idle(self, when: float) -> None:
        """The worker drains: a guest that has nothing under way leaves at `when`."""

    def give_way(self) -> None:
        """Ends at once; for the owner."""


def _unwanted_from(guest: Guest) -> float:
    return 0.0 if guest.unwanted() else NEVER


class Notice:
    """A line of the log about a state that may last: said again after a while, not each time."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + NOTICE_SECONDS
            line(text)


class Crowd:
    """The guests of a worker, within the limits that it has for them."""

    def __init__(self, lounge: Lounge, *, connections: int, handshakes: int, per_client: int) -> None:
        """`per_client`: connections of one address, 0 for any number."""
        self.guests: set[Guest] = set()
        self.on_left: Callable[[], object] | None = None  # somebody waits until guests leave
        self._lounge = lounge
        self._limit = connections
        self._high_water = connections - connections // 8
        self._handshakes: dict[int, Guest] = {}  # by descriptor, the oldest first
        self._max_handshakes = min(handshakes, max(2, connections // HANDSHAKE_PART))
        self._per_client = per_client
        self._clients: dict[str, int] = {}
        self._lock = threading.Lock()  # of the counts
        self._next_look = 0.0
        # How often each limit has cost somebody the connection.
        self.idle_told = self.handshakes_told = self.not_admitted = 0
        self._say_crowded, self._say_slow, self._say_handshakes = Notice(), Notice(), Notice()

    def has_room(self) -> bool:
        """Whether one more may come in; when few more may, those who have been idle longest give way."""
        if len(self.guests) < self._high_water:
            return True
        if time.monotonic() >= self._next_look:
            self._make_room()
        return len(self.guests) < self._limit

    def arrived(self, guest: Guest) -> None:
        """A guest whose handshake is still to come. If too many are under way, the oldest give way."""
        self.guests.add(guest)
        self._handshakes[guest.fd] = guest
        if len(self._handshakes) > self._max_handshakes:
            self._end_oldest_handshakes()

    def follows(self, old: Guest, new: Guest) -> None:
        """`new` has the socket, and in a handshake the place, that `old` had."""
        self.guests.add(new)
        self.guests.discard(old)
        if old.fd in self._handshakes:
            self._handshakes[old.fd] = new

    def handshake_over(self, fd: int) -> None:
        """The handshake on `fd`, which is still open, is done or given up."""
        self._handshakes.pop(fd, None)

    def left(self, guest: Guest) -> None:
        """A guest has closed its socket."""
        self.guests.discard(guest)
        if self.on_left is not None:
            self.on_left()

    # Connections of one client.

    def admit(self, address: str) -> bool:
        """Counts one more connection of `address`, or says that it is one too many. Each is dismissed once."""
        if not self._per_client or address == NOT_COUNTED:
            return True
        with self._lock:
            count = self._clients.get(address, 0)
            if count >= self._per_client:
                self.not_admitted += 1
                return False
            self._clients[address] = count + 1
            return True

    def dismiss(self, address: str) -> None:
        """A connection that was admitted has ended."""
        if not self._per_client or address == NOT_COUNTED:
            return
        with self._lock:
            count = self._clients[address] - 1
            if count:
                self._clients[address] = count
            else:
                del self._clients[address]

    # Giving way, in the main thread.

    def _make_room(self) -> None:
        """Those whom nobody has let in first, then the idle; those who are slow to ask only when all is taken."""
        now = time.monotonic()
        latest = now - SPARED_SECONDS
        batch = max(1, self._limit // BATCH_PART)
        told = self._tell_first(batch, _unwanted_from, 0.0) if self._per_client else 0
        if told < batch:
            told += self._tell_first(batch - told, attrgetter("idle_from"), latest)
        slow = 0
        if not told and len(self.guests) >= self._limit:
            slow = self._tell_first(batch, methodcaller("owes_from"), latest)
        if told + slow < batch:
            self._next_look = now + LOOK_SECONDS
        self.idle_told += told + slow
        if told:
            self._say_crowded(
                f"{len(self.guests) + told} connections, of {self._limit} (worker-connections): idle ones give way,"
                f" {self.idle_told} so far"
            )
        if slow:
            self._say_slow(
                f"all {self._limit} connections (worker-connections) are taken: who is slow to ask gives way,"
                f" {self.idle_told} so far"
            )

    def _tell_first(self, count: int, since: Callable[[Guest], float], latest: float) -> int:
        """Has at most `count` give way, of those for whom `since` is no later than `latest`, the earliest first."""
        found = [guest for guest in list(self.guests) if since(guest) <= latest]
        first = heapq.nsmallest(count, found, since)
        return sum(self._tell(each, lambda guest: since(guest) <= latest) for each in first)

    def _end_oldest_handshakes(self) -> None:
        batch = max(1, self._max_handshakes // BATCH_PART)
        for guest in list(self._handshakes.values())[:batch]:
            self.handshakes_told += self._tell(guest, lambda guest: self._handshakes.get(guest.fd) is guest)
        self._say_handshakes(
            f"more than {self._max_handshakes} handshakes are under way (https-max-handshakes): the oldest give way,"
            f" {self.handshakes_told} so far"
        )

    def _tell(self, guest: Guest, still: Callable[[Guest], bool]) -> bool:
        """Has a parked guest give way, if it is `still` one of those who should once it is ours."""
        lounge = self._lounge
        if not lounge.claim(guest.fd, guest):
            return False  # a thread has it, so something has come
        if not still(guest):
            lounge.park(guest.fd, guest, guest.armed)
            return False
        try:
            guest.give_way()
        except BaseException:  # as in Lounge.serve: the thread goes on for the others
            guest.crashed()
        lounge.forget(guest.fd, guest)  # again, now that it is closed: it may be in the batch fetched meanwhile
        return True
