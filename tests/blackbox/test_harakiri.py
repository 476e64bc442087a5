"""harakiri: a worker whose application is stuck in a request is killed, and the log says where it was stuck."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest

from .server import Daemon, wait_for_end, wait_until
from .test_http_to import SECONDS, Client, Truncated
from .test_life import readable, serving, workers
from .test_stats import ask

APPLICATION = """
import os, re, threading

def hold_the_gil():
    re.match("(a+)+$", "a" * 60 + "b")

def turn_for_ever():
    while True:
        sum(range(100))

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/gil":
        hold_the_gil()
    elif path == "/loop":
        turn_for_ever()
    elif path == "/wait":
        threading.Event().wait(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/large":
        return (bytes(1 << 20) for _ in range(280))
    return [str(os.getpid()).encode()]
"""
NOW = "/wait?0"


def is_killed(daemon: Daemon, host: str, path: str) -> float:
    """Asks for `path` until the connection breaks; returns how many seconds that took."""
    began = time.monotonic()
    with Client(host) as client, pytest.raises((Truncated, ConnectionError)):
        client.get(path)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("path", "function"),
    [
        pytest.param("/wait?60", "in application", id="waits"),
        pytest.param("/gil", "in hold_the_gil", id="holds the GIL"),
        pytest.param("/loop", "in turn_for_ever", id="turns"),
    ],
)
def test_a_stuck_request(path: str, function: str) -> None:
    """Its worker is killed, also where no Python code runs in it any more; a new one comes at once."""
    with serving("--processes", "2", "--harakiri", "1", application=APPLICATION) as (daemon, host):
        before = {worker.pid for worker in workers(daemon)}
        assert 1.0 <= is_killed(daemon, host, path) < 6.0
        daemon.wait_for_line(r"worker \d \(pid: \d+\) has a request that lasts longer than 1 seconds: HARAKIRI")
        daemon.wait_for_workers(2)
        assert {worker.pid for worker in workers(daemon)} != before
        stacks = [line for line in daemon.lines if re.search(r"worker \d \| ", line)]
        assert any("app.py" in line and function in line for line in stacks), daemon.log
        with Client(host) as client:
            assert client.get(NOW).status == 200


def test_the_request_is_named() -> None:
    """By the worker, where it still can."""
    with serving("--harakiri", "1", application=APPLICATION) as (daemon, host):
        is_killed(daemon, host, "/wait?60")
        daemon.wait_for_line(r"worker 1: the application has had GET /wait\?60 from 127\.\S+ for [123]\.\d seconds")


def test_as_json() -> None:
    with serving("--harakiri", "1", "--log-json", application=APPLICATION) as (daemon, host):
        is_killed(daemon, host, "/wait?60")
        daemon.wait_for_workers(1)
        texts = [json.loads(line)["message"] for line in daemon.lines if '"message"' in line]
        assert any("HARAKIRI" in text for text in texts)
        assert any(re.search(r"worker 1 \|   File .*app.py", text) for text in texts)


def test_it_is_counted() -> None:
    """As uWSGI counts: by the number of the worker, over its successors, who come at once though it died young."""
    with serving("--harakiri", "1", "--stats", "127.0.0.1:0", application=APPLICATION) as (daemon, host):
        address = re.findall(r"127\.0\.0\.1:(\d+)", daemon.wait_for_line("stats.*127.0.0.1"))[0]
        for count in (1, 2):
            is_killed(daemon, host, "/wait?60")

            def counted(count: int = count) -> bool:
                found = ask(("127.0.0.1", int(address)))
                return [w["harakiri_count"] for w in found["workers"]] == [count] and found["tls"]["harakiris"] == count

            wait_until(counted, SECONDS, lambda: daemon.log)
        wait_until(lambda: daemon.log.count("a new one comes in 0 seconds") == 2, SECONDS, lambda: daemon.log)


def test_who_is_in_time_is_left_alone() -> None:
    """Many short requests on one thread are not one long one, and what waits for its turn does not work yet."""
    with serving("--harakiri", "2", application=APPLICATION) as (daemon, host):
        (worker,) = workers(daemon)
        with Client(host) as first, Client(host) as second, Client(host) as third:
            for client in (first, second, third):
                client.send("GET", "/wait?0.8")  # 2.4 seconds in all
            assert [client.read_answer().status for client in (first, second, third)] == [200] * 3
            assert [client.get("/wait?0.8").status for client in (first, first)] == [200] * 2
        assert [found.pid for found in workers(daemon)] == [worker.pid]


def test_a_slow_reader() -> None:
    """An application that waits until its client takes some of so large a response does not work meanwhile."""
    with serving("--harakiri", "2", "--threads", "2", application=APPLICATION) as (daemon, host):
        (worker,) = workers(daemon)
        with Client(host, receive_buffer=4096) as slow, Client(host) as other:
            slow.send("GET", "/large")
            assert slow.read_head().status == 200
            for _ in range(3):
                assert other.get("/wait?1.5").status == 200, "the worker was killed"
        assert [found.pid for found in workers(daemon)] == [worker.pid]


def test_in_a_worker_that_drains() -> None:
    with serving("--harakiri", "1", application=APPLICATION) as (daemon, host), Client(host) as client:
        (old,) = workers(daemon)
        client.send("GET", "/wait?60")
        assert not readable(client, 0.2)
        os.kill(daemon.pid, signal.SIGHUP)
        assert wait_for_end(old.pid, 10)
        daemon.wait_for_line(rf"\(pid: {old.pid}\) has a request that lasts longer")
