"""What lines of the logs are made of: times, escapes, JSON.

What clients sent is escaped: no byte of theirs can begin a line, end a quoted string or reach a terminal.
"""

import os
import time
from collections.abc import Callable, Mapping
from json import JSONEncoder, loads

Fields = Mapping[str, object]

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
    """`text` in no more than `limit` bytes. A JSON object stays one: its longest text is cut in the middle."""
    data = text.encode(errors="backslashreplace")  # a format from the command line may be no proper UTF-8
    if len(data) <= limit:
        return data
    if not is_json:
        return data[: limit - len("…".encode())].decode(errors="ignore").encode() + "…".encode()  # no half character
    values = loads(text)
    while len(text) > limit:
        name = max(values, key=lambda name: len(str(values[name])))
        whole = str(values[name])
        values[name] = whole[: len(whole) // 4] + "…" + whole[-(len(whole) // 4) :]
        text = encode(values)
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


ctime = _PerSecond(time.ctime)
ltime = _PerSecond(_apache_time)
_iso_second = _PerSecond(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))


def iso_time(moment: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return f"{_iso_second(moment)}.{int(moment * 1000) % 1000:03d}Z"
