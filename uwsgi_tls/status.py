"""`uwsgi-tls status`: how a server is, for people, and in an exit status for init systems and monitoring.

What /proc shows to everybody is told in any case: also of a master that is stopped, or of another user's server. The
master itself is asked with SIGUSR2 and answers in a file (status_file.py); that takes what kill(2) takes, root or
the user, and nothing has to be configured for it but a pid file.

The exit statuses are those of an init script's `status` (LSB 3.1, 20.2; systemctl(1) has the same), and one of those
that are left to applications there.
"""

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from uwsgi_tls import condition, control, tree
from uwsgi_tls.condition import Condition, span
from uwsgi_tls.control import Dead, Master, Parser, Stopped
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.status_file import GOODBYE, SUFFIX
from uwsgi_tls.tree import Process

RUNS = 0
DEAD = 1  # and the pid file is there
STOPPED = 3
UNKNOWN = 4
AILING = 150  # it runs, but something is wrong
ANSWER_SECONDS = 5.0  # a reload with many certificates takes its time
POLL_SECONDS = 0.01
ANSWER_BYTES_MAX = 1 << 24

_MASTERS_TITLE = re.compile(r"uwsgi-tls master \(generation \d+, workers (\d+)\): (\w+)")
_ROLE = re.compile(r"uwsgi-tls (worker \d+|monitor|stats)(?: \((generation \d+)\))?(?:: (\w+))?")


def run(words: Sequence[str]) -> int:
    """Prints how the server is that `words` name; returns the exit status."""
    parser = Parser(
        prog="uwsgi-tls status",
        description="Tells how a server is. The exit status is 0 if it runs and all is well, 1 if it has died and left"
        f" its pid file, 3 if it is stopped, 4 if nobody can tell, and {AILING} if it runs, but something is wrong.",
    )
    parser.add_argument("--pidfile", metavar="FILE", required=True, help="the pidfile of the server")
    try:
        pidfile = parser.parse_args(words).pidfile
        master = control.find(pidfile)
    except Stopped as error:
        print(f"stopped: {error}")
        return STOPPED
    except Dead as error:
        if _said_goodbye(pidfile):
            print(f"stopped: {error}")
            return STOPPED
        print(f"dead: {error}")
        return DEAD
    except ConfigError as error:
        print(f"unknown: {error}")
        return UNKNOWN
    try:
        answer = ask(master, pidfile)
    finally:
        os.close(master.process)
    itself = tree.process(master.pid)
    if itself is None:
        print(f"dead: pidfile = {pidfile}: its server has just ended")
        return DEAD
    members = tree.children(master.pid)
    wrong = [*filter(None, [answer.wrong]), *(answer.told.wrong if answer.told else ()), *seen(itself, members, answer)]
    for each in text(itself, members, answer, wrong):
        print("".join(c if c.isprintable() else "?" for c in each))
    return AILING if wrong else RUNS


def _said_goodbye(pidfile: str) -> bool:
    """Whether a master that could not remove its files has ended as it should."""
    try:
        return control.read(pidfile + SUFFIX, len(GOODBYE) + 1)[0] == GOODBYE
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the master says of itself, or why it says nothing: something is wrong, or it is only to be remarked."""

    told: Condition | None = None
    wrong: str = ""
    remark: str = ""


def ask(master: Master, pidfile: str) -> Answer:
    """Asks the master, and waits for ANSWER_SECONDS at most."""
    file, asked = pidfile + SUFFIX, time.monotonic()
    itself = tree.process(master.pid)
    if itself is not None and itself.state in "Tt":
        return Answer(wrong="the master is stopped, so it does not answer")
    try:
        signal.pidfd_send_signal(master.process, signal.SIGUSR2)
    except PermissionError:
        return Answer(remark="only root and the server's user are told more")
    except ProcessLookupError:
        return Answer()
    try:
        while time.monotonic() < asked + ANSWER_SECONDS:
            content, writer = control.read(file, ANSWER_BYTES_MAX)
            if os.geteuid() == 0 and writer not in (0, master.uid):
                return Answer(remark=f"no more is told: {file}: uid {writer} may write it")
            with suppress(ValueError):  # an answer to somebody else, or half of one
                told = condition.from_json(content)
                if told.moment >= asked:
                    return Answer(told)
            time.sleep(POLL_SECONDS)
    except OSError as error:
        return Answer(remark=f"no more is told: {file}: {error.strerror}")
    return Answer(wrong=f"the master does not answer within {ANSWER_SECONDS:g} seconds")


def seen(itself: Process, members: Sequence[Process], answer: Answer) -> Iterator[str]:
    """What is wrong with processes as /proc shows them; workers that are missing only if the master says nothing."""
    for each in (itself, *members):
        if each.state in "TtZ":
            yield f"process {each.pid} ({_role(each)}) is {tree.UNUSUAL[each.state]}"
    title = _MASTERS_TITLE.search(itself.title)
    if answer.told is None and title is not None and title[2] in ("serving", "reloading"):
        serving = {_role(each) for each in members if each.title.endswith(": serving")}
        for number in range(1, int(title[1]) + 1):
            if f"worker {number}" not in serving:
                yield f"worker {number} is not serving"


def text(itself: Process, members: Sequence[Process], answer: Answer, wrong: Sequence[str]) -> Iterator[str]:
    """The lines for people."""
    told = answer.told
    title = _MASTERS_TITLE.search(itself.title)
    state = told.state if told else title[2] if title else "running"
    generation = f", generation {told.generation}" if told else ""
    yield f"{state} for {span(itself.age)}{generation}: {'something is wrong' if wrong else 'all is well'}"
    yield "processes"
    by_pid = {worker.pid: str(worker) for worker in told.workers} if told else {}
    for each in (itself, *members):
        detail = by_pid.get(each.pid, "") or _detail(each)
        yield f"  {each.pid:>7}  {_role(each):<10} {span(each.age):>8} {each.resident >> 20:>5} MB  {detail}".rstrip()
    if told:
        yield "listening on"
        yield from (f"  {name}" for name in told.listeners)
        yield "certificates"
        yield from (f"  {each}" for each in told.certificates)
    if told and told.failure and told.failure not in wrong:
        yield f"last failure: {told.failure}"
    if wrong:
        yield "wrong"
        yield from (f"  {each}" for each in wrong)
    if answer.remark:
        yield answer.remark


def _role(process: Process) -> str:
    found = _ROLE.search(process.title)
    return found[1] if found else "master" if _MASTERS_TITLE.search(process.title) else "other"


def _detail(process: Process) -> str:
    found = _ROLE.search(process.title)
    words = [each for each in found.groups()[1:] if each] if found else []
    return ", ".join([*words, *([tree.UNUSUAL[process.state]] if process.state in tree.UNUSUAL else [])])
