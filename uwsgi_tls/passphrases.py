"""Passphrases of encrypted keys: from a file, from a command, or from whoever sits at the terminal.

They are asked for only where a key is encrypted, and what a command or a person has said is kept for reloads, when
nobody can be asked any more: the key itself is in memory all the same. A passphrase is never in argv, in the
environment of anything that we start, or in the log; and where there is none nothing waits for one.
"""

import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

from uwsgi_tls.certificates import BadFile, Read

COMMAND_SECONDS = 30.0
PROMPTS = 3
KEY_VARIABLE = "UWSGI_TLS_KEY"  # tells the command which key it is for


class Passphrases:
    """What may open an encrypted key."""

    def __init__(self, file: str = "", command: str = "") -> None:
        """`file`: one passphrase a line; `command`: words as for a shell, which prints one line."""
        self._file = file
        self._command = command
        self._told: dict[str, list[bytes]] = {}  # by the key's path
        self.may_ask = True  # once root is gone there is neither a terminal nor the right to start a command

    def remember(self, before: "Passphrases") -> None:
        """What was told before, of the same keys."""
        self._told = before._told

    def for_key(self, key: str, read: Read) -> Iterator[bytes]:
        """Those that may open the key file `key`, likeliest first; `read` is that of certificates. Raises BadFile."""
        yield from self._told.get(key, [])
        if self._file:
            yield from self._lines(read)
        if not self.may_ask:
            return
        if self._command:
            yield self._keep(key, self._run(key))
        elif not self._file and sys.stdin is not None and sys.stdin.isatty():
            with suppress(EOFError):  # Ctrl-D: there is none
                for _ in range(PROMPTS):
                    yield self._keep(key, os.fsencode(getpass.getpass(f"Passphrase of {key}: ")))

    def _keep(self, key: str, passphrase: bytes) -> bytes:
        self._told.setdefault(key, []).append(passphrase)
        return passphrase

    def _lines(self, read: Read) -> Iterator[bytes]:
        data = read(self._file, "ssl-key-password-file")
        lines = [bytes(line) for line in data.splitlines()]
        data[:] = bytes(len(data))
        yield from filter(None, lines)

    def _run(self, key: str) -> bytes:
        try:
            done = subprocess.run(
                shlex.split(self._command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=COMMAND_SECONDS,
                env={**os.environ, KEY_VARIABLE: key},
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise BadFile(f"key {key}: ssl-key-password-command took more than {COMMAND_SECONDS:g} seconds") from None
        except subprocess.CalledProcessError as error:
            raise BadFile(f"key {key}: ssl-key-password-command ended with status {error.returncode}") from None
        except (OSError, ValueError) as error:
            raise BadFile(f"key {key}: ssl-key-password-command: {error}") from None
        return done.stdout.split(b"\n", 1)[0].removesuffix(b"\r")
