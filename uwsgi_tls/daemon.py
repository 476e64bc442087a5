"""Leaving the terminal (`daemonize`): the command returns when the workers serve, with the exit status of the start.

uWSGI's command returns 0 before it has bound a socket, and a failed start shows only in the log.
"""

import os
from contextlib import suppress
from dataclasses import dataclass


@dataclass(slots=True)
class Starter:
    """The end of a pipe on which the waiting command is told how the start went."""

    fd: int = -1

    def report(self, status: int) -> None:
        """Ends the waiting command with `status`; only the first call does something, and none without a daemon."""
        if self.fd >= 0:
            with suppress(BrokenPipeError):  # the command was interrupted; the server goes on
                os.write(self.fd, bytes([status]))
            os.close(self.fd)
            self.fd = -1


def detach(log: str, terminal: int) -> Starter:
    """Goes on as a daemon: double fork, own session, stdin from /dev/null (daemon(7)).

    The command itself stays in here, waits to be told, says on the descriptor `terminal` if it went wrong, and exits.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(write)
        told = os.read(read, 1)
        os.waitpid(child, 0)
        if told != b"\0":
            os.write(terminal, f"uwsgi-tls: daemonize = {log}: the server did not start; {log} says why\n".encode())
        os._exit(told[0] if told else 1)
    os.close(read)
    os.setsid()
    if os.fork():
        os._exit(0)  # so that the daemon is no session leader and never gets a terminal (daemon(7))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return Starter(write)
