"""Lines about handshakes that came to nothing: the first few of a kind in each minute, and how many there were more.

Whoever can reach the port can bring such lines about, as many as he likes. A kind is the fixed words of the
reason, and the alert, so there are only so many, whatever clients say. What is known stands before the reason, which
may end in a name of the client's: no such name can be taken for the address.
"""

import re
import threading
import time
from dataclasses import dataclass

from uwsgi_tls import hello
from uwsgi_tls.log_targets import NOTICE
from uwsgi_tls.logs import line

LINES_OF_A_KIND = 3
PERIOD_SECONDS = 60.0
NEVER = float("inf")
# Where words of the client's begin: names of certificates as "/CN=x" or as "CN=x" (rfc2253.py), dates, serials.
_THEIRS = re.compile(r"[/(0-9]|\w+=")


@dataclass(frozen=True, slots=True)
class Failure:
    """A handshake that came to nothing."""

    reason: str
    counted: str  # a word of tally.FAILURES
    client: tuple[str, str]  # address and port
    listener: str
    alert: str = ""  # "sent: NAME" or "received: NAME"
    sni: str | None = None  # as hello.Hello has it, and versions too
    versions: bytes = b""

    @property
    def kind(self) -> tuple[str, str, str]:
        """Nothing of it is the client's own words."""
        return self.counted, self.alert, _THEIRS.split(self.reason, maxsplit=1)[0]

    def __str__(self) -> str:
        return self.text()

    def text(self, more: str = "") -> str:
        """The line; `more` is one more fact."""
        address, port = self.client
        facts = [f"client {f'[{address}]' if ':' in address else address}:{port}", self.listener]
        if self.sni is not None:
            facts.append(f"name {self.sni}" if self.sni else "a name that is none")
        if self.versions:
            facts.append(f"offers {' '.join(hello.version_names(self.versions))}")
        if self.alert:
            facts.append(f"alert {self.alert}")
        if more:
            facts.append(more)
        return f"TLS handshake failed ({', '.join(facts)}): {self.reason}"

    def fields(self) -> dict[str, object]:
        """The same for a log that keeps values apart."""
        return {
            "reason": self.reason,
            "addr": self.client[0],
            "port": self.client[1],
            "listener": self.listener,
            "sni": self.sni or "",
            "offers": " ".join(hello.version_names(self.versions)),
            "alert": self.alert,
        }


class Failures:
    """Says of handshakes why they failed, in measure. Any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends = NEVER  # time.monotonic() seconds of the period under way
        self._counts: dict[tuple[str, str, str], int] = {}  # of each kind in this period
        self._last: dict[tuple[str, str, str], Failure] = {}  # of those that were left out

    def __call__(self, failure: Failure) -> None:
        """Says it, or counts it."""
        with self._lock:
            if self._ends == NEVER:
                self._ends = time.monotonic() + PERIOD_SECONDS
            count = self._counts.get(failure.kind, 0)
            self._counts[failure.kind] = count + 1
            if count >= LINES_OF_A_KIND:
                self._last[failure.kind] = failure
                return
        line(str(failure), NOTICE, failure.fields())

    def keep_time(self, now: float) -> None:
        """Ends the period that is over at `now` (time.monotonic() seconds): says what was left out in it."""
        if now < self._ends:
            return
        with self._lock:
            counts, last = self._counts, self._last
            self._counts, self._last, self._ends = {}, {}, NEVER
        for kind, failure in last.items():
            more = counts[kind] - LINES_OF_A_KIND
            line(
                failure.text(f"{more} more like this in the last {PERIOD_SECONDS:.0f} s"),
                NOTICE,
                {**failure.fields(), "more": more},
            )
