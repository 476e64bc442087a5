"""named.py: which files the monitor opens when the configuration has changed, and whom it believes about that."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from uwsgi_tls import config, named
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.named import FILES_MAX, Named

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root is believed")

WWW_DATA = 33


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory of root's own with an ini file."""
    with tempfile.TemporaryDirectory(dir="/root") as name:
        write(Path(name), "first")
        yield Path(name)


def write(own: Path, stem: str, more: str = "") -> None:
    (own / "x.ini").write_text(f"[uwsgi]\nhttps = :443,{own}/{stem}.crt,{own}/{stem}.key\n{more}\n")


def of(own: Path) -> Named:
    words = [f"{own}/x.ini"]
    return Named(config.load(words, {}), lambda source: config.load(words, {}, source))


def test_what_has_come_and_what_was_there_at_the_start(own: Path) -> None:
    files = of(own)
    assert files.has(f"{own}/first.key")
    assert files.has(f"{own}/x.ini")
    write(own, "second", f"sni-dir = {own}/names")
    assert not files.has(f"{own}/second.key")
    files.read_again()
    assert files.has(f"{own}/second.key")
    assert files.has(f"{own}/names/a.lab.crt")
    assert files.has(f"{own}/first.key"), "a reload that fails goes on with it"
    write(own, "third")
    files.read_again()
    assert files.has(f"{own}/third.key")
    assert not files.has(f"{own}/second.key")
    assert not files.has("/etc/shadow")


def others_file(own: Path) -> None:
    os.chown(own / "x.ini", WWW_DATA, -1)


def writable(own: Path) -> None:
    (own / "x.ini").chmod(0o664)


def others_directory(own: Path) -> None:
    os.chown(own, WWW_DATA, -1)


def public(own: Path) -> Path:
    """A directory in it that is everybody's."""
    (own / "public").mkdir()
    (own / "public").chmod(0o777)
    return own / "public"


def include(own: Path) -> None:
    (public(own) / "y.ini").write_text("[uwsgi]\n")
    write(own, "second", f"ini = {own}/public/y.ini")


def quote(own: Path) -> None:
    (own / "quoted").write_text("x")
    (own / "quoted").chmod(0o666)
    write(own, "second", f"hsts = @({own}/quoted)")


def link(own: Path) -> None:
    (own / "x.ini").rename(public(own) / "y.ini")
    (own / "x.ini").symlink_to(own / "public/y.ini")


def garbage(own: Path) -> None:
    (own / "x.ini").write_bytes(b"[uwsgi]\n" + bytes(range(256)))


def mistake(own: Path) -> None:
    write(own, "second", "no-such-option = 1")


def too_many(own: Path) -> None:
    for number in range(FILES_MAX + 1):
        (own / f"{number}.ini").write_text("[uwsgi]\n")
    write(own, "second", "\n".join(f"ini = {own}/{number}.ini" for number in range(FILES_MAX + 1)))


def gone(own: Path) -> None:
    (own / "x.ini").unlink()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (others_file, "others than root may write to"),
        (writable, "others than root may write to"),
        (others_directory, "others than root may change"),
        (include, "others than root may change /root/"),
        (quote, "others than root may write to"),
        (link, "others than root may change /root/"),
        (garbage, "NUL"),
        (mistake, "no such option"),
        (too_many, f"more than {FILES_MAX} files"),
        (gone, "No such file"),
    ],
)
def test_what_it_does_not_believe_changes_nothing(own: Path, change: Callable[[Path], None], cause: str) -> None:
    files = of(own)
    write(own, "second")
    change(own)
    with pytest.raises(ConfigError, match=re.escape(cause)):
        files.read_again()
    assert not files.has(f"{own}/second.key")
    assert files.has(f"{own}/first.key")
    os.chown(own, 0, -1)
    (own / "x.ini").unlink(missing_ok=True)
    write(own, "third")
    files.read_again()
    assert files.has(f"{own}/third.key")


def test_every_file_that_the_tls_options_name() -> None:
    words = ["--https", ":443,a.crt,a.key,,ca.crt", "--sni", "b.lab b.crt,b.key", "--ssl-crl", "crl", "--sni-dir", "d"]
    found = named.named_files(config.load([*words, "--ssl-key-password-file", "p"], {}))
    assert found == {"a.crt", "a.key", "ca.crt", "b.crt", "b.key", "crl", "d", "p"}
