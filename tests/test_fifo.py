"""fifo.py: which letters are taken up and when, and what a pipe may be made of."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import in_child

from uwsgi_tls.errors import ConfigError
from uwsgi_tls.fifo import BATCH_BYTES, COMMANDS, NEVER, PAUSE_SECONDS, TELL, Fifo
from uwsgi_tls.users import Identity

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away, or is led astray by it")

SOMEBODY = Identity("somebody", 4242424, 4242425, (4242425,))


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # it would end the tests: only the real master has it blocked
    pipe = Fifo.open(str(tmp_path / "fifo"), None)
    pipe.listen()
    yield pipe
    pipe.remove()
    signal.signal(signal.SIGIO, before)


def write(pipe: Fifo, text: str) -> None:
    fd = os.open(pipe.path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, text.encode("latin-1"))
    finally:
        os.close(fd)


# What is written, what is asked for and what has no meaning.
BATCHES = [
    ("r", "r", ""),
    ("r\n", "r", ""),
    (" \t\r\n\0", "", ""),
    ("rr", "r", ""),
    ("+++--", "+++--", ""),
    ("qqQ", "qQ", ""),
    ("rqs", "rqs", ""),
    ("r?r?x\n", "r", "?x"),
    ("\xff", "", "\xff"),
    ("p", "", "p"),  # a pause, which there is not
]


@pytest.mark.parametrize(("text", "asked", "unknown"), BATCHES, ids=[repr(each[0]) for each in BATCHES])
def test_letters(fifo: Fifo, text: str, asked: str, unknown: str) -> None:
    write(fifo, text)
    assert fifo.letters(1000.0) == (list(asked), unknown)


def test_each_letter_of_uwsgi_that_means_something_here() -> None:
    assert {letter: number.name for letter, number in COMMANDS.items()} == {
        **dict.fromkeys("rRwWc", "SIGHUP"),
        "q": "SIGTERM",
        "Q": "SIGQUIT",
        "+": "SIGTTIN",
        "-": "SIGTTOU",
        "l": "SIGUSR1",
    }
    assert TELL == "s"


def test_what_was_written_before_it_listened_is_heard(tmp_path: Path) -> None:
    pipe = Fifo.open(str(tmp_path / "fifo"), None)
    assert pipe.moment == NEVER
    write(pipe, "r")
    pipe.listen()
    assert pipe.moment == 0.0
    assert pipe.letters(1000.0) == (["r"], "")
    pipe.remove()


def test_a_flood_is_taken_up_bit_by_bit(fifo: Fifo) -> None:
    """However much there is, a look has an end, and the next one waits for its moment."""
    write(fifo, "+" * (3 * BATCH_BYTES))
    now = 1000.0
    for _ in range(3):
        assert fifo.letters(now) == (["+"] * BATCH_BYTES, "")
        assert fifo.moment == now + PAUSE_SECONDS
        assert fifo.letters(now + PAUSE_SECONDS / 2) == ([], "")
        now += PAUSE_SECONDS
    assert fifo.letters(now) == ([], "")
    assert fifo.moment == NEVER


def test_it_comes_with_a_signal_but_not_in_the_pause(fifo: Fifo) -> None:
    def comes(seconds: float) -> bool:
        return signal.sigtimedwait({signal.SIGIO}, seconds) is not None

    def scene() -> list[object]:
        """In a process of one thread, as the master is: another thread would die of the signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        fifo.listen()
        fifo.letters(1000.0)
        comes(0)
        write(fifo, "r")
        seen: list[object] = [comes(10), fifo.letters(1000.0)]
        comes(0)
        write(fifo, "s")
        seen += [comes(0), fifo.letters(1000.0 + PAUSE_SECONDS)]
        fifo.letters(2000.0)
        write(fifo, "r")
        return [*seen, comes(10)]

    assert in_child(scene) == [True, [["r"], ""], False, [["s"], ""], True]


# --- the file ---------------------------------------------------------------------------------------


def test_life(tmp_path: Path) -> None:
    path, before = tmp_path / "fifo", os.listdir("/proc/self/fd")
    pipe = Fifo.open(str(path), None)
    status = path.stat()
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    pipe.remove()
    assert not path.exists()
    assert os.listdir("/proc/self/fd") == before


@needs_root
def test_it_is_given_to_the_user(own: Path) -> None:
    pipe = Fifo.open(str(own / "fifo"), SOMEBODY)
    status = (own / "fifo").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (SOMEBODY.uid, SOMEBODY.gid, 0o600)
    pipe.close()
    assert (own / "fifo").exists()
    again = Fifo.open(str(own / "fifo"), SOMEBODY)
    again.remove()
    assert not (own / "fifo").exists()


def test_another_pipe_of_that_name_is_left_alone(tmp_path: Path) -> None:
    pipe = Fifo.open(str(tmp_path / "fifo"), None)
    (tmp_path / "fifo").unlink()
    os.mkfifo(tmp_path / "fifo")
    pipe.remove()
    assert (tmp_path / "fifo").exists()


def a_file(path: Path) -> None:
    path.write_text("keep me")


def a_link(path: Path) -> None:
    os.mkfifo(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize("make", [a_file, a_link, Path.mkdir])
def test_what_is_no_pipe_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path, before = tmp_path / "fifo", os.listdir("/proc/self/fd")
    make(path)
    with pytest.raises(ConfigError) as caught:
        Fifo.open(str(path), None, "a.ini:3")
    assert str(caught.value) == (
        f"master-fifo = {path}: there is a file of that name, which is no named pipe (a.ini:3)"
    )
    assert path.exists()
    assert os.listdir("/proc/self/fd") == before


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        Fifo.open(str(tmp_path / "none" / "fifo"), None)


@needs_root
@pytest.mark.parametrize(("owner", "replaced"), [(0, True), (SOMEBODY.uid, True), (77, False)])
def test_in_a_directory_of_others(own: Path, owner: int, replaced: bool) -> None:
    os.mkfifo(own / "fifo")
    os.chown(own / "fifo", owner, -1)
    os.chmod(own, 0o1777)
    if replaced:
        Fifo.open(str(own / "fifo"), SOMEBODY).close()
        assert (own / "fifo").stat().st_uid == SOMEBODY.uid
    else:
        with pytest.raises(ConfigError, match=r"it is another's, .* so it is left alone"):
            Fifo.open(str(own / "fifo"), SOMEBODY)
        assert (own / "fifo").stat().st_uid == owner


def second_name(path: Path) -> None:
    os.link(path, path.with_name("second"))


def another_kind(path: Path) -> None:
    path.unlink()
    path.write_text("keep me")


@pytest.mark.parametrize("swap", [second_name, another_kind])
def test_what_somebody_has_put_there_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], None]
) -> None:
    path, make, before = tmp_path / "fifo", os.mkfifo, os.listdir("/proc/self/fd")

    def make_and_swap(name: str, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        swap(path)

    monkeypatch.setattr(os, "mkfifo", make_and_swap)
    with pytest.raises(ConfigError, match="it is not a named pipe of our own"):
        Fifo.open(str(path), None)
    assert os.listdir("/proc/self/fd") == before


@needs_root
def test_no_link_of_anothers_is_followed(own: Path) -> None:
    (own / "user").mkdir()
    (own / "roots").mkdir()
    (own / "user" / "run").symlink_to(own / "roots")
    os.chown(own / "user", SOMEBODY.uid, -1)
    with pytest.raises(ConfigError, match="is a symbolic link"):
        Fifo.open(str(own / "user" / "run" / "fifo"), SOMEBODY)
    assert not list((own / "roots").iterdir())
