"""What waits for a hostile client costs nothing; a worker that has no descriptors left goes on with those it has."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pki import pki

from .server import USER, Daemon, Process, command, is_root, loopback, open_directory, wait_until
from .test_http_to import PORT, SECONDS, Client, Node, Truncated, client_context, front

needs_root = pytest.mark.skipif(not is_root, reason="only root may look into processes that are not dumpable (proc(5))")

BYTES = 50 * 1024 * 1024
APPLICATION = f"""
import ctypes, gc, sys

BLOCK = b"x" * 65536
HOARD = []

class Malloc(ctypes.Structure):  # struct mallinfo2: mallinfo(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Malloc

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/held":
        start_response("200 OK", [])
        gc.collect()
        malloc = mallinfo2()
        return [b"%d %d" % (malloc.uordblks + malloc.hblkhd, sys.getallocatedblocks())]
    if path == "/hoard":
        try:
            while True:
                HOARD.append(open("/dev/null"))
        except OSError:
            pass
    if path == "/release":
        HOARD.clear()
    if path in ("/big", "/file"):
        start_response("200 OK", [("Content-Length", "{BYTES}")])
        if path == "/file":
            return environ["wsgi.file_wrapper"](open(__file__ + ".big", "rb"))
        return (BLOCK for _ in range({BYTES} // len(BLOCK)))
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
"""


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """For programs that are started meanwhile. The soft limit may be as low as 1024; the hard one is not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def serving(*options: str, descriptors: int = 0) -> Iterator[tuple[Daemon, str, Process]]:
    """The server with the application above, the host it listens on, and its one worker."""
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(APPLICATION)
        with (directory / "app.py.big").open("wb") as file:
            file.truncate(BYTES)
        words = ["--https", f"{host}:{PORT},{server.crt},{server.key_file}", "--wsgi-file", str(directory / "app.py")]
        limit = ["prlimit", f"--nofile={descriptors}"] if descriptors else []
        with many_descriptors(), Daemon([*limit, *command(*words, "-L", *USER, *options)]) as daemon:
            (worker,) = daemon.wait_for_workers(1)
            yield daemon, host, worker


def connect(host: str) -> socket.socket:
    return socket.create_connection((host, PORT), SECONDS)


# --- what a process has -----------------------------------------------------------------------


def descriptors(process: Process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def cpu_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- what waits must cost nothing -------------------------------------------------------------


def assert_rests(worker: Process, seconds: float = 1.5) -> None:
    """The worker does next to nothing for so long: nobody who waits wakes it."""
    threading.Event().wait(0.3)  # what was under way
    before = cpu_seconds(worker)
    threading.Event().wait(seconds)
    used = cpu_seconds(worker) - before
    assert used < 0.15 * seconds, f"{used:.2f} s of CPU in {seconds} s"


HELLO_BEGINNING = bytes.fromhex("16030102000100")  # a record of 512 bytes, of which these are the first


def test_half_a_hello_wakes_nobody() -> None:
    """The bytes stay in the socket while the rest is waited for, and must not make it ready again and again."""
    with serving() as (_, host, worker), contextlib.ExitStack() as stack:
        for first in (b"", b"\x16", HELLO_BEGINNING, HELLO_BEGINNING + bytes(400)):
            for _ in range(50):
                stack.enter_context(connect(host)).sendall(first)
        assert_rests(worker)
        with Client(host) as client:
            assert client.get().status == 200


def test_waiting_for_a_node_wakes_nobody(tmp_path: Path) -> None:
    """Nor do clients that have sent far more than one request, or that never read, meanwhile."""
    go = threading.Event()
    with open_directory() as directory, contextlib.ExitStack() as stack:
        directory.chmod(0o777)
        node = stack.enter_context(Node(directory / "n", lambda call: go.wait(SECONDS)))
        server, host = stack.enter_context(front(node, options=("-L",)))
        stack.callback(go.set)
        (worker,) = server.wait_for_workers(1)
        context = client_context()
        for number in range(60):
            client = stack.enter_context(Client(host, context=context))
            client.send("GET", "/wait")
            client.sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                for _ in range(40 if number % 2 else 0):
                    client.sock.sendall(b"GET /more HTTP/1.1\r\nHost: h\r\n\r\n" * 300)
        assert_rests(worker)
        assert len(node.calls) == 60


def test_clients_that_do_not_read_wake_nobody() -> None:
    with serving() as (_, host, worker), contextlib.ExitStack() as stack:
        context = client_context()
        for _ in range(10):
            client = stack.enter_context(Client(host, context=context, receive_buffer=4096))
            client.send("GET", "/big")
        with Client(host) as client:
            assert client.get().status == 200  # behind the ten in the queue, so they have been answered
        assert_rests(worker)


# --- out of descriptors -----------------------------------------------------------------------


@needs_root
def test_out_of_descriptors() -> None:
    """The application has taken all there were: the worker neither ends nor spins, serves who is in, and recovers."""
    with serving(descriptors=64) as (daemon, host, worker):
        before = descriptors(worker)
        with contextlib.ExitStack() as stack:
            client, reader = (stack.enter_context(Client(host)) for _ in range(2))
            assert reader.get().status == 200
            assert client.get("/hoard").status == 200
            for _ in range(20):
                stack.enter_context(connect(host))
            daemon.wait_for_line("accepts nobody .*Too many open files")
            used = cpu_seconds(worker)
            for _ in range(10):
                assert client.get().status == 200
                threading.Event().wait(0.1)
            assert cpu_seconds(worker) - used < 0.3
            reader.send("GET", "/big")  # needs a descriptor for what the client does not take
            with contextlib.suppress(Truncated):
                assert reader.read_answer().status in (200, 500)
            assert descriptors(worker) <= 64
            assert client.get("/release").status == 200
            with Client(host) as other:  # although nobody has left
                assert other.get().status == 200
        wait_until(lambda: descriptors(worker) == before, 10, lambda: f"{descriptors(worker)}, were {before}")
        assert daemon.wait_for_workers(1)[0].pid == worker.pid
        assert worker.status()["Threads"] == "3"
        assert daemon.log.count("accepts nobody") == 1
        assert "defect" not in daemon.log
