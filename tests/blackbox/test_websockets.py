"""http-websockets: tunnels through the real server, with the `websockets` library as the client.

Behind it stand the real uWSGI with its own WebSocket API, the library's own server as an HTTP backend, and nodes made
by hand that answer with whatever the test says.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .server import Daemon, loopback, real_uwsgi, wait_until
from .test_http_to import MIB, PORT, SECONDS, Call, Client, Node, client_context, front, worker_status

KEY = base64.b64encode(b"0123456789abcdef").decode()
OPENING = (
    f"GET /ws?a=b HTTP/1.1\r\nHost: server.lab\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Seen: 1\r\n\r\n"

ECHO = """
import uwsgi

def application(environ, start_response):
    if environ["PATH_INFO"] == "/plain":
        start_response("200 OK", [("Content-Length", "5")])
        return [b"plain"]
    uwsgi.websocket_handshake(environ["HTTP_SEC_WEBSOCKET_KEY"], environ.get("HTTP_ORIGIN", ""))
    while True:
        message = uwsgi.websocket_recv()
        if message == b"bye":
            return []
        uwsgi.websocket_send_binary(message)
"""


def dial(host: str, path: str = "/ws", **options: Any) -> connect:
    return connect(
        f"wss://server.lab:{PORT}{path}", host=host, ssl=client_context(), max_size=None, compression=None, **options
    )


@contextlib.asynccontextmanager
async def http_node(behave: Callable[[ServerConnection], Awaitable[None]], **options: Any) -> AsyncIterator[str]:
    """The library's server on a TCP port; `behave` is a coroutine function."""
    async with serve(behave, loopback(), 0, max_size=None, compression=None, **options) as server:
        yield address_of(server)


def address_of(server: Server) -> str:
    host, port = next(iter(server.sockets)).getsockname()
    return f"{host}:{port}"


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def http_front(node: str, *options: str) -> AsyncIterator[tuple[Daemon, str]]:
    """Our server before an HTTP node of this very event loop, so it is started and stopped beside it."""
    with contextlib.ExitStack() as stack:
        manager = front(node, options=("--http-backend-http", "--http-websockets", *options))
        server, host = await asyncio.to_thread(stack.enter_context, manager)
        try:
            yield server, host
        finally:
            await asyncio.to_thread(stack.close)


# --- real backends ----------------------------------------------------------------------------


def test_echo_behind_the_real_uwsgi(directory: Path) -> None:
    """Text and large messages, ping and pong, a close by the server; and plain requests beside them."""
    (directory / "echo.py").write_text(ECHO)
    path = directory / "u.sock"

    async def talk(host: str) -> None:
        async with dial(host, origin="https://server.lab") as first, dial(host, origin="https://server.lab") as second:
            for number in range(50):
                for connection in (first, second):
                    await connection.send(b"%d" % number)
            for number in range(50):
                for connection in (first, second):
                    assert await connection.recv() == b"%d" % number
            large = os.urandom(900_000)  # websocket-max-size is a mebibyte in uWSGI
            await first.send(large)
            assert await first.recv() == large
            assert await (await first.ping(b"")) >= 0  # uWSGI's pong is always empty (core/websockets.c)
            await second.send(b"bye")
            with pytest.raises(ConnectionClosed):
                await second.recv()
            await first.send(b"still here")
            assert await first.recv() == b"still here"

    with (
        real_uwsgi(directory / "echo.py", str(path), "--processes", "4"),
        front(path, options=("--http-websockets",)) as (server, host),
    ):
        asyncio.run(asyncio.wait_for(talk(host), SECONDS))
        server.wait_for_line(r"GET /ws => .*\(HTTP/1.1 101\)", seconds=5)
        with Client(host) as client:
            assert client.get("/plain").body == b"plain"


def test_messages_and_close_codes_through_an_http_node() -> None:
    """40 MiB in one message each way, codes and reasons of both sides, subprotocols, other statuses."""

    async def behave(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path == "/leave":
            await connection.close(4001, "closed by the server")
            return
        with contextlib.suppress(ConnectionClosed):  # which a code of one's own counts as
            async for message in connection:
                await connection.send(message)
        seen.append((connection.close_code, connection.close_reason))
        left.set()

    def refuse(connection: ServerConnection, request: websockets.Request) -> websockets.Response | None:
        assert request.headers["X-Forwarded-Proto"] == "https"
        return connection.respond(403, "no\n") if request.path == "/forbidden" else None

    async def run() -> None:
        async with (
            http_node(behave, process_request=refuse, subprotocols=["chat"]) as node,
            http_front(node) as (server, host),
        ):
            async with dial(host, subprotocols=["chat"]) as connection:
                assert connection.subprotocol == "chat"
                large = os.urandom(40 * MIB)
                await connection.send(large)
                assert await connection.recv() == large
                await connection.send("text \N{SNOWMAN}")
                assert await connection.recv() == "text \N{SNOWMAN}"
                await connection.close(4002, "closed by the client")
            await left.wait()
            assert seen == [(4002, "closed by the client")]
            async with dial(host, "/leave", subprotocols=["chat"]) as connection:
                with pytest.raises(ConnectionClosed):
                    await connection.recv()
                assert (connection.close_code, connection.close_reason) == (4001, "closed by the server")
            with pytest.raises(InvalidStatus) as caught:
                await dial(host, "/forbidden", subprotocols=["chat"])
            assert caught.value.response.status_code == 403
            await asyncio.to_thread(server.wait_for_line, r"GET /leave => .*\(HTTP/1.1 101\)")
            size = re.search(r"GET /ws => generated (\d+) bytes", server.log)
            assert size is not None
            assert int(size[1]) > 40 * MIB

    seen: list[tuple[int | None, str | None]] = []
    left = asyncio.Event()
    asyncio.run(asyncio.wait_for(run(), 60))


def test_500_at_once_in_one_thread() -> None:
    """Each has its own echo, the worker has one thread for all, and everything is as before when they have left."""

    async def run() -> None:
        async with http_node(echo, ping_interval=None) as node, http_front(node) as (server, host):

            async def one(number: int) -> ClientConnection:
                connection = await dial(host, open_timeout=SECONDS, ping_interval=None)
                await connection.send(b"%d" % number)
                assert await connection.recv() == b"%d" % number
                return connection

            async with dial(host) as warm_up:
                await warm_up.send(b"x")
                await warm_up.recv()
            threads = worker_status(server, "Threads")
            connections: list[ClientConnection] = []
            for start in range(0, 500, 50):
                connections += await asyncio.gather(*(one(number) for number in range(start, start + 50)))
            assert worker_status(server, "Threads") == threads
            for round_number in range(3):
                await asyncio.gather(*(each.send(b"%d" % round_number) for each in connections))
                for each in connections:
                    assert await each.recv() == b"%d" % round_number
            await asyncio.gather(*(each.close() for each in connections))
            assert "defect" not in server.log

    asyncio.run(asyncio.wait_for(run(), 100))


# --- slow readers -----------------------------------------------------------------------------


@contextlib.contextmanager
def tunnel(client: Client, early: bytes = b"") -> Iterator[ssl.SSLSocket]:
    """The opening handshake, and the socket after its 101."""
    client.sock.sendall(OPENING + early)
    head = client.read_head()
    assert head.status == 101
    assert (head.headers["upgrade"], head.headers["connection"], head.headers["x-seen"]) == (
        "websocket",
        "Upgrade",
        "1",
    )
    yield client.sock


def switched(then: Callable[[Call], object]) -> Callable[[Call], None]:
    """What a node does that says 101 and then this."""

    def behave(call: Call) -> None:
        call.sock.sendall(SWITCHING)
        then(call)

    return behave


def test_a_slow_reader_holds_its_writer_not_our_memory(directory: Path) -> None:
    """Both ways: while one side does not read, the other can write no more than the buffers of the kernel take."""
    go = threading.Event()
    size = 64 * MIB
    sent = [0]

    def flood(call: Call) -> None:
        call.sock.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while sent[0] < size:
                sent[0] += call.sock.send(bytes(65536))
        go.wait(SECONDS)
        call.sock.settimeout(SECONDS)
        while sent[0] < size:
            sent[0] += call.sock.send(bytes(65536))
        call.wait_for_end()

    with Node(directory / "n", switched(flood)) as node, front(node, options=("--http-websockets",)) as (server, host):
        before = worker_status(server, "VmHWM")
        with Client(host, receive_buffer=65536) as client, tunnel(client) as sock:
            sock.settimeout(1.0)
            up = 0
            with contextlib.suppress(TimeoutError):
                while up < size:
                    up += sock.send(bytes(65536))
            assert up < 24 * MIB
            assert sent[0] < 24 * MIB
            growth = worker_status(server, "VmHWM") - before
            assert growth < 8 * 1024, f"{growth} kB"
            go.set()
            sock.settimeout(SECONDS)
            got = 0
            while got < size:
                got += len(client._stream.read1(1 << 20))
            assert got == size


# --- who may open one, and what else may be said ----------------------------------------------


def told(call: Call) -> dict[str, str | None]:
    return {name: call.variables.get(f"HTTP_{name}") for name in ("UPGRADE", "CONNECTION")}


@pytest.mark.parametrize(
    ("request_text", "passed"),
    [
        pytest.param(OPENING, True, id="as it should be"),
        pytest.param(OPENING.replace(b"websocket\r\n", b"h2c, WebSocket\r\n", 1), True, id="one of two"),
        pytest.param(OPENING.replace(b"websocket\r\n", b"h2c\r\n", 1), False, id="another protocol"),
        pytest.param(OPENING.replace(b"GET", b"POST"), False, id="method"),
        pytest.param(OPENING.replace(b"/1.1", b"/1.0"), False, id="HTTP/1.0"),
        pytest.param(OPENING.replace(b"Version: 13", b"Version: 8"), False, id="version"),
        pytest.param(OPENING.replace(KEY.encode(), b"short"), False, id="key"),
        pytest.param(OPENING.replace(b"keep-alive, Upgrade", b"keep-alive"), False, id="not in Connection"),
        pytest.param(
            OPENING.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n") + b"hi", False, id="a body comes with it"
        ),
    ],
)
def test_who_may_open_one(directory: Path, request_text: bytes, passed: bool) -> None:
    with Node(directory / "n") as node:
        for flag in ("--http-websockets", "--http-websockets=off"):
            with front(node, options=(flag,)) as (_, host), Client(host) as client:
                client.sock.sendall(request_text)
                assert client.read_answer().body == b"ok\n"
                asked = passed and flag == "--http-websockets"
                assert told(node.calls[-1]) == (
                    {"UPGRADE": "websocket", "CONNECTION": "Upgrade"}
                    if asked
                    else {"UPGRADE": None, "CONNECTION": "close"}
                )


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", SWITCHING, id="nobody asked"),
        pytest.param(OPENING.replace(b"GET", b"PUT"), SWITCHING, id="asked in the wrong way"),
        pytest.param(OPENING, SWITCHING.replace(b"websocket", b"h2c"), id="another protocol"),
        pytest.param(OPENING, SWITCHING.replace(b"Upgrade: websocket\r\n", b""), id="no protocol"),
    ],
)
def test_a_101_that_is_none(directory: Path, request_text: bytes, answer: bytes) -> None:
    with (
        Node(directory / "n", lambda call: call.sock.sendall(answer + b"\x81\x02hi")) as node,
        front(node, options=("--http-websockets",)) as (server, host),
        Client(host) as client,
    ):
        client.sock.sendall(request_text)
        assert client.read_answer().status == 502
        server.wait_for_line("502: .*a change of protocol that nobody asked for", seconds=5)


def test_bytes_before_the_101(directory: Path) -> None:
    """They wait for it, and then go first; what the node says with its 101 arrives, too."""
    ready, seen = threading.Event(), []

    def behave(call: Call) -> None:
        call.sock.setblocking(False)
        assert ready.wait(SECONDS)
        with contextlib.suppress(BlockingIOError):
            seen.append(call.sock.recv(1000))
        call.sock.setblocking(True)
        call.sock.sendall(SWITCHING + b"hello")
        call.sock.sendall(call.sock.recv(5, socket.MSG_WAITALL))

    with Node(directory / "n", behave) as node, front(node, options=("--http-websockets",)) as (_, host):
        with Client(host) as client:
            client.sock.sendall(OPENING + b"ea")
            wait_until(lambda: len(node.calls) == 1, SECONDS, lambda: "not asked")
            client.sock.sendall(b"rly")
            threading.Timer(0.2, ready.set).start()
            assert client.read_head().status == 101
            assert client._stream.read(10) == b"helloearly"
            assert client.ended()
        assert seen == []


def test_bytes_before_a_refusal_are_no_request(directory: Path) -> None:
    """A client that hopes for a 101 may send what somebody else has chosen: after a refusal none of it is read."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    with Node(directory / "n") as node, front(node, options=("--http-websockets",)) as (_, host):
        with Client(host) as client:
            client.sock.sendall(OPENING + smuggled)
            answer = client.read_answer()
            assert (answer.status, answer.stays) == (200, False)
            assert client.ended()
        assert [call.variables["PATH_INFO"] for call in node.calls] == ["/ws"]


def test_after_other_requests_on_the_same_connection(directory: Path) -> None:
    def behave(call: Call) -> None:
        if call.variables["PATH_INFO"] != "/ws":
            return call.answer()
        return switched(lambda call: call.sock.sendall(b"tunnel"))(call)

    with (
        Node(directory / "n", behave) as node,
        front(node, options=("--http-websockets",)) as (_, host),
        Client(host) as client,
    ):
        client.sock.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n" * 3 + OPENING)
        for _ in range(3):
            assert client.read_answer().body == b"ok\n"
        assert client.read_head().status == 101
        assert client._stream.read(6) == b"tunnel"
        assert client.ended()


def test_an_application_in_the_worker_has_no_tunnel(directory: Path) -> None:
    application = (
        "def application(environ, start):\n    start('200 OK', [])\n    return [repr(sorted(environ)).encode()]\n"
    )
    (directory / "app.py").write_text(application)
    with (
        front(options=("--wsgi-file", str(directory / "app.py"), "--http-websockets")) as (_, host),
        Client(host) as client,
    ):
        client.sock.sendall(OPENING)
        answer = client.read_answer()
        assert answer.status == 200
        assert b"HTTP_UPGRADE" not in answer.body
        assert b"HTTP_SEC_WEBSOCKET_KEY" in answer.body


# --- ends -------------------------------------------------------------------------------------


def test_a_client_that_ends_its_direction_hears_the_rest(directory: Path) -> None:
    """close_notify is the end of what the node reads, and no more (RFC 8446, 6.1)."""
    got = []

    def behave(call: Call) -> None:
        got.append(call.stream.read())
        call.sock.sendall(b"all of it: " + got[0])

    with Node(directory / "n", switched(behave)) as node, front(node, options=("--http-websockets",)) as (_, host):
        raw = socket.create_connection((host, PORT), SECONDS)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing, server_hostname="server.lab")

        def until(step: Callable[[], object]) -> object:
            while True:
                try:
                    done = step()
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    data = raw.recv(65536)
                    incoming.write(data) if data else incoming.write_eof()
                else:
                    raw.sendall(outgoing.read())
                    return done

        with raw:
            until(tls.do_handshake)
            tls.write(OPENING)
            raw.sendall(outgoing.read())
            assert b" 101 " in until(lambda: tls.read(4096))  # type: ignore[operator]  # bytes
            tls.write(b"x" * 100_000)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.unwrap()  # close_notify; it would wait for the server's
            sender = threading.Thread(target=raw.sendall, args=(outgoing.read(),))
            sender.start()
            wait_until(lambda: got == [b"x" * 100_000], SECONDS, lambda: f"{got}")
            sender.join(SECONDS)
            heard = b""
            raw.settimeout(SECONDS)
            while data := raw.recv(65536):
                heard += data
            assert len(heard) > 100_000  # still encrypted: Python's ssl reads no more after its own close_notify


def test_a_node_that_ends_its_direction_hears_the_rest(directory: Path) -> None:
    got = []

    def behave(call: Call) -> None:
        call.sock.sendall(b"my last word")
        call.sock.shutdown(socket.SHUT_WR)
        got.append(call.stream.read())

    with (
        Node(directory / "n", switched(behave)) as node,
        front(node, options=("--http-websockets",)) as (_, host),
        Client(host) as client,
        tunnel(client) as sock,
    ):
        assert client._stream.read() == b"my last word"  # up to close_notify
        sock.sendall(b"y" * 100_000)
        client._stream.close()
        sock.unwrap()
        wait_until(lambda: got == [b"y" * 100_000], SECONDS, lambda: f"{[len(each) for each in got]}")


@pytest.mark.parametrize("who", ["client", "node"])
def test_a_side_that_breaks_its_connection(directory: Path, who: str) -> None:
    """The other one learns that: the node its end, the client a TCP end without close_notify."""
    ended, leave = threading.Event(), threading.Event()

    def behave(call: Call) -> None:
        if who == "node":
            call.sock.recv(1)  # of 2: what is left unread makes its end a reset (unix(7))
            leave.wait(SECONDS)
            return
        call.wait_for_end()
        ended.set()

    with Node(directory / "n", switched(behave)) as node, front(node, options=("--http-websockets",)) as (server, host):
        with Client(host) as client, tunnel(client) as sock:
            if who == "node":
                sock.sendall(b"hi")
                threading.Timer(0.2, leave.set).start()
                assert not client.ended()
        if who == "client":
            assert ended.wait(SECONDS)
        server.wait_for_line(r"GET /ws\?a=b => .*\(HTTP/1.1 101\)", seconds=5)
        assert "defect" not in server.log


def cpu_seconds(server: Daemon) -> float:
    """Of the one worker (proc(5), utime and stime)."""
    (worker,) = server.wait_for_workers()
    numbers = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "state", ["idle", "slow client, node gone", "slow node, client gone", "node ended", "client ended"]
)
def test_no_state_keeps_the_worker_busy(directory: Path, state: str) -> None:
    """Whatever is half over and waits for the other side costs nothing meanwhile, and ends when that has ended."""
    reached, over = threading.Event(), threading.Event()

    def behave(call: Call) -> None:
        call.sock.settimeout(0.3)
        if state == "slow client, node gone":
            with contextlib.suppress(TimeoutError):
                while True:
                    call.sock.send(bytes(65536))
            return reached.set()
        if state == "node ended":
            call.sock.shutdown(socket.SHUT_WR)
        reached.set()
        over.wait(SECONDS)
        return None

    with (
        Node(directory / "n", switched(behave)) as node,
        front(node, options=("--http-websockets",)) as (server, host),
        Client(host, receive_buffer=65536) as client,
        tunnel(client) as sock,
    ):
        assert reached.wait(SECONDS)
        if state == "slow node, client gone":
            sock.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                while True:
                    sock.send(bytes(65536))
        if state == "client ended":
            sock.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                sock.unwrap()
        if state == "slow node, client gone":
            os.close(sock.detach())
        threading.Event().wait(0.3)
        before = cpu_seconds(server)
        threading.Event().wait(1.0)
        assert cpu_seconds(server) - before < 0.2
        over.set()
        client._stream.close()
        client.sock.close()
        server.wait_for_line(r"GET /ws\?a=b => .*\(HTTP/1.1 101\)", seconds=5)
        assert "defect" not in server.log


def test_silence(directory: Path) -> None:
    """http-tunnel-timeout holds for both directions together, and ends them politely."""
    ended = threading.Event()

    def behave(call: Call) -> None:
        for _ in range(4):
            call.sock.recv(1)
        call.wait_for_end()
        ended.set()

    options = ("--http-websockets", "--http-tunnel-timeout", "1", "--http-timeout", "1")
    with (
        Node(directory / "n", switched(behave)) as node,
        front(node, options=options) as (_, host),
        Client(host) as client,
        tunnel(client) as sock,
    ):
        pause = threading.Event()
        for _ in range(4):
            pause.wait(0.5)
            sock.sendall(b"x")
        assert client.ended()
        assert ended.wait(SECONDS)


def test_reload_mercy(directory: Path) -> None:
    """A tunnel outlives the order to leave until the mercy is over, and ends politely, with its line in the log."""
    ended = threading.Event()

    def behave(call: Call) -> None:
        while data := call.sock.recv(1000):
            call.sock.sendall(data)
        ended.set()

    options = ("--http-websockets", "--reload-mercy", "4")
    with Node(directory / "n", switched(behave)) as node, front(node, options=options) as (server, host):
        with Client(host) as client, tunnel(client) as sock:
            stopper = threading.Thread(target=server.stop)
            stopper.start()
            wait_until(lambda: bool(server.wait_for_titles("draining", 1)), SECONDS, lambda: server.log)
            sock.sendall(b"still")
            assert client._stream.read(5) == b"still"
            assert client.ended()
            assert ended.wait(SECONDS)
            stopper.join(SECONDS)
        assert re.search(r"GET /ws\?a=b => generated 5 bytes .*\(HTTP/1.1 101\)", server.log), server.log
        assert "leaves" not in server.log
