"""intake.py: what a body is told from, where it goes, and what buys it time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from uwsgi_tls.http import CHUNKED, BadRequest
from uwsgi_tls.intake import Intake
from uwsgi_tls.service import Limits
from uwsgi_tls.spool import Disk

LIMITS = Limits(1, 1, 10, 1, 1, 4096, 100, 5000, memory_bytes=1000, body_rate=100, body_time=60)
NOW = 5000.0


@pytest.fixture
def an_intake() -> Iterator[Callable[..., Intake]]:
    """What makes an Intake, and closes its body in the end."""
    made: list[Intake] = []

    def make(length: int, limits: Limits = LIMITS, disk: Disk | None = None) -> Intake:
        made.append(Intake(length, limits, disk or Disk(), NOW))
        return made[-1]

    yield make
    for intake in made:
        intake.body.close()


@pytest.mark.parametrize(
    ("length", "sent", "body", "rest"),
    [
        pytest.param(5, b"hello", b"hello", b"", id="length"),
        pytest.param(5, b"helloGET /", b"hello", b"GET /", id="length and the next request"),
        pytest.param(CHUNKED, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello", b"", id="chunks"),
        pytest.param(CHUNKED, b"5;a=b\r\nhello\r\n0\r\nT: t\r\n\r\nGET /", b"hello", b"GET /", id="chunks and more"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_body_and_what_follows(
    an_intake: Callable[..., Intake], length: int, sent: bytes, body: bytes, rest: bytes, size: int
) -> None:
    intake = an_intake(length)
    at = 0
    while not intake.feed(sent[at : at + size], NOW):
        at += size
    assert intake.body.read(100) == body
    assert intake.rest + sent[at + size :] == rest


@pytest.mark.parametrize(
    ("length", "feeds", "left"),
    [
        pytest.param(4000, [], 10, id="nothing"),
        pytest.param(4000, [(5, 1)], 10.01, id="a byte buys what a byte may take"),
        pytest.param(4000, [(9, 3000)], 19, id="a large piece buys the time for the next"),
        pytest.param(4000, [(n, 200) for n in range(19)], 28, id="faster than it must be"),
        pytest.param(4000, [(55, 3900)], 49, id="not more than the average and what a piece may take"),
    ],
)
def test_time(an_intake: Callable[..., Intake], length: int, feeds: list[tuple[float, int]], left: float) -> None:
    intake = an_intake(length)
    for after, count in feeds:
        intake.feed(bytes(count), NOW + after)
    assert intake.deadline == pytest.approx(NOW + left)


def test_time_in_all(an_intake: Callable[..., Intake]) -> None:
    intake = an_intake(4000, replace(LIMITS, body_rate=0))
    for second in range(59):
        intake.feed(b"x", NOW + second)
    assert intake.deadline == NOW + 60


def test_the_frames_of_chunks_buy_no_time(an_intake: Callable[..., Intake]) -> None:
    """Nor do extensions or trailers: a body could last for ever without one byte of it."""
    intake = an_intake(CHUNKED)
    intake.feed(b"5\r\nhel", NOW + 1)
    before = intake.deadline
    intake.feed(b"lo", NOW + 2)
    assert intake.deadline > before
    before = intake.deadline
    for piece in (b"\r", b"\n0", b"00", b"3;a", b"=b"):
        intake.feed(piece, NOW + 5)
        assert intake.deadline == before
    intake.feed(b"\r\nabc", NOW + 6)
    assert intake.deadline > before
    before = intake.deadline
    for piece in (b"\r\n0\r\n", b"Trailer: x", b"\r\n"):
        intake.feed(piece, NOW + 7)
        assert intake.deadline == before


@pytest.mark.parametrize(
    ("length", "limits", "status"),
    [
        pytest.param(5001, LIMITS, 413, id="limit-post"),
        pytest.param(4000, LIMITS, 503, id="spool-limit"),
        pytest.param(10**9, replace(LIMITS, body_bytes=0), 503, id="spool-limit without limit-post"),
    ],
)
def test_what_is_refused_by_its_length(
    an_intake: Callable[..., Intake], length: int, limits: Limits, status: int, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest) as refused:
        an_intake(length, limits, Disk(str(tmp_path), 3000))
    assert refused.value.status == status


def test_what_memory_holds_needs_no_disk(an_intake: Callable[..., Intake], tmp_path: Path) -> None:
    intake = an_intake(1000, LIMITS, Disk(str(tmp_path), 1))
    assert intake.feed(bytes(1000), NOW)


@pytest.mark.parametrize("length", [2900, CHUNKED])
def test_a_disk_that_others_fill_meanwhile(an_intake: Callable[..., Intake], length: int, tmp_path: Path) -> None:
    disk = Disk(str(tmp_path), 3000)
    intake = an_intake(length, LIMITS, disk)
    disk.take(500)
    with pytest.raises(BadRequest, match="spool-limit") as refused:
        intake.feed(b"b54\r\n" + bytes(2890), NOW)
    assert refused.value.status == 503
    intake.body.close()
    assert disk.used == 500
