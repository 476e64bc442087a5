"""Responses without an end: server-sent events, and a producer that outruns its client.

The same application runs in the worker and in a real uWSGI behind http-to. It makes an event when the test writes a
line to its FIFO, so that the test knows when there was one, and that the next had not been made when it arrived.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import h11
import pytest
from pki import pki

from .raw_client import PORT, READ_BYTES, Client, Site, get
from .server import USER, is_root, loopback, open_directory, real_uwsgi, uwsgi_tls, wait_until

MIB = 1 << 20
SECONDS = 10.0
SILENCE_SECONDS = 1  # after which who owes something is given up
HIGH_WATER_BYTES = 257 * MIB  # what an application may be ahead of its client, beside the kernel's buffers
KERNEL_BYTES = 16 * MIB
CALM_SECONDS = 0.5

APPLICATION = r"""
import os
from wsgiref.validate import validator

class Events:
    '''One for each line of a FIFO.'''
    def __init__(self, place):
        self.fifo, self.closed = open(place + "/fifo"), place + "/closed"
    def __iter__(self):
        for line in self.fifo:
            yield line.replace("\n", "\n\n").encode()
    def close(self):
        self.fifo.close()
        open(self.closed, "w").close()

class Endless:
    '''Numbered blocks of 64 KiB, and a file that says how many bytes they were.'''
    def __init__(self, place):
        self.made, self.closed, self.total = open(place + "/made", "w"), place + "/closed", 0
    def __iter__(self):
        while True:
            yield self.total.to_bytes(8, "big") * 8192
            self.total += 65536
            os.pwrite(self.made.fileno(), str(self.total).encode(), 0)
    def close(self):
        open(self.closed, "w").close()

KINDS = {"/events": Events, "/endless": Endless}

@validator
def application(environ, start_response):
    if environ["PATH_INFO"] not in KINDS:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])
    return KINDS[environ["PATH_INFO"]](environ["QUERY_STRING"])
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A server, and the directory in which its application and the tests meet."""

    site: Site
    place: Path
    in_worker: bool

    def open_fifo(self) -> TextIO:
        """Wait until the application reads it (fifo(7)); what is written then goes there line by line."""
        found: list[int] = []

        def is_read() -> bool:
            try:
                found.append(os.open(self.place / "fifo", os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        wait_until(is_read, SECONDS, lambda: f"nobody reads the FIFO\n{self.site.daemon.log}")
        return os.fdopen(found[0], "w", buffering=1)

    def made(self) -> int:
        """How many bytes the endless producer has made so far."""
        path = self.place / "made"
        return int(path.read_text() or 0) if path.exists() else 0

    def wait_for_close(self) -> None:
        """Wait until the application has been told that its response is over."""
        closed = self.place / "closed"
        wait_until(closed.exists, SECONDS, lambda: f"close() was not called\n{self.site.daemon.log}")

    def spooled(self) -> int:
        """Bytes of the disk that the worker's unlinked files take. For root only: it is not dumpable (proc(5))."""
        folder, total = f"/proc/{self.site.worker.pid}/fd", 0
        for fd in os.listdir(folder):
            if "(deleted)" in os.readlink(f"{folder}/{fd}"):
                total += os.stat(f"{folder}/{fd}").st_blocks * 512  # stat(2)
        return total


@pytest.fixture(scope="module", params=["in the worker", "in uWSGI"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Site, bool]]:
    host, identity = loopback(), pki().server_ec
    times = ("--http-timeout", str(SILENCE_SECONDS), "--http-write-timeout", "30", "--http-keepalive=30")
    with open_directory() as place:
        place.chmod(0o777)
        (place / "app.py").write_text(APPLICATION)
        options = ("--https", f"{host}:{PORT},{identity.crt},{identity.key_file}", *times, *USER)
        if request.param == "in the worker":
            with uwsgi_tls(*options, "--wsgi-file", place / "app.py", "--threads", "2") as daemon:
                daemon.wait_for_workers(1)
                yield Site(daemon, (host, PORT)), True
                assert "defect" not in daemon.log
            return
        node = str(place / "uwsgi.sock")
        with (
            real_uwsgi(place / "app.py", node, "--processes", "2", "--socket-timeout", "30", *USER),
            uwsgi_tls(*options, "--http-to", node) as daemon,
        ):
            daemon.wait_for_workers(1)
            yield Site(daemon, (host, PORT)), False
            assert "defect" not in daemon.log


@pytest.fixture
def scene(server: tuple[Site, bool]) -> Iterator[Scene]:
    site, in_worker = server
    with open_directory() as place:
        place.chmod(0o777)
        os.mkfifo(place / "fifo")
        (place / "fifo").chmod(0o666)
        yield Scene(site, place, in_worker)


class Stream:
    """The response to one request, read as it comes; h11 takes the chunks apart."""

    def __init__(self, client: Client, target: str) -> None:
        self._client = client
        self._judge = h11.Connection(h11.CLIENT)
        request = h11.Request(method="GET", target=target, headers=[("Host", "server.lab")])
        client.send((self._judge.send(request) or b"") + (self._judge.send(h11.EndOfMessage()) or b""))

    def event(self) -> h11.Event:
        """The next part of the response: its head, something of its body, its end. Waits for it."""
        while (event := self._judge.next_event()) is h11.NEED_DATA:
            self._judge.receive_data(self._client.tls.recv(READ_BYTES))
        assert isinstance(event, h11.Event), event
        return event

    def text(self) -> str:
        """The body up to the end of the next server-sent event."""
        text = b""
        while not text.endswith(b"\n\n"):
            event = self.event()
            assert isinstance(event, h11.Data), event
            text += event.data
        return text.decode()

    def blocks(self, total: int) -> Iterator[bytes]:
        """The body, as it comes, until so many bytes have come."""
        while total > 0:
            event = self.event()
            assert isinstance(event, h11.Data), event
            yield bytes(event.data)
            total -= len(event.data)


# --- one event after the other --------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_each_event_arrives_before_the_next_is_made(scene: Scene, newest: ssl.TLSVersion) -> None:
    with scene.site.connect(newest=newest) as client:
        stream = Stream(client, f"/events?{scene.place}")
        with scene.open_fifo() as fifo:
            for number in range(200):
                fifo.write(f"data: {number}\n")
                if number == 0:
                    head = stream.event()
                    assert isinstance(head, h11.Response)
                    assert (b"content-type", b"text/event-stream") in list(head.headers)
                    assert (b"transfer-encoding", b"chunked") in list(head.headers)
                assert stream.text() == f"data: {number}\n\n"
        assert isinstance(stream.event(), h11.EndOfMessage)
        scene.wait_for_close()
        assert client.ask(get("/")).body == b"fine"  # the connection is as good as before


def test_a_quiet_stream_stays(scene: Scene) -> None:
    """For longer than any deadline: neither client nor application owes anything; of a backend it is a sign of life."""
    with scene.site.connect() as client:
        stream = Stream(client, f"/events?{scene.place}")
        with scene.open_fifo() as fifo:
            fifo.write("data: first\n")
            stream.event()
            assert stream.text() == "data: first\n\n"
            if scene.in_worker:
                client.tls.settimeout(2.5 * SILENCE_SECONDS)
                with pytest.raises(TimeoutError):
                    client.tls.recv(1)
            for _ in range(0 if scene.in_worker else 5):
                client.tls.settimeout(0.5 * SILENCE_SECONDS)
                with pytest.raises(TimeoutError):
                    client.tls.recv(1)
                fifo.write(": still here\n")
                assert stream.text() == ": still here\n\n"
            client.tls.settimeout(SECONDS)
            fifo.write("data: last\n")
            assert stream.text() == "data: last\n\n"
        assert isinstance(stream.event(), h11.EndOfMessage)


def test_a_client_that_leaves_ends_its_stream(scene: Scene) -> None:
    """The application hears of it at its next event, and the log has the request."""
    with scene.site.connect() as client:
        stream = Stream(client, f"/events?{scene.place}")
        fifo = scene.open_fifo()
        fifo.write("data: first\n")
        stream.event()
        assert stream.text() == "data: first\n\n"

    def closed() -> bool:
        with contextlib.suppress(BrokenPipeError):
            fifo.write("data: nobody hears this\n")
        return (scene.place / "closed").exists()

    wait_until(closed, SECONDS, lambda: f"the application goes on\n{scene.site.daemon.log}")
    with contextlib.suppress(BrokenPipeError):
        fifo.close()
    scene.site.daemon.wait_for_line(re.escape(f"GET /events?{scene.place} "), SECONDS)


# --- a producer that outruns its client -----------------------------------------------------------------


def wait_until_it_rests(scene: Scene, beyond: int) -> int:
    """Wait until the producer has made more than `beyond` bytes and then no more for a while; returns how many."""
    made, since = 0, time.monotonic()

    def rests() -> bool:
        nonlocal made, since
        now, before = time.monotonic(), made
        made = scene.made()
        if made != before or made <= beyond:
            since = now
        return now - since > CALM_SECONDS

    wait_until(rests, 30.0, lambda: f"{scene.made()} bytes were made")
    return made


def check_numbers(blocks: Iterator[bytes], start: int) -> int:
    """Whether the blocks go on where they have to, as long as they come; returns where they ended."""
    rest, at = b"", start
    for block in blocks:
        rest += block
        while len(rest) >= 65536:
            assert rest[:65536] == at.to_bytes(8, "big") * 8192
            rest, at = rest[65536:], at + 65536
    return at + len(rest)


def test_a_producer_waits_for_its_client(scene: Scene) -> None:
    """At the high-water mark, and goes on when the client does. Not a byte is lost, and the disk is given back."""
    with scene.site.connect(receive_buffer_bytes=4096) as client:
        stream = Stream(client, f"/endless?{scene.place}")
        assert isinstance(stream.event(), h11.Response)
        made = wait_until_it_rests(scene, HIGH_WATER_BYTES // 2)
        assert made <= HIGH_WATER_BYTES + KERNEL_BYTES
        if is_root:
            assert HIGH_WATER_BYTES // 2 < scene.spooled() <= HIGH_WATER_BYTES + MIB  # and the block that it waits with
        assert scene.site.ask(get("/")).body == b"fine"
        client.tls.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        taken = check_numbers(stream.blocks(HIGH_WATER_BYTES + HIGH_WATER_BYTES // 4), 0)
        more = wait_until_it_rests(scene, made)
        assert taken < more <= taken + HIGH_WATER_BYTES + KERNEL_BYTES
        if is_root:
            print(f"{scene.spooled() >> 20} MiB of the disk")
            assert scene.spooled() <= 2 * HIGH_WATER_BYTES  # what was taken is let go of from time to time
        assert scene.site.ask(get("/")).body == b"fine"
    scene.wait_for_close()
    if is_root:
        wait_until(lambda: scene.spooled() == 0, SECONDS, lambda: f"{scene.spooled()} bytes are still there")
