"""monitor.py: the root process and a master that has lost root, both real, each in a forked child."""

import errno
import os
import re
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from forked import in_child

from uwsgi_tls import monitor, privileges
from uwsgi_tls.users import Identity

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to keep")

WWW = Identity("www-data", 33, 33, (33,))


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory of root's own with a key that only root may read."""
    with tempfile.TemporaryDirectory(dir="/root") as name:
        for file in ("key", "other"):
            (Path(name) / file).write_text(f"secret {file}")
            os.chmod(Path(name) / file, 0o600)
        yield Path(name)


def nothing() -> None:
    """The configuration is as it was."""


def as_master(own: Path, action: Callable[[monitor.Monitor], object]) -> Any:
    """What `action` returns in a process that has started a monitor for `own`/key and then lost root."""

    def child() -> object:
        keeper = monitor.start(lambda path: path == f"{own}/key", nothing, "")
        privileges.drop(WWW)
        privileges.harden(no_new_privs=True)
        return action(keeper)

    return in_child(child)


def asked(keeper: monitor.Monitor, path: str) -> object:
    try:
        fd = keeper.open(path)
    except OSError as error:
        return [error.errno, error.strerror]
    return os.read(fd, 100).decode()


def test_the_named_file_is_opened_for_whom_it_is_closed(own: Path) -> None:
    def action(keeper: monitor.Monitor) -> object:
        with pytest.raises(PermissionError):
            (own / "key").read_text()
        return [asked(keeper, f"{own}/key"), asked(keeper, f"{own}/key")]

    assert as_master(own, action) == ["secret key", "secret key"]


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "{own}/other", "{own}/./key", "{own}/key/../other", "a\0b", "x" * 5000]
)
def test_nothing_else_is(own: Path, path: str) -> None:
    answer = as_master(own, lambda keeper: [asked(keeper, path.format(own=own)), asked(keeper, f"{own}/key")])
    assert answer == [[errno.EPERM, "the configuration does not name it"], "secret key"]


def test_the_link_that_a_user_put_in_its_place_is_not_followed(own: Path) -> None:
    (own / "key").unlink()
    (own / "key").symlink_to("/etc/shadow")
    os.chown(own, 33, 33)
    os.chmod(own, 0o755)
    code, text = as_master(own, lambda keeper: asked(keeper, f"{own}/key"))
    assert code == errno.EPERM
    assert str(own) in text


def test_it_has_no_capability_but_to_read(own: Path) -> None:
    def action(keeper: monitor.Monitor) -> object:
        lines = Path(f"/proc/{keeper.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    status = as_master(own, action)
    assert isinstance(status, dict)
    zero, read = "0" * 16, f"{1 << 2:016x}"  # CAP_DAC_READ_SEARCH is 2, linux/capability.h
    assert [status[f"Cap{name}"] for name in ("Prm", "Eff", "Inh", "Bnd", "Amb")] == [read, read, zero, zero, zero]
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == ["0"] * 4


def test_it_holds_no_descriptor_but_its_channel_and_its_master(own: Path) -> None:
    def child() -> object:
        listener = socket.create_server(("127.0.0.1", 0))
        keeper = monitor.start(lambda path: False, nothing, "")
        names = os.listdir(f"/proc/{keeper.pid}/fd")
        links = [os.readlink(f"/proc/{keeper.pid}/fd/{name}") for name in names]
        listener.close()
        return sorted("socket" if link.startswith("socket:") else link for link in links)

    assert in_child(child) == ["/dev/null", "/dev/null", "/dev/null", "anon_inode:[pidfd]", "socket"]


def test_it_ends_with_the_channel_and_is_buried_once(own: Path) -> None:
    def action(keeper: monitor.Monitor) -> object:
        first = keeper.has_ended()
        keeper.close()  # which waits
        answer = [first, keeper.has_ended(), keeper.has_ended()]
        keeper.close()  # of one that has ended already
        return answer

    assert as_master(own, action) == [False, True, False]


def test_it_ends_with_a_master_that_is_killed(own: Path) -> None:
    def action(keeper: monitor.Monitor) -> object:
        return keeper.pid

    pid = as_master(own, action)  # the child that was the master has ended by now, without a word to it
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/status").exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert not Path(f"/proc/{pid}/status").exists()


def test_who_else_has_the_channel_is_told_nothing_once_the_master_has_ended(own: Path) -> None:
    """As who has taken it from a program on trial, pidfd_getfd(2)."""
    ours, theirs = socket.socketpair()

    def action(keeper: monitor.Monitor) -> object:
        socket.send_fds(theirs, [b"x"], [keeper.channel.fileno()])
        return keeper.pid

    pid = as_master(own, action)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    with ours, theirs, socket.socket(fileno=fds[0]) as stolen:
        stolen.settimeout(10)
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have ended by now
            stolen.send(f"12345678{own}/key".encode())
            assert stolen.recv(100) == b""
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/status").exists() and time.monotonic() < deadline:
            os.sched_yield()
        assert not Path(f"/proc/{pid}/status").exists()


def test_a_question_after_its_end_is_an_error(own: Path) -> None:
    def action(keeper: monitor.Monitor) -> object:
        keeper.channel.send(b"")  # for a sequenced-packet socket that is its end, as in recv(2)
        return asked(keeper, f"{own}/key")

    code, text = as_master(own, action)
    assert code == errno.EPERM  # as where there is no monitor, so a reload goes on with what is in memory
    assert "the monitor" in text


def test_descriptors_that_are_sent_with_a_question_stay_closed(own: Path) -> None:
    def action(keeper: monitor.Monitor) -> object:
        socket.send_fds(keeper.channel, [f"12345678{own}/key".encode()], [0, 1, 2])
        answer, fds, _, _ = socket.recv_fds(keeper.channel, 100, 1)
        return [answer.decode(), len(fds), len(os.listdir(f"/proc/{os.getpid()}/fd")) > 0, asked(keeper, f"{own}/key")]

    assert as_master(own, action) == ["123456780", 1, True, "secret key"]


def test_what_others_of_root_send_each_other_is_not_in_its_way(own: Path) -> None:
    ours, theirs = socket.socketpair()
    for _ in range(20):
        socket.send_fds(ours, [b"x"], [0])
    assert as_master(own, lambda keeper: [asked(keeper, f"{own}/key") for _ in range(2)]) == ["secret key"] * 2
    ours.close()
    theirs.close()


def test_an_answer_that_cannot_be_sent_is_an_error_and_no_end(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sendmsg(2) has it, ETOOMANYREFS."""
    send_fds, fails = socket.send_fds, [True]

    def send(channel: socket.socket, buffers: list[bytes], fds: list[int]) -> int:
        if fails:
            fails.pop()
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        return send_fds(channel, buffers, fds)

    monkeypatch.setattr(socket, "send_fds", send)
    answers = as_master(own, lambda keeper: [asked(keeper, f"{own}/key") for _ in range(2)])
    assert answers == [[errno.ETOOMANYREFS, "Too many references: cannot splice"], "secret key"]


def test_a_master_that_does_not_read_waits_for_itself(own: Path) -> None:
    """Few descriptors are under way to it, all of it is answered once it reads, and the end comes with its own."""

    def action(keeper: monitor.Monitor) -> object:
        keeper.channel.setblocking(False)
        sent = 0
        while select.select([], [keeper.channel], [], 0.5)[1]:
            keeper.channel.send(f"12345678{own}/key".encode())
            sent += 1
        found = re.search(r"scm_fds:\s*(\d+)", Path(f"/proc/self/fdinfo/{keeper.channel.fileno()}").read_text())
        keeper.channel.settimeout(10)
        for _ in range(sent):
            answer, fds, _, _ = socket.recv_fds(keeper.channel, 100, 1)
            assert answer == b"123456780"
            os.close(fds[0])
        again = asked(keeper, f"{own}/key")
        for _ in range(20):
            keeper.channel.send(f"12345678{own}/key".encode())
        keeper.close()
        return [sent > 20, found is not None and 0 < int(found[1]) < 20, again, keeper.has_ended()]

    assert as_master(own, action) == [True, True, "secret key", True]


def test_one_that_is_stuck_is_waited_for_once() -> None:
    """Until its late answer has come."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper = monitor.Monitor.of(0, ours)
    ours.settimeout(0.05)
    with ours, theirs:
        assert asked(keeper, "/key")[0] == errno.EPERM  # type: ignore[index]  # an error is a list
        ours.settimeout(60)
        began = time.monotonic()
        assert [asked(keeper, "/key") for _ in range(5)] == [[errno.EPERM, "the monitor does not answer"]] * 5
        assert time.monotonic() - began < 5
        tag = theirs.recv(100)[: monitor.TAG_BYTES]
        before = os.listdir("/proc/self/fd")
        socket.send_fds(theirs, [tag + monitor.DONE], [0])
        ours.settimeout(0.05)
        assert "timed out" in asked(keeper, "/key")[1], "it is asked again"  # type: ignore[index]  # as above
        assert os.listdir("/proc/self/fd") == before
        assert len(theirs.recv(100)) == monitor.TAG_BYTES + len("/key"), "nothing was asked in between"


def test_a_reload_asks_one_whose_answer_somebody_else_has_taken() -> None:
    """As a trial may."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper = monitor.Monitor.of(0, ours)
    ours.settimeout(0.05)
    with ours, theirs:
        for _ in range(2):
            with pytest.raises(PermissionError, match="timed out"):
                keeper.read_again()


def test_one_that_has_ended_owes_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper = monitor.Monitor.of(os.getpid(), ours)  # no child of ours
    ours.settimeout(0.05)
    with ours, theirs:
        asked(keeper, "/key")
        assert keeper.has_ended()
        assert asked(keeper, "/key")[0] == errno.EPERM  # type: ignore[index]  # an error is a list


def test_a_failure_to_confine_it_is_told_to_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(capability: int) -> None:
        raise privileges.PrivilegeError("no way")

    monkeypatch.setattr(privileges, "keep_only", refuse)
    with pytest.raises(privileges.PrivilegeError, match="no way"):
        monitor.start(lambda path: True, nothing, "")
