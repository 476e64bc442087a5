"""HTTP/1.1 response heads: made from what an application says (`frame`), read from what a backend sends.

`frame` decides how the body ends (RFC 9112 6): by a length, by chunks, by closing, or there is none; never in two ways.
What would let an application's data become another header, or another response, is a `BadResponse`. No I/O, no clock:
the date comes in as text.
"""

import re
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from uwsgi_tls.http import FIELD_LINE, STRAY_CONTROL, TOKEN, VALUE

# Framed.body: how the client learns where the body ends.
NONE = 0  # no body may be sent, whatever the application produces
LENGTH = 1  # exactly Framed.length bytes
CHUNKED = 2
CLOSE = 3  # with the connection: HTTP/1.0 and no length


class BadResponse(Exception):
    """A response that must not go out; `cause` says why, with no bytes of the application in it."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Framed(NamedTuple):
    """A response head and how its body is to be sent."""

    head: bytes  # up to and with the empty line
    body: int  # NONE, LENGTH, CHUNKED or CLOSE
    length: int  # bytes of the body: 0 for NONE, -1 if only its end will tell
    keep_alive: bool


# PEP 3333: "999 Message here". RFC 9112 4: reason-phrase, which may be empty. 1xx is the server's to send.
_STATUS = re.compile(rf"[2-5][0-9][0-9] {VALUE}*")
_STATUS_LINE = re.compile(rf"HTTP/1\.[0-9] ([1-5][0-9][0-9])(?: ({VALUE}*))?\r\n")
_NAME = re.compile(f"{TOKEN}+")
_VALUE = re.compile(f"{VALUE}*")
_LENGTH = re.compile("[0-9]{1,18}")

# Names that `frame` acts on; "hop": RFC 9110 7.6.1 fields, which are the server's and not an application's (PEP 3333).
_ACTIONS = {
    "connection": "connection",
    "content-length": "length",
    "date": "date",
    "keep-alive": "hop",
    "proxy-authenticate": "hop",
    "proxy-connection": "hop",
    "server": "server",
    "strict-transport-security": "hsts",
    "te": "hop",
    "trailer": "hop",
    "transfer-encoding": "hop",
    "upgrade": "hop",
}
_USUAL = """
    Accept-Ranges Access-Control-Allow-Credentials Access-Control-Allow-Headers Access-Control-Allow-Methods
    Access-Control-Allow-Origin Age Allow Cache-Control Connection Content-Disposition Content-Encoding Content-Language
    Content-Length Content-Location Content-Range Content-Security-Policy Content-Type Cross-Origin-Opener-Policy Date
    ETag Expires Last-Modified Link Location Pragma Referrer-Policy Retry-After Server Set-Cookie
    Strict-Transport-Security Transfer-Encoding Vary Via WWW-Authenticate X-Accel-Buffering X-Content-Type-Options
    X-Frame-Options X-Powered-By X-Request-ID
"""
# Usual spelling -> action, "" for none. A constant table: names that it does not know are checked each time.
_USUAL_ACTIONS = {
    spelling: _ACTIONS.get(name.lower(), "") for name in _USUAL.split() for spelling in (name, name.lower())
}

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(now: float) -> str:
    """Return seconds since the epoch as an IMF-fixdate (RFC 9110 5.6.7), in no locale's language."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(now)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"


def frame(
    status: str,
    headers: Sequence[tuple[str, str]],
    *,
    method: str,
    minor: int,
    keep_alive: bool,
    date: str,
    server: str = "",
    hsts: str = "",
) -> Framed:
    """Return the head for a response ("200 OK" and its headers) to a `method` request of HTTP/1.`minor`.

    `keep_alive` says whether client and server would keep the connection, `date`, `server` and `hsts`
    (Strict-Transport-Security, RFC 6797) are the fields to add where the application has none ("": do not).
    Raises BadResponse.
    """
    try:
        if not _STATUS.fullmatch(status):
            raise BadResponse("status is not a code from 200 to 599, a blank and a reason")
        lines, length, closes, date, server, hsts = _header_lines(headers, date, server, hsts)
    except (TypeError, ValueError, AttributeError):
        raise BadResponse("status and headers are not str and pairs of str") from None
    code = status[:3]
    if code == "204":
        length = -1  # RFC 9110 8.6: no Content-Length in 204
    elif code == "205":
        length = 0  # RFC 9110 15.3.6: no content in 205, and framed so
    if code in ("204", "205", "304") or method == "HEAD":
        body = NONE
    elif length >= 0:
        body = LENGTH
    else:
        body = CHUNKED if minor else CLOSE
    keep_alive = keep_alive and not closes and body != CLOSE
    head = [f"HTTP/1.1 {status}\r\n", f"Date: {date}\r\n" if date else "", f"Server: {server}\r\n" if server else ""]
    if hsts:
        head.append(f"Strict-Transport-Security: {hsts}\r\n")
    head += lines
    if length >= 0:
        head.append(f"Content-Length: {length}\r\n")
    elif body == CHUNKED:
        head.append("Transfer-Encoding: chunked\r\n")
    if keep_alive != (minor > 0):
        head.append("Connection: keep-alive\r\n" if keep_alive else "Connection: close\r\n")
    head.append("\r\n")
    try:
        encoded = "".join(head).encode("latin-1")
    except UnicodeEncodeError:
        raise BadResponse("status or header is not latin-1") from None
    return Framed(encoded, body, length if body == LENGTH else 0 if body == NONE else -1, keep_alive)


def _header_lines(
    headers: Iterable[tuple[str, str]], date: str, server: str, hsts: str
) -> tuple[list[str], int, bool, str, str, str]:
    """Return the lines that go out as they are, the Content-Length or -1, whether the application wants to close, and
    what of `date`, `server` and `hsts` it has not said itself.
    """
    lines = []
    length = -1
    closes = False
    for name, value in headers:
        action = _USUAL_ACTIONS.get(name)
        if action is None:
            if not _NAME.fullmatch(name):
                raise BadResponse("invalid header name")
            action = _ACTIONS.get(name.lower(), "")
        if not value.isprintable() and not _VALUE.fullmatch(value):
            raise BadResponse("control character in a header")
        if action:
            if action == "length":
                length = _one_length(length, value)
                continue
            if action == "connection":
                closes = closes or "close" in [option.strip() for option in value.lower().split(",")]
                continue
            if action == "hop":
                continue
            if action == "date":
                date = ""
            elif action == "hsts":
                hsts = ""
            else:
                server = ""
        lines.append(f"{name}: {value}\r\n")
    return lines, length, closes, date, server, hsts


def _one_length(length: int, value: str) -> int:
    if not _LENGTH.fullmatch(value):
        raise BadResponse("invalid Content-Length")
    if length not in (-1, int(value)):
        raise BadResponse("two different Content-Length")
    return int(value)


def response_head_end(buffer: bytes | bytearray, limit: int) -> int:
    """Return the index just past a backend's response head, or -1 if more bytes are needed.

    Raises BadResponse as soon as it cannot become one of at most `limit` bytes.
    """
    end = buffer.find(b"\r\n\r\n") + 4
    if 3 < end <= limit:
        return end
    if not b"HTTP/1.".startswith(buffer[:7]) or STRAY_CONTROL.search(buffer, 0, limit):
        raise BadResponse("not an HTTP/1.1 response")
    if len(buffer) >= limit:
        raise BadResponse(f"response head over {limit} bytes")
    return -1


def parse_response_head(raw: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Read a backend's whole response head, up to the index of `response_head_end`: ("200 OK", its headers in order).

    As strict as a request's; an interim (1xx) status is returned like any other. Raises BadResponse.
    """
    text = str(raw, "latin-1")
    line = _STATUS_LINE.match(text)
    if line is None:
        raise BadResponse("malformed status line")
    headers: list[tuple[str, str]] = FIELD_LINE.findall(text, line.end())
    if len(headers) != text.count("\n", line.end()) - 1:
        raise BadResponse("malformed header")
    if " \r\n" in text or "\t\r\n" in text:
        headers = [(name, value.rstrip(" \t")) for name, value in headers]
    return f"{line[1]} {line[2] or ''}", headers
