"""pace.py: until when the next piece must have come."""

from math import inf

import pytest

from uwsgi_tls.pace import Pace

BEGIN = 1000.0


@pytest.mark.parametrize(
    ("rate", "longest", "after", "total", "left"),
    [
        pytest.param(0, 0, 0, 0, 60, id="the first piece"),
        pytest.param(0, 0, 9999, 1, 60, id="no average, no end"),
        pytest.param(240, 0, 0, 0, 60, id="nothing yet"),
        pytest.param(240, 0, 30, 1, 30 + 1 / 240, id="a byte buys hardly any time"),
        pytest.param(240, 0, 59, 59, 1 + 59 / 240, id="a byte a second"),
        pytest.param(240, 0, 60, 59, 59 / 240, id="its time is over soon"),
        pytest.param(240, 0, 100, 24_000, 60, id="as fast as it must be"),
        pytest.param(240, 0, 1000, 10**9, 60, id="who was fast may rest, but for a piece's time"),
        pytest.param(240, 100, 90, 10**9, 10, id="and not beyond the end of all"),
        pytest.param(0, 100, 90, 1, 10, id="an end without an average"),
    ],
)
def test_deadline(rate: float, longest: float, after: float, total: int, left: float) -> None:
    pace = Pace(BEGIN, 60, rate, longest)
    assert pace.deadline(BEGIN + after, total) == pytest.approx(BEGIN + after + left)


def test_latest() -> None:
    assert Pace(BEGIN, 60, 0).latest(5) == inf
    assert Pace(BEGIN, 60, 10).latest(5) == BEGIN + 60.5
    assert Pace(BEGIN, 60, 10, 30).latest(5) == BEGIN + 30
