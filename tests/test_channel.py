"""channel.py: what a client's KeyUpdates make of reading and writing (RFC 8446, 4.6.3), over a socket pair."""

import select
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest
from blackbox.tls13 import HALF_A_KEY_UPDATE, HANDSHAKE, KEY_UPDATE, Client
from handshakes import Client as Python
from handshakes import both_versions, build_context, client_context, option
from OpenSSL import SSL
from pki import pki

from uwsgi_tls.channel import Channel
from uwsgi_tls.gone import Gone
from uwsgi_tls.lounge import READ, WRITE

SECONDS = 20.0  # what takes longer hangs
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of a connection, with its handshake done."""

    channel: Channel
    sock: socket.socket  # the channel's
    client: Client

    def receive(self) -> bytes:
        """Waits as the lounge does, then one receive()."""
        assert select.select([self.sock], [], [], SECONDS)[0], "nothing comes"
        data = self.channel.receive()
        assert data or self.channel.want == READ
        return data


@pytest.fixture
def pair() -> Iterator[Pair]:
    server = pki().server_ec
    context = build_context(option(server))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, Client(theirs) as client, ThreadPoolExecutor() as pool:
        channel = Channel(context, ours)
        shaken = pool.submit(client.handshake)
        while not channel.handshake():
            assert select.select([ours], [], [], SECONDS)[0], "the client says nothing"
        shaken.result(SECONDS)
        yield Pair(channel, ours, client)


def talk(context: SSL.Context, client: ssl.SSLContext, session: ssl.SSLSession | None, resumes: bool = True) -> Python:
    """What Python's ssl saw of a connection that was greeted and ended."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    seen = Python()
    with ours, theirs, ThreadPoolExecutor() as pool:
        talked = pool.submit(seen.talk, client, theirs, session)
        channel = Channel(context, ours, resumes)
        while not channel.handshake():
            assert select.select([ours], [], [], SECONDS)[0], "the client says nothing"
        channel.send(b"hello")
        channel.shutdown()
        talked.result(SECONDS)
    assert (seen.error, seen.received) == ("", b"hello")
    return seen


@both_versions
@pytest.mark.parametrize("asks", ["nothing", "a certificate"])
def test_where_no_session_is_taken_up(asks: str, version: ssl.TLSVersion) -> None:
    lab = pki()
    listener = option(lab.server_ec, "", lab.ca.crt if asks == "a certificate" else "")
    context, client = build_context(listener), client_context(lab, version, lab.client)
    session = talk(context, client, None).session
    assert [talk(context, client, session, resumes).resumed for resumes in (True, False, True)] == [True, False, True]


@both_versions
def test_a_session_of_who_was_asked_is_not_prolonged(version: ssl.TLSVersion) -> None:
    """Else a client of TLS 1.3 would never again have to show its chain: it keeps its first ticket, as in TLS 1.2."""
    lab = pki()
    context = build_context(option(lab.server_ec, "", lab.ca.crt))
    context.set_timeout(3)
    client = client_context(lab, version, lab.client)
    first, session, resumed = time.monotonic(), talk(context, client, None).session, 0
    assert session is not None
    while (seen := talk(context, client, session)).resumed:
        assert seen.session is not None
        assert seen.session.id == session.id
        assert time.monotonic() < first + SECONDS
        session, resumed = seen.session, resumed + 1
        time.sleep(0.1)  # else it would be thousands
    assert resumed > 1


def test_a_session_of_nobody_is_prolonged() -> None:
    lab = pki()
    context, client = build_context(option(lab.server_ec)), client_context(lab, ssl.TLSVersion.TLSv1_3)
    first = talk(context, client, None).session
    again = talk(context, client, first)
    assert first is not None
    assert again.session is not None
    assert (again.resumed, again.session.id == first.id) == (True, False)


def test_records_made_by_hand(pair: Pair) -> None:
    """The client of these tests is one that the server understands, before and after a KeyUpdate, and the reverse."""
    pair.client.send(b"one")
    assert pair.receive() == b"one"
    pair.client.sock.sendall(pair.client.key_updates(1))
    pair.client.send(b"two")
    assert pair.receive() == b""
    assert pair.receive() == b"two"
    assert pair.channel.send(b"three") == 5
    assert pair.client.receive() == b"three"
    pair.channel.shutdown()
    assert pair.client.receive() == b""


def test_a_farewell_that_has_no_room_is_said_later(pair: Pair) -> None:
    """Without it a client could not tell that a response that ends with the connection is whole."""
    real, full = pair.channel._tls, [True, True]

    def shutdown() -> bool:
        if full:
            full.pop()
            raise SSL.WantWriteError
        return real.shutdown()

    pair.channel._tls = cast(SSL.Connection, SimpleNamespace(shutdown=shutdown))
    assert [pair.channel.shutdown() for _ in range(4)] == [False, False, True, True]
    assert pair.channel.want == WRITE
    assert pair.client.receive() == b""


def test_each_key_update_is_a_turn(pair: Pair) -> None:
    """However many are queued, one call reads one: between two calls other connections have their turn."""
    pair.client.sock.sendall(pair.client.key_updates(50))
    pair.client.send(b"data")
    turns = 1
    while not (data := pair.receive()):
        turns += 1
    assert data == b"data"
    assert turns > 10


def test_half_a_key_update_is_waited_for_not_written_over(pair: Pair) -> None:
    """OpenSSL writes nothing until the rest is there. Whoever waited for room to write would be woken forever."""
    channel, client = pair.channel, pair.client
    client.send_handshake(HALF_A_KEY_UPDATE)
    assert pair.receive() == b""
    assert (channel.send(b"answer"), channel.want) == (0, READ)
    assert (channel.send(b"answer"), channel.want) == (0, READ)
    client.send_handshake(KEY_UPDATE[len(HALF_A_KEY_UPDATE) :])
    client.sealer.update()
    assert select.select([pair.sock], [], [], SECONDS)[0]
    assert channel.send(b"answer") == 6
    assert client.receive() == b"answer"
    client.send(b"more")
    assert pair.receive() == b"more"


def test_a_full_socket_is_waited_for_to_write(pair: Pair) -> None:
    """Also where the last thing that was waited for was the client's word."""
    channel = pair.channel
    assert (channel.receive(), channel.want) == (b"", READ)
    assert (channel.send(b"all of it"), channel.want) == (9, WRITE)
    assert (channel.receive(), channel.want) == (b"", READ)
    assert channel.send(bytes(8 * MIB)) < 8 * MIB
    assert channel.want == WRITE


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x18\0\0\x01\x02", id="of no known kind"),
        pytest.param(b"\x18\0\0\x02\0\0", id="too long"),
        pytest.param(KEY_UPDATE + KEY_UPDATE, id="two in one record"),
        pytest.param(b"\x01\0\0\x01\0", id="a ClientHello again"),
    ],
)
def test_a_bad_key_update_ends_the_connection(pair: Pair, message: bytes) -> None:
    pair.client.sock.sendall(pair.client.sealer.record(message, HANDSHAKE))
    with pytest.raises(Gone):
        pair.receive()
