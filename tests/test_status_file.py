"""status_file.py: made beside the pid file, or done without."""

import os
import stat
from pathlib import Path

import pytest

from uwsgi_tls.status_file import StatusFile
from uwsgi_tls.users import Identity

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
SOMEBODY = Identity("somebody", 4242424, 4242425, (4242425,))


def test_life(tmp_path: Path) -> None:
    path, said, before = tmp_path / "pid.status", list[str](), os.listdir("/proc/self/fd")
    file = StatusFile.open(str(tmp_path / "pid"), None, said.append)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    file.write("a long text\n")
    file.write("short\n")
    assert path.read_text() == "short\n"
    file.remove()
    assert not path.exists()
    assert said == []
    assert os.listdir("/proc/self/fd") == before


@needs_root
def test_the_users_group_may_read_it_and_nobody_else_write(own: Path) -> None:
    file = StatusFile.open(str(own / "pid"), SOMEBODY, print)
    status = (own / "pid.status").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, SOMEBODY.gid, 0o640)
    file.close()
    StatusFile.open(str(own / "pid"), SOMEBODY, print).close()  # as after a kill -9


def test_where_it_cannot_be_made_the_server_does_without(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "pid.status").mkdir()
    file = StatusFile.open(str(tmp_path / "pid"), None, said.append)
    assert len(said) == 1
    assert said[0].startswith("uwsgi-tls status will not be told all: ")
    file.write("text")
    file.remove()
    file.close()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    file = StatusFile.open(str(tmp_path / "pid"), None, print)
    monkeypatch.setattr(os, "pwrite", full)
    file.write("text")
    file.remove()
