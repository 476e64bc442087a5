"""Replaces the program of a running master by the one that is installed now, in the same process (`uwsgi-tls upgrade`).

First a child executes the new program, which makes all that it would need of the configuration and ends without a word
if it can: whatever is wrong with it is found there, and the old one goes on. Then the master does the same, keeping
its pid, its workers and its sockets (heritage.py). What the user that the master has become may not execute or read,
cannot be upgraded to. The last resort, when the new program fails all the same, is the service manager's.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from uwsgi_tls import privileges
from uwsgi_tls.heritage import VARIABLE, Heritage, inheritable, leave

TRIAL_SECONDS = 60.0  # a slow disk under load
EXIT_FAILED = 1
SAID_BYTES = 65536  # what a pipe holds, pipe(7)
NEVER = float("inf")
SI_USER = 0  # asm-generic/siginfo.h


class Upgrade:
    """The one of a master, which may be tried any number of times."""

    def __init__(self, bequeath: Callable[[], Heritage], only_root: bool = False) -> None:
        """`bequeath` says what is left to the new program, and raises ConfigError where that cannot be; `only_root` may
        ask for it.
        """
        self._bequeath = bequeath
        self._only_root = only_root
        self._pid = 0
        self._said = -1  # the end of a pipe where the trial's complaints come out
        self.moment = NEVER  # when it has taken too long (time.monotonic() seconds)

    @property
    def is_on_trial(self) -> bool:
        return self._pid != 0

    def is_welcome(self, info: signal.struct_siginfo) -> bool:
        """Whether who has sent this signal may ask for it: after the drop not our own user, for whom each program that
        begins is open for a moment (PR_SET_DUMPABLE).

        Of kill(2) alone the kernel says who it was. It says uid 0, pid 0, too, where it could not keep that (signal(7),
        RLIMIT_SIGPENDING).
        """
        return not self._only_root or (info.si_code == SI_USER and info.si_pid != 0 and info.si_uid == 0)

    def begin(self) -> None:
        """Starts the trial. Raises OSError and ConfigError."""
        heritage = replace(self._bequeath(), trial=True)
        master = os.getpid()
        said, says = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._pid = os.fork()
        except OSError:
            os.close(said)
            os.close(says)
            raise
        if self._pid == 0:
            self._try(heritage, says, master)
        os.close(says)
        self._said = said
        self.moment = time.monotonic() + TRIAL_SECONDS

    def _try(self, heritage: Heritage, says: int, master: int) -> NoReturn:
        """The child's side."""
        try:
            privileges.die_with_parent(master)
            os.set_blocking(says, True)
            for fd in (1, 2):
                os.dup2(says, fd)
            execute(heritage, master)
        except OSError as error:
            os.write(2, f"{sys.executable}: {error.strerror}\n".encode())
        finally:
            os._exit(EXIT_FAILED)

    def outcome(self, now: float) -> str | None:
        """Why the new program cannot take over, "" if it can; None while nobody knows. Told once."""
        if not self._pid:
            return None
        if now >= self.moment:
            self.moment = NEVER
            self.cancel()
            return f"it has not been ready within {TRIAL_SECONDS:g} seconds"
        try:
            found, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:  # as pid 1 the master has buried it among strangers
            found, status = self._pid, EXIT_FAILED << 8
        if not found:
            return None
        self._pid, self.moment = 0, NEVER
        words = self._complaint()
        return "" if status == 0 else words or f"it ended with wait status {status}"

    def cancel(self) -> None:
        """Ends a trial, if there is one."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._complaint()
            self._pid, self.moment = 0, NEVER

    def replace(self, more: Heritage) -> NoReturn:
        """Executes the new program in this process, with what it is to know of the workers. Raises OSError."""
        heritage = self._bequeath()
        execute(
            Heritage({**heritage.fds, **more.fds}, {**heritage.facts, **more.facts}),
            os.getpid(),
        )

    def _complaint(self) -> str:
        """The last line that the trial has said."""
        try:
            data = os.read(self._said, SAID_BYTES)
        except BlockingIOError:
            data = b""
        os.close(self._said)
        lines = data.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("uwsgi-tls: ") if lines else ""


def execute(heritage: Heritage, master: int) -> NoReturn:
    """What this process was started as, anew. Raises OSError, and then nothing has changed."""
    table = leave(heritage, master)
    words = sys.orig_argv[1:]
    if heritage.facts.get("identity") and not sys.flags.no_user_site:
        words = ["-s", *words]  # what the user has in ~/.local is not what root has started
    try:
        environ = {**os.environ, VARIABLE: str(table)}
        os.execve(sys.executable, [sys.executable, *words], environ)
    finally:
        os.close(table)
        inheritable(heritage.fds.values(), False)
