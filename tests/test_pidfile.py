"""pidfile.py: made, written, removed or emptied, and never another's."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uwsgi_tls.errors import ConfigError
from uwsgi_tls.pidfile import Pidfile

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away, or is led astray by it")

SOMEBODY = 4242424


def test_life(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile = Pidfile.open(str(path))
    assert path.read_text() == ""
    pidfile.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert not os.get_inheritable(pidfile.fd)
    pidfile.remove()
    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfile.fd)


def test_what_stood_in_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("4194303 and much more\n")
    pidfile = Pidfile.open(str(path))
    pidfile.write()
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.remove()


@pytest.mark.parametrize("written", [False, True])
def test_where_it_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool) -> None:
    """It is emptied as long as it may be written to, which a pid ends."""

    def refuse(path: str, dir_fd: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    path = tmp_path / "pid"
    pidfile = Pidfile.open(str(path))
    os.pwrite(pidfile.fd, b"a status\n", 0)
    if written:
        os.ftruncate(pidfile.fd, 0)
        pidfile.write()
    monkeypatch.setattr(os, "unlink", refuse)
    pidfile.remove()
    assert path.read_text() == (f"{os.getpid()}\n" if written else "")


def test_nobody_can_write_to_it_once_the_pid_is_in_it(tmp_path: Path) -> None:
    """The descriptor outlives root, and a pid in a file of root's is believed."""
    pidfile = Pidfile.open(str(tmp_path / "pid"))
    before = os.listdir("/proc/self/fd")
    pidfile.write()
    assert os.listdir("/proc/self/fd") == before
    for change in (lambda: os.pwrite(pidfile.fd, b"1\n", 0), lambda: os.ftruncate(pidfile.fd, 0)):
        with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
            change()
    assert not os.get_inheritable(pidfile.fd)
    pidfile.remove()


def replace(path: Path) -> None:
    path.unlink()
    path.write_text("1\n")


def link(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("1\n")
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("become_anothers", [replace, link])
def test_anothers_is_left_alone(tmp_path: Path, become_anothers: Callable[[Path], None]) -> None:
    path = tmp_path / "pid"
    pidfile = Pidfile.open(str(path))
    pidfile.write()
    become_anothers(path)
    pidfile.remove()
    assert path.read_text() == "1\n"


def test_it_may_be_gone_already(tmp_path: Path) -> None:
    pidfile = Pidfile.open(str(tmp_path / "pid"))
    (tmp_path / "pid").unlink()
    pidfile.remove()
    assert os.listdir(tmp_path) == []


def test_a_relative_path_survives_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pidfile = Pidfile.open("pid")
    monkeypatch.chdir("/")
    pidfile.remove()
    assert os.listdir(tmp_path) == []


def symbolic_link(path: Path) -> None:
    path.symlink_to(path.with_name("precious"))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        pytest.param(Path.mkdir, "Is a directory", id="directory"),
        pytest.param(os.mkfifo, "it is not a regular file of our own", id="FIFO"),
        pytest.param(symbolic_link, "Too many levels of symbolic links", id="link"),
        pytest.param(lambda path: os.rmdir(path.parent), "No such file or directory", id="no directory"),
    ],
)
def test_refused(tmp_path: Path, make: Callable[[Path], object], cause: str) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "pid"
    make(path)
    with pytest.raises(ConfigError) as caught:
        Pidfile.open(str(path), "x.ini:3")
    assert str(caught.value) == f"pidfile = {path}: {cause} (x.ini:3)"


def a_second_name(path: Path) -> None:
    other = path.with_name("precious")
    other.write_text("precious")
    os.link(other, path)


def of_another_user(path: Path) -> None:
    path.write_text("77\n")
    os.chown(path, SOMEBODY, -1)
    path.chmod(0o666)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(a_second_name, id="hard link"),
        pytest.param(of_another_user, id="of another user", marks=needs_root),
    ],
)
def test_a_file_that_is_not_ours_alone_is_replaced(own: Path, make: Callable[[Path], object]) -> None:
    """Its owner could write another pid into it, for a script of root's to kill."""
    path = own / "pid"
    make(path)
    pidfile = Pidfile.open(str(path))
    pidfile.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert (path.stat().st_uid, path.stat().st_nlink, path.stat().st_mode & 0o022) == (os.geteuid(), 1, 0)
    assert [other.read_text() for other in own.glob("precious")] in ([], ["precious"])
    pidfile.remove()


def test_a_file_that_is_put_there_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened is looked at, not what was there before."""
    path = tmp_path / "pid"

    look = os.stat

    def gone(path: str, **how: Any) -> os.stat_result:
        if path == "pid":
            raise FileNotFoundError(path)
        return look(path, **how)

    a_second_name(path)
    monkeypatch.setattr(os, "stat", gone)
    with pytest.raises(ConfigError, match="not a regular file of our own"):
        Pidfile.open(str(path))
    assert path.read_text() == "precious"


# --- in a directory of the user's ---------------------------------------------------------------


@pytest.fixture
def users(own: Path) -> Path:
    """Where the user may put what he likes."""
    directory = own / "users"
    directory.mkdir()
    os.chown(directory, SOMEBODY, -1)
    return directory


@needs_root
def test_life_in_a_users_directory(users: Path) -> None:
    path = users / "pid"
    for _ in range(2):
        pidfile = Pidfile.open(str(path))
        pidfile.write()
        assert path.read_text() == f"{os.getpid()}\n"
        pidfile.close()  # as after a crash: the file is there at the next start, and our own
    pidfile = Pidfile.open(str(path))
    pidfile.remove()
    assert os.listdir(users) == []


@needs_root
def test_a_link_on_the_way_is_not_followed(own: Path, users: Path) -> None:
    (own / "pid").write_text("precious")
    (users / "run").symlink_to(own)
    with pytest.raises(ConfigError, match=f"{users}/run is a symbolic link"):
        Pidfile.open(f"{users}/run/pid")
    assert (own / "pid").read_text() == "precious"


@needs_root
@pytest.mark.parametrize("make", [a_second_name, of_another_user])
def test_a_file_that_is_not_ours_is_left_alone(users: Path, make: Callable[[Path], object]) -> None:
    path = users / "pid"
    make(path)
    before = path.stat()
    with pytest.raises(ConfigError, match=r"it is another's, or has a second name, .* so it is left alone"):
        Pidfile.open(str(path))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_nlink) == (before.st_ino, before.st_size, before.st_nlink)


@needs_root
def test_the_directory_is_the_one_that_was_opened(own: Path, users: Path) -> None:
    """Whatever the user has put in its place since then."""
    (users / "run").mkdir()
    pidfile = Pidfile.open(f"{users}/run/pid")
    pidfile.write()
    (users / "run").rename(users / "old")
    (users / "run").symlink_to(own)
    os.link(users / "old" / "pid", own / "pid")
    pidfile.remove()
    assert os.listdir(users / "old") == []
    assert (own / "pid").exists()


def test_a_link_to_it_that_is_there_at_the_end_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile = Pidfile.open(str(path))
    path.rename(tmp_path / "moved")
    path.symlink_to("moved")
    pidfile.remove()
    assert sorted(os.listdir(tmp_path)) == ["moved", "pid"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "directory").mkdir()
    for path in ("directory", "none/pid"):
        with pytest.raises(ConfigError):
            Pidfile.open(str(tmp_path / path))
    for _ in range(2):
        Pidfile.open(str(tmp_path / "pid")).close()
    Pidfile.open(str(tmp_path / "pid")).remove()
    assert os.listdir("/proc/self/fd") == before
