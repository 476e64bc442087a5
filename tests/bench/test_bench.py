"""The benchmark's own arithmetic: CPU time of a process tree, medians, ratios and what is written of them.

No server is measured here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from . import chart, document, load, report, targets
from .measure import CASES, Cell, Results, Sample, tree_cpu_ns

SPIN_NS = 100_000_000
# A thread, a child that ended and a child that lives burn SPIN_NS each, and then nothing moves any more.
TREE = f"""
import os, sys, threading, time
def spin(clock):
    end = clock() + {SPIN_NS}
    while clock() < end: pass
thread = threading.Thread(target=spin, args=[time.thread_time_ns]); thread.start(); thread.join()
if not (child := os.fork()):
    spin(time.process_time_ns); os._exit(0)
os.waitpid(child, 0)
ready, tell = os.pipe()
if not os.fork():
    spin(time.process_time_ns); os.write(tell, b"x"); sys.stdin.read(); os._exit(0)
os.read(ready, 1)
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_tree_is_counted_with_ended_threads_and_ended_children() -> None:
    with subprocess.Popen([sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        used = tree_cpu_ns(process.pid)
        process.communicate(b"")
    start_up = SPIN_NS * 1.5  # the interpreter's own start, on a busy machine
    assert 2.8 * SPIN_NS < used < 3 * SPIN_NS + start_up


def test_the_tree_is_that_of_the_given_process() -> None:
    before = tree_cpu_ns(os.getpid())
    end = time.process_time_ns() + SPIN_NS
    while time.process_time_ns() < end:
        pass
    assert tree_cpu_ns(os.getpid()) - before >= SPIN_NS


def _cell(*costs: float) -> Cell:
    return Cell([Sample(cost, 1000.0, 0.0) for cost in costs], {"TLSv1.3 X"})


def test_table_and_json_give_medians_and_their_ratio() -> None:
    case = CASES[0]
    results = {case.name: {"ours": _cell(60, 90, 61), "nginx": _cell(50, 50, 50), "uwsgi": Cell(failed="it fell")}}
    row = report.table([case], ["ours", "nginx", "uwsgi", "gunicorn"], results).splitlines()[2]
    assert row.removeprefix(case.title).split() == ["61.0", "±25%", "50.0", "±0%", "failed", "-", "1.22", "-"]
    cases = report.as_json([case], results, {}, [], 3, 1.0)["cases"]
    assert cases[0]["ratios"] == {"ours/nginx": 1.22, "ours/uwsgi": None}
    assert cases[0]["peers"]["uwsgi"]["failed"] == "it fell"


def _results(ours: float, nginx: float) -> Results:
    return {"handshake": {"ours": _cell(ours), "nginx": _cell(nginx)}}


@pytest.mark.parametrize(("ours", "kept"), [(90.0, True), (95.0, True), (95.1, False)])
def test_a_promise_is_judged_by_its_ratio(ours: float, kept: bool) -> None:
    (verdict,) = targets.verdicts(_results(ours, 100.0), {})
    assert (verdict.value, verdict.is_met) == (ours / 100, kept)


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ({"scaling.ours": 1.9}, True),
        ({"scaling.ours": 1.8}, False),
        ({"worker_mb": 13.0}, False),
        ({"crowd_p99_ms.alone": 2.0, "crowd_p99_ms.crowded": 2.4}, True),
        ({"crowd_p99_ms.alone": 2.0, "crowd_p99_ms.crowded": 2.6}, False),
    ],
)
def test_a_promise_is_judged_by_its_figure(figures: dict[str, float], kept: bool) -> None:
    assert [verdict.is_met for verdict in targets.verdicts({}, figures)] == [kept]


def test_what_was_not_measured_is_not_judged() -> None:
    assert targets.verdicts({"handshake": {"ours": _cell(1), "nginx": Cell(failed="it fell")}}, {}) == []


def test_a_run_replaces_the_last_one_in_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "picture.svg"
    monkeypatch.setattr(document, "PAGE", page)
    monkeypatch.setattr(document, "PICTURE", picture)
    page.write_text(f"before\n{document.BEGIN}old\n{document.END}after\n")
    results = _results(95.1, 100.0)
    verdicts = targets.verdicts(results, {})
    document.write("bin/bench --rounds 1", [CASES[0]], ["ours", "nginx"], results, {"scaling.ours": 1.9}, verdicts)
    text = page.read_text()
    assert text.startswith(f"before\n{document.BEGIN}")
    assert text.endswith(f"{document.END}after\n")
    assert "old" not in text
    assert "`bin/bench --rounds 1`" in text
    assert "| handshake: ours/nginx | 0.95 | ≤ 0.95 | **missed** |" in text
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")


def test_bars_are_as_long_as_their_costs() -> None:
    picture = ElementTree.fromstring(chart.svg([CASES[0]], _results(50.0, 100.0)))
    bars = [bar for bar in picture.iter("{http://www.w3.org/2000/svg}rect") if bar.get("x")]
    assert [int(bar.get("width", 0)) for bar in bars] == [chart.BAR_WIDTH_MAX // 2, chart.BAR_WIDTH_MAX]


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", (5, 2)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: x\r\n\r\nabc", (3, 0)),
    ],
)
def test_a_response_is_measured_by_its_head(data: bytes, outcome: tuple[int, int] | None) -> None:
    assert load.parse_head(data) == outcome


@pytest.mark.parametrize("data", [b"HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nabc"])
def test_an_answer_that_is_not_the_work_is_an_error(data: bytes) -> None:
    with pytest.raises(load.LoadError):
        load.parse_head(data)
