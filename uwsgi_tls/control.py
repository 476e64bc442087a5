"""`uwsgi-tls reload`, `reopen-logs`, `upgrade` and `stop`: finds the master that a pid file names, and tells it.

A pid file may have outlived its process and the number may be another's by now. So the process is held by a
descriptor (pidfd_open(2)) before it is looked at, and is told only if it is called as ours are (titles.py). Who may
write the file chooses the process, so root believes a file only as far as its writer could have told himself.
"""

import argparse
import errno
import os
import re
import select
import signal
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from uwsgi_tls.errors import ConfigError
from uwsgi_tls.heritage import UPGRADE
from uwsgi_tls.titles import COMM
from uwsgi_tls.trusted_path import open_directory

PIDFILE_BYTES = 32  # more than a number has
TITLE = b"uwsgi-tls master ("
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
STOP_SECONDS = 90  # more than the default of reload-mercy
UPGRADE_SECONDS = 90  # for the trial, and for workers that load their application
NOTICE_SECONDS = 10.0  # within which a master has taken notice of its signal
NAMELESS_SECONDS = 2.0  # between two programs a master has no title
_POLL_SECONDS = 0.02
_SERVES = re.compile(rb"master \(generation (\d+), .*\): serving")
_SIGNALS = {"reload": signal.SIGHUP, "reopen-logs": signal.SIGUSR1, "stop": signal.SIGTERM, "upgrade": UPGRADE}


class Stopped(ConfigError):
    """There is no pid file, or it is empty: no server is meant to run."""


class Dead(ConfigError):
    """The pid file names a process that is no server of ours, or none."""


@dataclass(frozen=True, slots=True)
class Master:
    """A running one."""

    pid: int
    uid: int
    process: int  # a descriptor of it, pidfd_open(2)


class Parser(argparse.ArgumentParser):
    """That of a verb; what is wrong with the words raises ConfigError."""

    def error(self, message: str) -> NoReturn:  # argparse's own prints the usage too, and exits with 2
        raise ConfigError("command", self.prog.split()[-1], f"{message} (uwsgi-tls {self.prog.split()[-1]} --help)")


def run(words: Sequence[str]) -> int:
    """Does what `words` say, the verb first; returns the exit status. Raises ConfigError."""
    verb = words[0]
    parser = Parser(prog=f"uwsgi-tls {verb}", description=_descriptions[verb])
    parser.add_argument("--pidfile", metavar="FILE", required=True, help="the pidfile of the running server")
    waits = {"stop": (STOP_SECONDS, "its end"), "upgrade": (UPGRADE_SECONDS, "its new workers")}
    if verb in waits:
        seconds, what = waits[verb]
        parser.add_argument(
            "--wait", metavar="SECONDS", type=int, default=seconds, help=f"for {what} (default: {seconds})"
        )
    options = parser.parse_args(words[1:])
    master = find(options.pidfile)
    process = master.process
    try:
        before = _settled(master, options.pidfile, options.wait) if verb == "upgrade" else 0
        signal.pidfd_send_signal(process, _SIGNALS[verb])
        if verb == "upgrade":
            _await_upgrade(master, before, options.pidfile, options.wait)
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


def _settled(master: Master, pidfile: str, seconds: int) -> int:
    """Waits until no start or reload is under way; returns the generation that serves. Raises ConfigError."""
    end = time.monotonic() + seconds
    while not (generation := _generation(master.pid)):
        if time.monotonic() >= end:
            raise ConfigError("pidfile", pidfile, f"its server has been busy otherwise for {seconds} seconds")
        time.sleep(_POLL_SECONDS)
    return generation


def _await_upgrade(master: Master, before: int, pidfile: str, seconds: int) -> None:
    """Until the server serves with a new generation. Raises ConfigError if it does not, as the old program or at all.

    All of that its title says (titles.py).
    """
    began, noticed = time.monotonic(), False
    while (passed := time.monotonic() - began) < seconds and (noticed or passed < NOTICE_SECONDS):
        if select.select([master.process], [], [], _POLL_SECONDS)[0]:
            raise ConfigError("pidfile", pidfile, "its server has ended instead; its log says why")
        now = _generation(master.pid)
        if now > before:
            return
        if now == before and noticed:
            raise ConfigError("pidfile", pidfile, "its server goes on as it was; its log says why")
        noticed |= now == 0
    cause = f"has not done so within {seconds} seconds" if noticed else "takes no notice"
    raise ConfigError("pidfile", pidfile, f"its server {cause}")


def _generation(pid: int) -> int:
    """That which a master says it serves with; 0 where it says that something else is going on."""
    try:
        found = _SERVES.search(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def find(pidfile: str) -> Master:
    """The server that the file names. Raises Stopped, Dead, or ConfigError where the file is not to be believed."""
    try:
        content, writer = read(pidfile, PIDFILE_BYTES)
        text = content.decode("ascii").strip()
    except FileNotFoundError as error:
        raise Stopped("pidfile", pidfile, str(error.strerror)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("pidfile", pidfile, getattr(error, "strerror", None) or "holds no number") from None
    if not text:
        raise Stopped("pidfile", pidfile, "is empty, so its server has ended")
    if not (text.isdecimal() and len(text) < 10):
        raise ConfigError("pidfile", pidfile, "holds no number")
    try:
        process = os.pidfd_open(int(text))
    except (OSError, ValueError):
        raise Dead("pidfile", pidfile, f"no process has its number {text}: the server has ended") from None
    uid = _uid_of_master(text)
    if uid is None:
        os.close(process)
        raise Dead("pidfile", pidfile, f"process {text} is no uwsgi-tls master; the file is an old one")
    if os.geteuid() == 0 and writer not in (0, uid):
        os.close(process)
        raise ConfigError("pidfile", pidfile, f"uid {writer} may write it, and names process {text} of uid {uid}")
    return Master(int(text), uid, process)


def read(path: str, limit: int) -> tuple[bytes, int]:
    """The first `limit` bytes of a file, and the uid of him who may have put that there; 0 if none but root.

    Raises OSError for what is no regular file, and where nobody knows who may have.
    """
    place, name = os.path.split(path)
    directory, trusted = open_directory(place)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file")
            if os.geteuid() == 0 and status.st_mode & _BY_OTHERS:
                raise OSError(errno.EPERM, "others than its owner may write to it")
            return os.read(fd, limit), status.st_uid if trusted else _writer(status, os.fstat(directory))
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def _writer(file: os.stat_result, directory: os.stat_result) -> int:
    """In a directory that others than root may change: its owner, or in one like /tmp, which is sticky and root's,
    the file's own, if it has no second name elsewhere (inode(7), S_ISVTX). Raises OSError where it may be anybody.
    """
    if directory.st_uid != 0:
        return directory.st_uid
    if directory.st_mode & _BY_OTHERS and not directory.st_mode & stat.S_ISVTX:
        raise OSError(errno.EPERM, "others than root may write to its directory")
    if file.st_nlink != 1:
        raise OSError(errno.EPERM, "has a second name")
    return file.st_uid


def _uid_of_master(pid: str) -> int | None:
    """Whose uwsgi-tls master it is; None if it is none."""
    process = Path("/proc", pid)
    try:
        title, comm = _names(process)
        end = time.monotonic() + NAMELESS_SECONDS
        while TITLE not in title and comm != COMM.encode() and b"uwsgi" in title and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            title, comm = _names(process)
        title = title.partition(b"\0")[0]
        found = re.search(rb"^Uid:\t(\d+)", (process / "status").read_bytes(), re.MULTILINE)
    except OSError:
        return None
    # The real uid, as that is what kill(2) compares.
    return int(found[1]) if found and TITLE in title and comm == COMM.encode() else None


def _names(process: Path) -> tuple[bytes, bytes]:
    """The arguments of the process in that directory of /proc, and its comm. Raises OSError."""
    return (process / "cmdline").read_bytes(), (process / "comm").read_bytes().removesuffix(b"\n")


_descriptions = {
    "reload": "New workers with certificates and application read anew; the old ones finish what they have. As HUP.",
    "reopen-logs": "Opens the log files again, once they were renamed. As USR1.",
    "upgrade": "Has the server go on as the program that is installed by now, if that can start, and waits for it.",
    "stop": "Ends the server once what is under way is done, and waits for it. As TERM.",
}
