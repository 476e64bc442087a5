"""What lines of the logs are made of: times, escapes, JSON.

What clients sent is escaped: no byte of theirs can begin a line, end a quoted string or reach a terminal.
"""

import os
import time
from collections.abc import Callable, Mapping
from json import JSONEncoder, loads

Fields = Mapping[str, object]

TEXT_CHARACTERS_LEAST = 16  # shorter ones are not cut: what stands for the middle is as long as that in JSON

encode = JSONEncoder(separators=(",", ":")).encode

# Whether the server's own lines are JSON objects (log-json); set once, before the first of them.
is_json = False


def printable(text: str) -> str:
    """`text` as one line: line ends, control characters and what else no terminal shows are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def stamped(text: str, fields: Fields) -> str:
    """A line of the server's own, with the time and the process; in JSON also with `fields`."""
    now = time.time()
    if is_json:
        return encode({"time": iso_time(now), "pid": os.getpid(), "message": text, **fields})
    return f"{ctime(now)} - [{os.getpid()}] {printable(text)}"


def unstamped(text: str, fields: Fields) -> str:
    """The same for a log that notes time and process itself."""
    return encode({"message": text, **fields}) if is_json else printable(text)


def cut(text: str, limit: int) -> bytes:
    """`text` in no more than `limit` bytes. A JSON object stays one: its longest texts are cut in the middle, and where
    that is not enough, members that find no room are left out.
    """
    data = text.encode(errors="backslashreplace")  # a format from the command line may be no proper UTF-8
    if len(data) <= limit:
        return data
    if not is_json:
        return data[: limit - len("…".encode())].decode(errors="ignore").encode() + "…".encode()  # no half character
    values = whole = loads(text)
    size = limit
    while len(text) > limit and size > TEXT_CHARACTERS_LEAST:
        size //= 2
        values = {name: _shortened(value, size) for name, value in whole.items()}
        text = encode(values)
    return (text if len(text) <= limit else encode(_those_with_room(values, limit))).encode()


def _shortened(value: object, size: int) -> object:
    """`value`, or its text without the middle, where that is longer than `size` characters."""
    text = str(value)
    return value if len(text) <= size else f"{text[: size // 2]}…{text[len(text) - size // 2 :]}"


def _those_with_room(values: Fields, limit: int) -> Fields:
    """Members of an object of no more than `limit` bytes, the first ones first."""
    kept, size = {}, len("{}") - len(",")
    for name, value in values.items():
        more = len(encode({name: value})) - len("{}") + len(",")
        if size + more <= limit:
            kept[name] = value
            size += more
    return kept


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


ctime = _PerSecond(time.ctime)
ltime = _PerSecond(_apache_time)
_iso_second = _PerSecond(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))


def iso_time(moment: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return f"{_iso_second(moment)}.{int(moment * 1000) % 1000:03d}Z"
