"""What is wrong with a configuration is said in one line that names option, value and cause; nothing stays behind.

Each row of the table starts the real server in a directory with good files and one thing wrong.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import socket
import subprocess
import termios
from dataclasses import dataclass
from pathlib import Path

import pytest

from .seed_pki import SeedPki
from .server import ROOT, USER, command, is_root, loopback, open_to_all, uwsgi_tls

HOST = loopback()
GOOD = f"{HOST}:0,foobar.crt,foobar.key"
GOOD_UNIX = "https.sock,foobar.crt,foobar.key"  # a socket that leaves a file when it is not removed
NOBODY_SPEAKS_DNS_HERE = "256.0.0.1:443"  # looks like an address, is none, and asks no name server


@dataclass(frozen=True, slots=True)
class Bad:
    """One kind of mistake: the arguments, and what the line must say."""

    name: str
    arguments: tuple[str, ...]
    option: str
    value: str
    cause: str  # a pattern
    ini: str = ""  # the fourth line of bad.ini, after a good https option

    def __str__(self) -> str:
        return self.name


def https(name: str, value: str, cause: str) -> Bad:
    return Bad(name, (*USER, "--https", value), "https", value, cause)


def one(name: str, option: str, value: str, cause: str) -> Bad:
    """A good https option and one bad other."""
    return Bad(name, (*USER, "--https", GOOD_UNIX, f"--{option}", value), option, value, cause)


def ini(name: str, line: str, option: str, value: str, cause: str) -> Bad:
    return Bad(name, ("bad.ini",), option, value, cause + r".*bad\.ini:4", ini=line)


# fmt: off
TABLE = [
    # the syntax of https and https2
    https("two fields", f"{HOST}:0,foobar.crt", r"syntax is ADDRESS,CERTIFICATE,KEY"),
    https("comma in ciphers", f"{GOOD},HIGH,!aNULL", r"'!aNULL'.*cipher"),
    https("CA where ciphers belong", f"{GOOD},ca.crt", r"'ca\.crt'.*ciphers"),
    https("empty CA", f"{GOOD},HIGH,!", r"client CA.*empty"),
    Bad("https2 key", (*USER, "--https2", f"addr={HOST}:0,crt=foobar.crt,kee=x"), "https2",
        f"addr={HOST}:0,crt=foobar.crt,kee=x", r"'kee=x'"),
    Bad("https2 incomplete", (*USER, "--https2", f"addr={HOST}:0,crt=foobar.crt"), "https2",
        f"addr={HOST}:0,crt=foobar.crt", r"\bkey\b"),
    # certificates, keys, CAs, ciphers
    https("no certificate", f"{HOST}:0,missing.crt,foobar.key", r"missing\.crt.*no such file"),
    https("certificate is no PEM", f"{HOST}:0,garbage.pem,foobar.key", r"garbage\.pem.*not PEM"),
    https("empty certificate", f"{HOST}:0,empty.pem,foobar.key", r"empty\.pem.*empty"),
    https("directory as certificate", f"{HOST}:0,.,foobar.key", r"not a regular file|[Ii]s a directory"),
    https("no key", "https.sock,foobar.crt,missing.key", r"missing\.key.*no such file"),
    https("certificate as key", "https.sock,foobar.crt,foobar.crt", r"foobar\.crt.*no private key"),
    https("key of another certificate", "https.sock,foobar.crt,other.key", r"other\.key.*not match.*foobar\.crt"),
    https("encrypted key", "https.sock,client.crt,client.key", r"client\.key.*encrypted"),
    https("no CA", f"{GOOD_UNIX},HIGH,!missing.crt", r"missing\.crt.*no such file"),
    https("CA is no PEM", f"{GOOD_UNIX},HIGH,!garbage.pem", r"garbage\.pem.*not PEM"),
    https("unknown cipher", f"{GOOD_UNIX},NOSUCHCIPHER", r"NOSUCHCIPHER.*cipher|cipher.*NOSUCHCIPHER"),
    # addresses
    https("no address", ",foobar.crt,foobar.key", r"address is empty"),
    https("port too high", f"{HOST}:99999,foobar.crt,foobar.key", r"99999.*65535"),
    https("port is no number", f"{HOST}:https,foobar.crt,foobar.key", r"'https' is not a number"),
    https("no IPv4 address", f"{NOBODY_SPEAKS_DNS_HERE},foobar.crt,foobar.key", r"256\.0\.0\.1.*not an IPv4 address"),
    https("address of another machine", "192.0.2.1:0,foobar.crt,foobar.key", r"no interface"),
    https("shared socket that is not there", "=0,foobar.crt,foobar.key", r"no shared.socket"),
    https("shared socket without number", "=0abc,foobar.crt,foobar.key", r"'=0abc'"),
    https("shared socket without that name", "=abc,foobar.crt,foobar.key", r"no shared socket abc; none has a name"),
    https("negative shared socket", "=-1,foobar.crt,foobar.key", r"'=-1'"),
    https("a file is in the way", "foobar.crt,foobar.crt,foobar.key", r"not a socket"),
    https("no directory for the socket", "missing/https.sock,foobar.crt,foobar.key", r"no such file|directory"),
    https("descriptor is not open", "fd://97,foobar.crt,foobar.key", r"descriptor 97 is not open"),
    Bad("shared socket out of range", (*USER, "--shared-socket", "shared.sock", "--https", "=1,foobar.crt,foobar.key"),
        "https", "=1,foobar.crt,foobar.key", r"no shared socket 1"),
    Bad("shared socket used twice", (*USER, "--shared-socket", "shared.sock", "--https", "=0,foobar.crt,foobar.key",
        "--https", "=0,client.crt,client.key"), "https", "=0,client.crt,client.key", r"already used"),
    one("shared socket of a shared socket", "shared-socket", "=0", r"'=0'"),
    one("more listening than allowed", "listen", "2000000000", r"somaxconn"),
    Bad("no https at all", (*USER, "--master"), "https", "", r"."),
    # who to become
    one("unknown user" if is_root else "user of another", "uid", "no-such-user-here", r"no such user"),
    one("root as user", "uid", "0", r"root" if is_root else r"only root can"),
    one("negative uid", "uid", "-1", r"not a number"),
    # numbers, flags and other words
    one("processes is no number", "processes", "many", r"not a whole number"),
    one("no processes", "processes", "0", r"not between"),
    one("negative timeout", "http-timeout", "-5", r"not between"),
    Bad("flag with a wrong word", (*USER, "--https", GOOD_UNIX, "--disable-logging=perhaps"), "disable-logging",
        "perhaps", r"true or false"),
    one("variable without value", "http-var", "NAME", r"NAME=VALUE"),
    one("unknown log placeholder", "log-format", "%(method) %(nonsense)", r"nonsense"),
    Bad("unknown option", (*USER, "--https", GOOD_UNIX, "--htps", "x"), "htps", "", r"no such option.*--https"),
    Bad("option without its value", (*USER, "--https"), "https", "", r"value"),
    # files and directories
    one("no directory for the pid file", "pidfile", "missing/pid", r"[Nn]o such"),
    one("no directory for the log", "logto", "missing/log", r"[Nn]o such"),
    one("no directory to change to", "chdir", "missing", r"[Nn]o such"),
    Bad("backend and application", (*USER, "--https", GOOD_UNIX, "--http-to", "backend.sock", "--wsgi-file", "app.py"),
        "http-to", "backend.sock", r"wsgi-file = app\.py"),
    one("backend is no address", "http-to", f"{HOST}:nowhere", r"'nowhere' is not a number"),
    # ini files
    Bad("no ini", ("missing.ini",), "ini", "missing.ini", r"[Nn]o such file"),
    Bad("no section", ("bad.ini:other",), "ini", "bad.ini", r"section \[other\]"),
    ini("unknown key", "proceses = 2", "proceses", "2", r"processes"),
    ini("bad value", "threads = two", "threads", "two", r"not a whole number"),
    ini("unknown placeholder", "chdir = %(nosuch)", "chdir", "%(nosuch)", r"nosuch"),
]
# fmt: on


@pytest.fixture
def directory(public_directory: Path, pki: SeedPki, self_signed: SeedPki) -> Path:
    """A directory with the files that the table's arguments name."""
    for file in (pki.certificate, pki.key, pki.ca, pki.client_certificate, pki.client_key):
        shutil.copy(file, public_directory)
    shutil.copy(self_signed.key, public_directory / "other.key")
    (public_directory / "garbage.pem").write_text("this is not a certificate\n")
    (public_directory / "empty.pem").write_text("")
    (public_directory / "app.py").write_text("def application(environ, start_response): ...\n")
    return public_directory


def files(directory: Path) -> dict[str, int]:
    """Every name under `directory` with its modification time, in nanoseconds."""
    return {str(path.relative_to(directory)): path.lstat().st_mtime_ns for path in directory.rglob("*")}


def assert_refused(arguments: tuple[str, ...], directory: Path, bad: Bad, user: str | None = None) -> None:
    """The server says one line about `bad`, exits with 1, and leaves neither a process nor a file."""
    before = files(directory)
    # The pid file comes first, so that an argument at the end can want for its value.
    with uwsgi_tls("--pidfile", "server.pid", *arguments, cwd=directory, user=user) as server:
        status = server.wait()
    assert len(server.lines) == 1, server.log
    line = server.lines[0]
    # What the command line spells wrong is named as it stands there, with its hyphens.
    said = re.fullmatch(rf"uwsgi-tls: (?:--)?{re.escape(bad.option)} = {re.escape(bad.value)}(.*)", line)
    assert said, line
    assert re.search(bad.cause, said[1]), line
    assert status == 1, line
    assert files(directory) == before


@pytest.mark.parametrize("bad", TABLE, ids=str)
def test_table(bad: Bad, directory: Path) -> None:
    (directory / "bad.ini").write_text(f"[uwsgi]\nmaster = true\nhttps = {GOOD_UNIX}\n{bad.ini}\n")
    assert_refused(bad.arguments, directory, bad)


def test_table_has_enough_kinds() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE) >= 20


def test_address_in_use(directory: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        value = f"{HOST}:{taken.getsockname()[1]},foobar.crt,foobar.key"
        # The socket that was bound before is closed, and its file is removed.
        arguments = (*USER, "--https", GOOD_UNIX, "--https", value)
        assert_refused(arguments, directory, Bad("", (), "https", value, "in use"))


def test_live_socket_is_not_taken_away(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(directory / "https.sock"))
        taken.listen()
        assert_refused(
            (*USER, "--https", GOOD_UNIX), directory, Bad("", (), "https", GOOD_UNIX, "another process listens")
        )


def test_environment_is_named(directory: Path) -> None:
    with uwsgi_tls("--https", GOOD_UNIX, cwd=directory, env={"UWSGI_THREADS": "two"}) as server:
        assert server.wait() == 1
    assert re.fullmatch(r"uwsgi-tls: threads = two: .*whole number.*UWSGI_THREADS.*", server.log)


def test_background_start_says_so_in_front(directory: Path) -> None:
    """uWSGI's command has returned 0 by then, and only the log tells."""
    value = "https.sock,foobar.crt,other.key"
    bad = Bad("", (), "https", value, "not match")
    assert_refused((*USER, "--https", value, "--daemonize", "server.log"), directory, bad)


@pytest.mark.parametrize(
    ("arguments", "option", "value", "cause"),
    [
        pytest.param(("--gid", "www-data"), "gid", "www-data", "uid", id="group alone"),
        pytest.param(
            ("--uid", "www-data", "--gid", "no-such-group"), "gid", "no-such-group", "no such group", id="group"
        ),
        pytest.param(("--uid", "www-data", "--gid", "0"), "gid", "0", "root", id="root's group"),
        pytest.param(("--uid", "www-data", "--add-gid", "root"), "add-gid", "root", "root", id="root's group added"),
        pytest.param(("--uid", "4242"), "uid", "4242", "gid", id="number without group"),
        pytest.param(("--strict",), "uid", "", "root", id="strict, and root"),
    ],
)
@pytest.mark.skipif(not is_root, reason="only root can become another user")
def test_privileges_as_root(directory: Path, arguments: tuple[str, ...], option: str, value: str, cause: str) -> None:
    assert_refused(("--https", GOOD_UNIX, *arguments), directory, Bad("", (), option, value, cause))


@pytest.mark.parametrize(
    ("arguments", "option", "value", "cause"),
    [
        pytest.param(
            ("--https", f"{HOST}:443,foobar.crt,foobar.crt"),
            "https",
            f"{HOST}:443",
            "permission denied.*443",
            id="port",
        ),
        pytest.param(("--https", GOOD_UNIX), "https", GOOD_UNIX, r"foobar\.key.*permission denied.*uid 33", id="key"),
        pytest.param(("--https", GOOD_UNIX, "--uid", "nobody"), "uid", "nobody", "only root", id="user"),
    ],
)
@pytest.mark.skipif(not is_root, reason="only root can start the server as another user")
@pytest.mark.skipif(
    not open_to_all(ROOT), reason=f"{ROOT} is closed to other users, so they cannot start this checkout"
)
def test_privileges_without_root(
    directory: Path, arguments: tuple[str, ...], option: str, value: str, cause: str
) -> None:
    directory.chmod(0o777)  # for the socket's file
    assert_refused(arguments, directory, Bad("", (), option, value, cause), user="www-data")


def test_the_terminal_is_not_asked_behind_our_back(directory: Path) -> None:
    """An encrypted key must not make a start wait for a person: OpenSSL would ask on the controlling terminal.

    We ask only where stdin is the terminal (test_passphrases.py).
    """
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        command("--https", "https.sock,client.crt,client.key"),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
    ) as process:
        try:
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 1
    (line,) = [each for each in said.decode().splitlines() if "WARNING" not in each]
    assert "key client.key: the key is encrypted" in line
    os.set_blocking(terminal, False)
    with pytest.raises(BlockingIOError):  # not a word
        os.read(terminal, 100)
    os.close(theirs)
    os.close(terminal)
