"""The process that stays root, so that a reload can read keys that only root may read.

It is forked by the master right before the drop, in the manner of OpenSSH's privilege separation, and answers two
questions: a descriptor for reading of a file that the configuration names, and whether it has read the configuration
again, before a reload. It takes the names from the configuration and never from the master, opens only what nobody but
root can have put there (trusted_path.py), has no other capability than to read, and ends with the master. A master that
has been taken over gets from it what it had in memory anyway.

It stays as it is when an upgrade replaces the master's program: a question is TAG_BYTES of the asker's choice, which
the answer begins with, and a path, or READ_AGAIN, for every version.
"""

import errno
import os
import resource
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Self

import prctl

from uwsgi_tls import daemon, logs, privileges, titles
from uwsgi_tls.trusted_path import open_trusted

TAG_BYTES = 8  # so that nobody takes a late answer for his
REQUEST_BYTES = TAG_BYTES + 4096  # PATH_MAX of limits.h, which counts the NUL
READ_AGAIN = b"\0"  # in the place of a path
ANSWER_SECONDS = 10.0  # a disk may be slow; a monitor that is stuck must not hold the master
END_SECONDS = 1.0
CONFINED = b"1"
DONE = b"0"


@dataclass(slots=True)
class Monitor:
    """The master's end of it."""

    pid: int
    channel: socket.socket
    _awaited: bytes = b""  # the tag of a question whose time was over before its answer came

    @classmethod
    def of(cls, pid: int, channel: socket.socket) -> Self:
        """That of a process which has begun to answer."""
        channel.settimeout(ANSWER_SECONDS)
        return cls(pid, channel)

    def open(self, path: str) -> int:
        """A descriptor of the named file `path`, or of a named directory.

        Raises OSError; EPERM if nobody opens it for us, the monitor that has ended included, and at once while it still
        owes an answer: who looks at many files each second would wait for each of them.
        """
        if self._is_silent():
            raise OSError(errno.EPERM, "the monitor does not answer")
        fds = self._ask(os.fsencode(path))
        if not fds:
            raise OSError(errno.EPERM, "the monitor has opened nothing")
        return fds[0]

    def read_again(self) -> None:
        """Has it open what the configuration names by now. Raises OSError where it does not."""
        for fd in self._ask(READ_AGAIN):
            os.close(fd)

    def _ask(self, question: bytes) -> list[int]:
        tag = os.urandom(TAG_BYTES)
        try:
            self.channel.send(tag + question)
            self._awaited = tag
            while self._awaited:
                answer, fds = self._receive()
        except OSError as error:
            raise OSError(errno.EPERM, f"the monitor does not answer ({error.strerror or error})") from None
        if answer == tag + DONE:
            return fds
        number, _, text = answer[TAG_BYTES:].decode("utf-8", "replace").partition(" ")
        code = int(number) if number.isdigit() else errno.EPERM
        raise OSError(code, text or "the monitor has ended")

    def _receive(self) -> tuple[bytes, list[int]]:
        """An answer; its descriptors are closed if nobody waits for it any more."""
        # MSG_CMSG_CLOEXEC: what an application starts must not have it.
        answer, fds, _, _ = socket.recv_fds(self.channel, REQUEST_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if not answer or answer.startswith(self._awaited):
            self._awaited = b""
            return answer, list(fds)
        for fd in fds:
            os.close(fd)
        return answer, []

    def _is_silent(self) -> bool:
        """Whether it still owes an answer. read_again() asks all the same, once a reload: the trial of an upgrade has
        the same channel and may have taken that answer.
        """
        arrived = select.poll()
        if self._awaited:
            arrived.register(self.channel, select.POLLIN)
        while self._awaited and arrived.poll(0):
            with suppress(OSError):
                for fd in self._receive()[1]:
                    os.close(fd)
        return bool(self._awaited)

    def has_ended(self) -> bool:
        """Whether it is there no more; True only once."""
        if self.pid == 0:
            return False
        with suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                return False
        self.pid, self._awaited = 0, b""
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


def start(is_named: Callable[[str], bool], read_again: Callable[[], None], title_prefix: str) -> Monitor:
    """Forks the monitor, as root; `is_named` says of a path whether the configuration has it, as `read_again` has found
    it last (raises OSError or ConfigError).

    Raises OSError, and PrivilegeError where it could not be confined.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)  # room for few answers that nobody takes
    try:
        master = os.pidfd_open(os.getpid())  # the process, whatever it executes
    except OSError as error:  # a container's filter of system calls does not know it
        raise privileges.PrivilegeError(f"the monitor could not start: pidfd_open: {error.strerror}") from None
    pid = os.fork()
    if pid == 0:
        try:
            _confine(theirs, master)
            titles.set_title(title_prefix, "monitor (reads certificates and keys at a reload)")
            theirs.send(CONFINED)
            _serve(theirs, master, is_named, read_again)
        except Exception as error:  # whatever it is, the master says it, who is told before anything is served
            with suppress(OSError):
                theirs.send(str(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)
    theirs.close()
    os.close(master)
    said = ours.recv(REQUEST_BYTES)
    if said != CONFINED:
        ours.close()
        os.waitpid(pid, 0)
        raise privileges.PrivilegeError(f"the monitor could not start: {said.decode('utf-8', 'replace')}")
    return Monitor.of(pid, ours)


def _confine(channel: socket.socket, master: int) -> None:
    """Keeps what reading takes and gives the rest up: capabilities(7), CAP_DAC_READ_SEARCH.

    It is its descriptor that tells of the master's end: a signal at the death of a parent that has lost root would not
    reach a process of root (kill(2), of which PR_SET_PDEATHSIG makes no exception).
    """
    daemon.leave_terminal()  # it is the master that is told by Ctrl-C
    privileges.close_inherited({channel.fileno(), master})
    logs.forget()
    for fd in (1, 2):
        os.dup2(0, fd)  # /dev/null: what there is to say goes to the master
    privileges.keep_only(prctl.CAP_DAC_READ_SEARCH)
    privileges.harden(no_new_privs=True)
    # RLIMIT_NOFILE stays: it is compared with what all of root's processes have under way to each other, unix(7).
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _serve(
    channel: socket.socket, master: int, is_named: Callable[[str], bool], read_again: Callable[[], None]
) -> None:
    """Answers until the master's end of the channel is closed, or the master has ended: somebody else may have taken
    that end from it, pidfd_getfd(2). A master that asks and does not read waits for itself alone.
    """
    events = select.poll()
    events.register(channel, select.POLLIN)
    events.register(master, select.POLLIN)
    while master not in dict(events.poll()) and (request := channel.recv(REQUEST_BYTES)):
        tag, question = request[:TAG_BYTES], request[TAG_BYTES:]
        with suppress(OSError):  # whether the master is gone, recv() says
            _answer(channel, tag, read_again if question == READ_AGAIN else partial(_open, question, is_named))


def _open(question: bytes, is_named: Callable[[str], bool]) -> int:
    path = os.fsdecode(question)
    if not is_named(path):
        raise OSError(errno.EPERM, "the configuration does not name it")
    return open_trusted(path)


def _answer(channel: socket.socket, tag: bytes, action: Callable[[], int | None]) -> None:
    try:
        fd = action()
        if fd is None:
            channel.send(tag + DONE)
            return
        try:
            socket.send_fds(channel, [tag + DONE], [fd])
        finally:
            os.close(fd)
    except Exception as error:  # whatever a configuration may hold, files are opened on
        code = getattr(error, "errno", None) or errno.EINVAL
        text = f"{code} {getattr(error, 'strerror', None) or getattr(error, 'cause', None) or error}"
        channel.send((tag + text.encode("utf-8", "replace"))[:REQUEST_BYTES])
