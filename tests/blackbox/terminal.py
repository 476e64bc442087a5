"""A program with a terminal of its own, as a shell starts it, and the person in front of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .server import STOP_SECONDS

SECONDS = 20.0  # until something is shown


class Terminal:
    """Runs the program within a `with` statement; whoever still runs at its end is killed."""

    def __init__(self, words: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        self.said = ""
        self.process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def read_until(self, text: str) -> None:
        """Reads on until `text` has been shown."""
        shown = len(self.said)
        deadline = time.monotonic() + SECONDS
        while text not in self.said[shown:]:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._ours], [], [], left)[0], f"no {text!r} within {SECONDS:.0f} s: {self.said}"
            try:
                self.said += os.read(self._ours, 4096).decode()
            except OSError:  # EIO: nobody has the other side any more
                raise AssertionError(f"ended without {text!r}: {self.said}") from None

    def end(self) -> int:
        """Reads to the end; the exit status."""
        with contextlib.suppress(OSError):
            while data := os.read(self._ours, 4096):
                self.said += data.decode()
        return self.process.wait(STOP_SECONDS)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())
