"""Leaving the terminal (`daemonize`): the command returns when the workers serve, with the exit status of the start.

uWSGI's command returns 0 before it has bound a socket, and a failed start shows only in the log.

Without `daemonize` the master stays at the terminal, for Ctrl-C, but whoever runs an application leaves it: it may be
root's, and what is typed into a terminal with TIOCSTI (ioctl_tty(2)) is run by the shell that reads there.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

EXIT_LOST = 1  # it ended without a word
EXIT_INTERRUPTED = 130  # as shells have it for SIGINT


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


def fill_standard() -> None:
    """Opens /dev/null where descriptor 0, 1 or 2 is closed, or the next file that is opened would be taken for it."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)  # which is given the lowest number that is free


def detach(log: str, terminal: int) -> Starter:
    """Goes on as a daemon: double fork, own session, stdin from /dev/null (daemon(7)).

    The command itself stays in here, waits to be told, says on the descriptor `terminal` if it went wrong, and exits.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(write)
        _wait(read, child, log, terminal)
    os.close(read)
    os.setsid()
    if os.fork():
        os._exit(0)  # so that the daemon is no session leader and never gets a terminal (daemon(7))
    _read_nothing()
    return Starter(write)


def leave_terminal() -> None:
    """For a process that is to run an application: a session of its own, without a terminal; stdin from /dev/null."""
    os.setsid()
    _read_nothing()


def only_write_to_terminal() -> None:
    """Opens stdout and stderr anew where they are a terminal, for writing only; as root, who alone may open root's.

    A terminal is open for both, and to read it from another session takes no more than the descriptor.
    """
    for fd in (1, 2):
        with suppress(OSError):  # after su the terminal is still another's, and its reader is no more than we are
            if os.isatty(fd):
                anew = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
                os.dup2(anew, fd)
                os.close(anew)


def _read_nothing() -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)


def _wait(told_on: int, child: int, log: str, terminal: int) -> NoReturn:
    """Ends the command with the status that it is told. What there is to remove or release is the daemon's now."""
    status = EXIT_INTERRUPTED
    try:
        told = os.read(told_on, 1)
        os.waitpid(child, 0)
        status = told[0] if told else EXIT_LOST
        if status:
            os.write(terminal, f"uwsgi-tls: daemonize = {log}: the server did not start; {log} says why\n".encode())
    except KeyboardInterrupt:
        pass  # the daemon is in a session of its own and goes on
    finally:
        os._exit(status)
