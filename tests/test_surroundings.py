"""surroundings.py: what is missing is found by a child that goes where a worker will be."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from uwsgi_tls import surroundings
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config
from uwsgi_tls.users import Identity

WWW = Identity("www-data", 33, 33, (33,))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which www-data may enter."""
    for each in (tmp_path, *tmp_path.parents[:3]):
        each.chmod(each.stat().st_mode | 0o055)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(config: Config, identity: Identity | None = None) -> str:
    try:
        surroundings.check_paths(config, identity)
    except ConfigError as error:
        return str(error)
    return ""


def test_what_is_there_is_no_complaint(place: Path) -> None:
    for name in ("chdir", "chdir/venv", "spool"):
        Path(name).mkdir()
    Path("chdir/app.py").touch()
    config = Config(chdir="chdir", virtualenv="venv", wsgi_file="app.py", spool_dir="spool")
    assert complaint(config) == ""
    assert os.listdir("spool") == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(chdir="no"), "chdir = no: no such directory"),
        (Config(spool_dir="no"), "spool-dir = no: no such directory"),
        (Config(virtualenv="no"), "virtualenv = no: no such directory"),
        (Config(wsgi_file="no.py"), "wsgi-file = no.py: no such file"),
        (Config(wsgi_file=".", origins={"wsgi-file": "site.ini:7"}), "wsgi-file = .: no such file (site.ini:7)"),
    ],
)
def test_what_is_missing(place: Path, config: Config, said: str) -> None:
    assert complaint(config) == said


@needs_root
def test_where_the_user_cannot_write(place: Path) -> None:
    Path("spool").mkdir(mode=0o755)
    assert complaint(Config(spool_dir="spool")) == ""  # root can
    said = complaint(Config(spool_dir="spool"), WWW)
    assert said == "spool-dir = spool: www-data cannot make files there: Permission denied"
    assert os.geteuid() == 0


@needs_root
def test_in_a_new_root_directory(place: Path) -> None:
    inside = replace(WWW, root=str(place))
    assert complaint(Config(chroot=str(place)), inside) == f"chroot = {place}: there is no /proc/self/fd in it"
    assert complaint(Config(chroot="/nowhere"), replace(WWW, root="/nowhere")).startswith(
        "chroot = /nowhere: [Errno 2]"
    )


@needs_root
def test_who_cannot_become_the_user_says_so(place: Path) -> None:
    said = complaint(Config(uid="toor", spool_dir="."), Identity("toor", 0, 0, ()))
    assert said.startswith("uid = toor: the identity is root")
