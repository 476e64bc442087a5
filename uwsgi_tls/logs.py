"""The server log: lines on descriptor 2, which may be a file, and instead of that wherever `logger` says.

A log that cannot be written, for whatever reason, never disturbs the server; log_targets.py. Programs and applications
that print do so on descriptors 1 and 2. Each process has its own idea of what is open: after log rotation each is told
to `reopen`, and keeps the old file where it may not.
"""

import os
import traceback
from collections.abc import Collection, Sequence
from contextlib import suppress

from uwsgi_tls import heritage, log_text
from uwsgi_tls.journald import Journal
from uwsgi_tls.log_targets import (
    ERROR,
    INFO,
    NO_FIELDS,
    STANDARD,
    STDERR,
    STDOUT,
    LogFile,
    Sink,
    Stream,
    Target,
    become,
    open_file,
)
from uwsgi_tls.log_text import Fields
from uwsgi_tls.logger_option import Logger
from uwsgi_tls.syslog import Syslog

Owner = tuple[int, int]  # uid and gid

_stderr = Target(Stream(STDERR))
_targets: Sequence[Target] = (_stderr,)
_files: list[LogFile] = []


def line(text: str, priority: int = INFO, fields: Fields = NO_FIELDS) -> None:
    """Writes one line; never raises. Line ends and control characters in `text` are escaped.

    `priority` is one of syslog(3); where the log keeps values apart, as JSON does, it has `fields` too.
    """
    for target in _targets:
        target.say(text, priority, fields)


def trace() -> None:
    """Writes the traceback of the exception that is being handled: line by line behind "| ", or as one JSON object.

    Its text may hold what a client sent, so that without the bar it could pass for lines of ours.
    """
    text = traceback.format_exc()
    if log_text.is_json:
        line(text, ERROR)
    else:
        for each in text.removesuffix("\n").split("\n"):
            line(f"| {each}", ERROR)


def configure(json: bool) -> None:
    """Makes every further `line` and `trace` a JSON object, or plain again."""
    log_text.is_json = json


def redirect(path: str, owners: Collection[int] | None = None, giving_to: Owner | None = None) -> None:
    """Makes descriptors 1 and 2 the file `path`, which is created with mode 0640 and only ever appended to.

    `owners` are the uids to which a file that is there may belong; None is anybody. A new one is given to `giving_to`.
    Raises OSError and changes nothing if it cannot be opened, or could be another file than its name says.
    """
    become(_left_or_opened(path, owners, giving_to), (STDOUT, STDERR))
    heritage.keep(f"log {path}", STDERR)
    if path not in STANDARD:
        _files.append(LogFile(os.path.abspath(path), owners, (STDOUT, STDERR)))


def opened(logger: Logger, owners: Collection[int] | None = None, giving_to: Owner | None = None) -> Target:
    """The target that `logger` stands for; a file is opened as by `redirect`. Raises OSError."""
    return Target(_sink(logger, owners, giving_to), logger.text, _report)


def _sink(logger: Logger, owners: Collection[int] | None, giving_to: Owner | None) -> Sink:
    match logger.kind:
        case "syslog":
            return Syslog(logger.path, logger.name, logger.facility)
        case "journald":
            return Journal(logger.path, logger.name)
    stream = Stream(_left_or_opened(logger.path, owners, giving_to))
    if logger.path not in STANDARD:
        _files.append(LogFile(os.path.abspath(logger.path), owners, (stream.fd,)))
    with suppress(OSError):
        stream.never_wait()
    heritage.keep(f"log {logger.path}", stream.fd)
    return stream


def _left_or_opened(path: str, owners: Collection[int] | None, giving_to: Owner | None) -> int:
    """What the program before us has left open is not opened again, until rotation comes."""
    fd = heritage.left(f"log {path}")
    return open_file(path, owners, giving_to) if fd is None else fd


def _report(text: str) -> None:
    """What one log misses another may have."""
    _stderr.say(text, ERROR, NO_FIELDS)


def begin(targets: Sequence[Target]) -> Sequence[Target]:
    """From here on lines go to `targets`, or to descriptor 2 if there are none, which is what it is to be by now.

    Call it as root, who may open what is root's. Returns where they go.
    """
    global _stderr, _targets
    stream = Stream(STDERR)
    with suppress(OSError):  # it may be closed
        stream.never_wait()
    _stderr = Target(stream)
    _targets = tuple(targets) or (_stderr,)
    return _targets


def forget() -> None:
    """For a process that closes what it has inherited: descriptor 2 is the only log."""
    global _targets
    _targets = (Target(Stream(STDERR)),)
    _files.clear()


def reopen() -> bool:
    """Opens each log file anew under its name, for this process; one line for each that cannot be, and stays open.

    Returns whether any could be.
    """
    done = False
    for file in _files:
        try:
            file.reopen()
            done = True
        except OSError as error:
            line(f"the log file {file.path} cannot be opened again, so the old one stays: {error.strerror}", ERROR)
    return done
