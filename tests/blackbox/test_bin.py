"""The commands in bin/ as a person runs them from a checkout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from .server import ROOT, Daemon, is_root, loopback

BIN = ROOT / "bin"


def run(*command: str | Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
        env=environment,
    )


def test_launcher_through_a_symbolic_link(tmp_path: Path) -> None:
    link = tmp_path / "uwsgi-tls"
    link.symlink_to(BIN / "uwsgi-tls")
    answer = run(link, "--version")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("uwsgi-tls ")


def test_launcher_ignores_modules_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo uwsgi-tls` in a directory of somebody else's must not run that person's ssl.py as root."""
    for name in ("socket", "OpenSSL", "uwsgi_tls"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the working directory')\n")
    monkeypatch.chdir(tmp_path)
    answer = run(BIN / "uwsgi-tls", "--version")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_launcher_before_setup(tmp_path: Path) -> None:
    shutil.copytree(BIN, tmp_path / "bin")
    answer = run(tmp_path / "bin" / "uwsgi-tls", "--version")
    assert answer.returncode == 69
    assert answer.stderr == f"uwsgi-tls: there is no {tmp_path}/.venv yet: run bin/setup first\n"


def test_setup_has_nothing_to_do() -> None:
    """bin/test has run it; once more must change nothing, and say nothing."""
    before = {path.name: path.stat().st_mtime_ns for path in (ROOT / ".venv").iterdir()}
    answer = run(BIN / "setup", "--test")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert {path.name: path.stat().st_mtime_ns for path in (ROOT / ".venv").iterdir()} == before


def test_setup_names_what_is_missing(tmp_path: Path) -> None:
    """Where it may not install, it prints the one line that does and touches nothing."""
    checkout = tmp_path / "checkout"
    shutil.copytree(BIN, checkout / "bin")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "dirname", "flock", "id", "readlink", "sed", "sha256sum"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    answer = run(checkout / "bin" / "setup", "--no-apt", path=str(tools))
    assert answer.returncode == 69
    assert answer.stdout == ""
    assert re.fullmatch(
        r"bin/setup: Debian packages are missing\. As root:\n"
        r"  apt-get update && apt-get install -y --no-install-recommends .*"
        r"\bcurl gcc libc6-dev libcap-dev python3-dev\n",
        answer.stderr,
    ), answer.stderr
    assert sorted(path.name for path in checkout.iterdir()) == ["bin", "pyproject.toml"]


def test_setup_unknown_option() -> None:
    answer = run(BIN / "setup", "--tests")
    assert (answer.returncode, answer.stderr) == (64, "bin/setup: unknown option --tests (bin/setup --help)\n")


def test_demo(tmp_path: Path) -> None:
    with Daemon([str(BIN / "demo"), loopback()], env={"TMPDIR": str(tmp_path)}) as demo:
        demo.wait_for_line("Ctrl-C ends it")
        lines = [line.strip() for line in demo.lines if line.startswith("  curl ")]
        assert len(lines) == (3 if is_root else 2), demo.log
        for line in lines:
            answer = run("sh", "-c", line)
            assert answer.returncode == 0, f"{line}\n{answer.stderr}\n{demo.log}"
            assert "TLSv1.3" in answer.stdout
            assert ("Client 01" in answer.stdout) == ("--cert " in line), answer.stdout
        if is_root:
            (master,) = demo.wait_for_titles("uwsgi-tls master", 1)
            assert master.status()["Uid"].split() == ["33"] * 4
        assert list(tmp_path.iterdir()) != []
        # Ctrl-C: the terminal sends the signal to all of them.
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait() == 0
        assert demo.tree() == []
        assert list(tmp_path.iterdir()) == []
        assert "stopping now" not in demo.log  # nobody was hurried


def test_demo_is_terminated(tmp_path: Path) -> None:
    """A `kill` of the command itself ends the server too."""
    with Daemon([str(BIN / "demo"), loopback()], env={"TMPDIR": str(tmp_path)}) as demo:
        demo.wait_for_line("Ctrl-C ends it")
        assert demo.stop(signal.SIGTERM) == 0
        assert list(tmp_path.iterdir()) == []


def test_demo_that_cannot_start(tmp_path: Path) -> None:
    host = loopback()
    with socket.create_server((host, 8443)), Daemon([str(BIN / "demo"), host], env={"TMPDIR": str(tmp_path)}) as demo:
        assert demo.wait() == 1
    assert f"https = {host}:8443," in demo.log
    assert "in use" in demo.log
    assert list(tmp_path.iterdir()) == []
