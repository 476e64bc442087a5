"""scoreboard.py: what one process writes, another reads; slots are given out once, and empty."""

import os
import time
from array import array
from typing import NoReturn

import pytest

from uwsgi_tls import scoreboard as module
from uwsgi_tls.scoreboard import Scoreboard, pulses
from uwsgi_tls.tally import COUNTERS, NAMES


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


def test_a_pulse_outlives_the_program() -> None:
    """Which a second mapping plays here; all else that the worker had told is the first one's."""
    memory = pulses()
    slot = Scoreboard(pulses=memory).take(2, 4)
    slot.beat(7.0, 6.5)
    after = Scoreboard(pulses=memory)
    again = after.take_over(slot.index, 2, 4)
    assert (again.index, again.last_beat, again.calling) == (slot.index, 7.0, 6.5)
    slot.beat(8.0)
    again.must_end(9.0)
    assert (again.last_beat, again.calling, slot.ends) == (8.0, 0.0, 9.0)
    (told,) = after.read().workers
    assert (told.number, told.generation, told.last_beat, told.spawns) == (2, 4, 8.0, 1)
    other = after.take(1, 5)
    assert other.index != again.index
    after.give_back(again)
    assert (after.take().index, again.last_beat) == (slot.index, 0.0)
    os.close(memory)


def test_nobody_can_take_the_pulses_away() -> None:
    memory = pulses()
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)
    os.close(memory)


@pytest.mark.parametrize("call", ["memfd_create", "ftruncate"])
def test_pulses_where_the_kernel_has_no_memory_to_leave(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """As with a filter of system calls, or LimitFSIZE=0."""

    def refuse(*_: object) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(os, call, refuse)
    assert pulses() == -1
    slot = Scoreboard(pulses=pulses()).take()
    slot.beat(7.0)
    assert slot.last_beat == 7.0


# --- what workers count -----------------------------------------------------------------------


def counts(**some: int) -> dict[str, int]:
    return {**dict.fromkeys(NAMES, 0), **{name.replace("__", "."): count for name, count in some.items()}}


def test_what_is_told_is_read_in_another_process() -> None:
    board = Scoreboard(3)
    board.enter("reloading", 4, 2)
    slots = [board.take(2, 4), board.take(1, 5)]
    child = os.fork()
    if child == 0:
        slots[0].enter("draining", 77)
        slots[0].tell(counts(requests=5, connections__idle=3))
        slots[0].beat(12.0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    reading = board.read()
    assert (reading.state, reading.generation, reading.wanted, reading.deaths) == ("reloading", 4, 2, 0)
    assert [(told.number, told.generation, told.state) for told in reading.workers] == [
        (1, 5, "starting"),
        (2, 4, "draining"),
    ]
    old = reading.workers[1]
    assert (old.pid, old.last_beat, old.spawns) == (77, 12.0, 1)
    assert {name: count for name, count in old.counts.items() if count} == {"requests": 5, "connections.idle": 3}
    assert reading.now["connections.idle"] == 3
    assert abs(reading.started - time.time()) < 60
    assert abs(old.born - time.time()) < 60


def test_who_has_ended_is_still_counted_but_not_there() -> None:
    board = Scoreboard(2)
    for requests in (5, 7):
        slot = board.take(1, 1)
        slot.enter("serving", 1)
        slot.tell(counts(requests=requests, connections__idle=3))
        board.give_back(slot)
    board.died()
    slot = board.take(1, 1)
    slot.tell(counts(requests=1))
    reading = board.read()
    assert reading.totals["requests"] == 13
    assert reading.totals["connections.idle"] == 0, "a gauge is of those that live"
    assert reading.now["connections.idle"] == 0
    assert [told.spawns for told in reading.workers] == [3]
    assert reading.deaths == 1


@pytest.mark.parametrize("number", [99, -1, 2**63 - 1, -(2**63)])
def test_nonsense_is_read_as_some_number(number: int) -> None:
    """The memory is the workers' too, and what application code in one of them writes there must not end the master."""
    board = Scoreboard(3)
    slots = [board.take(1, 1) for _ in range(3)]
    for slot in slots:
        slot.numbers[module._GENERATION :] = memoryview(array("q", [number] * (module.NUMBERS - module._GENERATION)))
    reading = board.read()
    assert {told.state for told in reading.workers} <= set(module.STATES)
    assert all(count >= 0 for told in reading.workers for count in told.counts.values())
    for slot in slots:
        board.give_back(slot)
    assert 0 <= board.read().totals["requests"] <= module.MOST


@pytest.mark.parametrize("number", [99, -1, 2**63 - 1, -(2**63)])
def test_nonsense_in_the_masters_own_slot(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    board = Scoreboard(3)
    slot = board.take(1, 1)
    board._master[:] = memoryview(array("q", [number] * module.NUMBERS))
    assert board.read().state in module.MASTERS_STATES
    board.take(2, 1)
    board.died()
    board.harakiri(1)
    board.reload_failed()
    board.give_back(slot)
    board.enter("serving", 1, 2)
    assert board.read().state == "serving"


def test_nobody_is_read_while_a_worker_becomes_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-way it would be counted twice."""
    board = Scoreboard(2)
    board.take(1, 1).tell(counts(requests=5))
    board._master[module._VERSION] += 1
    board._master[module._COUNTED + COUNTERS.index("requests")] += 5
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        board._slot(1)[module._NUMBER] = 0
        board._master[module._VERSION] += 1

    monkeypatch.setattr(time, "sleep", pause)
    assert board.read().totals["requests"] == 5
    assert len(pauses) == 1


def test_harakiris_are_counted_by_number() -> None:
    """As uWSGI does it: a successor has those of who had its number before."""
    board = Scoreboard(3)
    for count in (0, 1):
        slot = board.take(2, 1)
        (told,) = board.read().workers
        assert told.harakiris == count
        board.harakiri(2)
        board.give_back(slot)
    board.take(1, 1)
    (told,) = board.read().workers
    assert (told.harakiris, board.read().harakiris) == (0, 2)


def test_calls_and_the_end() -> None:
    slot = Scoreboard(1).take()
    assert (slot.calling, slot.ends) == (0.0, 0.0)
    slot.beat(12.0, 3.5)
    slot.must_end(60.25)
    assert (slot.last_beat, slot.calling, slot.ends) == (12.0, 3.5, 60.25)
    slot.beat(13.0)
    assert slot.calling == 0.0


def test_of_two_with_one_number_the_older_is_told_first() -> None:
    board = Scoreboard(3)
    slots = [board.take(1, 1) for _ in range(3)]
    board.give_back(slots[1])
    board.take(1, 1)
    assert [told.spawns for told in board.read().workers] == [1, 3, 4]


def test_a_master_that_was_killed_half_way_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scoreboard(1)
    board._master[module._VERSION] += 1
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert board.read().workers == ()


def test_a_failed_reload_is_told_until_one_succeeds() -> None:
    board = Scoreboard(1)
    board.enter("serving", 1, 2)
    assert (board.read().failed_reloads, board.read().last_reload_failed, board.read().failure) == (0, False, "")
    board.reload_failed()
    board.enter("serving", 1, 2, "é" * 400)
    told = board.read()
    assert (told.failed_reloads, told.last_reload_failed, told.failure) == (1, True, "é" * 256)
    board.enter("serving", 1, 2, "short")
    assert (board.read().last_reload_failed, board.read().failure) == (True, "short")
    board.enter("serving", 2, 2)
    told = board.read()
    assert (told.failed_reloads, told.last_reload_failed, told.failure) == (1, False, "")
