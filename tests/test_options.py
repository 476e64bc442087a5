"""The option table itself: whole, without clashes, and every converter strict."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uwsgi_tls import converters, help, ignored
from uwsgi_tls.addresses import TcpAddress, UnixAddress
from uwsgi_tls.options import ACTIONS, BY_NAME, BY_SHORT, GROUPS, ROWS, Config

NOT_OPTIONS = {"origins", "ignored", "warnings", "files"}


def test_every_field_is_a_row_and_every_row_has_a_text() -> None:
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(Config)} - NOT_OPTIONS
    assert {row.name for row in ROWS} == fields
    for row in (*ROWS, *ACTIONS):
        assert row.help, row.name
        assert row.group in GROUPS, row.name
        assert row.metavar or row.argument == "none", row.name


def test_no_name_stands_for_two_options() -> None:
    rows = (*ROWS, *ACTIONS)
    assert len(BY_NAME) == sum(len(row.names) for row in rows)
    assert len(BY_SHORT) == sum(1 for row in rows if row.short)
    assert not BY_NAME.keys() & ignored.NAMES
    assert not BY_SHORT.keys() & ignored.SHORTS.keys()
    assert set(ignored.SHORTS.values()) <= ignored.NAMES


def test_each_ignored_name_has_one_argument_form_and_each_refusal_a_cause() -> None:
    forms = [{name for name in ignored.NAMES if ignored.argument(name) == form} for form in ("none", "optional")]
    assert "thunder-lock" in forms[0]
    assert "chmod-socket" in forms[1]
    assert ignored.argument("cheaper") == "required"
    assert set(ignored.REFUSED) <= ignored.NAMES
    assert all(ignored.REFUSED.values())


def test_the_log_line_about_ignored_options_gives_the_reasons() -> None:
    assert ignored.describe(["emperor", "cheaper", "cheaper"]) == (
        "options without effect: cheaper (not made yet); emperor (not part of uwsgi-tls)"
    )


def test_defaults() -> None:
    config = Config()
    assert (config.listen, config.processes, config.threads, config.reload_mercy) == (100, 1, 1, 60)
    assert (config.buffer_size, config.http_max_headers, config.limit_post) == (32768, 100, 2**30)
    assert (config.http_keepalive, config.http_gracetime, config.https_handshake_timeout) == (60, 30, 10)
    assert (config.master, config.need_app, config.strict, config.check) == (True, True, False, False)
    assert config.listeners == ()


def test_the_timeouts_follow_http_timeout() -> None:
    names = ("http_headers_timeout", "http_body_timeout", "http_write_timeout", "http_connect_timeout")
    assert [getattr(Config(http_timeout=7), name) for name in names] == [7, 7, 7, 7]
    assert [getattr(Config(http_timeout=7, http_body_timeout=3), name) for name in names] == [7, 3, 7, 7]


def test_the_spaced_prefix_becomes_the_prefix() -> None:
    assert Config(procname_prefix_spaced="web").procname_prefix == "web "
    assert Config(procname_prefix="a", procname_prefix_spaced="web").procname_prefix == "a"


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().threads = 2  # type: ignore[misc]  # that is the point


CONVERSIONS: list[tuple[Callable[[str], Any], str, Any]] = [
    *((converters.flag, word, True) for word in ("", "1", "true", "True", "ON", "yes")),
    *((converters.flag, word, False) for word in ("0", "false", "FALSE", "off", "no")),
    (converters.integer(0, 9), "7", 7),
    (converters.integer(0, 9), "07", 7),
    (converters.process_count, "3", 3),
    (converters.process_count, "auto", len(os.sched_getaffinity(0))),
    *((converters.keepalive_seconds, word, 60) for word in ("", "true", "1")),
    *((converters.keepalive_seconds, word, 0) for word in ("0", "off")),
    (converters.keepalive_seconds, "5", 5),
    (converters.backend_address, "/run/a.sock", UnixAddress("/run/a.sock")),
    (converters.backend_address, "127.0.0.1:3031", TcpAddress("127.0.0.1", 3031)),
    (converters.variable, "A=b=c", ("A", "b=c")),
    (converters.variable, "A=", ("A", "")),
    (converters.variable, "A=é", ("A", "Ã©")),
    (converters.variable, "A=\udcff", ("A", "ÿ")),
    (converters.wsgi_module, "pkg.mod", "pkg.mod"),
    (converters.wsgi_module, "pkg.mod:app", "pkg.mod:app"),
]

REFUSALS: list[tuple[Callable[[str], Any], str, str]] = [
    (converters.flag, "maybe", "true or false"),
    (converters.integer(0, 9), "10", "not between 0 and 9"),
    (converters.integer(0, 9), "-1", "not between 0 and 9"),
    *(
        (converters.integer(0, 9), text, "not a whole number")
        for text in ("", "x", "1.5", "1 ", "+1", "1_0", "\u0661", "2 ; x")
    ),
    (converters.process_count, "0", "not between 1 and 1024"),
    (converters.process_count, "Auto", "not a whole number"),
    (converters.keepalive_seconds, "-3", "not between"),
    (converters.backend_address, "fd://3", "not a descriptor"),
    (converters.backend_address, "127.0.0.1:0", "no port 0"),
    (converters.backend_address, "=0", "only an https option"),
    (converters.variable, "A", "NAME=VALUE"),
    (converters.variable, "=x", "NAME=VALUE"),
    (converters.variable, "A B=x", "NAME=VALUE"),
    (converters.wsgi_module, "app.py:", "PACKAGE.MODULE"),
    (converters.wsgi_module, "app/wsgi.py", "given as wsgi-file"),
    (converters.wsgi_module, "a..b", "PACKAGE.MODULE"),
    (converters.wsgi_module, "a:make()", "PACKAGE.MODULE"),
]


@pytest.mark.parametrize(("convert", "text", "value"), CONVERSIONS)
def test_a_value_is_converted(convert: Callable[[str], Any], text: str, value: Any) -> None:
    assert convert(text) == value


@pytest.mark.parametrize(("convert", "text", "cause"), REFUSALS)
def test_a_bad_value_is_refused(convert: Callable[[str], Any], text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        convert(text)


def test_help_names_every_option_within_80_columns() -> None:
    text = help.help_text(80)
    assert max(len(line) for line in text.splitlines()) <= 80
    for row in (*ROWS, *ACTIONS):
        for name in row.names:
            assert f"--{name}" in text
    for word in ("Exit status", "22", "TTIN", "HUP", "QUIT"):
        assert word in text


def test_the_page_of_options_is_the_generated_one() -> None:
    page = Path(__file__).parent.parent / "docs" / "options.md"
    assert page.read_text(encoding="utf-8") == help.options_markdown(), (
        "run: python -m uwsgi_tls.help --markdown > docs/options.md"
    )
