"""The benchmark's own arithmetic: CPU time of a process tree, medians and ratios. No server is measured here."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from . import load, report
from .measure import CASES, Cell, Sample, tree_cpu_ns

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
