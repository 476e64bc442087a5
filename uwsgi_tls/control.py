"""`uwsgi-tls reload` and `uwsgi-tls stop`: tells a running master, which a pid file names.

A pid file may have outlived its process and the number may be another's by now. So the process is held by a
descriptor (pidfd_open(2)) before it is looked at, and is told only if it is called as ours are (titles.py).
"""

import argparse
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from uwsgi_tls.errors import ConfigError

STOP_SECONDS = 90  # more than the default of reload-mercy
_SIGNALS = {"reload": signal.SIGHUP, "stop": signal.SIGTERM}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # argparse's own prints the usage too, and exits with 2
        raise ConfigError("command", self.prog.split()[-1], f"{message} (uwsgi-tls {self.prog.split()[-1]} --help)")


def run(words: Sequence[str]) -> int:
    """Does what `words` say, the verb first; returns the exit status. Raises ConfigError."""
    verb = words[0]
    parser = _Parser(prog=f"uwsgi-tls {verb}", description=_descriptions[verb])
    parser.add_argument("--pidfile", metavar="FILE", required=True, help="the pidfile of the running server")
    if verb == "stop":
        parser.add_argument(
            "--wait", metavar="SECONDS", type=int, default=STOP_SECONDS, help=f"for its end (default: {STOP_SECONDS})"
        )
    options = parser.parse_args(words[1:])
    process = _master(options.pidfile)
    try:
        signal.pidfd_send_signal(process, _SIGNALS[verb])
        if verb == "stop" and not select.select([process], [], [], max(0, options.wait))[0]:
            raise ConfigError("pidfile", options.pidfile, f"its server has not ended within {options.wait} seconds")
    except PermissionError:
        raise ConfigError(
            "pidfile", options.pidfile, "its server is another user's; only root or he may tell"
        ) from None
    except ProcessLookupError:
        raise ConfigError("pidfile", options.pidfile, "its server has just ended") from None
    finally:
        os.close(process)
    return 0


def _master(pidfile: str) -> int:
    """A descriptor of the process that the file names. Raises ConfigError if that is no server of ours."""
    try:
        text = Path(pidfile).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("pidfile", pidfile, getattr(error, "strerror", None) or "holds no number") from None
    if not text:
        raise ConfigError("pidfile", pidfile, "is empty, so its server has ended")
    if not (text.isdecimal() and len(text) < 10):
        raise ConfigError("pidfile", pidfile, "holds no number")
    try:
        process = os.pidfd_open(int(text))
    except (OSError, ValueError):
        raise ConfigError("pidfile", pidfile, f"no process has its number {text}: the server has ended") from None
    try:
        called = Path(f"/proc/{text}/cmdline").read_bytes()
    except OSError:
        called = b""
    if b"uwsgi-tls master" not in called:
        os.close(process)
        raise ConfigError("pidfile", pidfile, f"process {text} is no uwsgi-tls master; the file is an old one")
    return process


_descriptions = {
    "reload": "New workers with certificates and application read anew; the old ones finish what they have. As HUP.",
    "stop": "Ends the server once what is under way is done, and waits for it. As TERM.",
}
