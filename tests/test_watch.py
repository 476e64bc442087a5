"""watch.py: which changes of a file are noticed, and when."""

import os
from itertools import islice
from pathlib import Path

import pytest

from uwsgi_tls.watch import WAIT_LOOKS, of_contents, of_touches, unseen


def look(path: str) -> int:
    return os.open(path, os.O_RDONLY)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "a.crt", tmp_path / "a.key"
    for file in (certificate, key):
        file.write_text("old")
    return certificate, key


def test_a_change_counts_once_it_has_settled(files: tuple[Path, Path]) -> None:
    watch = of_contents(lambda: map(str, files), look)
    assert [watch.has_changed() for _ in range(2)] == [False, False]
    files[0].write_text("newer")
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]


def test_the_certificate_and_then_its_key_are_one_change(files: tuple[Path, Path]) -> None:
    watch = of_contents(lambda: map(str, files), look)
    files[0].write_text("newer")
    first = watch.has_changed()
    files[1].write_text("newer")
    assert [first, *(watch.has_changed() for _ in range(3))] == [False, False, True, False]


def test_a_file_that_changes_all_the_time_holds_nobody_up(files: tuple[Path, Path]) -> None:
    """Neither one change nor the next of another file; its own counts once it has been left alone."""
    certificate, busy = files
    watch = of_contents(lambda: map(str, files), look)
    moments = iter(range(1, 100))

    def looks(times: int) -> list[bool]:
        found = []
        for moment in islice(moments, times):
            os.utime(busy, (moment, moment))
            found.append(watch.has_changed())
        return found

    assert looks(6) == [False] * 6
    for _ in range(2):
        certificate.write_text(certificate.read_text() + "newer")
        assert looks(1 + WAIT_LOOKS) == [False] * (1 + WAIT_LOOKS)
        assert looks(6) == [True] + [False] * 5
    assert [watch.has_changed() for _ in range(3)] == [True, False, False]


def test_what_is_changed_back_is_no_change(files: tuple[Path, Path]) -> None:
    watch = of_contents(lambda: map(str, files), look)
    aside = files[0].with_suffix(".old")
    files[0].rename(aside)
    assert not watch.has_changed()
    aside.rename(files[0])
    assert [watch.has_changed() for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("way", ["rename", "link", "gone", "touch"])
def test_the_ways_to_replace_a_file(files: tuple[Path, Path], way: str) -> None:
    certificate, _ = files
    fresh = certificate.with_name("fresh")
    fresh.write_text("old")
    watch = of_contents(lambda: map(str, files), look)
    match way:
        case "rename":
            fresh.rename(certificate)
        case "link":  # as Let's Encrypt's client does
            certificate.unlink()
            certificate.symlink_to(fresh)
        case "gone":
            certificate.unlink()
        case "touch":
            os.utime(certificate, (1, 1))
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]


def test_a_file_that_is_new_in_a_directory(files: tuple[Path, Path]) -> None:
    """It counts, and is looked at from then on; a name that is none of ours does not count."""
    directory = files[0].parent
    watch = of_contents(lambda: [str(directory), *map(str, directory.glob("*.crt"))], look)
    (directory / "b.txt").write_text("")
    assert [watch.has_changed() for _ in range(2)] == [False] * 2
    (directory / "b.crt").write_text("")
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]
    (directory / "b.crt").write_text("more")
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]
    (directory / "b.crt").unlink()
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]


def test_what_may_not_be_looked_at_counts_as_it_was(files: tuple[Path, Path]) -> None:
    """Such as a key of root's once the monitor is no more: a reload would not read it either."""
    closed = True

    def refuse(path: str) -> int:
        if closed:
            raise PermissionError(13, "no")
        return look(path)

    watch = of_contents(lambda: map(str, files), refuse)
    assert not watch.has_changed()
    closed = False
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]
    closed = True
    assert [watch.has_changed() for _ in range(3)] == [False] * 3
    files[0].write_text("newer")
    closed = False
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]


def test_no_descriptor_is_left_open(files: tuple[Path, Path]) -> None:
    before = os.listdir("/proc/self/fd")
    watch = of_contents(lambda: [*map(str, files), str(files[0].parent), "/none"], look)
    watch.has_changed()
    assert os.listdir("/proc/self/fd") == before


# --- files that are there to be touched -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_touch(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "touched"
    path.mkdir() if kind == "directory" else path.touch()
    watch = of_touches([str(path)])
    assert [watch.has_changed() for _ in range(2)] == [False] * 2
    os.utime(path, (1, 1))
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]


def test_to_make_the_file_is_a_touch_and_to_remove_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "touched"
    watch = of_touches([str(path)])
    assert unseen([str(path), str(tmp_path)]) == [str(path)]
    assert [watch.has_changed() for _ in range(2)] == [False] * 2
    path.touch()
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]
    path.unlink()
    assert [watch.has_changed() for _ in range(3)] == [False] * 3
    path.touch()
    os.utime(path, (1, 1))
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]


def test_no_touch_of_one_gets_lost_by_another(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.touch()
    watch = of_touches([str(path) for path in paths])
    os.utime(paths[0], (1, 1))
    assert not watch.has_changed()
    os.utime(paths[1], (1, 1))
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]
