"""The manual pages and the completion of bash: every option stands in them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from uwsgi_tls import completion, man
from uwsgi_tls.options import ACTIONS, ROWS, Row

OPTIONS = (*ROWS, *ACTIONS)
TO_COMPLETE = (
    (["uwsgi-tls", "--che"], ["--check"]),
    (["uwsgi-tls", "--shared-so"], ["--shared-socket"]),
    (["uwsgi-tls", "rel"], ["reload"]),
    (["uwsgi-tls", "reo"], ["reopen-logs"]),
    (["uwsgi-tls", "reopen-logs", "--p"], ["--pidfile"]),
    (["uwsgi-tls", "--threads", "2", "--procname-prefix-"], ["--procname-prefix-spaced"]),
    (["uwsgi-tls", "--uid", "roo"], ["root"]),
    (["uwsgi-tls", "--uid", "=", "roo"], ["root"]),
    (["uwsgi-tls", "--chdir", "di"], ["directory"]),
    (["uwsgi-tls", "--logto", ""], ["a.crt", "b.ini", "directory"]),
    (["uwsgi-tls", "-d", "="], ["a.crt", "b.ini", "directory"]),
    (["uwsgi-tls", ""], ["b.ini", "directory"]),
    (["uwsgi-tls", "pki", "rev"], ["revoke"]),
    (["uwsgi-tls", "stop", "--p"], ["--pidfile"]),
    (["uwsgi-tls", "sta"], ["status"]),
    (["uwsgi-tls", "status", "--p"], ["--pidfile"]),
    (["uwsgi-tls", "--touch-reload", ""], ["a.crt", "b.ini", "directory"]),
)


def plain(page: str) -> str:
    """The page without its marks."""
    for mark, text in (("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-"), ("\\&", ""), ("\\e", "\\")):
        page = page.replace(mark, text)
    return page


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row.name)
def test_every_option_is_on_both_pages(row: Row) -> None:
    command, ini = plain(man.command_page()), plain(man.ini_page())
    assert f"\n.TP\n{f'-{row.short}, ' if row.short else ''}--{row.name}" in command
    assert f"\n.TP\n{row.name} = " in ini
    for alias in row.aliases:
        assert f"--{alias}" in command
        assert alias in ini


@pytest.mark.parametrize("name", man.PAGES)
def test_no_line_of_a_page_is_a_request_by_chance(name: str) -> None:
    known = {".TH", ".nh", ".SH", ".SS", ".PP", ".TP", ".B", ".br", ".in", ".EX", ".EE"}
    lines = man.PAGES[name]().splitlines()
    assert {line.split()[0] for line in lines if line.startswith((".", "'"))} <= known


@pytest.mark.parametrize(("words", "expected"), TO_COMPLETE, ids=lambda value: " ".join(value))
def test_bash_completes(words: list[str], expected: list[str], tmp_path: Path) -> None:
    for name in ("a.crt", "b.ini"):
        (tmp_path / name).touch()
    (tmp_path / "directory").mkdir()
    bash = shutil.which("bash")
    assert bash is not None
    lines = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _uwsgi_tls; printf "%s\\n" "${COMPREPLY[@]}"'
    finished = subprocess.run(
        [bash, "-c", f"{completion.script()}\n{lines}", "bash", *words],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert sorted(finished.stdout.split()) == expected
    assert finished.stderr == ""


def test_completion_has_every_option() -> None:
    words = set(completion.script().replace('"', " ").split())
    assert {f"--{name}" for row in OPTIONS for name in row.names} <= words
