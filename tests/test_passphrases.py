"""passphrases.py: where passphrases come from, in which order, and that nothing waits where there is none."""

import getpass
import os
import pty
import sys
from pathlib import Path

import pytest

from uwsgi_tls import passphrases
from uwsgi_tls.certificates import BadFile, read_file
from uwsgi_tls.passphrases import Passphrases


def found(source: Passphrases, key: str = "a.key") -> list[bytes]:
    return list(source.for_key(key, read_file))


def test_every_line_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_bytes(b"first\n\nsec ond \nlast")
    assert found(Passphrases(str(file))) == [b"first", b"sec ond ", b"last"]


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(BadFile, match="ssl-key-password-file /none: no such file"):
        found(Passphrases("/none"))


def test_the_first_line_of_the_command(tmp_path: Path) -> None:
    script = tmp_path / "ask"
    script.write_text('#!/bin/sh\nprintf "%s of %s\\r\\nmore" "$1" "$UWSGI_TLS_KEY"\n')
    script.chmod(0o755)
    assert found(Passphrases(command=f"{script} 'two words'")) == [b"two words of a.key"]


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        ("/bin/false", "ended with status 1"),
        ("/none", "No such file"),
        ("'unbalanced", "No closing quotation"),
    ],
)
def test_a_command_that_fails_is_named(command: str, cause: str) -> None:
    with pytest.raises(BadFile, match=f"key a.key: ssl-key-password-command.*{cause}"):
        found(Passphrases(command=command))


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrases, "COMMAND_SECONDS", 0.1)
    with pytest.raises(BadFile, match=r"took more than 0\.1 seconds"):
        found(Passphrases(command="sleep 60"))


def test_the_command_reads_nothing() -> None:
    assert found(Passphrases(command="head -n 1")) == [b""]


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert found(Passphrases()) == []


def test_a_person_is_asked_and_the_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    answers = iter(["wrong", "right"])
    with open(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(getpass, "getpass", lambda prompt: next(answers))
        source = Passphrases()
        asked = source.for_key("a.key", read_file)
        assert [next(asked), next(asked)] == [b"wrong", b"right"]
        source.may_ask = False
        assert found(source) == [b"wrong", b"right"]
        assert found(source, "other.key") == []
    os.close(master)


def test_a_person_who_leaves_ends_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(prompt: str) -> str:
        raise EOFError

    master, slave = pty.openpty()
    with open(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(getpass, "getpass", leave)
        assert found(Passphrases()) == []
    os.close(master)


def test_the_command_is_not_run_again_at_a_reload(tmp_path: Path) -> None:
    """It was run as root; by then we are not root."""
    counter = tmp_path / "count"
    source = Passphrases(command=f"sh -c 'echo x >> {counter}; echo secret'")
    assert found(source) == [b"secret"]
    source.may_ask = False
    assert found(source) == [b"secret"]
    assert counter.read_text() == "x\n"
