"""The server log and the access log: lines on descriptor 2, or in the file that `redirect` puts there.

A line is one write(2), so that lines of several processes do not mix in a file that is open for appending, and a log
that cannot be written, for whatever reason, never disturbs the server: a line that a pipe or a terminal has no room
for is dropped, and counted, instead of waiting for a reader that may never come. What clients sent is escaped: no byte
of theirs can begin a line or end a quoted string. Log rotation is `redirect` to the same path again.

Placeholders and the default line are those of uWSGI 2.0 (core/logging.c: uwsgi_logit_simple, uwsgi_build_log_format).
"""

import errno
import os
import re
import select
import stat
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from json import JSONEncoder, loads
from operator import attrgetter
from typing import NamedTuple

from uwsgi_tls.errors import ConfigError
from uwsgi_tls.trusted_path import open_directory

STDOUT = 1
STDERR = 2
LOG_MODE = 0o640
PIPE_LINE_BYTES = 4096  # PIPE_BUF: what pipe(7) takes whole, or not at all, once poll(2) says that there is room

_STANDARD = {"/dev/stdout": STDOUT, "/dev/stderr": STDERR}  # links, which no other log may be
_line_is_json = False
_dropped = 0  # lines of this process, since one went through
_own = -1  # what descriptor 2 is, opened by ourselves; -1: that descriptor itself

DEFAULT_FORMAT = (
    "[pid: %(pid)|app: 0|req: %(requests)/%(requests)] %(addr) (%(user)) {%(vars) vars in %(pktsize) bytes} [%(ctime)]"
    " %(method) %(uri) => generated %(rsize) bytes in %(msecs) msecs (%(proto) %(status))"
    " %(headers) headers in %(hsize) bytes (%(switches) switches on core %(core))"
)


class AccessRecord(NamedTuple):
    """One answered request. A tuple, since a frozen dataclass of this width takes three times as long to make."""

    pid: int
    worker: int  # its number, from 1
    requests: int  # answered by this worker, with this one
    addr: str
    user: str
    vars: int  # how many variables the backend was given
    vars_size: int  # bytes
    start: float  # seconds since the epoch
    method: str
    uri: str
    protocol: str
    status: int
    size: int  # bytes of the body
    headers: int  # how many the response has
    headers_size: int  # bytes
    micros: int  # from the start to the end
    host: str
    user_agent: str
    referer: str
    core: int  # the slot of the thread
    switches: int = 1


class AccessLog:
    """Writes one line for each request."""

    def __init__(self, format: str, json: bool, fd: int = STDERR) -> None:
        """`format` holds uWSGI's placeholders; "" stands for uWSGI's own line. In JSON their names are the keys, ""
        means all of them, and `time` is in ISO 8601. Raises ConfigError on an unknown placeholder.
        """
        self._line = _json_line(format) if json else _text_line(format)
        self._fd = fd

    def write(self, record: AccessRecord) -> None:
        """One line; never raises."""
        _write(self._fd, self._line(record))


def line(text: str) -> None:
    """Writes one line to the server log; never raises. Line ends and control characters in `text` are escaped."""
    _write(STDERR, _server_line(text))


def printable(text: str) -> str:
    """`text` as one line: line ends, control characters and what else no terminal shows are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def trace() -> None:
    """Writes the traceback of the exception that is being handled: line by line behind "| ", or as one JSON object.

    Its text may hold what a client sent, so that without the bar it could pass for lines of ours.
    """
    text = traceback.format_exc()
    if _line_is_json:
        line(text)
    else:
        for each in text.removesuffix("\n").split("\n"):
            line(f"| {each}")


def configure(json: bool) -> None:
    """Makes every further `line` and `trace` a JSON object, or plain again."""
    global _line_is_json
    _line_is_json = json


def redirect(path: str, owners: Collection[int] | None = None) -> None:
    """Makes descriptors 1 and 2 the file `path`, which is created with mode 0640 and only ever appended to.

    `owners` are the uids to which a file that is there may belong; None is anybody. Raises OSError and changes nothing
    if it cannot be opened, or could be another file than its name says.
    """
    fd = os.dup(_STANDARD[path]) if path in _STANDARD else _open(path, owners)
    os.dup2(fd, STDOUT)
    os.dup2(fd, STDERR)
    if fd not in (STDOUT, STDERR):
        os.close(fd)


def never_wait() -> None:
    """Opens a log that is a pipe or a terminal anew, for lines of ours; as root, who may open what is root's.

    Whether a write waits is a property of the open description (open(2)), and that of descriptor 2 is the shell's and
    the application's too. Without one of our own poll(2) has to do, whose answer may be out of date when we write.
    """
    global _own
    with suppress(OSError):  # a socket, or another user's terminal after su
        if stat.S_ISFIFO(os.fstat(STDERR).st_mode) or os.isatty(STDERR):
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            _own = os.open(f"/proc/self/fd/{STDERR}", flags)


def _open(path: str, owners: Collection[int] | None) -> int:
    """The log file. Its directory may be a user's, who would have root write elsewhere, or wait for ever at a FIFO."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    place, name = os.path.split(path)
    directory, _ = open_directory(place)
    try:
        fd = os.open(name, flags, LOG_MODE, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            if status.st_nlink != 1:
                raise OSError(errno.EMLINK, "the file has another name too")
            if owners is not None and status.st_uid not in owners:
                raise OSError(errno.EPERM, f"the file belongs to uid {status.st_uid}")
        elif not stat.S_ISCHR(status.st_mode):  # such as /dev/null
            raise OSError(errno.EINVAL, "it is not a regular file")
        os.set_blocking(fd, True)
    except OSError:
        os.close(fd)
        raise
    return fd


def _server_line(text: str) -> str:
    now = time.time()
    if _line_is_json:
        return _encode({"time": _iso_time(now), "pid": os.getpid(), "message": text}) + "\n"
    return f"{_ctime(now)} - [{os.getpid()}] {printable(text)}\n"


def _write(fd: int, text: str) -> None:
    global _dropped
    if _dropped and _put(fd, _server_line(f"{_dropped} lines are missing here: the log had no room for them")):
        _dropped = 0
    if _dropped or not _put(fd, text):
        _dropped += 1


def _put(fd: int, text: str) -> bool:
    """Writes one line if that needs no waiting; says whether it did."""
    if fd == STDERR and _own >= 0:
        fd = _own
    data = text.encode(errors="backslashreplace")  # a format from the command line may be no proper UTF-8
    room = select.poll()
    room.register(fd, select.POLLOUT)
    try:
        if not room.poll(0):  # never so for a regular file
            return False
        if len(data) > PIPE_LINE_BYTES and not stat.S_ISREG(os.fstat(fd).st_mode):
            data = _cut(text)
        written = os.write(fd, data)
        if written < len(data):
            os.write(fd, data[written:])  # or the next line would begin in the middle of this one
    except OSError:
        return False  # a full disk, a full or closed pipe: there is no other place to say so
    return True


def _cut(text: str) -> bytes:
    """A line of no more than PIPE_LINE_BYTES bytes. A JSON object stays one: its longest text is cut in the middle."""
    if not _line_is_json:
        data = text.encode(errors="backslashreplace")[: PIPE_LINE_BYTES - len("…\n".encode())]
        return (data.decode(errors="ignore") + "…\n").encode()  # "ignore": half a character at the end
    values = loads(text)
    while len(text) > PIPE_LINE_BYTES:
        name = max(values, key=lambda name: len(str(values[name])))
        whole = values[name]
        values[name] = whole[: len(whole) // 4] + "…" + whole[-(len(whole) // 4) :]
        text = _encode(values) + "\n"
    return text.encode()


class _PerSecond:
    """Formats a time and keeps the text for as long as the second lasts. The pair is replaced in one step."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make
        self._last = (-1, "")

    def __call__(self, moment: float) -> str:
        last = self._last
        if last[0] != int(moment):
            last = self._last = (int(moment), self._make(int(moment)))
        return last[1]


def _apache_time(second: int) -> str:
    """As strftime "%d/%b/%Y:%H:%M:%S %z", but an application's setlocale(3) does not change the months."""
    _, month, day, clock, year = time.ctime(second).split()
    return f"{day:0>2}/{month}/{year}:{clock} {time.strftime('%z', time.localtime(second))}"


_ctime = _PerSecond(time.ctime)
_ltime = _PerSecond(_apache_time)
_iso_second = _PerSecond(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))


def _iso_time(moment: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return f"{_iso_second(moment)}.{int(moment * 1000) % 1000:03d}Z"


# Placeholder -> field, of the values that come from the client or may be empty.
_TEXTS = {
    "addr": "addr",
    "user": "user",
    "method": "method",
    "uri": "uri",
    "proto": "protocol",
    "host": "host",
    "uagent": "user_agent",
    "referer": "referer",
}

_OTHERS: dict[str, Callable[[AccessRecord], object]] = {
    "status": attrgetter("status"),
    "rsize": attrgetter("size"),
    "hsize": attrgetter("headers_size"),
    "size": lambda record: record.size + record.headers_size,
    "headers": attrgetter("headers"),
    "vars": attrgetter("vars"),
    "pktsize": attrgetter("vars_size"),
    "micros": attrgetter("micros"),
    "msecs": lambda record: record.micros // 1000,
    "secs": lambda record: record.micros // 1_000_000,
    "time": lambda record: int(record.start),
    "tmsecs": lambda record: int(record.start * 1000),
    "tmicros": lambda record: int(record.start * 1_000_000),
    "ctime": lambda record: _ctime(record.start),
    "ltime": lambda record: _ltime(record.start),
    "ftime": lambda record: _ltime(record.start),  # as uWSGI without log-date
    "epoch": lambda record: int(time.time()),
    "pid": attrgetter("pid"),
    "wid": attrgetter("worker"),
    "core": attrgetter("core"),
    "requests": attrgetter("requests"),  # ours; uWSGI shows it in its own line only
    "switches": attrgetter("switches"),
}

_JSON_KEYS = (
    *("time", "pid", "wid", "core", "requests", "addr", "user", "method", "uri", "proto", "host", "uagent", "referer"),
    *("status", "rsize", "hsize", "headers", "vars", "pktsize", "micros"),
)

_PLACEHOLDER = re.compile(r"%\(([^()]*)\)")
_NOT_PRINTABLE_ASCII = r"[^ -~]|\\"
_ESCAPED = re.compile(_NOT_PRINTABLE_ASCII)
_ESCAPED_IN_QUOTES = re.compile(_NOT_PRINTABLE_ASCII + '|"')

_encode = JSONEncoder(separators=(",", ":")).encode


def _parse(format: str) -> tuple[list[str], list[str]]:
    """The names in the placeholders, and the texts around them, of which there is one more."""
    parts = _PLACEHOLDER.split(format)
    literals, names = parts[::2], parts[1::2]
    if any("%(" in literal for literal in literals):
        raise ConfigError("log-format", format, "a placeholder has no closing parenthesis")
    for name in names:
        if name.startswith("var."):
            raise ConfigError("log-format", format, f"%({name}): variables of the request are not kept for the log")
        if name not in _TEXTS and name not in _OTHERS:
            known = " ".join(sorted({*_TEXTS, *_OTHERS}))
            raise ConfigError("log-format", format, f"unknown placeholder %({name}); there are {known}")
    return literals, names


def _text_line(format: str) -> Callable[[AccessRecord], str]:
    literals, names = _parse(format or DEFAULT_FORMAT)
    template = "%s".join(literal.replace("%", "%%") for literal in literals) + "\n"
    unsafe = _ESCAPED_IN_QUOTES if '"' in format else _ESCAPED
    empty = "-" if format else ""  # uWSGI's own line has "()" for no user, its formats have "-"
    values = [_escaped(_TEXTS[name], unsafe, empty) if name in _TEXTS else _OTHERS[name] for name in names]
    return lambda record: template % tuple([value(record) for value in values])


def _escaped(field: str, unsafe: re.Pattern[str], empty: str) -> Callable[[AccessRecord], str]:
    get: Callable[[AccessRecord], str] = attrgetter(field)

    def value(record: AccessRecord) -> str:
        text = get(record)
        # Nearly all values pass these four, which together cost less than one search.
        if text.isascii() and text.isprintable() and "\\" not in text and '"' not in text:
            return text or empty
        return unsafe.sub(lambda match: f"\\x{ord(match[0]):02X}", text)

    return value


def _json_line(format: str) -> Callable[[AccessRecord], str]:
    names: Iterable[str] = dict.fromkeys(_parse(format)[1]) or _JSON_KEYS
    values = [(name, attrgetter(_TEXTS[name]) if name in _TEXTS else _OTHERS[name]) for name in names]
    # One form of time in all JSON lines, which can be sorted and has the milliseconds that `line` has.
    values = [(name, _start_time if name == "time" else value) for name, value in values]
    return lambda record: _encode({name: value(record) for name, value in values}) + "\n"


def _start_time(record: AccessRecord) -> str:
    return _iso_time(record.start)
