"""What each process is called in `ps` and in /proc/PID/comm.

setproctitle writes over the argument area and thereby sets comm to the title's first letters, after which no init
script finds the daemon by its name (start-stop-daemon(8), --name); so comm is set back after each title.
"""

import os

# Else setproctitle takes the environment's memory too, and /proc/PID/environ shows pieces of titles.
os.environ.setdefault("SPT_NOENV", "1")

import prctl  # after SPT_NOENV
import setproctitle

COMM = "uwsgi-tls"


def claim() -> None:
    """Finds the argument area while argv and environ are still as the kernel laid them; call it first of all."""
    setproctitle.getproctitle()


def set_title(prefix: str, text: str) -> None:
    """Titles this process "PREFIXuwsgi-tls TEXT"."""
    setproctitle.setproctitle(f"{prefix}uwsgi-tls {text}")
    prctl.set_name(COMM)
