"""Encrypted keys: passphrases from a file, a command or a person, at the start and at each reload, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from pki import Issued, key_pem, write_secret

from .server import Daemon, command, is_root, loopback, uwsgi_tls, wait_for_end, wait_until
from .terminal import Terminal
from .test_http_to import PORT, SECONDS
from .test_life import hang_up
from .test_reload_certificates import certify, fail_to_reload, own, served, serving, wait_until_served

__all__ = ["own"]  # the fixture

pytestmark = pytest.mark.skipif(not is_root, reason="without root there is nothing to drop and no monitor")

SECRET = "swordfish 1"
OTHER = "rosebud 2"


def certify_encrypted(directory: Path, passphrase: str = SECRET) -> Issued:
    """A new certificate with its key encrypted."""
    issued = certify(directory)
    write_secret(directory / "s.key", key_pem(issued.key, passphrase.encode()))
    return issued


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)


def assert_kept_secret(daemon: Daemon) -> None:
    """Neither ps, nor what a program that we start inherits, nor the log has a passphrase; nor would a core dump."""
    for process in daemon.tree():
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert not any(secret.encode() in shown for secret in (SECRET, OTHER))
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    for secret in (SECRET, OTHER, "PRIVATE KEY"):
        assert secret not in daemon.log


# --- from a file, from a command ----------------------------------------------------------------


def test_from_a_file_that_only_root_may_read(own: Path) -> None:
    """It is read again at a reload, through the monitor."""
    first = certify_encrypted(own)
    write_secret(own / "passwords", f"{SECRET}\n".encode())
    with serving(own, "--ssl-key-password-file", "passwords") as (daemon, host):
        assert served(host) == first.pem
        second = certify_encrypted(own, OTHER)
        assert "key s.key: no passphrase opens it" in fail_to_reload(daemon)
        assert served(host) == first.pem
        write_secret(own / "passwords", f"{SECRET}\n{OTHER}\n".encode())
        hang_up(daemon, 2)
        assert served(host) == second.pem
        assert_kept_secret(daemon)


def test_from_a_command(own: Path) -> None:
    """It runs once, as root; what it said is good for the next key as well."""
    first = certify_encrypted(own)
    write_script(own / "ask", f'echo "$UWSGI_TLS_KEY" >> {own}/asked; echo "{SECRET}"')
    with serving(own, "--ssl-key-password-command", f"{own}/ask") as (daemon, host):
        assert served(host) == first.pem
        second = certify_encrypted(own)
        hang_up(daemon, 2)
        assert served(host) == second.pem
        certify_encrypted(own, OTHER)
        assert "key s.key: no passphrase opens it" in fail_to_reload(daemon)
        assert served(host) == second.pem
        assert (own / "asked").read_text() == "s.key\n"
        assert_kept_secret(daemon)


def test_a_pkcs12_file(own: Path) -> None:
    def pack(passphrase: str) -> Issued:
        issued = certify(own)
        locked = serialization.BestAvailableEncryption(passphrase.encode())
        data = pkcs12.serialize_key_and_certificates(b"site", issued.key, issued.certificate, None, locked)
        write_secret(own / "s.p12", data)
        return issued

    first = pack(SECRET)
    write_secret(own / "passwords", f"{OTHER}\n{SECRET}\n".encode())
    with serving(own, "--ssl-key-password-file", "passwords", files="s.p12,") as (daemon, host):
        assert served(host) == first.pem
        second = pack(OTHER)
        hang_up(daemon, 2)
        assert served(host) == second.pem
        write_secret(own / "s.p12", b"\x30garbage garbage garbage")
        assert "certificate s.p12: is no PKCS#12 file" in fail_to_reload(daemon)
        assert served(host) == second.pem
        assert_kept_secret(daemon)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        pytest.param((), "the key is encrypted; its passphrase is given by ssl-key-password-file", id="no source"),
        pytest.param(("--ssl-key-password-file", "passwords"), "no passphrase opens it", id="wrong in the file"),
        pytest.param(("--ssl-key-password-file", "none"), "ssl-key-password-file none: no such file", id="no file"),
        pytest.param(("--ssl-key-password-command", "echo no"), "no passphrase opens it", id="wrong by the command"),
        pytest.param(("--ssl-key-password-command", "false"), "ended with status 1", id="a command that fails"),
    ],
)
@pytest.mark.parametrize("check", [False, True], ids=["serving", "checking"])
def test_what_opens_no_key_is_one_line(own: Path, options: tuple[str, ...], cause: str, check: bool) -> None:
    certify_encrypted(own)
    write_secret(own / "passwords", f"{OTHER}\n".encode())
    words = [*options, *(["--check"] if check else [])]
    with uwsgi_tls("--https", f"{loopback()}:{PORT},s.crt,s.key", "--uid", "www-data", *words, cwd=own) as daemon:
        assert daemon.wait(10) == 1
    (line,) = daemon.lines
    assert line.startswith("uwsgi-tls: https = ")
    assert cause in line


def test_a_check_opens_the_key_as_a_start_does(own: Path) -> None:
    certify_encrypted(own)
    write_secret(own / "passwords", f"{SECRET}\n".encode())
    words = ("--check", "--ssl-key-password-file", "passwords")
    with uwsgi_tls("--https", f"{loopback()}:{PORT},s.crt,s.key", "--uid", "www-data", *words, cwd=own) as daemon:
        assert daemon.wait(10) == 0, daemon.log
    assert daemon.lines[-1] == "configuration ok"


# --- from whoever sits at the terminal -----------------------------------------------------------


@pytest.fixture
def at_terminal(own: Path) -> Iterator[Callable[..., tuple[Terminal, str]]]:
    """Starts the server at a terminal, which is closed at the end."""
    with contextlib.ExitStack() as stack:

        def start(*options: str | Path) -> tuple[Terminal, str]:
            host = loopback()
            words = command("--https", f"{host}:{PORT},s.crt,s.key", "--uid", "www-data", *options)
            return stack.enter_context(Terminal(words, own)), host

        yield start


Start = Callable[..., tuple[Terminal, str]]
PROMPT = "Passphrase of s.key: "


def test_a_person_is_asked(own: Path, at_terminal: Start) -> None:
    """A slip of the finger is no end; nothing is echoed; the next key of that passphrase needs nobody."""
    first = certify_encrypted(own)
    terminal, host = at_terminal()
    terminal.read_until(PROMPT)
    terminal.type("sowrdfihs\n")
    terminal.read_until(PROMPT)
    terminal.type(SECRET + "\n")
    terminal.read_until("generation 1 is serving")
    assert served(host) == first.pem
    second = certify_encrypted(own)
    terminal.process.send_signal(signal.SIGHUP)
    terminal.read_until("generation 2 is serving")
    wait_until_served(host, second)
    certify_encrypted(own, OTHER)
    terminal.process.send_signal(signal.SIGHUP)
    terminal.read_until("key s.key: no passphrase opens it")
    terminal.process.terminate()
    assert terminal.end() == 0
    assert SECRET not in terminal.said
    assert terminal.said.count(PROMPT) == 2


def test_a_person_is_asked_before_the_terminal_is_left(own: Path, at_terminal: Start) -> None:
    first = certify_encrypted(own)
    terminal, host = at_terminal("--daemonize", own / "log", "--pidfile", own / "pid")
    terminal.read_until(PROMPT)
    terminal.type(SECRET + "\n")
    assert terminal.end() == 0, terminal.said
    master = int((own / "pid").read_text())
    try:
        assert served(host) == first.pem
        second = certify_encrypted(own)
        os.kill(master, signal.SIGHUP)
        log = own / "log"
        wait_until(lambda: "generation 2 is serving" in log.read_text(), SECONDS, log.read_text)
        wait_until_served(host, second)
    finally:
        os.kill(master, signal.SIGTERM)
        assert wait_for_end(master)
    assert SECRET not in (own / "log").read_text()


@pytest.mark.parametrize(
    ("typed", "status", "cause"),
    [
        pytest.param(["no\n"] * 3, 1, "key s.key: no passphrase opens it", id="wrong"),
        pytest.param(["\x04"], 1, "key s.key: the key is encrypted; its passphrase is given by", id="Ctrl-D"),
        pytest.param(["\x03"], 130, "", id="Ctrl-C"),
    ],
)
def test_a_person_who_does_not_know(own: Path, at_terminal: Start, typed: list[str], status: int, cause: str) -> None:
    certify_encrypted(own)
    terminal, _ = at_terminal()
    for text in typed:
        terminal.read_until(PROMPT)
        terminal.type(text)
    assert terminal.end() == status, terminal.said
    said = [line for line in terminal.said.replace(PROMPT, "").splitlines() if line.strip()]
    assert len(said) == bool(cause), said
    assert not cause or cause in said[0]


def test_nobody_is_asked_where_a_file_is_named(own: Path, at_terminal: Start) -> None:
    certify_encrypted(own)
    write_secret(own / "passwords", f"{OTHER}\n".encode())
    terminal, _ = at_terminal("--ssl-key-password-file", "passwords")
    assert terminal.end() == 1
    assert "no passphrase opens it" in terminal.said
    assert "Passphrase of" not in terminal.said
