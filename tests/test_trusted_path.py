"""trusted_path.py: what root opens, and what it leaves alone because somebody else could have put it there."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from uwsgi_tls.trusted_path import open_directory, open_trusted, open_unlinked

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directories must be root's own")

SOMEBODY = 33


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory that is root's all the way up, which /tmp is not."""
    with tempfile.TemporaryDirectory(dir="/root") as name:
        (Path(name) / "key").write_text("secret")
        (Path(name) / "live").mkdir()
        yield Path(name)


def content(path: str | Path) -> str:
    fd = open_trusted(str(path))
    try:
        assert not os.get_inheritable(fd)
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


def refusal(path: str | Path) -> OSError:
    with pytest.raises(OSError) as caught:  # noqa: PT011 the caller looks at its number and text
        open_trusted(str(path))
    return caught.value


def test_a_file_of_roots_own(own: Path) -> None:
    os.chmod(own / "key", 0o600)
    assert content(own / "key") == "secret"
    assert content(f"{own}/./live/..//key") == "secret"


def test_a_relative_path_begins_at_the_working_directory(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own / "live")
    assert content("../key") == "secret"


def test_links_are_followed_where_they_are_roots_own(own: Path) -> None:
    """As Let's Encrypt's client keeps its files: live/name points to ../archive/name1."""
    (own / "live" / "privkey.pem").symlink_to("../key")
    (own / "absolute").symlink_to(own / "live")
    assert content(own / "live" / "privkey.pem") == "secret"
    assert content(own / "absolute" / "privkey.pem") == "secret"


def test_a_directory_is_opened_for_its_names(own: Path) -> None:
    fd = open_trusted(str(own))
    assert sorted(os.listdir(fd)) == ["key", "live"]
    os.close(fd)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775], ids=oct)
def test_nothing_is_opened_below_what_others_may_write_to(own: Path, mode: int) -> None:
    (own / "live" / "key").write_text("x")
    os.chmod(own / "live", mode)
    error = refusal(own / "live" / "key")
    assert (error.errno, str(own / "live") in str(error.strerror)) == (errno.EPERM, True)


def test_nothing_is_opened_below_what_belongs_to_somebody_else(own: Path) -> None:
    (own / "live" / "below").mkdir()
    (own / "live" / "below" / "key").write_text("x")
    os.chown(own / "live", SOMEBODY, SOMEBODY)
    assert refusal(own / "live" / "below" / "key").errno == errno.EPERM


def test_a_link_out_of_somebody_elses_directory_leads_nowhere(own: Path) -> None:
    """The attack: the user owns the directory of the key, and has put a link to another file in its place."""
    (own / "live" / "key").symlink_to("/etc/shadow")
    os.chown(own / "live", SOMEBODY, SOMEBODY)
    assert refusal(own / "live" / "key").errno == errno.EPERM


def test_a_link_into_somebody_elses_directory_is_not_followed(own: Path) -> None:
    (own / "live" / "key").write_text("x")
    os.chown(own / "live", SOMEBODY, SOMEBODY)
    (own / "link").symlink_to("live/key")
    assert refusal(own / "link").errno == errno.EPERM


def test_what_is_no_file_is_not_opened(own: Path) -> None:
    """To open a FIFO would wait for its writer."""
    os.mkfifo(own / "fifo")
    assert refusal(own / "fifo").errno == errno.EPERM
    os.mknod(own / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert refusal(own / "null").errno == errno.EPERM


def test_what_is_not_there(own: Path) -> None:
    assert refusal(own / "none").errno == errno.ENOENT
    assert refusal(own / "none" / "key").errno == errno.ENOENT
    assert refusal(own / "key" / "key").errno == errno.ENOTDIR


def test_a_circle_of_links_ends(own: Path) -> None:
    (own / "one").symlink_to("two")
    (own / "two").symlink_to("one")
    assert refusal(own / "one").errno == errno.ELOOP


def test_no_descriptor_is_left_open(own: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (own / "one").symlink_to(own / "live" / "none")
    for path in ("one", "key/x", "live/../none"):
        refusal(own / path)
    os.close(open_trusted(str(own / "key")))
    os.chown(own / "live", SOMEBODY, SOMEBODY)
    (own / "live" / "link").symlink_to(own)
    for opened in (open_unlinked, open_directory):
        with pytest.raises(PermissionError):
            opened(str(own / "live" / "link"))
        with pytest.raises(FileNotFoundError):
            opened(str(own / "live" / "none"))
    assert os.listdir("/proc/self/fd") == before


# --- where others may change a directory on the way --------------------------------------------


def content_unlinked(path: str | Path) -> str:
    fd = open_unlinked(str(path))
    try:
        assert not os.get_inheritable(fd)
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.fixture
def users(own: Path) -> Path:
    """A user's directory below root's, with a file of root's own."""
    directory = own / "user"
    (directory / "sub").mkdir(parents=True)
    for file in (directory / "key", directory / "sub" / "key"):
        file.write_text("in the user's")
        os.chmod(file, 0o600)
    os.chown(directory, SOMEBODY, SOMEBODY)
    return directory


def test_a_real_file_in_a_users_directory(own: Path, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "link").symlink_to(users)
    monkeypatch.chdir(users / "sub")
    for path in (users / "key", users / "sub" / "key", own / "link" / "key", "key", "../key", "../sub/.././key"):
        assert content_unlinked(path) == "in the user's"
    assert content_unlinked(own / "key") == "secret"
    fd = open_unlinked(str(users / "sub"))
    assert os.listdir(fd) == ["key"]
    os.close(fd)


def second_name(users: Path, own: Path) -> Path:
    os.link(own / "key", users / "planted")
    return users / "planted"


def symbolic_link(users: Path, own: Path) -> Path:
    (users / "planted").symlink_to(own / "key")
    return users / "planted"


def linked_directory(users: Path, own: Path) -> Path:
    (users / "planted").symlink_to(own)
    return users / "planted" / "key"


def link_beside_it(users: Path, own: Path) -> Path:
    (users / "planted").symlink_to("key")
    return users / "planted"


def link_in_roots_own(users: Path, own: Path) -> Path:
    """Root's own link is followed into the user's directory, and the user's own there no further."""
    (own / "link").symlink_to("user/planted")
    (users / "planted").symlink_to(own / "key")
    return own / "link"


@pytest.mark.parametrize("plant", [second_name, symbolic_link, linked_directory, link_beside_it, link_in_roots_own])
def test_what_a_user_may_have_planted(own: Path, users: Path, plant: Callable[[Path, Path], Path]) -> None:
    path = plant(users, own)
    with pytest.raises(PermissionError) as caught:
        open_unlinked(str(path))
    assert caught.value.errno == errno.EPERM
    assert caught.value.strerror == (
        f"{users}/planted is a symbolic link (or has a second name) in a directory that others than root may change,"
        " so it is not read as root"
    )


def test_what_is_no_file_in_a_users_directory(users: Path) -> None:
    os.mkfifo(users / "fifo")
    with pytest.raises(PermissionError, match="neither a regular file nor a directory"):
        open_unlinked(str(users / "fifo"))


def test_up_from_a_directory_that_is_moved_meanwhile(users: Path) -> None:
    """ ".." is taken out of the path, for the user may move the directory to where it leads to another's."""
    assert content_unlinked(users / "gone" / ".." / "key") == "in the user's"


def test_directories(own: Path, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "link").symlink_to("live")
    (users / "link").symlink_to(own)
    monkeypatch.chdir(own)
    found = {}
    for path in ("", "live", own / "link", "user", "user/sub"):
        fd, trusted = open_directory(str(path))
        found[os.readlink(f"/proc/self/fd/{fd}")] = trusted
        assert not os.get_inheritable(fd)
        os.close(fd)
    assert found == {str(own): True, str(own / "live"): True, str(users): False, str(users / "sub"): False}
    with pytest.raises(PermissionError, match="symbolic link"):
        open_directory(str(users / "link"))
    with pytest.raises(NotADirectoryError):
        open_directory(str(own / "key"))
