"""Workers whose time is over: those that never become ready, and those that are stuck in a request (harakiri).

A worker tells since when its oldest call runs. One that holds the GIL tells nothing any more, so where it runs an
application its silence counts as such a call. Nothing here waits: what is over is found when the master looks.
"""

from collections.abc import Iterable, Iterator

from uwsgi_tls.workers import NEVER, Worker

LOOK_SECONDS = 0.5  # as often as workers tell; uWSGI's master looks once a second
FROZEN_SECONDS = 3.0  # that the master is late: it was stopped, and its workers with it, as by docker pause
SILENCE_SECONDS = 1.5  # without a beat, of which there are two a second, nothing that it told can be believed


class Overdue:
    """Finds them."""

    def __init__(self, start_seconds: float) -> None:
        """How long a start may last; 0: as long as it likes. How long a call may, each worker has from its task."""
        self._start = start_seconds or NEVER
        self._next_look = 0.0
        self._awake_since = 0.0  # what was before does not count

    def moment(self, workers: Iterable[Worker]) -> float:
        """When look() has something to do next, in seconds of time.monotonic()."""
        moments = [NEVER]
        for child in workers:
            if child.condemned:
                continue
            if not child.ready:
                moments.append(child.born + self._start)
            elif child.harakiri:
                moments.append(self._next_look)
        return min(moments)

    def look(self, now: float, workers: Iterable[Worker]) -> Iterator[tuple[Worker, str]]:
        """Each that is to be killed, and why."""
        looks_at_calls = now >= self._next_look
        if looks_at_calls:
            if now - self._next_look > FROZEN_SECONDS:
                self._awake_since = now
            self._next_look = now + LOOK_SECONDS
        for child in workers:
            if child.condemned:
                continue
            if not child.ready:
                if now - child.born >= self._start + FROZEN_SECONDS:
                    child.born = now
                elif now - child.born >= self._start:
                    yield child, f"is not ready {self._start:g} seconds after its fork (worker-start-timeout)"
            elif child.harakiri and looks_at_calls and self._is_stuck(child, now):
                yield child, f"has a request that lasts longer than {child.harakiri} seconds: HARAKIRI"

    def _is_stuck(self, child: Worker, now: float) -> bool:
        beat, since = child.slot.last_beat, child.slot.calling
        if now - beat > SILENCE_SECONDS:
            # The call may be half a second younger than the silence.
            return now - max(beat, self._awake_since) > child.harakiri + LOOK_SECONDS
        # As it was at the beat: the call may have ended since.
        return since > 0 and beat - max(since, self._awake_since) > child.harakiri
