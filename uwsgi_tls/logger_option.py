"""From the text of `logger` and `req-logger` to a Logger: uWSGI's form, KIND:ARGUMENT, for the kinds that we have.

uWSGI: core/logging.c, plugins/syslog, plugins/systemd_logger. What it sends to another machine itself goes there by
the local syslog here.
"""

import re
from dataclasses import dataclass
from typing import Literal

LOGGER_METAVAR = "file:FILE|syslog[:...]|journald[:...]"
LOGGER_SYNTAX = "file:FILE|syslog[:NAME[,FACILITY[,SOCKET]]]|journald[:NAME[,SOCKET]]"
SYSLOG_SOCKET = "/dev/log"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
NAME = "uwsgi-tls"

Kind = Literal["file", "syslog", "journald"]

_NAME = re.compile(r"[A-Za-z0-9_./-]{1,48}")  # RFC 5424, 6: APP-NAME; no ":" or "[", which end a tag in RFC 3164
# RFC 5424, 6.2.1, by the names of syslog(3).
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", ""),
    *(f"local{number}" for number in range(8)),
)
_DAEMON = _FACILITIES.index("daemon")  # uWSGI's


@dataclass(frozen=True, slots=True)
class Logger:
    """Where lines go. `path` is the file, or the socket."""

    kind: Kind
    path: str
    text: str
    name: str = ""
    facility: int = _DAEMON


def parse_logger(text: str) -> Logger:
    """The value of `logger` or `req-logger`. Raises ValueError."""
    kind, _, argument = text.partition(":")
    if " " in kind:
        raise ValueError("a logger's name serves log-route, which is not supported; the syntax is KIND:ARGUMENT")
    match kind:
        case "file":
            if not argument:
                raise ValueError("the syntax is file:FILE")
            return Logger("file", argument, text)
        case "syslog":
            name, facility, path = _parts(argument, 3)
            return Logger("syslog", path or SYSLOG_SOCKET, text, _name(name), _facility(facility))
        case "journald":
            name, path = _parts(argument, 2)
            return Logger("journald", path or JOURNAL_SOCKET, text, _name(name))
        case "rsyslog" | "socket" | "udp":
            raise ValueError("not supported: log to syslog, which can send it on")
    raise ValueError(f"no such kind of log; there are {LOGGER_SYNTAX}")


def _parts(argument: str, count: int) -> list[str]:
    parts = [part.strip() for part in argument.split(",")]
    if len(parts) > count:
        raise ValueError(f"the syntax is {LOGGER_SYNTAX}")
    return parts + [""] * (count - len(parts))


def _name(text: str) -> str:
    if text and not _NAME.fullmatch(text):
        raise ValueError("the name may have 48 letters, digits and _./-")
    return text or NAME


def _facility(text: str) -> int:
    word = text.lower().removeprefix("log_")
    if not word:
        return _DAEMON
    if word not in _FACILITIES:
        raise ValueError(f"no such facility; there are {' '.join(filter(None, _FACILITIES))}")
    return _FACILITIES.index(word)
