"""looks.py: what was touched is found once, in its time, and a change of options loses nothing."""

from __future__ import annotations

import os
from pathlib import Path

from uwsgi_tls.looks import NEVER, Looks
from uwsgi_tls.options import Config
from uwsgi_tls.watch import LOOK_SECONDS


def touch(path: Path, second: int) -> None:
    path.touch()
    os.utime(path, (second, second))


def test_nothing_to_look_at() -> None:
    looks = Looks()
    looks.configure(Config(), None)
    assert looks.moment == NEVER
    assert not looks.is_due(1e9)
    assert (looks.wants_logs(), looks.wants_reload()) == (False, "")


def test_once_a_second() -> None:
    looks = Looks()
    looks.configure(Config(touch_reload=("/nowhere",)), None)
    due = looks.moment
    assert not looks.is_due(due - 0.1)
    assert looks.is_due(due)
    assert looks.moment == due + LOOK_SECONDS


def test_each_touch_is_told_once(tmp_path: Path) -> None:
    reload, logs = tmp_path / "reload", tmp_path / "logs"
    looks = Looks()
    looks.configure(Config(touch_reload=(str(reload),), touch_logreopen=(str(logs),)), None)
    touch(reload, 1)
    assert [looks.wants_reload() for _ in range(3)] == ["", "touch-reload", ""], "once it is left alone"
    assert not looks.wants_logs()
    touch(logs, 1)
    assert [looks.wants_logs() for _ in range(3)] == [False, True, False]


def test_a_touch_is_not_lost_by_a_reload_that_names_the_same_files(tmp_path: Path) -> None:
    reload = tmp_path / "reload"
    touch(reload, 1)
    config = Config(touch_reload=(str(reload),))
    looks = Looks()
    looks.configure(config, None)
    touch(reload, 2)
    looks.configure(Config(touch_reload=(str(reload),), processes=2), None)
    assert [looks.wants_reload() for _ in range(2)] == ["", "touch-reload"]
