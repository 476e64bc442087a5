"""What workers tell of themselves in shared memory: a slot for each, which it alone writes, without locks.

The memory is made before the first fork, has no name, needs no file and outlives every worker. A slot holds whole
numbers of eight bytes, each of which is written and read at once; who reads one sees it as it was or as it is. The
first slot is the master's: how it is, and what workers that have ended had counted.

Beside each slot there is a pulse, the signs of life. It lies in a memory of its own, which can outlive the program of
the master too: who is stuck must be seen after an upgrade as well (heritage.py).

All workers can write all of it, so no number here is believed to be one of those that it should be.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import time
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from uwsgi_tls.tally import COUNTERS, NAMES

SLOTS = 4096  # workers at once, those of generations on their way out included
NUMBER_BYTES = 8
TEXT_BYTES = 512  # of what went wrong last

# Where in a pulse, in nanoseconds; the master writes _ENDS. Who changes this or SLOTS changes heritage.FORMAT.
_LAST_BEAT, _CALLING, _ENDS = range(3)
PULSE = 3  # numbers of one
# Where in a slot; the master writes all that take() fills in.
_NUMBER, _GENERATION, _SPAWNS, _BORN, _PID, _STATE, _HARAKIRIS = range(7)  # _NUMBER is 0 in a slot that is free
_COUNTED = 10  # from here on what NAMES has, the counters first; the master has more before them
NUMBERS = _COUNTED + len(NAMES)  # of a slot
# Where in the master's.
_VERSION = 0  # odd while the sums and the slots are being changed
_USED = 1  # slots that were ever given out
_SERVING, _STARTED, _MASTERS_STATE, _WANTED, _DEATHS, _ALL_HARAKIRIS, _FAILED_RELOADS, _LAST_FAILED = range(2, 10)

MOST = 2**63 - 1  # that a number can be
_NANO = 1_000_000_000
_READS = 100  # attempts, until what was read was not being changed
_PAUSE_SECONDS = 0.001  # between two of them
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

STATES = ("starting", "serving", "draining")  # of a worker
MASTERS_STATES = ("starting", "serving", "reloading", "stopping")


@dataclass(frozen=True, slots=True)
class Slot:
    """That of one worker."""

    index: int
    numbers: "memoryview[int]"  # quoted: Python subscripts it since 3.14
    pulse: "memoryview[int]"

    def beat(self, now: float, calling: float = 0.0) -> None:
        """In the worker: it is alive at `now`, in seconds of time.monotonic(), which all processes share, and the
        oldest call of its application runs since `calling`; 0.0: there is none."""
        # In this order: whoever reads between the two must not take a call for longer than it was.
        self.pulse[_CALLING] = int(calling * _NANO)
        self.pulse[_LAST_BEAT] = int(now * _NANO)

    @property
    def last_beat(self) -> float:
        """When it was alive last; 0.0 before it was ever."""
        return self.pulse[_LAST_BEAT] / _NANO

    @property
    def calling(self) -> float:
        """Since when the oldest call ran that ran at the last beat; 0.0 where there was none."""
        return self.pulse[_CALLING] / _NANO

    @property
    def ends(self) -> float:
        """When the worker must have ended (time.monotonic() seconds); 0.0: nobody has said so."""
        return self.pulse[_ENDS] / _NANO

    def must_end(self, moment: float) -> None:
        """In the master, which sends SIGTERM afterwards."""
        self.pulse[_ENDS] = int(moment * _NANO)

    def enter(self, state: str, pid: int) -> None:
        """In the worker: it is in one of STATES now."""
        self.numbers[_PID] = pid
        self.numbers[_STATE] = STATES.index(state)

    def tell(self, counts: Mapping[str, int]) -> None:
        """In the worker: what it has counted and how it is now, a number for each of tally.NAMES."""
        self.numbers[_COUNTED:] = memoryview(array("q", [counts[name] for name in NAMES]))


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker has told last."""

    number: int
    generation: int
    spawns: int  # workers that have borne the number so far
    harakiris: int  # of these
    born: int  # seconds since the epoch
    pid: int  # 0: it has just been forked
    state: str
    last_beat: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is told, at one moment."""

    state: str  # the master's
    generation: int  # that serves
    started: int  # seconds since the epoch
    wanted: int  # workers
    deaths: int  # of workers that nobody had told to end
    harakiris: int  # of workers that were killed for a request that did not end
    failed_reloads: int
    last_reload_failed: bool
    failure: str  # what went wrong last in the generation that serves
    ended: Mapping[str, int]  # what workers that have ended had counted
    workers: tuple[Told, ...]  # those that live, by number, generation and age, the oldest first

    @property
    def totals(self) -> Mapping[str, int]:
        """The counters of all workers since the start, those that have ended included."""
        total = Counter(self.ended)
        for told in self.workers:
            total.update({name: told.counts[name] for name in COUNTERS})
        return total

    @property
    def now(self) -> Mapping[str, int]:
        """The sums of all gauges and counters of the workers that live."""
        total = Counter(dict.fromkeys(NAMES, 0))
        for told in self.workers:
            total.update(told.counts)
        return total


class Scoreboard:
    """All slots; the master gives them out before it forks."""

    def __init__(self, slots: int = SLOTS, pulses: int = -1) -> None:
        """`pulses`: the descriptor of the memory for SLOTS pulses that pulses() has made; -1: one that ends with us."""
        self._numbers = memoryview(mmap.mmap(-1, (1 + slots) * NUMBERS * NUMBER_BYTES)).cast("q")
        size = (1 + slots) * PULSE * NUMBER_BYTES
        self._pulses = _map_or_make(pulses, size).cast("q")
        self._failure = mmap.mmap(-1, TEXT_BYTES)
        self._free = list(range(slots, 0, -1))
        self._master = self._slot(0)
        self._master[_STARTED] = int(time.time())
        self._spawns: dict[int, int] = {}
        self._harakiris: dict[int, int] = {}

    def take(self, number: int = 0, generation: int = 0) -> Slot:
        """A slot for the worker of that number, with nothing told in it. Raises OSError when there is none left."""
        if not self._free:
            raise OSError(errno.EAGAIN, "no slot of the scoreboard is free")
        slot = self._give(self._free.pop(), number, generation)
        slot.pulse[:] = memoryview(array("q", bytes(PULSE * NUMBER_BYTES)))
        return slot

    def take_over(self, index: int, number: int, generation: int) -> Slot:
        """The one that a worker of the program before ours has had: its pulse is that of the worker, all else empty."""
        self._free.remove(index)
        return self._give(index, number, generation)

    def _give(self, index: int, number: int, generation: int) -> Slot:
        numbers = self._slot(index)
        numbers[:] = memoryview(array("q", bytes(NUMBERS * NUMBER_BYTES)))
        self._spawns[number] = self._spawns.get(number, 0) + 1
        numbers[_GENERATION], numbers[_SPAWNS], numbers[_BORN] = generation, self._spawns[number], int(time.time())
        numbers[_HARAKIRIS] = self._harakiris.get(number, 0)
        numbers[_NUMBER] = number
        self._master[_USED] = max(self._master[_USED], index)
        return Slot(index, numbers, self._pulses[index * PULSE : (index + 1) * PULSE])

    def give_back(self, slot: Slot) -> None:
        """Its worker has ended; what it had counted remains in the sums."""
        master, numbers = self._master, slot.numbers
        _add_one(master, _VERSION)
        for place in range(_COUNTED, _COUNTED + len(COUNTERS)):
            master[place] = min(_count(master[place]) + _count(numbers[place]), MOST)
        numbers[_NUMBER] = 0
        _add_one(master, _VERSION)
        self._free.append(slot.index)

    def enter(self, state: str, generation: int, wanted: int, failure: str = "") -> None:
        """The master is in one of MASTERS_STATES, `generation` serves and `wanted` workers there should be; `failure`
        is what went wrong last in it."""
        master = self._master
        _add_one(master, _VERSION)
        if generation != master[_SERVING]:
            master[_LAST_FAILED] = 0
        master[_MASTERS_STATE] = MASTERS_STATES.index(state)
        master[_SERVING], master[_WANTED] = generation, wanted
        self._failure[:] = failure.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0")
        _add_one(master, _VERSION)

    def reload_failed(self) -> None:
        """The generation that serves stays."""
        _add_one(self._master, _FAILED_RELOADS)
        self._master[_LAST_FAILED] = 1

    def died(self) -> None:
        """A worker has ended that was not told to."""
        _add_one(self._master, _DEATHS)

    def harakiri(self, number: int) -> None:
        """The worker of that number is killed for a request that does not end."""
        self._harakiris[number] = self._harakiris.get(number, 0) + 1
        _add_one(self._master, _ALL_HARAKIRIS)

    def read(self) -> Reading:
        """In any process: what is told now, no worker counted twice or not at all because it ends meanwhile."""
        for _ in range(_READS):
            before = self._master[_VERSION]
            numbers = self._numbers[: (1 + _count(self._master[_USED])) * NUMBERS].tolist()
            failure = self._failure[:]
            if before % 2 == 0 and self._master[_VERSION] == before:
                break
            time.sleep(_PAUSE_SECONDS)
        slots = [numbers[at : at + NUMBERS] for at in range(0, len(numbers), NUMBERS)]
        beats = self._pulses[_LAST_BEAT::PULSE]
        told = [_told(slot, beats[index]) for index, slot in enumerate(slots) if index and slot[_NUMBER]]
        told.sort(key=lambda each: (each.number, each.generation, each.spawns))
        return Reading(
            state=_name(MASTERS_STATES, numbers[_MASTERS_STATE]),
            generation=numbers[_SERVING],
            started=numbers[_STARTED],
            wanted=numbers[_WANTED],
            deaths=numbers[_DEATHS],
            harakiris=numbers[_ALL_HARAKIRIS],
            failed_reloads=numbers[_FAILED_RELOADS],
            last_reload_failed=bool(numbers[_LAST_FAILED]),
            failure=failure.rstrip(b"\0").decode(errors="ignore"),  # its last letter may be cut
            ended=dict(zip(COUNTERS, map(_count, numbers[_COUNTED:]), strict=False)),
            workers=tuple(told),
        )

    def _slot(self, index: int) -> "memoryview[int]":
        return self._numbers[index * NUMBERS : (index + 1) * NUMBERS]


def pulses() -> int:
    """A descriptor of memory for pulses, which can be left to another program; -1 where the kernel gives none."""
    try:
        memory = os.memfd_create("uwsgi-tls pulses", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return -1
    try:
        os.ftruncate(memory, (1 + SLOTS) * PULSE * NUMBER_BYTES)
    except OSError:  # RLIMIT_FSIZE
        os.close(memory)
        return -1
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)  # or a worker could take it away from under the master: SIGBUS
    return memory


def _map_or_make(memory: int, size: int) -> memoryview:
    """Where it cannot be mapped, a memory that ends with us: what is about to serve is not stopped for that."""
    if memory >= 0:
        with suppress(OSError):
            return _map(memory, size)
    return memoryview(mmap.mmap(-1, size))


def _map(memory: int, size: int) -> memoryview:
    """So many bytes of it, by mmap(2), since mmap.mmap() keeps a copy of the descriptor, which every worker would have.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, memory, 0)
    if address == ctypes.c_void_p(-1).value:  # MAP_FAILED
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def _add_one(numbers: "memoryview[int]", place: int) -> None:
    numbers[place] = (numbers[place] + 1) & MOST  # even and odd stay in turn where it begins anew


def _count(number: int) -> int:
    return max(number, 0)


def _name(states: Sequence[str], number: int) -> str:
    return states[number] if 0 <= number < len(states) else states[0]


def _told(slot: list[int], last_beat: int) -> Told:
    return Told(
        number=slot[_NUMBER],
        generation=slot[_GENERATION],
        spawns=slot[_SPAWNS],
        harakiris=slot[_HARAKIRIS],
        born=slot[_BORN],
        pid=slot[_PID],
        state=_name(STATES, slot[_STATE]),
        last_beat=last_beat / _NANO,
        counts=dict(zip(NAMES, map(_count, slot[_COUNTED:]), strict=True)),
    )
