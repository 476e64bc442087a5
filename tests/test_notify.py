"""notify.py: what a service manager is told, and that nothing it does can hinder us."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from uwsgi_tls import notify
from uwsgi_tls.notify import NEVER, RETRY_SECONDS, UNSENT_MAX, Notifier, connect


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET, and the socket that it names, which does not block."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@uwsgi-tls-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.setblocking(False)
        yield address, sock


def told(sock: socket.socket) -> list[str]:
    """All messages that are there."""
    messages = []
    while True:
        try:
            messages.append(sock.recv(8192).decode())
        except BlockingIOError:
            return messages


def quiet(text: str) -> None:
    pytest.fail(f"said {text!r}")


def test_without_a_manager_nothing_happens() -> None:
    environ = {"WATCHDOG_USEC": "1000000", "PATH": "/bin"}
    notifier = connect(environ, quiet)
    notifier.enter("serving", "all is well")
    notifier.keep_time(time.monotonic(), lambda: pytest.fail("asked"))
    assert (notifier.moment, environ) == (NEVER, {"PATH": "/bin"})
    notifier.close()


def test_what_is_told(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "", "WATCHDOG_PID": "", "HOME": "/"}
    notifier = connect(environ, quiet)
    assert environ == {"HOME": "/"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    for state in ("starting", "serving", "reloading", "stopping"):
        notifier.enter(state, f"now {state}")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    starting, serving, reloading, stopping = told(sock)
    assert (starting, serving) == ("STATUS=now starting", "READY=1\nSTATUS=now serving")
    assert stopping == "STOPPING=1\nSTATUS=now stopping"
    first, when, last = reloading.split("\n")
    assert (first, last) == ("RELOADING=1", "STATUS=now reloading")
    assert before <= int(when.removeprefix("MONOTONIC_USEC=")) <= after
    notifier.close()
    notifier.enter("serving", "")
    assert told(sock) == []


def test_no_other_program_gets_the_socket(manager: tuple[str, socket.socket]) -> None:
    notifier = connect({"NOTIFY_SOCKET": manager[0]}, quiet)
    assert notifier._socket is not None
    assert fcntl.fcntl(notifier._socket, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    notifier.close()


def test_a_daemon_says_which_process_it_is(manager: tuple[str, socket.socket]) -> None:
    notifier = connect({"NOTIFY_SOCKET": manager[0]}, quiet)
    notifier.main_pid = 4711
    notifier.enter("serving", "s")
    assert told(manager[1]) == ["READY=1\nMAINPID=4711\nSTATUS=s"]
    notifier.close()


def test_a_status_is_one_line_that_fits(manager: tuple[str, socket.socket]) -> None:
    """A line break would let the name of a file say READY, and a message that is too long is thrown away."""
    notifier = connect({"NOTIFY_SOCKET": manager[0]}, quiet)
    notifier.enter("starting", "bad\nREADY=1 \udcff " + "é" * 4000)
    (message,) = told(manager[1])
    assert message.startswith("STATUS=bad READY=1 ? éé")
    assert len(message.encode()) <= notify.STATUS_BYTES + len("STATUS=")
    notifier.close()


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("/nowhere/at/all", "No such file or directory"),
        ("/dev/null", "Connection refused"),
        ("relative", "neither a path nor an abstract name"),
        ("vsock:2:1234", "neither a path nor an abstract name"),
        ("/" + "x" * 200, "AF_UNIX path too long"),
    ],
)
def test_a_manager_that_cannot_be_reached(address: str, cause: str) -> None:
    said: list[str] = []
    before = len(os.listdir("/proc/self/fd"))
    notifier = connect({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, said.append)
    notifier.enter("serving", "s")
    assert notifier.moment == NEVER
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(said) == 1
    assert cause in said[0]
    assert said[0].startswith(f"NOTIFY_SOCKET = {address}: no service manager is told: ")


def test_a_manager_that_goes_away_is_let_go(
    manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(notify, "line", said.append)
    notifier = connect({"NOTIFY_SOCKET": manager[0], "WATCHDOG_USEC": "1000000"}, quiet)
    manager[1].close()
    for _ in range(3):
        notifier.enter("serving", "s")
    assert said == ["the service manager is told nothing more: Connection refused"]
    assert notifier.moment == NEVER


def test_a_manager_that_does_not_read_gets_it_later(manager: tuple[str, socket.socket]) -> None:
    """It never blocks, the order stays, and nothing piles up."""
    address, sock = manager
    notifier = connect({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, quiet)
    sent = 0
    while notifier._retry_at == NEVER:
        notifier.enter("starting", str(sent))
        sent += 1
        assert sent < 10000, "its queue is never full"
    notifier.enter("serving", "then")
    notifier.keep_time(notifier._retry_at - 0.01, lambda: True)  # no retry yet, and no feeding out of turn
    assert told(sock) == [f"STATUS={number}" for number in range(sent - 1)]
    assert time.monotonic() < notifier._retry_at <= time.monotonic() + RETRY_SECONDS
    notifier._next_feed = NEVER
    assert notifier.moment == notifier._retry_at
    notifier.keep_time(notifier._retry_at, lambda: True)
    assert told(sock) == [f"STATUS={sent - 1}", "READY=1\nSTATUS=then"]
    assert notifier.moment == NEVER
    while not notifier._unsent:
        notifier.enter("starting", "full")
    for number in range(100):
        notifier.enter("starting", str(number))
    assert len(notifier._unsent) == UNSENT_MAX
    notifier.close()


# --- the watchdog -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "pid", "seconds"),
    [
        ("30000000", "", 30.0),
        ("2500000", "{self}", 2.5),
        ("30000000", "1", 0.0),  # it is meant for another process
        ("", "", 0.0),
        ("0", "", 0.0),
        ("-1", "", 0.0),
        ("1e6", "", 0.0),
        ("\u0663", "", 0.0),
        ("9" * 30, "", 0.0),
    ],
)
def test_the_interval(interval: str, pid: str, seconds: float, manager: tuple[str, socket.socket]) -> None:
    environ = {"NOTIFY_SOCKET": manager[0], "WATCHDOG_USEC": interval, "WATCHDOG_PID": pid.format(self=os.getpid())}
    notifier = connect(environ, quiet)
    assert (notifier.watchdog, environ) == (seconds, {})
    assert (notifier.moment == NEVER) == (seconds == 0)
    notifier.close()


def test_it_is_fed_at_half_of_the_interval_while_all_is_well(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    notifier = connect({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "4000000"}, quiet)
    now = 1000.0
    for well in (True, True, False, False, True):
        notifier.keep_time(now, partial(bool, well))
        assert told(sock) == (["WATCHDOG=1"] if well else [])
        assert notifier.moment == now + 2.0
        notifier.keep_time(now + 1.9, lambda: pytest.fail("too early"))
        now = notifier.moment
    notifier.close()


def test_nobody_is_fed_without_a_manager() -> None:
    assert Notifier(None, 5.0).moment == NEVER
