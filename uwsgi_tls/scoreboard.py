"""What workers tell of themselves in shared memory: a slot for each, which it alone writes, without locks.

The memory is anonymous and made before the first fork, so it has no name, needs no file and outlives every worker
(mmap(2)). A slot holds numbers of eight bytes, each of which is written and read at once; who reads one sees it as it
was or as it is.
"""

import errno
import mmap
import struct
from dataclasses import dataclass

SLOTS = 4096  # workers at once, those of generations on their way out included
_NUMBER = "d"
_LAST_BEAT = 0
_NUMBERS = 1  # of a slot


@dataclass(frozen=True, slots=True)
class Slot:
    """That of one worker."""

    index: int
    numbers: memoryview

    def beat(self, now: float) -> None:
        """In the worker: it is alive at `now`, in seconds of time.monotonic(), which all processes share."""
        self.numbers[_LAST_BEAT] = now

    @property
    def last_beat(self) -> float:
        """When it was alive last; 0.0 before it was ever."""
        beat: float = self.numbers[_LAST_BEAT]
        return beat


class Scoreboard:
    """All slots; the master gives them out before it forks."""

    def __init__(self, slots: int = SLOTS) -> None:
        memory = mmap.mmap(-1, slots * _NUMBERS * struct.calcsize(_NUMBER))
        self._numbers = memoryview(memory).cast(_NUMBER)
        self._free = list(range(slots - 1, -1, -1))

    def take(self) -> Slot:
        """A slot with nothing in it. Raises OSError when there is none left."""
        if not self._free:
            raise OSError(errno.EAGAIN, "no slot of the scoreboard is free")
        index = self._free.pop()
        slot = Slot(index, self._numbers[index * _NUMBERS : (index + 1) * _NUMBERS])
        for place in range(_NUMBERS):
            slot.numbers[place] = 0.0
        return slot

    def give_back(self, slot: Slot) -> None:
        """Its worker has ended."""
        self._free.append(slot.index)
