"""The process that stays root, so that a reload can read keys that only root may read.

It is forked by the master right before the drop, in the manner of OpenSSH's privilege separation, and answers one
question: a descriptor for reading of a file that the configuration names. It takes the names from the configuration
and never from the master, opens only what nobody but root can have put there (trusted_path.py), has no other capability
than to read, and ends with the master. A master that has been taken over gets from it what it had in memory anyway.
"""

import errno
import os
import resource
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import prctl

from uwsgi_tls import daemon, privileges, titles
from uwsgi_tls.trusted_path import open_trusted

REQUEST_BYTES = 4096  # PATH_MAX of limits.h, which counts the NUL
ANSWER_SECONDS = 10.0  # a disk may be slow; a monitor that is stuck must not hold the master
END_SECONDS = 1.0
CONFINED = b"1"
OPENED = b"0"


@dataclass(slots=True)
class Monitor:
    """The master's end of it."""

    pid: int
    channel: socket.socket

    def open(self, path: str) -> int:
        """A descriptor of the named file `path`, or of a named directory.

        Raises OSError; EPERM if nobody opens it for us, the monitor that has ended included.
        """
        try:
            self.channel.send(os.fsencode(path))
            # MSG_CMSG_CLOEXEC: what an application starts must not have it.
            answer, fds, _, _ = socket.recv_fds(self.channel, REQUEST_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            self.channel.close()  # a late answer would be taken for that of the next question
            raise OSError(errno.EPERM, f"the monitor does not answer ({error.strerror or error})") from None
        if answer == OPENED and fds:
            return fds[0]
        number, _, text = answer.decode("utf-8", "replace").partition(" ")
        code = int(number) if number.isdigit() else errno.EPERM
        raise OSError(code, text or "the monitor has ended")

    def has_ended(self) -> bool:
        """Whether it is there no more; True only once."""
        if self.pid == 0:
            return False
        with suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                return False
        self.pid = 0
        self.channel.close()
        return True

    def close(self) -> None:
        """Ends it, and waits a moment for that, so that nothing of a server that has stopped is left."""
        self.channel.close()
        if self.pid:
            with suppress(OSError):  # buried already, or a container's filter of system calls does not know this one
                process = os.pidfd_open(self.pid)
                select.select([process], [], [], END_SECONDS)
                os.close(process)


def start(is_named: Callable[[str], bool], title_prefix: str) -> Monitor:
    """Forks the monitor, as root; `is_named` says of a path whether the configuration has it.

    Raises OSError, and PrivilegeError where it could not be confined.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(ANSWER_SECONDS)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)  # room for few answers that nobody takes
    pid = os.fork()
    if pid == 0:
        try:
            _confine(theirs)
            titles.set_title(title_prefix, "monitor (reads certificates and keys at a reload)")
            theirs.send(CONFINED)
            _serve(theirs, is_named)
        except Exception as error:  # whatever it is, the master says it, who is told before anything is served
            with suppress(OSError):
                theirs.send(str(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)
    theirs.close()
    said = ours.recv(REQUEST_BYTES)
    if said != CONFINED:
        ours.close()
        os.waitpid(pid, 0)
        raise privileges.PrivilegeError(f"the monitor could not start: {said.decode('utf-8', 'replace')}")
    return Monitor(pid, ours)


def _confine(channel: socket.socket) -> None:
    """Keeps what reading takes and gives the rest up: capabilities(7), CAP_DAC_READ_SEARCH.

    It is the end of the channel that tells of the master's: a signal at the death of a parent that has lost root would
    not reach a process of root (kill(2), of which PR_SET_PDEATHSIG makes no exception).
    """
    daemon.leave_terminal()  # it is the master that is told by Ctrl-C
    privileges.close_inherited({channel.fileno()})
    for fd in (1, 2):
        os.dup2(0, fd)  # /dev/null: what there is to say goes to the master
    privileges.keep_only(prctl.CAP_DAC_READ_SEARCH)
    privileges.harden(no_new_privs=True)
    # RLIMIT_NOFILE stays: it is compared with what all of root's processes have under way to each other, unix(7).
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _serve(channel: socket.socket, is_named: Callable[[str], bool]) -> None:
    """Answers until the master's end is closed. A master that asks and does not read waits for itself alone."""
    while request := channel.recv(REQUEST_BYTES):
        with suppress(OSError):  # whether the master is gone, recv() says
            _answer(channel, os.fsdecode(request), is_named)


def _answer(channel: socket.socket, path: str, is_named: Callable[[str], bool]) -> None:
    try:
        if not is_named(path):
            raise OSError(errno.EPERM, "the configuration does not name it")
        fd = open_trusted(path)
        try:
            socket.send_fds(channel, [OPENED], [fd])
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        code = getattr(error, "errno", None) or errno.EINVAL
        channel.send(f"{code} {getattr(error, 'strerror', None) or error}".encode("utf-8", "replace"))
