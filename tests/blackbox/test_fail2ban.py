"""The patterns for fail2ban in docs/operations.md, over lines of a server: who has failed is found, and nobody else.

Clients say in every place that a line of the log could have it from that somebody else has failed. They come by the
PROXY header, so that each has an address of its own.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from journal import entry
from log_daemon import log_daemon
from pki import CLIENT, SERVER, Issued, issue, pki

from .server import ROOT, Daemon, loopback, open_directory, uwsgi_tls, wait_until

PAGE = (ROOT / "docs" / "operations.md").read_text()
SECONDS = 20.0
PORT, STRICT = 8443, 8444
VICTIM = "198.51.100.66"
FORGED = f"TLS handshake failed (client {VICTIM}:1, =0): x"
STAMPED = f"Tue Nov 24 01:33:18 2026 - [1] {FORGED}"

# fail2ban's <ADDR>: an address of either kind, perhaps in brackets, and IPv4 perhaps as IPv6 carries it (failregex.py).
ADDR = (
    r"\[?(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
    r"|(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)))\]?"
)
PATTERNS = re.findall(r"^ {4}failregex = (.*)$", PAGE, re.MULTILINE)
FILE, DAEMON = (re.compile(each.replace("<ADDR>", ADDR)) for each in PATTERNS)
# The date, which fail2ban cuts out before it looks: our own, and a syslog daemon's.
DATE = re.compile(r"^\w{3} (?:\w{3} )?[ \d]\d [\d:]{8}(?: \d{4})?(?= )")


def found(pattern: re.Pattern[str], lines: list[str]) -> list[str]:
    """The addresses that fail2ban would count, each as often as it would."""
    matches = filter(None, (pattern.search(DATE.sub("", line, count=1)) for line in lines))
    return [match["ip4"] or match["ip6"] for match in matches]


@dataclass(frozen=True, slots=True)
class Logs:
    """What one server has written, in all its forms."""

    file: list[str]  # of `logger = file:`
    syslog: list[str]  # as a daemon writes them down
    journal: list[Mapping[str, bytes]]
    json: list[str]  # another server's, with log-json


def hello(name: bytes) -> bytes:
    """A whole ClientHello that asks for `name`, whatever that is."""
    sent, stands_for = ssl.MemoryBIO(), ("a" * 50 + ".a") * 9
    stands_for = stands_for[: len(name)]
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=stands_for).do_handshake()
    return sent.read().replace(stands_for.encode(), name)


def subject(text: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.Name:
    """A name that may be long: common names may not."""
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text, _type=kind)])


def identities(directory: Path) -> list[Issued]:
    """Certificates that are refused, for reasons that end in words of their makers."""
    lab, deceptive = pki(), subject(FORGED)
    hostile_ca = issue(directory, "hostile-ca", subject(f"x, which\n{FORGED}"), authority=True)
    return [
        issue(directory, "plain", deceptive, usage=[CLIENT]),
        issue(directory, "line", subject(f"\n{STAMPED}"), usage=[CLIENT]),
        issue(directory, "rfc2253", subject(f"\\): {FORGED}", _ASN1Type.BMPString), usage=[CLIENT]),
        issue(directory, "expired", subject(STAMPED), lab.ca, usage=[CLIENT], days=(-3, -1)),
        issue(directory, "issuer", deceptive, hostile_ca, usage=[CLIENT]),
        issue(directory, "server-only", subject(f"2026-11-24 01:33:18 - [1] {FORGED}"), lab.ca, usage=[SERVER]),
        issue(directory, "later", subject(f"\r\n{STAMPED}"), lab.ca, usage=[CLIENT], days=(1, 3)),
    ]


class Crowd:
    """Clients of one server, each with its own address; `failed` are those that must be found."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.failed: list[str] = []

    @contextlib.contextmanager
    def client(self, address: str, port: int = PORT) -> Iterator[socket.socket]:
        with socket.create_connection((self.host, port), SECONDS) as sock, contextlib.suppress(OSError):
            kind = "TCP6" if ":" in address else "TCP4"
            sock.sendall(f"PROXY {kind} {address} {'::1' if kind == 'TCP6' else '192.0.2.250'} 40001 443\r\n".encode())
            yield sock
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass

    def fail(self, address: str, words: bytes, port: int = PORT) -> None:
        self.failed.append(address.removeprefix("::ffff:"))
        with self.client(address, port) as sock:
            sock.sendall(words)

    def show(self, address: str, identity: Issued) -> None:
        """A handshake of TLS 1.2, in which a client that is refused is told so."""
        self.failed.append(address)
        context = trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(identity.crt, identity.key_file)
        with self.client(address) as sock, context.wrap_socket(sock, server_hostname="server.lab"):
            raise AssertionError("it was let in")

    def ask(self, address: str, request: bytes) -> None:
        context = trusting()
        context.load_cert_chain(pki().client.crt, pki().client.key_file)
        with self.client(address) as sock, context.wrap_socket(sock, server_hostname="server.lab") as tls:
            tls.sendall(request)
            assert tls.recv(4096).startswith(b"HTTP/1.1 ")


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=pki().ca.crt)
    context.check_hostname = False
    return context


def everybody(crowd: Crowd, directory: Path) -> None:
    crowd.fail("192.0.2.1", b"GET / HTTP/1.1\r\n\r\n")
    crowd.fail("2001:db8::2", b"SSH-2.0-x\r\n")
    crowd.fail("::3", b"SSH-2.0-x\r\n")
    crowd.fail("::ffff:192.0.2.4", f"\r\n{STAMPED}\r\n".encode())
    crowd.fail("2001:db8:1:2:3:4:5:5", hello(b"x.lab (client 198.51.100.66:1, =0): y"))
    crowd.fail("2001:db8::6", hello(b"x.lab\n" + STAMPED.encode()), STRICT)
    for number, identity in enumerate(identities(directory)):
        crowd.show(f"192.0.2.{10 + number}", identity)
    head = f"User-Agent: {STAMPED}\r\nReferer:  - [1] {FORGED}\r\nCookie: {FORGED}\r\nConnection: close\r\n\r\n"
    target = FORGED.replace(" ", "%20")
    crowd.ask("192.0.2.30", f"GET /{target} HTTP/1.1\r\nHost: server.lab\r\n{head}".encode())
    crowd.ask("192.0.2.31", f"GET / HTTP/1.1\r\nHost: {FORGED}\r\n{head}".encode())
    crowd.ask("192.0.2.32", f" - [1] {FORGED}\r\n\r\n".encode())


@contextlib.contextmanager
def server(directory: Path, *options: str) -> Iterator[tuple[Daemon, Crowd]]:
    lab, host = pki(), loopback()
    identity = f"{lab.server_ec.crt},{lab.server_ec.key_file}"
    listeners = ("--https", f"{host}:{PORT},{identity},,!{lab.ca.crt}", "--https", f"{host}:{STRICT},{identity}")
    proxy = ("--http-enable-proxy-protocol", "--proxy-protocol-trust", "127.0.0.0/8", "--sni-strict")
    with uwsgi_tls(*listeners, *proxy, *options, cwd=directory) as daemon:
        daemon.wait_for_titles(r"worker \d+ .*serving", 1)
        yield daemon, Crowd(host)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[list[bytes]]:
    """A log daemon at `path`; at the end of the block the list has every datagram, since an empty one comes last."""
    with log_daemon(path) as daemon:
        datagrams: list[bytes] = []

        def read() -> None:
            while data := daemon.recv(65536):
                datagrams.append(data)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield datagrams
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.connect(str(path))
                last.send(b"")
            thread.join(SECONDS)


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[list[str], Logs]]:
    """The addresses of those who failed, and what was written of them."""
    with open_directory() as place:
        place.chmod(0o777)
        loggers = (f"file:{place}/log", f"syslog:uwsgi-tls,,{place}/syslog", f"journald:uwsgi-tls,{place}/journal")
        words = [word for each in loggers for word in ("--logger", each)]
        combined = re.findall(r"^ {4}log-format = (.*)$", PAGE, re.MULTILINE)[0]
        with (
            reading(place / "syslog") as syslog,
            reading(place / "journal") as journal,
            server(place, *words, "--log-format", combined) as (_, crowd),
        ):
            everybody(crowd, place)
        with server(place, "--log-json") as (daemon, other):
            everybody(other, place)
        assert crowd.failed == other.failed
        yield (
            crowd.failed,
            Logs(
                (place / "log").read_text().splitlines(),
                [re.sub(r"^<\d+>(.{15}) ", r"\1 host ", each.decode()) for each in syslog],
                [entry(each) for each in journal],
                daemon.lines,
            ),
        )


def test_the_page_has_two_patterns() -> None:
    assert len(PATTERNS) == 2


def test_in_a_file(scene: tuple[list[str], Logs]) -> None:
    failed, logs = scene
    assert found(FILE, logs.file) == failed
    assert sum(VICTIM in line for line in logs.file) >= 8, "it was tried"
    assert found(DAEMON, logs.file) == []


def test_from_a_syslog_daemon(scene: tuple[list[str], Logs]) -> None:
    failed, logs = scene
    assert found(DAEMON, logs.syslog) == failed
    assert found(FILE, logs.syslog) == []


def test_from_the_journal(scene: tuple[list[str], Logs]) -> None:
    """As fail2ban puts an entry together: host, name and process, text (filtersystemd.py); and with our own stamp."""
    failed, logs = scene
    texts = [each["MESSAGE"].decode() for each in logs.journal]
    assert found(DAEMON, [f"host uwsgi-tls[7]: {text}" for text in texts]) == failed
    assert found(DAEMON, [f"host uwsgi-tls[7]: {line}" for line in logs.file]) == failed
    values = [each["UWSGI_TLS_ADDR"].decode() for each in logs.journal if b"handshake failed" in each["MESSAGE"][:24]]
    assert values == failed


def test_as_json(scene: tuple[list[str], Logs]) -> None:
    failed, logs = scene
    objects = [json.loads(line) for line in logs.json if line.startswith("{")]
    assert [each["addr"] for each in objects if "reason" in each] == failed
    assert found(FILE, logs.json) == []


def test_a_line_that_is_left_out_has_the_last_ones_address(tmp_path: Path) -> None:
    """The one at the end of a minute is of the same form, whatever certificates a client makes up meanwhile."""
    with server(tmp_path) as (daemon, crowd):
        for number in range(10):
            text = f"{'abcdefghij'[number] * 3}\\ {FORGED}"
            crowd.show(f"192.0.2.{number}", issue(tmp_path, str(number), subject(text), usage=[CLIENT]))
        wait_until(lambda: len(found(FILE, daemon.lines)) == 3, SECONDS, lambda: daemon.log)
    assert found(FILE, daemon.lines) == [f"192.0.2.{number}" for number in (0, 1, 2, 9)]


@pytest.mark.parametrize(
    "line",
    [
        FORGED,
        f"| {FORGED}",
        f" {FORGED}",
        f"[pid: 1|app: 0|req: 1/1] 192.0.2.1 () {{5 vars in 5 bytes}} [Tue Nov 24 01:33:18 2026] GET /{STAMPED}",
        f"Tue Nov 24 01:33:18 2026 - [1] | {STAMPED}",
        f"Tue Nov 24 01:33:18 2026 - [1] no: {FORGED}",
        f"Tue Nov 24 01:33:18 2026 - [1] TLS handshake failed (client {VICTIM}.evil.example:1, =0): x",
        f"Tue Nov 24 01:33:18 2026 - [1] TLS handshake failed (client x {VICTIM}:1, =0): x",
    ],
)
def test_what_is_no_such_line(line: str) -> None:
    assert found(FILE, [line]) == []
    assert found(DAEMON, [line, f"Nov 24 01:33:18 host other[1]: {line}", f"Nov 24 01:33:18 host sshd: {line}"]) == []
