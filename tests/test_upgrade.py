"""upgrade.py: the trial of another program, which a test plays in the child where that would be executed.

Real programs take over in blackbox/test_upgrade.py.
"""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from uwsgi_tls import upgrade
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
