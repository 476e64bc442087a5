"""kill -9 of anybody at any moment: all is back in the end, and whatever loses its master is gone.

Moments and victims are those of a seed, which is printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from pathlib import Path

import pytest
from pki import pki

from .server import USER, Daemon, Process, is_root, loopback, open_directory, uwsgi_tls, wait_until
from .test_http_to import PORT, SECONDS, Client
from .test_life import APPLICATION, Load, serving, zombies
from .test_starts import assert_nothing_is_left
from .test_stats import ask

KILLS = 200
SEED = 20
WORKERS = 4
PAUSE_SECONDS = 0.08  # at most, between two kills
OPTIONS = ("--disable-logging", "--processes", str(WORKERS), "--forkbomb-delay", "0", "--reload-mercy", "5")


def others(daemon: Daemon, *, monitor: bool = False) -> list[Process]:
    """Everybody but the master; those that have just been forked bear its title still."""
    found = [process for process in daemon.tree() if process.pid != daemon.pid]
    return [process for process in found if monitor or "monitor" not in process.title()]


def kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def pause(chance: random.Random) -> None:
    """No event to wait for: it is chance that finds the moments nobody has thought of."""
    threading.Event().wait(chance.uniform(0, PAUSE_SECONDS))


def is_whole(daemon: Daemon, stats: Path, monitors: int) -> bool:
    """Whether the tree is what it should be: neither less nor more, all of one generation, nobody unburied."""
    titles = sorted(process.title() for process in daemon.tree())
    serving = [title for title in titles if "tls worker" in title and title.endswith("serving")]
    generations = {title.partition("generation ")[2].partition(")")[0] for title in serving}
    try:
        told = {worker["status"] for worker in ask(str(stats))["workers"]}
    except OSError:  # the one that tells has just been killed
        return False
    whole = len(serving) == WORKERS and len(generations) == 1 and len(titles) == 1 + WORKERS + 1 + monitors
    return whole and told <= {"idle", "busy"} and not zombies(daemon)


def in_words(daemon: Daemon) -> str:
    return "\n".join([*(f"{each.pid} {each.title()}" for each in daemon.tree()), *zombies(daemon), daemon.log])


def test_two_hundred_kills_under_load() -> None:
    """Workers of every state, the stats process and at last the monitor, with reloads all the while."""
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    with open_directory() as directory:
        directory.chmod(0o777)
        stats = directory / "stats"
        with serving(*OPTIONS, "--respawn-limit", "0", "--stats", stats) as (daemon, host):
            with Load(host, clients=2) as load:
                for number in range(KILLS):
                    if number % 20 == 10:
                        os.kill(daemon.pid, signal.SIGHUP)
                    victims = others(daemon, monitor=number > KILLS * 3 // 4)
                    if victims:
                        kill(chance.choice(victims))
                    pause(chance)
                assert daemon.running, daemon.log
                for process in others(daemon, monitor=True):
                    if "monitor" in process.title():
                        kill(process)  # if chance has spared it
                wait_until(lambda: is_whole(daemon, stats, 0), SECONDS, lambda: in_words(daemon))
            with Load(host) as calm:
                calm.wait_for_more(50)
            assert not calm.failures, calm.failures[:5]
            os.kill(daemon.pid, signal.SIGHUP)
            wait_until(lambda: is_whole(daemon, stats, 0), SECONDS, lambda: in_words(daemon))
            if is_root:
                assert daemon.log.count("the monitor has ended") == 1
            assert "a defect" not in daemon.log
            print(f"{load.requests} requests, {len(load.failures)} failed with their workers")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, None], ids=["reload", "stop", "peace"])
def test_kills_of_the_master(number: signal.Signals | None) -> None:
    """In the middle of a reload, of a stop and of nothing, with requests under way: nobody outlives it."""
    chance = random.Random(SEED)
    for _ in range(3):
        with serving(*OPTIONS, "--worker-reload-mercy", "60") as (daemon, host), Client(host) as client:
            client.send("GET", "/wait?60")
            daemon.tree()
            if number is not None:
                os.kill(daemon.pid, number)
                pause(chance)
            daemon.tree()
            os.kill(daemon.pid, signal.SIGKILL)
            assert daemon.wait(5) == -signal.SIGKILL
            assert_nothing_is_left(daemon, host)


def test_kills_during_a_stop() -> None:
    """Those that die while they finish their work are not replaced, and do not hold the end up."""
    chance = random.Random(SEED)
    for _ in range(3):
        with serving(*OPTIONS) as (daemon, host), Client(host) as client:
            client.send("GET", "/wait?60")
            os.kill(daemon.pid, signal.SIGTERM)
            while daemon.running and (victims := others(daemon)):
                kill(chance.choice(victims))
                pause(chance)
            assert daemon.wait(5) == 0
            assert_nothing_is_left(daemon, host)


@pytest.mark.parametrize("victim", ["tls worker 1", "tls worker 2", "tls stats", "tls monitor"])
def test_kills_during_a_start(victim: str) -> None:
    """A worker that dies before it has served ends the start; without the others it goes on. Nothing is left."""
    if "monitor" in victim and not is_root:
        victim = "tls stats"
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        directory.chmod(0o777)
        (directory / "app.py").write_text("import time\ntime.sleep(1)\n" + APPLICATION)
        https = ("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *USER)
        options = (*OPTIONS, "--wsgi-file", directory / "app.py", "--stats", directory / "stats")
        with uwsgi_tls(*https, *options) as daemon:
            (found,) = daemon.wait_for_titles(victim, 1)
            kill(found)
            if "worker" in victim:
                assert daemon.wait(5) == 1
                assert_nothing_is_left(daemon, host)
            else:
                daemon.wait_for_line("generation 1 is serving")
                wait_until(
                    lambda: is_whole(daemon, directory / "stats", is_root and "monitor" not in victim), SECONDS, str
                )
