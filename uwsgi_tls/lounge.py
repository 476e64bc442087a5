"""The lounge: one epoll in which everything waits that waits for the other side.

A waiter is a client's connection or a backend's socket. While it is parked it costs no thread, only its entry here
and its deadline; when its descriptor is ready or its deadline has passed, exactly one thread takes it out and owns it
until it parks again. Who takes it is decided by one `dict.pop`, which the interpreter does in one step, so that
neither a late event, nor a descriptor number used again, nor the sweep of deadlines can give one waiter to two
threads (epoll(7), EPOLLONESHOT).

What costs much and is no more urgent than what others wait for, the beginning of a handshake, is deferred until those
have had their turn: a connection that is established hardly notices how many knock at the door.

With one service thread the events stay level-triggered and registered, which saves a system call at each parking, and
are taken in batches; with several each event is armed for one thread only and taken one by one.
"""

import heapq
import itertools
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT  # no EPOLLRDHUP: a client may say that it sends no more and go on reading
HANGUP_ONLY = select.EPOLLRDHUP
GONE = select.EPOLLHUP | select.EPOLLERR

SWEEP_SECONDS = 0.5
BATCH_EVENTS = 64
TURNS_PER_DEFERRED = 4  # where threads take events one by one and all of them are busy
NEVER = float("inf")


class Waiter(Protocol):
    """What the lounge can hold."""

    deadline: float  # seconds of time.monotonic()
    armed: int  # the events that epoll watches for; 0: not yet registered

    def ready(self, events: int) -> None: ...

    def expired(self) -> None: ...

    def crashed(self) -> None: ...


class Lounge:
    """Parked waiters, their deadlines and a few timers."""

    def __init__(self, threads: int, beat: Callable[[float], None] | None = None) -> None:
        """`beat` is called at each sweep with the time, for whoever must know that the service threads live."""
        self._beat = beat
        self.now = time.monotonic()
        self._epoll = select.epoll()
        self._alone = threads == 1
        self._batch = BATCH_EVENTS if self._alone else 1
        self._once = 0 if self._alone else select.EPOLLONESHOT
        self._parked: dict[int, Waiter] = {}
        self._given_up: set[int] = set()  # numbers closed since the batch at hand was fetched; only where it is alone
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._deferred: deque[Callable[[], None]] = deque()
        self._turns = itertools.count(1)
        self._next_sweep = self.now + SWEEP_SECONDS
        self.busy = not self._alone  # whether others may be waiting for the thread that asks
        self.closed = False

    def park(self, fd: int, waiter: Waiter, events: int) -> None:
        """Gives `waiter` up until one of `events` comes on `fd` or its deadline passes."""
        armed = waiter.armed
        waiter.armed = events
        # From this line on another thread may own the waiter.
        self._parked[fd] = waiter
        try:
            if armed == 0:
                self._epoll.register(fd, events | self._once)
            elif armed != events or self._once:
                self._epoll.modify(fd, events | self._once)
        except OSError:
            if self.claim(fd, waiter):
                raise
            # Else its deadline had passed already, and another thread has closed it.

    def claim(self, fd: int, waiter: Waiter) -> bool:
        """Makes the caller the owner of a parked waiter; False where somebody else is."""
        owned = self._parked.pop(fd, None)
        if owned is waiter:
            return True
        if owned is not None:  # the number is another's by now
            self._put_back(fd, owned)
        return False

    def _put_back(self, fd: int, waiter: Waiter) -> None:
        """Its event may have come and found nobody while we held it, so it is armed anew."""
        self._parked[fd] = waiter
        with suppress(FileNotFoundError):  # who parks it for the first time is about to register it
            self._epoll.modify(fd, waiter.armed | self._once)

    def forget(self, fd: int, waiter: Waiter) -> None:
        """Before `fd` is closed: its number may soon be another's.

        Epoll itself forgets a closed descriptor, unless a program that the application has forked has a copy: epoll(7).
        """
        if self._parked.get(fd) is waiter:
            del self._parked[fd]
        if self._alone:  # there is no application
            self._given_up.add(fd)
        elif waiter.armed:
            waiter.armed = 0
            with suppress(OSError):
                self._epoll.unregister(fd)

    def unwatch(self, fd: int, waiter: Waiter) -> None:
        """Takes `waiter` out until it is parked again; not even the other side's end wakes it."""
        self.forget(fd, waiter)
        if waiter.armed:
            self._epoll.unregister(fd)
            waiter.armed = 0

    def later(self, when: float, call: Callable[[], None]) -> None:
        """Has the service thread do `call` soon after `when` (time.monotonic() seconds); only where it is alone."""
        heapq.heappush(self._timers, (when, next(self._order), call))

    def defer(self, fd: int, waiter: Waiter, call: Callable[[], None]) -> None:
        """Has a service thread do `call` when others have had their turn; until then `waiter` is nobody's.

        `call` raises nothing, and nothing but its turn ends the wait, which is short: neither an event nor a deadline.
        """
        if self._alone and waiter.armed:
            self.unwatch(fd, waiter)  # or what came would wake us again and again
        self._deferred.append(call)

    def holds(self, fd: int, waiter: Waiter) -> bool:
        """Whether `waiter` is parked at this moment."""
        return self._parked.get(fd) is waiter

    def parked(self) -> list[Waiter]:
        """Those parked at this moment."""
        return list(self._parked.values())

    def serve(self, between: Callable[[], None] | None = None) -> None:
        """The life of a service thread: wait, own, take the waiter as far as it goes, until `closed`.

        `between` is called after each batch: requests that found all application threads busy are taken up there.
        """
        poll, parked, batch, given_up = self._epoll.poll, self._parked, self._batch, self._given_up
        while not self.closed:
            given_up.clear()
            ready = poll(self._patience(), batch)
            self.now = time.monotonic()
            if self._alone:
                self.busy = len(ready) > 1 or bool(self._deferred)
            for fd, events in ready:
                if fd in given_up:
                    continue  # meant for who had the number before; what is for its new owner comes again
                waiter = parked.pop(fd, None)
                if waiter is not None:
                    try:
                        waiter.ready(events)
                    except BaseException:  # whatever one client brings about, the thread goes on for the others
                        waiter.crashed()
            if self.now >= self._next_sweep or self._timers:
                self._sweep(self.now)
            if between is not None:
                between()
            if self._deferred and (not ready or self._alone or next(self._turns) % TURNS_PER_DEFERRED == 0):
                self._do_deferred()

    def _do_deferred(self) -> None:
        try:
            call = self._deferred.popleft()
        except IndexError:  # another thread was quicker
            return
        call()

    def _patience(self) -> float:
        if self._deferred:
            return 0.0
        if self._timers:
            return max(0.0, min(self._timers[0][0] - time.monotonic(), SWEEP_SECONDS))
        return SWEEP_SECONDS

    def _sweep(self, now: float) -> None:
        """Does the timers that are due and wakes every waiter whose deadline has passed.

        A plain pass over all of them, twice a second: 10,000 parked connections cost half a millisecond, and there is
        no second structure that every parking would have to keep in step.
        """
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2]
            call()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        if self._beat is not None:
            self._beat(now)
        for fd, waiter in list(self._parked.items()):
            if waiter.deadline <= now:
                self._expire(fd, waiter, now)

    def _expire(self, fd: int, waiter: Waiter, now: float) -> None:
        if not self.claim(fd, waiter):
            return
        if waiter.deadline > now:
            # Another thread served and parked it again since the list was made.
            self._put_back(fd, waiter)
            return
        try:
            waiter.expired()
        except BaseException:  # as in serve()
            waiter.crashed()
