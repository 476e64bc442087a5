"""What the master looks at once a second, since no event tells of it: files that were touched or replaced."""

import time

from uwsgi_tls.options import Config
from uwsgi_tls.watch import LOOK_SECONDS, Watch, of_touches

NEVER = float("inf")


class Looks:
    """Which of them have changed."""

    def __init__(self) -> None:
        self._config = Config()
        self._certificates: Watch | None = None
        self._logs = self._reloads = of_touches(())
        self.moment = NEVER  # when the next look is due (time.monotonic() seconds)

    def configure(self, config: Config, certificates: Watch | None) -> None:
        """From now on those that `config` names, and what `certificates` sees."""
        if self._config.touch_logreopen != config.touch_logreopen:  # else a touch of just now would be lost
            self._logs = of_touches(config.touch_logreopen)
        if self._config.touch_reload != config.touch_reload:
            self._reloads = of_touches(config.touch_reload)
        self._config, self._certificates = config, certificates
        looks = certificates is not None or config.touch_logreopen or config.touch_reload
        self.moment = time.monotonic() + LOOK_SECONDS if looks else NEVER

    def is_due(self, now: float) -> bool:
        """Whether it is time to look; then the next time is a second later."""
        if now < self.moment:
            return False
        self.moment = now + LOOK_SECONDS
        return True

    def wants_logs(self) -> bool:
        """Whether a file of touch-logreopen has been touched."""
        return self._logs.has_changed()

    def wants_reload(self) -> str:
        """Why a reload is due, if one is. A change that nobody asks for is not forgotten."""
        if self._certificates is not None and self._certificates.has_changed():
            return "certificate files have changed"
        return "touch-reload" if self._reloads.has_changed() else ""
