"""--check: loads everything, prints what it would do, serves nothing and leaves nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from pki import common_name, issue, pki

from .server import USER, command, is_root, loopback, open_directory

PORT = 8443
COMMAND_SECONDS = 20.0


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


def check(*options: str | Path, flag: str = "--check", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(flag, *USER, *options),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def listener(host: str, more: str = "") -> str:
    return f"{host}:{PORT},{pki().server.crt},{pki().server.key_file}{more}"


def test_it_says_who_is_asked_in_which_protocol(place: Path) -> None:
    options = ["--http-to", str(place / "n"), "--http-fallback", str(place / "m"), "--http-backend-http"]
    done = check("--https", listener(loopback()), *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"requests go to {place / 'n'}, else to {place / 'm'} (HTTP/1.1)\n" in done.stdout
    done = check("--https", listener(loopback()), *options, "--http-fallback", "no.such.host.invalid:1")
    assert done.returncode == 1
    assert "http-fallback = no.such.host.invalid:1: cannot resolve the name" in done.stderr


@pytest.mark.parametrize("flag", ["--check", "-t"])
def test_it_says_what_a_start_would_do(place: Path, flag: str) -> None:
    host = loopback()
    options = ["--https", listener(host, f",HIGH,!{pki().ca.crt}"), "--http-to", str(place / "n"), "-p", "3"]
    done = check(*options, flag=flag)
    assert (done.returncode, done.stderr) == (0, "")
    for said in (
        f"{host}:{PORT}",
        f"certificate {pki().server.crt}: ",
        f"client certificates: required, CA {pki().ca.crt}",
        f"requests go to {place / 'n'} (uwsgi protocol)",
        "3 worker processes of 1 thread",
        "becomes www-data" if is_root else "no user to become",
        "server.lab",
    ):
        assert said in done.stdout, done.stdout
    assert done.stdout.endswith("configuration ok\n")


def test_nothing_is_bound_or_written(place: Path) -> None:
    """Addresses that another server has are no error, since it may well be this one; no file appears."""
    host = loopback()
    with socket.create_server((host, PORT)), socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(place / "taken.sock"))
        done = check(
            *("--shared-socket", f"{host}:{PORT}", "--https", f"=0,{pki().server.crt},{pki().server.key_file}"),
            *("--https", f"{place / 'free.sock'},{pki().server.crt},{pki().server.key_file}"),
            *("--pidfile", place / "pid", "--daemonize", place / "log"),
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(place) == ["taken.sock"]


def test_a_running_server_is_not_disturbed(place: Path) -> None:
    """A pid file and a UNIX socket that are there are as they were."""
    (place / "pid").write_text("77\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place / "s.sock"))
        sock.listen()
        before = (place / "s.sock").stat()
        https = f"{place / 's.sock'},{pki().server.crt},{pki().server.key_file}"
        check("--https", https, "--pidfile", place / "pid")
        after = (place / "s.sock").stat()
        assert (after.st_ino, after.st_mode, after.st_ctime_ns) == (before.st_ino, before.st_mode, before.st_ctime_ns)
        assert (place / "pid").read_text() == "77\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(["--no-such-option"], "no-such-option", id="option"),
        pytest.param(["--https", "=7,a,b"], r"https = =7,a,b: .*shared", id="shared socket"),
        pytest.param(
            ["--https", "127.0.0.1:1,missing,missing"], "https = .*certificate missing: no such file", id="certificate"
        ),
        pytest.param(["--http-to", "no.such.host.invalid:1"], "http-to = no.such.host.invalid:1: ", id="backend"),
        pytest.param(["--wsgi-file", "missing.py"], "wsgi-file = missing.py: no such file", id="application"),
        pytest.param(["--log-format", "%(nonsense)"], "log-format = .*nonsense", id="log format"),
        pytest.param(["--chdir", "/missing"], "chdir = /missing: no such directory", id="chdir"),
    ],
)
def test_a_bad_configuration(options: list[str], reason: str) -> None:
    """The same line and status as a start has."""
    done = check("--https", listener(loopback()), *options)
    assert done.returncode == 1, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert re.match(f"uwsgi-tls: .*{reason}", lines[0]), lines
    assert "configuration ok" not in done.stdout


APPLICATIONS = {
    "import error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "no callable": ("something = 1", "app.py has no callable application"),
    "not callable": ("application = 1", "app.py has no callable application"),
    "exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "syntax": ("def application(:", "SyntaxError"),
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_that_does_not_load(place: Path, name: str) -> None:
    text, reason = APPLICATIONS[name]
    (place / "app.py").write_text(text)
    done = check("--https", listener(loopback()), "--wsgi-file", "app.py", cwd=place)
    assert done.returncode == 22, done
    assert f"unable to load the application: {reason}" in done.stderr or reason in done.stderr, done.stderr
    assert "configuration ok" not in done.stdout


def test_an_application_is_loaded_as_it_will_be(place: Path) -> None:
    """As the user that it would be, in its directory, once; whatever it prints."""
    (place / "app.py").write_text(
        "import os\nprint('loaded by', os.getuid(), os.getgid(), 'in', os.getcwd())\n"
        "def application(environ, start_response): ...\n"
    )
    done = check("--https", listener(loopback()), "--wsgi-file", "app.py", "--chdir", place)
    uid = 33 if is_root else os.getuid()
    assert done.returncode == 0, done
    assert len(re.findall(f"^loaded by {uid} .* in {re.escape(str(place))}$", done.stdout, re.MULTILINE)) == 1, done
    assert done.stdout.endswith("configuration ok\n")


@pytest.mark.skipif(not is_root, reason="root alone has files that its user cannot read")
def test_an_application_that_only_root_can_read(place: Path) -> None:
    """The check drops root first, so it finds what a start would run into."""
    (place / "app.py").write_text("def application(environ, start_response): ...\n")
    (place / "app.py").chmod(0o600)
    done = check("--https", listener(loopback()), "--wsgi-file", "app.py", cwd=place)
    assert done.returncode == 22, done
    assert "PermissionError" in done.stderr


def test_a_certificate_prints_nothing_but_text(place: Path) -> None:
    """What stands in it was written by somebody else, perhaps; it is not for the terminal to obey."""
    subject = common_name("x\x1b[2J\x1b]0;y\x07\nconfiguration ok")
    made = issue(place, "x", subject, pki().ca, sans=[x509.DNSName("x.lab")])
    sni = f"other.lab {made.crt},{made.key_file}"
    done = check("--https", f"{loopback()}:{PORT},{made.crt},{made.key_file},ECDHE+AESGCM:@SECLEVEL=0", "--sni", sni)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.isprintable() for line in done.stdout.split("\n")), done.stdout
    assert "\\x1b[2J\\x1b]0" in done.stdout
    assert done.stdout.split("\n").count("configuration ok") == 1
    assert len(re.findall(r"^warning: .*@SECLEVEL=0.* allow keys of any size", done.stdout, re.MULTILINE)) == 1


def test_warnings_are_said(place: Path) -> None:
    (place / "x.ini").write_text(f"[uwsgi]\nhttps = {listener(loopback())}\nlazy-apps = true\nvacuum = true\n")
    done = check(place / "x.ini")
    assert done.returncode == 0, done
    assert "lazy-apps" in done.stdout or "vacuum" in done.stdout, done.stdout


@pytest.mark.skipif(not is_root, reason="root alone may read what others may not")
@pytest.mark.parametrize("what", ["link", "file"])
def test_a_key_in_a_users_directory(place: Path, what: str) -> None:
    """Root's own is read if it lies there itself; what a link of the user's leads to is not."""
    issue(place, "own", common_name("server.lab"), pki().ca)
    (place / "user").mkdir()
    for kind in ("crt", "key"):
        if what == "link":
            (place / "user" / f"site.{kind}").symlink_to(f"../own.{kind}")
        else:
            (place / f"own.{kind}").rename(place / "user" / f"site.{kind}")
    os.chown(place / "user", 33, 33)
    files = f"{place}/user/site.crt,{place}/user/site.key"
    done = check("--https", f"{loopback()}:{PORT},{files}")
    if what == "file":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert f"key {place}/user/site.key: {place}/user/site.key is a symbolic link (or has a second name)" in line
