"""Arguments in, exit status out: what is printed where, and which part of the program is called."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from uwsgi_tls import __version__, check, cli, help, master
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config

LISTENER = "--https=:8443,a,b"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in [name for name in os.environ if name.startswith("UWSGI_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--uid", "x", "-h"], ["--usage"]])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert capsys.readouterr() == (help.help_text(80), "")


def test_help_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for columns, width in (("60", 60), ("3", 40), ("200", 80)):
        monkeypatch.setenv("COLUMNS", columns)
        assert cli.main(["--help"]) == 0
        assert capsys.readouterr().out == help.help_text(width)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"uwsgi-tls {__version__} (pyOpenSSL ")
    assert ", OpenSSL " in out
    assert out.endswith(f", Python {'.'.join(map(str, sys.version_info[:3]))})\n")


def test_a_mistake_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--threads", "x"]) == 1
    assert capsys.readouterr() == ("", "uwsgi-tls: threads = x: not a whole number (command line)\n")


def test_a_mistake_that_shows_later_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: Config, words: Sequence[str]) -> int:
        raise ConfigError("https", config.https[0].text, "no such file: a", config.https[0].where)

    monkeypatch.setattr(master, "run", run)
    assert cli.main([LISTENER]) == 1
    assert capsys.readouterr().err == "uwsgi-tls: https = :8443,a,b: no such file: a (command line)\n"


@pytest.mark.parametrize(("argv", "called"), [([], "master"), (["--check"], "check"), (["-t"], "check")])
def test_the_right_part_runs(argv: list[str], called: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Config]] = []

    def run_as(name: str, status: int) -> None:
        def run(config: Config, words: Sequence[str] = ()) -> int:
            calls.append((name, config))
            return status

        monkeypatch.setattr({"master": master, "check": check}[name], "run", run)

    run_as("master", 22)
    run_as("check", 3)
    status = cli.main([LISTENER, *argv])
    assert [(name, len(config.https)) for name, config in calls] == [(called, 1)]
    assert status == (22 if called == "master" else 3)


def test_the_environment_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("UWSGI_THREADS", "x")
    assert cli.main([LISTENER]) == 1
    assert "environment UWSGI_THREADS" in capsys.readouterr().err


def test_it_runs_as_a_module() -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "uwsgi_tls", "--nosuch"], capture_output=True, text=True, env=environ, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "uwsgi-tls: --nosuch = : no such option (command line)\n",
    )


def test_arguments_that_are_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--uid", "\udcff", "--threads=\udcff"]) == 1
    assert capsys.readouterr().err == "uwsgi-tls: threads = \\udcff: not a whole number (command line)\n"
