"""Who may read statistics, and under which name: what docs/operations.md promises of each kind of socket."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pki import pki

from .server import USER, is_root, loopback, open_directory, uwsgi_tls

SECONDS = 15.0
HTTP_PORT = 9192
NAME, STRANGER = "www-data", "nobody"  # the user that the server becomes, and another one
needs_root = pytest.mark.skipif(not is_root, reason="only root can give the socket to one user and connect as another")

Address = tuple[str, int] | str  # TCP; or a path, where an abstract one begins with NUL

# Connects and says how that went; argv: path, and what to send first.
READER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1].replace("@", chr(0)))
    except PermissionError:
        sys.exit("refused")
    if sys.argv[2]:
        sock.sendall(sys.argv[2].encode())
    data = b""
    while more := sock.recv(65536):
        data += more
print(b'"workers"' in data)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A running server: where it tells how it is, by a name for each socket."""

    directory: Path
    host: str

    def address(self, where: str) -> Address:
        return (self.host, HTTP_PORT) if where == "tcp" else str(self.directory / where)


@contextlib.contextmanager
def telling(*options: str) -> Iterator[Place]:
    host, identity = loopback(), pki().server_ec
    https = ("--https", f"{host}:0,{identity.crt},{identity.key_file}")
    with open_directory() as directory:
        words = [word.replace("HOST", host) for word in options]
        with uwsgi_tls(*https, *USER, *words, cwd=directory) as daemon:
            daemon.wait_for_workers(1)
            yield Place(directory, host)


def ask(address: Address, words: bytes = b"") -> bytes:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as sock:
        sock.settimeout(SECONDS)
        sock.connect(address)
        if words:
            sock.sendall(words)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def status(address: Address, host: str | None) -> str:
    """Of a GET with this value of Host; None: without the field."""
    field = "" if host is None else f"Host: {host}\r\n"
    head, _, body = ask(address, f"GET /stats.json HTTP/1.1\r\n{field}\r\n".encode()).partition(b"\r\n\r\n")
    found = head.split()[1].decode()
    assert (found == "200") == (b'"workers"' in body), "a refusal tells nothing"
    return found


# --- under which name -----------------------------------------------------------------------------------

OURS = [None, "", "127.0.0.1", f"127.0.0.1:{HTTP_PORT}", "[::1]", f"[::1]:{HTTP_PORT}", "192.0.2.1", "localhost"]
OTHERS = ["stats.example", f"stats.example:{HTTP_PORT}", "localhost.example", "127.0.0.1.example", "2130706433", "x"]


@pytest.fixture(scope="module")
def usual() -> Iterator[Place]:
    with telling("--stats", "plain.sock", "--stats-http", "http.sock", "--stats-http", f"HOST:{HTTP_PORT}") as place:
        yield place


@pytest.fixture(scope="module")
def public() -> Iterator[Place]:
    """Where the sockets of `stats` speak HTTP, and everybody may read."""
    options = ("--stats", "stats.sock", "--stats-http", "true", "--stats", f"HOST:{HTTP_PORT}", "--stats-public")
    with telling(*options) as place:
        yield place


@pytest.mark.parametrize("host", OURS)
def test_an_address_or_no_host_will_do(usual: Place, host: str | None) -> None:
    assert status(usual.address("tcp"), host) == "200"


@pytest.mark.parametrize("host", OTHERS)
def test_by_tcp_another_name_is_misdirected(usual: Place, host: str) -> None:
    assert status(usual.address("tcp"), host) == "421"
    assert status(usual.address("tcp"), f"127.0.0.1\r\nHost: {host}") == "421"


def test_each_path_of_it(usual: Place) -> None:
    for path in ("/", "/stats.json", "/metrics"):
        answer = ask(usual.address("tcp"), f"GET {path} HTTP/1.1\r\nHost: stats.example\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("host", [None, "", "localhost", "127.0.0.1", *OTHERS])
def test_on_a_unix_socket_every_name_will_do(usual: Place, host: str | None) -> None:
    assert status(usual.address("http.sock"), host) == "200"


@pytest.mark.parametrize("where", ["tcp", "stats.sock"])
def test_with_stats_public_every_name_will_do(public: Place, where: str) -> None:
    for host in (None, "stats.example"):
        assert status(public.address(where), host) == "200"


def test_the_plain_one_asks_for_nothing(usual: Place) -> None:
    assert json.loads(ask(usual.address("plain.sock")))["workers"]


# --- who ------------------------------------------------------------------------------------------------


def reads(path: Path | str, user: str, *, http: bool, group: str | None = None) -> bool:
    """Whether that user can connect to a UNIX socket; asserts that whoever can reads all of it."""
    words = "GET /stats.json HTTP/1.1\r\n\r\n" if http else ""
    done = subprocess.run(
        (sys.executable, "-c", READER, str(path), words), user=user, group=group or user_group(user), extra_groups=[],
        cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) in (("True\n", ""), ("", "refused\n")), done
    return done.returncode == 0


def user_group(user: str) -> str:
    return {"root": "root", NAME: NAME, STRANGER: "nogroup"}[user]


@needs_root
@pytest.mark.parametrize(
    ("options", "mode", "in_the_group", "stranger"),
    [
        ((), 0o600, False, False),
        (("--stats-chmod", "660"), 0o660, True, False),
        (("--stats-chmod", "666"), 0o666, True, True),
    ],
)
def test_who_may_connect_to_a_unix_socket(
    options: tuple[str, ...], mode: int, in_the_group: bool, stranger: bool
) -> None:
    with telling("--stats", "plain.sock", "--stats-http", "http.sock", *options) as place:
        for name, http in (("plain.sock", False), ("http.sock", True)):
            path = place.directory / name
            found = path.stat()
            assert stat.S_IMODE(found.st_mode) == mode
            assert path.owner() == path.group() == NAME
            assert reads(path, NAME, http=http)
            assert reads(path, "root", http=http)
            assert reads(path, STRANGER, http=http, group=NAME) is in_the_group
            assert reads(path, STRANGER, http=http) is stranger


@needs_root
def test_an_abstract_socket_is_open_to_everybody_on_the_machine() -> None:
    """It has no mode, and unlike an address of TCP no browser leads to it."""
    with telling("--stats", "@HOST.stats", "--stats-http", "@HOST.http") as place:
        for name, http in ((f"@{place.host}.stats", False), (f"@{place.host}.http", True)):
            assert reads(name, STRANGER, http=http)
