"""tree.py: processes as /proc shows them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from uwsgi_tls import tree

SLEEPER = "import sys; print(1, flush=True); sys.stdin.read()"


def test_a_process_and_its_parent() -> None:
    before = time.monotonic()
    with subprocess.Popen(
        ["a (b) c", "-c", SLEEPER], executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = tree.process(child.pid)
        assert found is not None
        assert (found.pid, found.parent, found.title) == (child.pid, os.getpid(), "a (b) c")
        assert found.state in "SR"
        assert 0 <= found.age <= time.monotonic() - before + 0.1
        assert found.resident > 1 << 20
        assert child.pid in [each.pid for each in tree.children(os.getpid())]
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        stopped = tree.process(child.pid)
        assert stopped is not None
        assert tree.UNUSUAL[stopped.state] == "stopped"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        dead = tree.process(child.pid)
        assert dead is not None
        assert (tree.UNUSUAL[dead.state], dead.title, dead.resident) == ("ended, not yet buried", "", 0)
        child.wait()
        assert tree.process(child.pid) is None
        assert child.pid not in [each.pid for each in tree.children(os.getpid())]


def test_a_family_is_told_from_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    listdir = os.listdir

    def look(path: str) -> list[str]:
        looks.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", look)
    script = "sleep 60 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        sleeper = int(shell.stdout.readline())
        found = [each.pid for each in tree.family(os.getpid())]
        assert found[0] == os.getpid()
        assert found.index(shell.pid) < found.index(sleeper)
        assert [each.pid for each in tree.family(shell.pid)] == [shell.pid, sleeper]
        assert looks == ["/proc"] * 2
        os.kill(sleeper, signal.SIGKILL)
    assert tree.family(shell.pid) == []
