"""upgrade.py: the trial of another program, which a test plays in the child where that would be executed.

Real programs take over in blackbox/test_upgrade.py.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from uwsgi_tls import heritage, upgrade
from uwsgi_tls.heritage import Heritage
from uwsgi_tls.upgrade import Upgrade

SECONDS = 20.0


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], object]], Upgrade]]:
    """Begins the trial of a program that does what it is given."""
    begun: list[Upgrade] = []

    def begin(program: Callable[[], object]) -> Upgrade:
        monkeypatch.setattr(upgrade, "execute", lambda heritage, master: program())
        begun.append(Upgrade(Heritage))
        begun[0].begin()
        return begun[0]

    yield begin
    begun[0].cancel()
    with pytest.raises(ChildProcessError):  # nobody is left, of those neither who have had their turn
        os.waitpid(-1, os.WNOHANG)


def outcome(trial: Upgrade) -> str:
    deadline = time.monotonic() + SECONDS
    while (said := trial.outcome(time.monotonic())) is None:
        assert time.monotonic() < deadline
        os.sched_yield()
    assert not trial.is_on_trial
    assert trial.outcome(time.monotonic()) is None, "it is told once"
    return said


def says(text: str, status: int) -> Callable[[], None]:
    def program() -> None:
        os.write(1, text.encode())
        os._exit(status)

    return program


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("", 0, ""),
        ("a warning that matters to nobody\n", 0, ""),
        ("uwsgi-tls: https = x: no such file\n", 1, "https = x: no such file"),
        ("Traceback\n  line\nSyntaxError: what\n\n", 1, "SyntaxError: what"),
        ("", 3, "it ended with wait status 768"),
    ],
)
def test_its_end_and_its_last_line(
    tried: Callable[[Callable[[], object]], Upgrade], text: str, status: int, said: str
) -> None:
    trial = tried(says(text, status))
    assert trial.is_on_trial
    assert outcome(trial) == said


def test_a_program_that_is_not_there(tried: Callable[[Callable[[], object]], Upgrade]) -> None:
    def program() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    assert outcome(tried(program)).endswith("/python: No such file or directory")


def test_one_that_never_ends(tried: Callable[[Callable[[], object]], Upgrade], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "TRIAL_SECONDS", 0.1)
    trial = tried(signal.pause)
    assert time.monotonic() < trial.moment < time.monotonic() + 1
    assert outcome(trial) == "it has not been ready within 0.1 seconds"
    assert trial.moment == float("inf")


def test_one_that_is_not_waited_for(tried: Callable[[Callable[[], object]], Upgrade]) -> None:
    trial = tried(signal.pause)
    trial.cancel()
    assert not trial.is_on_trial
    assert trial.outcome(time.monotonic()) is None


def test_what_cannot_be_executed_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setattr("sys.executable", "/nowhere")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Upgrade(Heritage).replace(Heritage({"way": read}))
    assert len(os.listdir("/proc/self/fd")) == before
    assert not os.get_inheritable(read)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("facts", "more"), [({"identity": ["www-data", 33, 33, []]}, ["-s"]), ({"identity": None}, []), ({}, [])]
)
def test_after_the_drop_no_package_of_the_users_is_imported(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, object], more: list[str]
) -> None:
    executed: list[list[str]] = []

    def execve(path: str, words: list[str], environ: object) -> None:
        executed.append(words)
        raise OSError

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-P", "-m", "uwsgi_tls"])
    with pytest.raises(OSError):  # noqa: PT011 ours
        Upgrade(Heritage).replace(Heritage({}, facts))
    assert executed == [[sys.executable, *more, "-P", "-m", "uwsgi_tls"]]


INFO = signal.struct_siginfo


def sent(code: int, pid: int, uid: int) -> signal.struct_siginfo:
    return INFO((heritage.UPGRADE, code, 0, pid, uid, 0, 0))


@pytest.mark.parametrize(
    ("info", "is_roots"),
    [
        (sent(0, 7, 0), True),
        (sent(0, 7, 33), False),
        (sent(-1, 7, 0), False),  # SI_QUEUE: who sends it chooses the uid
        (sent(-6, 7, 0), False),  # SI_TKILL: from ourselves
        (sent(0, 0, 0), False),  # what the kernel has no room to remember, such as who it was
    ],
)
def test_after_the_drop_it_is_roots_to_ask_for(info: signal.struct_siginfo, is_roots: bool) -> None:
    assert Upgrade(Heritage, only_root=True).is_welcome(info) == is_roots
    assert Upgrade(Heritage).is_welcome(info)
