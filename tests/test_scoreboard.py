"""scoreboard.py: what one process writes, another reads; slots are given out once, and empty."""

import os

import pytest

from uwsgi_tls.scoreboard import Scoreboard


def test_a_child_writes_and_its_parent_reads() -> None:
    slot = Scoreboard(3).take()
    assert slot.last_beat == 0.0
    child = os.fork()
    if child == 0:
        slot.beat(1234.5)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert slot.last_beat == 1234.5


def test_each_has_its_own() -> None:
    board = Scoreboard(3)
    slots = [board.take() for _ in range(3)]
    for number, slot in enumerate(slots, 1):
        slot.beat(number)
    assert [slot.last_beat for slot in slots] == [1, 2, 3]
    with pytest.raises(BlockingIOError, match="no slot of the scoreboard is free"):
        board.take()


def test_one_that_is_given_back_is_empty_again() -> None:
    board = Scoreboard(1)
    slot = board.take()
    slot.beat(7.0)
    board.give_back(slot)
    assert board.take().last_beat == 0.0
