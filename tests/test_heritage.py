"""heritage.py: what one program leaves to the next, tried between a process and itself, or its child."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import in_child

import uwsgi_tls
from uwsgi_tls import heritage
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.heritage import VARIABLE, Heritage


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def left(table: Heritage, master: int) -> dict[str, str]:
    return {VARIABLE: str(heritage.leave(table, master)), "HOME": "/"}


def test_a_first_start_inherits_nothing() -> None:
    environ = {"HOME": "/"}
    assert heritage.inherit(environ) is None
    assert heritage.left("anything") is None
    assert environ == {"HOME": "/"}


def test_descriptors_and_facts_by_name(pipe: tuple[int, int]) -> None:
    def child() -> object:
        environ = left(Heritage({"way": pipe[1], "standard": 2}, {"number": 7, "names": ["a", None]}), os.getpid())
        assert os.get_inheritable(pipe[1])
        heir = heritage.inherit(environ)
        assert heir is not None
        again = heritage.left("way")
        assert again is not None
        os.write(again, b"x")
        answer = [environ, heir.facts, heir.trial, os.get_inheritable(pipe[1]), os.get_inheritable(again)]
        heritage.forget()
        os.write(2, b"")  # it is not closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pipe[1])
        return [*answer, heritage.left("way"), os.read(pipe[0], 1).decode()]

    facts = {"number": 7, "names": ["a", None]}
    assert in_child(child) == [{"HOME": "/"}, facts, False, False, False, None, "x"]


@pytest.mark.parametrize(
    ("trial", "master", "taken"),
    [(False, "self", True), (True, "parent", True), (False, "parent", False), (True, "self", False)],
)
def test_it_is_meant_for_one_process(trial: bool, master: str, taken: bool) -> None:
    def child() -> object:
        environ = left(Heritage(trial=trial), os.getpid() if master == "self" else os.getppid())
        try:
            return heritage.inherit(environ) is not None
        except ConfigError as error:
            return str(error)

    answer = in_child(child)
    assert answer is True if taken else "it is meant for process" in answer


@pytest.mark.parametrize("text", ["x", "-1", "0", "12345678", "{pipe}", "{file}", "{unsealed}", "{other}", "{garbage}"])
def test_what_nobody_can_have_left(text: str, pipe: tuple[int, int]) -> None:
    def child() -> str:
        unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
        os.write(unsealed, json.dumps({"format": heritage.FORMAT}).encode())
        heritage.FORMAT += 1  # as another program has it
        other = heritage.leave(Heritage(), os.getpid())
        heritage.FORMAT -= 1
        garbage = os.memfd_create("x", os.MFD_ALLOW_SEALING)
        os.write(garbage, b"{")
        fcntl.fcntl(garbage, fcntl.F_ADD_SEALS, heritage._SEALS)
        fds = {"file": os.open("/etc/passwd", os.O_RDONLY), "pipe": pipe[0]}
        fds |= {"unsealed": unsealed, "other": other, "garbage": garbage}
        with pytest.raises(ConfigError) as caught:
            heritage.inherit({VARIABLE: text.format(**fds)})
        assert heritage.left("anything") is None
        return str(caught.value)

    assert "what the program before has left cannot be used: " in in_child(child)


def test_what_is_kept_while_it_is_open(pipe: tuple[int, int]) -> None:
    def child() -> object:
        heritage._kept.clear()  # of tests before
        assert heritage.keep("way", pipe[0]) == pipe[0]
        rotated = heritage.keep("log", os.dup(pipe[0]))
        os.dup2(0, rotated)  # another file under the same number
        os.close(heritage.keep("closed", os.dup(pipe[0])))
        return [heritage.kept(), pipe[0], rotated]

    kept, fd, rotated = in_child(child)
    assert kept == {"way": fd, "log": rotated}


@pytest.mark.parametrize("environ", [{}, {VARIABLE: "3"}])
def test_a_program_that_takes_over_is_traceable_for_no_longer_than_it_must(environ: dict[str, str]) -> None:
    """It has the way to the monitor before it has read anything."""
    program = "import uwsgi_tls, sys, prctl; print(prctl.get_dumpable(), 'uwsgi_tls.cli' in sys.modules)"
    path = {"PYTHONPATH": str(Path(uwsgi_tls.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env={**environ, **path}, capture_output=True, check=True)
    assert done.stdout.decode() == f"{not environ} False\n"
