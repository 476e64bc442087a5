"""How long a peer has for many bytes: a little time for each piece, and an average that all of them must keep.

The average is that of mod_reqtimeout's MinRate (httpd): what has come extends the time by what it should have taken. So
a client that sends a byte now and then meets an end, and one that has been fast may rest for a while. No clock here.
"""

from math import inf
from typing import NamedTuple


class Pace(NamedTuple):
    """A transfer that began at `begin`, in seconds of any clock."""

    begin: float
    piece: float  # seconds from one piece to the next
    rate: float  # bytes a second on average, after the first `piece` seconds; 0: any
    longest: float = 0  # seconds in all; 0: any

    def latest(self, total: int) -> float:
        """Until when a transfer may go on that has moved `total` bytes, whatever comes next."""
        by_rate = self.begin + self.piece + total / self.rate if self.rate else inf
        return min(by_rate, self.begin + self.longest) if self.longest else by_rate

    def deadline(self, now: float, total: int) -> float:
        """When the next piece must have come, the last having come at `now`."""
        return min(now + self.piece, self.latest(total))
