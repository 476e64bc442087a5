"""docs/http.md says what the code does: its options, their defaults, the statuses, and the names in its lists."""

import re
from pathlib import Path

from request_table import ATTACKS, REFUSED

from uwsgi_tls import chunked, hello, http, proxy_protocol
from uwsgi_tls.backends import answer, idle
from uwsgi_tls.exchange import HIGH_WATER_BYTES
from uwsgi_tls.farewell import LINGER_SECONDS
from uwsgi_tls.options import BY_NAME, Config
from uwsgi_tls.tunnel import HALF_CLOSED_SECONDS

PAGE = (Path(__file__).parent.parent / "docs/http.md").read_text()
OPTION = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")
UNITS = {"bytes": 1, "MiB": 1 << 20, "GiB": 1 << 30}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def default(option: str) -> int:
    value = getattr(Config(), option.replace("-", "_"))
    assert isinstance(value, int)
    return value


def test_its_options_exist() -> None:
    named = set(OPTION.findall(PAGE)) - {"close-notify"}
    assert len(named) > 25
    assert named <= BY_NAME.keys()


def test_its_limits_are_the_defaults() -> None:
    checked = 0
    for _, limit, options in rows("Limits"):
        number = re.match(r"(\d+) ?(bytes|MiB|GiB)?", limit)
        named = OPTION.findall(options) or re.findall("`(threads)`", options)
        if number is not None and named:
            assert int(number[1]) * UNITS.get(number[2], 1) == default(named[0]), named
            checked += 1
    assert checked > 8


def test_its_times_are_the_defaults() -> None:
    checked = 0
    for _, seconds, _, options in rows("Time"):
        for option in OPTION.findall(options) if seconds else ():
            assert int(seconds) == default(option), option
            checked += 1
    assert checked > 12


def test_what_is_fixed() -> None:
    fixed = {what: limit for what, limit, option in rows("Limits") if option == "fixed"}
    assert fixed["chunk-size line; all extensions of a body; trailers of a body"] == (
        f"{chunked.CHUNK_LINE_BYTES}; {chunked.CHUNK_EXTENSIONS_BYTES}; {chunked.TRAILER_BYTES} bytes"
    )
    assert fixed["ClientHello; PROXY header"] == (
        f"{hello.HELLO_BYTES >> 10} KiB in {hello.HELLO_RECORDS} records; {proxy_protocol.V1_BYTES} bytes (version 1),"
        f" {proxy_protocol.V2_BYTES} bytes (version 2)"
    )
    assert fixed["head of a backend's answer"] == f"{answer.HEAD_BYTES >> 10} KiB"
    waits = fixed["a response that its client has not taken"]
    assert waits.startswith(f"{HIGH_WATER_BYTES >> 20} MiB;")
    times = [int(seconds) for _, seconds, _, option in rows("Time") if option == "fixed"]
    assert times == [HALF_CLOSED_SECONDS, LINGER_SECONDS, LINGER_SECONDS]
    assert f"{idle.IDLE_PER_NODE} a node" in PAGE
    assert f"more than {answer.INTERIM_HEADS} at" in PAGE


def test_every_status_of_the_tables_is_explained() -> None:
    explained = {int(row[0]) for row in rows("Refusals")}
    assert {status for status, _ in REFUSED} | {attack.status for attack in ATTACKS} - {200} <= explained


def test_its_lists_of_fields_are_those_of_the_parser() -> None:
    text = " ".join(PAGE.split())
    repeated = text.partition("refused when repeated: ")[2].partition(". ")[0]
    assert re.findall("`([^`]+)`", repeated) == sorted(http._SINGLE.split())
    assert {name for name in http._DROPPED if f"`{name}`" not in PAGE.lower()} == set()
