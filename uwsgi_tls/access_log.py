"""The access log: one line for each request, in uWSGI's own form, in the user's, or in JSON.

Placeholders and the default line are those of uWSGI 2.0 (core/logging.c: uwsgi_logit_simple, uwsgi_build_log_format);
those of TLS are ours.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypedDict

from uwsgi_tls.errors import ConfigError
from uwsgi_tls.log_targets import INFO, NO_FIELDS, Target
from uwsgi_tls.log_text import Fields, ctime, encode, iso_time, ltime

DEFAULT_FORMAT = (
    "[pid: %(pid)|app: 0|req: %(requests)/%(requests)] %(addr) (%(user)) {%(vars) vars in %(pktsize) bytes} [%(ctime)]"
    " %(method) %(uri) => generated %(rsize) bytes in %(msecs) msecs (%(proto) %(status))"
    " %(headers) headers in %(hsize) bytes (%(switches) switches on core %(core))"
)


class AccessRecord(TypedDict):
    """One answered request, by the names of the placeholders where these say the same.

    A dictionary, since all that a line takes from it is then taken at once.
    """

    pid: int
    wid: int  # the worker's number, from 1
    core: int  # the slot of the thread
    requests: int  # answered by this worker, with this one
    addr: str
    port: str
    user: str
    vars: int  # how many variables the backend was given
    pktsize: int  # their bytes
    start: float  # seconds since the epoch
    method: str
    uri: str
    proto: str
    host: str
    status: int
    rsize: int  # bytes of the body
    headers: int  # how many the response has
    hsize: int  # bytes
    micros: int  # from the start to the end
    switches: int
    content_length: int  # of the request; -1: it came in chunks
    fields: Mapping[str, str]  # the request's header fields, by their CGI names
    connection: Mapping[str, str]  # the variables of its connection, those of TLS among them


class AccessLog:
    """Writes one line for each request."""

    def __init__(self, format: str, json: bool, targets: Sequence[Target] = ()) -> None:
        """`format` holds uWSGI's placeholders; "" stands for uWSGI's own line. In JSON their names are the keys, ""
        means the usual ones, and `time` is in ISO 8601. Raises ConfigError on an unknown placeholder.
        """
        self._line = _json_line(format) if json else _text_line(format)
        self._plain = _text_line(format)  # for a target that takes the values apart from it
        self._values = _values(_parse(format)[1] or _KEYS)
        self.targets = tuple(targets)

    def write(self, record: AccessRecord) -> None:
        """One line; never raises."""
        for target in self.targets:
            if target.takes_fields:
                target.write(self._plain(record), INFO, self._fields(record))
            else:
                target.write(self._line(record), INFO, NO_FIELDS)

    def _fields(self, record: AccessRecord) -> Fields:
        return {name: value(record) for name, value in self._values}


def _field(name: str) -> Callable[[AccessRecord], str]:
    return lambda record: record["fields"].get(name, "")


def _variable(name: str) -> Callable[[AccessRecord], str]:
    return lambda record: record["connection"].get(name, "")


_RESUMED = {"Resumed": "yes", "Initial": "no"}

# Placeholders that stand in a record as they are; those of the second line are numbers.
_TEXTS_AS_THEY_ARE = frozenset(("addr", "port", "user", "method", "uri", "proto", "host"))
_NUMBERS_AS_THEY_ARE = frozenset(
    ("pid", "wid", "core", "requests", "vars", "pktsize", "status", "rsize", "headers", "hsize", "micros", "switches")
)

# Placeholder -> value, of those that come from the client or may be empty.
_TEXTS: dict[str, Callable[[AccessRecord], str]] = {
    "uagent": _field("HTTP_USER_AGENT"),
    "referer": _field("HTTP_REFERER"),
    "tls_version": _variable("SSL_PROTOCOL"),
    "tls_cipher": _variable("SSL_CIPHER"),
    "tls_resumed": lambda record: _RESUMED.get(_variable("SSL_SESSION_RESUMED")(record), ""),
    "sni": _variable("SSL_TLS_SNI"),
    "client_verify": _variable("SSL_CLIENT_VERIFY"),
    "client_dn": _variable("SSL_CLIENT_S_DN"),
    "client_issuer": _variable("SSL_CLIENT_I_DN"),
    "client_serial": _variable("SSL_CLIENT_M_SERIAL"),
    "client_fingerprint": _variable("SSL_CLIENT_FINGERPRINT"),
    "client_not_after": _variable("SSL_CLIENT_V_END"),
}

_NUMBERS: dict[str, Callable[[AccessRecord], object]] = {
    "size": lambda record: record["rsize"] + record["hsize"],
    "cl": lambda record: max(0, record["content_length"]),
    "msecs": lambda record: record["micros"] // 1000,
    "secs": lambda record: record["micros"] // 1_000_000,
    "time": lambda record: int(record["start"]),
    "tmsecs": lambda record: int(record["start"] * 1000),
    "tmicros": lambda record: int(record["start"] * 1_000_000),
    "ctime": lambda record: ctime(record["start"]),
    "ltime": lambda record: ltime(record["start"]),
    "ftime": lambda record: ltime(record["start"]),  # as uWSGI without log-date
    "epoch": lambda record: int(time.time()),
}

_PLACEHOLDERS = _TEXTS_AS_THEY_ARE | _NUMBERS_AS_THEY_ARE | _TEXTS.keys() | _NUMBERS.keys()

_KEYS = (
    *("time", "pid", "wid", "core", "requests", "addr", "user", "method", "uri", "proto", "host", "uagent", "referer"),
    *("status", "rsize", "hsize", "headers", "vars", "pktsize", "micros"),
    *("tls_version", "tls_cipher", "tls_resumed", "sni", "client_verify", "client_dn", "client_serial"),
)

_PLACEHOLDER = re.compile(r"%\(([^()]*)\)")
_VAR = re.compile(r"var\.[A-Za-z_][A-Za-z0-9_]*")
_NOT_PRINTABLE_ASCII = r"[^ -~]|\\"
_ESCAPED = re.compile(_NOT_PRINTABLE_ASCII)
_ESCAPED_IN_QUOTES = re.compile(_NOT_PRINTABLE_ASCII + '|"')


def _parse(format: str) -> tuple[list[str], list[str]]:
    """The names in the placeholders, and the texts around them, of which there is one more."""
    parts = _PLACEHOLDER.split(format)
    literals, names = parts[::2], parts[1::2]
    if any("%(" in literal for literal in literals):
        raise ConfigError("log-format", format, "a placeholder has no closing parenthesis")
    for name in names:
        if not (name in _PLACEHOLDERS or _VAR.fullmatch(name)):
            known = " ".join(sorted({*_PLACEHOLDERS, "var.NAME"}))
            raise ConfigError("log-format", format, f"unknown placeholder %({name}); there are {known}")
    return literals, names


def _computed(name: str) -> Callable[[AccessRecord], object] | None:
    """The value of a placeholder that no record has as it is. %(var.NAME) is a header field, or a variable of TLS."""
    if name.startswith("var."):
        name = name.removeprefix("var.")
        return _field(name) if name.startswith("HTTP_") else _variable(name)
    return _TEXTS.get(name) or _NUMBERS.get(name)


def _text_line(format: str) -> Callable[[AccessRecord], str]:
    literals, names = _parse(format or DEFAULT_FORMAT)
    first, *others = [literal.replace("%", "%%") for literal in literals]
    template = first + "".join(f"{_conversion(name)}{literal}" for name, literal in zip(names, others, strict=True))
    quotes = '"' in template
    unsafe = _ESCAPED_IN_QUOTES if quotes else _ESCAPED
    empty = "-" if format else ""  # uWSGI's own line has "()" for no user, its formats have "-"
    computed = [(name, value) for name in dict.fromkeys(names) if (value := _computed(name)) is not None]
    texts = [name for name in dict.fromkeys(names) if not (name in _NUMBERS_AS_THEY_ARE or name in _NUMBERS)]
    all_values, all_texts = _getter(names), _getter(texts)

    def line(record: AccessRecord) -> str:
        values: dict[str, Any] = {**record}
        for name, value in computed:
            values[name] = value(record)
        if empty:
            for name in texts:
                values[name] = values[name] or empty
        # Nearly all requests pass these four, which together cost less than a look at each value.
        said = "".join(all_texts(values))
        if not (said.isascii() and said.isprintable()) or "\\" in said or (quotes and '"' in said):
            for name in texts:
                values[name] = unsafe.sub(lambda match: f"\\x{ord(match[0]):02X}", values[name])
        return template % all_values(values)

    return line


def _conversion(name: str) -> str:
    """How % puts the value of a placeholder into the line; numbers are told apart, which is quicker."""
    return "%d" if name in _NUMBERS_AS_THEY_ARE else "%s"


def _getter(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """What gives the values of these names; `itemgetter` alone gives no tuple for one name, and nothing for none."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _json_line(format: str) -> Callable[[AccessRecord], str]:
    values = _values(_parse(format)[1] or _KEYS)
    return lambda record: encode({name: value(record) for name, value in values})


def _values(names: Iterable[str]) -> list[tuple[str, Callable[[AccessRecord], object]]]:
    """The values as they are, each name once."""
    # One form of time in all JSON lines, which can be sorted and has the milliseconds that the server's lines have.
    return [
        (name, _start_time if name == "time" else _computed(name) or itemgetter(name)) for name in dict.fromkeys(names)
    ]


def _start_time(record: AccessRecord) -> str:
    return iso_time(record["start"])
