"""The clock on the wall is set while the server runs: what it says follows, what it waits for does not.

libfaketime stands between the server and clock_gettime(2) and reads in a file how far the clock is off, at each call.
The monotonic clock it leaves alone, as settimeofday(2) does.
"""

from __future__ import annotations

import email.utils
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pki import pki

from .raw_client import PORT, Site, get, post
from .server import USER, loopback, open_directory, uwsgi_tls
from .test_stats import STATS_PORT, wait_for

(LIBRARY,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")  # of Debian's package: bin/setup --test
DAY_SECONDS = 86400
# Each is longer than the test and shorter than the jump.
TIMES = ("--http-timeout", "60", "--http-keepalive=60", "--harakiri", "60", "--max-worker-lifetime", "3600")
APPLICATION = """
import threading

def application(environ, start_response):
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/wait":
        threading.Event().wait(1.0)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@contextmanager
def with_a_clock() -> Iterator[tuple[Site, Path]]:
    """A server, and the file that says how far its clock is off."""
    host, identity = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(APPLICATION)
        clock = directory / "clock"
        set_clock(clock, 0)
        environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        words = ["--https", f"{host}:{PORT},{identity.crt},{identity.key_file}", "--wsgi-file", "app.py", *USER, *TIMES]
        words += ["--threads", "2", "--stats", f"{host}:{STATS_PORT}"]
        with uwsgi_tls(*words, cwd=directory, env=environment) as daemon:
            daemon.wait_for_workers(1)
            yield Site(daemon, (host, PORT)), clock


def set_clock(clock: Path, seconds: int) -> None:
    """At once, so that nobody reads half of it."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(f"{seconds:+d}s\n")
    fresh.chmod(0o644)
    fresh.rename(clock)


@pytest.mark.parametrize("seconds", [DAY_SECONDS, -DAY_SECONDS], ids=["forward", "back"])
def test_nobody_is_given_up_because_the_clock_was_set(seconds: int) -> None:
    with with_a_clock() as (site, clock), ExitStack() as stack:
        host = site.address[0]
        worker = site.worker
        idle, called, head, body = (stack.enter_context(site.connect()) for _ in range(4))
        assert idle.ask(get("/")).status == 200
        called.send(get("/wait"))
        head.send(b"GET / HTTP/1.1\r\nHost: ser")
        body.send(post("/", b"12345")[:-2])
        expected = {"idle": 1, "application": 1, "head": 1, "body": 1}
        wait_for(host, lambda found: {k: v for k, v in found["tls"]["connections"].items() if v} == expected)
        set_clock(clock, seconds)
        beats = [wait_for(host, lambda found: abs(found["tls"]["time"] - time.time() - seconds) < 60) for _ in range(2)]
        assert called.answer().status == 200
        head.send(b"ver.lab\r\n\r\n")
        assert head.answer().status == 200
        body.send(b"45")
        assert body.answer().status == 200
        answer = idle.ask(get("/"))
        shown = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
        assert shown - time.time() == pytest.approx(seconds, abs=60), "the header does follow"
        # Who took how long is nobody's guess.
        document = wait_for(host, lambda found: found["tls"]["requests"] == 5)
        assert 1e6 < document["tls"]["running_time"] < 20e6
        took = re.search(r"GET /wait .* in (\d+) msecs", site.daemon.wait_for_line("GET /wait "))
        assert took is not None
        assert 1000 <= int(took[1]) < 20_000
        assert site.worker.pid == worker.pid, beats
        os.kill(site.daemon.pid, signal.SIGHUP)
        site.daemon.wait_for_line("generation 2 is serving")
        assert site.ask(get("/")).status == 200
        assert "too much time" not in site.daemon.log
