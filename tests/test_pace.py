"""pace.py: until when the next piece must have come."""

from math import inf

import pytest

from uwsgi_tls.pace import Pace

BEGIN = 1000.0


@pytest.mark.parametrize(
    ("rate", "longest", "moves", "left"),
    [
        pytest.param(0, 0, [(0, 0)], 60, id="the first piece"),
        pytest.param(0, 0, [(9999, 1)], 60, id="no average, no end"),
        pytest.param(240, 0, [(0, 0)], 60, id="nothing yet"),
        pytest.param(240, 0, [(30, 1)], 30 + 1 / 240, id="a byte buys hardly any time"),
        pytest.param(240, 0, [(second, 1) for second in range(60)], 1 + 60 / 240, id="a byte a second"),
        pytest.param(240, 0, [(second, 240) for second in range(101)], 60, id="as fast as it must be"),
        pytest.param(240, 0, [(0, 10**9), (59, 1)], 60, id="who was fast may rest, but for a piece's time"),
        pytest.param(240, 0, [(0, 10**9), (59, 1), (118, 1)], 2 + 2 / 240, id="and not again and again"),
        pytest.param(240, 0, [(0, 10**9), (50, 1), (100, 10**6)], 60, id="unless it is fast again"),
        pytest.param(240, 100, [(90, 10**9)], 10, id="nor beyond the end of all"),
        pytest.param(0, 100, [(90, 1)], 10, id="an end without an average"),
    ],
)
def test_deadline(rate: float, longest: float, moves: list[tuple[float, int]], left: float) -> None:
    pace = Pace(BEGIN, 60, rate, longest)
    for after, count in moves:
        pace.moved(BEGIN + after, count)
    assert pace.deadline(BEGIN + after) == pytest.approx(BEGIN + after + left)


def test_latest() -> None:
    assert Pace(BEGIN, 60, 0).latest == inf
    assert Pace(BEGIN, 60, 10).latest == BEGIN + 60
    assert Pace(BEGIN, 60, 10, 30).latest == BEGIN + 30
    pace = Pace(BEGIN, 60, 10)
    pace.moved(BEGIN, 5)
    assert pace.latest == BEGIN + 60.5
