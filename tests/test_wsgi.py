"""backends/wsgi.py on a connection that is not there: what is sent when the client is slow, or leaves.

The exchange is the real one, so that the two are tested together; over real TLS: blackbox/test_wsgi.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest
from wire import ALL, LIMITS, Wire

from uwsgi_tls.access_log import AccessLog, AccessRecord
from uwsgi_tls.backends.wsgi import FileWrapper, WsgiBackend
from uwsgi_tls.gone import Gone
from uwsgi_tls.lounge import Lounge
from uwsgi_tls.service import Room, Service
from uwsgi_tls.spool import Spool

BIG = b"0123456789abcdef" * 10_000

Environ = dict[str, Any]


class Blocks:
    """An iterable that counts how often it is closed, and runs what it is given between its blocks."""

    def __init__(self, *blocks: bytes | Callable[[], object]) -> None:
        self.blocks = blocks
        self.closes = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            if isinstance(block, bytes):
                yield block
            else:
                block()

    def close(self) -> None:
        self.closes += 1


class CountedFile(io.FileIO):
    """A file that counts how often it is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.closes = 0

    def close(self) -> None:
        self.closes += 1
        super().close()


@pytest.fixture
def wire() -> Wire:
    lounge = Lounge(2)
    backend = WsgiBackend(lambda environ, start: [], multithread=False, multiprocess=False)
    service = Service(LIMITS, lounge, backend, Room(1), export_cert=False, worker=1, pid=1)
    return Wire(service)


def call(wire: Wire, application: Callable[[Environ, Any], Iterable[bytes]], request: str = "GET / HTTP/1.1") -> bool:
    """What WsgiBackend.handle returns for a request."""
    exchange = wire.begin(f"{request}\r\nHost: server.lab\r\n\r\n")
    return WsgiBackend(application, multithread=False, multiprocess=False).handle(exchange)


def answering(result: Any, *headers: tuple[str, str]) -> Callable[[Environ, Any], Any]:
    def application(environ: Environ, start: Any) -> Any:
        start("200 OK", list(headers))
        return result() if callable(result) else result

    return application


def unlinked_files() -> int:
    """How many files without a name this process has open: spools."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            count += os.readlink(f"/proc/self/fd/{name}").endswith(" (deleted)")
    return count


LENGTH = ("Content-Length", str(len(BIG)))


# --- a client that is slow ------------------------------------------------------------------------------


def test_all_is_taken_at_once(wire: Wire) -> None:
    blocks = Blocks(b"a", b"b")
    assert call(wire, answering(blocks))
    assert wire.body == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    assert (blocks.closes, wire.step, wire.closed) == (1, None, False)


def test_head_and_first_block_go_together(wire: Wire) -> None:
    sizes: list[int] = []
    write = wire.write
    wire.write = lambda data: sizes.append(len(data)) or write(data)  # type: ignore[method-assign,func-returns-value]
    assert call(wire, answering([b"small"]))
    assert sizes == [len(wire.taken)]


@pytest.mark.parametrize("first", [0, 1, 50, 1000, 100_000])
@pytest.mark.parametrize("each", [1000, 99_999, ALL])
@pytest.mark.parametrize("kind", ["list", "generator", "write", "file"])
def test_what_is_not_taken_waits_in_order(wire: Wire, tmp_path: Path, kind: str, first: int, each: int) -> None:
    (tmp_path / "big").write_bytes(BIG)
    files: list[CountedFile] = []
    blocks = Blocks(BIG[:70_000], BIG[70_000:])

    def application(environ: Environ, start: Any) -> Iterable[bytes]:
        write = start("200 OK", [LENGTH])
        if kind == "write":
            write(BIG[:50_000])
            write(BIG[50_000:])
            return []
        if kind == "file":
            files.append(CountedFile(tmp_path / "big"))
            return FileWrapper(files[0])
        return [BIG] if kind == "list" else blocks

    wire.capacity = first
    assert not call(wire, application), "the caller must not go on with the connection"
    assert blocks.closes == (kind == "generator")
    while wire.step is not None:
        wire.drain(each)
    assert wire.body == BIG
    assert (wire.resumed, wire.closed) == (1, False)
    assert [file.closes for file in files] == [1] * (kind == "file")
    assert wire.service.requests == 1


def test_a_response_that_runs_dry_between_blocks(wire: Wire) -> None:
    """The connection comes back to the application's thread, and may be given away again."""
    wire.capacity = 10
    application = answering(Blocks(b"one", wire.drain, b"two", lambda: setattr(wire, "capacity", 1), b"three"))
    assert not call(wire, application)
    wire.drain()
    assert wire.body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
    assert wire.resumed == 1


def test_a_response_that_runs_dry_before_its_end(wire: Wire) -> None:
    wire.capacity = 10
    assert call(wire, answering(Blocks(BIG, wire.drain), LENGTH)), "the caller goes on, nobody else does"
    assert wire.body == BIG
    assert (wire.resumed, wire.step) == (0, None)


# --- a client that leaves -------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [(), (LENGTH,)], ids=["chunked", "with a length"])
@pytest.mark.parametrize("when", ["before the first", "in the first", "after the first", "at the end"])
def test_a_client_that_leaves_is_never_gone_on_with(wire: Wire, header: tuple[tuple[str, str], ...], when: str) -> None:
    """close() is called once, whatever comes; True would give the caller a descriptor that is somebody else's."""
    wire.capacity = 10 if when != "before the first" else ALL
    blocks = {
        "before the first": Blocks(wire.leave, BIG),
        "in the first": Blocks(BIG, wire.leave),
        "after the first": Blocks(BIG[:5000], wire.leave, BIG[5000:]),
        "at the end": Blocks(BIG[:5000], BIG[5000:], wire.leave),
    }[when]
    assert not call(wire, answering(blocks, *header))
    if not wire.closed:  # the lounge's sweep does it where the connection is still parked
        wire.leave()
    assert blocks.closes == 1
    assert (wire.closed, wire.resumed) == (True, 0)
    assert wire.service.requests == 1, "logged once"


def test_an_application_that_swallows_the_news(wire: Wire) -> None:
    def application(environ: Environ, start: Any) -> Iterable[bytes]:
        write = start("200 OK", [("Content-Length", "5")])
        wire.left = True
        for _ in range(2):
            with pytest.raises(Gone):
                write(b"hello")
        return []

    assert not call(wire, application)
    assert wire.closed


@pytest.mark.parametrize("capacity", [0, 10, 100_000, ALL])
def test_a_client_that_leaves_a_file(wire: Wire, tmp_path: Path, capacity: int) -> None:
    (tmp_path / "big").write_bytes(BIG)
    file = CountedFile(tmp_path / "big")
    wire.capacity, wire.left = capacity, capacity == ALL
    assert not call(wire, answering(lambda: FileWrapper(file)))
    wire.leave()
    assert (file.closes, wire.closed, wire.resumed) == (1, True, 0)


@pytest.mark.parametrize("blocks", [(), (b"more",)])
def test_an_application_that_raises_while_its_client_is_slow(wire: Wire, blocks: tuple[bytes, ...]) -> None:
    """The lounge has the connection, so only its sweep may close it: a deadline in the past makes that soon."""

    def fail() -> None:
        raise RuntimeError

    wire.capacity = 10
    body = Blocks(BIG, *blocks, fail)
    assert not call(wire, answering(body))
    assert (body.closes, wire.closed, wire.deadline) == (1, False, 0.0)
    wire.drain()  # the client may have read some before the sweep
    assert (wire.closed, wire.resumed) == (True, 0)
    assert len(wire.body) < len(BIG)


def test_the_log_tells_what_was_sent(wire: Wire) -> None:
    records: list[AccessRecord] = []
    wire.service.access_log = cast(AccessLog, SimpleNamespace(write=records.append))
    wire.capacity = 1000
    assert not call(wire, answering([BIG]))
    wire.leave()
    assert call(Wire(wire.service), answering([BIG]))
    assert 0 < records[0]["rsize"] < 1000
    assert (records[1]["rsize"], records[1]["status"]) == (len(BIG), 200)


def test_no_spool_is_left_open(wire: Wire) -> None:
    before = unlinked_files()
    wire.capacity = 10
    assert not call(wire, answering([BIG]))
    assert unlinked_files() == before + 1  # over memory_bytes it is a file
    wire.leave()
    assert unlinked_files() == before


# --- what goes wrong with files -------------------------------------------------------------------------


def test_a_file_that_becomes_shorter_ends_the_connection(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    file = CountedFile(tmp_path / "big")
    wire.capacity = 70_000
    assert not call(wire, answering(lambda: FileWrapper(file)))
    os.truncate(tmp_path / "big", 10)
    while wire.step is not None:
        wire.drain()
    assert (file.closes, wire.closed, wire.resumed) == (1, True, 0)


def test_a_file_that_its_application_closes(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    file = CountedFile(tmp_path / "big")
    wire.capacity = 70_000
    assert not call(wire, answering(lambda: FileWrapper(file)))
    file.close()  # its descriptor is another's by then
    while wire.step is not None:
        wire.drain()
    assert (wire.closed, wire.resumed) == (False, 1)
    assert wire.taken.endswith(BIG)


def test_a_file_after_write_has_no_second_head(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"file")

    def application(environ: Environ, start: Any) -> Iterable[bytes]:
        start("200 OK", [])(b"written ")
        return FileWrapper(CountedFile(tmp_path / "small"))

    assert call(wire, application)
    assert wire.taken.count(b"HTTP/1.1") == 1
    assert wire.body == b"8\r\nwritten \r\n4\r\nfile\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_line", ["HEAD / HTTP/1.1", "GET / HTTP/1.1"])
def test_an_empty_file(wire: Wire, tmp_path: Path, request_line: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    file = CountedFile(tmp_path / "empty")
    assert call(wire, answering(lambda: FileWrapper(file)), request_line)
    assert b"\r\nContent-Length: 0\r\n" in wire.taken
    assert (wire.body, file.closes) == (b"", 1)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "200 OK"])
def test_a_file_where_no_body_may_be(wire: Wire, tmp_path: Path, status: str) -> None:
    (tmp_path / "big").write_bytes(BIG)
    file = CountedFile(tmp_path / "big")

    def application(environ: Environ, start: Any) -> Iterable[bytes]:
        start(status, [])
        return FileWrapper(file)

    assert call(wire, application, "HEAD / HTTP/1.1" if status == "200 OK" else "GET / HTTP/1.1")
    assert (wire.body, file.closes) == (b"", 1)
    assert (b"Content-Length" in wire.taken) == (status == "200 OK")


def _pipe() -> BinaryIO:
    reader, writer = os.pipe()
    os.close(writer)
    return os.fdopen(reader, "rb")


def _at(position: int) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 the test closes it
    file.write(b"x" * 100)
    file.seek(position)
    return file


@pytest.mark.parametrize(
    ("make", "remaining"),
    [
        (lambda: _at(0), 100),
        (lambda: _at(30), 70),
        (lambda: _at(100), 0),
        (lambda: _at(1000), 0),
        (_pipe, None),
        (lambda: io.BytesIO(b"x"), None),
        (object, None),
    ],
    ids=["whole", "rest", "end", "past the end", "pipe", "memory", "no file"],
)
def test_remaining(make: Callable[[], Any], remaining: int | None) -> None:
    file = make()
    try:
        assert FileWrapper(file).remaining() == remaining
    finally:
        FileWrapper(file).close()


def test_file_wrapper_can_be_iterated() -> None:
    """As a middleware does that looks into every body."""
    wrapper = FileWrapper(io.BytesIO(b"0123456789"), 4)
    assert list(wrapper) == [b"0123", b"4567", b"89"]


# --- the request's body ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 100_000])
@pytest.mark.parametrize("raises", [False, True])
def test_the_body_is_readable_and_closed_afterwards(wire: Wire, size: int, raises: bool) -> None:
    before = unlinked_files()
    body = Spool(LIMITS.memory_bytes)
    body.append(b"x" * size)
    exchange = wire.begin(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
    exchange.body = body
    seen: list[bytes] = []

    def application(environ: Environ, start: Any) -> Iterable[bytes]:
        with environ["wsgi.input"] as source:  # else it is closed with the last reference to it
            seen.append(source.read())
        if raises:
            raise RuntimeError
        start("200 OK", [])
        return []

    assert WsgiBackend(application, multithread=False, multiprocess=False).handle(exchange)
    assert seen == [b"x" * size]
    assert wire.head.startswith("HTTP/1.1 500 Internal Server Error\r\n" if raises else "HTTP/1.1 200 OK\r\n")
    assert body.size == 0
    assert unlinked_files() == before


# --- requests that waited for a thread ------------------------------------------------------------------


@pytest.mark.parametrize("failure", [Gone("left"), OSError("bad file descriptor"), AssertionError("a defect")])
def test_one_queued_request_does_not_take_the_thread_from_the_next(wire: Wire, failure: Exception) -> None:
    """run_queued is called outside the lounge's own guard: an exception there would end the service thread."""
    service = wire.service
    wires = [Wire(service) for _ in range(3)]
    assert service.room.enter()
    for other in wires:
        assert not service.dispatch(other.begin("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))

    def fail() -> None:
        raise failure

    wires[1].resume = fail  # type: ignore[method-assign]
    service.room.leave()
    service.backend = WsgiBackend(answering([b"x"]), multithread=False, multiprocess=False)
    service.run_queued()
    assert [other.resumed for other in wires] == [1, 0, 1]
    assert [other.closed for other in wires] == [False, True, False]
    assert service.room.next() is None
