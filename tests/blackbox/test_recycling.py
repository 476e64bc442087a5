"""Workers that have served long enough are replaced, and nobody notices: no request is lost, and no place to serve."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from pki import pki

from .server import USER, Daemon, loopback, uwsgi_tls, wait_for_end, wait_until
from .test_http_to import PORT, SECONDS, Call, Client, Node
from .test_life import APPLICATION, Load, readable, serving, workers

TAKES_OVER = r"worker (\d+) \(pid: (\d+)\) takes over from worker \1 \(pid: (\d+)\)"


def takeovers(daemon: Daemon) -> list[tuple[str, str]]:
    """Each worker that took over, and from whom."""
    return [(new, old) for _, new, old in re.findall(TAKES_OVER, daemon.log)]


def wait_for_takeovers(daemon: Daemon, count: int) -> None:
    wait_until(lambda: len(takeovers(daemon)) >= count, SECONDS, lambda: daemon.log)


def place_of(daemon: Daemon, pattern: str) -> int:
    """The number of the first line in which `pattern` is found."""
    return next(number for number, text in enumerate(daemon.lines) if re.search(pattern, text))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(("--max-requests", "60"), r"\d+ requests \(max-requests\)", id="requests"),
        pytest.param(("--max-worker-lifetime", "1"), r"\d+ seconds of life \(max-worker-lifetime\)", id="age"),
        pytest.param(("--reload-on-rss", "1"), r"\d+ MB resident \(reload-on-rss\)", id="memory"),
        pytest.param(("--reload-on-as", "1"), r"\d+ MB of address space \(reload-on-as\)", id="address space"),
    ],
)
def test_under_load(options: tuple[str, str], reason: str) -> None:
    """The successor is ready before the old worker ends, which finishes what it has; no request fails."""
    with serving("--processes", "2", "--min-worker-lifetime", "0", *options) as (daemon, host):
        with Load(host) as load:
            wait_for_takeovers(daemon, 4)
            load.wait_for_more()
        assert not load.failures, load.failures[:5]
        assert re.search(rf"worker \d is to be replaced: {reason}", daemon.log), daemon.log
        for new, old in takeovers(daemon)[:2]:
            daemon.wait_for_line(rf"\(pid: {old}\) ended \(exit 0\)")
            spawned, over = place_of(daemon, rf"spawned .*\(pid: {new},"), place_of(daemon, rf"{new}\) takes over from")
            assert spawned < over < place_of(daemon, rf"\(pid: {old}\) ended")
        assert "died" not in daemon.log
    print(f"{load.requests} requests, {len(takeovers(daemon))} successors")


def test_under_load_with_backends(public_directory: Path) -> None:
    """Workers that pass requests on are replaced in the same way."""
    host, server = loopback(), pki().server_ec
    https = f"{host}:{PORT},{server.crt},{server.key_file}"
    with Node(public_directory / "node", Call.answer) as node:
        options = ("--http-to", node.path, "--processes", "2", "--max-requests", "60", "--min-worker-lifetime", "0")
        with uwsgi_tls("--https", https, *options, *USER) as daemon:
            daemon.wait_for_workers(2)
            with Load(host) as load:
                wait_for_takeovers(daemon, 3)
                load.wait_for_more()
            assert not load.failures, load.failures[:5]


def test_a_request_under_way_is_finished() -> None:
    options = ("--max-requests", "1", "--min-worker-lifetime", "0", "--threads", "2")
    with serving(*options) as (daemon, host), Client(host) as busy:
        (old,) = workers(daemon)
        busy.send("GET", "/wait?3")
        assert not readable(busy, 0.3)
        with Client(host) as client:
            assert client.get().status == 200
        wait_for_takeovers(daemon, 1)
        answer = busy.read_answer()
        assert (answer.status, answer.stays, answer.body) == (200, False, str(old.pid).encode())


def test_a_young_worker_is_left_alone() -> None:
    with serving("--max-requests", "1", "--min-worker-lifetime", "3600") as (daemon, host):
        with Load(host) as load:
            load.wait_for_more(200)
        (worker,) = workers(daemon)
        assert "is to be replaced" not in daemon.log
        os.kill(worker.pid, signal.SIGKILL)
        daemon.wait_for_line("died")


def test_a_successor_that_cannot_start() -> None:
    """The old worker serves on for as long as it takes."""
    with serving("--max-requests", "1", "--min-worker-lifetime", "0", "--forkbomb-delay", "1") as (daemon, host):
        (old,) = workers(daemon)
        app = Path(daemon.command[daemon.command.index("--wsgi-file") + 1])
        app.write_text("raise RuntimeError('broken release')\n")
        with Load(host) as load:
            for delay in ("0", "0.5", "1"):
                daemon.wait_for_line(rf"worker 1 .* died \(exit 22\); a new one comes in {delay} seconds")
            assert [worker.pid for worker in workers(daemon)] == [old.pid]
            app.write_text(APPLICATION)
            wait_for_takeovers(daemon, 1)
            load.wait_for_more()
        assert not load.failures, load.failures[:5]
        assert wait_for_end(old.pid)


def test_worker_reload_mercy() -> None:
    """It is the time of a worker that is replaced; one that stops with the server has reload-mercy."""
    with serving("--worker-reload-mercy", "1", "--reload-mercy", "30") as (daemon, host):
        (old,) = workers(daemon)
        with Client(host) as client:
            client.send("GET", "/wait?60")
            assert not readable(client, 0.3)
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.wait_for_line("generation 2 is serving")
            assert wait_for_end(old.pid, 5)
        with Client(host) as client:
            client.send("GET", "/wait?3")
            assert not readable(client, 0.3)
            os.kill(daemon.pid, signal.SIGTERM)
            assert client.read_answer().status == 200
        assert daemon.wait(5) == 0


def test_a_stop_shortens_the_time_of_those_that_are_being_replaced() -> None:
    with serving("--worker-reload-mercy", "60", "--reload-mercy", "1") as (daemon, host), Client(host) as client:
        client.send("GET", "/wait?60")
        assert not readable(client, 0.3)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("generation 2 is serving")
        daemon.wait_for_titles("draining", 1)
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.wait(5) == 0
        assert "1 connections: its time is over" in daemon.log, "it ended by itself"


def test_nobody_new_in_a_stop_and_no_reload() -> None:
    """While requests under way are finished: whoever comes is refused, to go elsewhere, and HUP is ignored."""
    with serving("--processes", "2") as (daemon, host), Client(host) as busy:
        busy.send("GET", "/wait?1.5")
        assert not readable(busy, 0.3)
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait_for_titles("draining", 1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, PORT), SECONDS)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("SIGHUP: ignored while stopping")
        assert busy.read_answer().status == 200
        assert daemon.wait(10) == 0
        assert "generation: 2" not in daemon.log


def test_a_lifetime_that_is_too_short() -> None:
    with uwsgi_tls("--https", ":1,a,b", "--max-worker-lifetime", "10") as daemon:
        assert daemon.wait() == 1
        assert "max-worker-lifetime = 10: it must be more than min-worker-lifetime = 10" in daemon.log
