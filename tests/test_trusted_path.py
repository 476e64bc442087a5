"""trusted_path.py: what root opens, and what it leaves alone because somebody else could have put it there."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from uwsgi_tls.trusted_path import open_trusted

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
    assert os.listdir("/proc/self/fd") == before
