"""How the server is, in the words of its master, for whoever asks: `uwsgi-tls status`, or `s` in a master-fifo.

It is put together only then. What each worker counts is the scoreboard's; what the process tree looks like, and
how much memory it takes, is in /proc for everybody (tree.py), so neither stands here.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

SILENT_SECONDS = 5.0  # a worker gives two signs of life a second

_SPANS = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that is served."""

    file: str
    names: tuple[str, ...]
    not_after: int  # UTC, seconds since the epoch
    expiry_warning: int  # likewise: from then on somebody should renew it

    def __str__(self) -> str:
        names = ", ".join(self.names) or "no name"
        return f"{self.file} ({names}) until {datetime.fromtimestamp(self.not_after, UTC):%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Member:
    """A worker, as it has told of itself last."""

    number: int
    generation: int
    pid: int
    state: str
    requests: int
    silent: float  # seconds since its last sign of life

    def __str__(self) -> str:
        return f"generation {self.generation}, {self.state}, {self.requests} requests"


@dataclass(frozen=True, slots=True)
class Condition:
    """All of it, at one moment."""

    moment: float  # time.monotonic() seconds
    state: str
    generation: int  # that serves
    wanted: int  # workers
    started: int  # UTC, seconds since the epoch
    workers: tuple[Member, ...]
    listeners: tuple[str, ...]
    certificates: tuple[Certificate, ...]
    failure: str  # the last one of this generation, mended or not
    wrong: tuple[str, ...]  # what somebody should do something about

    def to_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    def lines(self) -> Iterator[str]:
        """The same for the log."""
        yield f"status: {self.state}, generation {self.generation}, {self.wanted} workers wanted"
        for worker in self.workers:
            yield f"status: worker {worker.number} (pid: {worker.pid}): {worker}"
        yield from (f"status: certificate {each}" for each in self.certificates)
        yield from (f"status: wrong: {each}" for each in self.wrong or ("nothing",))


def from_json(text: bytes) -> Condition:
    """What to_json() has made. Raises ValueError for anything else, half of it included: root reads what the user that
    the master has become has written.
    """
    try:
        values: dict[str, Any] = json.loads(text.partition(b"\n")[0])
        return Condition(
            moment=float(values["moment"]),
            state=str(values["state"]),
            generation=int(values["generation"]),
            wanted=int(values["wanted"]),
            started=int(values["started"]),
            workers=tuple(map(_member, values["workers"])),
            listeners=tuple(map(str, values["listeners"])),
            certificates=tuple(map(_certificate, values["certificates"])),
            failure=str(values["failure"]),
            wrong=tuple(map(str, values["wrong"])),
        )
    except (KeyError, TypeError, OverflowError, OSError, RecursionError) as error:
        raise ValueError(f"not what a master writes: {error}") from None


def _member(values: dict[str, Any]) -> Member:
    return Member(
        number=int(values["number"]),
        generation=int(values["generation"]),
        pid=int(values["pid"]),
        state=str(values["state"]),
        requests=int(values["requests"]),
        silent=float(values["silent"]),
    )


def _certificate(values: dict[str, Any]) -> Certificate:
    end = int(values["not_after"])
    datetime.fromtimestamp(end, UTC)  # raises what from_json() takes for no date
    warning = int(values.get("expiry_warning", end))  # a master of before an upgrade does not tell it
    return Certificate(str(values["file"]), tuple(map(str, values["names"])), end, warning)


def span(seconds: float) -> str:
    """A length of time in one unit."""
    name, unit = next((pair for pair in _SPANS if seconds >= 2 * pair[1]), _SPANS[-1])
    return f"{seconds / unit:.0f} {name}"


def faults(workers: Sequence[Member], wanted: int, certificates: Sequence[Certificate], now: float) -> Iterator[str]:
    """What is wrong with workers, of which `wanted` should serve, and with certificates at `now` (UTC seconds)."""
    there = {worker.number for worker in workers if worker.state != "draining"}
    for number in sorted(set(range(1, wanted + 1)) - there):
        yield f"worker {number} is missing"
    for worker in workers:
        if worker.state == "serving" and worker.silent > SILENT_SECONDS:
            yield f"worker {worker.number} (pid {worker.pid}) has given no sign of life for {worker.silent:.0f} seconds"
    for each in certificates:
        if each.not_after <= now:
            yield f"certificate {each.file} has expired"
        elif now >= each.expiry_warning:
            yield f"certificate {each.file} expires in {span(each.not_after - now)}"
