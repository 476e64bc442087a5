"""When the successor of a worker that died comes: at once, or later and later where workers die young.

It only keeps the moments; forking is the supervisor's.
"""

YOUNG_SECONDS = 10.0  # a worker that dies younger than this makes its successor wait
BACK_OFF_SECONDS = 0.5  # doubled at each death of a young worker
BACK_OFF_MOST_SECONDS = 30.0


class Respawn:
    """The deaths and the moments, by the number of the worker."""

    def __init__(self, longest: float = BACK_OFF_MOST_SECONDS) -> None:
        """`longest`: no successor waits for more seconds; 0: none waits."""
        self._longest = longest
        self.in_vain = 0  # attempts, since the last one of which a worker came that was ready to serve
        self._deaths: dict[int, int] = {}  # of young workers, in a row
        self._moments: dict[int, float] = {}

    @property
    def moment(self) -> float:
        """When due() has something next, in seconds of time.monotonic()."""
        return min(self._moments.values(), default=float("inf"))

    @property
    def is_pending(self) -> bool:
        """Whether somebody is to come."""
        return bool(self._moments)

    def died(self, number: int, age: float, now: float) -> float:
        """A worker died at `age` seconds; returns the seconds until its successor."""
        if age >= YOUNG_SECONDS:
            self._deaths.pop(number, None)
        return self.failed(number, now)

    def failed(self, number: int, now: float) -> float:
        """It could not even be forked, or died young: none at its first death, then ever more seconds."""
        deaths = self._deaths.get(number, 0)
        self._deaths[number] = deaths + 1
        # No more doublings than can matter: 2**1024 is no float.
        delay = min(BACK_OFF_SECONDS * 2 ** min(deaths - 1, 16), self._longest) if deaths else 0.0
        self._moments[number] = now + delay
        return delay

    def at(self, number: int, moment: float) -> None:
        """A worker of this number is to come at that moment."""
        self._moments[number] = moment

    def forget(self) -> None:
        """A new generation comes: nobody of this one does."""
        self._moments.clear()

    def due(self, now: float) -> list[int]:
        """The numbers whose moment has come, each told once."""
        numbers = [number for number, moment in self._moments.items() if moment <= now]
        for number in numbers:
            del self._moments[number]
        return numbers
