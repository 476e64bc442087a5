"""Which of several service threads waits for events: one leads, and another takes over when it is held up.

The pattern is "leader and followers" (Schmidt et al., Pattern-Oriented Software Architecture 2), with a difference: the
leader serves what it finds itself, and loses its place only where that takes long. An interpreter has one lock for all
threads, and to hand it over costs as much as half a small request; so as long as an application answers quickly, one
thread does everything. One of the followers watches whether it gets on, every few milliseconds while there is work.
"""

import threading
import time
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress

LOOK_SECONDS = 0.003  # who is held up for so long is relieved, and at the latest after twice as long
QUIET_LOOKS = 30  # at a leader that has nothing to do, before its follower sleeps until it is rung for
SLEEP_SECONDS = 0.5
SLOW_SECONDS = 0.001  # of a call, after which the next one is expected to be slow too


class Turn:
    """The time that one thread leads."""

    __slots__ = ("over", "steps", "thread")

    def __init__(self) -> None:
        self.thread = get_ident()
        self.steps = 0  # that it has done; it gets on as long as they grow
        self.over = False  # another thread leads, or is about to


class Lead:
    """Who leads. At most one thread does, but for the step in which it is relieved."""

    def __init__(self) -> None:
        self._turn: Turn | None = None
        self._open: dict[Turn, bool] = {}  # the leader's turn while it serves and may be relieved; `pop` decides
        self._watch = threading.Lock()  # held by the follower whose turn is next
        self._bell = threading.Lock()
        self._bell.acquire()
        self._sleeps = False  # the follower hears nothing but the bell
        self._wanted = False  # a leader expects to be held up
        self._slow = False

    # The leader.

    def serves(self, turn: Turn) -> None:
        """From here on it may be relieved: it serves what it has found."""
        self._open[turn] = True
        if self._sleeps:
            self._ring()

    def goes_on(self, turn: Turn) -> bool:
        """Whether it still leads, and may wait for events: nobody relieves a leader that waits."""
        if not self._open.pop(turn, False):
            return False
        turn.over = False
        return True

    def resigns(self) -> None:
        """The leader, which waits no more: whoever comes leads."""
        self._turn = None

    def call_begins(self) -> float:
        """Before what may take long: if the last did, the leader is relieved at once. Any thread; for `call_ends`."""
        turn = self._turn
        if self._slow and turn is not None and turn.thread == get_ident() and not turn.over:
            self._wanted = True
            self._ring()
        return time.monotonic()

    def call_ends(self, began: float) -> None:
        """After it."""
        self._slow = time.monotonic() - began > SLOW_SECONDS

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    # The followers.

    def follow(self, ended: Callable[[], bool]) -> Turn | None:
        """Waits until the caller is to lead; None where it has `ended`."""
        with self._watch:
            while not ended():
                if self._turn is None or self._is_to_be_relieved(self._turn):
                    self._turn, self._wanted = Turn(), False
                    return self._turn
        return None

    def _is_to_be_relieved(self, turn: Turn) -> bool:
        """Looks at the leader until it is held up, for SLEEP_SECONDS at most."""
        seen, quiet = turn.steps, 0
        while quiet < QUIET_LOOKS:
            if not self._wanted:
                self._bell.acquire(timeout=LOOK_SECONDS)
            if self._wanted or turn.steps == seen:
                self._wanted = False
                turn.over = True  # before it is: the leader shall not begin another step
                if self._open.pop(turn, False):
                    return True
                turn.over = False
                quiet += 1
            else:
                quiet = 0
            seen = turn.steps
        self._sleeps = True
        if turn.steps == seen:  # else it may have looked for a sleeper before there was one
            self._bell.acquire(timeout=SLEEP_SECONDS)
        self._sleeps = False
        return False
