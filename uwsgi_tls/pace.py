"""How long a peer has for many bytes: a little time for each piece, and an average that all of them must keep.

The average is that of mod_reqtimeout's MinRate (httpd): what has come extends the time by what it should have taken. So
a client that sends a byte now and then meets an end. One that has been fast may rest, but not for long: what it has
brought is kept for it meanwhile, so it is never more than CREDIT_PIECES ahead of the average. No clock here.
"""

from math import inf

CREDIT_PIECES = 2  # times the seconds of a piece


class Pace:
    """A transfer under way, in seconds of any clock."""

    __slots__ = ("_end", "_piece", "_rate", "latest")

    def __init__(self, begin: float, piece: float, rate: float, longest: float = 0) -> None:
        """`piece`: seconds from one piece to the next; `rate`: bytes a second on average after the first of them, 0:
        any; `longest`: seconds in all, 0: any."""
        self._piece = piece
        self._rate = rate
        self._end = begin + longest if longest else inf
        self.latest = min(begin + piece, self._end) if rate else self._end  # it may go on until then, whatever comes

    def moved(self, now: float, count: int) -> None:
        """So many bytes more have moved."""
        if self._rate:
            self.latest = min(self.latest + count / self._rate, now + CREDIT_PIECES * self._piece, self._end)

    def deadline(self, now: float) -> float:
        """When the next piece must have come, the last having come at `now`."""
        return min(now + self._piece, self.latest)
