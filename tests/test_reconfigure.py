"""reconfigure.py: what a reload cannot change. Real reloads: blackbox/test_reload_configuration.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from uwsgi_tls import config
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import ROWS, Config
from uwsgi_tls.reconfigure import fixed, refuse_changes

PAGE = Path(__file__).parent.parent / "docs/operations.md"
WORDS = ("--https", "=0,a,b", "--shared-socket", ":443", "--uid", "www-data", "--add-gid", "adm")


def load(*words: str) -> Config:
    return config.load([*WORDS, *words], {})


def test_what_may_change() -> None:
    refuse_changes(fixed(load()), load("--processes", "3", "--hsts", "1", "--https", ":8443,a,b", "--stats", "/x"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--uid", "nobody"),
            "uid = nobody: was www-data at the start, and only a restart changes that (command line)",
        ),
        (
            ("--stats-chmod", "660"),
            "stats-chmod = 660: was 600 at the start, and only a restart changes that (command line)",
        ),
        (("--gid", "5"), "gid = 5: was not given at the start, and only a restart changes that (command line)"),
        (("--add-gid", "x"), "add-gid = adm x: was adm at the start, and only a restart changes that (command line)"),
        (
            ("--shared-socket", "web=:80"),
            "shared-socket = :443 web=:80: was :443 at the start, and only a restart changes that (command line)",
        ),
        (("--chroot", "/x"), "chroot = /x: was not given at the start, and only a restart changes that (command line)"),
    ],
)
def test_what_may_not(words: tuple[str, ...], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_changes(fixed(load()), load(*words))
    assert str(caught.value) == line


def test_what_is_no_more() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_changes(fixed(load("--pidfile", "/run/x")), load())
    assert str(caught.value) == ("pidfile = (not given): was /run/x at the start, and only a restart changes that")


def test_an_option_that_the_program_before_did_not_have() -> None:
    before = fixed(load())
    del before["umask"]
    refuse_changes(before, load("--umask", "022"))


def test_the_page_names_each_of_them() -> None:
    (row,) = (line for line in PAGE.read_text().splitlines() if "only a restart changes them" in line)
    assert set(re.findall("`([a-z-]+)`", row)) == {each.name for each in ROWS if each.only_at_start}
