"""status.py: what is made of the answer and of /proc, for people. On real servers: blackbox/test_status.py."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from uwsgi_tls import status
from uwsgi_tls.condition import Certificate, Condition, Member
from uwsgi_tls.control import Master
from uwsgi_tls.status import Answer, ask, seen, text
from uwsgi_tls.tree import Process

MB = 1 << 20
MASTER = Process(70, 1, "S", 7300.0, 30 * MB, "uwsgi-tls master (generation 3, workers 2): serving")
MONITOR = Process(71, 70, "S", 7300.0, 20 * MB, "uwsgi-tls monitor (reads certificates and keys at a reload)")
ONE = Process(72, 70, "S", 65.0, 25 * MB, "site: uwsgi-tls worker 1 (generation 3): serving")
TWO = Process(73, 70, "R", 65.0, 25 * MB, "site: uwsgi-tls worker 2 (generation 3): serving")
TOLD = Condition(
    moment=1.0,
    state="serving",
    generation=3,
    wanted=2,
    started=0,
    workers=(Member(1, 3, 72, "serving", 5, 0.0), Member(2, 3, 73, "serving", 6, 0.0)),
    listeners=("127.0.0.1:443", "/run/a.sock"),
    certificates=(Certificate("/a.crt", ("a.example",), 1_800_000_000, 1_790_000_000),),
    failure="",
    wrong=(),
)


def stopped(process: Process) -> Process:
    return Process(process.pid, process.parent, "T", process.age, process.resident, process.title)


def test_the_whole_text() -> None:
    assert list(text(MASTER, [MONITOR, ONE, TWO], Answer(TOLD), [])) == [
        "serving for 2 h, generation 3: all is well",
        "processes",
        "       70  master          2 h    30 MB",
        "       71  monitor         2 h    20 MB",
        "       72  worker 1       65 s    25 MB  generation 3, serving, 5 requests",
        "       73  worker 2       65 s    25 MB  generation 3, serving, 6 requests",
        "listening on",
        "  127.0.0.1:443",
        "  /run/a.sock",
        "certificates",
        "  /a.crt (a.example) until 2027-01-15",
    ]


def test_what_is_wrong_stands_at_the_end() -> None:
    lines = list(text(MASTER, [], Answer(TOLD), ["this", "that"]))
    assert lines[0] == "serving for 2 h, generation 3: something is wrong"
    assert lines[-3:] == ["wrong", "  this", "  that"]


def test_without_an_answer_the_titles_have_to_do() -> None:
    stats = Process(74, 70, "S", 1.0, MB, "uwsgi-tls stats")
    other = Process(75, 70, "D", 1.0, MB, "cc1")
    assert list(text(MASTER, [ONE, stats, other], Answer(remark="no more is told"), [])) == [
        "serving for 2 h: all is well",
        "processes",
        "       70  master          2 h    30 MB",
        "       72  worker 1       65 s    25 MB  generation 3, serving",
        "       74  stats           1 s     1 MB",
        "       75  other           1 s     1 MB  waits for a device",
        "no more is told",
    ]


SEEN = [
    (MASTER, [MONITOR, ONE, TWO], Answer(TOLD), []),
    (MASTER, [MONITOR, ONE, TWO], Answer(), []),
    (MASTER, [ONE], Answer(TOLD), []),  # the master says who is missing
    (MASTER, [ONE], Answer(), ["worker 2 is not serving"]),
    (stopped(MASTER), [ONE, TWO], Answer(), ["process 70 (master) is stopped"]),
    (MASTER, [ONE, stopped(TWO)], Answer(TOLD), ["process 73 (worker 2) is stopped"]),
    (Process(70, 1, "S", 1.0, MB, MASTER.title.replace("serving", "starting")), [], Answer(), []),
]


@pytest.mark.parametrize(("itself", "members", "answer", "expected"), SEEN)
def test_what_is_wrong_for_everybody_to_see(
    itself: Process, members: list[Process], answer: Answer, expected: list[str]
) -> None:
    assert list(seen(itself, members, answer)) == expected


@pytest.fixture
def deaf() -> Iterator[Master]:
    """A process that takes no notice of any signal."""
    code = "import signal, sys; signal.signal(signal.SIGUSR2, signal.SIG_IGN); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = os.pidfd_open(child.pid)
        yield Master(child.pid, os.geteuid(), process)
        os.close(process)


def test_an_answer_to_somebody_else_is_none_for_us(
    deaf: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "ANSWER_SECONDS", 0.1)
    (tmp_path / "pid.status").write_text(TOLD.to_json())
    assert ask(deaf, str(tmp_path / "pid")) == Answer(wrong="the master does not answer within 0.1 seconds")
    later = Condition(**{name: getattr(TOLD, name) for name in TOLD.__slots__} | {"moment": time.monotonic() + 60})
    (tmp_path / "pid.status").write_text(later.to_json())
    assert ask(deaf, str(tmp_path / "pid")) == Answer(later)
    (tmp_path / "pid.status").write_text("half of an ans")
    assert ask(deaf, str(tmp_path / "pid")).told is None


def test_no_file_to_answer_in(deaf: Master, tmp_path: Path) -> None:
    remark = f"no more is told: {tmp_path}/pid.status: No such file or directory"
    assert ask(deaf, str(tmp_path / "pid")) == Answer(remark=remark)


def test_failure_that_is_mended() -> None:
    told = Condition(**{name: getattr(TOLD, name) for name in TOLD.__slots__} | {"failure": "worker 1 died"})
    assert list(text(MASTER, [], Answer(told), []))[-1] == "last failure: worker 1 died"
    assert "last failure: worker 1 died" not in list(text(MASTER, [], Answer(told), ["worker 1 died"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "unknown: command = status: "),
        (["--pidfile", "/none/pid"], "stopped: pidfile = /none/pid: No such file"),
        (["--pidfile", "/dev/zero"], "unknown: pidfile = /dev/zero: is not a regular file"),
    ],
)
def test_exit_statuses_without_a_server(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.run(words) == (status.STOPPED if said.startswith("stopped") else status.UNKNOWN)
    assert capsys.readouterr().out.startswith(said)
