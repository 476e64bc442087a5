"""How the server stands, as its master tells it: in the title, to the service manager, on the scoreboard, to who asks.

It remembers what has gone wrong. What goes on, and what that means, is the supervisor's to say.
"""

from collections.abc import Sequence

from uwsgi_tls import titles
from uwsgi_tls.notify import Notifier, State
from uwsgi_tls.options import Config
from uwsgi_tls.scoreboard import Scoreboard
from uwsgi_tls.teller import Teller


class Standing:
    """Told to all of them at once, so that none says anything else than another."""

    def __init__(self, scoreboard: Scoreboard, notifier: Notifier, teller: Teller | None) -> None:
        """`notifier` leads to the service manager, `teller` to whoever may signal us."""
        self._scoreboard = scoreboard
        self._notifier = notifier
        self._teller = teller
        self._prefix = ""
        self._failure = ""  # the last one of this generation
        self._rejected = ""  # the last reload, if it failed: why

    def configure(self, config: Config) -> None:
        """What follows from the configuration of those that serve."""
        self._prefix = config.procname_prefix

    def enter(self, state: State, generation: int, coming: int, wanted: int) -> None:
        """That goes on from now on: `generation` serves, `coming` is to serve, or does, with `wanted` workers."""
        titles.set_title(self._prefix, f"master (generation {coming}, workers {wanted}): {state}")
        self._scoreboard.enter(state, generation, wanted, self._failure)
        status = f"{state}: generation {coming}, workers {wanted}"
        self._notifier.enter(state, f"{status}; last failure: {self._failure}" if self._failure else status)

    def failed(self, text: str) -> None:
        """Something went wrong, which enter() tells."""
        self._failure = text

    def reload_failed(self, text: str) -> None:
        """A reload did, so that what is in the files does not serve."""
        self._failure = self._rejected = text
        self._scoreboard.reload_failed()

    def forget(self) -> None:
        """A new generation serves: whatever went wrong is over."""
        self._failure = self._rejected = ""

    def write(self, wrong: Sequence[str]) -> None:
        """For who has asked with a signal; `wrong` is what is still wrong beside a reload that failed."""
        if self._teller is not None:
            self._teller.write(self._scoreboard.read(), self._failure, self._all(wrong))

    def log(self, wrong: Sequence[str]) -> None:
        """The same in the log."""
        if self._teller is not None:
            self._teller.log(self._scoreboard.read(), self._failure, self._all(wrong))

    def _all(self, wrong: Sequence[str]) -> list[str]:
        return [*filter(None, [self._rejected]), *wrong]
