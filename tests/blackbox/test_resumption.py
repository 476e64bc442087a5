"""Sessions are good where they began and nowhere else: each way to carry one to another name, listener or CA.

CVE-2025-23419 and its kind: a session that was made where nothing is asked of clients opens what demands a certificate.
The clients are Python's ssl, pyOpenSSL and `openssl s_client`, which all may ask for another name with an old session.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from OpenSSL import SSL
from pki import Issued, pki, revocation_list

from .server import USER, loopback, open_directory, uwsgi_tls
from .tls_client import APPLICATION, SECONDS, TLS_1_2, TLS_1_3, Tls

FIRST, SECOND = 443, 8443
SUBJECT = "emailAddress=c@lab,CN=Client 01,O=Lab,C=IT"

versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["tls1.2", "tls1.3"])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session may begin or be taken: a port, the name that is asked for, and what is asked of clients."""

    port: int
    name: str | None
    asks: str = (
        ""  # "ca", "other": a certificate of it; "may": one of ca, or none; "none of ours": of ca, but not these
    )


PLACES = [
    Place(FIRST, None),
    Place(FIRST, "unknown.lab"),
    Place(FIRST, "open.lab"),
    Place(FIRST, "a.wild.lab"),
    Place(FIRST, "optional.lab", "may"),
    Place(FIRST, "secret.lab", "ca"),
    Place(FIRST, "secret2.lab", "ca"),
    Place(FIRST, "crl.lab", "ca"),
    Place(FIRST, "other-ca.lab", "other"),
    Place(FIRST, "s1.re.lab", "ca"),
    Place(FIRST, "directory.lab", "may"),
    Place(FIRST, "allowed.lab", "none of ours"),
    Place(SECOND, None, "ca"),
    Place(SECOND, "unknown.lab", "ca"),
    Place(SECOND, "open.lab"),
    Place(SECOND, "secret.lab", "ca"),
]


def site_of(place: Place) -> tuple[int, str | None]:
    """Two places with the same one share their sessions: an unknown name is as none."""
    return place.port, None if place.name == "unknown.lab" else place.name


@contextlib.contextmanager
def serving() -> Iterator[str]:
    server, ca, other = pki().server_ec, pki().ca.crt, pki().other_ca.crt
    files = f"{server.crt},{server.key_file}"
    keys = f"cert={server.crt},key={server.key_file}"
    with open_directory() as place:
        (place / "app.py").write_text(APPLICATION)
        directory = place / "names"
        directory.mkdir()
        for file, content in (("crt", server.crt), ("key", server.key_file), ("ca", ca)):
            (directory / f"directory.lab.{file}").write_bytes(Path(content).read_bytes())
        (place / "ca.crl").write_bytes(revocation_list(pki().ca))
        host = loopback()
        arguments = [
            *("--https", f"{host}:{FIRST},{files}", "--https", f"{host}:{SECOND},{files},,!{ca}"),
            *("--sni", f"open.lab {files}", "--sni", f"*.wild.lab {files}", "--sni", f"optional.lab {files},,{ca}"),
            *("--sni", f"secret.lab {files},,!{ca}", "--sni", f"secret2.lab {files},,!{ca}"),
            *("--sni", f"other-ca.lab {files},,!{other}", "--sni-regexp", f"^s[0-9]\\.re\\.lab$ {files},,!{ca}"),
            *("--sni2", f"name=allowed.lab,{keys},clientca=!{ca},allow=cn:Somebody else"),
            *("--sni2", f"name=crl.lab,{keys},clientca=!{ca},crl={place / 'ca.crl'}"),
            *("--sni-dir", str(directory), "--wsgi-file", str(place / "app.py"), "--processes", "2"),
        ]
        with uwsgi_tls(*USER, *arguments) as daemon:
            daemon.wait_for_workers(2)
            yield host


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with serving() as found:
        yield found


def client(version: ssl.TLSVersion, identity: Issued | None) -> Tls:
    return Tls(identity, least=version, most=version, checks_name=False)


def answer(place: Place, identity: Issued | None) -> str:
    """What a client with this certificate is told there, whatever session it brings; "" for no answer at all."""
    whose = "" if identity is None else "ca" if identity is pki().client else "other"
    name = place.name or "-"
    if not place.asks:
        return f"{name} NONE -"
    if place.asks == "may":
        return f"{name} NONE -" if not whose else f"{name} SUCCESS {SUBJECT}" if whose == "ca" else ""
    return f"{name} SUCCESS {SUBJECT}" if place.asks == whose else ""


@versions
@pytest.mark.parametrize("who", ["nobody", "client", "client_other_ca"])
def test_no_session_opens_what_its_client_could_not(who: str, version: ssl.TLSVersion, host: str) -> None:
    """Every place to every other: as many answers, and as many refusals, as without any session."""
    identity = None if who == "nobody" else getattr(pki(), who)
    talk = client(version, identity)
    moved = 0
    for begin in PLACES:
        first = talk.ask((host, begin.port), begin.name)
        assert first.body == answer(begin, identity), begin
        if first.session is None:
            continue
        for end in PLACES:
            reply = talk.ask((host, end.port), end.name, session=first.session)
            assert reply.body == answer(end, identity), (begin, end, reply)
            assert not reply.resumed or site_of(begin) == site_of(end), (begin, end)
            moved += 1
    assert moved >= 6 * len(PLACES)


@versions
def test_sessions_are_resumed_where_they_began(version: ssl.TLSVersion, host: str) -> None:
    """In any worker, and with the identity that was proved at first."""
    for place in PLACES:
        identity = pki().client if place.asks in ("ca", "may") else None
        if place.asks in ("other", "none of ours"):
            continue
        talk = client(version, identity)
        session = talk.ask((host, place.port), place.name).session
        for _ in range(4):
            reply = talk.ask((host, place.port), place.name, session=session)
            assert (reply.body, reply.resumed) == (answer(place, identity), True), place
            session = reply.session


@versions
def test_the_names_of_a_wildcard_are_one_site(version: ssl.TLSVersion, host: str) -> None:
    talk = client(version, None)
    session = talk.ask((host, FIRST), "a.wild.lab").session
    reply = talk.ask((host, FIRST), "b.wild.lab", session=session)
    assert (reply.body, reply.resumed) == ("b.wild.lab NONE -", True)


# --- the same, with other clients ------------------------------------------------------------------------

PAIRS = [
    (Place(FIRST, "open.lab"), Place(FIRST, "secret.lab", "ca")),
    (Place(FIRST, "optional.lab"), Place(FIRST, "secret.lab", "ca")),
    (Place(FIRST, "a.wild.lab"), Place(FIRST, "s1.re.lab", "ca")),
    (Place(FIRST, "directory.lab"), Place(SECOND, "secret.lab", "ca")),
    (Place(FIRST, None), Place(SECOND, None, "ca")),
]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(("begin", "end"), PAIRS)
def test_as_openssl_does_it(begin: Place, end: Place, version: str, host: str, tmp_path: Path) -> None:
    kept = str(tmp_path / "session.pem")

    def ask(place: Place, *more: str) -> str:
        name = ("-servername", place.name) if place.name else ("-noservername",)
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"{host}:{place.port}", *name, version, "-ign_eof", *more],
            input=f"GET / HTTP/1.1\r\nHost: {place.name or 'x'}\r\nConnection: close\r\n\r\n",
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    assert "200 OK" in ask(begin, "-sess_out", kept)
    again = ask(begin, "-sess_in", kept)
    assert "Reused, TLSv1." in again
    assert "200 OK" in again
    said = ask(end, "-sess_in", kept)
    assert "Reused" not in said
    assert "200 OK" not in said
    assert re.search(r"alert number (40|116)|alert (handshake failure|certificate required)", said), said


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["tls1.2", "tls1.3"])
@pytest.mark.parametrize(("begin", "end"), PAIRS)
def test_as_pyopenssl_does_it(begin: Place, end: Place, version: int, host: str) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)

    def ask(place: Place, session: SSL.Session | None) -> tuple[bytes, SSL.Session | None]:
        data = b""
        with socket.create_connection((host, place.port), SECONDS) as sock:
            sock.settimeout(None)
            conn = SSL.Connection(context, sock)
            if place.name:
                conn.set_tlsext_host_name(place.name.encode())
            if session is not None:
                conn.set_session(session)
            conn.set_connect_state()
            with contextlib.suppress(SSL.Error):
                conn.do_handshake()
                conn.send(f"GET / HTTP/1.1\r\nHost: {place.name or 'x'}\r\nConnection: close\r\n\r\n".encode())
                for _ in itertools.count():
                    data += conn.recv(65536)
            return data, conn.get_session()

    data, session = ask(begin, None)
    assert data.startswith(b"HTTP/1.1 200 OK")
    assert ask(begin, session)[0].startswith(b"HTTP/1.1 200 OK")
    assert ask(end, session)[0] == b""
