"""Every limit: reached by clients who go too far, answered as its option says, and over when they have gone.

The server is real, and so are its sockets; what the worker has open and how long it works is what /proc says.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .raw_client import chunked, get, post
from .server import USER, Daemon, Process, command, is_root, loopback, open_directory, wait_until
from .test_hostile import cpu_seconds, descriptors
from .test_http_to import PORT, SECONDS, Call, Client, Node, Truncated, client_context, front, https

needs_root = pytest.mark.skipif(not is_root, reason="only root may look into processes that are not dumpable (proc(5))")

PROMPTLY_SECONDS = 2.0  # far less than any of the server's deadlines here, far more than an answer takes
APPLICATION = """
import time

BLOCK = b"x" * 65536
def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/wait":
        time.sleep(5)
    elif path == "/named":
        start_response("200 OK", [("Server", "application"), ("Content-Length", "0")])
        return []
    elif path == "/body":
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"%d" % len(body)]
    elif path == "/big":
        start_response("200 OK", [("Content-Length", query)])
        return (BLOCK[: min(65536, int(query) - at)] for at in range(0, int(query), 65536))
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A running server, and its one worker."""

    daemon: Daemon
    host: str
    worker: Process

    def connect(self, source: str = "") -> socket.socket:
        """A TCP connection that has said nothing."""
        sock = socket.socket()
        if source:
            sock.bind((source, 0))
        sock.settimeout(SECONDS)
        sock.connect((self.host, PORT))
        return sock

    def client(self, source: str = "") -> ssl.SSLSocket:
        """A TLS connection on which nothing has been asked."""
        return client_context().wrap_socket(self.connect(source), server_hostname="server.lab")

    def asks(self, path: str = "/", seconds: float = PROMPTLY_SECONDS) -> int:
        """The status that a polite client gets on a connection of its own, and soon."""
        began = time.monotonic()
        with Client(self.host) as client:
            status = client.get(path).status
        assert time.monotonic() - began < seconds
        return status

    def wait_for_line(self, pattern: str) -> None:
        self.daemon.wait_for_line(pattern)

    def lines(self, text: str) -> int:
        return sum(text in line for line in self.daemon.lines)


@contextlib.contextmanager
def site(*options: str, nodes: Sequence[Node] = (), limit: int = 0) -> Iterator[Site]:
    """The server with the application above, or before these nodes; `limit`: of its descriptors."""
    with contextlib.ExitStack() as stack:
        words = ["--listen", "400", *options]
        if not nodes:
            directory = stack.enter_context(open_directory())
            (directory / "app.py").write_text(APPLICATION)
            words += ["--wsgi-file", str(directory / "app.py")]
        daemon, host = stack.enter_context(front(*nodes, options=words, descriptors=limit))
        (worker,) = daemon.wait_for_workers(1)
        yield Site(daemon, host, worker)
        assert "defect" not in daemon.log
        assert "Traceback" not in daemon.log


@contextlib.contextmanager
def node(behave: Callable[[Call], object] = Call.answer) -> Iterator[Node]:
    with open_directory() as directory:
        directory.chmod(0o777)
        with Node(directory / "node", behave) as node:
            yield node


def status_of(sock: socket.socket) -> int:
    """The status of the next answer's head."""
    return int(sock.recv(65536).split()[1])


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while block := sock.recv(65536):
        data += block
    return data


def assert_rests(worker: Process, seconds: float = 1.0) -> None:
    before = cpu_seconds(worker)
    threading.Event().wait(seconds)
    assert cpu_seconds(worker) - before < 0.2 * seconds


# --- worker-connections -----------------------------------------------------------------------


def test_idle_connections_give_way() -> None:
    """Those that have been idle longest: who comes is let in without delay, who waits for an answer has it."""
    go_on = threading.Event()

    def behave(call: Call) -> None:
        if call.variables["PATH_INFO"] == "/wait":
            go_on.wait(SECONDS)
        call.answer()

    with (
        node(behave) as behind,
        site("--worker-connections", "16", nodes=[behind]) as here,
        contextlib.ExitStack() as stack,
    ):
        busy = [stack.enter_context(Client(here.host)) for _ in range(4)]
        for client in busy:
            client.send("GET", "/wait")
        for _ in range(2):
            idle = [stack.enter_context(Client(here.host)) for _ in range(9)]
            for number in [*range(9), *range(4)]:
                assert idle[number].get().status == 200
            threading.Event().wait(1.1)
            for _ in range(5):
                newcomer = stack.enter_context(Client(here.host))
                assert newcomer.get().status == 200
                assert newcomer.get().status == 200
            here.wait_for_line("worker-connections.*idle ones give way")
            assert all(client.ended() for client in idle[4:7]), "with close_notify"
            assert idle[3].get().status == 200, "it is not among those who have been idle longest"
            threading.Event().wait(1.1)
        go_on.set()
        assert [client.read_answer().status for client in busy] == [200] * 4
        assert here.lines("idle ones give way") == 1
        assert here.lines("is full") == 0


@needs_root
def test_silent_connections_give_way() -> None:
    """Before their handshake as after it; and a client that is only slow to begin is not taken for silent."""
    with site("--worker-connections", "32") as here, contextlib.ExitStack() as stack:
        before = descriptors(here.worker)
        silent: list[socket.socket] = [stack.enter_context(here.connect()) for _ in range(60)]
        silent += [stack.enter_context(here.client()) for _ in range(30)]
        for _ in range(10):
            assert here.asks(seconds=5.0) == 200
        assert descriptors(here.worker) <= before + 33
        assert sum(not is_open(sock) for sock in silent) >= 58
    assert here.lines("idle ones give way") >= 1


def is_open(sock: socket.socket) -> bool:
    sock.settimeout(0.05)
    try:
        read_to_end(sock)
        return False
    except TimeoutError:
        return True
    except OSError:
        return False


@needs_root
def test_at_the_limit_the_accept_loop_rests() -> None:
    """Everybody is busy: those who come wait in the queue, without costing anything, until somebody leaves."""
    with site("--worker-connections", "8") as here, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(here.client()) for _ in range(8)]
        for sock in busy:
            sock.sendall(post("/body", b"xyz")[:-1])
        waiting = [stack.enter_context(here.connect()) for _ in range(30)]
        here.wait_for_line("is full and accepts nobody until somebody leaves: 8 connections")
        assert_rests(here.worker)
        for connection in waiting:
            connection.close()
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(here.asks(seconds=SECONDS)), daemon=True)
        thread.start()
        thread.join(0.5)
        assert answers == []
        busy[3].close()
        thread.join(PROMPTLY_SECONDS)
        assert answers == [200]
        busy[4].sendall(b"z")
        assert status_of(busy[4]) == 200
        assert here.lines("is full") == 1


def test_a_full_worker_can_be_stopped() -> None:
    with site("--worker-connections", "2", "--reload-mercy", "1") as here, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(here.client()).sendall(b"GET / HTTP/1.1\r\nX-Never-Ends: ")
        stack.enter_context(here.connect())
        here.wait_for_line("is full")


@needs_root
@pytest.mark.parametrize("through", ["application", "backend"])
def test_hardly_any_descriptors(through: str) -> None:
    """200 connections where 64 files may be open: no exit, no spin, hardly a line; those who ask are answered."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(node())] if through == "backend" else []
        here = stack.enter_context(site("--https-handshake-timeout", "3", nodes=nodes, limit=64))
        polite = stack.enter_context(Client(here.host))
        assert polite.get().status == 200
        crowd = [stack.enter_context(here.connect()) for _ in range(200)]
        before = cpu_seconds(here.worker)
        began = time.monotonic()
        for _ in range(10):
            assert polite.get().status == 200
            threading.Event().wait(0.1)
        assert descriptors(here.worker) <= 64
        for _ in range(10):
            assert here.asks(seconds=SECONDS) == 200
        assert cpu_seconds(here.worker) - before < 0.5 * (time.monotonic() - began) + 0.5
        for sock in crowd:
            sock.close()
        wait_until(lambda: descriptors(here.worker) < 30, 10, lambda: f"{descriptors(here.worker)}")
        with contextlib.ExitStack() as many:
            for client in [many.enter_context(Client(here.host)) for _ in range(10)]:
                assert client.get().status == 200
        assert here.daemon.wait_for_workers(1)[0].pid == here.worker.pid
        assert here.lines("Too many open files") == 0
        assert here.lines("is full") + here.lines("give way") < 4


@pytest.mark.parametrize("options", [(), ("--connections-per-client", "2")], ids=["any number", "two each"])
@pytest.mark.parametrize("words", ["hello", "head"])
def test_clients_that_never_ask_keep_nobody_out(options: tuple[str, ...], words: str) -> None:
    """Who has begun a handshake or a head, and no more, gives way where all is taken: to somebody else, and soon."""
    with site("--worker-connections", "16", *options) as here, contextlib.ExitStack() as stack:
        for _ in range(16):
            if words == "hello":
                stack.enter_context(here.connect("127.0.0.9")).sendall(hello())
            else:
                with contextlib.suppress(OSError):  # it gives way itself, if the server has been slow
                    stack.enter_context(here.client("127.0.0.9")).sendall(b"G")
        for _ in range(5):
            assert here.asks() == 200
        assert here.lines("is full") <= 1


@needs_root
def test_who_is_one_too_many_is_gone_soon() -> None:
    """Told 429 if it asks in time, and not waited for like the others."""
    with site("--connections-per-client", "1") as here, here.client() as first:
        others = [here.connect(), here.connect(), here.client()]
        others[1].sendall(hello())
        others[2].sendall(b"GET /")
        began = time.monotonic()
        for sock in others:
            with sock, contextlib.suppress(OSError):
                read_to_end(sock)
        assert time.monotonic() - began < 5
        first.sendall(get("/"))
        assert status_of(first) == 200


# --- https-max-handshakes ---------------------------------------------------------------------


@needs_root
def test_unfinished_handshakes_give_way_to_newer_ones() -> None:
    """Who says nothing, half a ClientHello, or no more than that, does not keep others out."""
    with site("--https-max-handshakes", "32", "--https-handshake-timeout", "60") as here:
        before = descriptors(here.worker)
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(Client(here.host)) for _ in range(40)]
            assert [client.get().status for client in kept] == [200] * 40
            crowd: list[socket.socket] = []
            for number in range(300):
                sock = stack.enter_context(here.connect())
                sock.sendall((b"", b"\x16\x03\x01", hello())[number % 3])
                crowd.append(sock)
                if number % 20 == 0:
                    assert here.asks() == 200
            assert here.asks() == 200
            assert descriptors(here.worker) <= before + 40 + 34
            assert [client.get().status for client in kept] == [200] * 40, "their handshakes are over"
            assert sum(is_open(sock) for sock in crowd[:200]) == 0
            here.wait_for_line(r"handshakes are under way \(https-max-handshakes\): the oldest give way")
            assert here.lines("https-max-handshakes") == 1
        wait_until(lambda: descriptors(here.worker) <= before, 10, lambda: f"{descriptors(here.worker)}")
        assert here.asks() == 200


def hello() -> bytes:
    """A whole ClientHello."""
    outgoing = ssl.MemoryBIO()
    tls = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="server.lab")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


# --- connections-per-client -------------------------------------------------------------------


def test_one_address_has_so_many_connections() -> None:
    """One more is told 429, and when to come back; other addresses are not concerned; and who leaves makes room."""
    with site("--connections-per-client", "3") as here, contextlib.ExitStack() as stack:
        mine = [stack.enter_context(Client(here.host)) for _ in range(3)]
        assert [client.get().status for client in mine] == [200] * 3
        for _ in range(3):
            with Client(here.host) as client:
                answer = client.get()
                assert (answer.status, answer.headers["connection"]) == (429, "close")
                assert int(answer.headers["retry-after"]) > 0
                assert client.ended()
        with here.client(source="127.0.0.9") as other:
            other.sendall(get("/"))
            assert status_of(other) == 200
        assert [client.get().status for client in mine] == [200] * 3
        mine[0].__exit__()
        wait_until(lambda: here.asks() == 200, 5, lambda: here.daemon.log)


def test_a_connection_counts_until_it_ends_however_it_does() -> None:
    """Whatever became of it: afterwards there is room for exactly as many as before."""
    with site("--connections-per-client", "2", "--https-handshake-timeout", "1", "--http-timeout", "1") as here:

        def end(sock: socket.socket, *data: bytes) -> None:
            for each in data:
                sock.sendall(each)
            with contextlib.suppress(OSError):
                read_to_end(sock)
            sock.close()

        endings: list[Callable[[], None]] = [
            lambda: here.connect().close(),
            lambda: end(here.connect()),
            lambda: end(here.connect(), b"GET / HTTP/1.1\r\n\r\n"),
            lambda: end(here.connect(), b"neither TLS nor HTTP"),
            lambda: end(here.connect(), hello()[:-5] + b"wrong"),
            lambda: end(here.connect(), hello()),
            lambda: here.client().close(),
            lambda: end(here.client(), b"GET /"),
            lambda: end(here.client(), b"no request\r\n\r\n"),
            lambda: end(here.client(), get("/", "Connection: close")),
            lambda: end(here.client(), post("/body", b"x" * 100, "Connection: close")),
            lambda: end(here.client(), post("/body", b"x" * 100)[:-1]),
        ]
        for number, ending in enumerate(endings):
            ending()
            ending()
            with contextlib.ExitStack() as stack:

                def two() -> bool:
                    stack.close()
                    clients = [stack.enter_context(Client(here.host)) for _ in range(2)]
                    return all(client.get().status == 200 for client in clients)

                wait_until(two, 10, lambda number=number: f"ending {number}\n{here.daemon.log}")  # type: ignore[misc]
                with Client(here.host) as third:
                    assert third.get().status == 429, number


def test_behind_a_balancer_each_client_has_so_many() -> None:
    """Not the balancer: the client is who the PROXY header names."""
    options = ("--http-enable-proxy-protocol", "--proxy-protocol-trust", "127.0.0.0/8")
    with site("--connections-per-client", "1", *options) as here, contextlib.ExitStack() as stack:
        statuses = []
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            raw = stack.enter_context(here.connect())
            raw.sendall(f"PROXY TCP4 {address} 192.0.2.99 4711 443\r\n".encode())
            sock = stack.enter_context(client_context().wrap_socket(raw, server_hostname="server.lab"))
            sock.sendall(get("/"))
            statuses.append(status_of(sock))
        assert statuses == [200, 200, 429]


# --- http-body-timeout, http-body-min-rate, http-body-max-time --------------------------------


def dribble(sock: socket.socket, piece: bytes, pause: float) -> float:
    """Sends `piece` again and again until the server answers; the seconds until then."""
    began = time.monotonic()
    sock.settimeout(pause)
    while time.monotonic() - began < SECONDS:
        sock.sendall(piece)
        try:
            head = sock.recv(65536)
        except TimeoutError:
            continue
        assert head.startswith(b"HTTP/1.1 408 "), head
        assert b"\r\nConnection: close\r\n" in head
        return time.monotonic() - began
    raise AssertionError("not cut off")


BODY = get("/body", "Content-Length: 100000000", method="POST")
CHUNKS = get("/body", "Transfer-Encoding: chunked", method="POST")


@pytest.mark.parametrize(
    ("options", "head", "piece", "pause", "low", "high"),
    [
        pytest.param((), BODY, b"x", 0.2, 0.9, 2.5, id="bytes now and then"),
        pytest.param((), BODY, b"x" * 50, 0.1, 1.4, 4, id="half as many as there should be"),
        pytest.param((), CHUNKS, b"1;a=b\r\nx\r\n", 0.2, 0.9, 2.5, id="frames are no payload"),
        pytest.param(("--http-body-max-time", "2"), BODY, b"x" * 5000, 0.1, 1.9, 3.5, id="fast, but too long"),
    ],
)
def test_bodies_that_are_slow(
    options: tuple[str, ...], head: bytes, piece: bytes, pause: float, low: float, high: float
) -> None:
    with site("--http-body-timeout", "1", "--http-body-min-rate", "1000", *options) as here, here.client() as sock:
        sock.sendall(head)
        assert low < dribble(sock, piece, pause) < high
        assert here.asks() == 200


def test_a_body_that_is_slow_but_fair() -> None:
    with site("--http-body-timeout", "1", "--http-body-min-rate", "100") as here, here.client() as sock:
        sock.sendall(post("/body", b"x" * 1000)[:-1000])
        for _ in range(20):
            threading.Event().wait(0.1)
            sock.sendall(b"x" * 50)
        assert status_of(sock) == 200
        assert here.asks() == 200


# --- http-write-min-rate ----------------------------------------------------------------------


def test_a_client_that_takes_its_response_too_slowly() -> None:
    """Each piece in time is not enough to have so much kept for it."""
    options = ("--http-write-timeout", "2", "--http-write-min-rate", "50000000")
    with site(*options) as here, Client(here.host, receive_buffer=65536) as client:
        client.send("GET", "/big?30000000")
        began, taken = time.monotonic(), 0
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            while block := client.sock.recv(65536):
                taken += len(block)
                threading.Event().wait(0.01)
        assert 0 < taken < 25_000_000
        assert time.monotonic() - began > 2
        assert here.asks() == 200


# --- spool-limit ------------------------------------------------------------------------------

SPOOL = ("--spool-limit", "300000", "--post-buffering", "1000", "--threads", "4")


@needs_root
def test_bodies_that_do_not_fit_on_the_disk() -> None:
    """503 and when to come back: at once where the length says it, else when the disk is full; 413 stays 413."""
    with site(*SPOOL, "--limit-post", "1000000") as here, here.client() as one, here.client() as two:
        with here.client() as sock:
            sock.sendall(get("/body", "Content-Length: 400000", "Expect: 100-continue", method="POST"))
            head = sock.recv(65536)
            assert head.startswith(b"HTTP/1.1 503 "), "not asked for first"
            assert b"\r\nRetry-After: " in head
        with here.client() as sock:
            sock.sendall(get("/body", "Content-Length: 2000000", method="POST"))
            assert status_of(sock) == 413
        one.sendall(post("/body", b"1" * 200_000)[:-1])
        wait_until(lambda: spooled(here.worker) == 199_999, 5, lambda: f"{spooled(here.worker)}")
        two.sendall(chunked("/body", b"2" * 150_000, 10_000))
        assert status_of(two) == 503
        with Client(here.host) as small:
            small.send("POST", "/body", body=b"s" * 1000)
            assert small.read_answer().body == b"1000", "what memory holds needs no disk"
        one.sendall(b"1")
        assert one.recv(65536).endswith(b"\r\n\r\n200000")
        for _ in range(5):
            # The answer may be there a moment before the file of its request is gone.
            wait_until(lambda: spooled(here.worker) == 0, 5, lambda: f"{spooled(here.worker)}")
            with Client(here.host) as again:
                again.send("POST", "/body", body=b"a" * 290_000)
                assert again.read_answer().body == b"290000"


def test_a_response_that_does_not_fit_on_the_disk() -> None:
    """An application cannot be stopped: who does not take what it makes is cut, and others have room again."""
    with site(*SPOOL) as here:
        for _ in range(3):
            with Client(here.host, receive_buffer=4096) as client:
                client.send("GET", "/big?30000000")
                here.daemon.wait_for_line("could not be stored: .*spool-limit is reached")
                with pytest.raises(Truncated):
                    client.read_answer()
            with Client(here.host) as client:
                client.send("POST", "/body", body=b"a" * 290_000)
                assert client.read_answer().body == b"290000"


@needs_root
def test_an_answer_that_does_not_fit_on_the_disk_is_read_later() -> None:
    """Several clients that do not read: the node waits, nobody is cut, and each has every byte in the end."""
    size = 10_000_000
    sent = [0]

    def behave(call: Call) -> None:
        if call.variables["PATH_INFO"] != "/big":
            return call.answer()
        call.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for number in range(size // 1000):
            call.sock.sendall(b"%9d\n" % number * 100)
            sent[0] += 1000
        return None

    with node(behave) as behind, site(*SPOOL, nodes=[behind]) as here, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(here.host, receive_buffer=4096)) for _ in range(4)]
        for client in clients:
            client.send("GET", "/big")
        before = -1
        while before != sent[0]:
            before = sent[0]
            threading.Event().wait(0.3)
        assert sent[0] < 4 * size
        assert spooled(here.worker) <= 300_000
        assert_rests(here.worker)
        assert here.asks() == 200
        expected = b"".join(b"%9d\n" % number * 100 for number in range(size // 1000))
        for client in clients:
            # Out of so small a window what the kernel holds already would come a probe at a time: tcp(7), zero window.
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            assert client.read_answer().body == expected
        wait_until(lambda: spooled(here.worker) == 0, 5, lambda: f"{spooled(here.worker)}")
        assert here.lines("could not be stored") == 0


def spooled(worker: Process) -> int:
    """Bytes in the worker's files that have no name."""
    total = 0
    for link in Path(f"/proc/{worker.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(link.readlink()).endswith("(deleted)"):
                total += link.stat().st_size
    return total


# --- spool-dir --------------------------------------------------------------------------------


@needs_root
def test_spool_dir(tmp_path: Path) -> None:
    with open_directory() as directory:
        directory.chmod(0o777)
        with site(*SPOOL, "--spool-dir", str(directory)) as here, here.client() as sock:
            sock.sendall(post("/body", b"1" * 200_000)[:-1])

            def is_there() -> bool:
                links = (str(link.readlink()) for link in Path(f"/proc/{here.worker.pid}/fd").iterdir())
                return any(link.startswith(f"{directory}/") for link in links)

            wait_until(is_there, 5, lambda: here.daemon.log)
            assert list(directory.iterdir()) == []


@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("mode", "cause"),
    [
        pytest.param(None, "no such directory", id="not there"),
        pytest.param(0o700, f"{'www-data' if is_root else 'this user'} cannot make files there: Permission denied"),
    ],
)
@needs_root
def test_spool_dir_that_cannot_be_used(check: tuple[str, ...], mode: int | None, cause: str) -> None:
    """It is asked before the start, and as the user that the server becomes: what root may do is no answer."""
    with open_directory() as directory:
        spool = directory / "spool"
        if mode is not None:
            spool.mkdir(mode)
        words = command("--https", https(loopback()), *USER, "--spool-dir", str(spool), *check)
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [f"uwsgi-tls: spool-dir = {spool}: {cause} (command line)"]


# --- max-requests-per-connection, server-header -----------------------------------------------


def test_requests_of_one_connection() -> None:
    with site("--max-requests-per-connection", "3") as here:
        for _ in range(2):
            with Client(here.host) as client:
                assert [client.get().headers.get("connection") for _ in range(3)] == [None, None, "close"]
                assert client.ended()
        with here.client() as sock:
            sock.sendall(get("/") * 5)
            assert read_to_end(sock).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(("options", "ours"), [((), None), (("--server-header", "front/1 (x)"), "front/1 (x)")])
def test_server_header(options: tuple[str, ...], ours: str | None) -> None:
    """Ours where the application has none. Date is always there."""
    with site(*options) as here, Client(here.host) as client:
        for path, field in (("/", ours), ("/named", "application")):
            answer = client.get(path)
            assert answer.headers.get("server") == field
            assert answer.headers["date"].endswith(" GMT")


# --- those who wait for a thread --------------------------------------------------------------


@needs_root
def test_requests_that_wait_for_a_thread() -> None:
    """However many wait, they cost no thread; who leaves is forgotten, and the others are told 503 in time."""
    with site("--http-timeout", "3") as here, contextlib.ExitStack() as stack:
        busy = stack.enter_context(Client(here.host))
        busy.send("GET", "/wait")
        threads = here.worker.status()["Threads"]
        context = client_context()
        clients = [stack.enter_context(Client(here.host, context=context)) for _ in range(60)]
        for client in clients:
            client.send("GET")
        for client in clients[::2]:
            client.sock.close()
        for client in clients[1::2]:
            answer = client.read_answer()
            assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True)
        assert here.worker.status()["Threads"] == threads
        assert busy.read_answer().status == 200
        assert here.asks() == 200
